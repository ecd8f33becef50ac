"""Outputs that pages show are what commands print."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.doctor.checks import check_topics
from pipeline.cli.doctor.command import _text_line
from pipeline.cli.main import main
from pipeline.cli.status import status_text, verdict_lines
from pipeline.embedded.stream import bundled_records
from pipeline.embedded.user_api import UserApi
from pipeline.job.health import Facts, verdict_of
from pipeline.job.snapshot import JobSnapshot
from pipeline.job.status import status_of
from pipeline.launch.findings import FAIL, OK, Finding
from pipeline.launch.options import FLINK_RUNNER, Settings
from pipeline.launch.options.resolving import SOURCES, Sources
from tests.docs.conftest import shell_blocks
from tests.docs.outputs import OF_DEMO, OUTPUTS, PICTURE, RUN, block_of, must_show
from tests.docs.pages import PAGES, ROOT, Block, PageError
from tests.docs.session import checkout, outputs_of
from transforms.adapters.telemetry.metrics import BOUNDS_MS
from transforms.domain.shard.decisions import Decision

CHECKS = (ROOT / "pipeline" / "launch" / "findings.py").read_text("utf-8")
SHOWN = [block for page in PAGES for block in page.blocks if not block.language]
# The demo's are held by tests/docs/long.
PRINTED = [block for block in SHOWN if block.page in RUN and not block.text.startswith(OF_DEMO)]


def no_check(block: Block) -> str:
    return (
        f"{block.place}: no test compares this output with the real one: add it to tests/docs/outputs.py with the "
        f"test that does, as ({block.page!r}, {block.first_line!r}); a block that is no output has a language"
    )


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.place)
def test_every_output_has_a_check(block: Block) -> None:
    assert block.page in RUN or (block.page, block.first_line) in OUTPUTS, no_check(block)


def test_every_check_has_its_output_and_is_there() -> None:
    shown = {(block.page, block.first_line) for block in SHOWN}
    assert [output for output in OUTPUTS if output not in shown] == []
    for checked_by in set(OUTPUTS.values()) - {PICTURE}:
        path, _, name = checked_by.partition("::")
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        assert callable(getattr(module, name, None)), checked_by


@pytest.mark.parametrize("block", PRINTED, ids=lambda block: block.place)
def test_what_is_run_prints_what_the_page_says(block: Block, printed: Mapping[str, str]) -> None:
    before = [shell for shell in shell_blocks(block.page) if shell.line < block.line][-1]
    must_show(block, printed[before.place])


def test_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "decisions.jsonl"
    at = 1_704_099_600_000

    def record(decision: str, after_ms: int, event_id: str, **fields: Any) -> bytes:
        named = {"user_id": "u1", "event_id": event_id, "rule": "offer", "version": 3}
        return Decision(decision=decision, time=at + after_ms, **named, **fields).to_json() + b"\n"

    sent = {"action": "webhook", "destination": "crm", "action_id": "9f1cab"}
    failed = {"attempts": 3, "status": 503, "latency_ms": 210, "detail": "status: 503"}
    log.write_bytes(
        record("fired", 120, "e17", event_name="page_view", **sent)
        + record("retried", 1480, "e17", **failed, **sent)
        + record("delivered", 9900, "e17", attempts=4, status=200, latency_ms=85, **sent)
        + record("capped", 22_364_003, "e93", event_name="page_view", detail="1 per day")
    )

    assert main(["why", "--user=u1", "--rule=offer", f"--decisions_file={log}"]) == 0

    first = "2024-01-01T09:00:00.120Z  fired        offer 3  page_view e17  action webhook to crm, 9f1c…"
    must_show(block_of("docs/decisions.md", first), capsys.readouterr().out)


def test_config_show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = next(page for page in PAGES if page.name == "docs/configuration.md")
    (file,) = [block.text for block in page.blocks if block.language == "yaml"]
    (tmp_path / "event-trigger.yaml").write_text(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENT_TRIGGER_USER_SHARDS", "64")
    assert main(["config", "show", "--profile=production"]) == 0
    SOURCES.set(Sources())
    must_show(block_of("docs/configuration.md", "event-trigger.yaml, profile production"), capsys.readouterr().out)


def test_capacity(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--events_per_second=1000000", "--users=10000000"]) == 0
    first = "load           1,000,000 events/s  10,000,000 users in the state"
    must_show(block_of("docs/capacity.md", first), capsys.readouterr().out)


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rule.yaml").write_text(
        "name: us_page_view\nversion: 1\nactions: [{type: debug}]\n"
        'filter: event.event_name == "page_view" and user.country == "US"\n'
    )
    event = '{"event_id": "e", "user_id": "u", "event_name": "page_view", "timestamp": 1704067200000}'
    (tmp_path / "event.json").write_text(event)
    (tmp_path / "given.yaml").write_text("profile: {country: DE}")

    given = ["--event", str(tmp_path / "event.json"), "--given", str(tmp_path / "given.yaml")]
    assert main(["rules", "explain", str(tmp_path / "rule.yaml"), *given]) == 0

    must_show(block_of("docs/rules.md", "us_page_view version 1: does not fire"), capsys.readouterr().out)


def test_backtest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"".join(value + b"\n" for _, value in bundled_records()))
    with UserApi() as api:
        arguments = [
            str(Path(__file__).with_name("backtested.yaml")),
            f"--events={events}",
            f"--user_api_url={api.url}",
        ]
        assert main(["rules", "backtest", *arguments]) == 0
    (block,) = (
        block for block in SHOWN if block.page == "docs/rules.md" and block.first_line.startswith("2,400 events")
    )
    must_show(block, capsys.readouterr().out)


def test_doctor() -> None:
    settings = Settings(runner=FLINK_RUNNER, bootstrap_servers="broker-1:9092", parallelism=8)
    topics = dict.fromkeys((settings.events_topic, settings.actions_topic, settings.dead_letters_topic), 4)
    problem = "not in the JobManager's class path"
    advice = "copy the jars that `python -m runners.flink.artifacts` names into lib/ of every node and restart them"
    assert problem in CHECKS
    assert advice in CHECKS
    partitions = [finding for finding in check_topics(settings, topics) if finding.check == "Partitions"]
    findings = [
        Finding("Kafka", OK, "broker-1:9092 answers, 12 topics"),
        *partitions,
        Finding("Connectors", FAIL, problem, advice),
    ]
    printed = "".join(f"{_text_line(one)}\n" for one in findings)
    must_show(block_of("docs/operations.md", "ok    Kafka        broker-1:9092 answers, 12 topics"), printed)


def test_status() -> None:
    def latency(*counts: int) -> dict[str, list[int]]:
        """Of 310 actions: how many took up to each bound."""
        return {f"latency_ms_le_{bound}": [count] for bound, count in zip((*BOUNDS_MS, "inf"), counts, strict=True)}

    job = {"jid": "1", "name": "event-trigger", "state": "RUNNING", "duration": 3_725_000, "now": 100_000}
    checkpoints = {
        "counts": {"completed": 62, "failed": 0},
        "latest": {"completed": {"end_to_end_duration": 321, "state_size": 5_000_000, "latest_ack_timestamp": 96_000}},
    }
    before = JobSnapshot(
        10, job, 0, checkpoints, 0, 17, {"action.webhook.crm.delivered": [6125], "rule.welcome.fired": [1_152_380]}
    )
    ours = {
        "events_handled": [4936],
        "actions": [620],
        **latency(2, 20, 240, 480, 616, 620, 620, 620, 620, 620, 620, 620),
        "shard.0.users": [1204],
        "partition.0.time_behind_ms": [11_000],
        "user_api_calls": [96],
        "rules_live": [1],
        "rule_set": [4],
        "rule.welcome.fired": [1_153_000],
        "action.webhook.crm.delivered": [6330],
        "action.webhook.crm.retried": [2],
        "destination.crm.disabled": [0],
    }
    status = status_of(before, JobSnapshot(12, job, 0, checkpoints, 4936, 17, ours))
    verdict = verdict_of(Facts("flink:8081", "event-trigger", status))
    printed = "\n".join([*verdict_lines(verdict), "", status_text(status)])
    must_show(block_of("docs/operations.md", "HEALTHY"), printed)


# The comparison itself tells equal from different outputs.


@pytest.mark.parametrize(
    ("shown", "printed", "true"),
    [
        ("a\nb\n", "x\na\nb\ny\n", True),
        ("a\nb\n", "a\nx\nb\n", False),
        ("a\n…\nb\n", "a\nx\ny\nb\n", True),
        ("a\n...\n", "a\n", True),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a b\nc\n", False),
        ("a\n", "ab\n", False),
        ("1 case, 0 failed in 0.01 s\n", "1 case, 0 failed in 1.42 s\n", True),
        ("1 case, 0 failed in 0.01 s\n", "2 cases, 0 failed in 0.01 s\n", False),
        ("5 of 2; 3,468 events/s\n", "5 of 2; 17 events/s\n", True),
        ("a.b\n", "axb\n", False),
    ],
)
def test_an_output_differs_from_another(shown: str, printed: str, true: bool) -> None:
    block = Block("a.md", 3, "", shown)
    if true:
        must_show(block, printed)
    else:
        with pytest.raises(PageError, match=r"a\.md:3: this is not what is printed"):
            must_show(block, printed)


def test_an_output_without_a_check_is_named() -> None:
    assert "docs/x.md:9: no test compares this output" in no_check(Block("docs/x.md", 9, "", "hello\n"))


def test_a_block_that_fails_is_named(tmp_path: Path) -> None:
    good, bad = Block("a.md", 1, "sh", "a=5\necho $a\n"), Block("a.md", 9, "sh", "echo $a; ls /nowhere/at/all\n")
    place = checkout(tmp_path)
    assert outputs_of([good], place, 20) == {"a.md:1": "5\n"}
    with pytest.raises(PageError, match=r"(?s)a\.md:9: fails.*5\n.*nowhere"):
        outputs_of([good, bad], place, 20)
