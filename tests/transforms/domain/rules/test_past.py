"""What rules' Lua asks of the history, and which fields histories keep for it."""

from __future__ import annotations

import random
import statistics
import time
from contextlib import closing
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, event, filter_set, published, rule, rule_sets
from tests.transforms.domain.rules.test_filters import allowed, evaluate
from tests.transforms.domain.shard.test_step import loaded
from transforms.adapters.lua.engines import Isolation, LuaEngines
from transforms.domain.rules.engine import Columns, Program
from transforms.domain.rules.history_fields import fields_read
from transforms.domain.rules.sets import RuleSet, decode_rule_set, encode_rule_set
from transforms.domain.users.history import Row

MINUTE_MS = 60_000


def past(minutes: float, name: str, **extra: Any) -> Row:
    return Row(int(NOW_MS - minutes * MINUTE_MS), f"e{minutes}", name, extra or None)


ROWS = [
    past(90, "view", parameters={"sku": "a", "price": 5}, platform="web"),
    past(30, "cart", parameters={"sku": "a"}),
    past(10, "view", parameters={"sku": "b", "price": 7}, platform="web"),
    past(9, "view", parameters={"sku": 1}),
    past(2, "view"),
    past(1, "buy", **{"parameters.sku": True, "parameters": {"sku": "c"}}),
    past(-5, "view", parameters={"sku": "late"}),  # the event that is evaluated is late
]


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_what_is_counted(isolation: Isolation) -> None:
    conditions = [
        "count{} == 7",
        'count{event="view"} == 5',
        'count{event="none"} == 0',
        'count{event="view", within="10m"} == 2',  # what is exactly ten minutes ago is over
        f'count{{event="view", within={10 * MINUTE_MS + 1}}} == 3',
        'count{within="1w"} == 6',
        'count{event="view", where=function(e) return e.parameters.sku == "b" end} == 1',
        'count{within="2h", where=function(e) return e.platform end} == 2',
        "count{where=function(e) return e.event_id == 'e2' and #e.event_name == 4 and e.timestamp < 1e14 end} == 1",
        'last{event="view", within="1h"}.event_id == "e2"',
        'last{event="view"}.event_id == "e-5"',
        'last{event="cart"}.parameters.sku == "a"',
        'last{event="none"} == nil',
        'last{event="view", within="1h", where=function(e) return e.parameters.price end}.parameters.price == 7',
        'distinct{of="parameters.sku"} == 5',  # a, b, 1, true (a name with a dot comes first), late
        'distinct{of="parameters.sku", event="view", within="2h"} == 3',
        'distinct{of="event_name"} == 3',
        'distinct{of="event_id", within="10m"} == 3',
        'distinct{of="platform"} == 1',
        'distinct{of="parameters.price", where=function(e) return e.platform == "web" end} == 2',
        'distinct{of="missing.name"} == 0',
        f"history_since == {NOW_MS - 90 * MINUTE_MS}",
        "x = 1 return history_since == history[1].timestamp and x == 1",
        'local e = last{event="buy"} e.mine = 1 return last{event="buy"}.mine == nil and e.mine == 1',
        "count{where=function(e) return count{event=e.event_name} > 1 end} == 5",
        "#history == 7 and count{event=event.event_name} == 0",
        "count = 3 last = {} return count == 3 and #last == 0",
    ]
    with closing(
        filter_set(tuple(rule(f"r{n}", source) for n, source in enumerate(conditions)), isolation=isolation)
    ) as filters:
        result = evaluate(filters, rows=ROWS)
    assert [message for _, message in result.errors] == []
    assert [conditions[int(each.name[1:])] for each in filters.rules if each not in result.allowed] == []


def test_without_a_history_there_is_nothing_before_the_event() -> None:
    assert all(allowed("count{} == 0", "last{} == nil", 'distinct{of="event_name"} == 0', f"history_since == {NOW_MS}"))


