"""A model of groups that is written from docs/rules.md, "Groups", alone and shares no code with the domain."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.builders import event, grouped, rule
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
LATENESS = 3 * HOUR
NAMES = ("a", "b", "c", "d")
Line = tuple[str, str, str, str]  # decision, rule, event, winner


@dataclass
class Says:
    """A rule of the model: the events that it fires at, and its fields, in ms."""

    name: str
    on: str
    group: str | None = None
    priority: int = 0
    cooldown: int = 0
    quiet: tuple[int, int] | None = None  # hours of the day in UTC
    expires: int = 0

    def fields(self, version: int) -> dict[str, Any]:
        """As in a rule file."""
        filter_ = " or ".join(f'event.event_name == "{name}"' for name in self.on)
        given: dict[str, Any] = {"name": self.name, "version": version, "filter": filter_}
        if self.group:
            given |= {"group": self.group, "priority": self.priority}
        if self.cooldown:
            given["cooldown"] = f"{self.cooldown // SECOND}s"
        if self.quiet:
            given["quiet_hours"] = {"start": f"{self.quiet[0]:02}:00", "end": f"{self.quiet[1]:02}:00"}
        if self.expires:
            given["expires"] = f"{self.expires // SECOND}s"
        return given

    def document(self, version: int) -> Rule:
        given = self.fields(version)
        return rule(given.pop("name"), given.pop("filter"), **given)


@dataclass
class Shares:
    """A group of the model: a cap in a window of ms, or a day (0), and how long it waits."""

    count: int
    window: int
    within: int

    def document(self) -> dict[str, Any]:
        cap = {"window": f"{self.window // SECOND}s"} if self.window else {"per": "day"}
        return {
            "cap": {"count": self.count, **cap},
            **({"within": f"{self.within // SECOND}s"} if self.within else {}),
        }


@dataclass
class Waits:
    """An action that waits: until ``until`` of processing time, or until its group picks at ``pick``."""

    rule: str
    event: str
    t: int
    r: int
    over: int
    counted: bool
    until: int = 0
    pick: int = 0


@dataclass
class OfUser:
    """What the model remembers of a user, for ever."""

    own: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    shared: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    waiting: list[Waits] = field(default_factory=list)
    suppressed: dict[str, int] = field(default_factory=dict)


class Model:
    """The decisions of a shard."""

    def __init__(self, rules: Sequence[Says], groups: dict[str, Shares]) -> None:
        self.users: dict[str, OfUser] = defaultdict(OfUser)
        self.rules = {each.name: each for each in rules}
        self.groups = groups
        self.lines: list[Line] = []
        self.now = 0

    def change(self, rules: Sequence[Says], groups: dict[str, Shares]) -> None:
        self.rules = {each.name: each for each in rules}
        named = {each.group for each in rules}
        for user in self.users.values():
            for group in [group for group in user.shared if group not in named]:
                del user.shared[group]
        self.groups = groups

    def begin(self, now: int) -> None:
        """Quiet hours end."""
        self.now = now
        for user in self.users.values():
            for action in [action for action in user.waiting if not action.pick and action.until <= now]:
                says = self.rules.get(action.rule)
                if says is None:
                    self._lose(user, action, "dropped")
                elif (end := self._quiet(says)) is not None:
                    action.until = end
                    self._say("held", action)
                elif self._falls_away(user, action, says):
                    pass
                elif says.group is None:
                    user.waiting.remove(action)
                    self._say("released", action)
                else:
                    action.r = action.until
                    action.pick = self._pick_time(user, says.group, action.r)
                    self._say("pending", action)

    def event(self, name: str, event_id: str, kind: str, t: int, r: int) -> None:
        user = self.users[name]
        winner: dict[str, str] = {}
        fires = [says for says in self.rules.values() if kind in says.on]
        if any(says.group for says in fires):
            self._pass(user, r)
        for says in sorted(fires, key=lambda says: (says.group is not None, -says.priority, says.name)):
            over = self.now + says.expires if says.expires else 0
            action = Waits(says.name, event_id, t, r, over, True)
            if self._cools(user, says, t, r):
                self._say("cooled_down", action)
            elif self._is_suppressed(user, says):
                self._say("suppressed", action)
            elif (end := self._quiet(says)) is not None:
                user.own[says.name].append((t, r))
                action.until = end
                user.waiting.append(action)
                self._say("held", action)
            elif says.group is None:
                user.own[says.name].append((t, r))
                self._say("fired", action)
            elif self.groups[says.group].within:
                action.counted, action.pick = False, self._pick_time(user, says.group, r)
                user.waiting.append(action)
                self._say("pending", action)
            elif self._is_full(user, says.group, t, r):
                first = winner.get(says.group, "")
                self._say("outranked" if first else "group_capped", action, first)
            else:
                user.own[says.name].append((t, r))
                user.shared[says.group].append((t, r))
                winner.setdefault(says.group, says.name)
                self._say("fired", action)

    def pass_stream(self, stream: int) -> None:
        for user in self.users.values():
            self._pass(user, stream)

    def _pass(self, user: OfUser, until: int) -> None:
        while times := [action.pick for action in user.waiting if 0 < action.pick <= until]:
            self._pick(user, min(times))

    def _pick(self, user: OfUser, at: int) -> None:
        for action in [action for action in user.waiting if action.pick == at and action.rule not in self.rules]:
            self._lose(user, action, "dropped")
        due = [action for action in user.waiting if action.pick == at]
        for group in sorted({self.rules[action.rule].group or "" for action in due}):
            part = [
                action
                for action in user.waiting
                if action.pick
                and action.rule in self.rules
                and (self.rules[action.rule].group or "") == group
                and (action.pick == at or (group and action.r < at))
            ]
            part.sort(key=lambda action: (-self.rules[action.rule].priority, action.rule))
            winner = ""
            for action in part:
                winner = self._may_speak(user, action, group, at, winner) or winner

    def _may_speak(self, user: OfUser, action: Waits, group: str, at: int, winner: str) -> str:
        says = self.rules[action.rule]
        if self._falls_away(user, action, says):
            return ""
        end = self._quiet(says)
        if end is not None:
            action.until, action.pick = end, 0
            self._say("held", action)
            return ""
        if not action.counted and self._cools(user, says, action.t, action.r):
            self._lose(user, action, "cooled_down")
            return ""
        if group:
            t = action.t if self.groups[group].window else at
            if winner and (self.groups[group].within or self._is_full(user, group, t, at)):
                self._lose(user, action, "outranked", winner)
                return ""
            if self._is_full(user, group, t, at):
                self._lose(user, action, "group_capped")
                return ""
            user.shared[group].append((t, at))
        if not action.counted:
            user.own[says.name].append((action.t, action.r))
        self._lose(user, action, "released" if action.until else "fired")
        return says.name

    def _falls_away(self, user: OfUser, action: Waits, says: Says) -> bool:
        if action.over and self.now >= action.over:
            self._lose(user, action, "expired")
        elif self._is_suppressed(user, says):
            self._lose(user, action, "suppressed")
        else:
            return False
        return True

    def _pick_time(self, user: OfUser, group: str, r: int) -> int:
        others = [
            action.pick
            for action in user.waiting
            if action.pick > r and action.rule in self.rules and self.rules[action.rule].group == group
        ]
        return min([*others, r + self.groups[group].within])

    def _cools(self, user: OfUser, says: Says, t: int, r: int) -> bool:
        return bool(says.cooldown) and any(
            t2 > t - says.cooldown or r2 > r - says.cooldown for t2, r2 in user.own[says.name]
        )

    def _is_full(self, user: OfUser, group: str, t: int, r: int) -> bool:
        shares, kept = self.groups[group], user.shared[group]
        since = (t - shares.window + 1, r - shares.window + 1) if shares.window else (t - t % DAY, r - r % DAY)
        return (
            sum(t2 >= since[0] for t2, _ in kept) >= shares.count
            or sum(r2 >= since[1] for _, r2 in kept) >= shares.count
        )

    def _is_suppressed(self, user: OfUser, says: Says) -> bool:
        ends = [user.suppressed.get("*"), user.suppressed.get(says.group) if says.group else None]
        return any(end is not None and (end == 0 or self.now < end) for end in ends)

    def _quiet(self, says: Says) -> int | None:
        if says.quiet is None or not says.quiet[0] <= self.now % DAY // HOUR < says.quiet[1]:
            return None
        return self.now - self.now % DAY + says.quiet[1] * HOUR

    def _lose(self, user: OfUser, action: Waits, decision: str, winner: str = "") -> None:
        user.waiting.remove(action)
        self._say(decision, action, winner)

    def _say(self, decision: str, action: Waits, winner: str = "") -> None:
        self.lines.append((decision, action.rule, action.event, winner))

    def check_caps(self) -> None:
        """No window, by the time at which a group picked, has more firings than its cap."""
        for user in self.users.values():
            for group, firings in user.shared.items():
                shares, times = self.groups[group], sorted(r for _, r in firings)
                for first, last in zip(times, times[shares.count :], strict=False):
                    assert last - first >= shares.window if shares.window else last // DAY > first // DAY


def first_set() -> tuple[list[Says], dict[str, Shares]]:
    groups = {"now": Shares(2, 0, 0), "soon": Shares(1, 2 * HOUR, 5 * MINUTE), "daily": Shares(2, 0, 10 * MINUTE)}
    rules = [
        Says("free", "ab", cooldown=30 * MINUTE, quiet=(3, 4), expires=20 * MINUTE),
        Says("now_low", "ab", "now", 10),
        Says("now_high", "bc", "now", 90, cooldown=10 * MINUTE),
        Says("now_same", "b", "now", 90),
        Says("soon_low", "a", "soon", 1, expires=4 * MINUTE),
        Says("soon_mid", "bd", "soon", 50, cooldown=3 * HOUR),
        Says("soon_high", "c", "soon", 99, quiet=(3, 4)),
        Says("daily_low", "ad", "daily", 5, quiet=(3, 4)),
        Says("daily_high", "d", "daily", 6, quiet=(4, 5), expires=40 * MINUTE),
    ]
    return rules, groups


def second_set() -> tuple[list[Says], dict[str, Shares]]:
    """A rule changes its group, one its priority, one goes, a group goes, a cap and a time change."""
    rules, _ = first_set()
    changed = {each.name: each for each in rules if each.name != "daily_high"}
    changed["soon_low"].group = "daily"
    changed["soon_mid"].priority = 100
    changed["now_same"].group = changed["now_low"].group = changed["now_high"].group = None
    changed["now_same"].priority = changed["now_low"].priority = changed["now_high"].priority = 0
    return [*changed.values()], {"soon": Shares(1, 3 * HOUR, 3 * MINUTE), "daily": Shares(1, 0, 10 * MINUTE)}


def rules_of(rules: Sequence[Says], groups: dict[str, Shares], version: int) -> tuple[Rule, ...]:
    documents = {name: shares.document() for name, shares in groups.items()}
    return grouped(documents, *(each.document(version) for each in rules))


def records_of(chance: random.Random, users: int, events: int, start_ms: int) -> Iterator[Record]:
    """Records as Kafka has them: their times rise, their events are shuffled and up to an hour late."""
    at_ms, pause = start_ms, max(2, 40 * MINUTE // users)
    for number in range(events):
        at_ms += chance.randint(1, pause) if chance.random() < 0.95 else 1
        late_ms = chance.randint(0, HOUR) if chance.random() < 0.3 else 0
        user = f"user-{chance.randrange(users)}"
        made = event(user, event_id=f"e{number}", event_name=chance.choice(NAMES), timestamp=at_ms - late_ms)
        yield Record(0, number, at_ms, user.encode(), orjson.dumps(made))
