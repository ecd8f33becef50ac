"""What a new user costs a worker: one slot's stage in this process, with its client of the user API and without gRPC.

``python -m tests.benchmarks.misses`` works off events of which one in ten is a new user's, whom a user API in another
process answers after 20 ms, and prints a line of JSON. Beside it runs the same stage without new users. With
``--before FOLDER``, a checkout of an earlier commit with its own ``.venv``, both are run in turn, each in processes of
its own, and the medians of their ratios are printed: the load of a machine does the same to both.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from runners.flink import overrides
from tests.benchmarks import shards
from tests.benchmarks.growth.stage import Load, Point, Slot, rules_of
from tests.benchmarks.user_api import SLOW_PREFIX, UserApiProcess
from transforms.adapters.user_api.client import UserApiSettings
from transforms.domain.shard.step_input import ShardSettings
from transforms.handle_events import HandleSettings, _HandleFn

NEW: Final = "new"
KNOWN: Final = "known"
_DELAY_S: Final = 0.02
_POINT: Final = Point(users=1000, shards=4)
_NEW_EVERY: Final = 10
# A backlog: so many new users may wait for the API before the stage waits, too.
_WAITING: Final = 1000
_SWITCH_S: Final = 0.0005  # as runners/flink/worker.py


class FetchingSlot(Slot):
    """A slot whose users come from a user API, in real time."""

    def __init__(self, url: str | None) -> None:
        super().__init__(_POINT)
        settings = HandleSettings(
            rules_of(_POINT),
            shard=ShardSettings(enrichment_deadline_ms=120_000),
            user_api=UserApiSettings(url, call_timeout_s=30),
            user_shards=_POINT.shards,
        )
        self._started_s = time.monotonic()
        self._fn = _HandleFn(settings, self._clock)
        self._fn.setup()

    @property
    def fetched(self) -> int:
        """How many users the API has answered for."""
        return self.counts.get("users_fetched", 0)

    def advance(self, batches: list[tuple[bytes, bytes]]) -> None:
        """Handle a bundle now."""
        self._now_ms = self._clock()
        self.run(batches, after_ms=0)

    def await_fetches(self, missing: int) -> None:
        """Fold answers in until at most so many are missing.

        Raises:
            TimeoutError: they do not come.
        """
        give_up = time.monotonic() + 120
        while self.counts.get("state_misses", 0) - self.fetched > missing:
            self.advance([])
            time.sleep(0.002)
            if time.monotonic() > give_up:
                raise TimeoutError(f"{self.counts}")

    def _clock(self) -> int:
        return shards.START_MS + round((time.monotonic() - self._started_s) * 1000)


class MixedLoad(Load):
    """Events of known users; of each ten, one is of a user who was never seen."""

    def __init__(self, has_new: bool) -> None:
        super().__init__(_POINT)
        self._users = [f"{SLOW_PREFIX}_{user.decode()}".encode() for user in self._users]
        self._has_new, self._strangers = has_new, 0

    def bundle(self) -> list[tuple[bytes, bytes]]:
        users = self._chance.choices(self._users, k=_POINT.bundle)
        if self._has_new:
            for place in range(0, len(users), _NEW_EVERY):
                users[place] = f"{SLOW_PREFIX}_new_{self._strangers}".encode()
                self._strangers += 1
        return self._batches(users)


def measure(has_new: bool, seconds: float) -> dict[str, float]:
    """Work off a backlog for so long, wait for the last answers, and count."""
    overrides.apply()
    sys.setswitchinterval(_SWITCH_S)
    with UserApiProcess(_DELAY_S) as api:
        slot, load = FetchingSlot(api.url), MixedLoad(has_new)
        for batches in load.everybody():
            slot.advance(batches)
            slot.await_fetches(0)
        _work_off(slot, load, seconds / 3)
        gc.collect()
        handled, fetched = slot.counts["events_handled"], slot.fetched
        wall_s, cpu_s, thread_s = time.monotonic(), time.process_time(), time.thread_time()
        _work_off(slot, load, seconds)
        wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
        thread_s = time.thread_time() - thread_s
    events, users = slot.counts["events_handled"] - handled, slot.fetched - fetched
    return {
        "events/s": events / wall_s,
        "CPU µs/event": cpu_s / events * 1e6,
        "CPU µs/event, the stage's thread": thread_s / events * 1e6,
        "new users": users,
        "load average": os.getloadavg()[0],
    }


def _work_off(slot: FetchingSlot, load: MixedLoad, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slot.advance(load.bundle())
        slot.await_fetches(_WAITING)
    slot.await_fetches(0)


def _apart(folder: Path, kind: str, seconds: float) -> dict[str, float]:
    """One measurement with the code of a folder, in a process of its own."""
    command = [str(folder / ".venv/bin/python"), "-P", "-W", "ignore", str(Path(__file__).absolute()), kind]
    environment = {**os.environ, "PYTHONPATH": str(folder.absolute())}
    done = subprocess.run(
        [*command, f"--seconds={seconds}"], env=environment, cwd=folder, stdout=subprocess.PIPE, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    print(f"{folder.absolute().name}, {kind}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


def compare(before: Path, seconds: float, rounds: int) -> dict[str, float]:
    """Both codes in turn: for each figure the median of after / before, and for the code of now of new / known."""
    now = Path.cwd()
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        old, new, known = (_apart(*run, seconds) for run in ((before, NEW), (now, NEW), (now, KNOWN)))
        for figure in ("events/s", "CPU µs/event", "CPU µs/event, the stage's thread"):
            ratios.setdefault(f"{figure}: after / before", []).append(new[figure] / old[figure])
            ratios.setdefault(f"{figure}: one in ten new / all known", []).append(new[figure] / known[figure])
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", default=NEW, choices=(NEW, KNOWN), help="whether one user in ten is new")
    parser.add_argument("--seconds", type=float, default=12, help="length of a measurement")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, set up, to compare with")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are run")
    given = parser.parse_args()
    if given.before is None:
        figures = measure(given.kind == NEW, given.seconds)
    else:
        figures = compare(given.before, given.seconds, given.rounds)
    print(json.dumps(figures, indent=None if given.before is None else 1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