def test_counts_agree_with_a_search_of_all_rows() -> None:
    draw = random.Random(3)
    for _ in range(60):
        minutes = sorted(
            (draw.choice([draw.uniform(-10, 300), draw.randrange(0, 60)]) for _ in range(draw.randrange(100))),
            reverse=True,
        )
        rows = [
            Row(int(NOW_MS - m * MINUTE_MS), f"e{n}", draw.choice("ab"), {"p": draw.choice([1, "1", True, 2.5])})
            for n, m in enumerate(minutes)
        ]
        span, name = draw.randrange(1, 200), draw.choice("ab")
        chosen = [
            row for row in rows if row.event_name == name and NOW_MS - span * MINUTE_MS < row.timestamp_ms <= NOW_MS
        ]
        options = f'event="{name}", within="{span}m"'
        newest = "nil" if not chosen else f"'{chosen[-1].event_id}'"
        ps = [row.extra["p"] for row in chosen if row.extra]
        assert (
            allowed(
                f"count{{{options}}} == {len(chosen)}",
                f"count{{{options}, where=function(e) return e.p == 1 end}} == {sum(type(p) is int for p in ps)}",
                f"(last{{{options}}} or {{}}).event_id == {newest}",
                f'distinct{{{options}, of="p"}} == {len({(type(p), p) for p in ps})}',
                rows=rows,
            )
            == [True] * 4
        )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("count()", 'r:1: count: a nil where options are needed, as in count{event="view", within="10m"}'),
        ('count{evnt="view"}', "r:1: count: unknown 'evnt': allowed are event, within, where, as in count{"),
        ('last{of="x"}', "r:1: last: unknown 'of': allowed are event, within, where, as in"),
        ('count{"view"}', "r:1: count: unknown 1: allowed are event, within, where"),
        ("count{event=1}", "r:1: count: event is 1: allowed is the name of an event"),
        ("count{within='10 m'}", "r:1: count: within is '10 m': allowed are ms and a duration like 10m"),
        ("count{within='0m'}", "r:1: count: within is '0m': allowed are ms and a duration like 10m"),
        ("count{within=0}", "r:1: count: within is 0: allowed are ms and a duration like 10m"),
        ("count{within=0/0}", "r:1: count: within is nan: allowed are ms and a duration like 10m"),
        ("last{where=true}", "r:1: last: where is true: allowed is a function of a row"),
        ("distinct{}", "r:1: distinct: of is nil: allowed is a field of rows"),
        ('distinct{of="parameters"}', "r:1: distinct: of is 'parameters', an object or a list: allowed are fields"),
        ("count{where=function(e) return e.none.x end}", "r:1: attempt to index field 'none' (a nil value)"),
        ("count{where=function(e) while true do end end}", "over budget: more than 50 ms of CPU"),
        ("while true do count{} end", "over budget: more than 50 ms of CPU"),
        (
            "for i = 1, 1e9 do if count{event='x', within='1m'} > 0 then return 1 end end",
            "over budget: more than 50 ms of CPU",
        ),
    ],
)
def test_what_cannot_be_asked_is_an_error_of_the_rule(source: str, message: str) -> None:
    body = source if source.startswith(("while", "for")) else f"return {source} == 1"
    (found,) = evaluate(filter_set((rule("r", body),)), rows=ROWS).errors
    assert found[1].startswith(message)


@pytest.mark.slow
def test_a_count_of_100_rows_is_cheap() -> None:
    times = [NOW_MS - 1000 * (100 - number) for number in range(100)]
    history = Columns(times, [f"e{n}" for n in range(100)], ["view", "cart"] * 50, None)
    programs = [
        Program("none", "not history_since"),
        Program("many", " and ".join(['count{event="view", within="10m"} == 50'] * 8)),
    ]
    costs: dict[int, list[float]] = {0: [], 1: []}
    with closing(LuaEngines().engine(programs)) as engine:
        engine.set_inputs({}, {}, {}, "", [NOW_MS])
        assert len(engine.run([1], history)) == 1
        for _ in range(300):
            for number, cost in costs.items():
                started = time.thread_time_ns()
                engine.run([number], history)
                cost.append((time.thread_time_ns() - started) / 1000)
    one = (statistics.median(costs[1]) - statistics.median(costs[0])) / 8
    print(f"a count of 100 rows: {one:.1f} µs")
    assert one < 100


