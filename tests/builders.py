"""Events, records, rules and users for tests: sensible values unless a test says otherwise."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from tests.oracle import UNAVAILABLE, Oracle, OracleRule
from transforms.adapters.lua.engines import Isolation, LuaEngines
from transforms.adapters.user_api.answers import fetched_user
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.events.micro_batch import (
    CONTROL,
    EVENTS,
    VERSION,
    MicroBatch,
)
from transforms.domain.events.record import Record
from transforms.domain.rules import files
from transforms.domain.rules.files import RuleFiles
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.groups import in_groups
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import Group, Rule
from transforms.domain.rules.quarantine import Quarantine
from transforms.domain.rules.sets import RuleSet, encode_rule_set
from transforms.domain.rules.state import RuleState
from transforms.domain.shard.journal import DEFAULT_COMPACT_BYTES, Journal
from transforms.domain.shard.journal_elements import JournalElement, decode_element, encode_element
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.fetched_user import NOTHING_KNOWN, STATUS, FetchedUser, unavailable
from transforms.domain.webhooks.delivery_queue import DeliveryResult
from transforms.runtime.clocks import monotonic_ms

NOW_MS = 1_704_067_200_000  # the spec's example event

_numbers = itertools.count()


def event(user_id: str = "u1", **fields: Any) -> dict[str, Any]:
    """An event as JSON object; the id is new each time."""
    return {
        "event_id": f"e{next(_numbers)}",
        "user_id": user_id,
        "event_name": "page_view",
        "timestamp": NOW_MS,
    } | fields


def record(value: dict[str, Any] | bytes, key: bytes | None = b"", offset: int = 0) -> Record:
    """A Kafka record of an event; the key is its user unless given. No event is ahead of its record's time."""
    if isinstance(value, bytes):
        return Record(0, offset, record_ms(value), key, value)
    raw = orjson.dumps(value)
    return Record(0, offset, record_ms(raw), value["user_id"].encode() if key == b"" else key, raw)


def record_ms(value: bytes) -> int:
    """The Kafka time of an event's record: ``NOW_MS``, or the event's timestamp if that is later."""
    found = re.search(rb'"timestamp":\s?([0-9]{13})\b', value)
    return max(NOW_MS, int(found[1])) if found else NOW_MS


def batch(*values: dict[str, Any] | Record) -> MicroBatch:
    """A micro-batch of events."""
    return MicroBatch(VERSION, EVENTS, "events", [one if isinstance(one, Record) else record(one) for one in values])


def control(*values: Any) -> MicroBatch:
    """A micro-batch of control records, JSON values or raw bytes."""
    raw = [value if isinstance(value, bytes) else orjson.dumps(value) for value in values]
    return MicroBatch(VERSION, CONTROL, "control", [Record(0, n, NOW_MS, None, value) for n, value in enumerate(raw)])


def published(number: int, *rules: Rule, topic: str = "rules") -> MicroBatch:
    """A micro-batch of the rules topic: one set."""
    value = encode_rule_set(RuleSet(number, rules))
    return MicroBatch(VERSION, CONTROL, topic, [Record(0, number, NOW_MS, b"set-%d" % number, value)])


def rule(name: str = "always", filter_: str = "true", **fields: Any) -> Rule:
    """A rule with one debug action."""
    document = {"name": name, "version": 1, "filter": filter_, "actions": [{"type": "debug"}]} | fields
    return Rule.model_validate(document)


def fetched(known: Any, history_fields: tuple[str, ...] = ()) -> FetchedUser:
    """What the oracle's ``api`` says of a user, as the pipeline gets it from its client."""
    if known is None:
        return NOTHING_KNOWN
    if known == UNAVAILABLE:
        return unavailable(STATUS, "test")
    answers = {name: orjson.dumps(known[name]) for name in ("profile", "visit", "history") if name in known}
    return fetched_user(answers, history_fields)


# The same rules twice: as documents with Lua filters, and as Python functions.


