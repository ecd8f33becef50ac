"""What the pipeline must do, written a second time in plain Python: no batches, no journal, no bytes, no Lua.

Shares no code with what it checks. Feed it each user's records in order, then compare::

    oracle = Oracle(rules, api={"u1": {"profile": {"country": "US"}, "visit": None, "history": []}})
    for key, value in records:
        oracle.feed(key, value)
    assert action_differences(oracle, seen) == []

Processing time stands still unless ``now_ms`` is given, so no TTL ends. By default the user API answers at once,
right after the event that had it asked; with ``answers_at_once=False`` it is silent until ``answer`` is called, and
``asked`` holds the users it is being asked for. The stream's time stands still unless ``pass_stream`` is called, so no
sequence comes to its end. The rules are those of docs/user-state.md and docs/rules.md.

Every firing is remembered, one by one, until ``pass_stream`` forgets it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UNAVAILABLE = "unavailable"
HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS
YEAR_2000_MS = 946_684_800_000
YEAR_3000_MS = 32_503_680_000_000
LETTER_BYTES = 256 * 1024  # docs/dead-letters.md, "cut"

Filter = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], list[dict[str, Any]]], bool]
Key = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], list[dict[str, Any]]], str]

DEFAULTS: dict[str, Any] = {
    "domain": "",
    "is_first_in_visit": False,
    "is_last_in_visit": False,
    "is_first_event": False,
    "is_current": True,
    "event_displayname": "",
    "integration": "",
    "app": "",
    "platform": "",
    "is_https": False,
    "event_type": "",
    "duration": 0,
    "triggerable": False,
    "parameters": {},
}


class RuleFails(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A rule's function raises it where its Lua would fail."""


@dataclass(frozen=True)
class OracleSequence:
    """``kind`` is "followed_by" or "not_followed_by", ``match`` a path like ``parameters.cart_id``."""

    kind: str
    follows: Filter
    within_ms: int
    match: str | None = None


@dataclass(frozen=True)
class OracleRule:
    """A rule whose Lua is a Python function of event, user, visit and history.

    The cap is rolling with ``cap_window_ms``, of the calendar with ``cap_per`` ("day", "week" or "month"). ``quiet`` is
    start and end, "HH:MM".
    """

    name: str
    allows: Filter
    version: int = 1
    actions: tuple[str, ...] = ("debug",)
    on_missing_profile: str = "wait"
    sequence: OracleSequence | None = None
    cooldown_ms: int | None = None
    cooldown_key: Key | None = None
    cap_count: int | None = None
    cap_window_ms: int | None = None
    cap_per: str | None = None
    quiet: tuple[str, str] | None = None
    zone_field: str | None = "timezone"
    zone_default: str = "UTC"


@dataclass(frozen=True)
class OracleAction:
    user_id: str
    event_id: str
    rule: str
    version: int
    action: str
    body: dict[str, Any]


@dataclass(frozen=True)
class OracleDeadLetter:
    reason: str
    key: bytes | None
    value: bytes


@dataclass(frozen=True)
class OracleFiring:
    """A firing as a cap (``key`` None) or a cooldown remembers it until the stream's time is ``until_ms``."""

    rule: str
    key: str | None
    at_ms: int
    received_ms: int
    until_ms: int


@dataclass(frozen=True)
class OracleOpen:
    """An open sequence; its end was fixed when it began."""

    rule: str
    kind: str
    match: Any
    key: str
    event: OracleEvent
    begun_ms: int
    ends_ms: int


@dataclass(frozen=True)
class OracleHeld:
    """An action that waits for the end of quiet hours, with the hours and the zone it was decided with."""

    action: OracleAction
    until_ms: int
    quiet: tuple[str, str]
    zone: str


class OracleEvent(dict[str, Any]):
    """A valid event; ``received_ms`` is its record's Kafka time, or its own where the record has no usable one."""

    received_ms: int


def time_of(event: dict[str, Any]) -> int:
    """The time of an event or a row of a history where order matters: a fast clock counts as the record's time."""
    own_ms: int = event["timestamp"]
    return min(own_ms, event.received_ms) if isinstance(event, OracleEvent) else own_ms


@dataclass(frozen=True)
class OracleRecord:
    """An event with the record it came as."""

    event: OracleEvent
    key: bytes | None
    value: bytes


@dataclass
class OracleUser:
    enrichment: str
    last_seen_ms: int
    fetched: dict[str, Any] = field(default_factory=dict)  # the profile
    fetched_ms: int = 0
    failed_ms: int | None = None  # when the user API last failed, if it did since it last answered
    visit: dict[str, Any] | None = None
    visit_assumed: bool = False  # whether its start is
    visit_end_ms: int | None = None  # None: it has not ended
    visit_after_ms: int | None = None  # when the visit before ended, if that is known
    visit_of_api: bool = False
    stream_since_ms: int = 0
    listed: set[str] = field(default_factory=set)  # events to come that the API's history had
    pages: set[str] = field(default_factory=set)  # handled events that counted as a page
    history: list[dict[str, Any]] = field(default_factory=list)
    api_ids: set[str] = field(default_factory=set)  # events known from the user API alone

    def profile(self) -> dict[str, Any]:
        return dict(self.fetched) if self.enrichment == "fetched" else {"enrichment": self.enrichment}

    def has_no_answer(self) -> bool:
        """Whether the user API has never answered for this user."""
        return self.enrichment in ("pending", "unavailable")


