"""What rules remember against the oracle: cooldown, cap, quiet hours and sequences in any combination, at any times.

The invariants at the end look at what comes out alone.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import Shard, event, filter_set
from tests.examples import examples
from tests.oracle import (
    UNAVAILABLE,
    Oracle,
    OracleEvent,
    OracleRule,
    OracleSequence,
    RuleFails,
    SeenAction,
    time_of,
)
from tests.transforms.domain.shard.test_step_oracle import ORACLE_NAMES, Both
from transforms.domain.base.durations import Duration
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.shard import journal_elements
from transforms.domain.shard.step_result import StepResult

USERS = ["one-user", "other-user"]
SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Spec:
    """A rule, said once for both; times are in units, of seconds or of hours."""

    name: str
    sequence: tuple[str, str | None] | None = None  # kind and match
    within: int = 2
    cooldown: str | None = None  # "plain" or "key"
    cap: str | None = None  # "rolling", or the calendar's
    count: int = 2
    quiet: tuple[str, str] | None = None
    zone: tuple[str | None, str] = ("timezone", "UTC")
    policy: str = "wait"
    version: int = 1
    actions: tuple[str, ...] = ("act",)
    all: bool = False

    def rule(self, unit_ms: int) -> Rule:
        document: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "filter": "true" if self.all else 'event.event_name == "begin" or event.event_name == "both"',
            "actions": [{"type": "kafka", "name": name} for name in self.actions],
            "on_missing_profile": self.policy,
            "time_zone": {"profile_field": self.zone[0], "default": self.zone[1]},
        }
        if self.sequence is not None:
            document["sequence"] = {
                self.sequence[0]: """if event.parameters.bad then error("bad") end
