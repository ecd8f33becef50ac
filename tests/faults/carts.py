"""Carts that are filled and, every other one, checked out: sequences whose right outcome the producer knows."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Producer

from runners.flink.rest import TERMINAL_STATES, FlinkRest
from tests.faults.dumps import DumpWatch
from tests.faults.experiment import OPTIONS, Result
from tests.faults.stack import Stack, within
from tests.faults.verdict import FilterResult
from tests.integration.jobs import PARTITIONS, Reader, Topics, reading, submit

WITHIN_S = 10
# The latest that an event may reach Kafka after its timestamp so that the verdict is the one that the producer knows:
# half of --allowed_lateness_seconds.
_LATE_S = 5.0
_SETTLED_S = 90.0
RULE = {
    "name": "abandoned",
    "version": 1,
    "filter": 'event.event_name == "add_to_cart"',
    "sequence": {"not_followed_by": 'event.event_name == "checkout"', "within": f"{WITHIN_S}s"},
    "actions": [{"type": "kafka"}],
}


@dataclass
class Carts:
    """A thread that fills ``rate`` carts a second, each of a user of its own, in all partitions alike.

    Every other user checks out within the sequence's time. While a partition has a producer in ``transactions``, its
    checkouts go there; which users these were is in ``in_transaction``.
    """

    bootstrap_servers: str
    topic: str
    rate: float
    chance: random.Random
    filled: list[str] = field(default_factory=list)
    checked_out: set[str] = field(default_factory=set)
    transactions: dict[int, Producer] = field(default_factory=dict)
    in_transaction: dict[int, set[str]] = field(default_factory=dict)
    latest_s: float = 0.0

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, "acks": "all"})
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to fill carts."""
        self._thread = threading.Thread(target=self._run, name="carts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Fill no more carts. Returns when those that are to be checked out are."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        assert self._producer.flush(60) == 0
        assert self.latest_s <= _LATE_S, f"an event was written {self.latest_s:.1f} s late: nothing is shown"

    def abandoned(self) -> set[str]:
        """Users for whom the rule must fire."""
        return set(self.filled) - self.checked_out

    def _run(self) -> None:
        due: list[tuple[float, int, str]] = []  # checkouts
        next_s, number = time.time(), 0
        while due or not self._stopped.is_set():
            at_s = due[0][0] if due and (self._stopped.is_set() or due[0][0] <= next_s) else next_s
            if (wait_s := at_s - time.time()) > 0:
                self._producer.poll(0)
                time.sleep(min(wait_s, 0.1))
                continue
            if due and due[0][0] == at_s:
                _, partition, user = heapq.heappop(due)
                self._check_out(user, partition, at_s)
                continue
            user, partition = f"cart-{number:05d}", number % PARTITIONS
            self.filled.append(user)
            self._produce(self._producer, user, partition, "add_to_cart", at_s)
            if number // PARTITIONS % 2:
                heapq.heappush(due, (at_s + self.chance.uniform(0.5, WITHIN_S - 1), partition, user))
            number += 1
            next_s += 1 / self.rate

    def _check_out(self, user: str, partition: int, at_s: float) -> None:
        transaction = self.transactions.get(partition)
        if transaction is not None:
            self.in_transaction.setdefault(partition, set()).add(user)
        self.checked_out.add(user)
        self._produce(transaction or self._producer, user, partition, "checkout", at_s)

    def _produce(self, producer: Producer, user: str, partition: int, name: str, at_s: float) -> None:
        body = {"event_id": f"{user}-{name}", "user_id": user, "event_name": name, "timestamp": int(at_s * 1000)}
        producer.produce(self.topic, orjson.dumps(body), user.encode(), partition=partition)
        producer.poll(0)
        self.latest_s = max(self.latest_s, time.time() - at_s)


@dataclass
class Run:
    """A running job that watches carts."""

    stack: Stack
    topics: Topics
    carts: Carts
    options: Sequence[str]
    rules: Path
    job_id: str = ""

    @property
    def rest(self) -> FlinkRest:
        return self.stack.flink.rest

    def submit(self) -> None:
        """Start the job."""
        self.job_id = submit(self.stack.flink, self.topics, self.rules, *self.options)

    def completed(self) -> int:
        """Checkpoints completed so far."""
        return int(self.rest.checkpoints(self.job_id)["counts"]["completed"])


@contextmanager
def watched_carts(stack: Stack, folder: Path, result: Result, *options: str, rate: float = 20.0) -> Iterator[Run]:
    """A job's topics, rule and carts. At the end the actions are compared with what the carts' producer knows.

    The caller submits the job and starts the carts, in the order that it needs.
    """
    topics = Topics(stack.kafka)
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump(RULE))
    carts = Carts(stack.kafka.bootstrap_servers, topics.events, rate, random.Random(result.seed))
    run = Run(stack, topics, carts, [*OPTIONS, *options], rules)
    with ExitStack() as around:
        actions = around.enter_context(reading(stack.kafka, topics.actions))
        dumps = around.enter_context(DumpWatch(stack, stack.dumps, result.fault, lambda: _job(run)))
        try:
            try:
                yield run
            finally:
                carts.stop()
            result.verdict = _judge(run, actions)
        except AssertionError as error:
            if run.job_id:
                error.add_note(f"seed {result.seed}, job {run.job_id}: {run.rest.why(run.job_id)}")
            raise
        finally:
            if run.job_id and run.rest.job(run.job_id)["state"] not in TERMINAL_STATES:
                run.rest.cancel(run.job_id)
                run.rest.wait_for_state(run.job_id, {"CANCELED"}, 60)
            if dumps.files:
                result.notes["stacks of slow cancellations"] = ", ".join(path.name for path in dumps.files)
        stack.check_nothing_is_left()
    assert result.verdict.problems == []


def _job(run: Run) -> Any:
    return run.rest.job(run.job_id) if run.job_id else {"vertices": []}


def _judge(run: Run, actions: Reader) -> FilterResult:
    """Wait until the rule has fired for all abandoned carts, or for nobody for a while; then for what is too many."""
    expected = run.carts.abandoned()
    seen, since_s = -1, time.monotonic()
    while len(_fired(actions)) < len(expected) and time.monotonic() - since_s < _SETTLED_S:
        actions.settle(0.5)
        if len(actions.messages) != seen:
            seen, since_s = len(actions.messages), time.monotonic()
    done = run.completed()
    within(lambda: run.completed() >= done + 2, lambda: "no checkpoints", 60)
    actions.settle(2)
    fired = _fired(actions)
    missing, wrong = Counter(expected) - fired, fired - Counter(expected)
    verdict = FilterResult(len(run.carts.filled) + len(run.carts.checked_out), len(expected))
    verdict.lost, verdict.duplicated = missing.total(), wrong.total()
    verdict.problems += [f"{missing.total()} carts were abandoned silently: {sorted(missing)[:10]}"] if missing else []
    verdict.problems += [f"fired {wrong.total()} times for nothing: {sorted(wrong)[:10]}"] if wrong else []
    return verdict


def _fired(actions: Reader) -> Counter[str]:
    return Counter(str(orjson.loads(message.value())["event"]["user_id"]) for message in actions.messages)
