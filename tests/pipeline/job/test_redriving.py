"""Which dead letters are sent again, and where to, whoever wrote them."""

from __future__ import annotations

import json

import orjson
import pytest
from msgspec.structs import replace

from pipeline.job.redrive_view import plan_document, plan_lines, result_lines
from pipeline.job.redriving import ACTIONS, EVENTS, Redrive, RedriveSettings, Route, SkippedError, route
from pipeline.job.stored_letters import LetterFilter
from pipeline.kafka.topics import TopicError
from pipeline.kafka.transactional_writer import TopicRecord
from tests.pipeline.job.letters import EVENT, KEYS, LOST, SIGNER, LetterTopic, settings_of
from transforms.domain.events.dead_letter import FAILS_AGAIN, STAGES, DeadLetter
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.webhooks.redrive import read_redrive

OTHER = LetterSigner(lambda: (b"x" * 32,))


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> LetterTopic:
    return LetterTopic().use(monkeypatch)


# Where a letter goes


def test_an_action_goes_to_the_control_topic_by_its_user_with_the_operator_s_signature() -> None:
    target = route(LOST, settings_of(), 2)
    assert (target.kind, target.record.topic, target.record.partition) == (ACTIONS, "control", None)
    assert target.record.key == "ü".encode()
    record = orjson.loads(target.record.value)
    assert record.pop("signature").startswith("v1,")
    assert record == {
        "redrive": "ü",
        "action": {
            "action_id": "0" * 32,
            "rule": "r",
            "rule_version": 2,
            "action": "webhook",
            "destination": "crm",
            "user_id": "ü",
            "event_id": "e",
            "body": "Ym9keQ==",
            "decided_ms": 5,
            "attempts": 3,
            "status": 400,
        },
    }
    assert read_redrive(target.record.value, 1, SIGNER)[0] == "ü"


def test_an_action_of_a_known_event_goes_there_too() -> None:
    queue_full = replace(LOST, reason="delivery_queue_full", topic="events", partition=0, offset=1, value=b"{}")
    assert route(queue_full, settings_of(), 2).kind == ACTIONS


@pytest.mark.parametrize(
    "reason", [reason for reason, stage in STAGES.items() if stage in ("input", "rule") and reason not in FAILS_AGAIN]
)
def test_an_event_goes_where_it_was_as_it_was(reason: str) -> None:
    letter = replace(EVENT, reason=reason)
    expected = Route(EVENTS, TopicRecord("events", 1, b"\xff", b"\x00event"))
    assert route(letter, settings_of(control_topic=None), 2) == expected


@pytest.mark.parametrize(
    ("letter", "cause"),
    [
        (replace(EVENT, reason="bad_control_record", topic="control"), "control records, which are not redriven"),
        (replace(EVENT, reason="rule_state_full", topic="", partition=-1), "decided by a timer"),
        (replace(EVENT, topic="gone"), "of another topic than the events topic 'events'"),
        (replace(EVENT, topic="control", partition=0), "of another topic"),
        (replace(EVENT, partition=2), "of a partition that the events topic 'events' does not have"),
        (replace(EVENT, partition=-1), "of a partition"),
        (replace(EVENT, reason="of_tomorrow"), "of a reason that this release does not know"),
        (replace(EVENT, reason="undelivered"), "of a reason"),
        (replace(EVENT, reason="not_json"), "reason not_json: the same bytes would fail again"),
        (replace(LOST, reason="action_too_large"), "reason action_too_large: the same"),
        (replace(LOST, rule="Not A Name"), "actions that no job would take"),
        (replace(LOST, rule=None), "actions of an unknown rule"),
        (replace(LOST, cut=True), "too long"),
        (replace(EVENT, cut=True), "too long"),
    ],
)
def test_a_letter_that_is_not_sent_again_has_a_cause(letter: DeadLetter, cause: str) -> None:
    with pytest.raises(SkippedError, match=cause):
        route(letter, settings_of(), 2)


# Whose letters are sent


@pytest.mark.parametrize("reason", [*STAGES, "of_tomorrow"])
@pytest.mark.parametrize("signer", [SIGNER, LetterSigner()], ids=["key", "no key"])
@pytest.mark.parametrize("forger", [LetterSigner(), OTHER], ids=["unsigned", "other key"])
def test_forged_letters_of_every_reason_write_nothing(
    topic: LetterTopic, reason: str, signer: LetterSigner, forger: LetterSigner
) -> None:
    forged = [replace(letter, reason=reason) for letter in (EVENT, LOST, replace(EVENT, topic="control", partition=0))]
    topic.add(*map(forger.signed, forged))
    plan, result = topic.redrive(signer=signer)
    assert (topic.written, result.sent, plan.counts) == ([], {}, {})
    assert plan.skipped.total() == 3


