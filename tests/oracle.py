"""What the pipeline must do, said a second time in the plainest Python: no batches, no journal, no bytes, no Lua.

Shares no code with what it checks. Feed it each user's records in order, then compare::

    oracle = Oracle(rules, api={"u1": {"profile": {"country": "US"}, "visit": None, "history": []}})
    for key, value in records:
        oracle.feed(key, value)
    assert action_differences(oracle, seen) == []

Processing time stands still unless ``now_ms`` is given, so nobody's TTL ends. By default the user API answers at once,
right after the event that had it asked; with ``answers_at_once=False`` it is silent until ``answer`` is called, and
``asked`` holds the users it is being asked for. The rules are those of docs/user-state.md.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNAVAILABLE = "unavailable"
DAY_MS = 24 * 3600 * 1000

Filter = Callable[[dict[str, Any], dict[str, Any], dict[str, Any], list[dict[str, Any]]], bool]

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


@dataclass(frozen=True)
class OracleRule:
    """A rule whose filter is a Python function of event, user, visit and history."""

    name: str
    allows: Filter
    version: int = 1
    actions: tuple[str, ...] = ("debug",)
    on_missing_profile: str = "wait"


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


@dataclass
class OracleUser:
    enrichment: str
    last_seen_ms: int
    fetched: dict[str, Any] = field(default_factory=dict)  # the profile
    fetched_ms: int = 0
    failed_ms: int | None = None  # when the user API last failed, if it did since it last answered
    visit: dict[str, Any] | None = None
    visit_ended: bool = False
    visit_assumed: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    api_ids: set[str] = field(default_factory=set)  # events known from the user API alone

    def profile(self) -> dict[str, Any]:
        return dict(self.fetched) if self.enrichment == "fetched" else {"enrichment": self.enrichment}

    def is_unheard_of(self) -> bool:
        """Whether the user API has never said anything of this user."""
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
    answers_at_once: bool = True

    def __post_init__(self) -> None:
        self.now_ms = 2**52
        self.users: dict[str, OracleUser] = {}
        self.asked: set[str] = set()
        self.waiting: dict[str, list[dict[str, Any]]] = {}
        self.waiting_bytes: dict[str, int] = {}
        self.deadlines: dict[str, int] = {}
        self.actions: list[OracleAction] = []
        self.dead_letters: list[OracleDeadLetter] = []
        self.duplicates: list[tuple[str, str]] = []
        self.handled = 0
        self.skipped = 0  # rules that were not asked because of their policy, once an event

    # What comes in

    def feed(self, key: bytes | None, value: bytes, now_ms: int | None = None) -> None:
        """One record of the events topic."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        try:
            event = self._read(key, value)
        except Rejected as reason:
            self.dead_letters.append(OracleDeadLetter(str(reason), key, value))
            return
        user_id = event["user_id"]
        self._expire(user_id)
        if user_id in self.users:
            if self._is_due(self.users[user_id]):
                self.asked.add(user_id)
            self._handle(event)
        elif self._somebody_waits():
            self._park(event, len(value))
        else:
            self.asked.add(user_id)
            self.users[user_id] = OracleUser("pending", self.now_ms)
            self._handle(event)
        if self.answers_at_once and user_id in self.asked:
            self.answer(user_id)

    def answer(self, user_id: str, now_ms: int | None = None, unavailable: bool = False) -> None:
        """The user API has answered, or failed; nothing happens unless it is being asked for this user."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self._expire(user_id)
        if user_id not in self.asked:
            return
        self.asked.remove(user_id)
        known = UNAVAILABLE if unavailable else self.api.get(user_id)
        if user_id not in self.users:
            self.users[user_id] = OracleUser("pending", self.now_ms)
        self._fold_in(self.users[user_id], known, self.waiting.get(user_id, []))
        self._stop_waiting(user_id)

    def pass_time(self, now_ms: int) -> None:
        """Deadlines and TTLs end."""
        self.now_ms = now_ms
        for user_id in [user_id for user_id in self.waiting if self.deadlines[user_id] <= now_ms]:
            self._give_up(user_id)
        for user_id in list(self.users):
            self._expire(user_id)

    def forget(self, user_id: str) -> None:
        """The control record: the user, the events that wait and the question are gone."""
        self.users.pop(user_id, None)
        self.waiting.pop(user_id, None)
        self.asked.discard(user_id)

    def restored(self, now_ms: int | None = None) -> None:
        """The job comes back from a checkpoint: it asks anew for those whose events wait, with a new deadline."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        self.asked = set(self.waiting)
        self.deadlines = dict.fromkeys(self.waiting, self.now_ms + self.deadline_ms)

    # What is to be seen

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
        }

    # Rules of the game

    def _read(self, key: bytes | None, value: bytes) -> dict[str, Any]:
        if len(value) > self.max_event_bytes:
            raise Rejected("too_large")
        event = _strict_json(value)
        if not isinstance(event, dict):
            raise Rejected("not_an_object")
        for name in ("event_id", "user_id", "event_name", "timestamp"):
            if name not in event:
                raise Rejected("missing_field")
        expected = {"event_id": "", "user_id": "", "event_name": "", "timestamp": 0, **DEFAULTS}
        for name, example in expected.items():
            if name not in event or type(event[name]) is type(example):
                continue
            if name == "duration" and type(event[name]) is float:
                continue
            raise Rejected("wrong_type")
        if _depth(event) > 100:
            raise Rejected("out_of_range")
        if "" in (event["event_id"], event["user_id"], event["event_name"]):
            raise Rejected("out_of_range")
        if event["timestamp"] <= 0 or event["timestamp"] > min(self.now_ms + DAY_MS, 2**53):
            raise Rejected("out_of_range")
        if self.user_key == "record" and key != event["user_id"].encode():
            raise Rejected("key_mismatch")
        return {**DEFAULTS, **event}

    def _expire(self, user_id: str) -> None:
        user = self.users.get(user_id)
        if user is not None and self.now_ms - user.last_seen_ms >= self.ttl_ms:
            del self.users[user_id]
            self.asked.discard(user_id)

    def _somebody_waits(self) -> bool:
        return any(rule.on_missing_profile == "wait" for rule in self.rules)

    def _is_due(self, user: OracleUser) -> bool:
        """Whether the next event has the user API asked."""
        if user.failed_ms is not None and self.now_ms < user.failed_ms + self.enrichment_retry_ms:
            return False
        if user.is_unheard_of():
            return True
        return self.profile_max_age_ms is not None and self.now_ms >= user.fetched_ms + self.profile_max_age_ms

    def _park(self, event: dict[str, Any], size: int) -> None:
        user_id = event["user_id"]
        if user_id not in self.waiting:
            self.asked.add(user_id)
            self.waiting[user_id] = []
            self.waiting_bytes[user_id] = 0
            self.deadlines[user_id] = self.now_ms + self.deadline_ms
        self.waiting[user_id].append(event)
        self.waiting_bytes[user_id] += size + 300
        if self.waiting_bytes[user_id] > self.max_waiting_bytes:
            self._give_up(user_id)

    def _give_up(self, user_id: str) -> None:
        """Evaluate what waits without a profile; the user API is still being asked."""
        self.users[user_id] = OracleUser("unavailable", self.now_ms, failed_ms=self.now_ms)
        self._stop_waiting(user_id)

    def _stop_waiting(self, user_id: str) -> None:
        for event in self.waiting.pop(user_id, []):
            self._handle(event)

    def _fold_in(self, user: OracleUser, known: Any, waiting: list[dict[str, Any]]) -> None:
        refresh = not user.is_unheard_of()
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
            self._fold_in_history(user, known["history"], waiting)
            self._fold_in_visit(user, known["visit"])

    def _fold_in_history(self, user: OracleUser, past: list[dict[str, Any]], waiting: list[dict[str, Any]]) -> None:
        in_hand = [*user.history, *waiting]
        ids = [event["event_id"] for event in in_hand]
        oldest = min(event["timestamp"] for event in in_hand)
        rows = [self._row(row) for row in past if row["timestamp"] <= oldest and row["event_id"] not in ids]
        user.api_ids = {row["event_id"] for row in rows}
        user.history = sorted([*rows, *user.history], key=lambda row: row["timestamp"])[-self.history_size :]

    def _fold_in_visit(self, user: OracleUser, visit: dict[str, Any] | None) -> None:
        if visit is None:
            return
        if user.visit is None:
            user.visit = dict(visit)
        elif user.visit_assumed and visit["start_time"] <= user.visit["start_time"]:
            user.visit = {**visit, "page_count": visit["page_count"] + user.visit["page_count"]}

    def _handle(self, event: dict[str, Any]) -> None:
        user = self.users[event["user_id"]]
        user.last_seen_ms = self.now_ms
        if event["event_id"] in user.api_ids:
            user.api_ids.remove(event["event_id"])
            user.history = [row for row in user.history if row["event_id"] != event["event_id"]]
        if any(row["event_id"] == event["event_id"] for row in user.history):
            self.duplicates.append((event["user_id"], event["event_id"]))
            return
        self.handled += 1
        self._advance_visit(user, event)
        body: dict[str, Any] = {
            "event": event,
            "userProfile": user.profile(),
            "currentVisit": dict(user.visit or {}),
            "eventHistory": list(user.history),
        }
        for rule in self.rules:
            if rule.on_missing_profile == "skip" and user.is_unheard_of() and not self._somebody_waits():
                self.skipped += 1
            elif rule.allows(event, body["userProfile"], body["currentVisit"], body["eventHistory"]):
                for action in rule.actions:
                    self.actions.append(
                        OracleAction(event["user_id"], event["event_id"], rule.name, rule.version, action, body)
                    )
        later = [row for row in user.history if row["timestamp"] > event["timestamp"]]
        earlier = [row for row in user.history if row["timestamp"] <= event["timestamp"]]
        user.history = [*earlier, self._row(event), *later][-self.history_size :]

    def _advance_visit(self, user: OracleUser, event: dict[str, Any]) -> None:
        pages = 1 if event["event_type"] == "pageview" else 0
        if user.visit is not None and event["timestamp"] < user.visit["start_time"]:
            return
        if user.visit is None or user.visit_ended or event["is_first_in_visit"]:
            user.visit_assumed = user.visit is None and user.is_unheard_of() and not event["is_first_in_visit"]
            user.visit = {
                "visit_id": event["event_id"],
                "start_time": event["timestamp"],
                "page_count": pages,
                "is_first_visit": event["is_first_event"],
            }
        else:
            user.visit = {**user.visit, "page_count": user.visit["page_count"] + pages}
        user.visit_ended = event["is_last_in_visit"]

    def _row(self, event: dict[str, Any]) -> dict[str, Any]:
        names = ["event_id", "event_name", "timestamp", *(name for name in self.history_fields if name in event)]
        return {name: event[name] for name in names}


