"""Rules that use the whole language, each said twice: as a document with Lua, and in Python for the oracle."""

from __future__ import annotations

from typing import Any

from tests.rules_oracle.language import DAY_MS, HOUR_MS, MINUTE_MS, Asked, Hours, Json, bucket, days_between, field_of
from tests.rules_oracle.model import Lua, OracleRule, Step

_OFFICE_DAYS = ("mon", "tue", "wed", "thu", "fri")
_RULES: list[tuple[Json, OracleRule]] = []


def documents() -> list[Json]:
    """The rules as a rule file has them."""
    action = {"type": "kafka", "name": "kafka"}
    return [
        {"version": rule.version, **document, "name": rule.name, "actions": [_with_body(action, rule.body)]}
        for document, rule in _RULES
    ]


def oracle_rules() -> list[OracleRule]:
    return [rule for _, rule in _RULES]


def _with_body(action: Json, body: Json | None) -> Json:
    return action if body is None else {**action, "body": body}


def _rule(name: str, allows: Lua, document: Json, **fields: Any) -> None:
    _RULES.append((document, OracleRule(name, allows, **fields)))


def named(name: str) -> Lua:
    return lambda asked: asked.name == name


def _same_category(asked: Asked) -> Any:
    def counts(row: Json) -> bool:
        return bool(field_of(row, "parameters.category") == asked.parameters.get("category"))

    return (
        asked.name == "view"
        and asked.count(event="view", within=10 * MINUTE_MS, where=counts) >= 1
        and asked.count(event="purchase", within=10 * MINUTE_MS) == 0
    )


def _first_item(asked: Asked) -> Any:
    items = asked.parameters["items"]
    return items[0]["sku"] == "hat" if items else _fails()


def _fails() -> None:
    raise TypeError


def _is_cheaper(asked: Asked) -> Any:
    return (
        asked.name != "view"
        and asked.begun is not None
        and asked.parameters["price"] < asked.begun["parameters"]["price"]
        and asked.count(event="checkout") > 0
    )


def _last_view_differs(asked: Asked) -> Any:
    viewed = asked.last(event="view")
    return (
        asked.name == "view"
        and viewed is not None
        and asked.distinct(of="parameters.sku", within=HOUR_MS) >= 2
        and viewed["parameters"].get("sku") != asked.parameters.get("sku")
    )


