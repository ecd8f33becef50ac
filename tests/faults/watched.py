"""A job with a few rules, and the comparison of what it fired with what the events' producer expects."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from runners.flink.rest import TERMINAL_STATES, FlinkRest
from tests.faults.dumps import DumpWatch
from tests.faults.experiment import OPTIONS, Result
from tests.faults.stack import Stack, within
from tests.faults.verdict import FilterResult
from tests.integration.jobs import Reader, Topics, reading, submit

_SETTLED_S = 90.0

# Rule and event id of an action.
Firing = tuple[str, str]


@dataclass
class Run:
    """A job's topics and rules, and the job once it is submitted."""

    stack: Stack
    topics: Topics
    options: Sequence[str]
    rules: Path
    job_id: str = ""

    @property
    def rest(self) -> FlinkRest:
        """A client of the JobManager that leads."""
        return self.stack.flink.rest

    def submit(self) -> None:
        """Start the job."""
        self.job_id = submit(self.stack.flink, self.topics, self.rules, *self.options)

    def completed(self) -> int:
        """Checkpoints completed so far."""
        return int(self.rest.checkpoints(self.job_id)["counts"]["completed"])


@contextmanager
def watched(
    stack: Stack,
    folder: Path,
    result: Result,
    rules: Sequence[dict[str, Any]],
    expected: Callable[[], Counter[Firing]],
    *options: str,
) -> Iterator[Run]:
    """Topics and rules for a job that the caller submits. At the end what it fired is compared with ``expected``.

    Fills in ``result.verdict``: lost is what did not fire, duplicated what fired for nothing.
    """
    topics, path = Topics(stack.kafka), folder / "rules.yaml"
    path.write_text(yaml.safe_dump_all([rule | {"version": 1, "actions": [{"type": "kafka"}]} for rule in rules]))
    run = Run(stack, topics, [*OPTIONS, *options], path)
    with ExitStack() as around:
        actions = around.enter_context(reading(stack.kafka, topics.actions))
        dumps = around.enter_context(DumpWatch(stack, stack.dumps, result.fault, lambda: _job(run)))
        try:
            yield run
            _judge(run, actions, expected(), result.verdict)
        except AssertionError as error:
            if run.job_id:
                error.add_note(f"seed {result.seed}, job {run.job_id}: {run.rest.why(run.job_id)}")
            error.add_note(f"stacks: {[str(path) for path in [*dumps.files, dumps.dump(str(error))]]}")
            raise
        finally:
            if run.job_id and run.rest.job(run.job_id)["state"] not in TERMINAL_STATES:
                run.rest.cancel(run.job_id)
                run.rest.wait_for_state(run.job_id, {"CANCELED"}, 180)
            result.notes |= dumps.notes()
        stack.check_nothing_is_left()
    assert result.verdict.problems == []


def _job(run: Run) -> Any:
    return run.rest.job(run.job_id) if run.job_id else {"vertices": []}


def _judge(run: Run, actions: Reader, expected: Counter[Firing], verdict: FilterResult) -> None:
    """Wait until there are as many actions as expected, or none for a while; then for those that are too many."""
    seen, since_s = -1, time.monotonic()
    while len(actions.messages) < expected.total() and time.monotonic() - since_s < _SETTLED_S:
        actions.settle(0.5)
        if len(actions.messages) != seen:
            seen, since_s = len(actions.messages), time.monotonic()
    done = run.completed()
    within(lambda: run.completed() >= done + 2, lambda: "no checkpoints", 180)
    actions.settle(2)
    fired = Counter(
        (dict(message.headers())["rule"].decode(), str(orjson.loads(message.value())["event"]["event_id"]))
        for message in actions.messages
    )
    missing, wrong = expected - fired, fired - expected
    verdict.actions, verdict.lost, verdict.duplicated = expected.total(), missing.total(), wrong.total()
    verdict.problems += [f"{missing.total()} did not fire: {sorted(missing)[:10]}"] if missing else []
    verdict.problems += [f"{wrong.total()} fired for nothing: {sorted(wrong)[:10]}"] if wrong else []
