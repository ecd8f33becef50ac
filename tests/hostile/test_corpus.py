"""Scripts and records by hand: each ends in a result, a letter or a line, in both isolation modes, and in no death."""

from __future__ import annotations

import itertools
import json
from contextlib import closing
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, filter_set, rule
from transforms.adapters.lua.engines import Isolation, LuaEngines
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.engine import CompileError, Program
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.step_input import Answer

SCRIPTS = (
    # bodies that grow: texts, tables that share references, concatenation
    "local t = {} for i = 1, 40 do t = {t, t} end return true",
    "local s = 'x' for i = 1, 40 do s = s .. s end return true",
    "local t = {} for i = 1, 1e7 do t[i] = ('x'):rep(1e6) end return true",
    "return #table.concat({('x'):rep(4e6), ('y'):rep(4e6)}) > 0",
    "local t = {} t[1] = t return tostring(t) == ''",
    "return ('x'):rep(4e6):gsub('x', ('y'):rep(1e6)) == ''",
    "return string.format(('%s'):rep(200), ('x'):rep(1e5)) == ''",
    "return string.format('%99999999d', 1) == ''",
    "return ('%s'):rep(1e6):format(1) == ''",
    "return table.concat({}, ('x'):rep(1e6), 1, 1e9) == ''",
    "return unpack({}, 1, 1e8) == nil",
    "return select('#', unpack({}, 1, 250)) > 0",
    "return ('x'):rep(1e5):find(('.-'):rep(1000) .. 'y') == nil",
    "return ('a'):rep(1e5):find(('a*'):rep(30) .. 'b') == nil",
    "return ('x'):rep(1e6):reverse():upper():lower():byte(1, -1) == 1",
    "return string.char(unpack({255, 254, 0})) == event.event_name",
    # numbers and keys
    "return 9007199254740992 + 1 == event.timestamp", "return tostring(2^63) == ''", "return ({[0/0] = 1})[0/0]",
    "local t = {} t[0/0] = 1 return true", "local t = {} t[nil] = 1 return true", "return 1/0 > -1/0",
    "return tonumber('1e999') ~= nil", "return tonumber('0x' .. ('f'):rep(1e5)) ~= nil", "return -0 == 0",
    "return 5 % 0 == 0", "return 2^1024 == math.huge", "return math.floor(0/0) == 1", "return ('1'):rep(400) + 0 > 1",
    # order
    "for k, v in pairs(event) do event[k] = nil end return true", "return next({}, 'gone') == nil",
    "local t = {} for i = 1, 9 do t[i] = 0/0 end table.sort(t) return true",
    "local t = {3, 1, 2} table.sort(t, function() return true end) return true",
    "local t = {} for i = 1, 1e5 do t[i] = -i end table.sort(t, function(a, b) return a < b end) return true",
    "table.sort({1, 'a', {}}) return true", "local t = {1, 2, 3} t[1e9] = 1 return #t > 0",
    "for k in pairs(setmetatable({}, {__pairs = error})) do end return true",
    "for i, v in ipairs(history) do history[i] = nil end return true",
    # ways out
    "return io.open('/etc/passwd')", "return os.execute('id')", "return require('ffi')", "return package.loaded",
    "return loadstring('return 1')()", "return load(function() return nil end)", "return dofile('/etc/passwd')",
    "return debug.getregistry()", "return getfenv(0)", "return setfenv(1, {})", "return collectgarbage('stop')",
    "return jit.off()", "return string.dump(function() end)", "return newproxy(true)", "return python.eval('1')",
    "return getmetatable('').__index.rep", "return rawset(_G, 'x', 1)", "return coroutine.wrap(error)()",
    "return pcall(pcall, pcall, error)", "return xpcall(error, error)", "return event:__gc()",
    # never ending, deep
    "while true do end", "repeat until false", "goto x ::x:: goto x", "local function f() return f() end return f()",
    "local function f() return 1 + f() end return f()", "for i = 1, math.huge do end", "for i = 1, 0, 0 do end",
    "while pcall(error) do end", "local t = setmetatable({}, {__index = function(t, k) return t[k] end}) return t.x",
    "error()", "error(nil)", "error(setmetatable({}, {__tostring = error}))", "error(('x'):rep(4e6))",
    "error('\\27[2J\\0\\r\\n')", "return error", "return {}", "return 'x', 'y'", "return nil", "return",
)  # fmt: skip

