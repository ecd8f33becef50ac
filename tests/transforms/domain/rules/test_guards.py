"""A guard may save a call of Lua, never change what comes of it."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import NOW_MS, event, filter_set, record, rule
from transforms.domain.events.event import Event, EventLimits, parse_event
from transforms.domain.rules import filters as filters_module
from transforms.domain.rules.filters import FilterResult, FilterSet
from transforms.domain.rules.guards import guard_of
from transforms.domain.users.history import History
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

TEXTS = ["", "a", "b", "US", "1", "é", "A", "true", "\\n", "a'b"]
NUMBERS = ["0", "1", "-1", "007", "0.5", "1.10", "18", "9007199254740993", "1e3", "0x10", "1704067200000", "-0"]
LITERALS = st.sampled_from(["nil", "true", "false", *NUMBERS, *(f'"{text}"' for text in TEXTS), "'a'", "[[a]]"])
FIELDS = st.sampled_from(
    [
        *("event.event_name", "event.triggerable", "event.is_https", "event.duration", "event.timestamp"),
        *("event.domain", 'event["app"]', "event . platform", "event.mood", "event.parameters", "event.parameters.n"),
        *("user.country", "user.age", 'user["vip"]', "user.x", "user.x.y", "user.enrichment", "enrichment"),
        *(
            "local_time.hour",
            "local_time.date",
            'bucket("a", "b")',
            "days_between(0, event.timestamp)",
            "history_since",
        ),
        *("count{}", 'last{event="a"}', 'distinct{of="x"}', "count", "local_time", "bucket(user.x, 1)"),
        *("visit.page_count", "visit.is_first_visit", "missing", "missing.x", "event", "user", "#history"),
        *('string.len("a")', "event.event_name:len()", "(event.triggerable)", "tostring(user.age)", "-user.age"),
    ]
)
OPERATORS = st.sampled_from(["==", "~=", "<", "<=", ">", ">=", "..", "+", "and", "or", "=="])
SPACES = st.sampled_from([" ", "\n", " -- or\n", "\t", "\r\n"])


def joined(parts: tuple[str, ...]) -> str:
    return " ".join(parts)


EXPRESSIONS = st.recursive(
    FIELDS | LITERALS | st.tuples(FIELDS | LITERALS, OPERATORS, LITERALS | FIELDS).map(joined),
    lambda inner: (
        st.tuples(inner, SPACES, st.sampled_from(["and", "and", "and", "or"]), SPACES, inner).map(joined)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"not {text}")
        | inner.map(lambda text: f"(function() return {text} end)()")
    ),
    max_leaves=8,
)
VALUES: Any = st.sampled_from(
    [
        "",
        "a",
        "b",
        "US",
        "1",
        "é",
        "A",
        "true",
        "\n",
        "a'b",
        0,
        1,
        -1,
        7,
        0.5,
        1.1,
        18,
        2**53,
        2**53 + 1,
        -(2**63),
        2**70,
    ]
) | st.sampled_from([None, True, False, 1e300, -0.0, 1000, 16, [], {}, {"y": 1}, ["a"]])
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("domain", "app", "platform"), st.sampled_from(["", "a", "b", "é", "A", "true", "\n", "a'b"])),
        **dict.fromkeys(("triggerable", "is_https"), st.booleans()),
        "event_name": st.sampled_from(["a", "b", "US", "1"]),
        "duration": st.sampled_from([0, 1, 0.5, 1.1, -1, 18, 2**53 + 1, 2**64 - 1, 1e300, 16, 1000]),
        "mood": VALUES,
        "parameters": st.sampled_from([{}, {"n": 1}, {"n": None}]),
    },
)
PROFILES = st.dictionaries(st.sampled_from(["country", "age", "vip", "x", "enrichment"]), VALUES)


def unguarded(*sources: str) -> FilterSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters_module, "compile_guards", lambda _: None)
        return guarded(*sources)


def guarded(*sources: str) -> FilterSet:
    return filter_set(tuple(rule(f"r{number}", source) for number, source in enumerate(sources)))


def parsed(fields: dict[str, Any]) -> Event:
    return parse_event(record(json.dumps(event() | fields).encode(), b"u1"), NOW_MS, EventLimits())


def user_of(profile: dict[str, Any], enrichment: str = "fetched") -> UserState:
    return UserState(0, enrichment, json.dumps(profile).encode(), History(100))


def results(sources: list[str], fields: dict[str, Any], profile: dict[str, Any], enrichment: str) -> list[FilterResult]:
    """What comes of the rules with guards and without."""
    given_event, user, visit = parsed(fields), user_of(profile, enrichment), Visit("v", NOW_MS, 3, False)
    found = []
    for make in (guarded, unguarded):
        with closing(make(*sources)) as filters:
            found.append(filters.evaluate(given_event, visit, user))
    return found


def compiles(source: str) -> bool:
    try:
        guarded(source).close()
    except ValueError:
        return False
    return True


@given(
    st.lists(EXPRESSIONS, min_size=1, max_size=4),
    EVENTS,
    PROFILES,
    st.sampled_from(["fetched", "unknown", "pending"]),
)
def test_rules_come_to_the_same_with_and_without_guards(
    sources: list[str], fields: dict[str, Any], profile: dict[str, Any], enrichment: str
) -> None:
    sources = [source for source in sources if compiles(source)]
    with_guards, without = results(sources, fields, profile, enrichment)
    assert with_guards == without


# Conditions of which each can fail, on the profile {"age": value}; a guard must let Lua see it.
@pytest.mark.parametrize("age", [None, "18", True, [], {}, "", 17, 18, 0, -1, 2**53 + 1, 0.5])
@pytest.mark.parametrize(
    "term", ["user.age >= 18", "18 <= user.age", "user.age < 1", "user.age > -1", "user.age == 18"]
)
@pytest.mark.parametrize("later", ["event.triggerable", "user.missing", "nil.x", 'event.event_name == "b"'])
def test_a_comparison_that_fails_fails_although_a_later_term_is_false(age: Any, term: str, later: str) -> None:
    later = "missing.x" if later == "nil.x" else later
    with_guards, without = results([f"{term} and {later}", f"not {later} or {term}"], {}, {"age": age}, "fetched")
    assert with_guards == without


@pytest.mark.parametrize(
    ("source", "guard"),
    [
        ("event.triggerable", "event.triggerable"),
        ("event.triggerable and f(x)", "event.triggerable"),
        ("event.triggerable and (f(x) or g(x))", "event.triggerable"),
        ("event.triggerable and f(x) or g(x)", None),
        ("event.triggerable or f(x)", None),
        ("f(x) and event.triggerable", None),
        ("not event.triggerable == true", None),
        ("not user.x == nil", None),
        ("not event.triggerable and f(x)", "not (event.triggerable)"),
        ('event.event_name == "a" .. "b"', None),
        ('event.triggerable and event.event_name == "a" .. "b"', "event.triggerable"),
        ('event.event_name == "\\97"', None),
        ("event.event_name == [[a]]", None),
        ("event.triggerable --[[ ]] and f(x)", None),
        ("event.duration > 9007199254740993", None),
        ("return event.triggerable", None),
        ("event.mood == 1", None),
        ("event.parameters.n == 1", None),
        ("event.event_name < 1", None),
        ("event.triggerable.x", None),
        ("(event.triggerable).x", None),
        ("event.triggerable and " + "(" * 50 + "event.is_https" + ")" * 50, "event.triggerable"),
        (" and ".join(["event.is_https"] * 3000), None),
    ],
)
def test_a_guard_has_the_leading_terms_that_are_understood(source: str, guard: str | None) -> None:
    assert guard_of(source) == guard


def test_lua_is_called_for_the_rules_whose_guard_holds_and_for_those_without() -> None:
    filters = guarded('event.event_name == "a"', 'event.event_name == "b" and user.x == nil', "event.mood == nil")
    ran: list[Any] = []
    engine = filters._engine
    run = engine.run

    def noted(selected: Any, history: Any) -> Any:
        ran.append(selected)
        return run(selected, history)

    engine.run = noted  # type: ignore[method-assign]
    assert filters.evaluate(parsed({"event_name": "b"}), None, user_of({})).allowed == filters.rules[1:]
    assert filters.evaluate(parsed({"event_name": "c"}), None, user_of({})).allowed == filters.rules[2:]
    assert ran == [[1, 2], [2]]


def test_lua_is_not_called_where_no_guard_holds() -> None:
    filters = guarded('event.event_name == "a"', "event.triggerable")
    filters._engine.run = None  # type: ignore[method-assign, assignment]
    assert filters.evaluate(parsed({}), None, user_of({})) == FilterResult()
