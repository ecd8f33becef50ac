from __future__ import annotations

import random

import pytest

from tests.builders import Elements, MemoryBag, Shard, batch, contents, control, event, fetched, rule
from transforms.domain.events.record import Record
from transforms.domain.shard import journal as journals
from transforms.domain.shard import journal_elements
from transforms.domain.shard.facts import (
    EventObserved,
    EventParked,
    EventsUnparked,
    Fact,
    HistoryCut,
    HistoryRowDropped,
    IdleUsersForgotten,
    LedgerRead,
    PackedParkedEvents,
    UserForgotten,
    UserLoaded,
    UserMoved,
    UserSeen,
    UserUpdated,
)
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.journal_elements import (
    FoldedJournal,
    JournalElement,
    JournalEntry,
    JournalHead,
    decode_element,
    encode_element,
    make_entry,
)
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_input import Answer
from transforms.domain.users.history import Row
from transforms.domain.users.user import PackedUser
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.ledger import LedgerPosition

VISIT = Visit("v", 3, 1, True, True)
RECORD = Record(1, 2, 3, b"u1", b"{}")
# What the first release knew.
FACTS_1: list[Fact] = [
    EventParked("u1", 99, "t", RECORD),
    EventParked("u2", 99, "t", Record(1, 3, 3, None, b"")),
    EventsUnparked("u1"),
    UserLoaded("u1", "fetched", b'{"a":1}', VISIT, [Row(1, "e0", "n", {"platform": "web"})]),
    UserLoaded("u3", "unknown", b"{}", None, []),
    EventObserved("u1", Row(5, "e1", "n"), Visit("w", 5, 0, False)),
    EventObserved("u1", Row(4, "e2", "n", {"x": [1, None]}), None),
    UserLoaded("u4", "unknown", b"{}", None, []),
    UserForgotten("u4"),
    IdleUsersForgotten(1),
]
FACTS: list[Fact] = [
    *FACTS_1,
    UserLoaded("u5", "pending", b"{}", None, []),
    EventObserved("u5", Row(9, "e3", "n"), Visit("e3", 9, 1, False, assumed=True)),
    UserUpdated("u5", "fetched", b'{"b":2}', Visit("v5", 1, 3, True), [Row(2, "e4", "n", None, True)]),
    UserUpdated("u3", None, b"", None, []),
    UserSeen("u3"),
    HistoryRowDropped("u1", "e0"),
    HistoryCut("u1", 20),
    UserMoved(
        PackedUser("u6", 6, "fetched", b"{}", VISIT, (0, 0, b""), 4, 5), PackedParkedEvents(50, [("t", RECORD)], "u6")
    ),
    UserMoved(None, PackedParkedEvents(60, [("t", RECORD)], "u7")),
]


def applied(*facts: Fact) -> ShardState:
    state = ShardState(5)
    for fact in facts:
        state.apply(7, fact)
    return state


def opened(*bags: list[JournalElement]) -> Journal:
    cells = [MemoryBag(map(encode_element, elements)) for elements in bags]
    return Journal([*cells, *(MemoryBag() for _ in range(2 - len(cells)))], 5)


def test_an_entry_survives_the_codec() -> None:
    for text in ("", "x" * 255, "x" * 5000):
        made = make_entry(7, [UserForgotten(text)])
        read = decode_element(encode_element(made))
        assert isinstance(read, JournalEntry)
        assert (read.stored, read.packed_bytes) == (made.stored, made.packed_bytes)
    assert made.packed_bytes > 5000
    assert len(encode_element(made)) < 100  # compressed


def test_a_decoded_head_has_nothing_but_its_generation() -> None:
    head = JournalHead(3)
    head.folded, head.stored_bytes = FoldedJournal(ShardState(5)), 9
    decoded = decode_element(encode_element(head))
    assert isinstance(decoded, JournalHead)
    assert (decoded.generation, decoded.folded, decoded.stored_bytes, decoded.snapshot) == (3, None, 0, b"")


def test_every_fact_is_replayed_as_it_was_applied() -> None:
    journal = opened([JournalHead(1), make_entry(7, FACTS[:5]), make_entry(7, FACTS[5:])])
    state = journal.folded.state
    assert contents(state) == contents(applied(*FACTS))
    assert contents(state) != contents(applied(*FACTS[:-1]))
    assert journal.refolded == 2
    assert state.users["u1"].visit == Visit("w", 5, 0, False)
    assert state.users["u5"].visit == Visit("v5", 1, 3, True)
    assert [row.from_api for row in state.users["u5"].history.rows()] == [True, False]
    assert state.parked["u2"].records == [("t", Record(1, 3, 3, None, b""))]
    assert list(state.users) == ["u6", "u1", "u5", "u3"]
    assert list(state.parked) == ["u6", "u7", "u2"]


