"""What user shards cost in this process, without Flink: the real state machine and journal over bags in memory.

Times are CPU times of the thread, so that whatever else the machine does is left out.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from tests.benchmarks import user_api
from tests.builders import filter_set
from transforms.domain.events.micro_batch import EVENTS, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.model import KafkaAction, Rule
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import (
    JournalElement,
    JournalEntry,
    decode_element,
    encode_element,
)
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.users.history import Row, sort_rows
from transforms.domain.users.user import FETCHED
from transforms.domain.users.visit import Visit

START_MS: Final = 1_800_000_000_000
EVENT: Final = (
    b'{"event_id":"%b","user_id":"%b","domain":"shop.example.com","is_current":true,"event_name":"%b",'
    b'"event_displayname":"Page View","integration":"web","app":"main_app","platform":"web","is_https":true,'
    b'"event_type":"pageview","duration":%d,"timestamp":%d,"triggerable":%b,"is_first_in_visit":%b,'
    b'"is_last_in_visit":%b,"is_first_event":false,"parameters":{"custom_params":{"page_title":"Product/1842",'
    b'"page_url":"https://shop.example.com/product/1842","referrer":"https://www.example.org/search?q=running+shoes"},'
    b'"utm_source":"newsletter","utm_medium":"email","utm_campaign":"weekly","sent_us":%d}}'
)
RULE: Final = Rule(
    name="bench",
    version=1,
    filter='event.triggerable and user.email ~= ""',
    actions=(KafkaAction(type="kafka"),),
)
_NAMES: Final = (b"page_view", b"page_view", b"page_view", b"scroll_depth", b"add_to_cart", b"search")


def event(user_id: bytes, at_ms: int, triggerable: bool = False, first: bool = False, last: bool = False) -> bytes:
    """A user-tracking event of about 650 B, with a UUID."""
    event_id = str(uuid.UUID(int=random.getrandbits(128), version=4)).encode()
    name = _NAMES[event_id[0] % len(_NAMES)]
    return EVENT % (
        event_id, user_id, name, event_id[1] * 77, at_ms, _bool(triggerable), _bool(first), _bool(last),
        time.time_ns() // 1000,
    )  # fmt: skip


def _bool(value: bool) -> bytes:
    return b"true" if value else b"false"


def fetched(user_id: bytes) -> FetchedUser:
    """What the benchmark's user API says of a user, as ``HttpUserApi`` hands it on."""
    visit = orjson.loads(user_api.visit(user_id))
    return FetchedUser(
        FETCHED,
        orjson.dumps(orjson.loads(user_api.profile(user_id))),
        Visit(visit["visit_id"], visit["start_time"], visit["page_count"], visit["is_first_visit"]),
        sort_rows(
            Row(row["timestamp"], row["event_id"], row["event_name"], None, True)
            for row in orjson.loads(user_api.history(user_id))
        ),
    )


class Bag:
    """A bag as the worker's state cache and the runner's state backend hold it between them."""

    def __init__(self, stored: Iterable[bytes] = ()) -> None:
        self.stored = list(stored)
        self._elements: list[JournalElement] = [decode_element(element) for element in self.stored]

    def read(self) -> list[JournalElement]:
        return self._elements

    def add(self, value: JournalElement) -> None:
        self._elements.append(value)

    def clear(self) -> None:
        self._elements.clear()
        self.stored.clear()

    def commit(self) -> None:
        """What the runner does at the end of a bundle: encode what was added."""
        for element in self._elements[len(self.stored) :]:
            self.stored.append(encode_element(element))
            if isinstance(element, JournalEntry):
                element.is_written = True

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.stored))


