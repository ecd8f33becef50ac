"""A seeded stream of realistic user-tracking events: visitors view pages, sometimes buy, and leave."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

# The time of the spec's example event.
FIRST_EVENT_MS: Final = 1_704_067_200_000

_PAGES: Final = (
    "home",
    "category/shoes",
    "category/bags",
    "product/1842",
    "product/2210",
    "product/977",
    "blog/size-guide",
)
_SOURCES: Final[tuple[dict[str, str], ...]] = (
    {"utm_source": "google", "utm_medium": "cpc", "utm_campaign": "spring_sale"},
    {"utm_source": "newsletter", "utm_medium": "email", "utm_campaign": "weekly"},
    {},
    {},
)
_PLATFORMS: Final = (("web", "web", "main_app"), ("ios", "sdk", "mobile_app"), ("android", "sdk", "mobile_app"))


@dataclass
class _Visitor:
    user_id: str
    visits: int = 0
    pages_left: int = 0
    page: str = ""
    campaign: dict[str, str] = field(default_factory=dict)
    platform: tuple[str, str, str] = _PLATFORMS[0]


class Visitors:
    """Users who produce events one at a time. The same seed gives the same events."""

    def __init__(self, seed: int, users: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a reproducible stream, not a secret
        self._visitors = [_Visitor(f"user_{number:05d}") for number in range(users)]
        # A few users make most events: weights fall with 1/rank.
        self._weights = [1 / (rank + 3) for rank in range(users)]
        self._count = 0

    def next_event(self, now_ms: int) -> dict[str, Any]:
        """The next event, with ``now_ms`` as its timestamp."""
        visitor = self._random.choices(self._visitors, self._weights)[0]
        first = visitor.pages_left == 0
        if first:
            self._start_visit(visitor)
        visitor.pages_left -= 1
        name, kind = self._choose_event(visitor, first)
        event = self._event(visitor, name, kind, now_ms)
        event["is_first_in_visit"] = first
        event["is_last_in_visit"] = visitor.pages_left == 0
        event["is_first_event"] = first and visitor.visits == 1
        return event

    def _start_visit(self, visitor: _Visitor) -> None:
        visitor.visits += 1
        visitor.pages_left = self._random.randint(2, 25)
        visitor.campaign = dict(self._random.choice(_SOURCES))
        visitor.platform = self._random.choice(_PLATFORMS)

    def _choose_event(self, visitor: _Visitor, first: bool) -> tuple[str, str]:
        if not first and visitor.page.startswith("product/") and self._random.random() < 0.25:
            return self._random.choice((("add_to_cart", "click"), ("checkout", "conversion")))
        visitor.page = self._random.choice(_PAGES)
        return "page_view", "pageview"

    def _event(self, visitor: _Visitor, name: str, kind: str, now_ms: int) -> dict[str, Any]:
        self._count += 1
        platform, integration, app = visitor.platform
        return {
            "event_id": f"evt_{self._count:08d}",
            "user_id": visitor.user_id,
            "domain": "shop.example.com",
            "is_current": True,
            "event_name": name,
            "event_displayname": name.replace("_", " ").title(),
            "integration": integration,
            "app": app,
            "platform": platform,
            "is_https": True,
            "event_type": kind,
            "duration": self._random.randint(0, 90_000),
            "timestamp": now_ms,
            "triggerable": name != "page_view" or self._random.random() < 0.1,
            "parameters": {
                "custom_params": {
                    "page_title": visitor.page.title(),
                    "page_url": f"https://shop.example.com/{visitor.page}",
                    "referrer": "https://www.example.org/search?q=running+shoes",
                },
                **visitor.campaign,
            },
        }


def bundled_records(seed: int = 7, users: int = 150, events: int = 2400) -> Iterator[tuple[bytes, bytes]]:
    """``(key, value)`` of each record of the bundled stream; one in a hundred is no valid event."""
    chance = random.Random(seed)  # noqa: S311 - a reproducible stream, not a secret
    visitors = Visitors(seed, users)
    now_ms = FIRST_EVENT_MS
    for number in range(events):
        now_ms += chance.randint(20, 2000)
        event = visitors.next_event(now_ms)
        key = event["user_id"].encode()
        yield (key, orjson.dumps(event)) if number % 100 != 99 else _invalid_record(event, key, number // 100)


def _invalid_record(event: dict[str, Any], key: bytes, kind: int) -> tuple[bytes, bytes]:
    value = orjson.dumps(event)
    return (
        (key, value[: len(value) // 2]),  # cut off: not JSON
        (key, orjson.dumps({name: part for name, part in event.items() if name != "event_id"})),
        (key, orjson.dumps(event | {"timestamp": "yesterday"})),
        (b"somebody_else", value),
        (key, orjson.dumps(event | {"parameters": {"custom_params": {"note": "x" * 12_000}}})),
    )[kind % 5]
