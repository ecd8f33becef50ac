"""Facts: what a step decided, as the journal stores it; one struct a kind.

A fact is stored as a MessagePack array that starts with the kind's number (``tag``). The numbers are in every journal
that was ever written: never reuse one. A fact only grows at its end, by a field with a default.

Facts hold outcomes, never inputs to be computed again: a later release that decides differently must not change what an
old journal says.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Final

import msgspec

from transforms.domain.base import exact_json
from transforms.domain.events.record import Record
from transforms.domain.rules.state import HeldAction, OpenSequence, PackedRuleState
from transforms.domain.users.history import Packed, Row
from transforms.domain.users.user import PackedUser
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import Delivery, PackedDeliveryQueue


class PackedParkedEvents(msgspec.Struct, array_like=True):
    """One user's waiting events in the journal. Fields are only ever added at the end, with a default."""

    deadline_ms: int
    records: list[tuple[str, Record]]
    user_id: str = ""


class Fact(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The base of all facts. A worker must not drop a field that a newer release wrote: unknown fields are an error."""


# Users


class EventObserved(Fact, frozen=True, tag=0):
    """The user's history got a row; ``visit`` None: the visit did not change."""

    user_id: str
    row: Row
    visit: Visit | None


class UserLoaded(Fact, frozen=True, tag=1):
    """The shard got a new user; ``rows``, or ``packed``, are the history that the user API knows.

    ``stream_since_ms`` and ``listed`` are ``UserState``'s.
    """

    user_id: str
    enrichment: str
    profile_json: bytes
    visit: Visit | None
    rows: list[Row]
    stream_since_ms: int = 0
    listed: list[str] = []
    packed: Packed | None = None


class IdleUsersForgotten(Fact, frozen=True, tag=4):
    """Users whose last event came at ``cutoff_ms`` or before lost their state, but not the state of rules."""

    cutoff_ms: int


class UserForgotten(Fact, frozen=True, tag=5):
    """A user lost the user state and the waiting events; with ``everything`` also rule state and deliveries."""

    user_id: str
    everything: bool = False


class UserUpdated(Fact, frozen=True, tag=6):
    """The user API answered for a known user.

    ``enrichment`` None: the request failed and the old profile stays. ``visit`` None: the visit did not change.
    """

    user_id: str
    enrichment: str | None
    profile_json: bytes
    visit: Visit | None
    rows: list[Row]
    listed: list[str] = []


class UserSeen(Fact, frozen=True, tag=7):
    """The user sent an event that changed nothing but the time of the last one."""

    user_id: str


class HistoryRowDropped(Fact, frozen=True, tag=8):
    """The history lost the row of one event."""

    user_id: str
    event_id: str


class HistoryCut(Fact, frozen=True, tag=9):
    """The history lost its oldest rows, until it had at most ``max_bytes``."""

    user_id: str
    max_bytes: int


class UserMoved(Fact, frozen=True, tag=10):
    """Everything that the shard keeps of one user; written when the journal is rewritten. None: nothing is kept."""

    user: PackedUser | None
    parked: PackedParkedEvents | None
    rule_state: PackedRuleState | None = None
    deliveries: PackedDeliveryQueue | None = None

    @property
    def user_id(self) -> str:
        """The user, whose id is in each of the parts."""
        parts = (self.user, self.parked, self.rule_state, self.deliveries)
        return next(part.user_id for part in parts if part is not None)


# Events that wait for the user API


class EventParked(Fact, frozen=True, tag=2):
    """An event waits for the user API's answer, at most until ``deadline_ms``."""

    user_id: str
    deadline_ms: int
    topic: str
    record: Record


class EventsUnparked(Fact, frozen=True, tag=3):
    """The user's events wait no longer."""

    user_id: str


# Rules


class RuleFired(Fact, frozen=True, tag=11):
    """A rule that counts ``keep`` firings fired. The slot keeps this one until the stream is at ``until_ms``.

    Its event time is ``at_ms``, its record time ``lag_ms`` later.
    """

    user_id: str
    rule: str
    slot: str
    at_ms: int
    keep: int
    until_ms: int
    lag_ms: int = 0


class SequenceBegun(Fact, frozen=True, tag=12):
    """An event began a sequence."""

    user_id: str
    sequence: OpenSequence


class SequenceEnded(Fact, frozen=True, tag=13):
    """The sequence of a rule ended; ``event_id`` is the event that began it."""

    user_id: str
    rule: str
    event_id: str
    match: str


class ActionHeld(Fact, frozen=True, tag=14):
    """Quiet hours hold an action: for the first time, or for longer."""

    user_id: str
    action: HeldAction


class ActionReleased(Fact, frozen=True, tag=15):
    """A held action waits no longer."""

    user_id: str
    action_id: str


class ProfileWaitSet(Fact, frozen=True, tag=16):
    """Rule state that is due by ``stream_ms`` waits for the user API's answer; 0: it waits no longer."""

    user_id: str
    stream_ms: int


class FiringsExpired(Fact, frozen=True, tag=17):
    """The firings that were kept until ``stream_ms`` or less were forgotten."""

    user_id: str
    stream_ms: int


class FiringsForgotten(Fact, frozen=True, tag=19):
    """All firings of one slot were forgotten."""

    user_id: str
    rule: str
    slot: str


class SuppressionSet(Fact, frozen=True, tag=24):
    """The user gets nothing of a group, or of any rule (``*``), until ``until_ms``; 0: for good."""

    user_id: str
    group: str
    until_ms: int


class SuppressionEnded(Fact, frozen=True, tag=25):
    """The user gets again what was suppressed under this name."""

    user_id: str
    group: str


class GroupForgotten(Fact, frozen=True, tag=26):
    """The firings of a group that no rule names any more were forgotten, of all users."""

    group: str


class RuleSetReplaced(Fact, frozen=True, tag=18):
    """A rule set became live in the shard; ``record`` is the record of the rules topic."""

    number: int
    record: bytes


# Webhooks


class DeliveryQueued(Fact, frozen=True, tag=20):
    """A webhook joined its user's queue."""

    user_id: str
    delivery: Delivery


class DeliveryRescheduled(Fact, frozen=True, tag=21):
    """A webhook gets another attempt; ``delivery`` is what it is after the last one."""

    user_id: str
    delivery: Delivery


class DeliverySettled(Fact, frozen=True, tag=22):
    """A webhook left its queue: delivered, refused, given up or dropped."""

    user_id: str
    action_id: str


class DestinationSwitched(Fact, frozen=True, tag=23):
    """A destination was enabled or disabled."""

    destination: str
    is_enabled: bool


class LedgerRead(Fact, frozen=True, tag=27):
    """The state has the end of all webhooks whose records in the ledger's topic come before ``offset``."""

    topic: str
    offset: int


# What the decoder has to choose from: every fact above, by its tag.
if TYPE_CHECKING:
    _AnyFact = Fact
else:
    _AnyFact = reduce(or_, Fact.__subclasses__())


class FactBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The facts of one step, all decided at ``now_ms``."""

    now_ms: int
    facts: list[_AnyFact]


NEWEST_FACT: Final = LedgerRead.__struct_config__.tag
_decoder = msgspec.msgpack.Decoder(FactBatch, ext_hook=exact_json.of_msgpack)


def decode_facts(packed: bytes) -> FactBatch:
    """Read the facts of a journal entry.

    Raises:
        ValueError: a fact is of a newer release, or the bytes are no facts.
    """
    try:
        return _decoder.decode(packed)
    except msgspec.ValidationError as error:
        for number, *_ in msgspec.msgpack.decode(packed)[1]:
            if not 0 <= number <= NEWEST_FACT:
                raise ValueError(
                    f"journal fact {number}: this worker knows 0 to {NEWEST_FACT}; the state is of a newer release"
                ) from None
        raise ValueError(f"journal fact: {error}; the state is of a newer release") from None
