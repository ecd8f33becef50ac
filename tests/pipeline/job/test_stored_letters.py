"""Which dead letters are meant, and the markers of those that were sent again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pipeline.job.stored_letters import LetterFilter, redriven_ids, redriven_marker, stored_letters
from tests.pipeline.job.letters import EVENT, LOST, StoredRecord, stored
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.events.letter_signature import letter_id


@pytest.mark.parametrize(
    ("selected", "matches"),
    [
        (LetterFilter(), True),
        (LetterFilter(reasons=["not_json", "undelivered"]), True),
        (LetterFilter(reasons=["not_json"]), False),
        (LetterFilter(rules=["r"], destinations=["crm"]), True),
        (LetterFilter(rules=["q"], destinations=["crm"]), False),
        (LetterFilter(rules=["r"], destinations=["ads"]), False),
        (LetterFilter(since_ms=100, until_ms=101), True),
        (LetterFilter(since_ms=101), False),
        (LetterFilter(until_ms=100), False),
    ],
)
def test_all_criteria_of_a_filter_have_to_match(selected: LetterFilter, matches: bool) -> None:
    assert selected.matches(stored()) is matches


def test_a_letter_without_action_has_no_destination_and_its_key_is_the_user() -> None:
    assert (stored(EVENT).destination, stored(EVENT).user) == (None, "\ufffd")
    assert stored(replace(EVENT, key=None)).user is None
    assert not LetterFilter(destinations=["crm"]).matches(stored(EVENT))


def test_places_select_letters() -> None:
    assert LetterFilter(places=[(0, 5)]).matches(stored())
    assert not LetterFilter(places=[(5, 0), (0, 6)]).matches(stored())


def test_a_marker_is_no_letter_and_says_when_the_letter_was_sent_again() -> None:
    records = [StoredRecord(LOST.to_json()), StoredRecord(redriven_marker(stored(), 77)), StoredRecord(b"none")]
    unreadable: list[str] = []
    assert [letter.letter for letter in stored_letters(records, unreadable)] == [LOST]
    assert [text.partition(":")[0] for text in unreadable] == ["0/0"]
    assert redriven_ids(records) == {letter_id(LOST): 77}


@pytest.mark.parametrize(
    "value",
    [b'{"redriven":7,"letter":"0/1","time":1}', b'{"redriven":"x"}', b'{"redriven":' + b"[" * 100_000, b'{"redriven":'],
)
def test_a_record_that_only_begins_as_a_marker_is_none(value: bytes) -> None:
    unreadable: list[str] = []
    assert redriven_ids([StoredRecord(value)]) == {}
    assert list(stored_letters([StoredRecord(value)], unreadable)) == []
    assert len(unreadable) == 1


def test_copies_of_a_letter_have_its_id_and_another_attempt_has_another() -> None:
    assert (
        letter_id(DeadLetter.of_json(LOST.to_json())) == letter_id(replace(LOST, signature="v1,x")) == letter_id(LOST)
    )
    assert len({letter_id(letter) for letter in (LOST, EVENT, replace(EVENT, offset=8))}) == 3
