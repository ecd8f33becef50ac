"""A shop's job on real Kafka and Flink with a Prometheus, and what goes wrong with it while it is watched."""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from pipeline.embedded.load import LoadGenerator
from pipeline.embedded.stream import Visitors
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.monitoring import LocalPrometheus
from tests.builders import user_api_of
from tests.integration.jobs import Topics, launch, running
from tests.integration.user_api import Gate, serve_users
from tests.receiver import SECRET, Receiver, receiving
from tests.waiting import again_and_again

HERE: Final = Path(__file__).parent
USERS: Final = 20_000
_RATE_HZ: Final = 200
_QUIET_MINUTES: Final = (3, 5)
_BEGUN_S: Final = 20
_DESTINATIONS: Final = ("crm", "mail", "partner")
_RULES_TOPIC: Final = "event-rules"


@dataclass
class Shop:
    """What runs, and how to disturb it."""

    topics: Topics
    api: Gate
    receiver: Receiver
    rules: Path

    def answer(self, destination: str, status: int, slow_s: float = 0.03) -> None:
        """Have a destination answer so, in up to ``slow_s``."""

        def answered() -> int:
            time.sleep(random.uniform(0.2, 1) * slow_s)
            return status

        self.receiver.answers[f"/{destination}"] = answered

    def fail_api(self, status: int | None) -> None:
        """Have the user API fail; None: no more."""
        self.api.status = status

    def send_rules(self, *command: str) -> None:
        """Run ``rules``: ``publish`` or ``rollback``."""
        servers = self.topics.kafka.bootstrap_servers
        done = launch("rules", *command, f"--rules_topic={_RULES_TOPIC}", f"--bootstrap_servers={servers}")
        assert done.returncode == 0, done.stderr

    @contextmanager
    def producing(self, rate_hz: float, seed: int) -> Iterator[None]:
        """Events of the shop's visitors."""
        with LoadGenerator(self.topics.kafka.bootstrap_servers, self.topics.events, rate_hz, USERS, seed):
            yield

    @contextmanager
    def burst(self, rate_hz: float) -> Iterator[None]:
        """So many more events."""
        with self.producing(rate_hz, seed=8):
            yield

    def misproducing(self) -> AbstractContextManager[None]:
        """Now and then a record that is no event, and an event that comes twice."""
        visitors, numbers = Visitors(9, USERS), itertools.count(1)

        def misproduce() -> None:
            number = next(numbers)
            event = visitors.next_event(time.time_ns() // 1_000_000) | {"event_id": f"odd-{number}"}
            key, value = event["user_id"].encode(), orjson.dumps(event)
            without_name = orjson.dumps({field: value for field, value in event.items() if field != "event_name"})
            self.topics.produce([[(key, value)] * 2, [(key, value[:99])], [(key, without_name)]][number % 3])

        return again_and_again(misproduce, lambda: random.uniform(0.2, 2))


@contextmanager
def open_shop(folder: Path) -> Iterator[tuple[Shop, LocalPrometheus]]:
    """All of it running, events included; ``folder`` is for files."""
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with ExitStack() as stack:
        api = Gate()
        api.delay_s = 0.02
        users = user_api_of(f"user_{number:05d}" for number in range(USERS))
        url = stack.enter_context(serve_users(users, api))
        receiver = stack.enter_context(receiving())
        topics = Topics(stack.enter_context(LocalKafka()), tag="shop")
        flink = stack.enter_context(LocalFlink(task_managers=1, slots=2))
        shop = Shop(topics, api, receiver, folder / "later")
        for destination in _DESTINATIONS:
            shop.answer(destination, 200)
        options = (
            f"--user_api_url={url}",
            f"--control_topic={topics.control}",
            f"--rules_topic={_RULES_TOPIC}",
            f"--destinations={_destinations(folder, receiver.url, secret)}",
            "--allow_private_destinations",
            "--parallelism=2",
            "--checkpointing_interval_ms=10000",
        )
        rules = _rules(folder)
        shop.send_rules("publish", str(rules))  # or there would be nothing to roll back to
        stack.enter_context(running(flink, topics, rules, *options))
        prometheus = stack.enter_context(LocalPrometheus(flink.metrics_urls))
        stack.enter_context(shop.producing(_RATE_HZ, seed=7))
        stack.enter_context(shop.misproducing())
        yield shop, prometheus


def happen(shop: Shop, minutes: float) -> tuple[float, float]:
    """Let ``minutes`` go by with their troubles; from when until when, Unix seconds."""
    time.sleep(_BEGUN_S)  # rates need a past
    start = time.time()
    with ExitStack() as burst:
        plan: list[tuple[float, str, Callable[[], object]]] = [
            (0.10, "a campaign: thrice the events", lambda: burst.enter_context(shop.burst(2 * _RATE_HZ))),
            (0.18, "the campaign is over", burst.close),
            (0.25, "rules with mistakes", lambda: shop.send_rules("publish", str(shop.rules))),
            (0.35, "mail is down", lambda: shop.answer("mail", 503)),
            (0.50, "mail is back", lambda: shop.answer("mail", 200)),
            (0.56, "the user API fails", lambda: shop.fail_api(503)),
            (0.62, "the user API is back", lambda: shop.fail_api(None)),
            (0.70, "rules without mistakes", lambda: shop.send_rules("rollback")),
            (0.75, "crm is slow", lambda: shop.answer("crm", 200, slow_s=1)),
            (0.85, "partner is gone", lambda: shop.answer("partner", 410)),
            (1.00, "enough", lambda: None),
        ]
        for share, label, do in plan:
            time.sleep(max(0, start + share * minutes * 60 - time.time()))
            print(f"{time.time() - start:4.0f} s  {label}", file=sys.stderr, flush=True)
            do()
    return start, time.time()


def _rules(folder: Path) -> Path:
    """The rules to begin with; beside them, in ``later``, those with mistakes too."""
    now = datetime.now(UTC)
    text = (HERE / "shop.yaml").read_text()
    for name, minutes in zip(("QUIET_FROM", "QUIET_UNTIL"), _QUIET_MINUTES, strict=True):
        text = text.replace(name, (now + timedelta(minutes=minutes)).strftime("%H:%M"))
    for name in ("first", "later"):
        (folder / name).mkdir()
        (folder / name / "shop.yaml").write_text(text)
    (folder / "later" / "mistakes.yaml").write_text((HERE / "mistakes.yaml").read_text())
    return folder / "first"


def _destinations(folder: Path, url: str, secret: Path) -> Path:
    retry = {"first": "2s", "longest": "10s", "give_up_after": "30s"}
    listed = [
        {"name": name, "url": f"{url}/{name}", "secrets": [f"file:{secret}"], "retry": retry} for name in _DESTINATIONS
    ]
    file = folder / "destinations.yaml"
    file.write_text(json.dumps({"destinations": listed}))  # YAML, too
    return file
