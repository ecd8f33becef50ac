"""One experiment: the pipeline under a steady load, a fault that strikes it, and the verdict on what came out."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Message

from runners.flink.rest import TERMINAL_STATES, FlinkRest
from tests.builders import oracle_rules, random_stream, record, rule_documents, user_api_of
from tests.faults.dumps import DumpWatch
from tests.faults.load import Load, Record
from tests.faults.stack import GONE_S, Stack, within
from tests.faults.verdict import (
    HOOK_DOCUMENT,
    HOOK_RULE,
    Fault,
    FilterResult,
    firings_of_webhooks,
    judge,
    repeats_from_before,
)
from tests.flink_cluster import restarts, running_since
from tests.integration.jobs import ROOT, Reader, Topics, inspect, reading, submit
from tests.integration.user_api import Gate, serve_users
from tests.oracle import Oracle, SeenAction
from tests.receiver import SECRET, Receiver, receiving

USERS = tuple(f"user-{number:04d}" for number in range(500))
EVENTS = 20_000
CHECKPOINT_S = 5.0
# "RUNNING within 60 s, hard limit 180 s" (notes/reliability.md, F1).
RECOVERY_GOAL_S = 60.0
RECOVERY_LIMIT_S = 180.0
# After this long without an output no more is expected.
_SETTLED_S = 60.0

OPTIONS = (
    "--user_shards=32",
    "--parallelism=4",
    "--workers_per_task_manager=1",
    "--delivery_guarantee=EXACTLY_ONCE",
    f"--checkpointing_interval_ms={CHECKPOINT_S * 1000:.0f}",
)


@dataclass
class Result:
    """A row of the table in docs/reliability.md, as it is kept in JSON."""

    fault: str
    what: str
    times: int
    seed: int
    recovery_s: list[float] = field(default_factory=list)
    verdict: FilterResult = field(default_factory=FilterResult)
    notes: dict[str, Any] = field(default_factory=dict)

    def add_to(self, earlier: dict[str, Any]) -> None:
        """Count what an earlier piece of the same fault, as it is kept in JSON, found as well."""
        self.times += earlier["times"]
        self.recovery_s = [*earlier["recovery_s"], *self.recovery_s]
        for name, value in earlier["verdict"].items():
            setattr(self.verdict, name, value + getattr(self.verdict, name))
        for name, value in earlier["notes"].items():
            self.notes[name] = max(value, self.notes.get(name, value))

    def to_json(self) -> dict[str, Any]:
        """With the day and the commit."""
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        row = asdict(self) | {"date": datetime.now(UTC).date().isoformat(), "commit": commit}
        return row | {"recovery_s": [round(seconds, 1) for seconds in self.recovery_s]}


@dataclass
class Experiment:
    """A running job with everything around it, for faults to strike.

    ``known`` is what the user API returns from now on. The user API may have been silent when events of
    ``unanswered_users`` came: nothing that depends on their profiles is compared.
    """

    stack: Stack
    topics: Topics
    job_id: str
    load: Load
    receiver: Receiver
    gate: Gate
    known: dict[str, Any]
    chance: random.Random
    result: Result
    rules: Path
    options: Sequence[str]
    known_at_first: dict[str, Any]
    changes: list[tuple[int, Callable[[Oracle], None]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unanswered_users: set[str] = field(default_factory=set)

    @property
    def rest(self) -> FlinkRest:
        """A client of the JobManager that leads."""
        return self.stack.flink.rest

    def pause(self, least_s: float, most_s: float) -> None:
        """Sleep for a random time; the load goes on."""
        time.sleep(self.chance.uniform(least_s, most_s))

    def running_since(self) -> int:
        """When the job last began to run."""
        return running_since(self.rest, self.job_id)

    def restarts(self) -> int:
        """How often the job has been restarted."""
        return restarts(self.rest, self.job_id)

    def completed(self) -> int:
        """Checkpoints completed so far, as the JobManager counts them."""
        return int(self.rest.checkpoints(self.job_id)["counts"]["completed"])

    def wait_for_checkpoints(self, count: int, deadline_s: float = 180) -> float:
        """Wait for ``count`` more completed checkpoints. Returns the seconds it took."""
        target = self.completed() + count
        return within(lambda: self.completed() >= target, lambda: f"{self.completed()} of {target}", deadline_s)

    def runs_again(self, since: int) -> bool:
        """Whether the job has restarted since then and every task runs."""
        job = self.rest.job(self.job_id)
        assert job["state"] not in TERMINAL_STATES, self.rest.why(self.job_id)
        tasks = {vertex["status"] for vertex in job["vertices"]}
        return job["timestamps"]["RUNNING"] > since and job["state"] == "RUNNING" and tasks == {"RUNNING"}

    def move(self, *options: str, meanwhile: Callable[[], Callable[[Oracle], None]]) -> None:
        """Stop the job with a savepoint when it has handled all there is, and start from it with other options.

        ``meanwhile`` is done while no job runs; it answers with what that means for the oracle.
        """
        self.load.stop()
        self.topics.wait_for_commits(len(self.load.ledger), 60)
        self.strike()  # a webhook may be on its way
        savepoint = self.rest.stop(self.job_id)
        self.changes.append((len(self.load.ledger), meanwhile()))
        self.job_id = submit(
            self.stack.flink, self.topics, self.rules, *self.options, *options, f"--savepoint_path={savepoint}"
        )
        self.faults[-1].over_s = time.time()
        self.load.start()

    def oracle(self, history_size: int) -> Oracle:
        """An oracle that was fed the ledger, with every change in its place."""
        oracle = Oracle([*oracle_rules(), HOOK_RULE], copy.deepcopy(self.known_at_first), history_size=history_size)
        oracle.now_ms = time.time_ns() // 1_000_000  # events of the far future are refused
        first = 0
        for last, change in [*self.changes, (len(self.load.ledger), lambda oracle: None)]:
            for key, value in self.load.records(first, last):
                oracle.feed(key, value, None, record(value, key).timestamp_ms)
            change(oracle)
            first = last
        return oracle

    def strike(self) -> float:
        """Write down that the fault strikes now. Returns the time of the monotonic clock."""
        triggered_ms = self.rest.checkpoints(self.job_id)["latest"]["completed"]["trigger_timestamp"]
        self.faults.append(Fault(triggered_ms / 1000, time.time()))
        return time.monotonic()

    def recover(self, struck_s: float, healthy: Callable[[], bool]) -> None:
        """Wait until ``healthy`` holds and write down the seconds since the strike."""
        within(healthy, lambda: f"not recovered: {self.rest.why(self.job_id)}", RECOVERY_LIMIT_S, 0.1)
        self.result.recovery_s.append(time.monotonic() - struck_s)
        if self.faults:
            self.faults[-1].over_s = time.time()


@contextmanager
def experiment(
    stack: Stack,
    folder: Path,
    result: Result,
    *options: str,
    rate: float = 100.0,
    stream: Iterator[Record] | None = None,
    gate: Gate | None = None,
    events: int = EVENTS,
    users: Sequence[str] = USERS,
    history_size: int = 20,
    crowded: str | None = None,
    gone_s: float = GONE_S,
    max_in_flight: int | None = None,
) -> Iterator[Experiment]:
    """The pipeline under load while the context is open. At its end everything is compared, and nothing may be left
    after ``gone_s``.

    Histories are short, so that they are full: of most users there are no more than 40 events.

    Fills in ``result.verdict``; a fault's own figures go to ``result.notes``.
    """
    topics = Topics(stack.kafka)
    known = user_api_of(users)
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump_all([*rule_documents("kafka"), HOOK_DOCUMENT]))
    at_gate = gate or Gate()
    with ExitStack() as around:
        receiver = around.enter_context(receiving())
        api = around.enter_context(serve_users(known, at_gate))
        actions = around.enter_context(reading(stack.kafka, topics.actions))
        dead_letters = around.enter_context(reading(stack.kafka, topics.dead_letters))
        inspections = around.enter_context(reading(stack.kafka, topics.inspections))
        all_options = [
            *_destinations(folder, receiver.url, max_in_flight),
            f"--user_api_url={api}",
            f"--control_topic={topics.control}",
            *OPTIONS,
            f"--history_size={history_size}",
            *options,
        ]
        random_events = random_stream(result.seed, len(users), 10**9)
        load = Load(stack.kafka.bootstrap_servers, topics.events, stream or random_events, rate)
        run = Experiment(
            stack,
            topics,
            submit(stack.flink, topics, rules, *all_options),
            load,
            receiver,
            at_gate,
            known,
            random.Random(result.seed),
            result,
            rules,
            all_options,
            copy.deepcopy(known),
        )
        dumps = around.enter_context(DumpWatch(stack, stack.dumps, result.fault, lambda: run.rest.job(run.job_id)))
        try:
            load.start()
            try:
                run.wait_for_checkpoints(1)
                yield run
            finally:
                load.stop()
            load.finish(events)
            oracle = run.oracle(history_size)
            fired = firings_of_webhooks(oracle)
            kafka_actions = sum(action.rule != HOOK_RULE.name for action in oracle.actions)
            _settle(run, actions, kafka_actions, len(fired))
            seen = _seen(actions.settle(1))
            letters = {
                (dead_letter["partition"], dead_letter["offset"]): dead_letter
                for dead_letter in (orjson.loads(message.value()) for message in dead_letters.settle(1))
            }
            states = inspect(topics, inspections, list(users), 60)
            webhooks = [(webhook_id, body) for webhook_id, _, body in receiver.seen]
            once = {ids for ids, bodies in fired.items() if len(bodies) == 1}
            arrived = [
                (at_s, webhook_id)
                for at_s, (webhook_id, body) in zip(receiver.times, webhooks, strict=True)
                if (row := orjson.loads(body)["event"]) and (row["user_id"], row["event_id"]) in once
            ]
            result.verdict = judge(
                oracle, len(load.ledger), seen, webhooks, letters.values(), states, run.unanswered_users, crowded
            )
            result.verdict.problems += [*receiver.bad, *repeats_from_before(run.faults, arrived)[:5]]
        except AssertionError as error:
            error.add_note(f"seed {result.seed}, job {run.job_id}: {run.rest.why(run.job_id)}")
            error.add_note(f"stacks: {[str(path) for path in [*dumps.files, dumps.dump(str(error))]]}")
            raise
        finally:
            if run.rest.job(run.job_id)["state"] not in TERMINAL_STATES:
                run.rest.cancel(run.job_id)
                run.rest.wait_for_state(run.job_id, {"CANCELED"}, 180)
            result.notes |= dumps.notes()
        stack.check_nothing_is_left(gone_s)
    assert result.verdict.problems == []


def _settle(run: Experiment, actions: Reader, expected: int, hooks: int) -> None:
    """Read until all expected outputs have come, or none for ``_SETTLED_S``; others may still come."""

    def received() -> tuple[int, int]:
        return len(actions.messages), len({webhook_id for webhook_id, _, _ in list(run.receiver.seen)})

    so_far, since_s = received(), time.monotonic()
    while (so_far[0] < expected or so_far[1] < hooks) and time.monotonic() - since_s < _SETTLED_S:
        actions.settle(0.5)
        if received() != so_far:
            so_far, since_s = received(), time.monotonic()
    run.wait_for_checkpoints(2)


def _seen(messages: Sequence[Message]) -> list[SeenAction]:
    """The actions; equal events in their histories are one object, or an hour's would not go into memory."""
    events: dict[str, Any] = {}
    seen = []
    for message in messages:
        action = SeenAction.of_kafka(message.value(), message.headers())
        history = [events.setdefault(repr(event), event) for event in action.body["eventHistory"]]
        action.body["eventHistory"] = history
        seen.append(action)
    return seen


