"""F24: a day of records is read at full speed on a machine that has other work."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from runners.flink.local.processes import Process, stop_all
from tests.faults.experiment import Result
from tests.faults.stack import Stack
from tests.faults.watched import Firing, watched

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(900)]

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
DAY_MS = 24 * _HOUR_MS
EVENTS, USERS = 120_000, 400
BUSY, STANDSTILL_S = 4, 15.0
_NAMES = ("page_view", "page_view", "page_view", "add_to_cart", "checkout")
VIEWED = 'event.event_name == "page_view"'
RULES: list[dict[str, Any]] = [
    {"name": "capped", "filter": VIEWED, "cap": {"count": 2, "window": "2h"}},
    {"name": "cooled", "filter": VIEWED, "cooldown": "1h"},
    {
        "name": "abandoned",
        "filter": 'event.event_name == "add_to_cart"',
        "sequence": {"not_followed_by": 'event.event_name == "checkout"', "within": "30m"},
    },
]


def day(first_ms: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Events of 24 hours in their order, about as many in each minute."""
    times = sorted(chance.randrange(DAY_MS) for _ in range(EVENTS))
    for number, at_ms in enumerate(times):
        user = f"user-{chance.randrange(USERS):04d}"
        yield {
            "event_id": f"e{number}",
            "user_id": user,
            "event_name": chance.choice(_NAMES),
            "timestamp": first_ms + at_ms,
        }


def firings(events: Iterable[dict[str, Any]]) -> Counter[Firing]:
    """What the three rules must fire for, if events come in their order and the last sequences end, too."""
    found: Counter[Firing] = Counter()
    capped: dict[str, list[int]] = defaultdict(list)
    cooled: dict[str, int] = {}
    carts: dict[str, dict[str, Any]] = {}
    for event in events:
        user, at_ms, name = event["user_id"], event["timestamp"], event["event_name"]
        if name == "page_view":
            if sum(before > at_ms - 2 * _HOUR_MS for before in capped[user]) < 2:
                capped[user].append(at_ms)
                found["capped", event["event_id"]] += 1
            if at_ms - cooled.get(user, -DAY_MS) >= _HOUR_MS:
                cooled[user] = at_ms
                found["cooled", event["event_id"]] += 1
        if user in carts and at_ms > carts[user]["timestamp"] + 30 * _MINUTE_MS:
            found["abandoned", carts.pop(user)["event_id"]] += 1
        if name == "add_to_cart":
            carts[user] = event  # also when a sequence is open: it begins again
        elif name == "checkout":
            carts.pop(user, None)
    found.update(("abandoned", event["event_id"]) for event in carts.values())
    return found


@contextmanager
def other_work(folder: Path) -> Iterator[None]:
    """Processes that take all the time of the processors they can get."""
    busy = [
        Process.start(f"busy-{number}", [sys.executable, "-c", "while True: pass"], log_file=folder / "busy.log")
        for number in range(BUSY)
    ]
    try:
        yield
    finally:
        stop_all(busy)


def test_f24_a_day_is_replayed_on_a_busy_machine(
    stack: Stack, tmp_path: Path, seed: int, results: Callable[[Result], Result]
) -> None:
    """The broker stands still for a while, too. A second of silence is all that a partition needs to be at rest."""
    what = (
        f"24 hours of records, a day old, at full speed beside {BUSY} busy processes; broker stopped {STANDSTILL_S:g} s"
    )
    result = results(Result("F24", what, 1, seed))
    first_ms = time.time_ns() // 1_000_000 - 2 * DAY_MS
    events = list(day(first_ms, random.Random(seed)))
    expected = firings(events)
    with watched(stack, tmp_path, result, RULES, lambda: expected, "--watermark_idleness_ms=1000") as run:
        producer = Producer({"bootstrap.servers": stack.kafka.bootstrap_servers, "linger.ms": 20, "acks": "all"})
        for event in events:
            while True:
                try:
                    producer.produce(
                        run.topics.events, orjson.dumps(event), event["user_id"].encode(), timestamp=event["timestamp"]
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0
        result.verdict.events = EVENTS
        with other_work(tmp_path):
            run.submit()
            started_s = time.monotonic()
            time.sleep(random.Random(seed).uniform(0.5, 3))
            os.kill(stack.kafka.pid, signal.SIGSTOP)
            try:
                time.sleep(STANDSTILL_S)
            finally:
                os.kill(stack.kafka.pid, signal.SIGCONT)
            run.topics.wait_for_commits(EVENTS, 300)
            result.notes["events a second"] = round(EVENTS / (time.monotonic() - started_s))