def _checkout(event: Any, user: Any, visit: Any, history: Any) -> bool:
    return bool(event["event_name"] == "checkout") and sum(past["event_name"] == "page_view" for past in history) >= 2


Pair = tuple[str, str, Any]

PAIRS: tuple[Pair, ...] = (
    (
        "us_page_view",
        'event.triggerable and event.event_name == "page_view" and user.country == "US"',
        lambda event, user, visit, history: (
            event["triggerable"] and event["event_name"] == "page_view" and user.get("country") == "US"
        ),
    ),
    (
        "long_visit",
        "visit.page_count >= 3 and not visit.is_first_visit",
        lambda event, user, visit, history: visit["page_count"] >= 3 and not visit["is_first_visit"],
    ),
    (
        "checkout_after_views",
        """if event.event_name ~= "checkout" then return false end
local views = 0
for _, past in ipairs(history) do
  if past.event_name == "page_view" then views = views + 1 end
end
return views >= 2""",
        _checkout,
    ),
    (
        "like_the_one_before",
        "#history > 0 and history[#history].event_name == event.event_name and history[1].timestamp < event.timestamp",
        lambda event, user, visit, history: (
            len(history) > 0
            and history[-1]["event_name"] == event["event_name"]
            and history[0]["timestamp"] < event["timestamp"]
        ),
    ),
    (
        "unknown_visitor",
        'user.enrichment ~= nil and event.parameters.utm_source == "google"',
        lambda event, user, visit, history: "enrichment" in user and event["parameters"].get("utm_source") == "google",
    ),
)


def rule_documents(
    action: str = "debug", policies: Sequence[str] = ("wait",), pairs: Sequence[Pair] = PAIRS
) -> list[dict[str, Any]]:
    """The sample rules as YAML documents would say them; the policies for a missing profile take turns."""
    return [
        {"name": name, "version": 2, "filter": lua, "actions": [{"type": action, "name": "act"}]}
        | ({} if policy == "wait" else {"on_missing_profile": policy})
        for (name, lua, _), policy in zip(pairs, itertools.cycle(policies), strict=False)
    ]


def oracle_rules(policies: Sequence[str] = ("wait",), pairs: Sequence[Pair] = PAIRS) -> list[OracleRule]:
    """The sample rules as the oracle reads them."""
    return [
        OracleRule(name, allows, 2, ("act",), policy)
        for (name, _, allows), policy in zip(pairs, itertools.cycle(policies), strict=False)
    ]


def sample_rules(
    action: str = "debug", policies: Sequence[str] = ("wait",), pairs: Sequence[Pair] = PAIRS
) -> tuple[Rule, ...]:
    """The sample rules as the pipeline reads them."""
    return tuple(Rule.model_validate(document) for document in rule_documents(action, policies, pairs))


def user_api_of(user_ids: Iterable[str], seed: int = 1) -> dict[str, Any]:
    """What a user API knows: most users with profile, some with visit and history; one in five is unknown."""
    chance = random.Random(seed)
    known: dict[str, Any] = {}
    for user_id in user_ids:
        kind = chance.randrange(5)
        if kind == 0:
            continue
        start_ms = NOW_MS - chance.randint(1, 100_000)
        known[user_id] = {
            "profile": {"user_id": user_id, "country": chance.choice(("US", "DE"))},
            "visit": {"visit_id": f"v-{user_id}", "start_time": start_ms, "page_count": 2, "is_first_visit": False}
            if kind > 1
            else None,
            "history": [
                # Older than any event of random_stream: so it does not matter before which of them the API answers.
                {"event_id": f"{user_id}-past{n}", "event_name": "page_view", "timestamp": start_ms - 50_000 - n}
                for n in range(chance.randint(0, 4) if kind > 2 else 0)
            ],
        }
    return known


