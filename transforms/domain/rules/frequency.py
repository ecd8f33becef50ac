"""How often a rule or a group may fire: whether a cooldown or a cap stops it, and how long a firing is remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from zoneinfo import ZoneInfo

from transforms.domain.base.calendar import period_end_ms, period_start_ms
from transforms.domain.rules.firings import Slot
from transforms.domain.rules.model import Cap, Rule
from transforms.domain.rules.state import CAP, COOLDOWN, RuleState

# The two times of a firing.
EVENT_TIME: Final = "event time"
RECORD_TIME: Final = "record time"

_LONG_TEXT: Final = 64
# Users move: the same day ends 26 hours later on the other side of the date line.
_ZONES_APART_MS: Final = 26 * 3600 * 1000

Zone = Callable[[], ZoneInfo]  # looked up only where a calendar is asked


def cooldown_slot(key: str | None) -> str:
    """The slot of a cooldown, or of one value of its key."""
    return COOLDOWN if key is None else f"{COOLDOWN}:{short(key)}"


def short(text: str) -> str:
    """A text, or the hash of a text of more than 64 characters."""
    return text if len(text) <= _LONG_TEXT else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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


def caps(state: RuleState, rule: Rule, zone: Zone, at_ms: int, received_ms: int) -> str | None:
    """The time by which the rule's cap stops a firing: ``EVENT_TIME`` or ``RECORD_TIME``; None: it does not."""
    if rule.cap is None:
        return None
    return cap_stops(state.fired.get((rule.name, CAP)), rule.cap, zone, at_ms, received_ms)


def cap_stops(slot: Slot | None, cap: Cap, zone: Zone, at_ms: int, received_ms: int) -> str | None:
    """The time by which a cap stops a firing beside those of its slot, as in ``caps``."""
    count = cap.count
    if slot is None or len(slot.times_ms) < count:
        return None
    from_ms, last_ms = _counted_from_ms(cap, zone, at_ms), slot.received_ms[-count]
    if slot.times_ms[-count] >= from_ms:
        return EVENT_TIME
    if last_ms < from_ms and at_ms <= received_ms:  # less to compute: a later time counts from no earlier on
        return None
    return RECORD_TIME if last_ms >= _counted_from_ms(cap, zone, received_ms) else None


def _counted_from_ms(cap: Cap, zone: Zone, at_ms: int) -> int:
    """From when on the firings count that may stop one at ``at_ms``."""
    return at_ms - cap.window.ms + 1 if cap.window is not None else period_start_ms(at_ms, _per(cap), zone())


def firings_of(
    rule: Rule, zone: Zone, key: str | None, latest_ms: int, lateness_ms: int
) -> Iterator[tuple[str, int, int]]:
    """What rule state keeps of a firing; ``latest_ms`` is the later of its two times.

    Yields:
        For each slot: its name, how many firings the rule counts, and the stream time until which this one is kept, ms.
    """
    if rule.cooldown is not None:
        yield cooldown_slot(key), 1, latest_ms + rule.cooldown.time.ms + lateness_ms
    if rule.cap is not None:
        yield CAP, rule.cap.count, kept_until_ms(rule.cap, zone, latest_ms) + lateness_ms


def kept_until_ms(cap: Cap, zone: Zone, latest_ms: int) -> int:
    """Until when a cap looks at a firing whose later time is ``latest_ms``, without lateness."""
    if cap.window is not None:
        return latest_ms + cap.window.ms
    return period_end_ms(latest_ms, _per(cap), zone()) + _ZONES_APART_MS


def _per(cap: Cap) -> Any:
    return cap.per
