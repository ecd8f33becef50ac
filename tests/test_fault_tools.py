"""What the faults are made with: the proxy that swallows one consumer's fetches, the watch over slow cancellations."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.dumps import SlowCancellations
from tests.faults.experiment import Result, earlier_pieces, write
from tests.faults.proxy import KafkaProxy
from tests.waiting import eventually

FETCH, METADATA = 1, 3


def request(api_key: int, client_id: str) -> bytes:
    body = struct.pack(">hhih", api_key, 12, 7, len(client_id)) + client_id.encode() + b"rest"
    return len(body).to_bytes(4) + body


class Broker:
    """Responds to everything with the bytes that it got."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.got = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        while chunk := connection.recv(10_000):
            self.got += chunk
            connection.sendall(chunk)


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.server.close()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[KafkaProxy]:
    made = KafkaProxy(broker.server.getsockname()[1])
    yield made
    made.close()


def connect(proxy: KafkaProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def exchange(connection: socket.socket, sent: bytes) -> bytes:
    connection.sendall(sent)
    found = b""
    while len(found) < len(sent) and (chunk := connection.recv(10_000)):
        found += chunk
    return found


def test_the_proxy_passes_everything_on(proxy: KafkaProxy) -> None:
    with connect(proxy) as connection:
        for sent in (request(METADATA, "a"), request(FETCH, "a"), request(FETCH, "b" * 5000)):
            assert exchange(connection, sent) == sent
    assert proxy.fetched == {"a": 1, "b" * 5000: 1}


def test_a_client_that_is_cut_off_hears_nothing_until_the_proxy_heals(proxy: KafkaProxy, broker: Broker) -> None:
    with connect(proxy) as one, connect(proxy) as another, connect(proxy) as new:
        assert exchange(one, request(FETCH, "one"))
        assert exchange(another, request(FETCH, "another"))
        proxy.cut("one")
        one.sendall(request(METADATA, "swallowed"))
        assert exchange(new, request(METADATA, "one"))  # what does not fetch still gets through
        new.sendall(request(FETCH, "one"))
        eventually(lambda: proxy.swallowed == 1, "the fetch of the new connection is swallowed")
        assert exchange(another, request(FETCH, "another"))
        for dead in (one, new):
            dead.settimeout(0.3)
            with pytest.raises(TimeoutError):
                dead.recv(1)
            dead.settimeout(5)
        proxy.heal()
        assert one.recv(1) == b""
        assert new.recv(1) == b""
    assert b"swallowed" not in broker.got
    with connect(proxy) as again:
        assert exchange(again, request(FETCH, "one"))


def job(**canceling: int) -> dict[str, Any]:
    return {"vertices": [{"name": name, "tasks": {"CANCELING": count}} for name, count in canceling.items()]}


def test_a_cancellation_is_slow_after_its_time_and_named_once() -> None:
    slow = SlowCancellations(after_s=20)
    assert slow.update(job(source=1, stage=1), 100) == []
    assert slow.update(job(source=0, stage=1), 119) == []
    assert slow.update(job(source=1, stage=2), 120) == ["stage"]
    assert slow.update(job(source=1, stage=2), 130) == []
    assert slow.update(job(source=1, stage=0), 140) == ["source"]
    assert slow.update(job(source=0, stage=1), 150) == []
    assert slow.update(job(source=0, stage=1), 171) == ["stage"]
    assert slow.longest_s == 30


def test_pieces_of_a_fault_add_up_until_all_are_done(tmp_path: Path) -> None:
    results = tmp_path / "faults.json"
    assert earlier_pieces(results, "F18", 20) is None
    for seconds in (3.0, 5.0):
        piece = Result("F18", "kills", 10, 1, [seconds])
        piece.verdict.events, piece.verdict.problems = 100, []
        if earlier := earlier_pieces(results, "F18", 20):
            piece.add_to(earlier)
        write(results, piece)
    kept = json.loads(results.read_text())["F18"]
    assert (kept["times"], kept["recovery_s"], kept["verdict"]["events"]) == (20, [3.0, 5.0], 200)
    assert earlier_pieces(results, "F18", 20) is None  # the next run begins anew
    assert earlier_pieces(results, "F18", 100) is not None
