from __future__ import annotations

from contextlib import closing
from urllib.parse import unquote

import pytest

from tests.transforms.adapters.lua.determinism import CASES, EVENT, HISTORY, USER
from transforms.adapters.lua.engines import Isolation, LuaEngines
from transforms.adapters.lua.sandbox import Sandbox
from transforms.domain.rules.engine import Engine, Outcome, OutcomeKind, Program

PROCESSES = 12


def results(engine: Engine) -> dict[str, str]:
    """The text of each case's value."""
    with closing(engine):
        engine.set_inputs(EVENT, USER, {})
        outcomes = engine.run(range(len(CASES)), HISTORY)
    return {name: unquote(outcomes[number].text).partition(":")[2] for number, name in enumerate(CASES)}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_each_result_is_the_same_every_time(isolation: Isolation) -> None:
    # Each runtime of Lua hashes text with a seed of its own. Isolated, each has a process of its own, too.
    programs = [Program(name, source, wants_value=True) for name, (source, _) in CASES.items()]
    expected = {name: value for name, (_, value) in CASES.items()}
    for _ in range(PROCESSES):
        assert results(LuaEngines(isolation).engine(programs)) == expected


def outcome(source: str, *, wants_value: bool = False, **event: object) -> Outcome | None:
    sandbox = Sandbox([Program("p", source, wants_value)])
    sandbox.set_inputs(event, {}, {})
    return sandbox.run([0], None).get(0)


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 2**53 + 2, -(2**53), 2**60, 2**64 - 1, 1e300])
@pytest.mark.parametrize(
    "source",
    [
        "tostring(event.n)",
        "event.n .. 'x'",
        "'x' .. event.n",
        "'x' .. event.list[1] .. 'y'",
        "('%s'):format(event.n)",
        "('%d'):format(event.n)",
        "('%5i'):format(event.n)",
        "('%x'):format(event.n)",
        "table.concat({event.n})",
        "table.concat({'a'}, event.n)",
        "('x'):gsub('x', event.n)",
        "('x'):gsub('x', {x = event.n})",
        "('x'):gsub('x', function() return event.n end)",
        "string.len(event.n)",
        "string.rep(event.n, 2)",
        "tonumber(event.n, 16)",
    ],
)
def test_a_number_that_is_rounded_has_no_text(number: float, source: str) -> None:
    for key in (False, True):
        made = outcome(f"({source})", wants_value=key, n=number, list=[number])
        assert made is not None
        assert made.kind is OutcomeKind.ERROR
        assert "2^53" in made.text


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -(2**53), 2**60, 1e300, float("inf"), float("nan")])
def test_a_number_that_is_rounded_is_no_key(number: float) -> None:
    made = outcome("event.n", wants_value=True, n=number)
    assert made is not None
    assert made.kind is OutcomeKind.ERROR
    assert "2^53 or more as value" in made.text or "nan as value" in made.text


def test_keys_that_differ_in_their_last_digit_differ() -> None:
    numbers = [
        2**53 - 1,
        2**53 - 2,
        10**15,
        10**15 + 1,
        123456789012345,
        123456789012346,
        -(2**53) + 1,
        0.1,
        0.1 + 1e-16,
    ]
    keys = [outcome("event.n", wants_value=True, n=number) for number in numbers]
    assert keys == [Outcome(OutcomeKind.VALUE, f"n:{number!r}") for number in numbers]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "pairs({[{}] = 1, [{}] = 2})",
            "p:1: a table with several keys that are tables or functions: they have no order",
        ),
        ("next({[{}] = 1, [next] = 2})", "p:1: a table with several keys"),
        ("pairs(nil)", "p:1: bad argument #1 to 'pairs' (table expected, got nil)"),
        ("next('x')", "p:1: bad argument #1 to 'next' (table expected, got string)"),
        ("next({a = 1}, 'b')", "p:1: invalid key to 'next'"),
        ("event.a .. 'x'", "p:1: attempt to concatenate a nil value"),
        ("true and\n'a' .. 'b' .. event.a", "p:2: attempt to concatenate a nil value"),
        ("local t = {1} t[2] = 2\nreturn #event.a", "p:2: attempt to get length of a nil value"),
        ("#event.a", "p:1: attempt to get length of field 'a' (a nil value)"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(source: str, message: str) -> None:
    made = outcome(source)
    assert made is not None
    assert made.kind is OutcomeKind.ERROR
    assert made.text.startswith(message)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("'a..b' .. [[#c..]] .. [==[]]..]==] .. \"\\\"..#\" .. '\\'..' -- .. #\n", "a..b#c..]]..\"..#'.."),
        ("1 .. 2 .. 0x10 .. 1e+2 .. .5 .. 3. .. 0x1p+4", "12161000.5316"),
        ("local t = {x = {1, 2}} t.y = 1 return 2^#t.x .. -#'ab' .. #t.x * 2 + #'x'", "4-25"),
        ("local t = {} t[1] = 1 return #t .. #{1, 2} .. #'abc' .. tostring(not #t)", "123false"),
        ("local t = {} t[1] = 1 return 'x' .. (#t == 1 and 'y' or 'n')", "xy"),
        ("local function f(...) return select('#', ...) .. '/' .. ... end return f('a', 'b')", "2/a"),
        ("(function() --[[ .. ]] return 'a' --[==[ # ]] ]==] .. 'b' end)()", "ab"),
        ("local a1, _b2 = 'x', 'y' return a1.. _b2..a1", "xyx"),
        ("local t = {['..'] = '#'} t.z = 1 return t['..'] .. #t['..']", "#1"),
    ],
)
def test_operators_that_the_sandbox_replaces_mean_the_same(source: str, value: str) -> None:
    made = outcome(source, wants_value=True)
    assert made is not None
    assert (made.kind, unquote(made.text)) == (OutcomeKind.VALUE, f"s:{value}")


@pytest.mark.parametrize("name", ["CONCAT_", "LENGTH_"])
def test_names_of_the_sandbox_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is a name of the sandbox's own"):
        Sandbox([Program("p", f"return {name} .. 'x'")])


def test_no_walk_goes_on_from_one_event_to_the_next() -> None:
    sandbox = Sandbox([Program("p", "event.first and next(event) or next(event, 'event')", wants_value=True)])
    sandbox.set_inputs({"event": 1, "first": True, "last": 2}, {}, {})
    assert sandbox.run([0], None)[0].text == "s:event"
    sandbox.set_inputs({"event": 1, "fresh": 1, "gone": 2}, {}, {})
    assert sandbox.run([0], None)[0].text == "s:fresh"
