"""Rule state of one user: past firings, open sequences, held actions (docs/rules.md).

It outlives the user's idle TTL. Only ``ShardState.apply`` changes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base.calendar import period_end_ms, period_start_ms, zone_of
from transforms.domain.base.field_paths import MISSING, value_at
from transforms.domain.rules.firings import Firings, Slot
from transforms.domain.rules.model import Cap, Rule, TimeZone

CAP: Final = "cap"
COOLDOWN: Final = "cooldown"

# The two times of a firing.
EVENT_TIME: Final = "event time"
RECORD_TIME: Final = "record time"

MAX_OPEN: Final = 100
MAX_HELD: Final = 100
MAX_BYTES: Final = 1_000_000  # of open sequences, and of held actions
MAX_COOLDOWN_KEYS: Final = 1000

_OVERHEAD_BYTES: Final = 500
_ITEM_BYTES: Final = 250
_LONG_TEXT: Final = 64
# Users move: the same day ends 26 hours later on the other side of the date line.
_ZONES_APART_MS: Final = 26 * 3600 * 1000


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
    """An action that waits for quiet hours to end, as it was decided; ``action`` is JSON.

    ``at_ms`` is the time of the firing, 0 where an earlier release decided it. ``event`` is the event of the firing as
    JSON where the rule has a ``recheck``. With ``waits`` that waits for the user API's answer.
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
    event: bytes = b""
    waits: bool = False

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.action) + len(self.body) + len(self.event)


class PackedRuleState(msgspec.Struct, array_like=True):
    """The rule state of one user in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    fired: list[Firings]
    open: list[OpenSequence]
    held: list[HeldAction]
    profile_wait_ms: int = 0


class RuleState:
    """What rules remember of one user. Each method that changes it keeps ``nbytes`` up to date.

    Attributes:
        fired: past firings by rule and slot.
        open: open sequences in the order in which they began.
        held: held actions in the order in which they were held.
        profile_wait_ms: what is due by this stream time waits for the user API's answer; 0: nothing waits.
        nbytes: memory, roughly.
    """

    __slots__ = ("fired", "held", "nbytes", "open", "profile_wait_ms")

    def __init__(self) -> None:
        self.fired: dict[tuple[str, str], Slot] = {}
        self.open: list[OpenSequence] = []
        self.held: list[HeldAction] = []
        self.profile_wait_ms = 0
        self.nbytes = _OVERHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.fired and not self.open and not self.held

    def stream_due_ms(self) -> int | None:
        """Stream time at which a sequence is settled or a firing forgotten; without what waits for the user API."""
        after_ms = self.profile_wait_ms
        due_ms = [sequence.due_ms for sequence in self.open if sequence.due_ms > after_ms]
        due_ms += [at_ms for slot in self.fired.values() if (at_ms := slot.due_ms(after_ms)) is not None]
        return min(due_ms, default=None)

    def clock_due_ms(self) -> int | None:
        """Processing time at which the first held action is released; without those that wait for the user API."""
        return min((held.until_ms for held in self.held if not held.waits), default=None)

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

    def set_profile_wait(self, stream_ms: int) -> None:
        """Let what is due by ``stream_ms`` wait for the user API's answer; 0: it waits no longer."""
        self.profile_wait_ms = stream_ms

    # The journal, rewritten

    def pack(self, user_id: str) -> PackedRuleState:
        """A copy for the journal; the state goes on changing before the copy is encoded."""
        fired = [slot.pack() for slot in self.fired.values()]
        return PackedRuleState(user_id, fired, list(self.open), list(self.held), self.profile_wait_ms)

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
        return state

    def public(self) -> dict[str, Any]:
        """The ``ruleState`` of an inspection; times in ms."""
        caps = sorted((slot for slot in self.fired.values() if slot.slot == CAP), key=lambda cap: cap.rule)
        cooldowns = [
            {"rule": slot.rule, "key": slot.slot.partition(":")[2] or None, "fired_at": slot.times_ms[-1]}
            for slot in self.fired.values()
            if slot.slot != CAP
        ]
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
            ],
        }


