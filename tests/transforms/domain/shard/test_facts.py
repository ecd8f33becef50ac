from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from transforms.domain.events.record import Record
from transforms.domain.rules.firings import Firings
from transforms.domain.rules.state import HeldAction, OpenSequence, PackedRuleState
from transforms.domain.shard import facts
from transforms.domain.shard.facts import (
    NEWEST_FACT,
    ActionHeld,
    ActionReleased,
    DeliveryQueued,
    DeliveryRescheduled,
    DeliverySettled,
    DestinationSwitched,
    EventObserved,
    EventParked,
    EventsUnparked,
    Fact,
    FiringsExpired,
    FiringsForgotten,
    GroupForgotten,
    HistoryCut,
    HistoryRowDropped,
    IdleUsersForgotten,
    LedgerRead,
    PackedParkedEvents,
    ProfileWaitSet,
    RuleFired,
    RuleSetReplaced,
    SequenceBegun,
    SequenceEnded,
    SuppressionEnded,
    SuppressionSet,
    UserForgotten,
    UserLoaded,
    UserMoved,
    UserSeen,
    UserUpdated,
    decode_facts,
)
from transforms.domain.shard.journal_elements import JournalEntry, decode_element, make_entry
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.users.history import Row
from transforms.domain.users.user import PackedUser
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import Delivery, PackedDeliveryQueue

VISIT = Visit("v", 3, 1, True, True)
RECORD = Record(1, 2, 3, b"u1", b"{}")
SEQUENCE = OpenSequence("cart", "m", "e1", 10, 20, 30, "k", b'{"event_id":"e1"}')
HELD = HeldAction("night", 2, b'{"type":"debug"}', "a1", "e1", 40, "Europe/Berlin", b"{}", 3, 9)
DELIVERY = Delivery("a2", "shop", "cart", 1, "call", "e1", b"{}", 5, 6, 1, 2, 7, 503, "503: busy")
USER = PackedUser("u1", 6, "fetched", b"{}", VISIT, (0, 0, b""), 4, 5)
PARKED = PackedParkedEvents(50, [("t", RECORD)], "u1")
RULE_STATE = PackedRuleState("u1", [Firings("cart", "cap", [1, 2], 50)], [SEQUENCE], [HELD], 60)
OF_GROUP = {"received_ms": 30, "due_ms": 90, "key": "k", "is_counted": False, "group": "marketing", "group_zone": "UTC"}
CANDIDATE = msgspec.structs.replace(HELD, **OF_GROUP, until_ms=0, decided_ms=31, expires_ms=400)
SHARED = Firings("marketing", "group", [1, 2], 50)
OF_GROUPS = PackedRuleState("u1", [SHARED], [], [CANDIDATE], 0, {"marketing": 80, "*": 0})
EXPIRES = msgspec.structs.replace(DELIVERY, expires_ms=400, group="marketing")

# Journal entries that the last release with facts as tuples wrote: one of each kind, and short forms of older ones.
# Kinds that came later were added as that release would have written them.
# State that is out there looks like this: never change the file, add to it.
GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "facts.json").read_text())
WRITTEN: dict[str, Fact] = {
    "OBSERVED, visit changed": EventObserved("u1", Row(5, "e1", "n", {"x": [1, None]}), VISIT),
    "OBSERVED, visit unchanged": EventObserved("u1", Row(5, "e1", "n"), None),
    "LOADED": UserLoaded("u1", "fetched", b'{"a":1}', VISIT, [Row(1, "e0", "n", None, True)]),
    "LOADED, nothing known": UserLoaded("u1", "pending", b"{}", None, []),
    "PARKED": EventParked("u1", 99, "t", RECORD),
    "PARKED, no key": EventParked("u1", 99, "t", Record(1, 2, 3, None, b"")),
    "UNPARKED": EventsUnparked("u1"),
    "SWEPT": IdleUsersForgotten(17),
    "FORGOTTEN, without the flag": UserForgotten("u1"),
    "FORGOTTEN, all of it": UserForgotten("u1", True),
    "UPDATED": UserUpdated("u1", "fetched", b'{"b":2}', VISIT, [Row(2, "e4", "n", None, True)]),
    "UPDATED, no answer": UserUpdated("u1", None, b"{}", None, []),
    "TOUCHED": UserSeen("u1"),
    "DROPPED": HistoryRowDropped("u1", "e0"),
    "CUT": HistoryCut("u1", 20),
    "MOVED, all stores": UserMoved(USER, PARKED, RULE_STATE, PackedDeliveryQueue("u1", [DELIVERY])),
    "MOVED, two fields": UserMoved(USER, PARKED),
    "MOVED, three fields": UserMoved(None, None, RULE_STATE),
    "MOVED, of groups": UserMoved(None, None, OF_GROUPS, PackedDeliveryQueue("u1", [EXPIRES])),
    "HELD, a candidate": ActionHeld("u1", CANDIDATE),
    "QUEUED, expires": DeliveryQueued("u1", EXPIRES),
    "FIRED": RuleFired("u1", "cart", "cap", 10, 3, 50),
    "BEGUN": SequenceBegun("u1", SEQUENCE),
    "ENDED": SequenceEnded("u1", "cart", "e1", "m"),
    "HELD": ActionHeld("u1", HELD),
    "RELEASED": ActionReleased("u1", "a1"),
    "AWAITED": ProfileWaitSet("u1", 60),
    "LAPSED": FiringsExpired("u1", 70),
    "RULES": RuleSetReplaced(3, b'{"rules":{}}'),
    "UNFIRED": FiringsForgotten("u1", "cart", "cooldown:k"),
    "SUPPRESSED": SuppressionSet("u1", "marketing", 80),
    "UNSUPPRESSED": SuppressionEnded("u1", "marketing"),
    "GROUP GONE": GroupForgotten("marketing"),
    "QUEUED": DeliveryQueued("u1", DELIVERY),
    "RESCHEDULED": DeliveryRescheduled("u1", DELIVERY),
    "SETTLED": DeliverySettled("u1", "a2"),
    "SWITCHED": DestinationSwitched("shop", False),
    "LEDGER": LedgerRead("deliveries", 17),
}