class Rejected(Exception):  # noqa: N818 - reads as a sentence where it is raised
    pass


@dataclass
class Oracle:
    rules: list[OracleRule]
    api: Mapping[str, Any] = field(default_factory=dict)  # user -> {"profile", "visit", "history"}, or UNAVAILABLE
    history_size: int = 100
    history_fields: tuple[str, ...] = ()
    max_event_bytes: int = 10_240
    ttl_ms: int = 600_000
    deadline_ms: int = 10_000
    enrichment_retry_ms: int = 30_000
    profile_max_age_ms: int | None = None
    max_waiting_bytes: int = 1_000_000
    user_key: str = "record"
    allowed_lateness_ms: int = 10_000
    answers_at_once: bool = True
    visits_have_ends: bool = True  # False: visits move as in 0.1.0, which did not store when they ended

    def __post_init__(self) -> None:
        self.now_ms = 2**52
        self.stream_ms = 0
        self.users: dict[str, OracleUser] = {}
        self.asked: set[str] = set()
        # Users whose sequences that are over wait for the user API, and the stream's time when they began to.
        self.awaited: dict[str, int] = {}
        self.waiting: dict[str, list[OracleRecord]] = {}
        self.waiting_bytes: dict[str, int] = {}
        self.deadlines: dict[str, int] = {}
        self.actions: list[OracleAction] = []
        self.dead_letters: list[OracleDeadLetter] = []
        self.duplicates: list[tuple[str, str]] = []
        self.handled = 0
        self.skipped = 0  # rules that were not asked because of their policy, once an event
        # By user, who need not be in ``users``.
        self.firings: dict[str, list[OracleFiring]] = {}
        self.open: dict[str, list[OracleOpen]] = {}
        self.held: list[OracleHeld] = []  # of all users, in the order decided
        self.counts: Counter[str] = Counter()  # of rules: cooled_down, capped, held_dropped, sequences_dropped

    # Inputs

    def feed(self, key: bytes | None, value: bytes, now_ms: int | None = None, record_ms: int = -1) -> None:
        """One record of the events topic; ``record_ms`` is its Kafka time, -1 without one."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self._release_held()
        try:
            event = self._read(key, value, record_ms)
        except Rejected as reason:
            self.dead_letters.append(OracleDeadLetter(str(reason), key, value))
            return
        record = OracleRecord(event, key, value)
        user_id = event["user_id"]
        self._expire(user_id)
        if user_id in self.users:
            if self._is_due(self.users[user_id]):
                self.asked.add(user_id)
            self._handle(record)
        elif self._some_rule_waits():
            self._park(record)
        else:
            self.asked.add(user_id)
            self.users[user_id] = OracleUser("pending", self.now_ms, stream_since_ms=event.received_ms)
            self._handle(record)
        if self.answers_at_once and user_id in self.asked:
            self.answer(user_id)

    def answer(self, user_id: str, now_ms: int | None = None, unavailable: bool = False) -> None:
        """The user API answers or fails; without a fetch in flight for this user nothing happens."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self._release_held()
        self._expire(user_id)
        if user_id not in self.asked:
            return
        self.asked.remove(user_id)
        known = UNAVAILABLE if unavailable else self.api.get(user_id)
        if user_id not in self.users:
            self.users[user_id] = OracleUser("pending", self.now_ms, stream_since_ms=self._stream_since_ms(user_id))
        self._fold_in(self.users[user_id], known, [record.event for record in self.waiting.get(user_id, [])])
        self._stop_waiting(user_id)

    def pass_stream(self, stream_ms: int, now_ms: int | None = None) -> None:
        """The stream's time reaches ``stream_ms`` and ends sequences and firings. Past every event: the input ended."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self._release_held()
        self.stream_ms = max(stream_ms, self.stream_ms)
        for user_id in sorted({*self.open, *self.firings}):
            self._expire(user_id)
            self._end_sequences(user_id)

    def pass_time(self, now_ms: int) -> None:
        """Deadlines, TTLs and quiet hours end."""
        self.now_ms = now_ms
        self._release_held()
        for user_id in [user_id for user_id in self.waiting if self.deadlines[user_id] <= now_ms]:
            self._give_up(user_id)
        for user_id in list(self.users):
            self._expire(user_id)

    def forget(self, user_id: str, now_ms: int | None = None) -> None:
        """The control record removes the user, the waiting events, the fetch and the rule state.

        As before any record, held actions whose time has come go out first.
        """
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self._release_held()
        self.users.pop(user_id, None)
        self.waiting.pop(user_id, None)
        self.asked.discard(user_id)
        self.awaited.pop(user_id, None)
        self.firings.pop(user_id, None)
        self.open.pop(user_id, None)
        self.held = [waiting for waiting in self.held if waiting.action.user_id != user_id]

    def restored(self, now_ms: int | None = None) -> None:
        """The job is restored: it fetches again for users of whom anything waits, with a new deadline."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self.asked = {*self.waiting, *self.awaited}
        self.deadlines = dict.fromkeys(self.waiting, self.now_ms + self.deadline_ms)

    # State

    def state(self, user_id: str) -> dict[str, Any]:
        """What ``{"inspect": user_id}`` shows, less ``last_seen``."""
        user = self.users.get(user_id)
        return {
            "user_id": user_id,
            "found": user is not None,
            "parked": len(self.waiting.get(user_id, [])),
            "enrichment": user.enrichment if user else None,
            "userProfile": user.profile() if user else None,
            "currentVisit": user.visit if user else None,
            "eventHistory": user.history if user else [],
            "ruleState": {
                "cooldowns": sorted(self._cooldowns(user_id), key=lambda entry: (entry["rule"], entry["key"])),
                "caps": sorted(self._caps(user_id), key=lambda entry: entry["rule"]),
                "sequences": sorted(
                    (
                        {
                            "rule": sequence.rule,
                            "event_id": sequence.event["event_id"],
                            "begun_at": sequence.begun_ms,
                            "ends_at": sequence.ends_ms,
                        }
                        for sequence in self.open.get(user_id, [])
                    ),
                    key=_sequence_order,
                ),
                "held": [
                    {
                        "rule": waiting.action.rule,
                        "action": waiting.action.action,
                        "event_id": waiting.action.event_id,
                        "until": waiting.until_ms,
                    }
                    for waiting in self.held
                    if waiting.action.user_id == user_id
                ],
            },
        }

    def _cooldowns(self, user_id: str) -> list[dict[str, Any]]:
        last: dict[tuple[str, str], int] = {}
        for firing in self.firings.get(user_id, []):
            if firing.key is not None:
                last[firing.rule, firing.key] = max(firing.at_ms, last.get((firing.rule, firing.key), 0))
        return [{"rule": rule, "key": key, "fired_at": at_ms} for (rule, key), at_ms in last.items()]

    def _caps(self, user_id: str) -> list[dict[str, Any]]:
        found = []
        for rule in self.rules:
            times = sorted(firing.at_ms for firing in self._firings_of(user_id, rule, None))
            if rule.cap_count is not None and times:
                found.append({"rule": rule.name, "fired_at": times[-rule.cap_count :]})
        return found

    # Semantics

    def _read(self, key: bytes | None, value: bytes, record_ms: int) -> OracleEvent:
        if len(value) > self.max_event_bytes:
            raise Rejected("too_large")
        event, pairs = _strict_json(value)
        if not isinstance(event, dict):
            raise Rejected("not_an_object")
        for name in ("event_id", "user_id", "event_name", "timestamp"):
            if name not in event:
                raise Rejected("missing_field")
        expected = {"event_id": "", "user_id": "", "event_name": "", "timestamp": 0, **DEFAULTS}
        event = {name: field for name, field in event.items() if field is not None or name not in DEFAULTS}
        if isinstance(event["timestamp"], float) and event["timestamp"].is_integer():
            event["timestamp"] = int(event["timestamp"])
        for name, example in expected.items():
            if name not in event or type(event[name]) is type(example):
                continue
            if name == "duration" and type(event[name]) is float:
                continue
            raise Rejected("wrong_type")
        if _depth(event) > 100:
            raise Rejected("out_of_range")
        if sum(name == "user_id" for name, _ in pairs) > 1:
            raise Rejected("duplicate_user_id")
        if "" in (event["event_id"], event["user_id"], event["event_name"]):
            raise Rejected("out_of_range")
        has_time = YEAR_2000_MS <= record_ms <= self.now_ms + DAY_MS
        latest_ms = (record_ms if has_time else self.now_ms) + DAY_MS if record_ms >= YEAR_2000_MS else YEAR_3000_MS
        if not YEAR_2000_MS <= event["timestamp"] <= min(latest_ms, YEAR_3000_MS):
            raise Rejected("out_of_range")
        if self.user_key == "record" and key != event["user_id"].encode():
            raise Rejected("key_mismatch")
        read = OracleEvent({**DEFAULTS, **event})
        read.received_ms = record_ms if has_time else event["timestamp"]
        return read

    def _expire(self, user_id: str) -> None:
        user = self.users.get(user_id)
        if user is not None and self.now_ms - user.last_seen_ms >= self.ttl_ms:
            del self.users[user_id]
            if user_id not in self.awaited:
                self.asked.discard(user_id)

    def _some_rule_waits(self) -> bool:
        return any(rule.on_missing_profile == "wait" for rule in self.rules)

    def _is_due(self, user: OracleUser) -> bool:
        """Whether the next event starts a fetch."""
        if user.failed_ms is not None and self.now_ms < user.failed_ms + self.enrichment_retry_ms:
            return False
        if user.has_no_answer():
            return True
        return self.profile_max_age_ms is not None and self.now_ms >= user.fetched_ms + self.profile_max_age_ms

    def _park(self, record: OracleRecord) -> None:
        user_id = record.event["user_id"]
        if user_id not in self.waiting:
            self.asked.add(user_id)
            self.waiting[user_id] = []
            self.waiting_bytes[user_id] = 0
            self.deadlines[user_id] = self.now_ms + self.deadline_ms
        self.waiting[user_id].append(record)
        self.waiting_bytes[user_id] += len(record.value) + 300
        if self.waiting_bytes[user_id] > self.max_waiting_bytes:
            self._give_up(user_id)

    def _give_up(self, user_id: str) -> None:
        """Evaluate the waiting events without a profile; the fetch goes on."""
        since_ms = self._stream_since_ms(user_id)
        self.users[user_id] = OracleUser("unavailable", self.now_ms, failed_ms=self.now_ms, stream_since_ms=since_ms)
        self._stop_waiting(user_id)

    def _stream_since_ms(self, user_id: str) -> int:
        """When the first event reached Kafka; without one a sequence has ended, at the stream's time."""
        waiting = self.waiting.get(user_id)
        return waiting[0].event.received_ms if waiting else self.awaited[user_id]

    def _stop_waiting(self, user_id: str) -> None:
        for record in self.waiting.pop(user_id, []):
            self._handle(record)
        if user_id in self.awaited:
            self._end_sequences(user_id)

    def _fold_in(self, user: OracleUser, known: Any, waiting: list[dict[str, Any]]) -> None:
        refresh = not user.has_no_answer()
        if known == UNAVAILABLE:
            user.failed_ms = self.now_ms
            if not refresh:
                user.enrichment = "unavailable"
            return
        user.failed_ms = None
        user.fetched_ms = self.now_ms
        if known is None:
            user.enrichment = "unknown"
            return
        user.enrichment = "fetched"
        user.fetched = dict(known["profile"])
        if not refresh:
            self._fold_in_visit(user, known["visit"], known["history"], waiting)
            self._fold_in_history(user, known["history"], waiting)

    def _fold_in_history(self, user: OracleUser, past: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> None:
        in_hand = [event["event_id"] for event in [*user.history, *waiting]]
        rows = [
            self._row(row)
            for row in past
            if row["timestamp"] <= user.stream_since_ms and row["event_id"] not in in_hand
        ]
        user.api_ids = {row["event_id"] for row in rows}
        user.history = sorted([*rows, *user.history], key=lambda row: row["timestamp"])[-self.history_size :]

    def _fold_in_visit(
        self,
        user: OracleUser,
        known: dict[str, Any] | None,
        past: list[dict[str, Any]],
        waiting: list[dict[str, Any]],
    ) -> None:
        """The API's visit, if it is one of events in hand; called before its history is folded in."""
        if known is None:
            return
        start_ms, live = known["start_time"], user.visit
        began_earlier = live is not None and start_ms <= live["start_time"]
        if began_earlier and (not user.visit_assumed or start_ms <= (user.visit_after_ms or 0)):
            return
        if not began_earlier and start_ms > user.stream_since_ms:
            return
        api_ids = {row["event_id"] for row in past}
        handled = {row["event_id"]: row["timestamp"] for row in user.history}
        page_count = known["page_count"] - len(
            {
                event["event_id"]
                for event in waiting
                if event["event_type"] == "pageview"
                and time_of(event) >= start_ms
                and event["event_id"] in api_ids
                and event["event_id"] not in handled
            }
        )
        page_count = max(0, page_count)
        if live is not None and user.visit_end_ms is not None and user.visit_end_ms < start_ms:
            user.visit_end_ms = None
        elif live is not None:
            kept = [id_ for id_, at_ms in handled.items() if id_ in user.pages and at_ms >= live["start_time"]]
            page_count += sum(handled[id_] >= start_ms and id_ not in api_ids for id_ in kept)
            if began_earlier:
                page_count += max(0, live["page_count"] - len(kept))
        user.visit = {**known, "page_count": page_count}
        user.visit_assumed, user.visit_after_ms, user.visit_of_api = False, None, True
        waiting_ids = {event["event_id"] for event in waiting}
        user.listed = {
            row["event_id"]
            for row in past
            if row["timestamp"] > user.stream_since_ms
            and row["timestamp"] >= start_ms
            and row["event_id"] not in waiting_ids
            and row["event_id"] not in handled
        }

    def _handle(self, record: OracleRecord) -> None:
        event = record.event
        user = self.users[event["user_id"]]
        user.last_seen_ms = self.now_ms
        was_listed = event["event_id"] in user.listed
        if event["event_id"] in user.api_ids:
            was_listed = was_listed or any(row["event_id"] == event["event_id"] for row in user.history)
            user.api_ids.remove(event["event_id"])
            user.history = [row for row in user.history if row["event_id"] != event["event_id"]]
        if any(row["event_id"] == event["event_id"] for row in user.history):
            self.duplicates.append((event["user_id"], event["event_id"]))
            return
        self.handled += 1
        belongs = self._advance_visit(user, event, was_listed)
        user.listed.discard(event["event_id"])
        user.pages.discard(event["event_id"])
        if belongs and event["event_type"] == "pageview":
            user.pages.add(event["event_id"])
        body = self._body(event, user)
        filters_visit = body["currentVisit"]
        if not belongs:
            body["currentVisit"] = None
            filters_visit = {
                "visit_id": "",
                "start_time": time_of(event),
                "page_count": 0,
                "is_first_visit": False,
            }
        for rule in self.rules:
            passed_over = self._passes_over(rule, user)
            self.skipped += passed_over
            if passed_over and rule.sequence is None:
                continue
            known = (event, body["userProfile"], filters_visit, body["eventHistory"])
            try:
                allowed = rule.allows(*known)
                follows = rule.sequence is not None and rule.sequence.follows(*known)
                key = rule.cooldown_key(*known) if allowed and rule.cooldown_key is not None else ""
            except RuleFails:
                if not passed_over:
                    self.dead_letters.append(OracleDeadLetter("rule_error", record.key, record.value))
                continue
            if rule.sequence is not None:
                self._move_sequences(rule, rule.sequence, body, allowed, follows, key, passed_over)
            elif allowed:
                self._fire(rule, body, time_of(event), event.received_ms, key)
        later = [row for row in user.history if row["timestamp"] > time_of(event)]
        earlier = [row for row in user.history if row["timestamp"] <= time_of(event)]
        user.history = [*earlier, self._row(event), *later][-self.history_size :]

    def _passes_over(self, rule: OracleRule, user: OracleUser) -> bool:
        return rule.on_missing_profile == "skip" and user.has_no_answer() and not self._some_rule_waits()

    def _body(self, event: dict[str, Any], user: OracleUser) -> dict[str, Any]:
        return {
            "event": event,
            "userProfile": user.profile(),
            "currentVisit": None if user.visit is None else dict(user.visit),
            "eventHistory": list(user.history),
        }

    # How often, when, and in what order

    def _move_sequences(
        self,
        rule: OracleRule,
        sequence: OracleSequence,
        body: dict[str, Any],
        allowed: bool,
        follows: bool,
        key: str,
        passed_over: bool,
    ) -> None:
        event = body["event"]
        user_id, at_ms = event["user_id"], time_of(event)
        match = None if sequence.match is None else _value_at(event, sequence.match)
        if sequence.match is not None and match is None:
            return

        def same_match() -> list[OracleOpen]:
            of_user = self.open.get(user_id, [])
            of_rule = [opened for opened in of_user if opened.rule == rule.name and _same_json(opened.match, match)]
            return sorted(of_rule, key=lambda opened: opened.begun_ms)

        if follows and (not passed_over or sequence.kind == "not_followed_by"):
            followed = [opened for opened in same_match() if opened.begun_ms <= at_ms <= opened.ends_ms]
            self.open[user_id] = [opened for opened in self.open.get(user_id, []) if opened not in followed]
            if followed and sequence.kind == "followed_by":
                self._fire(rule, body, at_ms, event.received_ms, followed[0].key)
        if not allowed or passed_over:
            return
        begun = OracleOpen(rule.name, sequence.kind, match, key, event, at_ms, at_ms + sequence.within_ms)
        restarted = [opened for opened in same_match() if opened.begun_ms <= at_ms <= opened.ends_ms]
        if restarted:
            self.open[user_id].remove(restarted[-1])
        elif any(at_ms < opened.begun_ms for opened in same_match()):
            return
        self.open[user_id] = [*self.open.get(user_id, []), begun]

    def _end_sequences(self, user_id: str) -> None:
        """End the sequences that are over, forget firings; all of it waits for the user API if any sequence has to."""
        user = self.users.get(user_id)
        self.awaited.pop(user_id, None)
        ended = [
            sequence
            for sequence in self.open.get(user_id, [])
            if sequence.ends_ms + self.allowed_lateness_ms <= self.stream_ms
        ]
        over = [(sequence, self._rule_of(sequence)) for sequence in ended]
        may_fire = any(rule is not None and sequence.kind == "not_followed_by" for sequence, rule in over)
        firings = self.firings.get(user_id, [])
        forgotten = [firing for firing in firings if firing.until_ms <= self.stream_ms]
        if (over or forgotten) and user_id in self.waiting:
            self.awaited[user_id] = self.stream_ms
            return
        if may_fire and (user is None or user.enrichment == "pending"):
            self.asked.add(user_id)
            self.awaited[user_id] = self.stream_ms
            return
        for sequence, rule in sorted(over, key=lambda found: (found[0].ends_ms, found[0].begun_ms)):
            self.open[user_id].remove(sequence)
            if rule is None:
                self.counts["sequences_dropped"] += 1
            elif sequence.kind == "not_followed_by":
                assert user is not None
                if self._passes_over(rule, user):
                    self.skipped += 1
                else:
                    received_ms = max(sequence.ends_ms + self.allowed_lateness_ms, sequence.event.received_ms)
                    self._fire(rule, self._body(sequence.event, user), sequence.ends_ms, received_ms, sequence.key)
        if firings:
            self.firings[user_id] = [firing for firing in self.firings[user_id] if firing.until_ms > self.stream_ms]
        if self.answers_at_once and user_id in self.awaited:
            self.answer(user_id)

    def _rule_of(self, sequence: OracleOpen) -> OracleRule | None:
        """The live rule with the sequence's name and kind."""
        found = [rule for rule in self.rules if rule.name == sequence.rule and rule.sequence is not None]
        return next((rule for rule in found if rule.sequence and rule.sequence.kind == sequence.kind), None)

    def _fire(self, rule: OracleRule, body: dict[str, Any], at_ms: int, received_ms: int, key: str) -> None:
        """Fire a rule unless its cooldown or cap stops it."""
        user_id, event_id = body["event"]["user_id"], body["event"]["event_id"]
        zone = _zone_of(rule, body["userProfile"])
        if rule.cooldown_ms is not None and any(
            firing.at_ms > at_ms - rule.cooldown_ms or firing.received_ms > received_ms - rule.cooldown_ms
            for firing in self._firings_of(user_id, rule, key)
        ):
            self.counts["rules_cooled_down"] += 1
            return
        if rule.cap_count is not None:
            earlier = self._firings_of(user_id, rule, None)
            by_event_time = sum(_counts(rule, zone, firing.at_ms, at_ms) for firing in earlier)
            by_record_time = sum(_counts(rule, zone, firing.received_ms, received_ms) for firing in earlier)
            if by_event_time >= rule.cap_count or by_record_time >= rule.cap_count:
                self.counts["rules_capped"] += 1
                return
        later_ms = max(at_ms, received_ms) + self.allowed_lateness_ms
        remembered = self.firings.setdefault(user_id, [])
        if rule.cooldown_ms is not None:
            remembered.append(OracleFiring(rule.name, key, at_ms, received_ms, later_ms + rule.cooldown_ms))
        if rule.cap_window_ms is not None:
            remembered.append(OracleFiring(rule.name, None, at_ms, received_ms, later_ms + rule.cap_window_ms))
        if rule.cap_per is not None:
            end_ms = period_end(max(at_ms, received_ms), rule.cap_per, zone) + 26 * HOUR_MS
            forgotten_ms = end_ms + self.allowed_lateness_ms
            remembered.append(OracleFiring(rule.name, None, at_ms, received_ms, forgotten_ms))
        until_ms = None if rule.quiet is None else quiet_until(self.now_ms, rule.quiet, zone)
        for name in rule.actions:
            action = OracleAction(user_id, event_id, rule.name, rule.version, name, body)
            if rule.quiet is None or until_ms is None:
                self.actions.append(action)
            else:
                self._hold(OracleHeld(action, until_ms, rule.quiet, zone))

    def _hold(self, held: OracleHeld) -> None:
        """Hold an action; one that is held already keeps its place."""
        same = [
            n
            for n, waiting in enumerate(self.held)
            if replace(waiting.action, body={}) == replace(held.action, body={})
        ]
        if same:
            self.held[same[0]] = held
        else:
            self.held.append(held)

    def _firings_of(self, user_id: str, rule: OracleRule, key: str | None) -> list[OracleFiring]:
        """What the rule's cap (``key`` None), or its cooldown for a value of its key, remembers."""
        of_user = self.firings.get(user_id, [])
        return [firing for firing in of_user if firing.rule == rule.name and firing.key == key]

    def _release_held(self) -> None:
        """Held actions whose quiet hours are over go out."""
        held, self.held = self.held, []
        for waiting in held:
            if self.now_ms < waiting.until_ms:
                self.held.append(waiting)
            elif all(rule.name != waiting.action.rule for rule in self.rules):
                self.counts["held_dropped"] += 1
            elif (again_ms := quiet_until(self.now_ms, waiting.quiet, waiting.zone)) is not None:
                self.held.append(replace(waiting, until_ms=again_ms))
            else:
                self.actions.append(waiting.action)

    def _advance_visit(self, user: OracleUser, event: dict[str, Any], was_listed: bool) -> bool:
        """Move the user's visit; returns whether the event belongs to it."""
        at_ms, is_page = time_of(event), event["event_type"] == "pageview"
        is_first, is_last = event["is_first_in_visit"], event["is_last_in_visit"]
        end_ms, after_ms = user.visit_end_ms, user.visit_after_ms
        if not self.visits_have_ends:
            self._advance_visit_without_end(user, event)
            return True
        begun = {
            "visit_id": event["event_id"],
            "start_time": at_ms,
            "page_count": int(is_page),
            "is_first_visit": event["is_first_event"],
        }
        if user.visit is not None and at_ms < user.visit["start_time"]:
            is_start = is_first or after_ms is not None
            too_old = after_ms is not None and at_ms < after_ms
            if not user.visit_assumed or not is_start or too_old or is_last:
                return False
            user.visit = {**begun, "page_count": user.visit["page_count"] + int(is_page)}
            user.visit_assumed = not is_first
            return True
        if user.visit is None or (is_first if end_ms is None else at_ms >= end_ms):
            user.visit = begun
            user.visit_assumed = not is_first
            user.visit_after_ms = end_ms
            user.visit_of_api = False
            user.visit_end_ms = at_ms if is_last else None
            return True
        if is_page and not (was_listed and user.visit_of_api):
            user.visit = {**user.visit, "page_count": user.visit["page_count"] + 1}
        if is_last:
            user.visit_end_ms = at_ms if end_ms is None else max(end_ms, at_ms)
        return True

    def _advance_visit_without_end(self, user: OracleUser, event: dict[str, Any]) -> None:
        pages = 1 if event["event_type"] == "pageview" else 0
        if user.visit is not None and event["timestamp"] < user.visit["start_time"]:
            return
        if user.visit is None or user.visit_end_ms is not None or event["is_first_in_visit"]:
            user.visit_assumed = user.visit is None and not event["is_first_in_visit"]
            user.visit = {
                "visit_id": event["event_id"],
                "start_time": event["timestamp"],
                "page_count": pages,
                "is_first_visit": event["is_first_event"],
            }
        else:
            user.visit = {**user.visit, "page_count": user.visit["page_count"] + pages}
        user.visit_end_ms = user.visit["start_time"] if event["is_last_in_visit"] else None

    def _row(self, event: dict[str, Any]) -> dict[str, Any]:
        row = {"event_id": event["event_id"], "event_name": event["event_name"], "timestamp": time_of(event)}
        # From the whole to its parts: what is there already is not taken apart.
        for path in sorted(self.history_fields, key=lambda path: path.count(".")):
            if path in event:
                row[path] = event[path]
        for path in sorted(self.history_fields, key=lambda path: path.count(".")):
            if path not in event and _has(event, path) and not _has(row, path):
                inside = row
                *outer, last = path.split(".")
                for name in outer:
                    inside = inside.setdefault(name, {})
                inside[last] = _value_at(event, path)
        return row


# Local time, minute by minute.


def _zone_of(rule: OracleRule, profile: dict[str, Any]) -> str:
    name = _value_at(profile, rule.zone_field) if rule.zone_field is not None else None
    if not isinstance(name, str):
        return rule.zone_default
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return rule.zone_default
    return name


def period_of(at_ms: int, per: str, zone: str) -> date:
    """The first date of the day, week or month that a time is in."""
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).date()
    return {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
    }[per]


