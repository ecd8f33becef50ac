from __future__ import annotations

import time

import pytest

from transforms.domain.rules.lua_hints import hint_of, traps
from transforms.domain.rules.lua_reads import Read, reads_of


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


@pytest.mark.parametrize("text", ["event[", "[[", "event.a.", "--[[", '"', "local event = ", "function(", "ü"])
def test_a_text_of_any_length_is_read_in_time(text: str) -> None:
    for length in (16_000, 64_000):
        started = time.thread_time()
        source = (text * length)[:length]
        reads_of(source)
        hint_of(source, "r:1: wrong", lambda _: False)
        list(traps(source))
        assert time.thread_time() - started < 10