return event.event_name == "follow" or event.event_name == "both" """,
                "within": Duration(self.within * unit_ms),
                "match": self.sequence[1],
            }
        if self.cooldown is not None:
            key = {"key": "event.parameters.sku"} if self.cooldown == "key" else {}
            document["cooldown"] = {"time": Duration(COOLDOWN_UNITS * unit_ms)} | key
        if self.cap is not None:
            rolling = {"window": Duration(WINDOW_UNITS * unit_ms)}
            document["cap"] = {"count": self.count} | (rolling if self.cap == "rolling" else {"per": self.cap})
        if self.quiet is not None:
            document["quiet_hours"] = dict(zip(("start", "end"), self.quiet, strict=True))
        return Rule.model_validate(document)

    def oracle(self, unit_ms: int) -> OracleRule:
        return OracleRule(
            self.name,
            lambda event, *_: self.all or event["event_name"] in ("begin", "both"),
            self.version,
            self.actions,
            self.policy,
            self.sequence and OracleSequence(self.sequence[0], _follows, self.within * unit_ms, self.sequence[1]),
            None if self.cooldown is None else COOLDOWN_UNITS * unit_ms,
            _sku if self.cooldown == "key" else None,
            None if self.cap is None else self.count,
            WINDOW_UNITS * unit_ms if self.cap == "rolling" else None,
            None if self.cap == "rolling" else self.cap,
            self.quiet,
            *self.zone,
        )


def _follows(event: dict[str, Any], *_: Any) -> bool:
    if event["parameters"].get("bad"):
        raise RuleFails
    return event["event_name"] in ("follow", "both")


def _sku(event: dict[str, Any], *_: Any) -> str:
    if event["parameters"].get("sku") is None:
        raise RuleFails
    return str(event["parameters"]["sku"])


COOLDOWN_UNITS = 3
WINDOW_UNITS = 4
LATENESS_UNITS = 3

# One in every shard shows each event that is evaluated and what is known of its user; it says whether events wait.
ALL = {True: Spec("all", all=True, policy="wait"), False: Spec("all", all=True, policy="run")}


@dataclass(frozen=True)
class Out:
    """An action that came out, when, and after how many events."""

    now_ms: int
    told: int
    rule: str
    body: dict[str, Any]


class Remembering(Both):
    """A shard and an oracle with rules that remember, and a stream whose time passes.

    After every step the stream's timers fire once more, as those do that are set in the past.
    """

    def __init__(self, specs: Sequence[Spec], unit_ms: int, stream_ms: int, now_ms: int, **limits: Any) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.unit_ms, self.stream_ms, self.now_ms = unit_ms, stream_ms, now_ms
        self.api: dict[str, Any] = {}
        lateness = {"allowed_lateness_ms": LATENESS_UNITS * unit_ms}
        self.shard = Shard(*(spec.rule(unit_ms) for spec in specs), **lateness, **limits)
        named = {ORACLE_NAMES.get(name, name): value for name, value in limits.items()}
        rules = [spec.oracle(unit_ms) for spec in specs]
        self.oracle = Oracle(rules, self.api, answers_at_once=False, **lateness, **named)
        self.shard.now_ms = self.oracle.now_ms = now_ms
        self.answered = 0
        self.seen: list[SeenAction] = []
        self.letters: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.told: list[dict[str, Any]] = []
        self.received_ms: dict[str, int] = {}  # by event id
        self.out: list[Out] = []

    def tell(self, *told: tuple[str, str, str, int, dict[str, Any], str]) -> None:
        """A batch of events: user, id, name, how many units from the stream's time, parameters, how it was written."""
        records = []
        for user_id, event_id, name, units, parameters, how in told:
            shift, written = WRITTEN[how]
            at_ms = self.stream_ms + (units + shift) * self.unit_ms
            record_ms = written(at_ms, self.stream_ms, self.unit_ms)
            # What comes again under an id is the same event.
            unique = f"{event_id} {name} {at_ms} {orjson.dumps(parameters).decode()}"
            made = event(user_id, event_id=unique, event_name=name, timestamp=at_ms, parameters=parameters)
            self.told.append(made)
            self.received_ms.setdefault(unique, record_ms if record_ms > 0 else at_ms)
            records.append(Record(0, 0, record_ms, user_id.encode(), orjson.dumps(made)))
        self.records(*records)

    def times_of(self, fields: dict[str, Any]) -> tuple[int, int]:
        """Event time and record time of an event that was told."""
        told = OracleEvent(fields)
        told.received_ms = self.received_ms[fields["event_id"]]
        return time_of(told), told.received_ms

    def stream(self, units: int) -> None:
        """The stream's time passes."""
        self.stream_ms += units * self.unit_ms
        self._fire_stream_timers()

    def change(self, number: int, **fields: Any) -> None:
        """A rule is changed, or goes; not while a sequence waits for the user API, which may then be in vain or not."""
        for user_id in sorted(self.oracle.awaited):
            self.answer(user_id)
        changeable = [name for name in self.specs if name != "all"]
        if not changeable:
            return
        spec = self.specs[changeable[number % len(changeable)]]
        kind = fields.pop("kind", None)
        if fields.pop("gone", False):
            del self.specs[spec.name]
        else:
            sequence = (kind, spec.sequence[1]) if kind and spec.sequence else spec.sequence
            self.specs[spec.name] = replace(spec, version=spec.version + 1, sequence=sequence, **fields)
        self.shard.filters = filter_set(tuple(spec.rule(self.unit_ms) for spec in self.specs.values()))
        self.oracle.rules = [spec.oracle(self.unit_ms) for spec in self.specs.values()]

    def check(self, users: list[str]) -> None:
        super().check(users)
        for name in ("rules_cooled_down", "rules_capped", "held_dropped", "sequences_dropped"):
            assert (name, self.counts[name]) == (name, self.oracle.counts[name])
        for user_id in users:
            shown, known = self.shard.inspect(user_id)["ruleState"], self.oracle.state(user_id)["ruleState"]
            for entry in shown["cooldowns"]:
                entry["key"] = "" if entry["key"] is None else entry["key"].removeprefix("s:")
            assert shown["cooldowns"] == known["cooldowns"]
            assert [cap for cap in shown["caps"] if cap["rule"] in self.specs] == known["caps"]
            assert max(len(shown["sequences"]), len(shown["held"])) < 100, "beyond the bounds, which the oracle lacks"

    def finish(self) -> None:
        """Every sequence comes to its end, and whatever is held goes out."""
        self.stream(1000)
        for user_id in USERS:
            self.answer(user_id)
        while self.oracle.held:
            self.wait(min(one.until_ms for one in self.oracle.held) - self.now_ms)
        self.check(USERS)
        assert not any(self.oracle.open.values())

    def _see(self, done: StepResult) -> None:
        self.out += [
            Out(self.now_ms, len(self.told), action.rule, orjson.loads(action.body)) for action in done.actions
        ]
        super()._see(done)
        self._fire_stream_timers()

    def _fire_stream_timers(self) -> None:
        done = self.shard.step(now_ms=self.now_ms, stream_ms=self.stream_ms)
        self.out += [
            Out(self.now_ms, len(self.told), action.rule, orjson.loads(action.body)) for action in done.actions
        ]
        self.oracle.pass_time(self.now_ms)
        self.oracle.pass_stream(self.stream_ms)
        super()._see(done)