class Shard:
    """One user shard, advanced as ``transforms.handle_events`` does it."""

    def __init__(self, settings: ShardSettings | None = None) -> None:
        self.settings = settings or ShardSettings(ttl_ms=3_600_000)
        self.bags = (Bag(), Bag())
        self.now_ms = START_MS
        self.step_ms: list[float] = []  # deciding
        self.append_ms: list[float] = []  # opening the journal and writing to it
        self.compactions = 0
        self._filters = filter_set((RULE,))
        self._asked: dict[str, int] = {}
        self._offsets = itertools.count()

    def advance(self, events: Sequence[bytes] = (), keys: Sequence[bytes] = (), answers: Sequence[Answer] = ()) -> Any:
        records = [
            Record(0, next(self._offsets), self.now_ms, key, value) for key, value in zip(keys, events, strict=True)
        ]
        batch = MicroBatch(VERSION, EVENTS, "events", records)
        started = time.thread_time()
        journal = Journal(self.bags, self.settings.history_size)
        opened = time.thread_time()
        with journal.changing():
            for answer in answers:
                self._asked.pop(answer.user_id, None)
            given = StepInput(self.now_ms, batch, answers, (), self._asked)
            done = step(journal.folded.state, StepContext(self.settings, self._filters), given)
            decided = time.thread_time()
            if done.facts:
                journal.append(self.now_ms, done.facts)
        for bag in self.bags:
            bag.commit()
        written = time.thread_time()
        self._asked.update(dict.fromkeys(done.users_to_fetch, self.now_ms))
        self.compactions += journal.compactions
        self.step_ms.append((decided - opened) * 1e3)
        self.append_ms.append((opened - started + written - decided) * 1e3)
        return done

    def fill(self, user_ids: Sequence[bytes], lot: int = 5) -> None:
        """One event each; the API's answers come a few at a time."""
        for first in range(0, len(user_ids), lot):
            some = user_ids[first : first + lot]
            self.now_ms += 10
            self.advance([event(user_id, self.now_ms) for user_id in some], some)
            self.advance(answers=[Answer(user_id.decode(), fetched(user_id)) for user_id in some])

    @property
    def view(self) -> Any:
        return Journal(self.bags, self.settings.history_size).folded.state

    @property
    def journal_bytes(self) -> int:
        return sum(bag.nbytes for bag in self.bags)


def user_ids(count: int, prefix: bytes = b"user") -> list[bytes]:
    """Ids as users of a site have them."""
    return [b"%b_%06d" % (prefix, number) for number in range(count)]