TOPICS: tuple[Any, ...] = (
    "events", "rules", "dead", "audit", "__consumer_offsets", "__transaction_state", "other", ".", "..", "", "a/b",
    "a b", "a\n", "a\0", "é", "x" * 250, "x" * 249, "EVENTS ", " events", "*", "${event.user_id}", None, 5, [], {},
)  # fmt: skip
LONG = "${event}${user}${history}"
BODIES: tuple[Any, ...] = (
    {"a": LONG * 2000}, {"a": [LONG] * 5000}, {f"k{n}": "${history}" for n in range(5000)},
    {"a": [["${event}"] * 90] * 90},
    {"a": {"b": {"c": [LONG] * 999}}}, {"x" * 200_000: LONG}, {"a": "\\u0000" * 90_000}, {"a": "\0" * 100_000},
    {"": ""},
    {"a": 10**400}, {"a": -(10**30)}, {"a": 1e300}, {"${event}": 1}, {"a": "${" * 5000}, {"a": "${}"},
    {"a": "${action}" * 999},
    {"a": "${event.note.x.y.z}"}, {"a": "$" * 200_000}, {"a": "${user.a.b.c.d.e.f.g.h.i}"}, {"a": [[[]]] * 1000},
    [], "x", 7,
    {"a": None}, {"a": [True] * 100_000}, {"a": "𝄞" * 50_000}, {"a": "${visit}" * 3000},
)  # fmt: skip


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_no_script_ends_anything(isolation: Isolation) -> None:
    programs = []
    for number, source in enumerate(SCRIPTS):
        try:
            LuaEngines().engine([Program(f"p{number}", source)]).close()
            programs.append(Program(f"p{number}", source))
        except CompileError:
            continue
    assert len(programs) > len(SCRIPTS) * 0.8
    with closing(LuaEngines(isolation).engine([*programs, Program("last", "event.n == 1")])) as engine:
        engine.set_inputs({"n": 1, "event_name": "x", "timestamp": NOW_MS}, {}, {})
        for _ in range(2):
            outcomes = engine.run(None, None)
            assert outcomes[len(programs)].kind.name == "ALLOWED"


def sets_by_hand() -> list[bytes]:
    rules = [
        {"name": "r", "version": 1, "filter": "true", "actions": [{"type": "kafka", "topic": topic}]}
        for topic in TOPICS
    ]
    rules += [
        {"name": "r", "version": 1, "filter": "true", "actions": [{"type": kind, **extra, "body": body}]}
        for body, (kind, extra) in itertools.product(BODIES, (("kafka", {}), ("webhook", {"destination": "crm"})))
    ]
    rules.append(
        {
            "name": "r",
            "version": 1,
            "filter": "true",
            "actions": [{"type": "debug", "name": f"d{n}"} for n in range(9000)],
        }
    )
    values = []
    for number, document in enumerate(rules, 1):
        content = {"version": 1, "number": number, "published": NOW_MS, "by": "x", "rules": [document]}
        values.append(_json({"rules": content}))
    return values


def _json(document: Any) -> bytes:

    return json.dumps(document).encode()


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_no_set_ends_a_shard_and_the_good_one_after_it_applies(isolation: Isolation) -> None:
    def compile_rules(rules: Any) -> Any:
        return filter_set(rules, isolation=isolation)

    values = sets_by_hand()
    if isolation == "process":
        values = values[::4]  # each set starts a process
    sets = RuleSets(RuleSet(0, (rule(),)), compile_rules, "rules")
    topics = ActionTopics(("events", "rules", "dead", "audit"), ("actions",))
    shard = Shard(filters=sets, action_topics=topics)
    shard.step(batch(event("u", event_id="first")))
    shard.step(answers=[Answer("u", fetched(None))])
    applied = refused = 0
    for offset, value in enumerate(values):
        done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [Record(0, offset, NOW_MS, b"set", value)]))
        done.include_shared_dead_letters()
        assert len(done.applied_rule_sets) + len(done.dead_letters) == 1, value[:300]
        applied += len(done.applied_rule_sets)
        refused += len(done.dead_letters)
        done = shard.step(batch(event("u", event_id=f"e{offset}", note="x" * 5000)))
        assert sum(len(fired.body) for fired in done.actions) < 10_000_000
        assert all(len(letter.to_json()) < 1_000_000 for letter in done.dead_letters)
        assert len(done.dead_letters) <= 2
    assert applied > 5
    assert refused > 5
    good = orjson.loads(values[-1])
    good["rules"] |= {
        "number": 5000,
        "rules": [{"name": "g", "version": 1, "filter": "true", "actions": [{"type": "debug"}]}],
    }
    done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [Record(0, 9999, NOW_MS, b"set", orjson.dumps(good))]))
    assert done.applied_rule_sets == [5000]
    sets.close()