# Written by the first release. State that is out there looks like this: never change these, add to them.
GOLDEN_1_HEAD = (
    "48010093019296a2753307a7756e6b6e6f776ec4027b7dc0930000c40096a2753107a766657463686564c4077b2261223a31"
    "7d95a1770500c2c2930305c42a9401a26530a16e81a8706c6174666f726da37765629404a26532a16e81a1789201c09405a2"
    "6531a16ec081a2753292639192a17495010303c0c400"
)
GOLDEN_1_ENTRY = (
    "45010092079a9502a2753163a17495010203c4027531c4027b7d9502a2753263a17495010303c0c4009203a275319601a275"
    "31a766657463686564c4077b2261223a317d95a1760301c3c3919401a26530a16e81a8706c6174666f726da37765629601a2"
    "7533a7756e6b6e6f776ec4027b7dc0909400a275319405a26531a16ec095a1770500c2c29400a275319404a26532a16e81a1"
    "789201c0c09601a27534a7756e6b6e6f776ec4027b7dc0909205a27534920401"
)
# Since journals have two bags.
GOLDEN_2_HEAD = "4802009103"
GOLDEN_2_ENTRY = (
    "45010128b52ffd607900ad0800e6903c2e70c76dfcc7cb7afad7845a2c78457707941a49119e0e5f94aa86621f4355bd1819"
    "d844e4dffe93e0d8414824b2772f0031002f009983167cb1d8901cd205ed88348054a46413fddd8dfe90b69d219cfc9fc5ae"
    "b7a3bf0d9fb3150c89fecf06b4088806ef68addb73c157e789a3fcc746ffd690c9d8f5f6bc4c26c2f40de5efae7ec8cb83c2"
    "c244527124502030132fe43babd159d05996bfd8d4901e967fe2665abb88924fc98fac55300f2253523696bfbbcea195ff43"
    "2b7f77b3ce8e3260ccc4930c0304352b2ac39f6aa6fa386db756af9760f83b28aa40f48fea427ef407a8943f4433b9ed4ce5"
    "892bf9cf6ab4ce020b003b1e4722e9fbaf3196502fd3abd119fed0ca2d60160832a039317aed7402"
)
# Since facts are types.
GOLDEN_3_ENTRY = (
    "45010128b52ffd607e00c5080036513d2e70c76dfcc7cb44f551136ab1e0156d873fa7a740783a7c51aa1a8a7d0c55f56264"
    "a09faa1eff86dd11f1d824b27730003100300059e6a0c6562b461a9246a5b8156940c948cb2772bb1ab9e1d5ae4328713f6a"
    "55ef467e173e47339612b91f0d68118a2b926ce8ff5bb4b1f57dda283ba291bb3574dcaade9d9bcb4498fc99b85dfd89dc3c"
    "282c5c2c194902068233ad43b6a39e0f9f414769ba5a52a431a1b81335fb778b49f6247b41a98279509912f3a1b85d75d0f5"
    "0fee087b70bbeaefee62b09c6903ee03049833a83b84fbf2485804b5db1a56bd0484db81410522f70273c88edc00d8c4adb8"
    "3adeae4f3eed43f6a39e0f0b003d1e4a22e9fdaf3196502fd3abd919fed00a2ee0160832a039317aed7402"
)

GOLDEN_4_ENTRY = (
    "45010128b52ffd60a20065090086d241317035ce01fcc79344f5a1045dd30faad1e292fc687408ed1bf65f624820beb4c3ff"
    "1f38884f4dc8bffd670ed6f8eedf52a63500330034009ddf7d8e7b90a66e568c34248d4ad155240225232d9fc8fdb6c80d5d"
    "db390449dc30b32ad845861d045f96a994c80db3811da0b802bffbff1b6deaf6efb346d99116b9f7c1e952b72ad8cdcd652a"
    "4cfe4cdc6f73baff13b909c0d070b164240b18019c591db29f1650eb70d0a334bd5952a431a1b8139edfe5fedf62923dc95e"
    "68d4c14ca84c89f950dc6f7b88eb1fdc11f6f8f7773954ceac926c44ee05069833327708f7d59130ba1162bb5dac82090837"
    "00464610b917984376e416c0266ec545a96fe71377c2439ff3591fb2030c003d1ed246f2ef208e23c2828abf12aae10b86e2"
    "0c47c3bc9020d4ee39c6bb661e"
)

