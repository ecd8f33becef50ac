"""F4, F5, F7, F8, F35: what the job depends on goes away or becomes slow, and comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.builders import NOW_MS, event, random_stream
from tests.faults.experiment import CHECKPOINT_S, RECOVERY_LIMIT_S, USERS, Experiment, Result, experiment
from tests.faults.load import Record
from tests.faults.stack import Stack, within
from tests.integration.jobs import PARTITIONS

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]
OPEN = "killed with a transaction open"
# A breaker opens after so many failed calls in a row; so many may be on their way then (--user_api_concurrency).
FAILURES, IN_FLIGHT = 20, 32
# No event waits longer for a profile (--enrichment_deadline_seconds).
DEADLINE_S = 10


def kill_broker(run: Experiment) -> None:
    """SIGKILL the broker; it is started again on its data a random time later."""
    kafka, done = run.stack.kafka, run.completed()
    run.result.notes[OPEN] = run.result.notes.get(OPEN, 0) + open_transactions(run)
    struck_s = run.strike()
    kafka.kill()
    run.pause(0, 3)
    kafka.restart()
    # It may or may not have taken the job along; in either case something is committed again.
    run.recover(struck_s, lambda: run.completed() > done + 1)
    run.stack.check_no_orphans()


def open_transactions(run: Experiment) -> bool:
    """Whether there are actions that readers of committed records do not see yet."""
    ends = []
    for level in ("read_uncommitted", "read_committed"):
        config = {"bootstrap.servers": run.stack.kafka.bootstrap_servers, "group.id": "ends", "isolation.level": level}
        consumer = Consumer(config)
        try:
            partitions = [TopicPartition(run.topics.actions, number) for number in range(PARTITIONS)]
            ends.append(sum(consumer.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions))
        finally:
            consumer.close()
    return bool(ends[0] > ends[1])


def test_f4_the_broker_is_killed(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F4", "SIGKILL of the Kafka broker", 5, seed))
    with experiment(stack, tmp_path, result) as run:
        for _ in range(result.times):
            run.pause(2, 8)
            kill_broker(run)
    assert len(result.recovery_s) == result.times
    assert result.notes[OPEN] > 0
    assert max(result.recovery_s) <= RECOVERY_LIMIT_S


def test_f5_s3_is_away_for_two_minutes(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F5", "S3 refuses connections for 120 s", 1, seed))
    without_s3(stack, tmp_path, result, stack.s3.down, 120)


def test_f35_s3_asks_to_slow_down_for_a_minute(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    """Its client waits longer for that than for an endpoint that is away."""
    result = results(Result("F35", "S3 answers 503 SlowDown for 60 s", 1, seed))
    without_s3(stack, tmp_path, result, stack.s3.slow_down, 60)


def without_s3(stack: Stack, tmp_path: Path, result: Result, away: Callable[[], None], outage_s: float) -> None:
    """Events are handled all the time, and soon after the outage there is a checkpoint again."""
    with experiment(stack, tmp_path, result) as run:
        run.pause(0, CHECKPOINT_S)
        away()
        try:
            down_s = time.monotonic()
            time.sleep(CHECKPOINT_S)
            done = run.completed()
            time.sleep(max(0.0, down_s + outage_s - time.monotonic()))
            assert run.completed() == done, "checkpoints went on: the endpoint was not away"
        finally:
            stack.s3.up()
        run.recover(time.monotonic(), lambda: run.completed() > done)
        # All the time events were handled: nothing restarted.
        assert run.restarts() == 0
        result.notes["failed checkpoints"] = run.rest.checkpoints(run.job_id)["counts"]["failed"]
    assert result.recovery_s[0] <= 2 * CHECKPOINT_S


def test_f7_the_user_api_is_down_for_two_minutes(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    outage_s = 120
    result = results(Result("F7", f"the user API answers 503 for {outage_s} s", 1, seed))
    others_begin = threading.Event()
    with experiment(stack, tmp_path, result, stream=answered_users_then_all(seed, others_begin), rate=60) as run:
        wait_for_answered_users(run)
        run.gate.status = 503
        others_begin.set()
        # The first users fail until the breakers open: 20 in a row, and those that were on their way.
        first, workers = len(run.gate.calls), len(stack.workers())
        time.sleep(10)
        opened, opened_s = len(run.gate.calls), time.monotonic()
        time.sleep(outage_s - 10)
        calls = len(run.gate.calls) - opened
        result.notes["calls of a worker in the first 10 s"] = round((opened - first) / workers)
        result.notes["then, a second"] = round(calls / (time.monotonic() - opened_s) / workers, 2)
        assert result.notes["calls of a worker in the first 10 s"] <= FAILURES + IN_FLIGHT + 10 * 2
        assert result.notes["then, a second"] <= 2
        assert run.restarts() == 0
        first = len(run.gate.calls)
        run.gate.status = None
        back_s = time.monotonic()
        # The next event of a user whose fetch failed fetches again: soon every user has a profile.
        within(
            lambda: run.unanswered_users <= users_called(run, first),
            lambda: "not everybody was asked for",
            2 * outage_s,
        )
        result.recovery_s.append(time.monotonic() - back_s)


def test_f8_the_user_api_takes_five_seconds(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    slow_s, measured_s = 5.0, 60.0
    result = results(Result("F8", f"the user API takes {slow_s:g} s for an answer, for {measured_s:g} s", 1, seed))
    others_begin = threading.Event()
    with experiment(stack, tmp_path, result, stream=answered_users_then_all(seed, others_begin)) as run:
        wait_for_answered_users(run)
        answered_users = set(USERS) - run.unanswered_users
        before = webhooks_of(run, answered_users, 20)
        run.gate.delay_s = slow_s
        others_begin.set()
        meanwhile = webhooks_of(run, answered_users, measured_s)
        result.notes["webhooks a second of known users"] = f"{before:.1f}, then, half of all, {meanwhile:.1f}"
        # The way there and back takes its time as well: that of users who wait for nothing.
        way, slowest = slowest_webhook(run, answered_users), slowest_webhook(run, run.unanswered_users)
        result.notes["slowest webhook of a known user"] = f"{way:.1f} s, of one who is not: {slowest:.1f} s"
        first = len(run.gate.calls)
        run.gate.delay_s = 0.0
        back_s = time.monotonic()
        within(lambda: run.unanswered_users <= users_called(run, first), lambda: "not everybody was asked for", 120)
        result.recovery_s.append(time.monotonic() - back_s)
    assert slowest <= DEADLINE_S + way
    # In the stream their share has halved by then.
    assert meanwhile >= before / 2 * 0.5


def answered_users_then_all(seed: int, others_begin: threading.Event) -> Iterator[Record]:
    """Yield events of the first half of the users, and of all users once ``others_begin`` is set."""
    for number, user in enumerate(USERS[: len(USERS) // 2]):
        body = event(user, event_id=f"first-{number}", event_name="click", event_type="click", timestamp=NOW_MS - 1)
        yield user.encode(), orjson.dumps(body)
    unanswered_users = {user.encode() for user in USERS[len(USERS) // 2 :]}
    for key, value in random_stream(seed, len(USERS), 10**9):
        if others_begin.is_set() or key not in unanswered_users:
            yield key, value


def wait_for_answered_users(run: Experiment) -> None:
    """The first half of the users is in the state, and in a checkpoint; of the others no profile has come."""
    run.unanswered_users |= set(USERS[len(USERS) // 2 :])
    run.receiver.until(lambda: len(run.receiver.seen) >= len(USERS) // 2, 60)
    run.wait_for_checkpoints(1)


def users_called(run: Experiment, first: int) -> set[str]:
    """Users whom the API has been asked for, from a certain call on."""
    return {call.partition("/")[0] for call in run.gate.calls[first:]}


def slowest_webhook(run: Experiment, users: set[str]) -> float:
    """The longest time from an event of these users to its webhook."""
    came: dict[tuple[str, str], float] = {}
    for at_s, (_, _, body) in zip(list(run.receiver.times), list(run.receiver.seen), strict=False):
        came.setdefault(_identity(orjson.loads(body)["event"]), at_s)
    sent: dict[tuple[str, str], float] = {}
    for *_, value, at_s in list(run.load.ledger):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            sent.setdefault(_identity(orjson.loads(value)), at_s)
    return max(at_s - sent[key] for key, at_s in came.items() if key in sent and key[0] in users)


def _identity(body: dict[str, Any]) -> tuple[str, str]:
    return body["user_id"], body["event_id"]


def webhooks_of(run: Experiment, users: set[str], seconds: float) -> float:
    """Webhooks a second of these users' events."""
    first = len(run.receiver.seen)
    time.sleep(seconds)
    return sum(orjson.loads(body)["event"]["user_id"] in users for _, _, body in run.receiver.seen[first:]) / seconds