def _then(at_ms: int, stream_ms: int, unit_ms: int) -> int:
    return at_ms


# When records are written to Kafka, and by how many units their events are older than those that come in time.
WRITTEN: dict[str, tuple[int, Callable[[int, int, int], int]]] = {
    "then": (0, _then),
    "later": (0, lambda at_ms, stream_ms, unit_ms: at_ms + unit_ms),
    "now": (0, lambda at_ms, stream_ms, unit_ms: stream_ms),
    "by a fast clock": (0, lambda at_ms, stream_ms, unit_ms: at_ms - unit_ms),
    "after being offline": (-30, lambda at_ms, stream_ms, unit_ms: stream_ms),
    "after being offline for long": (-60, lambda at_ms, stream_ms, unit_ms: stream_ms + unit_ms),
    "by a mirror": (0, lambda at_ms, stream_ms, unit_ms: at_ms - 20 * unit_ms),
    "as a replay": (-30, _then),
    "without a time": (0, lambda at_ms, stream_ms, unit_ms: -1),
}
IN_TIME = list(WRITTEN)[:4]


def ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp()) * SECOND_MS


# Hours before days, weeks and months begin, and before clocks are set; processing time a year later.
STREAMS = [ms("2024-01-31T20:00:00Z"), ms("2024-03-30T20:00:00Z"), ms("2024-10-26T20:00:00Z")]
NOWS = [ms("2025-06-01T18:00:00Z"), ms("2025-03-29T20:00:00Z"), ms("2025-10-25T20:00:00Z")]
UNITS = [5 * SECOND_MS, HOUR_MS]

SEQUENCES = [None, *itertools.product(("followed_by", "not_followed_by"), (None, "parameters.cart"))]
COOLDOWNS = [None, "plain", "key"]
CAPS = [None, "rolling", "day", "week", "month"]
QUIETS = [None, ("22:00", "08:00"), ("01:30", "02:30"), ("13:15", "03:00")]
ZONES = [("timezone", "UTC"), ("timezone", "Asia/Tokyo"), (None, "America/New_York")]
POLICIES = {True: ("wait", "run", "skip"), False: ("run", "skip")}

IDS = [f"e{number}" for number in range(3)]
NAMES = ["begin", "begin", "follow", "both", "other"]
OFFSETS = range(1 - LATENESS_UNITS, 4)
PARAMETERS: list[dict[str, Any]] = [
    {"cart": 1, "sku": "a"},
    {"cart": 1, "sku": "b"},
    {"cart": 1.0, "sku": "a"},
    {"cart": "1", "sku": "a"},
    {"cart": True, "sku": "a"},
    {"cart": [1, {"a": 2, "b": None}], "sku": "a"},
    {"cart": [1.0, {"b": None, "a": 2.0}], "sku": "a"},
    {"cart": None, "sku": "a"},
    {"sku": "a"},
    {"cart": 1},
    {"cart": 1, "sku": "a", "bad": True},
]
PROFILES: list[dict[str, Any]] = [
    {"timezone": "Europe/Berlin"},
    {"timezone": "America/New_York"},
    {"timezone": "Nowhere/Nothing"},
    {"timezone": 5},
    {},
]
KNOWN: list[Any] = [
    *({"profile": profile, "visit": None, "history": []} for profile in PROFILES),
    {
        "profile": PROFILES[0],
        "visit": {"visit_id": "api's", "start_time": STREAMS[0], "page_count": 1, "is_first_visit": True},
        "history": [{"event_id": "e1", "event_name": "api", "timestamp": STREAMS[0]}],
    },
    None,
    UNAVAILABLE,
]
PAUSES = [50_000, 0, 49_999, 100_000, 150_000, HOUR_MS, 5 * HOUR_MS, 9 * HOUR_MS, 30 * HOUR_MS]
CHANGES = [
    {"within": 1},
    {"actions": ("act", "two")},
    {"kind": "followed_by"},
    {"kind": "not_followed_by"},
    {"gone": True},
]