FIELDS = {
    "reason": "delivery_queue_full",
    "topic": "control",
    "partition": 0,
    "offset": 8,
    "key": b"v",
    "value": b"other",
    "rule": "q",
    "cut": True,
    "detail": "other",
    "timestamp_ms": 10,
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_letter_with_another_field_than_was_signed_writes_nothing(topic: LetterTopic, name: str) -> None:
    topic.add(*(replace(SIGNER.signed(letter), **{name: FIELDS[name]}) for letter in (EVENT, LOST)))
    plan, _ = topic.redrive()
    assert (topic.written, plan.skipped.total()) == ([], 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "aGVsbG8="},
        {"destination": "ads"},
        {"user_id": "v"},
        {"action_id": "1" * 32},
        {"rule_version": 3},
        {"event_id": "f"},
    ],
    ids=str,
)
def test_an_action_with_another_field_than_was_signed_writes_nothing(
    topic: LetterTopic, fields: dict[str, object]
) -> None:
    letter = orjson.loads(SIGNER.signed(LOST).to_json())
    topic.records.append(orjson.dumps({**letter, "action": letter["action"] | fields}))
    plan, _ = topic.redrive()
    assert (topic.written, plan.skipped) == ([], {"bad signature: the job may not have written it": 1})


MALFORMED = [
    {"partition": "0"},
    {"partition": 10**4000},
    {"offset": None},
    {"topic": ["events"]},
    {"value": "§"},
    {"value": None},
    {"key": 7},
    {"action": "crm"},
    {"action": {"body": "aGk="}},
    {"reason": 1},
    {"cut": "no"},
    {"signature": 7},
    {"rule": "r" * 5_000_000},
    {"value": "QUFB" * 3_000_000},
    {"detail": "\ud800"},
]


@pytest.mark.parametrize("fields", MALFORMED, ids=lambda fields: str(fields)[:30])
def test_malformed_and_huge_letters_write_nothing_and_do_not_end_the_command(
    topic: LetterTopic, fields: dict[str, object]
) -> None:
    for letter in (EVENT, LOST):
        topic.records.append(json.dumps({**orjson.loads(SIGNER.signed(letter).to_json()), **fields}).encode())
    topic.records += [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"reason": "undelivered"}']
    plan, result = topic.redrive()
    assert (topic.written, result.sent) == ([], {})
    assert plan.skipped.total() + len(plan.unreadable) == 8
    assert all(len(line) < 5000 for line in plan_lines(plan))


def test_a_field_of_a_later_release_is_no_reason_to_distrust_a_letter(topic: LetterTopic) -> None:
    topic.records.append(orjson.dumps({**orjson.loads(SIGNER.signed(EVENT).to_json()), "of_tomorrow": 1}))
    assert topic.redrive()[1].sent == {EVENTS: 1}


def test_a_letter_of_the_older_key_is_sent_and_one_of_a_removed_key_is_not(topic: LetterTopic) -> None:
    topic.add(LetterSigner(lambda: KEYS[1:]).signed(EVENT), LetterSigner(lambda: KEYS[:1]).signed(LOST))
    plan, result = topic.redrive(signer=LetterSigner(lambda: KEYS[:1]))
    assert result.sent == {ACTIONS: 1}
    assert plan.skipped == {"bad signature: the job may not have written it": 1}
    assert topic.redrive()[1].sent == {EVENTS: 1}


def test_unsigned_letters_are_sent_when_the_operator_accepts_them_and_shown_as_such(topic: LetterTopic) -> None:
    topic.add(EVENT, OTHER.signed(LOST))
    plan, result = topic.redrive(accept_unsigned=True)
    assert result.sent == {ACTIONS: 1, EVENTS: 1}
    lines = list(plan_lines(plan))
    assert lines[0] == "would be sent: 1 actions, 1 events"
    assert set(lines[1:]) == {
        "      1  key_mismatch  unsigned  topic events",
        "         0/0  user \ufffd  \\x00event",
        "      1  undelivered  bad signature  webhook to crm, through topic control",
        "         0/1  user ü  body",
    }


