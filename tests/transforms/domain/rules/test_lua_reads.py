from __future__ import annotations

import time

import pytest

from transforms.domain.rules.lua_hints import hint_of, traps
from transforms.domain.rules.lua_reads import Read, faults, reads_of
from transforms.domain.rules.past_calls import IN_BRACES


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ('event.event_name == "a" and user.vip', ["event.event_name", "user.vip"]),
        ('event["event_name"] == "a"', ["event.event_name"]),
        ("event.parameters['a b'].c", ["event.parameters.a b.c"]),
        ("history[#history].event_name", ["history[…].event_name"]),
        ("event.tags[1] == 1", ["event.tags[…]"]),
        ("event.parameters[user.key]", ["event.parameters[…]", "user.key"]),
        ("event.event_name:lower()", ["event.event_name"]),
        ("string.find(event.a, user.b)", ["event.a", "user.b"]),
        ("x.event.y and t.user.name", []),
        ("'event.a' and [[user.b]] and 1 -- event.c\n --[[ user.d ]]", []),
        ("return {event = 1, user = event.a}", ["event.a"]),
        ("local event = 1 return event.a", []),
        ("return (function(user) return user.a end)(event.b)", ["event.b"]),
        ("local p = event.parameters return p.sku", ["event.parameters", "event.parameters.sku"]),
        ("local p = event.parameters or {}\nreturn p.sku", ["event.parameters", "event.parameters.sku"]),
        ("local p = event.parameters and 1 return p.sku", ["event.parameters"]),
        ("local p = event.parameters p = 1 return p.sku", ["event.parameters"]),
        ("for _, row in ipairs(history) do if row.a then return 1 end end", ["history[…].a"]),
        ("for i = 1, 3 do local row = history[i] if row.a then return 1 end end", ["history[…]", "history[…].a"]),
        ("for k, v in pairs(event.parameters) do if v.a then return 1 end end", ["event.parameters"]),
        ('count{event="view", within="10m"} > 1', ["history[…].event_name"]),
        ('distinct({of="parameters.sku"}) > event.a', ["history[…].parameters.sku", "event.a"]),
        ('last{event="a"}.b > 1', ["history[…].event_name", "history[…].b"]),
        ('local l = last{within="1h"} return l and l.parameters.sku', ["history[…].parameters.sku"]),
        (
            "count{where=function(e) return e.a == event.b end} + count{where=function(e) return e.c end}",
            ["history[…].a", "event.b", "history[…].c"],
        ),
        ("count{where=function(e) return e.a end} + (function(e) return e.b end)(user)", []),
        ('local count = 1 return count{event="a"}', []),
        ('function last(t) return t end return last{event="a"}.b', []),
        ("local_time.hour > user.hour", ["local_time.hour", "user.hour"]),
        ("local_time = {} return local_time.x", []),
        ("event.a = = ( 'unfinished", ["event.a"]),
        ("event.", []),
        ("event[", ["event[…]"]),
    ],
)
def test_fields_that_lua_reads_are_found(source: str, shown: list[str]) -> None:
    assert [read.shown for read in reads_of(source)] == shown


def test_reads_have_their_line() -> None:
    source = "-- a comment\nevent.a == [[\n\n]] and\n  --[[ two\nlines ]] user.b"
    assert [(read.shown, read.line) for read in reads_of(source)] == [("event.a", 2), ("user.b", 6)]


@pytest.mark.parametrize(
    ("source", "operator", "literal"),
    [
        ('event.a == "x"', "==", "x"),
        ("event.a ~= 5", "~=", 5.0),
        ("5 < event.a", ">", 5.0),
        ("event.a == nil", "==", None),
        ("event.a == true and 1", "==", True),
        ("event.a == 0x10", "==", 16.0),
        ("#event.a == 5", None, None),
        ("not event.a == 5", None, None),
        ("event.a + 1 == 5", None, None),
        ("1 + event.a == 5", None, None),
        ("event.a == 5 + 1", None, None),
        ("1 + 5 == event.a", None, None),
        ('event.a:lower() == "x"', None, None),
        ('"x" == event.a:lower()', None, None),
        ("event.a == user", None, None),
    ],
)
def test_comparisons_with_literals_are_understood(source: str, operator: str | None, literal: object) -> None:
    (read,) = reads_of(source)
    assert (read.operator, read.literal) == (operator, literal)


def test_a_read_is_shown_as_it_is_written() -> None:
    assert Read("history", ("[]", "parameters", "sku")).shown == "history[…].parameters.sku"


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ('count{event="a", within="10m", where=function(e) local a, evnt = 1, 2; return a end}', []),
        ("count{within=600000, event=event.event_name}", []),
        ('count({["event"]="a", [user.x]=1})', []),
        ("count(options)", []),
        ('x.count{evnt="a"}', []),
        ('local count = f return count{evnt="a"}', []),
        ('count{evnt="a"}', ["1 count has the option 'evnt'; did you mean 'event'?; allowed: event, within, where"]),
        (
            'last({\n["whitin"]="1h"})',
            ["2 last has the option 'whitin'; did you mean 'within'?; allowed: event, within, where"],
        ),
        ('count{of="a"}', ["1 count has the option 'of'; allowed: event, within, where"]),
        ('count{"a"}', ["1 count has an option without a name; allowed: event, within, where"]),
        ('count{within="10 minutes"}', ['1 count: within is "10 minutes", allowed is ms or a duration like "10m"']),
        ("count{within=0}", ['1 count: within is 0, allowed is ms or a duration like "10m"']),
        ('count("a")', [f"1 count {IN_BRACES}"]),
        ("local n =\nlast()", [f"2 last {IN_BRACES}"]),
        ("count 'a'", [f"1 count {IN_BRACES}"]),
        ("count(x)", []),
        ("return count", []),
        ("count{event=5}", ["1 count: event is 5, allowed is the name of an event"]),
        (
            'count{where="a"}',
            ['1 count: where is "a", allowed is a function, as in function(e) return e.timestamp > 0 end'],
        ),
        ('distinct{event="a"}', ['1 distinct needs of, a field of events: distinct{of="parameters.sku"}']),
        ("distinct{of=1}", ["1 distinct: of is 1, allowed is the name of a field"]),
        (
            'count{where=function(e) return count{evnt=e.x} > 0 end, within="1x"}',
            [
                '1 count: within is "1x", allowed is ms or a duration like "10m"',
                "1 count has the option 'evnt'; did you mean 'event'?; allowed: event, within, where",
            ],
        ),
    ],
)
def test_calls_about_the_past_that_fail_are_found(source: str, messages: list[str]) -> None:
    assert [f"{line} {message}" for line, message in faults(source)] == messages


@pytest.mark.parametrize(
    "text",
    ["count{", "last{}", "count{a=count", "event[", "[[", "event.a.", "--[[", '"', "local event = ", "function(", "ü"],
)
def test_a_text_of_any_length_is_read_in_time(text: str) -> None:
    for length in (16_000, 64_000):
        started = time.thread_time()
        source = (text * length)[:length]
        reads_of(source)
        list(faults(source))
        hint_of(source, "r:1: wrong", lambda _: False)
        list(traps(source))
        assert time.thread_time() - started < 10
