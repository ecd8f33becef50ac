"""F10, F15, F16: what comes in is bad, or all of one user, or does not end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import mean

import orjson
import pytest

from tests.builders import event, random_stream
from tests.faults.experiment import USERS, Experiment, Result, experiment
from tests.faults.load import Record
from tests.faults.stack import Stack
from tests.faults.test_kills import kill_task_manager

pytestmark = [pytest.mark.stack, pytest.mark.timeout(580)]

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
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
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
        restarts = run.restarted_at()
    # The verdict compared each dead letter's reason and bytes, and all that the good events led to.
    assert restarts == 0


def test_f15_one_user_is_half_of_all_events(stack: Stack, tmp_path: Path, seed: int, results: Keep) -> None:
    result = results(Result("F15", "one user has half of all events; SIGKILL of a TaskManager", 2, seed))
    records = random_stream(seed, len(USERS), 10**9)
    stream = of_one_user(records, USERS[0], random.Random(seed))
    with experiment(stack, tmp_path, result, stream=stream) as run:
        for _ in range(result.times):
            run.pause(2, 6)
            kill_task_manager(run)


def test_f16_soak(stack: Stack, tmp_path: Path, seed: int, results: Keep, request: pytest.FixtureRequest) -> None:
    """Memory and checkpoints: the last quarter of the time against the second."""
    minutes = request.config.option.soak_minutes
    users = USERS[:100]
    result = results(Result("F16", f"{minutes:g} minutes without a fault", 1, seed))
    # Histories are full after a few seconds, from then on the state is as large as it gets.
    options = ("--compact_bytes=20000",)
    resident, sizes = [], []
    with experiment(stack, tmp_path, result, *options, rate=150, users=users, history_size=10) as run:
        ends_s = time.monotonic() + minutes * 60
        while time.monotonic() < ends_s:
            time.sleep(2)
            resident.append(sum(_resident_mb(pid) for pid in stack.workers()))
            sizes.append(_checkpoint_kb(run))
        restarts = run.restarted_at()
    quarter = len(resident) // 4
    for name, values, most in (("workers' memory, MB", resident, 0.05), ("checkpoint, KB", sizes, 0.10)):
        before, after = mean(values[quarter : 2 * quarter]), mean(values[-quarter:])
        result.notes[name] = f"{before:.0f}, then {after:.0f}"
        assert after <= before * (1 + most), f"{name}: {values}"
    assert restarts == 0


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _checkpoint_kb(run: Experiment) -> float:
    return float(run.rest.checkpoints(run.job_id)["latest"]["completed"]["state_size"]) / 1024
