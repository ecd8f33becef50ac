from __future__ import annotations

import time

import pytest

from tests.transforms.domain.rules.test_filters import EVENT, PROFILE, ROWS, allowed
from transforms.adapters.lua.sandbox import Sandbox, compile_alone


@pytest.mark.parametrize(
    ("source", "event", "user", "visit"),
    [
        ("true", [], [], []),
        ("event.x", ["x"], [], []),
        ("event['x y']", ["x y"], [], []),
        ("event.a.b == user.c", ["a"], ["c"], []),
        ("-- the user's event, in a visit\nreturn 'event user visit' == ''", [], [], []),
        ("local function f() return visit.page_count end return f() > event.x", ["x"], [], ["page_count"]),
        ("event.x and event.x and event.y", ["x", "y"], [], []),
        ("local e = event return e.x or e.y", None, [], []),
        ("local e e = event.x return e", None, [], []),
        ("event[user.key]", None, ["key"], []),
        ("event:method()", None, [], []),
        ("(user or event).x", ["x"], None, []),
        ("for name in pairs(visit) do return name end", [], [], None),
        ("event.x = 1", None, [], []),
        ("type(user)", [], None, []),
        ("local user = {} return user.x", [], [], []),
    ],
)
def test_what_a_program_reads_of_what_it_is_given(
    source: str, event: list[str] | None, user: list[str] | None, visit: list[str] | None
) -> None:
    assert Sandbox([("p", source, False)]).reads == {"event": event, "user": user, "visit": visit}


def test_programs_read_what_each_of_them_reads() -> None:
    sandbox = Sandbox([("a", "event.x", False), ("b", "event.y and pairs(user)", False), ("c", "user.z", False)])
    assert sandbox.reads == {"event": ["x", "y"], "user": None, "visit": []}


MANY_FIELDS = " and ".join(f"event.f{number} == {number}" for number in range(300))


def test_a_set_may_take_longer_to_compile_than_a_program_may_run() -> None:
    started = time.thread_time()
    sandbox = Sandbox([(f"p{number}", f"event.x == {number}", False) for number in range(20_000)])
    assert time.thread_time() - started > 0.05
    sandbox.give({"x": 19_999}, {}, {})
    assert sandbox.run(None, None) == ("0" * 19_999 + "1", "")


def test_more_fields_than_a_call_takes_are_given_as_a_table() -> None:
    tests = [f"event.f{number} == {number}" for number in range(9000)]
    for count, is_whole in ((1000, False), (1001, True), (9000, True)):
        parts = [" and ".join(tests[first : min(first + 100, count)]) for first in range(0, count, 100)]
        sandbox = Sandbox([("p", f"user.x == 1 and {part}", False) for part in parts])
        assert sandbox.reads["user"] == ["x"]
        assert (sandbox.reads["event"] is None) is is_whole
        sandbox.give({f"f{number}": number for number in range(count)}, {"x": 1}, {})
        assert sandbox.run(None, None) == ("1" * len(parts), "")


@pytest.mark.parametrize(
    "source",
    [
        "(function(a, b) return a.duration == 1500 and b == 'US' end)(event, user.country)",
        "(user.nothing and event or visit).page_count == 3",
        "local a, b, c = event.duration, user.age, visit.page_count return a == 1500 and b == 41.5 and c == 3",
        "local t = event for _ = 1, 2 do t = t.parameters or t end return t.utm_source == 'google'",
        "local x = event.duration x = user.age return x == 41.5 and event.triggerable",
        "local name = 'dur' .. 'ation' return event[name] == 1500",
        "local e, u = event, user local function f() return e.duration + u.age end return f() == 1541.5",
        "({event.duration, user.age, visit.page_count})[3] == 3",
        "select(2, event.duration, user.country) == 'US'",
        "event.parameters.list[3] == 'x' and #user.tags[#user.tags] == 1",
        "#history == 2 and event.parameters[user.key or 'utm_source'] == 'google'",
        MANY_FIELDS,
    ],
)
def test_a_filter_finds_every_field_that_it_reaches_for(source: str) -> None:
    # A second filter that uses everything as a whole has everything given to both: the answer must not differ.
    fields = EVENT | {f"f{number}": number for number in range(300)}
    known = {"fields": fields, "profile": PROFILE, "rows": ROWS}
    assert allowed(source, **known) == [True]
    assert allowed(source, "pairs(event) ~= nil and pairs(user) ~= nil and pairs(visit) ~= nil", **known) == [True] * 2


@pytest.mark.parametrize(
    ("source", "unknown"),
    [
        ("event.x and math.max(1, 2) and history", []),
        ("evnt.x or os.time() or evnt", ["evnt", "os"]),
        ("x = 1 return x", []),
        ("local x = 1 return x", []),
        ("(function() return y end)()", ["y"]),
    ],
)
def test_names_that_nobody_defines_are_found(source: str, unknown: list[str]) -> None:
    assert compile_alone(source, "p") == (None, unknown)
