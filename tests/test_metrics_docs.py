"""docs/metrics.md lists every metric that the code has, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.readme import METRICS as PAGE
from tests.readme import expected_metrics
from transforms.adapters.telemetry import metrics as worker_metrics
from transforms.adapters.telemetry.metric_names import (
    COUNTER,
    HISTOGRAM,
    KINDS,
    METRICS,
    REASONS,
    expanded,
    known_counters,
    with_dots,
)
from transforms.adapters.telemetry.metrics import bucket_names
from transforms.runtime.metrics_publisher import SHARD_SIZES

ROOT = Path(__file__).parent.parent
SOURCES = [*sorted((ROOT / "transforms").rglob("*.py"))]
SOURCES_IN_JAVA = [*sorted((ROOT / "runners/flink/connectors/src/main").rglob("*.java"))]
# Where names are not counted but listed, or counted for a report.
NOT_COUNTING = {"metric_names.py", "backtest.py", "case_runner.py", "explain.py", "timelines.py"}
# What an f-string fills in stands for a placeholder of the table, or for one of these.
FILLED = {
    "users_{fetched.enrichment}": ["users_fetched", "users_unknown", "users_unavailable"],
    "enrichment_errors_{fetched.error_kind}": ["enrichment_errors_KIND"],
    "deliveries_{outcome}": [f"deliveries_{one}" for one in ("delayed", "retried", "given_up", "refused")],
    "deliveries_{decision}": ["deliveries_suppressed", "deliveries_expired"],
    "rules_{decision}": ["rules_cooled_down", "rules_capped", "rule.RULE.cooled_down", "rule.RULE.capped"],
    "rules_{own[0]}": [],
    "rules_{outcome}": [
        *("rules_capped_by_group", "rules_outranked", "rule.RULE.capped_by_group", "rule.RULE.outranked"),
    ],
    "action.webhook.{destination}.{outcome}": [
        f"action.webhook.DESTINATION.{one}"
        for one in (
            "queued",
            "delivered",
            "retried",
            "delayed",
            "refused",
            "given_up",
            "dropped",
            "suppressed",
            "expired",
        )
    ],
    "action.kafka.{action.topic or 'default'}.emitted": ["action.kafka.TOPIC.emitted"],
    "rule.{rule.name}.evaluated": ["rule.RULE.evaluated"],
    "dead_letter.{letter.reason}": ["dead_letter.REASON"],
    "shard.{memory.number}.{name}": [f"shard.SHARD.{name}" for name in SHARD_SIZES],
    "destination.{name}.breaker_open": ["destination.DESTINATION.breaker_open"],
    "destination.{name}.disabled": ["destination.DESTINATION.disabled"],
    "rule.{rule}.{event}": [],
    "{histogram}_sum": [],
}
COUNTING = {"count", "show", "set", "_count"}
HOLDING = {"counts"}


def texts(node: ast.AST) -> Iterator[str]:
    """Constants and f-strings of an expression; of the latter the source."""
    if isinstance(node, ast.JoinedStr):
        yield ast.unparse(node)[2:-1]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name) and isinstance(value := getattr(worker_metrics, node.id, None), str):
        yield value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def counted(tree: ast.AST) -> Iterator[str]:
    """Names of metrics, as far as they stand where something is counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and getattr(node.value, "attr", getattr(node.value, "id", None)) in HOLDING:
            yield from texts(node.slice)
        elif isinstance(node, ast.Return) and node.value is not None:
            yield from (text for text in texts(node.value) if re.match(r"action\.\w", text))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("self._count", "scope.count"):
            # A rule or destination, what it did, and the name of all of them together.
            if isinstance(node.args[0], ast.Name) and node.args[0].id == "rule":
                yield from (f"rule.RULE.{text}" for text in texts(node.args[1]))
            for argument in node.args[2:3]:
                yield from texts(argument)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("count", "show", "set"):
            owner = ast.unparse(node.func)
            if node.args and ("metrics." in owner or owner in ("self.show", "self.count")):
                yield from texts(node.args[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("add", "update"):
            for argument in node.args:
                keys = [argument.key] if isinstance(argument, ast.DictComp) else []
                elements = [argument.elt] if isinstance(argument, ast.GeneratorExp) else []
                for one in [*keys, *elements]:
                    if isinstance(one, ast.Tuple):
                        yield from (f"rule.RULE.{text}" for text in texts(one.elts[1]))
                    elif isinstance(one, ast.JoinedStr):
                        yield from texts(one)
            if getattr(node.func, "attr", "") == "update":
                yield from (one.arg for one in node.keywords if one.arg is not None)


def in_code() -> set[str]:
    found: set[str] = set()
    for path in SOURCES:
        if path.name not in NOT_COUNTING:
            for text in counted(ast.parse(path.read_text("utf-8"))):
                found.update(FILLED[text] if "{" in text else [text])
    for path in SOURCES_IN_JAVA:
        text = path.read_text("utf-8")
        found.update(re.findall(r'counter\("event_trigger\.(\w+)"', text))
        found.update(f"partition.PARTITION.{name}" for name in re.findall(r'name \+ "\.(\w+)"', text))
    return found


def test_every_metric_of_the_code_is_listed_and_every_listed_one_is_in_the_code() -> None:
    histograms = {metric.name for metric in METRICS if metric.kind == "histogram"}
    assert in_code() == {metric.name for metric in METRICS} - histograms


def test_the_table_is_the_one_the_code_gives() -> None:
    text = PAGE.read_text("utf-8")
    assert text == expected_metrics(text), "run make readme"


def test_no_name_is_listed_twice_and_no_two_are_one_to_prometheus() -> None:
    names = known_counters(["a", "b"], ["crm"]) + [
        one
        for metric in METRICS
        if metric.kind != COUNTER
        for one in expanded(metric.name, ["a"], ["crm"], [0, 1], [0, 1])
    ]
    shown = [re.sub(r"[^a-zA-Z0-9]", "_", name) for name in names]
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("name", ["welcome", "win_back", "error", "x-1", "timed_out"])
def test_a_name_is_known_again_without_its_dots(name: str) -> None:
    for metric in METRICS:
        for one in (
            bucket_names(metric.name) if metric.kind == HISTOGRAM else expanded(metric.name, [name], [name], [3], [3])
        ):
            assert with_dots(one.replace(".", "_")) == one
    assert with_dots("something_else") == "something_else"


@pytest.mark.parametrize("kind", KINDS)
def test_a_placeholder_is_every_name_it_may_be(kind: str) -> None:
    assert f"enrichment_errors_{kind}" in known_counters([], [])
    assert {f"dead_letter.{reason}" for reason in REASONS} <= set(known_counters([], []))
    assert "rule.win_back.fired" in known_counters(["win_back"], [])
    assert not any(name.startswith("rule.") for name in known_counters([], []))