# Since histories are text.
GOLDEN_5_ENTRY = (
    "45020128b52ffd60a20065090086d241317035ce01fcc79344f5a1045dd30faad1e292fc687408ed1bf65f624820beb4c3ff"
    "1f38884f4dc8bffd670ed6f8eedf52a63500330034009ddf7d8e7b90a66e568c34248d4ad155240225232d9fc8fdb6c80d5d"
    "db390449dc30b32ad845861d045f96a994c80db3811da0b802bffbff1b6deaf6efb346d99116b9f7c1e952b72ad8cdcd652a"
    "4cfe4cdc6f73baff13b909c0d070b164240b18019c591db29f1650eb70d0a334bd5952a431a1b8139edfe5fedf62923dc95e"
    "68d4c14ca84c89f950dc6f7b88eb1fdc11f6f8f7773954ceac926c44ee05069833327708f7d59130ba1162bb5dac82090837"
    "00464610b917984376e416c0266ec545a96fe71377c2439ff3591fb2030c003d1ed246f2ef208e23c2828abf12aae10b86e2"
    "0c47c3bc9020d4ee39c6bb661e"
)

# Since there is a ledger of deliveries: its first position, and the next.
LEDGER_FACTS: list[Fact] = [
    LedgerRead("deliveries", 17),
    UserLoaded("u5", "pending", b"{}", None, []),
    LedgerRead("deliveries", 42),
]
GOLDEN_LEDGER = (
    "450200920793931baa64656c69766572696573119901a27535a770656e64696e67c4027b7dc0900090c0931baa64656c697665726965732a"
)


def test_state_of_the_first_release_is_still_read() -> None:
    head, empty = decode_element(bytes.fromhex(GOLDEN_1_HEAD)), decode_element(bytes.fromhex("480100"))
    entry = decode_element(bytes.fromhex(GOLDEN_1_ENTRY))
    wanted = applied(*FACTS_1)
    replayed = Journal([Elements([empty, entry]), MemoryBag()], 5).folded.state
    assert contents(replayed) == contents(wanted)
    for user in wanted.users.values():  # not in its snapshots
        user.fetched_ms = 0
    restored = Journal([Elements([head]), MemoryBag()], 5).folded.state
    assert contents(restored) == contents(wanted)


def test_state_of_the_releases_with_facts_as_tuples_is_still_read() -> None:
    stored = [bytes.fromhex(GOLDEN_2_HEAD), bytes.fromhex(GOLDEN_2_ENTRY)]
    assert contents(Journal([MemoryBag(stored), MemoryBag()], 5).folded.state) == contents(applied(*FACTS))


def test_state_of_the_release_before_visits_had_ends_is_still_read() -> None:
    stored = [bytes.fromhex(GOLDEN_2_HEAD), bytes.fromhex(GOLDEN_3_ENTRY)]
    assert contents(Journal([MemoryBag(stored), MemoryBag()], 5).folded.state) == contents(applied(*FACTS))


def test_state_of_the_releases_with_histories_as_messagepack_is_still_read() -> None:
    stored = [bytes.fromhex(GOLDEN_2_HEAD), bytes.fromhex(GOLDEN_4_ENTRY)]
    assert contents(Journal([MemoryBag(stored), MemoryBag()], 5).folded.state) == contents(applied(*FACTS))


def test_state_of_this_release_is_read_by_all_that_come() -> None:
    stored = [bytes.fromhex(GOLDEN_2_HEAD), bytes.fromhex(GOLDEN_5_ENTRY)]
    assert stored == [encode_element(JournalHead(3)), encode_element(make_entry(7, FACTS))]
    assert contents(Journal([MemoryBag(stored), MemoryBag()], 5).folded.state) == contents(applied(*FACTS))


