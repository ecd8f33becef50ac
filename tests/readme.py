"""Writes the generated parts of docs/{capacity,configuration,infrastructure,metrics}.md; ``python -m tests.readme``."""

import re
from pathlib import Path

import pipeline.schemas
from pipeline.launch.options.fields import REFERENCE, Option
from pipeline.launch.options.settings import GROUPS, OPTIONS
from pipeline.schemas import SCHEMAS
from tests import capacity_docs
from tests.schemas import build
from transforms.adapters.telemetry.metric_names import METRICS as ALL_METRICS

DOCS = Path(__file__).parent.parent / "docs"
_PACKAGED = Path(pipeline.schemas.__file__).parent
CAPACITY = DOCS / "capacity.md"
INFRASTRUCTURE = DOCS / "infrastructure.md"
CONFIGURATION = DOCS / "configuration.md"
METRICS = DOCS / "metrics.md"
# The part of the job that a group configures.
_PARTS = {
    "Kafka": "How every Kafka client reaches the brokers: Flink's source and sink, the workers, the launcher and all "
    "commands ([Kafka's security](kafka-security.md)).",
    "Input": "What the Kafka sources read, and how they form micro-batches.",
    "State and enrichment": "What the stateful step, in the Python workers, stores of users, and how it calls the "
    "user API.",
    "Rules": "Where rules come from (launcher and workers), and how their Lua runs (workers).",
    "Output": "Where actions, dead letters and records about them go. The workers send webhooks.",
    "Flink": "How the launcher submits the job, and how Flink runs it.",
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
        rows = [_row(option) for option in OPTIONS.values() if option.heading == group.heading]
        heading = "| option | type | unit | default | allowed | meaning |\n|---|---|---|---|---|---|"
        sections.append("\n".join([f"### {group.heading}", "", _PARTS[group.heading], "", heading, *rows]))
    return "\n\n".join(sections)


def _row(option: Option) -> str:
    unit = "" if option.unit in (_PATH, _SHARE, REFERENCE) else option.unit or ""
    cells = [f"`--{option.name}`", _type(option), unit, _default(option), _allowed(option), option.text]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(option: Option) -> str:
    if option.unit in (_PATH, REFERENCE):
        return "path" if option.unit == _PATH else "reference"
    names = {bool: "switch", int: "whole number", float: "number", tuple[str, ...]: "text, repeatable", Path: "path"}
    return "choice" if option.choices else names.get(option.kind, "text")


def _default(option: Option) -> str:
    shown = option.shown_default
    return shown if shown in ("none", "off") and not option.choices else f"`{shown}`"


def _allowed(option: Option) -> str:
    """Choices, or bounds."""
    if option.choices:
        return ", ".join(f"`{choice}`" for choice in option.choices)
    if option.least is None and option.most is None:
        return ""
    return f"from {option.least}" if option.most is None else f"{option.least} to {option.most}"


def write_schemas() -> None:
    """Write the JSON Schemas into the package and docs/schemas/."""
    for name in SCHEMAS:
        for file in schema_files(name):
            file.parent.mkdir(exist_ok=True)
            file.write_text(build(name), "utf-8")


def schema_files(name: str) -> list[Path]:
    """Where a schema is: in the package, in docs/schemas/, and that of rules also where it was first published."""
    copies = [folder / f"{name}.schema.json" for folder in (_PACKAGED, DOCS / "schemas")]
    return [*copies, DOCS / "rule.schema.json"] if name == "rule" else copies


if __name__ == "__main__":
    write_schemas()
    CAPACITY.write_text(capacity_docs.expected(CAPACITY.read_text("utf-8")), "utf-8")
    INFRASTRUCTURE.write_text(capacity_docs.expected_costs(INFRASTRUCTURE.read_text("utf-8")), "utf-8")
    CONFIGURATION.write_text(expected(CONFIGURATION.read_text("utf-8")), "utf-8")
    METRICS.write_text(expected_metrics(METRICS.read_text("utf-8")), "utf-8")
