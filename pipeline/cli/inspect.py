"""``python -m pipeline inspect user``: what a running job knows of a user, without Flink or Beam."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipeline.cli.command_line import CommandGroup, add_kafka_options, add_topic_option, kafka_config, required
from pipeline.console import json_line, one_line
from pipeline.errors import OptionError
from pipeline.job.user_inspection import headline, inspect_user, is_known, sections
from transforms.domain.base import exact_json

_DESCRIPTION: Final = """\
Asks the running job for a user's state through its control topic and shows it: profile, visit, history, what rules
remember, webhooks that wait. Asking changes nothing and does not count as a visit of the user.
0: shown; 1: the job knows nothing of the user, or does not answer; 2: an option or topic cannot be used."""
_ROWS: Final = 20


def main(argv: Sequence[str]) -> int:
    """Show a user's state; the exit code."""
    parser = CommandGroup("inspect", __doc__)
    user = parser.add(
        "user",
        _inspect,
        "one user's state from the running job",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    user.add_argument("user_id", metavar="USER", help="user_id")
    user.add_argument("--control_topic", metavar="TOPIC", help="as the pipeline's; required")
    add_topic_option(user, "inspections_topic")
    add_kafka_options(user)
    user.add_argument(
        "--timeout_seconds", type=float, default=30.0, metavar="NUMBER", help="how long to wait (default: 30)"
    )
    user.add_argument("--history", type=int, default=_ROWS, metavar="NUMBER", help=f"events to show (default: {_ROWS})")
    user.add_argument("--json", action="store_true", help="print the state as the job gives it, one JSON object")
    return parser.run(argv)


def _inspect(arguments: argparse.Namespace) -> int:
    required(arguments, "control_topic", "the pipeline's, which is how a job is asked")
    if not 0 < arguments.timeout_seconds <= 3600:
        raise OptionError(f"--timeout_seconds is {arguments.timeout_seconds:g}, allowed: above 0, up to 3600")
    if arguments.history < 1:
        raise OptionError(f"--history is {arguments.history}, allowed: a number from 1 on")
    try:
        arguments.user_id.encode()
    except UnicodeEncodeError:
        raise OptionError(f"USER is {arguments.user_id!r}, allowed: UTF-8") from None
    topics = arguments.control_topic, arguments.inspections_topic
    state = inspect_user(kafka_config(arguments), *topics, arguments.user_id, arguments.timeout_seconds)
    if arguments.json:
        sys.stdout.write(json_line(exact_json.dumps(state).decode()) + "\n")
    elif is_known(state):
        lines = text_lines(state, round(time.time() * 1000), arguments.history)
        sys.stdout.writelines(f"{one_line(line)}\n" for line in lines)
    if not is_known(state):
        sys.stderr.write(f"error: the job knows nothing of user {arguments.user_id!r}: never seen, or forgotten\n")
        return 1
    return 0


def text_lines(state: Mapping[str, Any], now_ms: int, history_rows: int) -> Iterator[str]:
    """The state as lines of text. They may hold control characters: see ``one_line``."""
    yield f"user {state['user_id']}"
    yield from headline(state, now_ms)
    for section in sections(state, now_ms, history_rows):
        yield ""
        yield section.title
        rows = [section.headings, *section.rows] if section.headings else section.rows
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