def test_without_keys_a_signature_is_not_checked(topic: LetterTopic) -> None:
    topic.add(SIGNER.signed(EVENT))
    plan, _ = topic.redrive(signer=LetterSigner())
    assert plan.skipped == {"signature not checked: the job may not have written it": 1}


def test_what_is_shown_controls_no_terminal(topic: LetterTopic) -> None:
    poison = "\x1b[2J\x9b1m\u202e\u200b\x7f\r\n"
    topic.add(
        replace(EVENT, key=poison.encode(), value=poison.encode()),
        replace(EVENT, topic=poison),
        replace(EVENT, reason=poison),
    )
    plan, result = topic.redrive(accept_unsigned=True)
    lines = [*plan_lines(plan), *result_lines(result)]
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)


# Once


def test_a_letter_that_was_redriven_is_skipped_unless_told(topic: LetterTopic) -> None:
    topic.add(*map(SIGNER.signed, (EVENT, LOST, EVENT)))
    plan, result = topic.redrive()
    assert (result.sent, plan.skipped) == ({ACTIONS: 1, EVENTS: 1}, {"copies of a letter that is sent": 1})
    plan, result = topic.redrive()
    assert (result.sent, plan.skipped) == ({}, {"redriven before": 3})
    assert len(topic.written) == 2
    topic.add(SIGNER.signed(replace(EVENT, offset=99)))
    assert topic.redrive()[1].sent == {EVENTS: 1}
    assert topic.redrive(again=True)[1].sent == {ACTIONS: 1, EVENTS: 2}


def test_what_is_planned_is_sent_and_nothing_that_comes_later(
    topic: LetterTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic.add(SIGNER.signed(EVENT))
    redrive = Redrive({}, settings_of(), LetterFilter())
    plan = redrive.plan()
    topic.add(SIGNER.signed(LOST))
    assert redrive.send(plan, topic).sent == {EVENTS: 1}


def test_letters_go_in_groups_and_one_that_is_refused_takes_no_others_along(topic: LetterTopic) -> None:
    letters = [SIGNER.signed(replace(EVENT, offset=number, value=b"%d" % number)) for number in range(150)]
    topic.add(*letters)
    topic.refused = {b"7"}
    _, result = topic.redrive()
    assert (result.sent, result.failed, str(result)) == ({EVENTS: 149}, {"too large": 1}, "149 sent, 1 failed")
    assert topic.groups == 102
    assert [record.value for record in topic.written] == [b"%d" % number for number in range(150) if number != 7]
    assert topic.redrive()[1].failed == {"too large": 1}


def test_a_redrive_that_is_stopped_says_what_was_sent(topic: LetterTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    topic.add(*(SIGNER.signed(replace(EVENT, offset=number)) for number in range(150)))
    write = topic.write

    def fails_later(records: list[TopicRecord]) -> str | None:
        if topic.groups:
            raise TopicError("another one has begun")
        return write(records)

    monkeypatch.setattr(topic, "write", fails_later)
    plan, result = topic.redrive()
    assert (result.sent, result.stopped) == ({EVENTS: 100}, "another one has begun")
    assert plan_document(plan, result)["stopped"] == "another one has begun"


def test_a_limit_and_a_filter_select_what_is_planned_and_sent(topic: LetterTopic) -> None:
    topic.add(*(SIGNER.signed(replace(EVENT, offset=number)) for number in range(5)))
    plan, result = topic.redrive(LetterFilter(places=[(0, 1), (0, 2), (0, 3)]), limit=2)
    assert (plan.of_kind(EVENTS), result.sent) == (2, {EVENTS: 2})


def test_events_that_only_a_rule_failed_on_may_be_duplicates(topic: LetterTopic) -> None:
    topic.add(SIGNER.signed(replace(EVENT, reason="rule_error")), SIGNER.signed(EVENT))
    assert topic.redrive()[0].may_be_duplicates == 1


def test_a_dry_run_says_that_nothing_was_sent() -> None:
    assert list(result_lines(None)) == ["nothing was sent: --execute sends it"]


def test_actions_without_a_control_topic_are_skipped(topic: LetterTopic) -> None:
    topic.add(SIGNER.signed(LOST))
    settings: dict[str, object] = {"control_topic": None}
    assert topic.redrive(**settings)[0].skipped == {"actions, which need --control_topic": 1}
    assert RedriveSettings("letters", "events", None).signer.has_keys is False
