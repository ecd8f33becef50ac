"""Which actions must go out: rules whose Lua is Python, for events, times and ends of quiet hours.

Feed it what the job gets, in the same order::

    oracle = RulesOracle(rules, users)
    for received in records:
        oracle.event(received, now_ms)
    oracle.stream_reaches(stream_ms, now_ms)
    oracle.clock_reaches(now_ms)
    oracle.actions

Written from docs/rules.md, and docs/user-state.md for histories. Shares no code with what it checks.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle import DEFAULTS
from tests.rules_oracle.language import (
    DAY_MS,
    HOUR_MS,
    Asked,
    Hours,
    Json,
    LuaError,
    field_of,
    match_values,
    period_begin,
    period_end_ms,
    render,
    scalar_key,
    zone_named,
)

Lua = Callable[[Asked], Any]


@dataclass(frozen=True)
class Received:
    """A record of the events topic. ``record_ms`` is None where the record has no usable time."""

    user_id: str
    event: Json
    record_ms: int | None

    @property
    def times(self) -> tuple[int, int]:
        """Event time and record time, the *t* and *r* of docs/rules.md."""
        timestamp = int(self.event["timestamp"])
        return (timestamp, timestamp) if self.record_ms is None else (min(timestamp, self.record_ms), self.record_ms)


@dataclass(frozen=True)
class User:
    """What the user API knows. ``enrichment`` is "fetched", "unknown" or "unavailable"."""

    profile: Json = field(default_factory=dict)
    enrichment: str = "fetched"

    @property
    def seen(self) -> Json:
        return self.profile if self.enrichment == "fetched" else {"enrichment": self.enrichment}


@dataclass(frozen=True)
class Step:
    kind: str  # "followed_by" or "not_followed_by"
    follows: Lua
    within_ms: int
    reads_begun: bool = False


@dataclass(frozen=True)
class OracleRule:
    """One rule; ``body`` None stands for the enriched event."""

    name: str
    allows: Lua
    body: Json | None = None
    version: int = 1
    on_missing_profile: str = "wait"
    active: Hours | None = None
    steps: tuple[Step, ...] = ()
    match: tuple[str, str] | None = None
    cooldown_ms: int | None = None
    cooldown_key: Lua | None = None
    cap_count: int = 0
    cap_window_ms: int | None = None
    cap_per: str | None = None
    quiet: Hours | None = None
    recheck: Lua | None = None
    zone_field: str = "timezone"
    zone_default: str = "UTC"


@dataclass(frozen=True)
class Open:
    """An open sequence, in its step number ``step``."""

    rule: OracleRule
    match: tuple[str, Any] | None
    step: int
    begun: Json
    key: tuple[str, Any] | None
    since_ms: int
    record_ms: int

    @property
    def waits_for(self) -> Step:
        return self.rule.steps[self.step]

    @property
    def end_ms(self) -> int:
        return self.since_ms + self.waits_for.within_ms

    def is_followed(self, asked: Asked, matches: list[tuple[str, Any]]) -> bool:
        in_time = self.since_ms <= asked.time_ms <= self.end_ms
        return in_time and (self.match is None or self.match in matches) and self.follows(asked)

    def follows(self, asked: Asked) -> bool:
        return truth(self.waits_for.follows(replace(asked, begun=self.begun)))


@dataclass(frozen=True)
class Firing:
    rule: str
    key: tuple[str, Any] | None
    event_ms: int
    record_ms: int


@dataclass(frozen=True)
class Action:
    """An action that goes out. ``event_id`` is that of the event its id is computed from."""

    user_id: str
    rule: str
    event_id: str
    body: Any


@dataclass(frozen=True)
class Held:
    until_ms: int
    rule: OracleRule
    event: Json
    action: Action


@dataclass
class Known:
    """What is kept of a user."""

    history: list[Json] = field(default_factory=list)
    visit: Json | None = None
    open: list[Open] = field(default_factory=list)
    firings: list[Firing] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)


_STRANGER = User(enrichment="unknown")


def _due(heap: list[tuple[int, str]], time_ms: int) -> list[str]:
    """Take the users out for whom something is due, in the order of their ids."""
    users: set[str] = set()
    while heap and heap[0][0] <= time_ms:
        users.add(heapq.heappop(heap)[1])
    return sorted(users)


def truth(value: Any) -> bool:
    """As in Lua: only nil and false are not true."""
    return value is not None and value is not False


class RulesOracle:
    def __init__(
        self,
        rules: list[OracleRule],
        users: dict[str, User],
        *,
        history_size: int = 100,
        lateness_ms: int = 10_000,
    ) -> None:
        self.rules = rules
        self.users = users
        self.history_size = history_size
        self.lateness_ms = lateness_ms
        self.actions: list[Action] = []
        self.counts: Counter[str] = Counter()
        self._known: dict[str, Known] = defaultdict(Known)
        self._stream_due: list[tuple[int, str]] = []
        self._clock_due: list[tuple[int, str]] = []

    # --- what happens -----------------------------------------------------------------------------------------------

    def event(self, received: Received, now_ms: int) -> None:
        known = self._known[received.user_id]
        time_ms, _ = received.times
        event = DEFAULTS | {name: value for name, value in received.event.items() if value is not None}
        if any(row["event_id"] == event["event_id"] for row in known.history):
            return
        visit = self._count_visit(known, event, time_ms)
        for rule in self.rules:
            if not self._skips(rule, received.user_id):
                asked = self._asked(received.user_id, rule, event, time_ms, visit)
                self._evaluate(rule, received, asked, now_ms)
        self._remember(known, event | {"timestamp": time_ms})

    def stream_reaches(self, stream_ms: int, now_ms: int) -> None:
        """Every event that was written until then has been handled."""
        for user_id in _due(self._stream_due, stream_ms):
            known = self._known[user_id]
            ended = [sequence for sequence in known.open if sequence.end_ms + self.lateness_ms <= stream_ms]
            for sequence in sorted(ended, key=lambda sequence: (sequence.end_ms, sequence.since_ms)):
                known.open.remove(sequence)
                self._times_out(user_id, sequence, now_ms)
            known.firings = [firing for firing in known.firings if self._kept_until(user_id, firing) > stream_ms]

    def clock_reaches(self, now_ms: int) -> None:
        """Quiet hours end."""
        for user_id in _due(self._clock_due, now_ms):
            known = self._known[user_id]
            held, known.held = known.held, []
            for waiting in held:
                rule = waiting.rule
                again = rule.quiet.quiet_until(now_ms, self._zone(user_id, rule)) if rule.quiet else None
                if waiting.until_ms > now_ms:
                    known.held.append(waiting)
                elif again is not None:
                    known.held.append(replace(waiting, until_ms=again))
                    heapq.heappush(self._clock_due, (again, user_id))
                elif self._is_allowed_again(user_id, waiting, now_ms):
                    self.counts[f"{rule.name}.released"] += 1
                    self.actions.append(waiting.action)

    def _is_allowed_again(self, user_id: str, held: Held, now_ms: int) -> bool:
        rule, known = held.rule, self._known[user_id]
        if rule.recheck is None:
            return True
        time_ms = max([now_ms, *(row["timestamp"] for row in known.history)])
        try:
            allowed = truth(rule.recheck(self._asked(user_id, rule, held.event, time_ms, known.visit)))
        except (LuaError, KeyError, TypeError, AttributeError):
            self.counts[f"{rule.name}.error"] += 1
            return False
        if not allowed:
            self.counts[f"{rule.name}.recheck_refused"] += 1
        return allowed

    # --- what is known of a user ------------------------------------------------------------------------------------

    def _user(self, user_id: str) -> User:
        return self.users.get(user_id, _STRANGER)

    def _skips(self, rule: OracleRule, user_id: str) -> bool:
        """Whether a rule passes over a user without a profile: not if events wait for profiles, for any rule."""
        waits = any(other.on_missing_profile == "wait" for other in self.rules)
        return not waits and rule.on_missing_profile == "skip" and self._user(user_id).enrichment == "unavailable"

    def _zone(self, user_id: str, rule: OracleRule) -> ZoneInfo:
        name = field_of(self._user(user_id).profile, rule.zone_field)
        return zone_named(name if isinstance(name, str) else None, rule.zone_default)

    def _asked(self, user_id: str, rule: OracleRule, event: Json, time_ms: int, visit: Json | None) -> Asked:
        known, user = self._known[user_id], self._user(user_id)
        zone = self._zone(user_id, rule)
        return Asked(event, user.seen, user.enrichment, visit, list(known.history), time_ms, zone)

    @staticmethod
    def _count_visit(known: Known, event: Json, time_ms: int) -> Json | None:
        """The visit that the event belongs to; None if it belongs to none.

        The events have no flags of visits, so that each user has one visit, which the event that came first began.
        """
        pages = int(event["event_type"] == "pageview")
        if known.visit is None:
            known.visit = {"start_time": time_ms, "page_count": pages}
        elif time_ms < known.visit["start_time"]:
            return None
        else:
            known.visit = {**known.visit, "page_count": known.visit["page_count"] + pages}
        return known.visit

    def _remember(self, known: Known, row: Json) -> None:
        place = len(known.history)
        while place and known.history[place - 1]["timestamp"] > row["timestamp"]:
            place -= 1
        known.history.insert(place, row)
        del known.history[: -self.history_size]

    # --- an event and a rule ----------------------------------------------------------------------------------------

    def _evaluate(self, rule: OracleRule, received: Received, asked: Asked, now_ms: int) -> None:
        try:
            allowed = truth(rule.allows(asked)) and (rule.active is None or rule.active.has(asked.time_ms, asked.zone))
            key = self._key(rule, asked) if allowed else None
            for step in rule.steps:
                if not step.reads_begun:
                    step.follows(asked)  # runs for every event, so that it may fail for every event
            if rule.steps:
                self._sequences(rule, received, asked, allowed, key, now_ms)
            elif allowed:
                self._fire(rule, received.user_id, asked, received.times[1], key, now_ms)
        except (LuaError, KeyError, TypeError, AttributeError):
            self.counts[f"{rule.name}.error"] += 1

    @staticmethod
    def _key(rule: OracleRule, asked: Asked) -> tuple[str, Any] | None:
        return scalar_key(rule.cooldown_key(asked)) if rule.cooldown_key else None

    def _sequences(
        self,
        rule: OracleRule,
        received: Received,
        asked: Asked,
        allowed: bool,
        key: tuple[str, Any] | None,
        now_ms: int,
    ) -> None:
        known = self._known[received.user_id]
        record_ms = received.times[1]
        begins, follows = rule.match or (None, None)
        matches = [scalar_key(value) for value in match_values(asked.event, follows)] if follows else []
        own = [sequence for sequence in known.open if sequence.rule is rule]
        own.sort(key=lambda sequence: (-sequence.step, sequence.since_ms))
        followed = [sequence for sequence in own if sequence.is_followed(asked, matches)]
        for sequence in followed:
            known.open.remove(sequence)
            self.counts[f"{rule.name}.followed"] += 1
            if sequence.step + 1 < len(rule.steps):
                advanced = replace(sequence, step=sequence.step + 1, since_ms=asked.time_ms, record_ms=record_ms)
                self._open(received.user_id, advanced)
        ended = [done for done in followed if done.step + 1 == len(rule.steps) and done.waits_for.kind == "followed_by"]
        if ended:
            last = max(ended, key=lambda sequence: sequence.since_ms)
            self._fire(rule, received.user_id, replace(asked, begun=last.begun), record_ms, last.key, now_ms)
        if allowed:
            for value in match_values(asked.event, begins) if begins else [None]:
                match = scalar_key(value) if begins else None
                self.counts[f"{rule.name}.begun"] += 1
                self._open(received.user_id, Open(rule, match, 0, asked.event, key, asked.time_ms, record_ms))

    def _open(self, user_id: str, new: Open) -> None:
        """Open a sequence, in place of one of the same match in the same step."""
        known = self._known[user_id]
        same = [
            sequence
            for sequence in known.open
            if (sequence.rule, sequence.match, sequence.step) == (new.rule, new.match, new.step)
        ]
        around = [sequence for sequence in same if sequence.since_ms <= new.since_ms <= sequence.end_ms]
        if around:
            known.open.remove(max(around, key=lambda sequence: sequence.since_ms))
        elif any(new.since_ms < sequence.since_ms for sequence in same):
            return
        known.open.append(new)
        heapq.heappush(self._stream_due, (new.end_ms + self.lateness_ms, user_id))

    def _times_out(self, user_id: str, sequence: Open, now_ms: int) -> None:
        rule, known = sequence.rule, self._known[user_id]
        self.counts[f"{rule.name}.timed_out"] += 1
        if sequence.waits_for.kind == "followed_by":
            return
        if self._skips(rule, user_id):
            return
        asked = replace(self._asked(user_id, rule, sequence.begun, sequence.end_ms, known.visit), begun=sequence.begun)
        record_ms = max(sequence.end_ms + self.lateness_ms, sequence.record_ms)
        self._fire(rule, user_id, asked, record_ms, sequence.key, now_ms)

    # --- a firing ---------------------------------------------------------------------------------------------------

    def _fire(
        self, rule: OracleRule, user_id: str, asked: Asked, record_ms: int, key: tuple[str, Any] | None, now_ms: int
    ) -> None:
        known = self._known[user_id]
        firing = Firing(rule.name, key, asked.time_ms, record_ms)
        own = [past for past in known.firings if past.rule == rule.name]
        quiet_until = rule.quiet.quiet_until(now_ms, asked.zone) if rule.quiet else None
        if self._cooled_down(rule, firing, own):
            self.counts[f"{rule.name}.cooled_down"] += 1
        elif self._capped(rule, firing, own, asked.zone):
            self.counts[f"{rule.name}.capped"] += 1
        elif rule.quiet and rule.quiet.mode == "drop" and quiet_until is not None:
            self.counts[f"{rule.name}.dropped"] += 1
        else:
            self.counts[f"{rule.name}.fired"] += 1
            known.firings.append(firing)
            heapq.heappush(self._stream_due, (self._kept_until(user_id, firing), user_id))
            action = Action(user_id, rule.name, asked.event["event_id"], self._body(rule, user_id, asked))
            if quiet_until is None:
                self.actions.append(action)
            else:
                self.counts[f"{rule.name}.held"] += 1
                known.held.append(Held(quiet_until, rule, asked.event, action))
                heapq.heappush(self._clock_due, (quiet_until, user_id))

    @staticmethod
    def _cooled_down(rule: OracleRule, firing: Firing, own: list[Firing]) -> bool:
        if rule.cooldown_ms is None:
            return False
        return any(
            past.event_ms > firing.event_ms - rule.cooldown_ms or past.record_ms > firing.record_ms - rule.cooldown_ms
            for past in own
            if past.key == firing.key
        )

    @staticmethod
    def _capped(rule: OracleRule, firing: Firing, own: list[Firing], zone: ZoneInfo) -> bool:
        if rule.cap_window_ms is not None:
            window = rule.cap_window_ms
            by_event = [past for past in own if past.event_ms > firing.event_ms - window]
            by_record = [past for past in own if past.record_ms > firing.record_ms - window]
        elif rule.cap_per is not None:
            per = rule.cap_per
            begin = period_begin(per, firing.event_ms, zone)
            by_event = [past for past in own if period_begin("day", past.event_ms, zone) >= begin]
            begin = period_begin(per, firing.record_ms, zone)
            by_record = [past for past in own if period_begin("day", past.record_ms, zone) >= begin]
        else:
            return False
        return max(len(by_event), len(by_record)) >= rule.cap_count

    def _kept_until(self, user_id: str, firing: Firing) -> int:
        rule = next(rule for rule in self.rules if rule.name == firing.rule)
        later = max(firing.event_ms, firing.record_ms)
        ends = [later + (rule.cooldown_ms or 0), later + (rule.cap_window_ms or 0)]
        if rule.cap_per:
            ends.append(period_end_ms(rule.cap_per, later, self._zone(user_id, rule)) + 26 * HOUR_MS)
        return max(ends) + self.lateness_ms

    def _body(self, rule: OracleRule, user_id: str, asked: Asked) -> Any:
        user = self._user(user_id)
        if rule.body is None:
            return {"event": asked.event, "userProfile": user.seen}
        roots = {
            "event": asked.event,
            "user": asked.user,
            "enrichment": asked.enrichment,
            "visit": asked.visit or {},
            "history": asked.history,
            "action": {"name": "kafka", "rule": rule.name, "version": rule.version},
            "begun": asked.begun,
        }
        return render(rule.body, roots)


__all__ = ["DAY_MS", "Action", "Hours", "OracleRule", "Received", "RulesOracle", "Step", "User"]