def test_there_are_golden_bytes_of_every_kind() -> None:
    assert {type(fact) for fact in WRITTEN.values()} == set(Fact.__subclasses__())
    assert {fact.__struct_config__.tag for fact in WRITTEN.values()} == set(range(NEWEST_FACT + 1))
    assert GOLDEN.keys() == WRITTEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_a_fact_of_the_release_with_tuples_is_read(name: str) -> None:
    entry = decode_element(bytes.fromhex(GOLDEN[name]))
    assert isinstance(entry, JournalEntry)
    batch = entry.read_facts()
    assert (batch.now_ms, batch.facts) == (7, [WRITTEN[name]])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_fact_is_written_as_by_the_release_with_tuples_and_longer_at_its_ends_only(name: str) -> None:
    golden, written = bytes.fromhex(GOLDEN[name]), make_entry(7, [WRITTEN[name]]).stored or b""
    assert (golden[:3], written[:3]) == (b"E\x01\x00", b"E\x02\x00")  # not compressed
    assert _begins_with(msgspec.msgpack.decode(written[3:]), msgspec.msgpack.decode(golden[3:]))


def _begins_with(written: Any, golden: Any) -> bool:
    """Whether arrays are those of before or have more at their end, at every level."""
    if not isinstance(written, list) or not isinstance(golden, list):
        return bool(written == golden)
    return len(written) >= len(golden) and all(map(_begins_with, written, golden))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([NEWEST_FACT + 1, "u1"], "journal fact 28: this worker knows 0 to 27; the state is of a newer release"),
        ([3, "u1", "more"], r"journal fact: Expected `array` of at most length.*of a newer release"),
        ([3, 1], r"journal fact: Expected `str`"),
    ],
)
def test_a_fact_of_a_newer_release_is_refused(stored: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_facts(msgspec.msgpack.encode((7, [[3, "u1"], stored])))


def test_firings_and_sequences_of_an_earlier_release_have_the_event_time_as_record_time() -> None:
    entry = decode_element(bytes.fromhex(GOLDEN["MOVED, all stores"]))
    assert isinstance(entry, JournalEntry)
    state = ShardState(100)
    state.apply(7, entry.read_facts().facts[0])
    state.apply(7, RuleFired("u1", "cart", "cooldown", 10, 1, 50))
    of_user = state.rule_states.of("u1")
    slots = {name: (slot.times_ms, slot.received_ms, slot.until_ms) for (_, name), slot in of_user.fired.items()}
    assert slots == {"cap": ([1, 2], [1, 2], 50), "cooldown": ([10], [10], 50)}
    assert [sequence.received_ms for sequence in of_user.open] == [SEQUENCE.due_ms]


def test_a_move_names_its_user() -> None:
    for parts in ((USER, None, None), (None, PARKED, None), (None, None, RULE_STATE)):
        assert UserMoved(*parts).user_id == "u1"


def test_facts_grow_by_fields_with_a_default_only() -> None:
    # What the release with tuples wrote, by number: these fields have no default, all that come after them need one.
    required = [3, 5, 4, 1, 1, 1, 5, 1, 2, 2, 2, 6, 2, 4, 2, 2, 2, 2, 2, 3, 2, 2, 2, 2, 3, 2, 1, 2]
    kinds = sorted(Fact.__subclasses__(), key=lambda kind: int(kind.__struct_config__.tag))
    assert [sum(field.required for field in msgspec.structs.fields(kind)) for kind in kinds] == required
    assert facts.FactBatch.__struct_fields__ == ("now_ms", "facts")