def _destinations(folder: Path, url: str, max_in_flight: int | None) -> list[str]:
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    retry = {"first": "1s", "longest": "5s", "give_up_after": "1h"}
    destination: dict[str, Any] = {
        "name": "crm",
        "url": f"{url}/crm",
        "secrets": [f"file:{secret}"],
        "timeout": "30s",
        "retry": retry,
    }
    if max_in_flight is not None:
        destination["max_in_flight"] = max_in_flight
    (folder / "destinations.yaml").write_text(yaml.safe_dump({"destinations": [destination]}))
    return [f"--destinations={folder / 'destinations.yaml'}", "--allow_private_destinations"]


def earlier_pieces(results: Path | None, fault: str, times: int) -> dict[str, Any] | None:
    """What the file has of a fault that is run in pieces, unless all its ``times`` are done: then it begins anew."""
    kept = json.loads(results.read_text()).get(fault) if results is not None and results.exists() else None
    return kept if kept is not None and kept["times"] < times else None


def write(results: Path, result: Result) -> None:
    """Put a result into the file that holds the last of each fault."""
    kept = json.loads(results.read_text()) if results.exists() else {}
    kept[result.fault] = result.to_json()
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(dict(sorted(kept.items(), key=lambda item: int(item[0][1:]))), indent=1) + "\n")
