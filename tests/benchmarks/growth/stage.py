"""One slot's stage in this process: the real DoFn over Beam's state cache, users spread over the shards of the slot.

``python -m tests.benchmarks.growth.stage '{"users": 10000}'`` measures one point and prints a line of JSON; a process
each, so that no point inherits the memory of another. Times are CPU times of the thread. Left out is what the SDK
harness does around the DoFn (gRPC, decoding elements), which knows neither users nor rules.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, Final

import orjson
from apache_beam.metrics.execution import MetricsContainer
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import bundle_processor, sdk_worker, statecache, statesampler
from apache_beam.utils.counters import CounterFactory

from runners.flink import overrides
from runners.flink.overrides.state import commit_pipelined
from tests.benchmarks import shards, user_api
from tests.transforms.harness import Timer, done, userstate_of
from transforms.adapters.telemetry.metrics import resident_bytes
from transforms.domain.events.micro_batch import (
    EVENTS,
    encode_batch,
    key_of,
    shard_of,
)
from transforms.domain.events.record import Record
from transforms.domain.rules.model import DebugAction, Rule
from transforms.domain.shard.facts import EventObserved
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.users.history import _SLACK, Row, sort_rows
from transforms.domain.users.user import FETCHED
from transforms.domain.users.visit import Visit
from transforms.handle_events import ACTIONS, HandleSettings, _HandleFn

_BUNDLE_MS: Final = 20
_FILL_LOT: Final = 500
_SLICES: Final = 10
_CACHE_BYTES: Final = 64 << 30  # whether users fit is the machine's to say
_SCAN: Final = """
local views = 0
for _, past in ipairs(history) do
  if past.event_name == "page_view" then views = views + 1 end
end
return views >= 100000"""


@dataclass(frozen=True)
class Point:
    """What is varied. A share ``fires`` of the events leads to an action.

    ``rules`` is how many there are; one fires, the others ask two fields of the event. With ``scan`` one more goes
    through the history. ``bundle`` is how many events come within 20 ms.
    """

    users: int = 10_000
    history: int = 100
    rules: int = 1
    scan: bool = False
    shards: int = 32
    bundle: int = 512
    fires: float = 0.05
    warm_up: int = 20_000
    events: int = 150_000


# What every point is compared with.
REFERENCE: Final = Point(users=1000)
_REFERENCE_EVERY: Final = 4


class Discarding:
    """The runner's side of the state API: counts bytes and keeps none, for in a steady state nobody reads them."""

    def __init__(self) -> None:
        self.sizes: dict[bytes, int] = {}
        self.written = 0

    @contextmanager
    def process_instruction_id(self, _: str) -> Iterator[None]:
        yield

    def get_raw(self, state_key: Any, _: bytes | None = None) -> tuple[bytes, None]:
        if self.sizes.get(state_key.SerializeToString()):
            raise RuntimeError("state is read again: it has left the worker's cache, so this is no steady state")
        return b"", None

    def append_raw(self, state_key: Any, data: bytes) -> Any:
        name = state_key.SerializeToString()
        self.sizes[name] = self.sizes.get(name, 0) + len(data)
        self.written += len(data)
        return done()

    def clear(self, state_key: Any) -> Any:
        self.sizes.pop(state_key.SerializeToString(), None)
        return done()


