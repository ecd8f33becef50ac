"""Produces events at a steady rate and keeps a ledger of the records that the broker has confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from confluent_kafka import KafkaError, Message, Producer

Record = tuple[bytes, bytes]


class Load:
    """A thread that produces ``stream`` at ``rate`` records a second.

    The ledger holds partition, offset, key, value and time (seconds since the epoch) of each confirmed record. The
    producer is idempotent, so that a broker that dies makes no repeats and no other order.
    """

    def __init__(self, bootstrap_servers: str, topic: str, stream: Iterator[Record], rate: float) -> None:
        self.ledger: list[tuple[int, int, bytes, bytes, float]] = []
        self.errors: list[str] = []
        self.rate = rate
        self._topic, self._stream = topic, stream
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": 600_000,
                "log_level": 0,  # brokers are stopped on purpose
            }
        )
        self._produced = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start producing, again after ``stop``."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop producing. Returns when every record is confirmed; a second call does nothing."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        unconfirmed = self._producer.flush(120)
        assert unconfirmed == 0, f"{unconfirmed} records were not confirmed within 120 s"

    def finish(self, least: int) -> None:
        """Stop, then produce without a pause until there are ``least`` records."""
        self.stop()
        for _ in range(max(0, least - self._produced)):
            self._produce()
            if self._produced % 500 == 0:
                self._producer.poll(0)
        self.stop()
        assert self.errors == []

    def records(self, first: int = 0, last: int | None = None) -> list[Record]:
        """Key and value of the confirmed records from ``first`` to ``last``, each partition in its order."""
        return [(key, value) for _, _, key, value, _ in sorted(self.ledger[first:last])]

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._stopped.is_set():
            self._produce()
            self._producer.poll(0)
            next_s += 1 / self.rate
            self._stopped.wait(max(0.0, next_s - time.monotonic()))

    def _produce(self) -> None:
        key, value = next(self._stream)
        while True:
            try:
                self._producer.produce(self._topic, value, key, on_delivery=self._confirmed)
                break
            except BufferError:
                self._producer.poll(0.1)
        self._produced += 1

    def _confirmed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.errors.append(str(error))
        else:
            at_s = message.timestamp()[1] / 1000
            self.ledger.append((message.partition(), message.offset(), message.key(), message.value(), at_s))
