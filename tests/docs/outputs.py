"""Blocks that show the output of a command or a picture, and the test that checks each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tests.docs.pages import PAGES, Block, Page, PageError

PICTURE: Final = "a picture"
QUICK_START: Final = "docs/quick-start.md"
README: Final = "README.md"
GUIDE: Final = "docs/writing-rules.md"
# Pages whose shell blocks are run one after the other, all in one checkout, as by somebody who reads them in order;
# an output is of the shell block above. What needs Kafka or Flink is run by tests/docs/long.
RUN: Final = (README, QUICK_START, GUIDE)
# How outputs of the demo begin.
OF_DEMO: Final = ("ACTION", "rules: changed")
_NOT_HERE: Final = ("make demo", "make test", "make connectors", "broker-1:9092", "flink:8081")
_THIS: Final = "tests/docs/test_outputs.py"

# Page and first line -> the test that compares the block with the real output, or a picture.
OUTPUTS: Final[Mapping[tuple[str, str], str]] = {
    ("ARCHITECTURE.md", "transforms/"): PICTURE,
    ("ARCHITECTURE.md", "micro-batch ─▶ HandleEvents (transforms/handle_events.py): open journal ─▶ "
     "domain.shard.step ─▶ append entry, emit, arm timers"): PICTURE,
    ("docs/capacity.md", "load           1,000,000 events/s  10,000,000 users in the state"): f"{_THIS}::test_capacity",
    ("docs/configuration.md", "event-trigger.yaml, profile production"): f"{_THIS}::test_config_show",
    ("docs/decisions.md", "2024-01-01T09:00:00.120Z  fired        offer 3  page_view e17  action webhook to crm, "
     "9f1c…"): f"{_THIS}::test_why",
    ("docs/infrastructure.md", "laptop ── SSM session ──▶ JobManager :8081 on its loopback          S3: checkpoints, "
     "HA metadata, savepoints, artifacts"): PICTURE,
    ("docs/operations.md", "ok    Kafka        broker-1:9092 answers, 12 topics"): f"{_THIS}::test_doctor",
    ("docs/operations.md", "exists        user-tracking-events  as it should be  (--events_topic)"):
     "tests/pipeline/cli/test_topics.py::test_the_docs_show_what_is_printed",
    ("docs/operations.md", "HEALTHY"): f"{_THIS}::test_status",
    ("docs/operations.md", "Prometheus: http://127.0.0.1:31220    alerts: http://127.0.0.1:31220/classic/alerts    "
     "targets: http://127.0.0.1:31220/classic/targets"): "tests/integration/test_demo.py::"
     "test_demo_shows_actions_and_every_panel_and_leaves_nothing_after_ctrl_c",
    ("docs/operations.md", "user user_1"): "tests/pipeline/job/test_user_inspection.py::"
     "test_the_docs_show_what_is_printed",
    ("docs/rules.md", "us_page_view version 1: does not fire"): f"{_THIS}::test_explain",
    ("docs/rules.md", "2,400 events of 149 users, 2024-01-01T00:00:00Z to 2024-01-01T00:39:20Z (0:39:20); 3,468 "
     "events/s"): f"{_THIS}::test_backtest",
    ("runners/flink/connectors/README.md", "micro-batch     = [1, kind, topic, [record…]]       kind: 0 events, 1 "
     "control records"): "tests/transforms/domain/events/test_micro_batch.py::"
     "test_the_wire_format_is_what_the_contract_says",
}  # fmt: skip

_SHOWN_CHARACTERS: Final = 3000
# Parts that depend on the machine and the time.
_LOOSE: Final = re.compile(r"(…|(?<=in )\d+\.\d\d(?= s)|\d[\d,]*(?= events/s))")


def run_blocks(page: Page) -> tuple[Block, ...]:
    """Shell blocks that are run, in order."""
    shell = (block for block in page.blocks if block.language == "sh")
    return tuple(block for block in shell if not any(word in block.text for word in _NOT_HERE))


def block_of(page: str, first_line: str) -> Block:
    """The output block of a page that begins with a line."""
    (output,) = (
        block
        for known in PAGES
        if known.name == page
        for block in known.blocks
        if not block.language and block.first_line == first_line
    )
    return output


def must_show(block: Block, output: str) -> None:
    """Compare a block with what was really printed.

    The output must have the block's lines, one after the other. ``…`` stands for any text within a line, a line of
    ``…`` or ``...`` for any lines. Times and speeds may differ.

    Raises:
        PageError: the output differs; the message has file, line and what was printed.
    """
    pattern = "".join(_pattern(line) for line in block.text.strip("\n").splitlines())
    if re.search(f"(?m)^{pattern}", output + "\n") is None:
        last = output[-_SHOWN_CHARACTERS:]
        raise PageError(f"{block.place}: this is not what is printed. Printed is\n{last}\nshown is\n{block.text}")


def _pattern(line: str) -> str:
    if line.strip() in ("…", "..."):
        return r"(?:.*\n)*?"
    parts = _LOOSE.split(line.rstrip())
    for number, part in enumerate(parts):
        parts[number] = re.escape(part) if number % 2 == 0 else ".*?" if part == "…" else r"[\d.,]+"
    return "".join(parts) + " *\n"