@cache
def period_end(at_ms: int, per: str, zone: str) -> int:
    """The first second of the next day, week or month."""
    period, first, last = period_of(at_ms, per, zone), at_ms // 1000, at_ms // 1000 + 33 * DAY_MS // 1000
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if period_of(middle * 1000, per, zone) > period else (middle + 1, last)
    return last * 1000


def _counts(rule: OracleRule, zone: str, firing_ms: int, at_ms: int) -> bool:
    """Whether, by one of the two times, a firing counts for the cap at ``at_ms``."""
    if rule.cap_window_ms is not None:
        return firing_ms > at_ms - rule.cap_window_ms
    assert rule.cap_per is not None
    return period_of(firing_ms, rule.cap_per, zone) >= period_of(at_ms, rule.cap_per, zone)


def quiet_until(now_ms: int, quiet: tuple[str, str], zone: str) -> int | None:
    """When the current quiet hours end; None if it is not quiet."""
    return _quiet_until(now_ms - now_ms % 60_000, quiet, zone)


@cache
def _quiet_until(at_ms: int, quiet: tuple[str, str], zone: str) -> int | None:
    start, _ = quiet
    day, clock = _clock_of(at_ms, zone)
    end = _end_on(day, quiet, zone)
    if not (start <= clock < end if start < end else clock >= start or clock < end):
        return None
    while _clock_of(at_ms, zone) != (day, end):
        at_ms += 60_000
        day = _clock_of(at_ms, zone)[0]
        end = _end_on(day, quiet, zone)
    return at_ms


