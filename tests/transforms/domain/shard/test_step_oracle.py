"""``shard.step`` against the oracle: whatever the batches, answers, times and restores, the same actions and states."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    NOW_MS,
    PAIRS,
    Shard,
    batch,
    control,
    event,
    fetched,
    oracle_rules,
    poison_record,
    random_stream,
    record,
    sample_rules,
    user_api_of,
)
from tests.examples import examples
from tests.oracle import (
    UNAVAILABLE,
    Oracle,
    SeenAction,
    action_differences,
    dead_letter_differences,
    state_differences,
)
from transforms.domain.events.record import Record
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

USERS = ["u0", "u1"]

# The last one shows every event that is evaluated, with all that is known of its user.
PAIRS_AND_ALL = (*PAIRS, ("all", "true", lambda event, user, visit, history: True))

# Rules take turns with the policies: as many as there are rules, so that the last one shows what it stands for.
POLICIES = [
    ("wait",),
    ("run", "skip", "wait", "skip", "run", "skip"),
    ("run",),
    ("skip", "run"),
    ("run", "skip"),
    ("skip",),
]

# What the shard and the oracle call differently.
ORACLE_NAMES = {"enrichment_deadline_ms": "deadline_ms"}


class Both:
    """A shard and an oracle that are told the same. ``make`` is what makes the shard."""

    def __init__(
        self, api: dict[str, Any], policies: tuple[str, ...] = ("wait",), *, make: Any = Shard, **limits: Any
    ) -> None:
        self.api = api
        self.shard = make(*sample_rules("kafka", policies, PAIRS_AND_ALL), **limits)
        named = {ORACLE_NAMES.get(name, name): value for name, value in limits.items()}
        self.oracle = Oracle(oracle_rules(policies, PAIRS_AND_ALL), api, answers_at_once=False, **named)
        self.oracle.now_ms = NOW_MS
        self.now_ms = NOW_MS
        self.answered = 0
        self.seen: list[SeenAction] = []
        self.letters: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()

    def events(self, *records: tuple[bytes, bytes]) -> None:
        self.records(*(record(value, key) for key, value in records))

    def records(self, *records: Record) -> None:
        done = self.shard.step(batch(*records), now_ms=self.now_ms)
        for one in records:
            self.oracle.feed(one.key, one.value, self.now_ms, one.timestamp_ms)
        self._see(done)

    def answer(self, user_id: str) -> None:
        """What the API says now; nothing if it is not being asked. A user who is gone gets an answer all the same."""
        if user_id in self.shard.state.users and user_id not in self.shard.fetch_started_ms:
            self.wait(0)
            return
        known = fetched(self.api.get(user_id), self.shard.settings.history_fields)
        done = self.shard.step(answers=[Answer(user_id, known)], now_ms=self.now_ms)
        self.oracle.answer(user_id, self.now_ms)
        self._see(done)

    def answer_anew(self, user_id: str, known: Any) -> None:
        """The API has learnt something since it last answered: no two profiles are the same.

        It answers for somebody else if it is not being asked for this user.
        """
        if user_id not in self.shard.fetch_started_ms:
            user_id = min(self.shard.fetch_started_ms, default=user_id)
        if known is None:
            self.api.pop(user_id, None)
        elif known == UNAVAILABLE:
            self.api[user_id] = known
        else:
            self.answered += 1
            self.api[user_id] = known | {"profile": known["profile"] | {"version": self.answered}}
        self.answer(user_id)

    def forget(self, user_id: str) -> None:
        done = self.shard.step(control({"forget": user_id}), now_ms=self.now_ms)
        self.oracle.forget(user_id, self.now_ms)
        self._see(done)

    def wait(self, ms: int) -> None:
        self.sleep(ms)
        self._see(self.shard.step(now_ms=self.now_ms))

    def sleep(self, ms: int) -> None:
        """Time passes and no timer fires: what comes next finds deadlines and TTLs that have ended."""
        self.now_ms += ms

    def restore(self, down_ms: int = 0) -> None:
        self.now_ms += down_ms
        self.shard.now_ms = self.now_ms
        self.shard.restore()
        self.oracle.restored(self.now_ms)

    def check(self, users: list[str]) -> None:
        self.wait(0)
        assert action_differences(self.oracle, self.seen) == []
        assert dead_letter_differences(self.oracle, self.letters) == []
        assert state_differences(self.oracle, {user: self.shard.inspect(user) for user in users}) == []
        assert self.counts["events_handled"] == self.oracle.handled
        assert self.counts["duplicates"] == len(self.oracle.duplicates)

    def _see(self, done: StepResult) -> None:
        self.oracle.pass_time(self.now_ms)
        self.seen += [
            SeenAction(orjson.loads(action.body), action.rule, action.rule_version, action.action_id)
            for action in done.actions
        ]
        self.letters += [orjson.loads(letter.to_json()) for letter in done.dead_letters]
        self.counts.update(done.counts)
        assert set(self.shard.fetch_started_ms) == self.oracle.asked


# Small ranges, so that whatever comes meets something of the same id, the same time or the same user.
EVENT_IDS = st.integers(0, 9).map("e{}".format)
TIMES = st.integers(0, 11).map(lambda n: NOW_MS + 10 * n)
USER_IDS = st.sampled_from(USERS)
PAUSES = st.sampled_from([50, 100, 0, 1, 49, 99, 150, 300, 999, 1000])


def _record_of(user_id: str, event_id: str, timestamp: int, kind: int) -> tuple[bytes, bytes]:
    made = event(
        user_id,
        event_id=event_id,
        event_name="page_view" if kind & 1 else "checkout",
        event_type="pageview" if kind & 1 else "click",
        timestamp=timestamp,
        is_first_in_visit=kind & 14 == 2,
        is_last_in_visit=kind & 14 == 4,
        is_first_event=kind & 14 == 6,
        triggerable=kind & 8 == 8,
        platform="web",
        parameters={"utm_source": "google"},
    )
    return user_id.encode(), orjson.dumps(made)


def _known(country: str, visit: tuple[int, int] | None, past: list[tuple[str, int]]) -> dict[str, Any]:
    return {
        "profile": {"country": country},
        "visit": visit
        and {"visit_id": "api's", "start_time": visit[0], "page_count": visit[1], "is_first_visit": True},
        "history": [
            {"event_id": event_id, "event_name": "page_view", "timestamp": timestamp, "platform": "api"}
            for event_id, timestamp in past
        ],
    }


RECORDS = st.builds(_record_of, USER_IDS, EVENT_IDS, TIMES, st.integers(0, 15))
# Its times are those of the events and some before: the API knows what was handled, what waits and what is to come.
API_TIMES = st.integers(-9, 11).map(lambda n: NOW_MS + 10 * n)
KNOWN = st.builds(
    _known,
    st.sampled_from(["US", "DE"]),
    st.none() | st.tuples(API_TIMES, st.integers(0, 3)),
    st.dictionaries(st.integers(0, 11).map("e{}".format), API_TIMES, max_size=5).map(lambda rows: list(rows.items())),
)
EVENTS = st.lists(RECORDS, min_size=1, max_size=4).map(lambda records: ("events", *records))
STEPS = st.one_of(
    EVENTS,
    EVENTS,
    EVENTS,
    st.tuples(st.just("answer_anew"), USER_IDS, KNOWN),
    st.tuples(st.just("answer_anew"), USER_IDS, KNOWN),
    st.tuples(st.just("answer_anew"), USER_IDS, st.sampled_from([None, UNAVAILABLE])),
    st.tuples(st.just("wait"), PAUSES),
    st.tuples(st.just("wait"), PAUSES),
    st.tuples(st.sampled_from(["sleep", "restore"]), PAUSES),
    st.tuples(st.just("forget"), USER_IDS),
    st.integers(0, 5).map(lambda kind: ("events", poison_record(kind, 0))),
    st.just(("check", USERS)),
)
LIMITS = st.fixed_dictionaries(
    {
        "ttl_ms": st.just(1000),
        "enrichment_deadline_ms": st.just(150),
        "enrichment_retry_ms": st.sampled_from([100, 2000]),
        "history_fields": st.just(("platform",)),
        "history_size": st.sampled_from([100, 1, 2, 3, 5]),
        "profile_max_age_ms": st.sampled_from([None, 50, 300]),
        "max_waiting_bytes": st.sampled_from([1_000_000, 700, 1400, 2100]),
    }
)
# Lists of lists are longer: one list alone has six elements on average.
SESSIONS = st.lists(st.lists(STEPS, min_size=1, max_size=8), min_size=1, max_size=5).map(
    lambda parts: [step for part in parts for step in part]
)


@examples(2000, same=500)
@given(st.sampled_from(POLICIES), LIMITS, SESSIONS)
def test_any_interleaving_gives_the_actions_and_states_of_the_oracle(
    policies: tuple[str, ...], limits: dict[str, Any], session: list[tuple[Any, ...]]
) -> None:
    both = Both({}, policies, **limits)
    for name, *arguments in session:
        getattr(both, name)(*arguments)
    both.check(USERS)
    both.wait(150)
    both.check(USERS)


@pytest.mark.parametrize("policies", POLICIES)
def test_a_refresh_replaces_the_profile_and_nothing_else(policies: tuple[str, ...]) -> None:
    both = Both({}, policies, profile_max_age_ms=50, history_fields=("platform",))
    for number, what in enumerate([_known("US", (NOW_MS - 10, 1), [("e0", NOW_MS - 10)]), UNAVAILABLE, None]):
        older = _known("DE", (NOW_MS - 20, 9), [("e1", NOW_MS - 20), (f"e{number + 2}", NOW_MS - 30)])
        for known in (what, older):
            both.events(_record_of("u0", f"e{number + 2}", NOW_MS + number, 1))
            both.answer_anew("u0", known)
            both.check(["u0"])
            both.wait(49)
            both.events(_record_of("u0", f"not due {both.oracle.handled}", NOW_MS + number, 1))
            both.wait(1)
    assert both.answered == 4


@pytest.mark.parametrize("policies", [("wait",), ("run",)])
def test_a_restore_keeps_that_a_visit_was_assumed_and_which_rows_are_the_api_s(policies: tuple[str, ...]) -> None:
    both = Both({}, policies)
    both.events(_record_of("u0", "e0", NOW_MS, 1))
    both.restore()
    both.events(_record_of("u0", "e1", NOW_MS + 1, 1))
    both.answer_anew("u0", _known("US", (NOW_MS - 10, 2), [("late", NOW_MS - 5)]))
    both.restore()
    both.events(_record_of("u0", "late", NOW_MS - 5, 1))
    both.check(["u0"])
    assert both.oracle.state("u0")["currentVisit"]["page_count"] == 5
    assert (both.oracle.handled, both.oracle.duplicates) == (3, [])


@pytest.mark.parametrize(("spare", "waiting"), [(0, 2), (-1, 0)])
def test_a_user_waits_with_exactly_so_many_bytes(spare: int, waiting: int) -> None:
    records = [_record_of("u0", event_id, NOW_MS, 1) for event_id in ("e0", "e1")]
    both = Both({}, max_waiting_bytes=sum(300 + len(value) for _, value in records) + spare)
    both.events(*records)
    both.check(["u0"])
    assert len(both.oracle.waiting.get("u0", [])) == waiting


@pytest.mark.slow
@pytest.mark.parametrize("policies", [("wait",), ("run", "skip")])
@pytest.mark.parametrize("history_size", [100, 10])
def test_a_long_stream_gives_what_the_oracle_says(history_size: int, policies: tuple[str, ...]) -> None:
    users = [f"user-{number:04d}" for number in range(30)]
    both = Both(user_api_of(users), policies, history_size=history_size)
    records = list(random_stream(5, len(users), 3000))
    for start in range(0, len(records), 100):
        both.events(*records[start : start + 100])
        for user_id in sorted(both.oracle.asked):
            both.answer(user_id)
    both.check(users)
    assert len(both.seen) > 1000
    assert {action.rule for action in both.seen} == {rule.name for rule in both.oracle.rules}


def test_the_comparison_notices_each_kind_of_difference() -> None:
    both = Both({})
    both.events(*random_stream(1, 3, 60, poison=False))
    for user_id in list(both.oracle.waiting):
        both.answer(user_id)
    both.check([])
    seen = both.seen
    other = SeenAction(seen[0].body | {"userProfile": {}}, seen[0].rule, seen[0].version, seen[0].action_id)
    swapped = next(
        [*seen[:i], seen[i + 1], seen[i], *seen[i + 2 :]]
        for i in range(len(seen) - 1)
        if seen[i].body["event"]["user_id"] == seen[i + 1].body["event"]["user_id"]
        and seen[i].body["event"]["event_id"] != seen[i + 1].body["event"]["event_id"]
    )
    for wrong in (seen[1:], [*seen, seen[0]], [other, *seen[1:]], swapped):
        assert action_differences(both.oracle, wrong)
    assert action_differences(both.oracle, [*seen, seen[0]], repeats_allowed=True) == []
    assert action_differences(both.oracle, [*seen, other], repeats_allowed=True)
    user_id = both.oracle.actions[0].user_id
    assert state_differences(both.oracle, {user_id: both.oracle.state(user_id) | {"parked": 1}})
    assert dead_letter_differences(both.oracle, [{"reason": "not_json", "key": None, "value": ""}])
