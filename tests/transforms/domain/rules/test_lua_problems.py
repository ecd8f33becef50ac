from __future__ import annotations

import time

from tests.builders import rule
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.filters import lua_problems


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