def _end_on(day: date, quiet: tuple[str, str], zone: str) -> str:
    """When quiet hours end that day: an hour later if its clocks never show their end."""
    end = quiet[1]
    return end if end in _clocks_of(day, zone) else f"{int(end[:2]) + 1:02d}{end[2:]}"


@cache
def _clock_of(at_ms: int, zone: str) -> tuple[date, str]:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))
    return local.date(), f"{local.hour:02d}:{local.minute:02d}"


@cache
def _clocks_of(day: date, zone: str) -> set[str]:
    """Every time that clocks show on a date."""
    midnight = round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
    around = (_clock_of(midnight + minute * 60_000, zone) for minute in range(-16 * 60, 40 * 60))
    return {clock for date_shown, clock in around if date_shown == day}


def _value_at(event: dict[str, Any], path: str) -> Any:
    """A value at a path like ``parameters.cart_id``, or of a field that is called that; None if there is none."""
    if path in event:
        return event[path]
    found: Any = event
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _has(document: dict[str, Any], path: str) -> bool:
    if path in document:
        return True
    *outer, last = path.split(".")
    inside = _value_at(document, ".".join(outer)) if outer else document
    return isinstance(inside, dict) and last in inside


def _same_json(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same_json(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same_json(left[name], right[name]) for name in left)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _strict_json(value: bytes) -> tuple[Any, list[tuple[str, Any]]]:
    """A JSON value, and the names and values of the object that it is, also those that stand twice."""
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is the last
        return dict(found)

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    def whole(digits: str) -> int:
        return int(digits[:4000])  # Python refuses to read more than 4300

    def real(digits: str) -> float:
        found = float(digits)
        return refuse(digits) if found in (float("inf"), float("-inf")) else found

    try:
        document = json.loads(
            value.decode("utf-8"), parse_constant=refuse, parse_int=whole, parse_float=real, object_pairs_hook=keep
        )
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    except (ValueError, RecursionError):
        raise Rejected("not_json") from None
    if _depth(document) > 1024:
        raise Rejected("not_json")
    return document, pairs


def _depth(document: Any) -> int:
    """How many objects and arrays are inside each other."""
    deepest, level = 0, [document]
    while level := [node for node in level if isinstance(node, dict | list)]:
        deepest += 1
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]
    return deepest