def test_the_position_in_the_ledger_of_deliveries_is_read_and_outlives_rewrites() -> None:
    bags = [Elements([decode_element(bytes.fromhex(stored)) for stored in (GOLDEN_2_HEAD, GOLDEN_LEDGER)]), MemoryBag()]
    journal = Journal(bags, 5, compact_bytes=1)
    assert journal.folded.state.ledger == LedgerPosition("deliveries", 42)
    for number in range(200):
        fact = EventObserved("u5", Row(100 + number, f"e{number}", "n", {"note": "x" * 50}), None)
        journal.folded.state.apply(8, fact)
        journal.append(8, [fact])
        assert Journal(bags, 5).folded.state.ledger == LedgerPosition("deliveries", 42)
    assert journal.compactions > 0
    assert encode_element(make_entry(7, LEDGER_FACTS)) == bytes.fromhex(GOLDEN_LEDGER)


def test_a_journal_of_the_first_release_is_carried_on_and_written_anew() -> None:
    bags = [Elements([decode_element(bytes.fromhex(GOLDEN_1_HEAD))]), MemoryBag()]
    journal = Journal(bags, 5, compact_bytes=1)
    for number in range(200):
        fact = EventObserved("u1", Row(100 + number, f"late{number}", "n", {"note": "x" * 50}), None)
        journal.folded.state.apply(8, fact)
        journal.append(8, [fact])
        assert contents(Journal(bags, 5).folded.state) == contents(journal.folded.state)
    assert journal.compactions > 0
    assert not any(isinstance(element, JournalHead) and element.snapshot for bag in bags for element in bag.elements)


@pytest.mark.parametrize(
    "stored", [b"", b"H", b"H\x03\x00", b"E\x00\x00", b"X\x01\x00", b"\x80\x04K\x01."], ids=lambda stored: stored.hex()
)
def test_an_element_of_another_version_is_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match=r"this worker reads H and E of 1 and 2; the state is of a newer release"):
        decode_element(stored)


def test_a_journal_without_its_head_is_refused() -> None:
    with pytest.raises(ValueError, match="journal does not start with a head"):
        opened([make_entry(7, FACTS)])


def test_a_current_view_is_taken_as_it_is() -> None:
    bags = [MemoryBag(map(encode_element, [JournalHead(1), make_entry(7, FACTS)])), MemoryBag()]
    first = Journal(bags, 5)
    second = Journal(bags, 5)
    assert second.folded is first.folded
    assert (first.refolded, second.refolded) == (1, 0)


def test_a_view_that_knows_more_than_the_journal_is_folded_anew() -> None:
    # It is left over from a bundle that failed: its entry was never committed.
    bags = [MemoryBag(), MemoryBag()]
    journal = Journal(bags, 5)
    with journal.changing():
        for facts in (FACTS, [UserForgotten("u1")]):
            for fact in facts:
                journal.folded.state.apply(7, fact)
            journal.append(7, facts)
    bags[0].elements.pop()
    again = Journal(bags, 5)
    assert again.folded is not journal.folded
    assert "u1" in again.folded.state.users
    assert again.refolded == 1


def test_a_view_whose_change_failed_is_folded_anew() -> None:
    bags = [MemoryBag(), MemoryBag()]
    bags[0].add(JournalHead(1))
    bags[0].add(make_entry(7, FACTS))
    with pytest.raises(ZeroDivisionError):
        change_and_fail(Journal(bags, 5))
    assert "u1" in Journal(bags, 5).folded.state.users


def change_and_fail(journal: Journal) -> None:
    with journal.changing():
        journal.folded.state.apply(7, UserForgotten("u1"))
        raise ZeroDivisionError


def test_bytes_that_the_runner_has_are_let_go_and_never_read_again() -> None:
    bags = [MemoryBag(map(encode_element, [JournalHead(1), make_entry(7, FACTS)])), MemoryBag()]
    journal = Journal(bags, 5)
    head, entry = bags[0].elements
    assert isinstance(head, JournalHead)
    assert isinstance(entry, JournalEntry)
    assert entry.stored is None
    assert head.cache_weight_of_bag() == journal.folded.state.nbytes
    with pytest.raises(ValueError, match="written twice"):
        encode_element(entry)
    head.folded = None
    with pytest.raises(ValueError, match="cannot be read a second time"):
        Journal(bags, 5)


def test_the_heads_weigh_for_their_bags() -> None:
    shard = loaded(Shard(rule()), 3)
    (head,) = (element for bag in shard.bags for element in bag.elements if isinstance(element, JournalHead))
    entries = [element for bag in shard.bags for element in bag.elements if isinstance(element, JournalEntry)]
    assert all(entry.stored for entry in entries)
    assert head.cache_weight_of_bag() == shard.state.nbytes + sum(len(entry.stored or b"") for entry in entries)


