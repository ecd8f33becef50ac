"""Rule state of one user: past firings, open sequences, held actions (docs/rules.md).

It outlives the user's idle TTL. Only ``ShardState.apply`` changes it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base.calendar import zone_of
from transforms.domain.base.field_paths import MISSING, value_at
from transforms.domain.rules.firings import Firings, Slot
from transforms.domain.rules.groups import EVERYTHING
from transforms.domain.rules.model import TimeZone

CAP: Final = "cap"
COOLDOWN: Final = "cooldown"
GROUP: Final = "group"  # the firings of a group's rules, under its name in place of a rule's

MAX_OPEN: Final = 100
MAX_HELD: Final = 100
MAX_BYTES: Final = 1_000_000  # of open sequences, and of held actions
MAX_COOLDOWN_KEYS: Final = 1000

_OVERHEAD_BYTES: Final = 500
_ITEM_BYTES: Final = 250
_SUPPRESSION_BYTES: Final = 200


class OpenSequence(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that began a sequence: open from ``begun_ms`` to ``end_ms``, settled when the stream is at ``due_ms``.

    ``match`` is the value that both events must have, ``key`` that of the rule's cooldown. ``fields`` are the event as
    JSON, empty where only an event that follows can fire. ``lag_ms`` is the event's record time less ``begun_ms``; an
    earlier release did not know it. ``step`` is what it waits for, from 0. From the second step on, ``begun_ms`` and
    ``lag_ms`` are those of the event that ended the step before. ``begun`` is the event as JSON where ``fields`` is
    empty and a body reads it.
    """

    rule: str
    match: str
    event_id: str
    begun_ms: int
    end_ms: int
    due_ms: int
    key: str | None = None
    fields: bytes = b""
    lag_ms: int = 0
    step: int = 0
    begun: bytes = b""

    @property
    def received_ms(self) -> int:
        """The record time of a firing at the end."""
        return max(self.due_ms, self.begun_ms + self.lag_ms)

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.fields) + len(self.begun)


class HeldAction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An action that waits, as it was decided: for quiet hours to end, or for its group to pick.

    Attributes:
        action: JSON.
        until_ms: processing time at which quiet hours end.
        zone: the user's time zone, of the rule.
        at_ms: event time of the firing; 0 where an earlier release decided it.
        received_ms: record time of the firing; of what quiet hours held, their end.
        due_ms: the stream time at which the group picks; 0: it waits for quiet hours.
        key: of the rule's cooldown.
        is_counted: whether the rule's cooldown and cap have counted the firing.
        group: the rule's group when it was decided.
        group_zone: the user's time zone, of the group.
        decided_ms: processing time of the decision; 0 where an earlier release decided it.
        expires_ms: processing time from which on it is not sent any more; 0: never.
        event: the event of the firing as JSON where the rule has a ``recheck``.
        waits: whether that waits for the user API's answer.
    """

    rule: str
    version: int
    action: bytes
    action_id: str
    event_id: str
    until_ms: int
    zone: str
    body: bytes
    rule_set: int = 0
    at_ms: int = 0
    received_ms: int = 0
    due_ms: int = 0
    key: str | None = None
    is_counted: bool = True
    group: str = ""
    group_zone: str = ""
    decided_ms: int = 0
    expires_ms: int = 0
    event: bytes = b""
    waits: bool = False

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.action) + len(self.body) + len(self.event)

    def is_over(self, now_ms: int) -> bool:
        """Whether it has expired."""
        return 0 < self.expires_ms <= now_ms


class PackedRuleState(msgspec.Struct, array_like=True):
    """The rule state of one user in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    fired: list[Firings]
    open: list[OpenSequence]
    held: list[HeldAction]
    profile_wait_ms: int = 0
    suppressed: dict[str, int] = {}