# Comparisons. Each returns the differences, no more than are readable.


@dataclass(frozen=True)
class SeenAction:
    """An action that came out; ``rule``, ``version`` and ``action_id`` are None where the sink does not show them."""

    body: dict[str, Any]
    rule: str | None = None
    version: int | None = None
    action_id: str | None = None

    @classmethod
    def of_debug(cls, body: bytes) -> SeenAction:
        """The JSON of a ``DEBUG EVENT`` line."""
        return cls(json.loads(body))

    @classmethod
    def of_kafka(cls, value: bytes, headers: Iterable[tuple[str, bytes]]) -> SeenAction:
        """A record of the actions topic."""
        named = {name: header.decode() for name, header in headers}
        return cls(json.loads(value), named["rule"], int(named["rule-version"]), named["action-id"])


def action_differences(oracle: Oracle, seen: Iterable[SeenAction], repeats_allowed: bool = False) -> list[str]:
    """Compare actions: which, with what body, and for each user in what order.

    ``seen`` is in the order of each user's partition. ``repeats_allowed`` is for at least once: an action may come
    again, with the same body; what counts is where it came first (only where the sink shows ids). Rules of one event
    may come in any order.
    """
    problems: list[str] = []
    arrived: list[SeenAction] = []
    first: dict[str, SeenAction] = {}
    for action in seen:
        new = action.action_id is None or action.action_id not in first
        earlier = first.setdefault(action.action_id, action) if action.action_id is not None else action
        if _name(earlier) != _name(action) or (repeats_allowed and earlier.body != action.body):
            problems.append(f"action id {action.action_id} is of two actions: {_name(earlier)} and {_name(action)}")
        if new or not repeats_allowed:
            arrived.append(action)
    by_rule = all(action.rule is not None for action in arrived)

    def text(user_id: str, event_id: str, rule: str | None, version: int | None, body: Any) -> str:
        shown = [rule, version] if by_rule else []
        return json.dumps([user_id, event_id, *shown, body], sort_keys=True)

    def wanted() -> Iterator[str]:
        return (
            text(action.user_id, action.event_id, action.rule, action.version, action.body) for action in oracle.actions
        )

    def found() -> Iterator[str]:
        events = ((action, action.body["event"]) for action in arrived)
        return (
            text(event["user_id"], event["event_id"], action.rule, action.version, action.body)
            for action, event in events
        )

    problems += [f"missing {difference}" for difference in _surplus(wanted, found)]
    problems += [f"unexpected {difference}" for difference in _surplus(found, wanted)]
    if not problems:
        wanted_order = _events_by_user((a.user_id, a.event_id) for a in oracle.actions)
        found_order = _events_by_user((s.body["event"]["user_id"], s.body["event"]["event_id"]) for s in arrived)
        problems += [
            f"order of {user_id}: expected {events}, got {found_order.get(user_id)}"
            for user_id, events in wanted_order.items()
            if found_order.get(user_id) != events
        ]
    return _readable(problems)


