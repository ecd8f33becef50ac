"""Events to a topic, from a process of its own: ``python -m tests.benchmarks.peers.load``.

``--count`` fills a topic as fast as it goes; ``--rate`` and ``--seconds`` are an open loop: it keeps its schedule and
waits for nobody. Prints one line of JSON: ``sent``, ``started_ms``, ``ended_ms`` and ``late_ms``, how far the loop
itself fell behind its schedule at worst. SIGTERM ends it early, with everything sent.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from confluent_kafka import Producer

from tests.benchmarks.peers.workload import Workload, encode

_TICK_S = 0.002


class Sender:
    """Produces a workload's events, counted."""

    def __init__(self, bootstrap_servers: str, topic: str, run: int, linger_ms: int) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 200_000,
            }
        )
        self._topic, self._run = topic, run
        self.sent = 0
        self.ending = False

    def send(self, events: Iterator[tuple[bytes, bool]], count: int) -> None:
        """Produce so many of the events, stamped now."""
        for user, triggerable in itertools.islice(events, count):
            value = encode(self._run, self.sent, user, triggerable, time.time_ns() // 1_000_000)
            while True:
                try:
                    self._producer.produce(self._topic, value, user)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self.sent += 1
            if self.sent % 1000 == 0:
                self._producer.poll(0)

    def poll(self) -> None:
        """Let the client work."""
        self._producer.poll(0)

    def close(self) -> None:
        """Wait until the broker has everything."""
        left = self._producer.flush(120)
        if left:
            raise RuntimeError(f"{left} of {self.sent} events did not reach the broker")


def paced(sender: Sender, events: Iterator[tuple[bytes, bool]], rate: float, seconds: float) -> float:
    """Send at a steady rate; by how many ms the loop was late at worst."""
    started, late_s = time.monotonic(), 0.0
    while (elapsed := time.monotonic() - started) < seconds and not sender.ending:
        due = int(elapsed * rate) - sender.sent
        late_s = max(late_s, due / rate - _TICK_S)
        sender.send(events, due)
        sender.poll()
        time.sleep(_TICK_S)
    return late_s * 1000


def command(
    bootstrap_servers: str, topic: str, workload: Workload, run: int, *, first: bool = False, count: int = 0,
    rate: float = 0.0, seconds: float = 0.0,
) -> list[str]:  # fmt: skip
    """The command line of such a process. ``first`` puts one event of every user before the rest."""
    return [
        sys.executable, "-m", "tests.benchmarks.peers.load", f"--bootstrap={bootstrap_servers}", f"--topic={topic}",
        f"--keys={workload.keys}", f"--users={workload.users}", f"--misses={workload.misses}",
        f"--seed={workload.seed}", f"--run={run}", f"--count={count}", f"--rate={rate}", f"--seconds={seconds}",
        *(["--first"] if first else []),
    ]  # fmt: skip


def result(process: subprocess.Popen[bytes], deadline_s: float) -> dict[str, float]:
    """What such a process printed when it had ended."""
    out, _ = process.communicate(timeout=deadline_s)
    if process.returncode:
        raise RuntimeError(f"the load ended with {process.returncode}")
    return dict(json.loads(out))


def main() -> None:
    """Send and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "topic", "keys"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("users", "seed", "run", "count"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("misses", "rate", "seconds"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--first", action="store_true")
    given = parser.parse_args()
    workload = Workload(given.keys, given.users, given.misses, given.seed)
    sender = Sender(given.bootstrap, given.topic, given.run, 5 if given.rate else 20)
    signal.signal(signal.SIGTERM, lambda *_: setattr(sender, "ending", True))
    events = workload.events(given.run)
    started_ms, late_ms = time.time_ns() // 1_000_000, 0.0
    if given.first:
        sender.send(workload.first_events(), workload.users)
    sender.send(events, given.count)
    if given.rate:
        late_ms = paced(sender, events, given.rate, given.seconds)
    sender.close()
    told = {"sent": sender.sent, "started_ms": started_ms, "ended_ms": time.time_ns() // 1_000_000, "late_ms": late_ms}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