NOTHING: Final = RuleState()  # for users without rule state; never changed


def cooldown_slot(key: str | None) -> str:
    """The slot of a cooldown, or of one value of its key."""
    return COOLDOWN if key is None else f"{COOLDOWN}:{short(key)}"


def short(text: str) -> str:
    """A text, or the hash of a text of more than 64 characters."""
    return text if len(text) <= _LONG_TEXT else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# Whether a rule may fire


def cools_down(state: RuleState, rule: Rule, key: str | None, at_ms: int, received_ms: int) -> str | None:
    """The time by which the rule's cooldown stops a firing: ``EVENT_TIME`` or ``RECORD_TIME``; None: it does not."""
    if rule.cooldown is None:
        return None
    slot = state.fired.get((rule.name, cooldown_slot(key)))
    if slot is None:
        return None
    if at_ms < slot.times_ms[-1] + rule.cooldown.time.ms:
        return EVENT_TIME
    return RECORD_TIME if received_ms < slot.received_ms[-1] + rule.cooldown.time.ms else None


def cooled_until_ms(state: RuleState, rule: Rule, key: str | None, stopped_by: str) -> int:
    """Until when a cooldown lasts, on the clock that ``cools_down`` named."""
    slot = state.fired[(rule.name, cooldown_slot(key))]
    begun_ms = slot.times_ms[-1] if stopped_by == EVENT_TIME else slot.received_ms[-1]
    return begun_ms + (rule.cooldown.time.ms if rule.cooldown is not None else 0)


def caps(state: RuleState, rule: Rule, profile: dict[str, Any], at_ms: int, received_ms: int) -> str | None:
    """The time by which the rule's cap stops a firing: ``EVENT_TIME`` or ``RECORD_TIME``; None: it does not."""
    if rule.cap is None:
        return None
    slot, count = state.fired.get((rule.name, CAP)), rule.cap.count
    if slot is None or len(slot.times_ms) < count:
        return None
    from_ms, last_ms = _counted_from_ms(rule, rule.cap, profile, at_ms), slot.received_ms[-count]
    if slot.times_ms[-count] >= from_ms:
        return EVENT_TIME
    if last_ms < from_ms and at_ms <= received_ms:  # less to compute: a later time counts from no earlier on
        return None
    return RECORD_TIME if last_ms >= _counted_from_ms(rule, rule.cap, profile, received_ms) else None


def _counted_from_ms(rule: Rule, cap: Cap, profile: dict[str, Any], at_ms: int) -> int:
    """From when on the firings count that may stop one at ``at_ms``."""
    if cap.window is not None:
        return at_ms - cap.window.ms + 1
    return period_start_ms(at_ms, _per(cap), zone_for(rule.time_zone, profile))


def firings_of(
    rule: Rule, profile: dict[str, Any], key: str | None, latest_ms: int, lateness_ms: int
) -> Iterator[tuple[str, int, int]]:
    """What rule state keeps of a firing; ``latest_ms`` is the later of its two times.

    Yields:
        For each slot: its name, how many firings the rule counts, and the stream time until which this one is kept, ms.
    """
    if rule.cooldown is not None:
        yield cooldown_slot(key), 1, latest_ms + rule.cooldown.time.ms + lateness_ms
    if rule.cap is not None and rule.cap.window is not None:
        yield CAP, rule.cap.count, latest_ms + rule.cap.window.ms + lateness_ms
    elif rule.cap is not None:
        end_ms = period_end_ms(latest_ms, _per(rule.cap), zone_for(rule.time_zone, profile))
        yield CAP, rule.cap.count, end_ms + _ZONES_APART_MS + lateness_ms


def _per(cap: Cap) -> Any:
    return cap.per


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
