from __future__ import annotations

import time

import pytest

from tests.transforms.domain.rules.test_filters import EVENT, PROFILE, ROWS, allowed
from transforms.adapters.lua.sandbox import Sandbox, check_source
from transforms.domain.rules.engine import CompileError, Outcome, OutcomeKind, Program, SourceCheck


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
def test_the_fields_that_a_program_reads(
    source: str, event: list[str] | None, user: list[str] | None, visit: list[str] | None
) -> None:
    assert Sandbox([Program("p", source)]).reads == {"event": event, "user": user, "visit": visit}


def test_the_fields_that_several_programs_read() -> None:
    sandbox = Sandbox([Program("a", "event.x"), Program("b", "event.y and pairs(user)"), Program("c", "user.z")])
    assert sandbox.reads == {"event": ["x", "y"], "user": None, "visit": []}


ALLOWED = Outcome(OutcomeKind.ALLOWED)

MANY_FIELDS = " and ".join(f"event.f{number} == {number}" for number in range(300))


def test_a_set_may_take_longer_to_compile_than_a_program_may_run() -> None:
    started = time.thread_time()
    sandbox = Sandbox([Program(f"p{number}", f"event.x == {number}") for number in range(20_000)])
    assert time.thread_time() - started > 0.05
    sandbox.set_inputs({"x": 19_999}, {}, {})
    assert sandbox.run(None, None) == {19_999: ALLOWED}


def test_more_fields_than_a_call_takes_are_given_as_a_table() -> None:
    tests = [f"event.f{number} == {number}" for number in range(9000)]
    for count, is_whole in ((1000, False), (1001, True), (9000, True)):
        parts = [" and ".join(tests[first : min(first + 100, count)]) for first in range(0, count, 100)]
        sandbox = Sandbox([Program("p", f"user.x == 1 and {part}") for part in parts])
        assert sandbox.reads["user"] == ["x"]
        assert (sandbox.reads["event"] is None) is is_whole
        sandbox.set_inputs({f"f{number}": number for number in range(count)}, {"x": 1}, {})
        assert sandbox.run(None, None) == dict.fromkeys(range(len(parts)), ALLOWED)


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
    # With a second filter that uses each table as a whole, both get whole tables: the result must not differ.
    fields = EVENT | {f"f{number}": number for number in range(300)}
    inputs = {"fields": fields, "profile": PROFILE, "rows": ROWS}
    assert allowed(source, **inputs) == [True]
    assert allowed(source, "pairs(event) ~= nil and pairs(user) ~= nil and pairs(visit) ~= nil", **inputs) == [True] * 2


@pytest.mark.parametrize(
    ("source", "unknown_names", "is_expression"),
    [
        ("event.x and math.max(1, 2) and history", (), True),
        ("evnt.x or os.time() or evnt", ("evnt", "os"), True),
        ("x = 1 return x", (), False),
        ("local x = 1 return x", (), False),
        ("(function() return y end)()", ("y",), True),
    ],
)
def test_names_that_nobody_defines_are_found(source: str, unknown_names: tuple[str, ...], is_expression: bool) -> None:
    assert check_source(source, "p") == SourceCheck(None, unknown_names, is_expression)


@pytest.mark.parametrize(
    "source",
    [
        "event.a) or (event.b",
        "event.a)\nor (event.b",
        "f(event.a)) or (event.b",
        "event.a) (event.b",
        "'x') .. ('y'",
        "true, (1), (2",
        "event.a, event.b",
        "event.a event.b = 1",
        "true return false",
        "true; return false",
        "true) -- (",
        "(true",
        "true)",
        "--[[ true",
        "true --[[",
        "event.a) do end return (event.b",
        "1 local x = 2",
        "nil) local x = (2",
    ],
)
def test_what_is_neither_an_expression_nor_a_body_is_found_when_it_is_checked(source: str) -> None:
    problem = check_source(source, "p").problem
    assert problem is not None
    assert problem.startswith("p:")
    with pytest.raises(CompileError) as caught:
        Sandbox([Program("good", "true"), Program("p", source)])
    assert (str(caught.value), caught.value.number) == (problem, 1)


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("event.a.b", "error", 1),
        ("event.a.b\n", "error", 1),
        ("true and\n event.a.b", "error", 2),
        ("true and\n event.a.b -- a comment\n\n", "error", 2),
        ("return event.a.b\n", "error", 1),
        ("\nlocal x = 1\nreturn event.a.b\n", "error", 3),
    ],
)
def test_an_error_is_on_its_line_of_the_source(source: str, kind: str, line: int) -> None:
    sandbox = Sandbox([Program("p", source)])
    sandbox.set_inputs({}, {}, {})
    message = f"p:{line}: attempt to index field 'a' (a nil value)"
    assert sandbox.run(None, None) == {0: Outcome(OutcomeKind(kind), message)}


def test_the_hook_and_the_library_do_not_spoil_each_other_s_reading_of_the_clock() -> None:
    # Both look at the time, the hook at any instruction: of these calls, one in six once had no limit.
    sandbox = Sandbox([Program("p", "local s = ('a'):rep(2000) while true do s:match('.-b') end")])
    sandbox.set_inputs({}, {}, {})
    seconds = []
    for _ in range(20):
        started = time.thread_time()
        assert sandbox.run(None, None)[0].kind is OutcomeKind.LIMIT
        seconds.append(time.thread_time() - started)
    assert sorted(seconds)[-3] < 0.1


def test_programs_that_want_a_value_run_when_they_are_selected() -> None:
    sandbox = Sandbox([Program("a", "true"), Program("b", "event.x", wants_value=True), Program("c", "false")])
    sandbox.set_inputs({"x": 7}, {}, {})
    assert sandbox.run(None, None) == {0: ALLOWED}
    assert sandbox.run([1, 2], None) == {1: Outcome(OutcomeKind.VALUE, "n:7")}
    assert sandbox.run([], None) == {}
