"""F10, F15: what comes in is bad, or all of one user."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import orjson
import pytest

from tests.builders import event, random_stream
from tests.faults.experiment import USERS, Result, experiment
from tests.faults.load import Record
from tests.faults.stack import Stack
from tests.faults.test_kills import kill_task_manager

pytestmark = [pytest.mark.stack, pytest.mark.every_fault, pytest.mark.timeout(1800)]

Keep = Callable[[Result], Result]
POISON = 1000


def poison(number: int) -> Record:
    """One of the kinds of the catalogue, each a little different. A broker takes no record of over a megabyte."""
    user = b"user-%04d" % (number % len(USERS))
    good = event(user.decode(), event_id=f"poison-{number}")
    text = orjson.dumps(good)
    kinds: list[bytes] = [
        text[: number % 40 + 1],
        text.replace(b"page_view", b"\xff\xfe"),
        text.replace(b"page_view", b"\\ud800"),
        orjson.dumps(good | {"parameters": {"note": "x" * 600_000}}) if number % 100 == 3 else text + b"x" * 11_000,
        # The first is refused for its size, the second for its depth.
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000 if number % 20 == 4 else b"[" * 5_000 + b"]" * 5_000,
        orjson.dumps({name: good[name] for name in good if name != "user_id"}),
        text.replace(b'"timestamp":', b'"timestamp":1180591620717411303424,"was":'),
        text.replace(b'"timestamp":', b'"timestamp":NaN,"was":'),
        orjson.dumps(good | {"timestamp": 253_402_300_799_000}),
        orjson.dumps([good]),
    ]
    return user, kinds[number % len(kinds)]


def with_poison(good: Iterator[Record], every: int) -> Iterator[Record]:
    """A bad record after so many good ones, until there were ``POISON``."""
    for number in range(POISON):
        yield from islice(good, every)
        yield poison(number)
    yield from good


def of_one_user(records: Iterator[Record], user: str, chance: random.Random) -> Iterator[Record]:
    """Half of all events become this user's."""
    for key, value in records:
        if key.startswith(b"user-") and chance.random() < 0.5:
            try:
                value = orjson.dumps(orjson.loads(value) | {"user_id": user})
            except ValueError:
                yield key, value
                continue
            key = user.encode()
        yield key, value


def test_f10_poison(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F10", "records that are no events, of ten kinds", POISON, seed))
    stream = with_poison(random_stream(seed, len(USERS), 10**9, poison=False), every=15)
    with experiment(stack, tmp_path, result, stream=stream) as run:
        run.pause(10, 11)
    # The verdict compared each dead letter's reason and bytes, and all that the good events led to.
    assert run.restarts() == 0


def test_f15_one_user_is_half_of_all_events(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F15", "one user has half of all events; SIGKILL of a TaskManager", 2, seed))
    records = random_stream(seed, len(USERS), 10**9)
    stream = of_one_user(records, USERS[0], random.Random(seed))
    with experiment(stack, tmp_path, result, stream=stream, history_size=100, crowded=USERS[0]) as run:
        for _ in range(result.times):
            run.pause(2, 6)
            kill_task_manager(run)
    # A user's webhooks go one after the other, and 100 may wait (docs/delivery.md).
    result.notes["webhooks that were too many, dead letters"] = result.verdict.given_up