SPECS = st.builds(
    Spec,
    name=st.just(""),
    sequence=st.sampled_from(SEQUENCES),
    cooldown=st.sampled_from(COOLDOWNS),
    cap=st.sampled_from(CAPS),
    count=st.sampled_from([1, 2]),
    quiet=st.sampled_from(QUIETS),
    zone=st.sampled_from(ZONES),
    actions=st.sampled_from([("act",), ("act", "two")]),
)
TOLD = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(IDS),
    st.sampled_from(NAMES),
    st.sampled_from(OFFSETS),
    st.sampled_from(PARAMETERS),
    st.sampled_from(["then", "then", "now", *WRITTEN]),
)
TELL = st.lists(TOLD, min_size=1, max_size=4).map(lambda told: ("tell", *told))
STREAM = st.tuples(st.just("stream"), st.integers(1, 6))
STEPS = st.one_of(
    TELL,
    TELL,
    TELL,
    st.tuples(st.just("answer_anew"), st.sampled_from(USERS), st.sampled_from(KNOWN)),
    st.tuples(st.just("answer_anew"), st.sampled_from(USERS), st.sampled_from(KNOWN)),
    STREAM,
    STREAM,
    st.tuples(st.sampled_from(["wait", "sleep", "restore"]), st.sampled_from(PAUSES)),
    st.tuples(st.just("forget"), st.sampled_from(USERS)),
    st.tuples(st.just("change"), st.integers(0, 3), st.sampled_from(CHANGES)),
    st.just(("check", USERS)),
)
SESSIONS = st.lists(st.lists(STEPS, min_size=1, max_size=8), min_size=1, max_size=4).map(
    lambda parts: [step for part in parts for step in part]
)
LIMITS = st.fixed_dictionaries(
    {
        "ttl_ms": st.sampled_from([1_000_000, 30 * DAY_MS]),
        "enrichment_deadline_ms": st.just(150_000),
        "enrichment_retry_ms": st.sampled_from([100_000, DAY_MS]),
        "profile_max_age_ms": st.sampled_from([None, 300_000]),
        "max_waiting_bytes": st.sampled_from([1_000_000, 1400]),
    }
)


def run(both: Remembering, session: Sequence[tuple[Any, ...]]) -> None:
    for name, *arguments in session:
        fields = arguments.pop() if name == "change" else {}
        getattr(both, name)(*arguments, **fields)


@examples(300, same=150)
@given(
    st.lists(SPECS, min_size=1, max_size=3),
    st.booleans(),
    st.data(),
    st.sampled_from(UNITS),
    st.sampled_from(STREAMS),
    st.sampled_from(NOWS),
    LIMITS,
    SESSIONS,
)
def test_any_interleaving_gives_the_actions_and_states_of_the_oracle(
    specs: list[Spec],
    waits: bool,
    data: st.DataObject,
    unit_ms: int,
    stream_ms: int,
    now_ms: int,
    limits: dict[str, Any],
    session: list[tuple[Any, ...]],
) -> None:
    policies = [data.draw(st.sampled_from(POLICIES[waits])) for _ in specs]
    named = [replace(spec, name=f"r{n}", policy=policies[n]) for n, spec in enumerate(specs)]
    both = Remembering([*named, ALL[waits]], unit_ms, stream_ms, now_ms, **limits)
    run(both, session)
    both.check(USERS)
    both.finish()


def random_session(
    seed: int, steps: int, *, known: Sequence[Any] = KNOWN, is_orderly: bool = False
) -> Iterator[tuple[Any, ...]]:
    """Steps as above, longer than hypothesis makes them.

    In an orderly one no id comes twice, nobody is forgotten, and no event or record is late.
    """
    chance = random.Random(seed)
    ids = (f"e{number}" for number in itertools.count())
    written = IN_TIME if is_orderly else list(WRITTEN)
    told: list[Any] = []
    for _ in range(steps):
        kind = chance.randrange(20)
        if kind < 9 or (kind == 9 and is_orderly):
            told = [
                tuple(chance.choice(one) for one in (USERS, [next(ids)], NAMES, OFFSETS, PARAMETERS, written))
                for _ in range(chance.randint(1, 3))
            ]
            yield ("tell", *told)
        elif kind == 9:
            yield ("tell", *told)
        elif kind < 13:
            yield ("answer_anew", chance.choice(USERS), chance.choice(known))
        elif kind < 16:
            yield ("stream", chance.randint(1, 4))
        elif kind < 19 or is_orderly:
            yield (chance.choice(("wait", "wait", "sleep", "restore")), chance.choice(PAUSES))
        else:
            yield ("forget", chance.choice(USERS))


