"""Writes the generated parts of docs/{capacity,configuration,metrics}.md; ``python -m tests.readme``."""

import re
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from pipeline.launch.options import Settings
from pipeline.launch.options.fields import FLINK, GROUPS, INPUT, OUTPUT, RULES, STATE
from pipeline.launch.options.parsing import shown_default
from pipeline.launch.options.settings import HINTS
from tests import capacity_docs
from transforms.adapters.telemetry.metric_names import METRICS as ALL_METRICS

DOCS = Path(__file__).parent.parent / "docs"
CAPACITY = DOCS / "capacity.md"
CONFIGURATION = DOCS / "configuration.md"
METRICS = DOCS / "metrics.md"
# The part of the job that a group configures.
_PARTS = {
    INPUT: "What the Kafka sources read, how they form micro-batches, and settings of Kafka clients.",
    STATE: "What the stateful step, in the Python workers, stores of users, and how it calls the user API.",
    RULES: "Where rules come from (launcher and workers), and how their Lua runs (workers).",
    OUTPUT: "Where actions, dead letters and records about them go. The workers send webhooks.",
    FLINK: "How the launcher submits the job, and how Flink runs it.",
}
# Units that the type or the bounds already express.
_PATH, _SHARE = "path", "0 to 1"
_OPTIONS_PART = re.compile(r"(<!-- options:.*?-->\n).*?(<!-- /options -->)", re.DOTALL)
_METRICS_PART = re.compile(r"(<!-- metrics:.*?-->\n).*?(<!-- /metrics -->)", re.DOTALL)


def expected(text: str) -> str:
    """docs/configuration.md as it should be."""
    return _OPTIONS_PART.sub(lambda found: f"{found[1]}\n{options_tables()}\n\n{found[2]}", text)


def _metrics_table() -> str:
    rows = [f"| `{metric.name}` | {metric.kind} | {metric.meaning} |" for metric in ALL_METRICS]
    return "\n".join(["| name | kind | meaning |", "|---|---|---|", *rows])


def expected_metrics(text: str) -> str:
    """docs/metrics.md as it should be."""
    return _METRICS_PART.sub(lambda found: f"{found[1]}\n{_metrics_table()}\n\n{found[2]}", text)


def options_tables() -> str:
    """Every option in Markdown: a section a group, a row an option."""
    sections = []
    for group in GROUPS:
        rows = [_row(option) for option in fields(Settings) if option.metadata["group"] == group]
        heading = "| option | type | unit | default | allowed | meaning |\n|---|---|---|---|---|---|"
        sections.append("\n".join([f"### {group}", "", _PARTS[group], "", heading, *rows]))
    return "\n\n".join(sections)


def _row(option: Field[Any]) -> str:
    meta = option.metadata
    unit = meta.get("unit", "")
    shown_unit = "" if unit in (_PATH, _SHARE) else unit
    cells = [f"`--{option.name}`", _type(option), shown_unit, _default(option), _allowed(meta), meta["text"]]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(option: Field[Any]) -> str:
    hint = HINTS[option.name]
    if hint is bool:
        return "switch"
    if hint in (int, int | None):
        return "whole number"
    if hint in (float, float | None):
        return "number"
    if hint == tuple[str, ...]:
        return "text, repeatable"
    if hint == Path | None or option.metadata.get("unit") == _PATH:
        return "path"
    return "choice" if "choices" in option.metadata else "text"


def _default(option: Field[Any]) -> str:
    shown = shown_default(option)
    return shown if shown in ("none", "off") and "choices" not in option.metadata else f"`{shown}`"


def _allowed(meta: Mapping[str, Any]) -> str:
    """Choices, or bounds."""
    if "choices" in meta:
        return ", ".join(f"`{choice}`" for choice in meta["choices"])
    least, most = meta.get("least"), meta.get("most")
    if least is None and most is None:
        return ""
    return f"from {least}" if most is None else f"{least} to {most}"


if __name__ == "__main__":
    CAPACITY.write_text(capacity_docs.expected(CAPACITY.read_text("utf-8")), "utf-8")
    CONFIGURATION.write_text(expected(CONFIGURATION.read_text("utf-8")), "utf-8")
    METRICS.write_text(expected_metrics(METRICS.read_text("utf-8")), "utf-8")
