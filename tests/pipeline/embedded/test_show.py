"""The lines of an embedded run."""

from __future__ import annotations

import io
import json
import pickle

import pytest

from pipeline.embedded.action_lines import ActionLines
from pipeline.embedded.receivers import destinations_of, stand_in
from pipeline.embedded.show import _show_dead_letter, _ShowActionsFn, show
from tests.builders import rule
from transforms.domain.events.record import encode_produced
from transforms.domain.shard import decisions
from transforms.domain.shard.decisions import Decision

RULES = (
    rule(name="short", actions=[{"type": "debug"}]),
    rule(name="much_longer", actions=[{"type": "kafka", "name": "own", "topic": "t"}, {"type": "kafka"}]),
    rule(name="hook", actions=[{"type": "webhook", "destination": "crm"}]),
)
LINES = ActionLines(RULES, "event-actions")


def fired(rule: str, action: str | None, **fields: str) -> Decision:
    given = {
        "decision": decisions.FIRED,
        "user_id": "user_00012",
        "event_id": "e1",
        "event_name": "page_view",
        **fields,
    }
    return Decision(time=1, rule=rule, action=action, **given)


def test_lines_are_aligned_and_name_the_target() -> None:
    shown = [
        LINES.line(fired(*about))
        for about in (("short", "debug"), ("much_longer", "own"), ("much_longer", "kafka"), ("hook", "webhook"))
    ]
    assert shown == [
        "FIRED short        user_00012    page_view     debug",
        "FIRED much_longer  user_00012    page_view     kafka t",
        "FIRED much_longer  user_00012    page_view     kafka event-actions",
        "FIRED hook         user_00012    page_view     webhook crm",
    ]


def test_held_and_released_actions_are_shown_and_other_decisions_are_not() -> None:
    released = Decision(decision=decisions.RELEASED, time=1, user_id="u", event_id="e1", rule="short", action="debug")
    assert LINES.line(released) == "RELEASED short        u             e1            debug"
    held = LINES.line(fired("short", "debug", decision=decisions.HELD))
    assert held is not None
    assert held.startswith("HELD  short ")
    for decision in (decisions.CAPPED, decisions.NOT_ALLOWED, decisions.DELIVERED):
        assert LINES.line(fired("short", None, decision=decision)) is None
    assert LINES.line(fired("short", "debug", decision=decisions.DELIVERED)) is None


@pytest.mark.parametrize("text", ["a\nFIRED x", "\x1b[31mred", "\u202eabc", "\x9b2J", "\r", "\u2028"])
def test_text_of_events_cannot_add_lines_or_control_the_terminal(text: str) -> None:
    line = LINES.line(fired("short", "debug", user_id=text, event_name=text))
    assert line is not None
    assert line.isprintable()


def test_nothing_of_what_was_shown_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    """A run of a million events needs no more memory for what it prints than one of ten."""
    step = _ShowActionsFn(ActionLines(RULES, "event-actions"))
    before = pickle.dumps(step)
    for number in range(500):
        decision = fired("hook", "webhook", user_id=f"user_{number}", event_name=f"event_{number}").to_json()
        assert len(list(step.process(encode_produced(decisions.FILE, None, decision, [])))) == 1
    assert len(capsys.readouterr().out.splitlines()) == 500
    assert pickle.dumps(step) == before


def test_long_text_is_cut() -> None:
    line = LINES.line(fired("short", "debug", user_id="u" * 9000))
    assert line is not None
    assert len(line) < 120
    assert "u…" in line


def test_a_letter_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    letter = {"reason": "wrong_type", "detail": "a\x1b[2J\nb", "topic": "t", "partition": 0, "offset": 7}
    _show_dead_letter(encode_produced("dead", None, json.dumps(letter).encode(), []))
    assert capsys.readouterr().err == "DEAD LETTER wrong_type at t/0@7: a\\x1b[2J\\nb\n"


def test_what_the_terminal_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "latin-1")
    show("é€\n", stream)
    assert raw.getvalue() == b"\xe9\\u20ac\n"


def test_each_destination_has_one_stand_in() -> None:
    again = rule(name="b", actions=[{"type": "webhook", "destination": "crm"}])
    assert destinations_of((*RULES, again)) == ("crm",)
    assert destinations_of(RULES[:2]) == ()
    assert stand_in("crm", "http://127.0.0.1:1").url == "http://127.0.0.1:1"
