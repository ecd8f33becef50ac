"""A load generator: events of made-up users to a Kafka topic at a steady rate."""

from __future__ import annotations

import threading
import time

import orjson
from confluent_kafka import Producer

from pipeline.embedded.stream import Visitors


class LoadGenerator:
    """Produces ``rate_hz`` events a second, keyed by user, while the context is open.

    The rate does not depend on the job. ``produced`` counts the events.
    """

    def __init__(self, bootstrap_servers: str, topic: str, rate_hz: float, users: int, seed: int = 7) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 5})
        self._topic = topic
        self._rate_hz = rate_hz
        self._visitors = Visitors(seed, users)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="load-generator")
        self.produced = 0

    def __enter__(self) -> LoadGenerator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._producer.flush(10)
        del self._producer  # closes it, before the broker ends and it complains

    def _run(self) -> None:
        started = time.monotonic()
        while not self._ending.is_set():
            due = int((time.monotonic() - started) * self._rate_hz)
            while self.produced < due:
                event = self._visitors.next_event(time.time_ns() // 1_000_000)
                # Each run numbers its events from 1, but a topic may hold those of earlier runs.
                event["event_id"] = f"{started:.0f}_{event['event_id']}"
                self._send(event["user_id"].encode(), orjson.dumps(event))
                self.produced += 1
            self._producer.poll(0)
            self._ending.wait(0.005)

    def _send(self, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key)
                return
            except BufferError:
                self._producer.poll(0.05)