def random_stream(
    seed: int, users: int, events: int, poison: bool = True, first_ms: int = NOW_MS
) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of events as they come: late ones, ties, repeats, visits that start and end, some poison."""
    chance = random.Random(seed)
    recent: list[dict[str, Any]] = []
    for number in range(events):
        if recent and chance.random() < 0.03:
            yield _raw(chance.choice(recent))
            continue
        if poison and chance.random() < 0.02:
            yield poison_record(chance.randrange(6), number)
            continue
        name = chance.choice(("page_view", "page_view", "click", "checkout"))
        made = event(
            f"user-{chance.randrange(users):04d}",
            event_id=f"event-{number:06d}",
            event_name=name,
            event_type="pageview" if name == "page_view" else "click",
            timestamp=first_ms + number * 10 - (chance.randint(0, 50_000) if chance.random() < 0.1 else 0) // 100 * 100,
            is_first_in_visit=chance.random() < 0.1,
            is_last_in_visit=chance.random() < 0.1,
            is_first_event=chance.random() < 0.05,
            triggerable=chance.random() < 0.5,
            parameters={"utm_source": chance.choice(("google", "news")), "custom_params": {"note": "ğüş €"}},
        )
        recent = [*recent[-50:], made]
        yield _raw(made)


def poison_record(kind: int, number: int) -> tuple[bytes, bytes]:
    """Key and value of a record that must become a dead letter."""
    made = event("poisoner", event_id=f"poison-{number}")
    key, value = _raw(made)
    return (
        (key, value[:-5]),
        (key, b'{"event_id":"\xff"}'),
        (b"somebody-else", value),
        _raw(made | {"timestamp": True}),
        (key, b'{"a":' * 90 + b"[" * 10 + b"]" * 10 + b"}" * 90),
        _raw(made | {"parameters": {"note": "x" * 11_000}}),
    )[kind]


def _raw(made: dict[str, Any]) -> tuple[bytes, bytes]:
    return made["user_id"].encode(), orjson.dumps(made)


def oracle_of(records: Iterable[tuple[bytes, bytes]], api: dict[str, Any], **settings: Any) -> Oracle:
    """The oracle after the sample rules met these records."""
    oracle = Oracle(oracle_rules(), api, **settings)
    for key, value in records:
        oracle.feed(key, value, None, record(value, key).timestamp_ms)
    return oracle


def grouped(groups: dict[str, Any], *rules: Rule) -> tuple[Rule, ...]:
    """Rules with their groups."""
    return in_groups(rules, {name: Group.model_validate(group) for name, group in groups.items()})


class MemoryBag:
    """A Beam bag of journal elements: the objects, and the bytes that a runner has of them."""

    def __init__(self, stored: Iterable[bytes] = ()) -> None:
        self.stored = list(stored)
        self.elements = [decode_element(stored_bytes) for stored_bytes in self.stored]

    def read(self) -> list[JournalElement]:
        return list(self.elements)

    def add(self, value: JournalElement) -> None:
        self.elements.append(value)
        self.stored.append(encode_element(value))

    def clear(self) -> None:
        self.elements.clear()
        self.stored.clear()


class Elements(MemoryBag):
    """A bag of elements that come from somewhere else; nobody restores it."""

    def __init__(self, elements: list[JournalElement]) -> None:
        super().__init__()
        self.elements = elements


def contents(state: ShardState) -> dict[str, Any]:
    """Everything that a state holds; users who were seen at the same time may come in any order."""
    state.put_in_order()
    for times in (
        [user.last_seen_ms for user in state.users.values()],
        [events.deadline_ms for events in state.parked.values()],
    ):
        assert times == sorted(times)
    return {
        "users": sorted(
            (
                user.last_seen_ms,
                user_id,
                user.enrichment,
                user.profile_json,
                user.visit,
                user.fetched_ms,
                user.failed_ms,
                user.history.limit,
                user.history.rows(),
                user.stream_since_ms,
                user.listed,
            )
            for user_id, user in state.users.items()
        ),
        "rules": {user_id: packed_rule_state(rule_state, user_id) for user_id, rule_state in state.rule_states.items()},
        "awaited": set(state.rule_states.waiting_for_profile),
        "disabled": sorted(state.disabled),
        "deliveries": {user_id: list(one) for user_id, one in state.deliveries.items()},
        "due": (state.rule_states.stream_due.next_ms(), state.rule_states.clock_due.next_ms()),
        "rule_set": None if state.rules is None else (state.rules.number, state.rules.record),
        "ledger": state.ledger,
        "parked": {user_id: (one.deadline_ms, list(one.records)) for user_id, one in state.parked.items()},
    }


def packed_rule_state(state: RuleState, user_id: str) -> Any:
    packed = state.pack(user_id)
    packed.fired.sort(key=lambda one: (one.rule, one.slot))
    return packed


def filter_set(
    rules: tuple[Rule, ...],
    quarantine: Quarantine | None = None,
    clock_ms: Callable[[], int] = monotonic_ms,
    isolation: Isolation = "none",
) -> FilterSet:
    return FilterSet(rules, LuaEngines(isolation), clock_ms, quarantine)


def rule_sets(initial: RuleSet, topic: str | None = None) -> RuleSets:
    return RuleSets(initial, filter_set, topic)


def read_rule_files(path: Path) -> RuleFiles:
    return files.read_rule_files(path, LuaEngines())


def load_rules(path: Path) -> tuple[Rule, ...]:
    return files.load_rules(path, LuaEngines())


class Shard:
    """One user shard at a settable time, its journal in memory; ``fetch_started_ms`` are its fetches in flight."""

    def __init__(
        self,
        *rules: Rule,
        compact_bytes: int = DEFAULT_COMPACT_BYTES,
        filters: FilterSet | RuleSets | None = None,
        signer: LetterSigner | None = None,
        missing_topics: Collection[str] = (),
        **settings: Any,
    ) -> None:
        self.missing_topics = missing_topics
        self.signer = signer or LetterSigner()
        self.settings = ShardSettings(**settings)
        self.compact_bytes = compact_bytes
        self.filters = filter_set(rules) if filters is None else filters
        self.bags = [MemoryBag(), MemoryBag()]
        self.journal = self.open()
        self.now_ms = NOW_MS
        self.fetch_started_ms: dict[str, int] = {}

    def open(self) -> Journal:
        return Journal(self.bags, self.settings.history_size, self.compact_bytes)

    @property
    def state(self) -> ShardState:
        return self.journal.folded.state

    def restore(self) -> None:
        """Go on with what a runner has of this shard; for users whose events wait the user API is asked anew."""
        self.bags = [MemoryBag(bag.stored) for bag in self.bags]
        self.journal = self.open()
        self.fetch_started_ms = dict.fromkeys(
            (*self.state.parked, *self.state.rule_states.waiting_for_profile), self.now_ms
        )

    def step(
        self,
        batch: MicroBatch | None = None,
        answers: Sequence[Answer] = (),
        now_ms: int | None = None,
        stream_ms: int | None = None,
        delivery_results: Sequence[DeliveryResult] = (),
        in_flight: Collection[str] = (),
    ) -> StepResult:
        self.now_ms = self.now_ms if now_ms is None else now_ms
        for answer in answers:
            self.fetch_started_ms.pop(answer.user_id, None)
        with self.journal.changing():
            fetch_started_ms = self.fetch_started_ms
            given = StepInput(self.now_ms, batch, answers, delivery_results, fetch_started_ms, stream_ms, in_flight)
            done = step(
                self.state,
                StepContext(self.settings, self.filters, self.signer, self.missing_topics.__contains__),
                given,
            )
            if done.erasures:
                self.journal.rewrite(self.now_ms)
            elif done.facts:
                self.journal.append(self.now_ms, done.facts)
        self.fetch_started_ms |= dict.fromkeys(done.users_to_fetch, self.now_ms)
        wanted = {**self.state.users, **self.state.parked, **self.state.rule_states.waiting_for_profile}
        for user_id in [one for one in self.fetch_started_ms if one not in wanted]:
            del self.fetch_started_ms[user_id]
        return done

    def inspect(self, user_id: str) -> dict[str, Any]:
        shown: dict[str, Any] = orjson.loads(self.step(control({"inspect": user_id})).inspections[0].body)
        return shown
