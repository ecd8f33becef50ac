"""Random events of users in five zones around their changes of daylight saving time: late, early, repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.rules_oracle.language import DAY_MS, HOUR_MS, MINUTE_MS
from tests.rules_oracle.model import Received, User

ZONES = ("Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca")

# On each of these days at least one of the zones changes; Santiago at midnight, Lord Howe by half an hour.
CHANGES = (
    "2024-03-10",
    "2024-03-31",
    "2024-04-07",
    "2024-04-14",
    "2024-09-08",
    "2024-10-06",
    "2024-10-27",
    "2024-11-03",
)

NAMES = ("view", "view", "view", "cart", "cart", "checkout", "order", "pay", "rate", "search", "purchase")
FUNNELS = (
    ("view", "view", "cart", "cart", "checkout", "order", "pay", "rate"),
    ("view", "cart", "checkout", "pay", "view", "order", "pay", "view"),
    ("search", "view", "order", "purchase", "pay", "search", "cart", "checkout"),
    ("view", "view", "view", "view", "cart", "checkout", "cart", "order"),
)
SKUS = ("shoes", "hat", "bag", 7, 7.5, True, "7")
CATEGORIES = ("a", "b", "Grün")


@dataclass(frozen=True)
class Times:
    """How far an event's ``timestamp`` is from its record's time: in most cases little.

    ``repeated``: which of the user's newest events come again. ``without_time``: the share of records without one.
    """

    usual_late_ms: int = 9_000
    very_late_ms: int = 2 * DAY_MS
    early_ms: int = 6 * HOUR_MS
    repeated: int = 30
    without_time: float = 0.01


def users(count: int, seed: int) -> dict[str, User]:
    rng = random.Random(seed)
    return {f"user_{number}": _user(rng, number) for number in range(count)}


def _user(rng: random.Random, number: int) -> User:
    if number % 23 in (5, 9):
        return User(enrichment="unknown" if number % 23 == 5 else "unavailable")
    profile: dict[str, Any] = {"country": rng.choice(("DE", "US", "CL")), "timezone": ZONES[number % len(ZONES)]}
    if number % 17 == 3:
        profile["timezone"] = rng.choice(("Mars/Base", "", 5, None))
    if rng.random() < 0.7:
        profile["name"] = rng.choice(("Ada", "Grace \U0001f680", ""))
    if rng.random() < 0.7:
        profile["last_order"] = rng.choice(("2024-03-01", "2024-03-30T23:30:00+02:00", "2024-10-27T01:00:00"))
    profile["address"] = {"timezone": rng.choice(ZONES)}
    return User(profile)


def records(count: int, user_ids: list[str], seed: int, times: Times | None = None) -> Iterator[Received]:
    """The records, in the order in which Kafka gets them: sessions of eight, each about one purchase."""
    rng = random.Random(seed)
    times = times or Times()
    planned: list[tuple[int, str, str, dict[str, Any]]] = []
    for session in range(-(-count // 8)):
        begin_ms, user_id = _session_begin(rng, CHANGES[session * 8 * len(CHANGES) // count]), rng.choice(user_ids)
        about = _parameters(rng)
        names = rng.choice(FUNNELS) if rng.random() < 0.7 else rng.choices(NAMES, k=8)
        for name in names:
            begin_ms += rng.choice((0, 1, 1, 2, 5, 10, 29, 30, 31)) * MINUTE_MS
            begin_ms += rng.choice((0, 0, rng.randrange(60_000)))
            parameters = {**_parameters(rng), **about} if rng.random() < 0.7 else _parameters(rng)
            planned.append((begin_ms, user_id, name, parameters))
    planned.sort(key=lambda record: record[0])
    sent: dict[str, list[dict[str, Any]]] = {}
    for number, (record_ms, user_id, name, parameters) in enumerate(planned[:count]):
        past = sent.setdefault(user_id, [])
        if past and rng.random() < 0.05:
            event = rng.choice(past[-times.repeated :])
        else:
            event = _event(rng, record_ms, times)
            event |= {"event_id": f"e{number}", "user_id": user_id, "event_name": name, "parameters": parameters}
            past.append(event)
        yield Received(user_id, event, None if rng.random() < times.without_time else record_ms)


def _session_begin(rng: random.Random, day: str) -> int:
    noon = round(datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp() * 1000)
    return noon + rng.randrange(-36 * 60, 36 * 60) * MINUTE_MS


def _event(rng: random.Random, record_ms: int, times: Times) -> dict[str, Any]:
    chance = rng.random()
    if chance < 0.5:
        timestamp = record_ms
    elif chance < 0.9 or not times.very_late_ms:
        timestamp = record_ms - rng.randrange(times.usual_late_ms)
    elif chance < 0.97:
        timestamp = record_ms - rng.choice((rng.randrange(40) * MINUTE_MS, rng.randrange(times.very_late_ms)))
    else:
        timestamp = record_ms + rng.randrange(times.early_ms)
    event: dict[str, Any] = {"timestamp": timestamp}
    if rng.random() < 0.4:
        event["event_type"] = "pageview"
    if rng.random() < 0.3:
        event["platform"] = rng.choice(("web", "ios", None))
    if rng.random() < 0.1:
        event["campaign"] = "own field"
    return event


def _parameters(rng: random.Random) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    if rng.random() < 0.85:
        parameters["sku"] = rng.choice(SKUS)
    if rng.random() < 0.85:
        parameters["category"] = rng.choice(CATEGORIES)
    if rng.random() < 0.7:
        parameters["order_id"] = rng.randrange(2)
    if rng.random() < 0.5:
        parameters["price"] = rng.choice((5, 99.5, 100, 240, 0))
    if rng.random() < 0.4:
        parameters["items"] = [{"sku": rng.choice((*SKUS, None))} for _ in range(rng.randrange(4))]
    if rng.random() < 0.2:
        parameters["x-y"] = rng.choice(("code", {"a.b": 1}, None))
    return parameters
