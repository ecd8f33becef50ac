"""What rules remember of one user: when they fired, sequences that are open, actions that are held (docs/rules.md).

It outlives the user's idle TTL. Only ``ShardState.apply`` changes it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import orjson

from transforms.domain.base.calendar import period_end_ms, period_start_ms, zone_of
from transforms.domain.events.event import Event
from transforms.domain.rules.model import Cap, Rule, TimeZone

CAP: Final = "cap"
COOLDOWN: Final = "cooldown"

MAX_OPEN: Final = 100
MAX_HELD: Final = 100
MAX_BYTES: Final = 1_000_000  # of open sequences, and of held actions
MAX_COOLDOWN_KEYS: Final = 1000

_OVERHEAD_BYTES: Final = 500
_ITEM_BYTES: Final = 250
_LONG_TEXT: Final = 64
# Users move: the same day ends 26 hours later on the other side of the date line.
_ZONES_APART_MS: Final = 26 * 3600 * 1000


class Firings(msgspec.Struct, array_like=True, gc=False):
    """When a rule fired, ascending, for its cap or a cooldown (``slot``); kept until the stream is at ``until_ms``."""

    rule: str
    slot: str
    times_ms: list[int]
    until_ms: int


class OpenSequence(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that began a sequence: open from ``begun_ms`` to ``end_ms``, settled when the stream is at ``due_ms``.

    ``match`` is the value that both events must have, ``key`` that of the rule's cooldown. ``fields`` are the event as
    JSON, empty where only an event that follows can fire.
    """

    rule: str
    match: str
    event_id: str
    begun_ms: int
    end_ms: int
    due_ms: int
    key: str | None = None
    fields: bytes = b""

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.fields)


class HeldAction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An action that waits for quiet hours to end, as it was decided; ``action`` is JSON.

    ``at_ms`` is the time of the firing, 0 where an earlier release decided it.
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

    @property
    def nbytes(self) -> int:
        """Memory, roughly."""
        return _ITEM_BYTES + len(self.action) + len(self.body)


class PackedRuleState(msgspec.Struct, array_like=True):
    """All of it in the journal. Fields are only ever added at the end, with a default."""

    user_id: str
    fired: list[Firings]
    open: list[OpenSequence]
    held: list[HeldAction]
    awaited_ms: int = 0


