"""What a ledger of deliveries costs webhooks: ``make bench-ledger``, or ``python -m tests.benchmarks.ledger``.

A receiver in a process of its own answers after 20 ms, 8 calls at a time; a broker of librdkafka's mock cluster, in
another, takes the records. By turns, without a ledger and with one:

- *as fast as it goes*: everything is requested at once; webhooks a second, and CPU a webhook;
- *200 a second*: requested at a steady rate; time from the request to the receiver's answer.

The machine is shared, so its load is printed too. Figures of a run are in docs/measurements/ledger.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Final

from confluent_kafka import Producer

from tests.benchmarks.webhooks import receiver
from tests.integration.jobs import ROOT
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger, ShardLedger
from transforms.adapters.ledger.kafka_log import KafkaLog
from transforms.adapters.telemetry.metrics import WorkerMetrics
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.adapters.webhook_sender.sender import SendDone, Sender, webhook_transport
from transforms.domain.webhooks.delivery_queue import Delivery
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import SendResult
from transforms.domain.webhooks.url_policy import EgressPolicy

_SHARDS: Final = 4  # as many partitions as the mock cluster makes
_LATENCY_MS: Final = 20
_IN_FLIGHT: Final = 8
_STEADY_PER_S: Final = 200
_POLL_S: Final = 0.01  # as often as a busy shard has a batch
_POLICY: Final = EgressPolicy(allow_private=True)
_BODY: Final = b'{"event":{"event_id":"' + b"x" * 2_000 + b'"}}'
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_PAGE: Final = ROOT / "docs" / "measurements" / "ledger.md"
_HEADING: Final = """# What a ledger of deliveries costs

