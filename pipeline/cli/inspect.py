"""``event-trigger inspect user``: what a running job knows of a user, without Flink or Beam."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.parameters import INSPECTIONS_TOPIC, Brokers, Count, Number, Topic, check_user, check_wait
from pipeline.console import complain, json_line, out
from pipeline.errors import OptionError
from pipeline.job.user_inspection import headline, inspect_user, is_known, sections
from transforms.domain.base import exact_json


def user(
    user_id: str,
    /,
    *,
    control_topic: Topic,
    inspections_topic: Topic = INSPECTIONS_TOPIC,
    brokers: Brokers = Brokers(),
    timeout_seconds: Number = 30.0,
    history: Count = 20,
    json: bool = False,
) -> int:
    """Show one user's state from the running job.

    Asks the job through its control topic and shows profile, visit, history, what rules remember, webhooks that wait.
    Asking changes nothing and does not count as a visit of the user.

    0: shown; 1: the job knows nothing of the user, or does not answer; 2: an option or topic cannot be used.

    Args:
        user_id: user_id.
        control_topic: the pipeline's, which is how a job is asked.
        inspections_topic: as the pipeline's.
        timeout_seconds: how long to wait.
        history: events to show.
        json: print the state as the job gives it, one JSON object.
    """
    check_wait(timeout_seconds)
    if history < 1:
        raise OptionError(f"--history is {history}, allowed: a number from 1 on")
    check_user(user_id)
    state = inspect_user(brokers.config(), control_topic, inspections_topic, user_id, timeout_seconds)
    if json:
        sys.stdout.write(json_line(exact_json.dumps(state).decode()) + "\n")
    if not is_known(state):
        complain(f"the job knows nothing of user {user_id!r}: never seen, or forgotten")
        return 1
    if not json:
        for line in text_lines(state, round(time.time() * 1000), history):
            out(line)
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