# The fields that a history keeps


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("#history > 5", []),
        ("event.parameters.sku == user.sku", []),
        ("row.parameters.sku == 1", []),  # asks nothing of the history
        ("history[#history].parameters.sku == event.parameters.x", ["parameters.sku"]),
        ("history[1].event_id == history[2].event_name", []),
        ('history[1]["a.b"] == "row.x.y" -- e.z', ["a.b"]),
        ("local e = history[1] local p = e.parameters return p.sku", ["parameters", "sku"]),
        (
            "for _, e in ipairs(history) do if e.parameters and e.parameters.sku == 1 then return 1 end end",
            ["parameters.sku"],
        ),
        ("count{where=function(e) return e.platform ~= nil and e['app'] == event.app end}", ["app", "platform"]),
        ('distinct{of="parameters.sku"} > 2', ["parameters.sku"]),
        ('last{event="x"}.parameters.total > 5', ["parameters.total"]),
        (
            "history[1].parameters.sku:lower() == 'x' and history[2].platform .. 'y' == 'z'",
            ["parameters.sku", "platform"],
        ),
    ],
)
def test_the_fields_that_lua_reads_of_past_events(source: str, fields: list[str]) -> None:
    assert list(fields_read([source])) == fields


VIEWS = 'count{event="page_view", where=function(e) return e.parameters.category == event.parameters.category end} == 1'


def test_fields_that_a_rule_reads_are_kept_without_an_option() -> None:
    shard = loaded(Shard(rule("r", VIEWS), history_fields=("platform",)), "u1")
    parameters = {"category": "hats", "price": 2}
    assert shard.step(batch(event("u1", event_id="a", parameters=parameters, platform="web"))).actions == []
    shard.restore()
    (action,) = shard.step(batch(event("u1", event_id="b", parameters=parameters))).actions
    row = orjson.loads(action.body)["eventHistory"][-1]
    assert (row["parameters"], row["platform"]) == ({"category": "hats"}, "web")


def test_without_a_rule_that_reads_them_no_fields_are_kept() -> None:
    shard = loaded(Shard(rule("r", "event.parameters.price == 2")), "u1")
    assert len(shard.step(batch(event("u1", event_id="a", parameters={"price": 2}))).actions) == 1
    assert shard.state.users["u1"].history.rows()[0].extra is None


def test_fields_that_a_body_names_of_past_events_are_kept() -> None:
    body = {"last": "${history[-1].parameters.sku|none}", "app": '${history[1]["app"]}', "all": "${history}"}
    shard = loaded(Shard(rule("r", actions=[{"type": "kafka", "body": body}])), "u1")
    shard.step(batch(event("u1", event_id="a", parameters={"sku": "s", "price": 1}, app="web")))
    (action,) = shard.step(batch(event("u1", event_id="b"))).actions
    sent = orjson.loads(action.body)
    assert (sent["last"], sent["app"]) == ("s", "")
    assert [sorted(row) for row in sent["all"]][-1] == ["app", "event_id", "event_name", "parameters", "timestamp"]


def test_the_fields_of_a_published_set_are_kept_from_its_arrival_on() -> None:
    shard = Shard(filters=rule_sets(RuleSet(0, (rule("r", "event.triggerable"),)), "rules"))
    loaded(shard, "u1")
    shard.step(batch(event("u1", event_id="a", parameters={"category": "hats"})))
    shard.step(published(1, rule("r", VIEWS, version=2)))
    shard.restore()
    kept = event("u1", event_id="b", parameters={"category": "hats"})
    assert shard.step(batch(kept)).actions == []  # what came before the set has no category
    assert len(shard.step(batch(kept | {"event_id": "c"})).actions) == 1
    assert [row.extra for row in shard.state.users["u1"].history.rows()][-3:-1] == [
        None,
        {"parameters": {"category": "hats"}},
    ]


def test_a_rule_with_everything_new_is_the_same_after_it_was_published() -> None:
    step = {"followed_by": "event.a", "within": "1h"}
    sequence = {"steps": [step, step], "match": {"begun": "a.b", "followed": "a[].b"}}
    made = rule("r", VIEWS, active={"from": "09:00"}, sequence=sequence)
    assert decode_rule_set(encode_rule_set(RuleSet(3, (made,)))) == RuleSet(3, (made,))
