"""Groups against a model that is written from docs/rules.md, "Groups", alone and shares no code with the domain.

Random events of many users come shuffled and late, in random batches. Workers are killed: a shard goes back to a
checkpoint and handles the same records again, in other batches and at another time. Users are suppressed, and the rules
change in the middle. After each step the decisions of both must be the same.

By hand, with 200,000 events of 2,000 users: ``python -m tests.transforms.domain.shard.test_groups_oracle``.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, MemoryBag, Shard, batch, control, event, fetched, grouped, published, rule, rule_sets
from transforms.domain.events.record import Record
from transforms.domain.rules.model import Rule
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.step_input import Answer

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
START = NOW_MS - NOW_MS % DAY
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

    def document(self, version: int) -> Rule:
        given: dict[str, Any] = {"version": version}
        if self.group:
            given |= {"group": self.group, "priority": self.priority}
        if self.cooldown:
            given["cooldown"] = f"{self.cooldown // SECOND}s"
        if self.quiet:
            given["quiet_hours"] = {"start": f"{self.quiet[0]:02}:00", "end": f"{self.quiet[1]:02}:00"}
        if self.expires:
            given["expires"] = f"{self.expires // SECOND}s"
        return rule(self.name, " or ".join(f'event.event_name == "{name}"' for name in self.on), **given)


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


class Both:
    """A shard and the model, which get the same."""

    def __init__(self, users: int) -> None:
        rules, groups = first_set()
        self.model = Model(rules, groups)
        filters = rule_sets(RuleSet(0, rules_of(rules, groups, 1)), "rules")
        self.shard = Shard(filters=filters, ttl_ms=10 * MINUTE, allowed_lateness_ms=LATENESS, decision_sample=0.0)
        self.sent: list[Line] = []
        self.users = users

    def step(self, now: int, records: Sequence[Record] = (), stream: int | None = None) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        for record in records:
            made = orjson.loads(record.value)
            t = min(made["timestamp"], record.timestamp_ms)
            self.model.event(made["user_id"], made["event_id"], made["event_name"], t, record.timestamp_ms)
        if stream is not None:
            self.model.pass_stream(stream)
        self._compare(self._take(batch(*records) if records else None, stream))

    def control(self, now: int, document: Any) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        user = self.model.users[document.get("suppress") or document["unsuppress"]]
        if "suppress" in document:
            user.suppressed[document["group"]] = document["until"] or 0
        else:
            user.suppressed.pop(document["group"], None)
        self._compare(self._take(control(document), None))

    def publish(self, now: int, rules: list[Says], groups: dict[str, Shares]) -> None:
        self.shard.now_ms = now
        self.model.begin(now)
        self.model.change(rules, groups)
        self._compare(self._take(published(1, *rules_of(rules, groups, 2)), None))

    def _take(self, given: Any, stream: int | None) -> list[Line]:
        lines: list[Line] = []
        done = self.shard.step(given, stream_ms=stream)
        while True:
            assert done.dead_letters == []
            lines += [(each.decision, each.rule, each.event_id, each.winner or "") for each in done.decisions]
            if not done.users_to_fetch:
                return lines
            known = {"profile": {}, "visit": None, "history": []}
            done = self.shard.step(answers=[Answer(user_id, fetched(known)) for user_id in done.users_to_fetch])

    def _compare(self, lines: list[Line]) -> None:
        expected, self.model.lines = self.model.lines, []
        assert sorted(lines) == sorted(expected)
        self.sent += [line for line in lines if line[0] in ("fired", "released")]

    def checkpoint(self) -> Any:
        return [list(bag.stored) for bag in self.shard.bags], copy.deepcopy(self.model), list(self.sent)

    def kill(self, checkpoint: Any) -> None:
        """Go back to a checkpoint; what was decided since then is decided again."""
        stored, model, sent = checkpoint
        self.shard.bags = [MemoryBag(bag) for bag in stored]
        self.shard.journal = self.shard.open()
        self.shard.fetch_started_ms = {}
        self.model, self.sent = copy.deepcopy(model), list(sent)

    def check_caps(self) -> None:
        """No window, by the time at which a group picked, has more firings than its cap."""
        for user in self.model.users.values():
            for group, firings in user.shared.items():
                shares, times = self.model.groups[group], sorted(r for _, r in firings)
                for first, last in zip(times, times[shares.count :], strict=False):
                    assert last - first >= shares.window if shares.window else last // DAY > first // DAY


def records_of(chance: random.Random, users: int, events: int) -> Iterator[Record]:
    """Records as Kafka has them: their times rise, their events are shuffled and up to an hour late."""
    at_ms, pause = START, max(2, 40 * MINUTE // users)
    for number in range(events):
        at_ms += chance.randint(1, pause) if chance.random() < 0.95 else 1
        late_ms = chance.randint(0, HOUR) if chance.random() < 0.3 else 0
        user = f"user-{chance.randrange(users)}"
        made = event(user, event_id=f"e{number}", event_name=chance.choice(NAMES), timestamp=at_ms - late_ms)
        yield Record(0, number, at_ms, user.encode(), orjson.dumps(made))


def play(seed: int, users: int, events: int, kills: int = 2) -> Both:
    chance = random.Random(seed)
    records = list(records_of(chance, users, events))
    both, at, now, is_changed = Both(users), 0, START, False
    kill_at = sorted(chance.sample(range(events), kills))
    saved = both.checkpoint(), 0, False
    save_every = max(1, events // 10)
    next_save = save_every
    while at < events:
        size = min(chance.randint(1, 1 + max(10, users // 5)), events - at)
        part = records[at : at + size]
        now = max(now, part[-1].timestamp_ms + chance.randint(0, 5 * SECOND))
        both.step(now, part)
        at += size
        if chance.random() < 0.5:
            both.step(now, stream=part[-1].timestamp_ms)
        if chance.random() < 0.1:
            user, group = f"user-{chance.randrange(users)}", chance.choice(("*", "now", "soon", "daily"))
            until = chance.choice((None, now + chance.randint(1, 5 * HOUR)))
            kind = chance.choice(("suppress", "unsuppress"))
            both.control(now, {kind: user, "group": group, **({"until": until} if kind == "suppress" else {})})
        if not is_changed and at > events // 2:
            both.check_caps()
            both.publish(now, *second_set())
            is_changed = True
        if at >= next_save:
            saved = both.checkpoint(), at, is_changed
            next_save += save_every
        if kill_at and at > kill_at[0]:
            del kill_at[0]
            both.kill(saved[0])
            at, is_changed, now = saved[1], saved[2], now + chance.randint(0, 10 * MINUTE)
    both.step(now + HOUR, stream=records[-1].timestamp_ms + HOUR)
    return both


@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_those_of_the_model(seed: int) -> None:
    both = play(seed, users=8, events=500)
    assert len(both.sent) > 100


def test_a_replay_in_other_batches_picks_the_same_winners() -> None:
    """Of rules without quiet hours, which go by processing time, and without expiry."""
    chance = random.Random(7)
    records = list(records_of(chance, 5, 300))
    rules, groups = first_set()
    rules = [each for each in rules if each.group in ("soon", "daily")]
    for each in rules:
        each.quiet, each.expires = None, 0
    picked = set()
    for number in range(4):
        both = Both(5)
        both.model = Model(rules, groups)
        both.shard.filters = rule_sets(RuleSet(0, rules_of(rules, groups, 1)), "rules")
        at, now = 0, START
        while at < len(records):
            size = 1 if number == 0 else chance.randint(1, 60)
            part = records[at : at + size]
            now = max(now, part[-1].timestamp_ms) + number * HOUR
            both.step(now, part)
            at += size
            if number < 3 or at >= len(records):
                both.step(now, stream=part[-1].timestamp_ms)
        both.step(now, stream=records[-1].timestamp_ms + HOUR)
        picked.add(tuple(sorted(both.sent)))
    assert len(picked) == 1


if __name__ == "__main__":
    started_s = time.monotonic()
    events, users = int([*sys.argv, "200000"][1]), 2000
    both = play(random.randrange(10**6), users, events)
    print(f"{events:,} events of {users:,} users: {len(both.sent):,} actions, {time.monotonic() - started_s:.0f} s")