class KnownUsers:
    """In place of the pool that asks the user API: it knows everybody at once."""

    def __init__(self, history: int) -> None:
        chance = random.Random(5)
        # Any stretch of these is somebody's past; the stage keeps a copy of its own, encoded.
        rows = orjson.loads(user_api.history(b"anybody"))
        self._rows = [
            Row(number, f"{chance.getrandbits(128):032x}past", rows[number % len(rows)]["event_name"], None, True)
            for number in range(5000)
        ]
        self._history = history

    def request(self, user_id: str, now_ms: int) -> int:
        return now_ms

    def poll(self, asked: Sequence[str], now_ms: int) -> list[tuple[str, FetchedUser]]:
        return [(user_id, self._of(user_id.encode())) for user_id in asked]

    def restart(self, asked: Sequence[str], now_ms: int) -> None:
        pass

    def withdraw(self, user_id: str) -> bool:
        return True

    def rows(self, count: int) -> list[Row]:
        """So many past events."""
        return self._rows[:count]

    def _of(self, user_id: bytes) -> FetchedUser:
        first = random.randrange(len(self._rows) - self._history)
        visit = Visit(f"visit-{first}-{user_id.decode()}", 1, 3, False)
        return FetchedUser(
            FETCHED, user_api.profile(user_id), visit, sort_rows(self._rows[first : first + self._history])
        )


class Slot:
    """The stage with its shards' state, advanced bundle by bundle."""

    def __init__(self, point: Point) -> None:
        settings = HandleSettings(
            rules_of(point), shard=ShardSettings(history_size=point.history), user_shards=point.shards
        )
        self._point, self._now_ms = point, shards.START_MS
        self._fn = _HandleFn(settings, lambda: self._now_ms)
        self._fn.setup()
        self._known = self._fn._services.fetch_pool = KnownUsers(point.history)  # type: ignore[assignment]
        self.runner = Discarding()
        self._handler = sdk_worker.GlobalCachingStateHandler(statecache.StateCache(_CACHE_BYTES), self.runner)
        self._token = beam_fn_api_pb2.ProcessBundleRequest.CacheToken(
            user_state=beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState(), token=b"1"
        )
        self._sampler = statesampler.StateSampler("growth", CounterFactory())
        self._metrics = MetricsContainer("HandleEvents")
        self._scope = self._sampler.scoped_state("HandleEvents", "process", metrics_container=self._metrics)
        self._due: dict[tuple[bytes, str], int] = {}
        self.actions = 0
        self.action_bytes = 0
        self.counts: dict[str, int] = {}

    def run(self, batches: Sequence[tuple[bytes, bytes]], after_ms: int = _BUNDLE_MS) -> float:
        """Handle a bundle and the timers that are due by then; CPU seconds of the thread."""
        self._now_ms += after_ms
        statesampler.set_current_tracker(self._sampler)
        started = time.thread_time()
        outputs = self._bundle(batches)
        took_s = time.thread_time() - started
        for output in outputs:
            if output.tag == ACTIONS:
                self.actions += 1
                self.action_bytes += len(output.value)
        return took_s

    def age(self) -> None:
        """Make of a slot that was just filled one that has been running.

        Rows beyond a history's length go in lots, and journals are rewritten when they have grown, so users and shards
        have to be at different points of that. Nobody's first event is to come: a history's marks are made for it.
        """
        for shard in range(self._point.shards):
            with self._handler.process_instruction_id("bundle", [self._token]):
                cells = self._cells({}, _key_of_shard(shard, self._point.shards))[:2]
                journal = Journal(cells, self._point.history)
            folded = journal.folded
            with journal.changing():
                for user_id in list(folded.state.users):
                    for row in self._known.rows(random.randrange(_SLACK)):
                        folded.state.apply(self._now_ms, EventObserved(user_id, row, None))
                    folded.state.users[user_id].history.find("")
            if folded.moving is None:
                grown = random.uniform(1, folded.garbage_limit) * folded.state.packed_bytes
                folded.log_bytes[journal._newer] = round(grown) - folded.log_bytes[1 - journal._newer]

    def _bundle(self, batches: Sequence[tuple[bytes, bytes]]) -> list[Any]:
        outputs: list[Any] = []
        states: dict[tuple[bytes, str], Any] = {}
        timers: list[tuple[bytes, dict[str, Timer]]] = []
        with self._scope, self._handler.process_instruction_id("bundle", [self._token]):
            self._fn.start_bundle()
            for key, payload in batches:
                timers.append((key, _timers()))
                outputs += self._fn.process((key, payload), *self._cells(states, key), *timers[-1][1].values())
            for key, name in [of for of, due_ms in self._due.items() if due_ms <= self._now_ms]:
                del self._due[key, name]
                fire = self._fn.on_idle if name == "idle" else self._fn.on_pending
                timers.append((key, _timers()))
                outputs += fire(*self._cells(states, key), *timers[-1][1].values())
            self._fn.finish_bundle()
            commit_pipelined(SimpleNamespace(_all_states=states))
        for key, of_key in timers:
            for name, timer in of_key.items():
                if timer.changed and name != "stream":
                    self._due.pop((key, name), None)
                    if timer.due_ms is not None:
                        self._due[key, name] = timer.due_ms
        told = list(self._metrics.to_runner_api_monitoring_infos("HandleEvents").values())
        beam_fn_api_pb2.ProcessBundleResponse(monitoring_infos=told).SerializeToString()
        self._metrics.metrics.clear()  # as overrides.reset_processor
        for name, value in self._fn._services.metrics.counts.items():
            self.counts[name] = self.counts.get(name, 0) + value
        return outputs

    def _cells(self, states: dict[tuple[bytes, str], Any], key: bytes) -> list[Any]:
        for name, coder in (("journal_v1", _HandleFn.JOURNAL.coder), ("journal_v2", _HandleFn.JOURNAL_2.coder)):
            if (key, name) not in states:
                states[key, name] = self._bag(key, name, coder)
        if (key, "meta_v1") not in states:
            states[key, "meta_v1"] = userstate_of(self._bag(key, "meta_v1", _HandleFn.META.coder))
        return [states[key, name] for name in ("journal_v1", "journal_v2", "meta_v1")]

    def _bag(self, key: bytes, name: str, coder: Any) -> Any:
        of = beam_fn_api_pb2.StateKey.BagUserState(transform_id="t", user_state_id=name, key=key)
        state_key = beam_fn_api_pb2.StateKey(bag_user_state=of)
        return bundle_processor.SynchronousBagRuntimeState(self._handler, state_key, coder)


