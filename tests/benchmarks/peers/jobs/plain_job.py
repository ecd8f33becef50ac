"""The speed of light: a loop around confluent-kafka and a dict. No state survives it.

An event's offset is stored once its action has been handed to the producer, and committed in the background after
that has been flushed, so actions are at least once. After a crash every user is fetched anew.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer
from user_actions import HISTORY, TTL_S, UserApi, action, advance_visit, allows, row_of


class User:
    """What is known of a user."""

    __slots__ = ("profile", "rows", "seen_s", "visit")

    def __init__(self, api: UserApi, user_id: str) -> None:
        fetched = api.fetch(user_id)
        self.profile, self.visit = fetched.profile, fetched.visit
        self.rows: deque[str] = deque(fetched.rows, maxlen=HISTORY)
        self.seen_s = 0.0


def forget_idle(users: dict[str, User], now_s: float) -> None:
    """Drop who has not been seen for the TTL."""
    for user_id in [user_id for user_id, user in users.items() if now_s - user.seen_s > TTL_S]:
        del users[user_id]


def handle(users: dict[str, User], api: UserApi, value: bytes, now_s: float) -> bytes | None:
    """One event; the action's body if the rule fires."""
    event: dict[str, Any] = orjson.loads(value)
    user_id = event["user_id"]
    user = users.get(user_id)
    if user is None:
        user = users[user_id] = User(api, user_id)
    user.seen_s = now_s
    advance_visit(user.visit, event)
    body = action(event, user.profile, user.visit, user.rows) if allows(event, user.profile) else None
    user.rows.append(row_of(event))
    return body


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "events", "actions", "group", "user_api"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap, "group.id": given.group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 6000, "fetch.wait.max.ms": 10,
        }
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": given.bootstrap, "linger.ms": 1})
    api = UserApi(given.user_api)
    users: dict[str, User] = {}
    consumer.subscribe([given.events])
    committed_s = time.monotonic()
    while True:
        messages = consumer.consume(1000, 0.005)
        now_s = time.monotonic()
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(message.error())
            body = handle(users, api, message.value(), now_s)
            if body is not None:
                producer.produce(given.actions, body, message.key())
        producer.poll(0)
        if now_s - committed_s > 5:
            producer.flush()
            consumer.commit(asynchronous=True)
            forget_idle(users, now_s)
            committed_s = now_s


if __name__ == "__main__":
    main()
