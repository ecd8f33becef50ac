"""What sending a webhook costs on this machine. ``python -m tests.benchmarks.webhooks``, or ``make bench-webhooks``.

A receiver in a process of its own answers every POST over TLS after 20 or 200 ms. In one run, by turns: ``urllib3``
posts the same bodies over plain pooled connections, ``pool`` requests and polls signed ones as the stage does. What
counts is how they compare; the machine is
shared, so its load is printed too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import urllib3

from tests.host_names import host_names
from tests.raw_http import certificate, server_tls
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.webhook_sender.send_pool import SendPool
from transforms.adapters.webhook_sender.sender import Sender, webhook_transport
from transforms.domain.base.durations import Duration
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome
from transforms.domain.webhooks.signatures import parse_keys, signature_headers
from transforms.domain.webhooks.url_policy import EgressPolicy, check_address

_HOST: Final = "hooks.example.com"
_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_POLICY: Final = EgressPolicy(allow_private=True)
_BODY: Final = b'{"event":{"event_id":"' + b"x" * 10_000 + b'"}}'  # an enriched event without its history
# Latency of the receiver in ms: attempts in flight, calls a round.
_CASES: Final = {20: (32, 3000), 200: (128, 1500)}
_ROUNDS: Final = 3
_POLL_S: Final = 0.05

Send = Callable[[int], None]


class _Connection(asyncio.Protocol):
    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = body[length:]
            answer = b"HTTP/1.1 204 No Content\r\n\r\n"
            asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, answer)


async def _serve(latency_s: float, pem: Path | None) -> None:
    loop = asyncio.get_running_loop()
    tls = None if pem is None else server_tls(pem)
    server = await loop.create_server(lambda: _Connection(latency_s), "127.0.0.1", 0, ssl=tls, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def receiver(latency_ms: int, pem: Path | None) -> Iterator[int]:
    """A receiver in a process of its own while the context is open, without TLS if ``pem`` is None; its port."""
    command = [sys.executable, "-m", "tests.benchmarks.webhooks", f"--serve_ms={latency_ms}"]
    command += [] if pem is None else [f"--pem={pem}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def plain(port: int, pem: Path, in_flight: int) -> Send:
    """POSTs over plain urllib3."""
    tls = ssl.create_default_context(cafile=str(pem))
    pool = urllib3.HTTPSConnectionPool(
        "127.0.0.1", port, maxsize=in_flight, ssl_context=tls, server_hostname=_HOST, retries=False
    )
    headers = {"Host": f"{_HOST}:{port}", "Content-Type": "application/json"}

    def post() -> None:
        assert pool.request("POST", "/", body=_BODY, headers=headers, timeout=10.0).status == 204

    threads = DaemonThreads(in_flight, "plain")
    return lambda calls: _all(threads, post, calls)


def _all(threads: DaemonThreads, work: Callable[[], None], calls: int) -> None:
    futures = [threads.submit(work) for _ in range(calls)]
    wait(futures)
    for future in futures:
        future.result()


def through_pool(pool: SendPool) -> Send:
    """Requested and polled by one thread, as a shard does at its batches."""

    def send(calls: int) -> None:
        waiting = {f"msg_{number}" for number in range(calls)}
        for call in waiting:
            assert pool.request(call, "receiver", _BODY)
        while waiting:
            time.sleep(_POLL_S)
            for call, result in pool.poll(waiting):
                assert result.outcome is Outcome.DELIVERED
                waiting.remove(call)

    return send


def measure(send: Send, calls: int) -> tuple[float, float]:
    """Calls a second, and µs of this process's CPU a call."""
    cpu_s, began_s = time.process_time(), time.monotonic()
    send(calls)
    return calls / (time.monotonic() - began_s), (time.process_time() - cpu_s) / calls * 1e6


def microseconds(work: Callable[[], object], times: int = 5000) -> float:
    """Of CPU, each time."""
    cpu_s = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - cpu_s) / times * 1e6


def bench(latency_ms: int, pem: Path) -> None:
    """One table: all variants against a receiver of this latency."""
    in_flight, calls = _CASES[latency_ms]
    with receiver(latency_ms, pem) as port, host_names(lambda _: ["127.0.0.1"]):
        destination = Destination(
            name="receiver",
            url=f"https://{_HOST}:{port}/",
            secrets=("env:BENCHMARK_KEY",),
            max_in_flight=in_flight,
            timeout=Duration.parse("10s"),
        )
        io = IoThread("webhooks")
        transport = webhook_transport(io, _POLICY, str(pem))
        sender = Sender(destination, _POLICY, io, transport)
        pool = SendPool([destination], _POLICY, max_waiting=calls, io=io, sender=lambda _: sender)
        variants = {
            "urllib3": plain(port, pem, in_flight),
            "pool": through_pool(pool),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for send in variants.values():
            send(2 * in_flight)  # connections
        for _ in range(_ROUNDS):
            for name, send in variants.items():
                found[name].append(measure(send, calls))
    print(
        f"\nreceiver answers after {latency_ms} ms, {in_flight} in flight (at most {in_flight * 1000 // latency_ms}/s)"
    )
    base = [statistics.median(round_figures[part] for round_figures in found["urllib3"]) for part in (0, 1)]
    for name, figures in found.items():
        rate, cpu_us = (statistics.median(round_figures[part] for round_figures in figures) for part in (0, 1))
        ratios = f"x{rate / base[0]:.2f} calls, x{cpu_us / base[1]:.2f} CPU"
        print(f"  {name:9} {rate:6.0f} calls/s  {cpu_us:6.0f} µs CPU a call  {ratios}")


def parts() -> None:
    """What one attempt adds, by itself."""
    keys = parse_keys(_SECRET)
    address = ip_address("93.184.216.34")
    print(f"\nsigning {len(_BODY)} bytes: {microseconds(lambda: signature_headers(keys, 'msg_1', 1, _BODY)):.0f} µs")
    print(f"checking an address: {microseconds(lambda: check_address(address, _POLICY)):.0f} µs")


def main() -> None:
    """Print all tables, or serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve_ms", type=int)
    parser.add_argument("--pem", type=Path)
    given = parser.parse_args()
    if given.serve_ms is not None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        asyncio.run(_serve(given.serve_ms / 1000, given.pem))
        return
    os.environ["BENCHMARK_KEY"] = _SECRET
    print(f"load before: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        pem = certificate(Path(folder), _HOST)
        for latency_ms in _CASES:
            bench(latency_ms, pem)
    parts()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