def state_differences(oracle: Oracle, inspected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare the states that ``inspect`` showed with the oracle's.

    Cooldowns and caps are left out: when they are removed depends on the stream's time.
    """
    problems = []
    for user_id, all_shown in inspected.items():
        for name, value in _comparable(oracle.state(user_id)).items():
            shown = _comparable(all_shown)[name]
            if shown != value:
                problems.append(f"{user_id}: {name} should be {value!r}, is {shown!r}")
    return _readable(problems)


def _comparable(state: Mapping[str, Any]) -> dict[str, Any]:
    rules = state["ruleState"]
    rest = {name: value for name, value in state.items() if name != "ruleState"}
    return rest | {"sequences": sorted(rules["sequences"], key=_sequence_order), "held": rules["held"]}


def _sequence_order(shown: Mapping[str, Any]) -> tuple[int, str, str]:
    return shown["ends_at"], shown["event_id"], shown["rule"]


def dead_letter_differences(oracle: Oracle, letters: Iterable[Mapping[str, Any]]) -> list[str]:
    """Compare dead letters, as JSON objects, by reason, key and original bytes; of long ones they hold the start."""
    wanted = Counter((letter.reason, letter.key, letter.value[:LETTER_BYTES]) for letter in oracle.dead_letters)
    found = Counter(
        (
            letter["reason"],
            None if letter["key"] is None else base64.b64decode(letter["key"]),
            base64.b64decode(letter["value"]),
        )
        for letter in letters
    )
    problems = [f"missing {element!r}" for element in (wanted - found).elements()]
    return _readable(problems + [f"unexpected {element!r}" for element in (found - wanted).elements()])


def _name(seen: SeenAction) -> str:
    event = seen.body["event"]
    return f"{event['user_id']}/{event['event_id']}/{seen.rule}"


def _events_by_user(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user_id, event_id in pairs:
        found.setdefault(user_id, []).append(event_id)
    return found


def _surplus(these: Callable[[], Iterator[str]], those: Callable[[], Iterator[str]]) -> list[str]:
    """Texts of which there are more in ``these``. Only hashes are kept: an hour's actions would fill the memory."""
    more = Counter(map(_digest, these())) - Counter(map(_digest, those()))
    return [text for text in these() if more[_digest(text)]] if more else []


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _readable(problems: list[str]) -> list[str]:
    shown = [problem if len(problem) < 600 else problem[:600] + "…" for problem in problems[:10]]
    return shown + ([f"… and {len(problems) - 10} more"] if len(problems) > 10 else [])