COMBINATIONS = [
    Spec(
        f"r{number}",
        *(sequence, 2 + number // 15 % 3, cooldown, cap, 1 + number % 2),
        quiet=QUIETS[1 + number % 3] if is_quiet else None,
        zone=ZONES[number // 2 % 3],
        actions=("act", "two") if number % 7 == 0 else ("act",),
    )
    for number, (sequence, cooldown, cap, is_quiet) in enumerate(
        itertools.product(SEQUENCES, COOLDOWNS, CAPS, (False, True))
    )
]
TOGETHER = 10


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False], ids=["wait", "run and skip"])
@pytest.mark.parametrize("part", range(len(COMBINATIONS) // TOGETHER))
def test_every_combination_gives_what_the_oracle_says(part: int, waits: bool) -> None:
    policies = itertools.cycle(POLICIES[waits])
    # Every fifteenth: a part has something of everything.
    specs = [replace(spec, policy=next(policies)) for spec in COMBINATIONS[part :: len(COMBINATIONS) // TOGETHER]]
    both = Remembering(
        [*specs, ALL[waits]],
        UNITS[part % 2],
        STREAMS[part % 3],
        NOWS[part // 2 % 3],
        ttl_ms=1_000_000 if part % 4 else 30 * DAY_MS,
        profile_max_age_ms=300_000 if part % 3 else None,
        enrichment_retry_ms=100_000,
    )
    for number, step in enumerate(random_session(part, 150)):
        run(both, [step])
        if number % 30 == 29:
            both.check(USERS)
    both.finish()


@pytest.mark.parametrize("part", range(3))
def test_a_calendar_is_the_one_of_where_the_user_is(part: int) -> None:
    specs = [
        Spec(f"r{number}", sequence, cap=per)
        for number, (sequence, per) in enumerate(itertools.product(SEQUENCES, CAPS[2:]))
    ]
    both = Remembering([*specs, ALL[True]], HOUR_MS, STREAMS[part], NOWS[0], enrichment_deadline_ms=365 * DAY_MS)
    run(both, list(random_session(part, 150, known=KNOWN[:1])))
    both.finish()


# What comes out, whatever the oracle says


def firing_times(spec: Spec, out: Out, both: Remembering) -> tuple[int, int]:
    """Event time and record time."""
    begun_ms, received_ms = both.times_of(out.body["event"])
    if spec.sequence is None or spec.sequence[0] == "followed_by":
        return begun_ms, received_ms
    end_ms = begun_ms + spec.within * both.unit_ms
    return end_ms, max(end_ms + LATENESS_UNITS * both.unit_ms, received_ms)


def outputs_of(specs: Sequence[Spec], seed: int, unit_ms: int) -> Iterator[tuple[Spec, list[Out], Remembering]]:
    """Each rule's firings for each user over a session in which nobody is forgotten."""
    both = Remembering([*specs, ALL[True]], unit_ms, STREAMS[seed % 3], NOWS[0], ttl_ms=2 * HOUR_MS)
    run(both, list(random_session(seed, 200, is_orderly=True)))
    both.finish()
    by_user = defaultdict(list)
    for out in both.out:
        by_user[out.rule, out.body["event"]["user_id"]].append(out)
    for spec, user_id in itertools.product(specs, USERS):
        found = by_user[spec.name, user_id]
        assert found, spec
        yield spec, found, both


def specs_of(**fields: Any) -> list[Spec]:
    """A rule for each kind of sequence, days and quiet hours those of New York."""
    return [
        Spec(f"s{number}", sequence, zone=(None, "America/New_York"), **fields)
        for number, sequence in enumerate(SEQUENCES)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cap", CAPS[1:])
def test_no_window_and_no_calendar_period_ever_has_more_than_the_cap(cap: str, seed: int) -> None:
    unit_ms = UNITS[1]
    fullest = [0, 0]
    for spec, outs, both in outputs_of(specs_of(cap=cap), seed, unit_ms):
        both_times = zip(*(firing_times(spec, out, both) for out in outs), strict=True)
        for number, times in enumerate(both_times):
            if cap == "rolling":
                window_ms = WINDOW_UNITS * unit_ms
                counts = [sum(last_ms - window_ms < one_ms <= last_ms for one_ms in times) for last_ms in times]
            else:
                counts = list(Counter(map(_PERIODS[cap], times)).values())
            assert max(counts) <= spec.count
            fullest[number] = max(fullest[number], *counts)
    assert fullest == [2, 2]


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo("America/New_York"))


_PERIODS = {
    "day": lambda at_ms: _local(at_ms).date(),
    "week": lambda at_ms: _local(at_ms).isocalendar()[:2],
    "month": lambda at_ms: (_local(at_ms).year, _local(at_ms).month),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cooldown", ["plain", "key"])
def test_no_two_firings_are_within_a_cooldown_and_none_is_older_than_the_last(cooldown: str, seed: int) -> None:
    unit_ms = UNITS[seed % 2]
    for spec, outs, both in outputs_of(specs_of(cooldown=cooldown), seed, unit_ms):
        # The key of a sequence that was followed does not show: it is of the event before.
        if cooldown == "key" and spec.sequence is not None and spec.sequence[0] == "followed_by":
            continue
        times = defaultdict(list)
        for out in outs:
            key = out.body["event"]["parameters"]["sku"] if cooldown == "key" else None
            times[key].append(firing_times(spec, out, both))
        for found in times.values():
            for one, later in itertools.pairwise(found):
                assert min(later[0] - one[0], later[1] - one[1]) >= COOLDOWN_UNITS * unit_ms


@pytest.mark.parametrize("seed", range(3))
def test_each_sequence_fires_once_and_one_of_not_followed_by_only_if_nothing_followed(seed: int) -> None:
    unit_ms = UNITS[seed % 2]
    for spec, outs, both in outputs_of(specs_of(), seed, unit_ms):
        fired = [out.body["event"]["event_id"] for out in outs]
        assert len(set(fired)) == len(fired)
        if spec.sequence is None or spec.sequence[0] == "followed_by":
            continue
        for out in outs:
            begun = out.body["event"]
            begun_ms, _ = both.times_of(begun)
            number = next(n for n, told in enumerate(both.told) if told["event_id"] == begun["event_id"])
            for later in both.told[number + 1 : out.told]:
                assert not (
                    later["user_id"] == begun["user_id"]
                    and later["event_name"] in ("follow", "both")
                    and "bad" not in later["parameters"]
                    and (spec.sequence[1] is None or later["parameters"] is begun["parameters"])
                    and begun_ms <= both.times_of(later)[0] <= begun_ms + spec.within * unit_ms
                )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_goes_out_in_quiet_hours_and_all_of_it_in_the_end(seed: int) -> None:
    specs = [Spec(f"q{number}", quiet=quiet, zone=(None, "America/New_York")) for number, quiet in enumerate(QUIETS)]
    decided = defaultdict(list)
    for spec, outs, _ in outputs_of(specs, seed, UNITS[0]):
        decided[outs[0].body["event"]["user_id"]].append([out.body for out in outs])
        if spec.quiet is not None:
            start, end = spec.quiet
            for out in outs:
                clock = f"{_local(out.now_ms):%H:%M}"
                assert not (start <= clock < end if start < end else clock >= start or clock < end)
    for first, *rest in decided.values():
        assert all(bodies == first for bodies in rest)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_of_a_forgotten_user_remains(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(journal_elements, "_COMPRESS_FROM", 10**9)
    specs = COMBINATIONS[seed :: len(COMBINATIONS) // TOGETHER]
    both = Remembering([*specs, ALL[True]], UNITS[seed % 2], STREAMS[0], NOWS[seed % 3], ttl_ms=1_000_000)
    run(both, list(random_session(seed, 120, is_orderly=True)))
    gone = USERS[0].encode()
    both.tell((USERS[0], "last", "begin", 0, PARAMETERS[0], "then"))
    assert any(both.shard.inspect(USERS[0])["ruleState"].values())
    assert any(gone in stored_bytes for bag in both.shard.bags for stored_bytes in bag.stored)
    both.forget(USERS[0])
    assert not any(gone in stored_bytes for bag in both.shard.bags for stored_bytes in bag.stored)
    both.restore()
    assert not any(both.shard.inspect(USERS[0])["ruleState"].values())
    before = len(both.out)
    both.finish()
    assert USERS[0] not in {out.body["event"]["user_id"] for out in both.out[before:]}
