from __future__ import annotations

import pytest

from pipeline.console import out
from pipeline.job.rule_diff import difference_lines
from tests.builders import rule

OLD = rule(name="a", version=1, filter="local n = event.n\nreturn n > 1", cap={"count": 3, "per": "day"})


def test_lua_differs_line_by_line_and_fields_by_name() -> None:
    new = rule(name="a", version=2, filter="local n = event.n\nreturn n > 2", cap={"count": 4, "per": "day"})
    assert list(difference_lines(OLD, new)) == [
        "filter:",
        "    local n = event.n",
        "  - return n > 1",
        "  + return n > 2",
        "cap:",
        "  - count: 3",
        "  + count: 4",
        "    per: day",
    ]


def test_fields_that_come_and_go_are_shown_and_equal_rules_have_no_lines() -> None:
    without = rule(name="a", version=2, filter=OLD.filter, cooldown="1h")
    lines = list(difference_lines(OLD, without))
    assert lines[0] == "cooldown:"
    assert lines[-3:] == ["cap:", "  - count: 3", "  - per: day"]
    assert list(difference_lines(OLD, OLD)) == []


def test_lines_that_are_left_out_are_marked() -> None:
    lua = [f"local a{number} = {number}" for number in range(9)]
    old, new = (rule(name="a", version=1, filter="\n".join([*lua, last])) for last in ("return true", "return false"))
    assert list(difference_lines(old, new)) == [
        "filter:",
        "  …",
        "    local a7 = 7",
        "    local a8 = 8",
        "  - return true",
        "  + return false",
    ]


def test_control_characters_of_a_published_rule_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    new = rule(name="a", version=2, filter="return true -- \x1b[2J", cap={"count": 3, "per": "day"})
    out(*difference_lines(OLD, new))
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
