from __future__ import annotations

import time

import pytest

from tests.builders import rule
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.lua_hints import traps
from transforms.domain.rules.lua_problems import lua_problems, never_returning
from transforms.domain.rules.past_calls import IN_BRACES


def test_each_of_a_rule_s_lua_texts_is_checked_as_it_runs() -> None:
    broken = rule("r", "event.a) or (event.b", cooldown={"time": "1h", "key": "\n1) .. (2"})
    assert lua_problems(broken, LuaEngines()) == [
        ("filter", "r:1: does not compile: unexpected symbol near ')'"),
        ("cooldown.key", "r:2: does not compile: unexpected symbol near ')'"),
    ]


def test_unknown_names_are_listed_in_the_order_of_their_lines_in_linear_time() -> None:
    short = rule("r", "return b or\n a or é or '\\n'\n or a or x_1")
    assert lua_problems(short, LuaEngines()) == [
        ("filter", f"r:{line}: reads {name!r}: there is no such name")
        for line, name in [(1, "b"), (2, "a"), (2, "é"), (3, "x_1")]
    ]
    many = rule("r", "\n or ".join(f"name{number}" for number in range(5000)))
    started = time.thread_time()
    problems = lua_problems(many, LuaEngines())
    assert time.thread_time() - started < 1.5  # one search a name took ten times as long
    assert (len(problems), problems[4999][1]) == (5000, "r:5000: reads 'name4999': there is no such name")


EQUALS = "`=` assigns: to compare, write `==`"
RETURN = "a body needs a `return` before its result"


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ('event.a != "x"', "`!=`: Lua writes `~=` for not equal"),
        ('event.a !== "x"', "`!==`: Lua writes `~=` for not equal"),
        ("event.a <> 1", "`<>`: Lua writes `~=` for not equal"),
        ("event.a === 1", "`===`: Lua writes `==` for equal"),
        ("event.a && event.b", "`&&`: Lua writes `and`"),
        ("event.a || event.b", "`||`: Lua writes `or`"),
        ("!event.a", "`!`: Lua writes `not`"),
        ("local x = 0\nx += 1\nreturn x > 0", "`+=`: Lua has no `+=`: write `x = x + 1`"),
        ("local x = 0 x++ return x", "`++`: Lua has no `++`: write `x = x + 1`"),
        ("event.a ? true : false", "`?`: Lua has no `? :`: write `condition and a or b`"),
        ("event.a // why", "`//`: a comment begins with `--`"),
        ("event.a AND event.b", "`AND`: Lua writes `and`"),
        ("var x = 1 return x", "`var`: Lua writes `local`"),
        ("event.a is nil", "`is`: Lua writes `==`"),
        ("event.a in ('x')", "Lua has no `in` for values: compare with each, joined by `or`"),
        ('count(event="x") > 1', f"`count` {IN_BRACES}"),
        ('last{within: "1h"} ~= nil', f"`last` {IN_BRACES}"),
        ('(event.a = 1) and count{event="x", where=function(e) return e.b end} > 1', EQUALS),
        ("event.a = 1 and event.b = 2", EQUALS),
        ("if event.a = 1 then return true end", EQUALS),
        ('return event.a == 1 and event.b = "!="', EQUALS),
        ("local x = 1 if x = 1 then x = 2 end return x", EQUALS),
        ("(event.a = 1)", EQUALS),
        (
            "if event.a then return 1 else if event.b then return 2 end",
            "`else if` begins another `if`, which needs an `end` of its own: write `elseif`",
        ),
        ("local x = event.a\nx == 1", RETURN),
        ("if event.a == 1 then true end", RETURN),
        ("if event.a then\n  true\nelse\n  false\nend", RETURN),
    ],
)
def test_what_other_languages_write_gets_a_hint(source: str, hint: str) -> None:
    ((name, message),) = lua_problems(rule("r", source), LuaEngines())
    assert name == "filter"
    assert "does not compile: " in message
    assert message.endswith(f"; {hint}")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("event.a = 1", "never allows anything: `=` assigns, to compare write `==`"),
        ("event['a'] = event.b and user.c", "never allows anything: `=` assigns, to compare write `==`"),
        ("local x = 1", "never allows anything: a body needs a return"),
        ("event.a == null", "r:1: reads 'null': there is no such name; Lua writes `nil`"),
        ("event.a == True", "r:1: reads 'True': there is no such name; Lua writes `true`"),
        (
            "event.a == \u201cx\u201d",
            "r:1: reads '\u201cx\u201d': there is no such name; texts are in straight quotation marks: \"text\"",
        ),
        ("cuont{} > 1", "r:1: reads 'cuont': there is no such name; did you mean 'count'?"),
        ("country == 'US'", "r:1: reads 'country': there is no such name"),
        ("event_name == 'a'", "r:1: reads 'event_name': there is no such name; did you mean 'event.event_name'?"),
        (
            "begun.a",
            "r:1: reads 'begun': there is no such name; the event that began a sequence is in the Lua of its "
            "steps, and in bodies as ${begun.event_name}",
        ),
        ("profile.a", "r:1: reads 'profile': there is no such name; the profile is `user`"),
        ("event.a > 5 and", "r:1: does not compile: it ends before it is complete"),
    ],
)
def test_what_compiles_and_never_works_gets_a_hint(source: str, problem: str) -> None:
    assert lua_problems(rule("r", source), LuaEngines()) == [("filter", problem)]