class RuleState:
    """What rules remember of one user.

    ``awaited_ms``: what is due by this stream time waits for the user API's answer; 0 if nothing does. ``open`` and
    ``held`` are in the order in which they came.
    """

    __slots__ = ("awaited_ms", "fired", "held", "nbytes", "open")

    def __init__(self) -> None:
        self.fired: dict[tuple[str, str], Firings] = {}
        self.open: list[OpenSequence] = []
        self.held: list[HeldAction] = []
        self.awaited_ms = 0
        self.nbytes = _OVERHEAD_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return not self.fired and not self.open and not self.held

    def stream_due_ms(self) -> int | None:
        """Stream time at which something is settled or forgotten; without what waits for the user."""
        due = [one.due_ms for one in self.open]
        due += [one.until_ms for one in self.fired.values()]
        return min((one for one in due if one > self.awaited_ms), default=None)

    def clock_due_ms(self) -> int | None:
        """Processing time at which a held action goes out."""
        return min((one.until_ms for one in self.held), default=None)

    # Changes; each keeps ``nbytes`` up to date

    def fire(self, rule: str, slot: str, at_ms: int, keep: int, until_ms: int) -> None:
        """Remember a firing; of all in this slot the ``keep`` latest are kept."""
        firings = self.fired.get((rule, slot))
        if firings is None:
            firings = self.fired[rule, slot] = Firings(rule, slot, [], 0)
            self.nbytes += _ITEM_BYTES
        self.nbytes -= 8 * len(firings.times_ms)
        firings.times_ms = sorted([*firings.times_ms, at_ms])[-keep:]
        firings.until_ms = max(firings.until_ms, until_ms)
        self.nbytes += 8 * len(firings.times_ms)

    def forget_firings(self, rule: str, slot: str) -> None:
        """Forget all firings of a slot."""
        firings = self.fired.pop((rule, slot), None)
        if firings is not None:
            self.nbytes -= _ITEM_BYTES + 8 * len(firings.times_ms)

    def lapse(self, stream_ms: int) -> None:
        """Forget firings that nothing asks for any more."""
        for firings in [one for one in self.fired.values() if one.until_ms <= stream_ms]:
            self.forget_firings(firings.rule, firings.slot)

    def begin(self, opening: OpenSequence) -> None:
        """A sequence is open."""
        self.open.append(opening)
        self.nbytes += opening.nbytes

    def end(self, rule: str, event_id: str, match: str) -> None:
        """The sequence of a rule that this event began is over; nothing if there is none."""
        for opening in [one for one in self.open if (one.rule, one.event_id, one.match) == (rule, event_id, match)]:
            self.open.remove(opening)
            self.nbytes -= opening.nbytes

    def hold(self, held: HeldAction) -> None:
        """An action waits; one that does already keeps its place."""
        for place, one in enumerate(self.held):
            if one.action_id == held.action_id:
                self.nbytes += held.nbytes - one.nbytes
                self.held[place] = held
                return
        self.held.append(held)
        self.nbytes += held.nbytes

    def release(self, action_id: str) -> None:
        """An action waits no more; nothing if it did not."""
        for held in [one for one in self.held if one.action_id == action_id]:
            self.held.remove(held)
            self.nbytes -= held.nbytes

    # The journal written anew

    def pack(self, user_id: str) -> PackedRuleState:
        """For the journal: bytes of its own, as what is here goes on changing."""
        fired = [Firings(one.rule, one.slot, list(one.times_ms), one.until_ms) for one in self.fired.values()]
        return PackedRuleState(user_id, fired, list(self.open), list(self.held), self.awaited_ms)

    @classmethod
    def unpack(cls, packed: PackedRuleState) -> RuleState:
        """As it was packed."""
        state = cls()
        state.awaited_ms = packed.awaited_ms
        for firings in packed.fired:
            for at_ms in firings.times_ms:
                state.fire(firings.rule, firings.slot, at_ms, len(firings.times_ms), firings.until_ms)
        for opening in packed.open:
            state.begin(opening)
        for held in packed.held:
            state.hold(held)
        return state

    def public(self) -> dict[str, Any]:
        """As an inspection shows it; times in ms."""
        cooldowns = [one for one in self.fired.values() if one.slot != CAP]
        return {
            "cooldowns": sorted(
                ({"rule": one.rule, "key": _key_of(one.slot), "fired_at": one.times_ms[-1]} for one in cooldowns),
                key=lambda shown: (str(shown["rule"]), str(shown["key"])),
            ),
            "caps": sorted(
                ({"rule": one.rule, "fired_at": one.times_ms} for one in self.fired.values() if one.slot == CAP),
                key=lambda shown: str(shown["rule"]),
            ),
            "sequences": [
                {"rule": one.rule, "event_id": one.event_id, "begun_at": one.begun_ms, "ends_at": one.end_ms}
                for one in sorted(self.open, key=lambda one: (one.end_ms, one.event_id, one.rule))
            ],
            "held": [
                {
                    "rule": one.rule,
                    "action": orjson.loads(one.action)["name"],
                    "event_id": one.event_id,
                    "until": one.until_ms,
                }
                for one in self.held
            ],
        }


NOTHING: Final = RuleState()  # of users without rule state; never changed


def cooldown_slot(key: str | None) -> str:
    """Where the firings of one value of a cooldown's key are."""
    return COOLDOWN if key is None else f"{COOLDOWN}:{short(key)}"


def _key_of(slot: str) -> str | None:
    return slot.partition(":")[2] or None


def short(text: str) -> str:
    """A text, or its hash if it is long."""
    return text if len(text) <= _LONG_TEXT else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# Whether a rule may fire