# Written anew


def loaded(shard: Shard, users: int) -> Shard:
    names = [f"user-{number:04d}" for number in range(users)]
    shard.step(batch(*(event(name) for name in names)))
    shard.step(
        answers=[Answer(name, fetched({"profile": {"n": name}, "visit": None, "history": []})) for name in names]
    )
    return shard


def sizes(shard: Shard) -> list[int]:
    return [sum(map(len, bag.stored)) for bag in shard.bags]


def test_the_journal_moves_from_bag_to_bag_a_few_users_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_CHUNK_BYTES", 2000)
    shard = loaded(Shard(rule(), compact_bytes=1, history_size=5), 10)
    seen: list[tuple[bool, bool]] = []
    largest = 0
    for number in range(500):
        before = [len(bag.stored) for bag in shard.bags]
        shard.step(batch(event(f"user-{number % 10:04d}")))
        added = [
            stored_bytes for bag, count in zip(shard.bags, before, strict=True) for stored_bytes in bag.stored[count:]
        ]
        largest = max(largest, *map(len, added), 0)
        used = (bool(shard.bags[0].stored), bool(shard.bags[1].stored))
        seen += [used] if used not in seen[-1:] else []
        assert contents(restored(shard)) == contents(shard.state)
    # One, both while users move, the other, and so on.
    assert seen[:5] == [(True, False), (True, True), (False, True), (True, True), (True, False)]
    assert largest < 4000


def restored(shard: Shard) -> ShardState:
    return Journal([MemoryBag(bag.stored) for bag in shard.bags], shard.settings.history_size).folded.state


def test_the_journal_stays_in_proportion_to_what_it_amounts_to() -> None:
    shard = loaded(Shard(rule(), history_size=10, compact_bytes=1000), 40)
    for number in range(5000):
        shard.step(batch(event(f"user-{number % 40:04d}")))
        log = sum(shard.journal.folded.log_bytes)
        assert log < 2.6 * shard.state.packed_bytes
    assert sum(sizes(shard)) < 40 * 10 * 200  # wherever the last rewrite began


def test_shards_that_fill_evenly_are_rewritten_at_different_times() -> None:
    random.seed(7)
    shards = [loaded(Shard(rule(), history_size=10, compact_bytes=1000), 40) for _ in range(8)]
    rewritten: dict[int, list[int]] = {which: [] for which in range(8)}
    for number in range(1500):
        for which, shard in enumerate(shards):
            before = bool(shard.bags[0].stored)
            shard.step(batch(event(f"user-{number % 40:04d}", event_id=f"event-{number:04d}")))
            if bool(shard.bags[0].stored) != before:
                rewritten[which].append(number)
    assert len({numbers[0] for numbers in rewritten.values()}) >= 6


def test_a_journal_of_a_few_that_were_many_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_elements, "_COMPRESS_FROM", 10**9)
    shard = loaded(Shard(rule(), compact_bytes=1000, ttl_ms=10_000), 200)
    before = sum(sizes(shard))
    shard.now_ms += 9_000
    shard.step(batch(event("user-0000")))
    shard.step(now_ms=shard.now_ms + 1_000)
    assert list(shard.state.users) == ["user-0000"]
    for _ in range(3):
        shard.step(batch(event("user-0000")))
    assert sum(sizes(shard)) < before / 20


def test_nothing_of_a_forgotten_user_is_left_in_the_bags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_elements, "_COMPRESS_FROM", 10**9)
    monkeypatch.setattr(journals, "_CHUNK_BYTES", 500)
    shard = loaded(Shard(rule(), compact_bytes=1), 20)
    # In the midst of a rewrite, so that it is in both bags.
    while shard.journal.folded.moving is None or "user-0007" in shard.journal.folded.moving:
        shard.now_ms += 1
        shard.step(batch(event("user-0008")))
    shard.step(batch(event("waits")))
    stored = [b"".join(bag.stored) for bag in shard.bags]
    assert all(b"user-0007" in stored_bytes for stored_bytes in stored)
    shard.step(control({"forget": "user-0007"}, {"forget": "waits"}))
    stored = [b"".join(bag.stored) for bag in shard.bags]
    assert b"user-0007" not in b"".join(stored)
    assert b"waits" not in b"".join(stored)
    assert b"user-0008" in b"".join(stored)
    assert contents(restored(shard)) == contents(shard.state)
    assert len(shard.state.users) == 19