def _key_of_shard(shard: int, count: int) -> bytes:
    return next(key_of(user, count) for user in shards.user_ids(100_000) if shard_of(user, count) == shard)


def _timers() -> dict[str, Timer]:
    return {"idle": Timer(), "pending": Timer(), "stream": Timer()}


def rules_of(point: Point) -> tuple[Rule, ...]:
    """The rules of a point."""
    others = [
        Rule(
            name=f"rule-{number}",
            version=1,
            filter=f'event.triggerable and event.event_name == "name {number}"',
            actions=(DebugAction(type="debug"),),
        )
        for number in range(point.rules - 1)
    ]
    scan = [Rule(name="scan", version=1, filter=_SCAN, actions=(DebugAction(type="debug"),))]
    return (shards.RULE, *others, *(scan if point.scan else []))


class Load:
    """Events of users drawn evenly: each may be anywhere in memory."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self._chance = random.Random(7)
        self._users = shards.user_ids(point.users)
        self._offsets = itertools.count()

    def everybody(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """An event of each user, in lots."""
        for first in range(0, len(self._users), _FILL_LOT):
            yield self._batches(self._users[first : first + _FILL_LOT])

    def bundle(self) -> list[tuple[bytes, bytes]]:
        """What comes within a bundle's time."""
        return self._batches(self._chance.choices(self._users, k=self._point.bundle))

    def _batches(self, users: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        records: dict[bytes, list[Record]] = {}
        count = self._point.shards
        for user in users:
            value = shards.event(user, shards.START_MS, triggerable=self._chance.random() < self._point.fires)
            record = Record(0, next(self._offsets), shards.START_MS, user, value)
            records.setdefault(key_of(user, count), []).append(record)
        return [(key, encode_batch(EVENTS, "events", of_key)) for key, of_key in records.items()]


class Collections:
    """What Python's garbage collector takes of the thread's CPU time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.full = 0
        gc.callbacks.append(self._seen)

    def _seen(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._started
            self.full += info["generation"] == 2


def measure(point: Point) -> dict[str, float]:
    """Fill the slot, and measure what an event and a user cost once it has run for a while.

    A slot of a thousand users is run in turn with it, and ``relative`` is the cost against that slot's: what the rest
    of the machine does to CPU times (caches, clock rates) does it to both.

    Raises:
        RuntimeError: what was handled is not what was sent.
    """
    overrides.apply()
    reference = _filled(REFERENCE)
    before = resident_bytes()
    filled = _filled(point)
    slot = filled.slot
    memory, journal = resident_bytes() - before, sum(slot.runner.sizes.values())
    for _ in range(point.warm_up // point.bundle):
        slot.run(filled.load.bundle())
    handled, written = slot.counts["events_handled"], slot.runner.written
    compactions, actions, action_bytes = slot.counts.get("compactions", 0), slot.actions, slot.action_bytes
    collections = Collections()
    bundles = max(point.events // point.bundle // _SLICES, 1)
    costs, references, longest = [], [], 0.0
    for _ in range(_SLICES):
        took, took_reference = [], []
        for number in range(bundles):
            took.append(slot.run(filled.load.bundle()))
            if number % _REFERENCE_EVERY == 0:
                took_reference.append(reference.slot.run(reference.load.bundle()))
        costs.append(sum(took) / (bundles * point.bundle) * 1e6)
        references.append(sum(took_reference) / (len(took_reference) * REFERENCE.bundle) * 1e6)
        longest = max(longest, *took)
    events = _SLICES * bundles * point.bundle
    if slot.counts["events_handled"] - handled != events:
        raise RuntimeError(f"{slot.counts['events_handled'] - handled} events handled of {events}")
    fired = slot.actions - actions
    return {
        "µs/event": _median(costs),
        "relative": _median([cost / base for cost, base in zip(costs, references, strict=True)]),
        "reference µs/event": _median(references),
        "µs/event, best": min(costs),
        "µs/event, mean": sum(costs) / _SLICES,
        "GC µs/event": collections.seconds / events * 1e6,
        "full GCs": collections.full,
        "longest bundle ms": longest * 1e3,
        "rewritten, times a shard": (slot.counts.get("compactions", 0) - compactions) / point.shards,
        "memory B/user": memory / point.users,
        "memory B/user, at the end": (resident_bytes() - before) / point.users,
        "journal B/user": journal / point.users,
        "journal B/user, at the end": sum(slot.runner.sizes.values()) / point.users,
        "journal B/event": (slot.runner.written - written) / events,
        "action B": (slot.action_bytes - action_bytes) / fired if fired else 0.0,
        "actions/event": fired / events,
    }


@dataclass(frozen=True)
class _Filled:
    slot: Slot
    load: Load


def _filled(point: Point) -> _Filled:
    """A slot in which everybody is known, as if it had been running for long."""
    slot, load = Slot(point), Load(point)
    for batches in load.everybody():
        slot.run(batches)
        slot.run([], after_ms=50)  # the answers are folded in
    while slot.counts.get("users_fetched", 0) < point.users:
        slot.run([], after_ms=50)
    slot.age()
    gc.collect()
    return _Filled(slot, load)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def point_of(document: str) -> Point:
    """A point from JSON.

    Raises:
        ValueError: it is none.
    """
    given = json.loads(document)
    unknown = set(given) - {field.name for field in fields(Point)}
    if unknown:
        raise ValueError(f"a point has no {', '.join(sorted(unknown))}")
    return Point(**given)


if __name__ == "__main__":
    print(json.dumps(measure(point_of(sys.argv[1]))))