def cools_down(state: RuleState, rule: Rule, key: str | None, at_ms: int) -> bool:
    """Whether the rule's cooldown stops a firing at ``at_ms``."""
    if rule.cooldown is None:
        return False
    firings = state.fired.get((rule.name, cooldown_slot(key)))
    return firings is not None and at_ms < firings.times_ms[-1] + rule.cooldown.time.ms


def is_capped(state: RuleState, rule: Rule, profile: dict[str, Any], at_ms: int) -> bool:
    """Whether the rule's cap stops a firing at ``at_ms``."""
    if rule.cap is None:
        return False
    firings = state.fired.get((rule.name, CAP))
    if firings is None or len(firings.times_ms) < rule.cap.count:
        return False
    if rule.cap.window is not None:
        since_ms = at_ms - rule.cap.window.ms + 1
    else:
        since_ms = period_start_ms(at_ms, _per(rule.cap), zone_for(rule.time_zone, profile))
    return firings.times_ms[-rule.cap.count] >= since_ms


def firings_of(
    rule: Rule, profile: dict[str, Any], key: str | None, at_ms: int, lateness_ms: int
) -> list[tuple[str, int, int]]:
    """What has to be remembered of a firing at ``at_ms``: slot, how many to keep, and until when."""
    kept = []
    if rule.cooldown is not None:
        kept.append((cooldown_slot(key), 1, at_ms + rule.cooldown.time.ms + lateness_ms))
    if rule.cap is not None and rule.cap.window is not None:
        kept.append((CAP, rule.cap.count, at_ms + rule.cap.window.ms + lateness_ms))
    elif rule.cap is not None:
        end_ms = period_end_ms(at_ms, _per(rule.cap), zone_for(rule.time_zone, profile))
        kept.append((CAP, rule.cap.count, end_ms + _ZONES_APART_MS + lateness_ms))
    return kept


def _per(cap: Cap) -> Any:
    return cap.per


def zone_for(time_zone: TimeZone, profile: dict[str, Any]) -> Any:
    """The user's time zone, or the default."""
    named = None if time_zone.profile_field is None else profile.get(time_zone.profile_field)
    return zone_of(named) or zone_of(time_zone.default)


def has_bad_zone(time_zone: TimeZone, profile: dict[str, Any]) -> bool:
    """Whether the profile names a time zone that there is not."""
    named = None if time_zone.profile_field is None else profile.get(time_zone.profile_field)
    return named is not None and zone_of(named) is None


# Sequences


def match_of(path: str | None, event: Event) -> str | None:
    """The value that both events of a sequence must have, as text; None if the event lacks it."""
    if path is None:
        return ""
    value: Any = event.fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return None if value is None else short(orjson.dumps(_canonical(value), option=orjson.OPT_SORT_KEYS).decode())


def _canonical(value: Any) -> Any:
    """Equal JSON values look equal: 1 and 1.0 are the same number."""
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**63 else value
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    return value


def followed_by(state: RuleState, rule: Rule, match: str, at_ms: int) -> list[OpenSequence]:
    """The open sequences of a rule that an event at ``at_ms`` follows."""
    return [
        one
        for one in state.open
        if one.rule == rule.name and one.match == match and one.begun_ms <= at_ms <= one.end_ms
    ]


def over(state: RuleState, stream_ms: int) -> list[OpenSequence]:
    """Open sequences whose time is over, in the order in which they are settled."""
    due = [one for one in state.open if one.due_ms <= stream_ms]
    return sorted(due, key=lambda one: (one.end_ms, one.begun_ms))


def make_opening(rule: Rule, match: str, event: Event, key: str | None, lateness_ms: int) -> OpenSequence:
    """What ``event`` begins."""
    sequence = rule.sequence
    if sequence is None:
        raise ValueError(f"rule {rule.name} has no sequence")
    end_ms = event.timestamp_ms + sequence.within.ms
    fields = b"" if sequence.not_followed_by is None else orjson.dumps(event.fields)
    return OpenSequence(rule.name, match, event.event_id, event.timestamp_ms, end_ms, end_ms + lateness_ms, key, fields)