class RuleState:
    """What rules remember of one user. Each method that changes it keeps ``nbytes`` up to date.

    Attributes:
        fired: past firings by rule and slot.
        open: open sequences in the order in which they began.
        held: actions that wait, in the order in which they were decided.
        suppressed: groups from which the user gets nothing, and until when [ms] by processing time, 0: for good.
        profile_wait_ms: what is due by this stream time waits for the user API's answer; 0: nothing waits.
        nbytes: memory, roughly.
    """

    __slots__ = ("fired", "held", "nbytes", "open", "profile_wait_ms", "suppressed")

    def __init__(self) -> None:
        self.fired: dict[tuple[str, str], Slot] = {}
        self.open: list[OpenSequence] = []
        self.held: list[HeldAction] = []
        self.suppressed: dict[str, int] = {}
        self.profile_wait_ms = 0
        self.nbytes = _OVERHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.fired and not self.open and not self.held and not self.suppressed

    def stream_due_ms(self) -> int | None:
        """Stream time at which a sequence is settled, a group picks or a firing is forgotten.

        Without what waits for the user API.
        """
        after_ms = self.profile_wait_ms
        due_ms = [sequence.due_ms for sequence in self.open if sequence.due_ms > after_ms]
        if self.held:
            due_ms += [held.due_ms for held in self.held if held.due_ms > after_ms]
        due_ms += [at_ms for slot in self.fired.values() if (at_ms := slot.due_ms(after_ms)) is not None]
        return min(due_ms, default=None)

    def clock_due_ms(self) -> int | None:
        """Processing time at which quiet hours release the first action, or a suppression ends.

        Without what waits for the user API.
        """
        due_ms = [held.until_ms for held in self.held if not held.due_ms and not held.waits]
        due_ms += [until_ms for until_ms in self.suppressed.values() if until_ms]
        return min(due_ms, default=None)

    def is_suppressed(self, group: str | None, now_ms: int) -> str | None:
        """The name under which a group's actions are suppressed: its own, or that of everything; None: they are not."""
        for name in (EVERYTHING, group):
            until_ms = None if name is None else self.suppressed.get(name)
            if until_ms is not None and (until_ms == 0 or now_ms < until_ms):
                return name
        return None

    @property
    def waits_for_profile(self) -> bool:
        """Whether anything waits for the user API's answer."""
        return (self.profile_wait_ms > 0 and not self.is_empty) or any(held.waits for held in self.held)

    # Changes

    def fire(self, rule: str, slot: str, at_ms: int, keep: int, until_ms: int, lag_ms: int = 0) -> None:
        """Add a firing to a slot; its record time is ``lag_ms`` after ``at_ms``."""
        kept = self.fired.get((rule, slot))
        if kept is None:
            kept = self.fired[rule, slot] = Slot(rule, slot)
        else:
            self.nbytes -= kept.nbytes
        kept.add(at_ms, at_ms + lag_ms, keep, until_ms)
        self.nbytes += kept.nbytes

    def forget_firings(self, rule: str, slot: str) -> None:
        """Forget all firings of a slot."""
        kept = self.fired.pop((rule, slot), None)
        if kept is not None:
            self.nbytes -= kept.nbytes

    def expire_firings(self, stream_ms: int) -> None:
        """Forget the firings that are remembered until ``stream_ms`` or less."""
        for key, slot in list(self.fired.items()):
            self.nbytes -= slot.nbytes
            slot.expire(stream_ms)
            if slot.is_empty:
                del self.fired[key]
            else:
                self.nbytes += slot.nbytes

    def begin(self, sequence: OpenSequence) -> None:
        """Add an open sequence."""
        self.open.append(sequence)
        self.nbytes += sequence.nbytes

    def end(self, rule: str, event_id: str, match: str) -> None:
        """Remove the sequence of a rule that this event began, if it is open."""
        key = (rule, event_id, match)
        for sequence in [begun for begun in self.open if (begun.rule, begun.event_id, begun.match) == key]:
            self.open.remove(sequence)
            self.nbytes -= sequence.nbytes

    def hold(self, action: HeldAction) -> None:
        """Add a held action; one with the same id is replaced in its place."""
        for place, held in enumerate(self.held):
            if held.action_id == action.action_id:
                self.nbytes += action.nbytes - held.nbytes
                self.held[place] = action
                return
        self.held.append(action)
        self.nbytes += action.nbytes

    def release(self, action_id: str) -> None:
        """Remove a held action, if it is there."""
        for action in [held for held in self.held if held.action_id == action_id]:
            self.held.remove(action)
            self.nbytes -= action.nbytes

    def suppress(self, group: str, until_ms: int) -> None:
        """Send nothing of a group, or of all rules, until ``until_ms``; 0: for good."""
        if group not in self.suppressed:
            self.nbytes += _SUPPRESSION_BYTES
        self.suppressed[group] = until_ms

    def unsuppress(self, group: str) -> None:
        """Send again what was suppressed under this name."""
        if self.suppressed.pop(group, None) is not None:
            self.nbytes -= _SUPPRESSION_BYTES

    def set_profile_wait(self, stream_ms: int) -> None:
        """Let what is due by ``stream_ms`` wait for the user API's answer; 0: it waits no longer."""
        self.profile_wait_ms = stream_ms

    # The journal, rewritten

    def pack(self, user_id: str) -> PackedRuleState:
        """A copy for the journal; the state goes on changing before the copy is encoded."""
        fired = [slot.pack() for slot in self.fired.values()]
        waiting = (list(self.open), list(self.held), self.profile_wait_ms)
        return PackedRuleState(user_id, fired, *waiting, dict(self.suppressed))

    @classmethod
    def unpack(cls, packed: PackedRuleState) -> RuleState:
        """The state that was packed."""
        state = cls()
        state.profile_wait_ms = packed.profile_wait_ms
        for firings in packed.fired:
            slot = state.fired[firings.rule, firings.slot] = Slot.unpack(firings)
            state.nbytes += slot.nbytes
        for sequence in packed.open:
            state.begin(sequence)
        for held in packed.held:
            state.hold(held)
        for group, until_ms in packed.suppressed.items():
            state.suppress(group, until_ms)
        return state

    def public(self) -> dict[str, Any]:
        """The ``ruleState`` of an inspection; times in ms."""
        caps = sorted((slot for slot in self.fired.values() if slot.slot == CAP), key=lambda cap: cap.rule)
        cooldowns = [
            {"rule": slot.rule, "key": slot.slot.partition(":")[2] or None, "fired_at": slot.times_ms[-1]}
            for slot in self.fired.values()
            if slot.slot not in (CAP, GROUP)
        ]
        groups = sorted((slot for slot in self.fired.values() if slot.slot == GROUP), key=lambda group: group.rule)
        # What only sets with groups have: programs of before do not know it.
        of_groups = {
            "groups": [{"group": group.rule, "fired_at": group.received_ms[-group.keep :]} for group in groups],
            "pending": [
                {
                    "rule": held.rule,
                    "group": held.group,
                    "action": orjson.loads(held.action)["name"],
                    "event_id": held.event_id,
                    "picked_at": held.due_ms,
                }
                for held in self.held
                if held.due_ms
            ],
            "suppressed": [{"group": group, "until": until_ms or None} for group, until_ms in self.suppressed.items()],
        }
        sequences = sorted(self.open, key=lambda sequence: (sequence.end_ms, sequence.event_id, sequence.rule))
        return {
            "cooldowns": sorted(cooldowns, key=lambda cooldown: (str(cooldown["rule"]), str(cooldown["key"]))),
            "caps": [{"rule": cap.rule, "fired_at": cap.times_ms[-cap.keep :]} for cap in caps],
            "sequences": [
                {
                    "rule": sequence.rule,
                    "event_id": sequence.event_id,
                    "begun_at": sequence.begun_ms,
                    "ends_at": sequence.end_ms,
                }
                for sequence in sequences
            ],
            "held": [
                {
                    "rule": held.rule,
                    "action": orjson.loads(held.action)["name"],
                    "event_id": held.event_id,
                    "until": held.until_ms,
                }
                for held in self.held
                if not held.due_ms
            ],
            **{name: entries for name, entries in of_groups.items() if entries},
        }


NOTHING: Final = RuleState()  # for users without rule state; never changed


def zone_for(time_zone: TimeZone, profile: dict[str, Any]) -> Any:
    """The user's time zone, or the default."""
    return zone_of(_zone_named(time_zone, profile)) or zone_of(time_zone.default)


def has_bad_zone(time_zone: TimeZone, profile: dict[str, Any]) -> bool:
    """Whether the profile names an unknown time zone."""
    named = _zone_named(time_zone, profile)
    return named is not None and zone_of(named) is None


def _zone_named(time_zone: TimeZone, profile: dict[str, Any]) -> Any:
    """What the profile says where its time zone should be; None if it says nothing."""
    named = MISSING if time_zone.profile_field is None else value_at(profile, time_zone.profile_field)
    return None if named is MISSING else named
