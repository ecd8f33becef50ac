"""Carts that are filled and, every other one, checked out: sequences whose right outcome the producer knows."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Producer

from tests.faults.watched import Firing
from tests.integration.jobs import PARTITIONS

WITHIN_S = 10
# The latest that an event may reach Kafka after its timestamp so that the verdict is the one that the producer knows:
# half of --allowed_lateness_seconds.
_LATE_S = 5.0
RULE: dict[str, Any] = {
    "name": "abandoned",
    "filter": 'event.event_name == "add_to_cart"',
    "sequence": {"not_followed_by": 'event.event_name == "checkout"', "within": f"{WITHIN_S}s"},
}


@dataclass
class Carts:
    """A thread that fills ``rate`` carts a second, each of a user of its own, in all partitions alike.

    Every other user checks out within the sequence's time. While a partition has a producer in ``transactions``, its
    checkouts go there; which users these were is in ``in_transaction``.
    """

    chance: random.Random
    rate: float = 20.0
    filled: list[str] = field(default_factory=list)
    checked_out: set[str] = field(default_factory=set)
    transactions: dict[int, Producer] = field(default_factory=dict)
    in_transaction: dict[int, set[str]] = field(default_factory=dict)
    latest_s: float = 0.0

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, bootstrap_servers: str, topic: str) -> None:
        """Start to fill carts."""
        self._topic = topic
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "acks": "all", "log_level": 0}
        )
        self._thread = threading.Thread(target=self._run, name="carts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Fill no more carts. Returns when those that are to be checked out are."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            assert self._producer.flush(60) == 0
        assert self.latest_s <= _LATE_S, f"an event was written {self.latest_s:.1f} s late: nothing is shown"

    def abandoned(self) -> Counter[Firing]:
        """What the rule must fire for."""
        return Counter((str(RULE["name"]), f"{user}-add_to_cart") for user in set(self.filled) - self.checked_out)

    def _run(self) -> None:
        due: list[tuple[float, int, str]] = []  # checkouts
        next_s, number = time.time(), 0
        while due or not self._stopped.is_set():
            at_s = due[0][0] if due and (self._stopped.is_set() or due[0][0] <= next_s) else next_s
            if (wait_s := at_s - time.time()) > 0:
                self._producer.poll(0)
                time.sleep(min(wait_s, 0.1))
                continue
            if due and due[0][0] == at_s:
                _, partition, user = heapq.heappop(due)
                self._check_out(user, partition, at_s)
                continue
            user, partition = f"cart-{number:05d}", number % PARTITIONS
            self.filled.append(user)
            self._produce(self._producer, user, partition, "add_to_cart", at_s)
            if number // PARTITIONS % 2:
                heapq.heappush(due, (at_s + self.chance.uniform(0.5, WITHIN_S - 1), partition, user))
            number += 1
            next_s += 1 / self.rate

    def _check_out(self, user: str, partition: int, at_s: float) -> None:
        transaction = self.transactions.get(partition)
        if transaction is not None:
            self.in_transaction.setdefault(partition, set()).add(user)
        self.checked_out.add(user)
        self._produce(transaction or self._producer, user, partition, "checkout", at_s)

    def _produce(self, producer: Producer, user: str, partition: int, name: str, at_s: float) -> None:
        body = {"event_id": f"{user}-{name}", "user_id": user, "event_name": name, "timestamp": int(at_s * 1000)}
        producer.produce(self._topic, orjson.dumps(body), user.encode(), partition=partition)
        producer.poll(0)
        self.latest_s = max(self.latest_s, time.time() - at_s)