def _strict_json(value: bytes) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    def number(digits: str) -> int | float:
        whole = int(digits) if len(digits) < 400 else refuse(digits)
        return whole if -(2**63) <= whole < 2**64 else float(whole)

    def real(digits: str) -> float:
        found = float(digits)
        return refuse(digits) if found in (float("inf"), float("-inf")) else found

    try:
        document = json.loads(value.decode("utf-8"), parse_constant=refuse, parse_int=number, parse_float=real)
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # a lone surrogate cannot be encoded
    except (ValueError, RecursionError):
        raise Rejected("not_json") from None
    if _depth(document) > 1024:
        raise Rejected("not_json")
    return document


def _depth(document: Any) -> int:
    """How many objects and arrays are inside each other."""
    deepest, level = 0, [document]
    while level := [one for one in level if isinstance(one, dict | list)]:
        deepest += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return deepest


# Comparing. Each answers with what is wrong, an empty list if nothing is, and never with more lines than are readable.


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
    for one in seen:
        new = one.action_id is None or one.action_id not in first
        earlier = first.setdefault(one.action_id, one) if one.action_id is not None else one
        if _name(earlier) != _name(one) or (repeats_allowed and earlier.body != one.body):
            problems.append(f"action id {one.action_id} is of two actions: {_name(earlier)} and {_name(one)}")
        if new or not repeats_allowed:
            arrived.append(one)
    by_rule = all(one.rule is not None for one in arrived)

    def identity(user_id: str, event_id: str, rule: str | None, version: int | None, body: Any) -> str:
        shown = [rule, version] if by_rule else []
        return json.dumps([user_id, event_id, *shown, body], sort_keys=True)

    wanted = Counter(identity(a.user_id, a.event_id, a.rule, a.version, a.body) for a in oracle.actions)
    found = Counter(
        identity(s.body["event"]["user_id"], s.body["event"]["event_id"], s.rule, s.version, s.body) for s in arrived
    )
    problems += [f"missing {count}x {text}" for text, count in (wanted - found).items()]
    problems += [f"unexpected {count}x {text}" for text, count in (found - wanted).items()]
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
    """Compare what ``inspect`` showed of each user with what it should."""
    problems = []
    for user_id, shown in inspected.items():
        for name, value in oracle.state(user_id).items():
            if shown[name] != value:
                problems.append(f"{user_id}: {name} should be {value!r}, is {shown[name]!r}")
    return _readable(problems)


def dead_letter_differences(oracle: Oracle, letters: Iterable[Mapping[str, Any]]) -> list[str]:
    """Compare dead letters, as JSON objects, by reason, key and original bytes."""
    wanted = Counter((one.reason, one.key, one.value) for one in oracle.dead_letters)
    found = Counter(
        (
            letter["reason"],
            None if letter["key"] is None else base64.b64decode(letter["key"]),
            base64.b64decode(letter["value"]),
        )
        for letter in letters
    )
    problems = [f"missing {one!r}" for one in (wanted - found).elements()]
    return _readable(problems + [f"unexpected {one!r}" for one in (found - wanted).elements()])


def _name(seen: SeenAction) -> str:
    event = seen.body["event"]
    return f"{event['user_id']}/{event['event_id']}/{seen.rule}"


def _events_by_user(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user_id, event_id in pairs:
        found.setdefault(user_id, []).append(event_id)
    return found


def _readable(problems: list[str]) -> list[str]:
    shown = [problem if len(problem) < 600 else problem[:600] + "…" for problem in problems[:10]]
    return shown + ([f"… and {len(problems) - 10} more"] if len(problems) > 10 else [])
