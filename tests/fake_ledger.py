"""A topic of the ledger of deliveries in memory, shared by the workers of a test."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from transforms.adapters.ledger.kafka_log import Done, Record, lease_clock


class FakeTopic:
    """Partitions by number; ``is_away``: nothing is answered, and what is appended waits."""

    def __init__(self) -> None:
        self.partitions: defaultdict[int, list[bytes]] = defaultdict(list)
        self.is_away = False
        self.lock = threading.Lock()


class FakeLog:
    """One worker's client of a ``FakeTopic``."""

    def __init__(self, topic: FakeTopic) -> None:
        self._topic = topic
        self._offsets: dict[int, int] = {}
        self._waiting: list[tuple[int, bytes, Done]] = []
        self._done: list[Callable[[], None]] = []
        self._ends: tuple[float, dict[int, int]] | None = None
        self.is_full = False

    def append(self, partition: int, value: bytes, done: Done) -> None:
        if self.is_full:
            done(False)
            return
        with self._topic.lock:
            self._waiting.append((partition, value, done))
        self._store()

    def _store(self) -> None:
        with self._topic.lock:
            if self._topic.is_away:
                return
            for partition, value, done in self._waiting:
                self._topic.partitions[partition].append(value)
                self._done.append(lambda done=done: done(True))
            self._waiting.clear()

    def follow(self, offsets: Mapping[int, int | None]) -> None:
        self._offsets = {partition: offset or 0 for partition, offset in offsets.items()}

    def read(self, timeout_s: float) -> list[Record]:
        self._store()
        done, self._done = self._done, []
        for report in done:
            report()
        with self._topic.lock:
            records = []
            for partition, offset in self._offsets.items() if not self._topic.is_away else ():
                values = self._topic.partitions[partition][offset:]
                records += [(partition, offset + number, value) for number, value in enumerate(values)]
                self._offsets[partition] += len(values)
        if not records:
            time.sleep(min(timeout_s, 0.005))
        return records

    def ask_ends(self, partitions: Collection[int]) -> None:
        with self._topic.lock:
            if not self._topic.is_away:
                ends = {partition: len(self._topic.partitions[partition]) for partition in partitions}
                self._ends = lease_clock(), ends

    def ends(self) -> tuple[float, dict[int, int]] | None:
        ends, self._ends = self._ends, None
        return ends