One worker sends webhooks of 2 KB to a receiver in another process that answers after 20 ms, 8 calls at a time, which
makes 400 a second at most. By turns without and with a [ledger](../delivery.md#the-ledger-of-deliveries): all webhooks
at once, then 200 a second at a steady rate, of which the page has the time from the request to the answer.
`make bench-ledger ARGS=--write` measures and writes this page.
"""


class _TimedSender(Sender):
    """Notes when an answer came."""

    ended_s: dict[str, float]

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: object = None) -> None:
        def note(result: SendResult) -> None:
            self.ended_s[webhook_id] = time.monotonic()
            done(result)

        super().start(webhook_id, body, note, may_send)  # type: ignore[arg-type]


class Worker:
    """What a worker has for webhooks, and one thread that does what its shards do."""

    def __init__(self, port: int) -> None:
        destination = Destination(
            name="crm",
            url=f"http://127.0.0.1:{port}/",
            secrets=("env:BENCHMARK_KEY",),
            max_in_flight=_IN_FLIGHT,
        )
        self.io = IoThread("webhooks")
        self._sender = _TimedSender(destination, _POLICY, self.io, webhook_transport(self.io, _POLICY))
        self._pool = SendPool([destination], _POLICY, max_waiting=10_000, io=self.io, sender=lambda _: self._sender)
        self._runs = 0

    def run(self, calls: int, per_s: float | None, shards: list[ShardLedger] | None) -> list[float]:
        """Send so many webhooks; returns the seconds of each until its answer."""
        self._runs += 1
        self._sender.ended_s = {}
        requested_s: dict[str, float] = {}
        waiting: dict[int, set[str]] = {number: set() for number in range(_SHARDS)}
        next_s = time.monotonic()
        while len(requested_s) < calls or any(waiting.values()):
            while len(requested_s) < calls and (per_s is None or time.monotonic() >= next_s):
                name = f"{self._runs}-{len(requested_s)}"
                shard = len(requested_s) % _SHARDS
                requested_s[name] = time.monotonic()
                self._request(name, None if shards is None else shards[shard])
                waiting[shard].add(name)
                next_s += 0 if per_s is None else 1 / per_s
            time.sleep(_POLL_S if per_s is None else max(0.0, min(_POLL_S, next_s - time.monotonic())))
            for shard, names in waiting.items():
                ended = [name for name, _ in self._pool.poll(names)] if names else []
                names.difference_update(ended)
                if shards is not None and ended:
                    shards[shard].fold(ended, time.time_ns() // 1_000_000)
        return sorted(self._sender.ended_s[name] - at_s for name, at_s in requested_s.items())

    def _request(self, name: str, shard: ShardLedger | None) -> None:
        guard = None
        if shard is not None:
            delivery = Delivery(name, "crm", "r", 1, "a", "e", b"{}", 0, 0)
            assert shard.find(delivery) is None
            guard = shard.call(delivery)
        assert self._pool.request(name, "crm", _BODY, 0, guard)


@contextmanager
def open_ledger(brokers: str, topic: str, io: IoThread) -> Iterator[list[ShardLedger]]:
    """A ledger with a lease for each shard; its thread runs while the context is open."""
    log = KafkaLog({"bootstrap.servers": brokers}, topic)
    ledger = DeliveryLedger(log, topic, b"job", WorkerMetrics(), io.later)
    shards = [ledger.open(number, None) for number in range(_SHARDS)]
    while not all(shard.is_ready() for shard in shards):
        time.sleep(0.01)
    yield shards


@contextmanager
def mock_broker() -> Iterator[str]:
    """librdkafka's mock cluster in a process of its own; its addresses."""
    command = [sys.executable, "-m", "tests.benchmarks.ledger", "--broker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def _serve_broker() -> None:
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none:1", "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.buffer.read()


def measure(port: int, brokers: str, rounds: int, calls: int) -> str:
    """A table of medians over the rounds."""
    worker = Worker(port)
    found: dict[bool, list[tuple[float, float, float, float]]] = {False: [], True: []}
    for number in range(-1, rounds):
        for has_ledger in (False, True) if number % 2 else (True, False):
            with open_ledger(brokers, f"deliveries-{number}", worker.io) if has_ledger else nullcontext() as shards:
                cpu_s, began_s = time.process_time(), time.monotonic()
                worker.run(calls, None, shards)
                rate, cpu_us = calls / (time.monotonic() - began_s), (time.process_time() - cpu_s) / calls * 1e6
                steady = worker.run(calls, _STEADY_PER_S, shards)
            row = (rate, cpu_us, 1000 * statistics.median(steady), 1000 * steady[int(len(steady) * 0.99)])
            if number >= 0:  # the first makes connections
                found[has_ledger].append(row)
    lines = [
        "| | webhooks a second | CPU a webhook, µs | 200 a second: median, ms | 99th percentile, ms |",
        "|---|---|---|---|---|",
    ]
    medians = {has: [statistics.median(column) for column in zip(*rows, strict=True)] for has, rows in found.items()}
    for has_ledger, (rate, cpu_us, half_ms, most_ms) in medians.items():
        name = "with a ledger" if has_ledger else "without"
        lines.append(f"| {name} | {rate:.1f} | {cpu_us:.0f} | {half_ms:.1f} | {most_ms:.1f} |")
    (rate, cpu_us, _, most_ms), (rate_with, cpu_with_us, _, most_with_ms) = medians[False], medians[True]
    lines += [
        "",
        f"With a ledger: {100 * rate_with / rate:.1f} % of the webhooks a second, {cpu_with_us - cpu_us:+.0f} µs of "
        f"CPU a webhook, {most_with_ms - most_ms:+.1f} ms at the 99th percentile.",
        "",
        f"Rounds, webhooks a second: {_rounds(found, 0)}. 99th percentile, ms: {_rounds(found, 3)}.",
    ]
    return "\n".join(lines)


def _rounds(found: dict[bool, list[tuple[float, float, float, float]]], part: int) -> str:
    texts = {has: ", ".join(f"{row[part]:.0f}" for row in rows) for has, rows in found.items()}
    return f"without {texts[False]}; with {texts[True]}"


def main() -> None:
    """Print the table, and write it where ``--write`` is given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=800)
    parser.add_argument("--write", action="store_true", help="also write docs/measurements/ledger.md")
    given = parser.parse_args()
    if given.broker:
        _serve_broker()
        return
    os.environ["BENCHMARK_KEY"] = _SECRET
    load = os.getloadavg()[0]
    with mock_broker() as mock, receiver(_LATENCY_MS, None) as port:
        table = measure(port, mock, given.rounds, given.calls)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    about = (
        f"{datetime.now(UTC).date()}, commit {commit.stdout.strip()}, load {load:.1f} on {os.cpu_count()} cores. "
        f"Medians of {given.rounds} rounds of {given.calls} webhooks; librdkafka's mock broker.\n\n{table}\n"
    )
    print(about)
    if given.write:
        _PAGE.write_text(f"{_HEADING}\n{about}")


if __name__ == "__main__":
    main()