def test_begun_is_there_in_the_steps_of_a_sequence_alone() -> None:
    steps = [{"followed_by": "begun.a", "within": "1h"}, {"not_followed_by": "begun.b", "within": "1h"}]
    reads = rule("r", sequence={"steps": steps}, cooldown={"time": "1h", "key": "begun.c"})
    ((field, problem),) = lua_problems(reads, LuaEngines())
    assert field == "cooldown.key"
    assert "reads 'begun': there is no such name" in problem


@pytest.mark.parametrize("source", ["local f = function() return 1 end", "-- return it\nlocal x = 1"])
def test_a_return_of_something_else_is_none(source: str) -> None:
    assert lua_problems(rule("r", source), LuaEngines()) == []
    assert never_returning(rule("r", source), LuaEngines()) == ["filter"]


@pytest.mark.parametrize(
    "source",
    [
        "(function() return 1 end)()",
        "for _, e in ipairs(history) do if e.a then return true end end",
        "do return true end",
        "local f = function() return 1 end return f()",
        "event.a == 'return'",
    ],
)
def test_a_body_that_may_return_is_left_alone(source: str) -> None:
    assert never_returning(rule("r", source), LuaEngines()) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('event.a == "x" or "y"', '`== "x" or "y"` is always true: compare with each, as `a == 1 or a == 2`'),
        ("history[-1].event_name", "`history` begins with [1] and ends with [#history]: what is before has no value"),
        ("history[0]", "`history` begins with [1] and ends with [#history]: what is before has no value"),
        ("(event.a ~= 1 or 2) and event.b", "`~= 1 or 2` is always true: compare with each, as `a == 1 or a == 2`"),
        (
            "event.b and\nnot event.a == 1",
            "`not event… == …` compares `not event…`: write `not (… == …)`",
        ),
    ],
)
def test_traps_are_found(source: str, message: str) -> None:
    assert [text for _, text in traps(source)] == [message]


@pytest.mark.parametrize(
    "source",
    [
        '(user.name or "x") == "x"',
        "event.a == 1 or 2 == event.b",
        "not event.a and event.b == 1",
        "not (event.a == 1)",
        "history[-1 + #history]",
    ],
)
def test_what_only_looks_like_a_trap_is_left_alone(source: str) -> None:
    assert list(traps(source)) == []