def steps(users: int, events: int, lot: int = 20) -> dict[str, float]:
    """A shard of so many users under so many events: the longest step, cold reads, what the journal takes."""
    shard = Shard()
    known = user_ids(users)
    shard.fill(known)
    figures: dict[str, float] = {"users": users, "journal B/user, filled": shard.journal_bytes / users}
    shard.step_ms.clear()
    shard.append_ms.clear()
    sizes = []
    chance = random.Random(7)
    gc.collect()
    for number in range(events // lot):
        shard.now_ms += 20
        keys = [chance.choice(known) for _ in range(lot)]
        shard.advance([event(key, shard.now_ms) for key in keys], keys)
        if number % 20 == 0:
            sizes.append(shard.journal_bytes / users)
    cold_ms = []
    for _ in range(3):
        started = time.thread_time()
        journal = Journal([Bag(bag.stored) for bag in shard.bags], shard.settings.history_size)
        cold_ms.append((time.thread_time() - started) * 1e3)
    assert len(journal.folded.state.users) == users
    return {
        **figures,
        "journal B/user, mean": sum(sizes) / len(sizes),
        "journal B/user, largest": max(sizes),
        "view B/user": shard.view.nbytes / users,
        "rewritten, times": shard.compactions,
        "append p50 ms": quantile(shard.append_ms, 0.5),
        "append p99.9 ms": quantile(shard.append_ms, 0.999),
        "append longest ms": max(shard.append_ms),
        "step longest ms": max(shard.step_ms),
        "cold read ms": sorted(cold_ms)[1],
        "elements": sum(len(bag.stored) for bag in shard.bags),
    }


def together(count: int, users: int, events: int, lot: int = 20) -> dict[str, float]:
    """The shards of one worker under equal load, in turn: what an event costs while their journals are rewritten."""
    known = [user_ids(users, b"user%d" % number) for number in range(count)]
    all_shards = [Shard() for _ in known]
    for shard, ids in zip(all_shards, known, strict=True):
        shard.fill(ids)
        shard.step_ms.clear()
        shard.append_ms.clear()
    sizes = []
    for _ in range(events // (count * lot)):
        for shard, ids in zip(all_shards, known, strict=True):
            shard.now_ms += 20
            keys = random.choices(ids, k=lot)
            shard.advance([event(key, shard.now_ms) for key in keys], keys)
        sizes.append(sum(shard.journal_bytes for shard in all_shards) / (count * users))
    taken_ms = [sum(times) for times in zip(*(shard.step_ms for shard in all_shards), strict=True)]
    written_ms = [sum(times) for times in zip(*(shard.append_ms for shard in all_shards), strict=True)]
    rounds = [(a + b) / (count * lot) * 1e3 for a, b in zip(taken_ms, written_ms, strict=True)]
    seconds = [sum(rounds[n : n + 10]) / 10 for n in range(0, len(rounds), 10)]
    return {
        "shards": count,
        "users of each": users,
        "journal B/user, mean": sum(sizes) / len(sizes),
        "journal B/user, largest": max(sizes),
        "rewritten, times": sum(shard.compactions for shard in all_shards),
        "µs/event, mean": sum(rounds) / len(rounds),
        "µs/event, p50": quantile(rounds, 0.5),
        f"µs/event, worst {10 * count * lot} events": max(seconds),
    }


def heavy(name: str, events: int) -> dict[str, float]:
    """Users who are much heavier than others: what they take, and whether they stay as fast as they began."""
    shard = Shard()
    streams = {"500 events a session": _sessions, "a bot": _bot, "half of all events": _half}
    costs: list[float] = []  # µs an event, batch by batch
    shard.fill([b"heavy_000001"])
    if name == "half of all events":
        shard.fill(user_ids(10_000))
    largest = 0
    stream = streams[name](shard)
    for number in range(events // 50):
        shard.now_ms += 50
        pairs = list(itertools.islice(stream, 50))
        shard.advance([value for _, value in pairs], [key for key, _ in pairs])
        costs.append((shard.step_ms[-1] + shard.append_ms[-1]) * 1e3 / 50)
        if number % 50 == 0:
            largest = max(largest, shard.journal_bytes)
    part = len(costs) // 20
    user = shard.view.users["heavy_000001"]
    return {
        "events": events,
        "user B in memory": user.nbytes,
        "history rows": len(user.history),
        "view B": shard.view.nbytes,
        "journal B": shard.journal_bytes,
        "journal B, largest": largest,
        "µs/event, first 5 %": sum(costs[part : 2 * part]) / part,
        "µs/event, last 5 %": sum(costs[-part:]) / part,
        "longest step ms": max(map(sum, zip(shard.step_ms, shard.append_ms, strict=True))),
        "rewritten, times": shard.compactions,
    }


def _sessions(shard: Shard) -> Iterator[tuple[bytes, bytes]]:
    for number in itertools.count():
        place = number % 500
        yield b"heavy_000001", event(b"heavy_000001", shard.now_ms, first=place == 0, last=place == 499)


def _bot(shard: Shard) -> Iterator[tuple[bytes, bytes]]:
    while True:
        yield b"heavy_000001", event(b"heavy_000001", shard.now_ms)


def _half(shard: Shard) -> Iterator[tuple[bytes, bytes]]:
    chance = random.Random(7)
    others = user_ids(10_000)
    while True:
        key = b"heavy_000001" if chance.random() < 0.5 else chance.choice(others)
        yield key, event(key, shard.now_ms)


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of them are."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