_rule(
    "win_back",
    lambda asked: (
        asked.name == "order"
        and asked.user.get("last_order") is not None
        and days_between(asked.user["last_order"], asked.local_time.date) >= 7
    ),
    {
        "filter": (
            'event.event_name == "order" and user.last_order and days_between(user.last_order, local_time.date) >= 7'
        ),
        "cap": {"count": 1, "per": "month"},
    },
    body={"who": "${event.user_id}", "text": "Hello ${user.name|there}, since ${user.last_order}"},
    cap_count=1,
    cap_per="month",
)
_rule(
    "cart_of_several",
    named("cart"),
    {
        "filter": 'event.event_name == "cart"',
        "sequence": {
            "not_followed_by": 'event.event_name == "checkout"',
            "within": "30m",
            "match": {"begun": "parameters.sku", "followed": "parameters.items[].sku"},
        },
        "cap": {"count": 3, "window": "1d"},
    },
    body={"sku": "${event.parameters.sku}", "begun": "${begun.event_id}", "country": "${user.country}"},
    steps=(Step("not_followed_by", named("checkout"), 30 * MINUTE_MS),),
    match=("parameters.sku", "parameters.items[].sku"),
    cap_count=3,
    cap_window_ms=DAY_MS,
)
_rule(
    "one_offer_a_day",
    named("view"),
    {
        "filter": 'event.event_name == "view"',
        "cap": {"count": 1, "per": "day"},
        "quiet_hours": {"start": "22:00", "end": "08:00"},
    },
    body={"event": "${event}", "at": "${event.timestamp}"},
    cap_count=1,
    cap_per="day",
    quiet=Hours("22:00", "08:00"),
)
_rule(
    "office_hours",
    lambda asked: asked.user.get("country") == "DE",
    {
        "filter": 'user.country == "DE"',
        "active": {"days": list(_OFFICE_DAYS), "from": "09:00", "to": "17:00"},
        "cooldown": "30m",
    },
    active=Hours("09:00", "17:00", _OFFICE_DAYS),
    cooldown_ms=30 * MINUTE_MS,
)
_rule(
    "weekend_nights",
    lambda asked: True,
    {
        "filter": "true",
        "active": {"days": ["fri", "sat", "sun"], "from": "22:00", "to": "02:30"},
        "cap": {"count": 2, "per": "week"},
    },
    body={"id": "${action.rule}/${action.version}/${event.event_id}"},
    version=3,
    active=Hours("22:00", "02:30", ("fri", "sat", "sun")),
    cap_count=2,
    cap_per="week",
)
_rule(
    "holdout",
    lambda asked: bucket(asked.event["user_id"], "holdout") >= 10 and bucket(asked.event["event_id"], asked.name) < 25,
    {
        "filter": 'bucket(event.user_id, "holdout") >= 10 and bucket(event.event_id, event.event_name) < 25',
        "quiet_hours": {"start": "00:00", "end": "24:00", "days": ["sat", "sun"], "mode": "drop"},
        "cooldown": "10m",
    },
    body={"name": "${event.event_name}"},
    quiet=Hours("00:00", "24:00", ("sat", "sun"), "drop"),
    cooldown_ms=10 * MINUTE_MS,
)
_rule(
    "two_views_of_a_category",
    _same_category,
    {
        "filter": (
            'event.event_name == "view" and count{event="view", within="10m", where=function(e)\n'
            "  return e.parameters.category == event.parameters.category\n"
            'end} >= 1 and count{event="purchase", within="10m"} == 0'
        ),
    },
    body={"category": "${event.parameters.category}", "before": "${history[-1].event_name}"},
)
_rule(
    "paid_and_not_rated",
    named("order"),
    {
        "filter": 'event.event_name == "order"',
        "sequence": {
            "steps": [
                {"followed_by": 'event.event_name == "pay"', "within": "1h"},
                {"not_followed_by": 'event.event_name == "rate"', "within": "2h"},
            ],
            "match": "parameters.order_id",
        },
        "quiet_hours": {"start": "21:30", "end": "02:15"},
    },
    body={"order": "${event.parameters.order_id}", "begun": "${begun.event_id}"},
    steps=(
        Step("followed_by", named("pay"), HOUR_MS),
        Step("not_followed_by", named("rate"), 2 * HOUR_MS),
    ),
    match=("parameters.order_id", "parameters.order_id"),
    quiet=Hours("21:30", "02:15"),
)
_rule(
    "three_steps",
    named("view"),
    {
        "filter": 'event.event_name == "view"',
        "sequence": {
            "steps": [
                {"followed_by": 'event.event_name == "cart"', "within": "30m"},
                {"followed_by": 'event.event_name == "checkout"', "within": "1h"},
                {"followed_by": 'event.event_name == "order"', "within": "1h"},
            ],
        },
    },
    body={"begun": "${begun.event_id}", "now": "${event.event_id}"},
    steps=(
        Step("followed_by", named("cart"), 30 * MINUTE_MS),
        Step("followed_by", named("checkout"), HOUR_MS),
        Step("followed_by", named("order"), HOUR_MS),
    ),
)
_rule(
    "checked_out",
    named("cart"),
    {
        "filter": 'event.event_name == "cart"',
        "sequence": {
            "followed_by": 'event.event_name == "checkout"',
            "within": "30m",
            "match": {"begun": "parameters.sku", "followed": "parameters.items[].sku"},
        },
    },
    body={"begun": "${begun.event_id}", "skus": "${event.parameters.items}"},
    steps=(Step("followed_by", named("checkout"), 30 * MINUTE_MS),),
    match=("parameters.sku", "parameters.items[].sku"),
)
_rule(
    "cart_then_cart",
    named("cart"),
    {
        "filter": 'event.event_name == "cart"',
        "sequence": {"followed_by": 'event.event_name == "cart"', "within": "10m"},
        "cooldown": {"time": "1h", "key": "event.parameters.sku"},
    },
    body={"begun": "${begun.event_id}", "sku": "${begun.parameters.sku}"},
    steps=(Step("followed_by", named("cart"), 10 * MINUTE_MS),),
    cooldown_ms=HOUR_MS,
    cooldown_key=lambda asked: asked.parameters["sku"],
)
_rule(
    "known_users",
    lambda asked: asked.name == "search" and asked.user.get("country") is not None,
    {
        "filter": 'event.event_name == "search" and user.country',
        "on_missing_profile": "skip",
        "sequence": {"not_followed_by": 'event.event_name == "view"', "within": "10m"},
        "cap": {"count": 1, "per": "day"},
    },
    body={"user": "${user}", "enrichment": "${enrichment}"},
    on_missing_profile="skip",
    steps=(Step("not_followed_by", named("view"), 10 * MINUTE_MS),),
    cap_count=1,
    cap_per="day",
)
_rule(
    "differs_from_last_view",
    _last_view_differs,
    {
        "filter": (
            'local viewed = last{event="view"}\n'
            'return event.event_name == "view" and viewed ~= nil'
            ' and distinct{of="parameters.sku", within="1h"} >= 2'
            " and viewed.parameters.sku ~= event.parameters.sku"
        ),
        "cooldown": {"time": "2h", "key": "event.event_name"},
        "cap": {"count": 2, "window": "6h"},
    },
    body={"first": "${history[1].event_id}", "third": "${history[-3].parameters.sku|none}"},
    cooldown_ms=2 * HOUR_MS,
    cooldown_key=lambda asked: asked.name,
    cap_count=2,
    cap_window_ms=6 * HOUR_MS,
)
_rule(
    "sees_far_back",
    lambda asked: asked.event["timestamp"] - asked.history_since >= HOUR_MS and asked.count() >= 5,
    {
        "filter": "event.timestamp - history_since >= 3600000 and count{} >= 5",
        "cap": {"count": 1, "window": "6h"},
    },
    body={"since": "${history[1].timestamp}"},
    cap_count=1,
    cap_window_ms=6 * HOUR_MS,
)
_rule(
    "second_hour",
    lambda asked: asked.local_time.hour in (1, 2) and asked.local_time.minute >= 15 and asked.local_time.weekday >= 6,
    {
        "filter": (
            "(local_time.hour == 1 or local_time.hour == 2) and local_time.minute >= 15 and local_time.weekday >= 6"
        ),
        "time_zone": {"profile_field": "address.timezone", "default": "Asia/Kolkata"},
        "cap": {"count": 2, "per": "day"},
    },
    body={"user": "${event.user_id}"},
    zone_field="address.timezone",
    zone_default="Asia/Kolkata",
    cap_count=2,
    cap_per="day",
)
_rule(
    "placeholders",
    lambda asked: asked.name == "rate",
    {"filter": 'event.event_name == "rate"'},
    body={
        "whole": "${event.parameters}",
        "code": '${event.parameters["x-y"]}',
        "dots": '${event.parameters["x-y"]["a.b"]|no code}',
        "price": "$${event.parameters.price}",
        "number": "${event.parameters.price|0}",
        "literal": '${"${"}name}',
        "text": "${user.name|there}: ${event.parameters.items[1].sku}/${event.campaign}/${event.is_current}",
        "list": ["${event.parameters.items[-1]}", {"country": "${user.country|}"}],
        "constant": 5,
    },
)
_rule(
    "first_item",
    _first_item,
    {"filter": 'event.parameters.items[1].sku == "hat"', "cooldown": "10m"},
    body={"id": "${event.event_id}"},
    cooldown_ms=10 * MINUTE_MS,
)
_rule(
    "sunday_gap",
    lambda asked: asked.name in ("purchase", "pay"),
    {
        "filter": 'event.event_name == "purchase" or event.event_name == "pay"',
        "quiet_hours": {"start": "23:30", "end": "02:30", "days": ["sat"]},
    },
    body={"id": "${event.event_id}"},
    quiet=Hours("23:30", "02:30", ("sat",)),
)
_rule(
    "back_to_view",
    named("view"),
    {
        "filter": 'event.event_name == "view"',
        "sequence": {"not_followed_by": 'event.event_name ~= "search"', "within": "1h"},
        "active": {"from": "06:00", "to": "23:00"},
        "quiet_hours": {"start": "01:45", "end": "02:15", "mode": "drop"},
    },
    body={"id": "${event.event_id}", "pages": "${visit.page_count}", "last": "${history[-1].event_id}"},
    steps=(Step("not_followed_by", lambda asked: asked.name != "search", HOUR_MS),),
    active=Hours("06:00", "23:00"),
    quiet=Hours("01:45", "02:15", mode="drop"),
)
_rule(
    "bought_again",
    named("order"),
    {
        "filter": 'event.event_name == "order"',
        "sequence": {
            "followed_by": 'event.event_name == "purchase" and event.parameters.price > 10',
            "within": "31m",
            "match": "parameters.order_id",
        },
        "cap": {"count": 2, "per": "day"},
        "cooldown": "5m",
    },
    body={"begun": "${begun.event_id}", "order": "${begun.parameters.order_id}"},
    steps=(
        Step("followed_by", lambda asked: asked.name == "purchase" and asked.parameters["price"] > 10, 31 * MINUTE_MS),
    ),
    match=("parameters.order_id", "parameters.order_id"),
    cap_count=2,
    cap_per="day",
    cooldown_ms=5 * MINUTE_MS,
)
_rule(
    "third_page",
    lambda asked: asked.page_count % 3 == 0 and asked.event["event_type"] == "pageview",
    {"filter": 'event.event_type == "pageview" and visit.page_count % 3 == 0'},
    body={"pages": "${visit.page_count}", "start": "${visit.start_time}"},
)
_rule(
    "order_of_several",
    named("cart"),
    {
        "filter": 'event.event_name == "cart"',
        "sequence": {
            "steps": [
                {"followed_by": 'event.event_name == "checkout"', "within": "1h"},
                {"followed_by": 'event.event_name == "pay"', "within": "30m"},
                {"not_followed_by": 'event.event_name == "rate"', "within": "1h"},
            ],
            "match": {"begun": "parameters.sku", "followed": "parameters.items[].sku"},
        },
    },
    body={"begun": "${begun.event_id}", "sku": "${event.parameters.sku}"},
    steps=(
        Step("followed_by", named("checkout"), HOUR_MS),
        Step("followed_by", named("pay"), 30 * MINUTE_MS),
        Step("not_followed_by", named("rate"), HOUR_MS),
    ),
    match=("parameters.sku", "parameters.items[].sku"),
)
_rule(
    "reminder",
    named("view"),
    {
        "filter": 'event.event_name == "view"',
        "cap": {"count": 2, "per": "day"},
        "quiet_hours": {"start": "16:00", "end": "10:30"},
        "recheck": (
            'count{event="purchase", within="12h"} == 0 and event.parameters.price < 200'
            " and (local_time.hour == 10 and visit.page_count < 20 or history_since < event.timestamp)"
        ),
    },
    body={"id": "${event.event_id}", "last": "${history[-1].event_id}"},
    cap_count=2,
    cap_per="day",
    quiet=Hours("16:00", "10:30"),
    recheck=lambda asked: (
        asked.count(event="purchase", within=12 * HOUR_MS) == 0
        and asked.parameters["price"] < 200
        and ((asked.local_time.hour == 10 and asked.page_count < 20) or asked.history_since < asked.event["timestamp"])
    ),
)
_rule(
    "cheaper_now",
    named("cart"),
    {
        "filter": 'event.event_name == "cart"',
        "sequence": {
            "steps": [
                {"followed_by": 'event.event_name == "checkout"', "within": "1h"},
                {
                    "followed_by": (
                        'event.event_name ~= "view" and event.parameters.price < begun.parameters.price'
                        ' and count{event="checkout"} > 0'
                    ),
                    "within": "2h",
                },
            ],
            "match": {"begun": "parameters.sku", "followed": "parameters.items[].sku"},
        },
    },
    body={"begun": "${begun.parameters.price}", "now": "${event.parameters.price}", "was": "${begun.event_id}"},
    steps=(
        Step("followed_by", named("checkout"), HOUR_MS),
        Step("followed_by", _is_cheaper, 2 * HOUR_MS, reads_begun=True),
    ),
    match=("parameters.sku", "parameters.items[].sku"),
)
