"""A TCP proxy before a Kafka broker that swallows what one consumer fetches, as a network does that loses packets."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections import Counter
from typing import Any

from runners.flink.local.processes import LOCALHOST, free_ports
from tests.kafka_broker import KafkaBroker

_FETCH = 1
_CHUNK = 65_536


class KafkaProxy:
    """Passes connections on to a port of this machine.

    ``cut`` names a client, as a pattern of its id. From then on connections on which this client fetches records are
    dead: the proxy goes on taking bytes and passes nothing on, in either direction. ``heal`` closes the dead
    connections, and new ones work.

    Attributes:
        fetched: fetch requests by client id, those that were swallowed included.
        swallowed: fetch requests that were swallowed.
    """

    def __init__(self, target_port: int) -> None:
        self.fetched: Counter[str] = Counter()
        self.swallowed = 0
        self._target_port = target_port
        self._cut: re.Pattern[str] | None = None
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._server = socket.create_server((LOCALHOST, 0))
        self._thread = threading.Thread(target=self._accept, name="kafka-proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self._server.getsockname()[1])

    @property
    def address(self) -> str:
        """What clients connect to, ``127.0.0.1:port``."""
        return f"{LOCALHOST}:{self.port}"

    def cut(self, client_id: str) -> None:
        """Make the connections dead on which this client has fetched or will fetch."""
        with self._lock:
            self._cut = re.compile(client_id)
            for connection in self._connections:
                connection.dead |= any(self._cut.fullmatch(fetcher) for fetcher in connection.fetchers)

    def heal(self) -> None:
        """Close dead connections: their clients open new ones, which work."""
        with self._lock:
            self._cut = None
            for connection in [connection for connection in self._connections if connection.dead]:
                connection.close()

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        with self._lock:
            for connection in list(self._connections):
                connection.close()

    def passes(self, connection: _Connection, request: bytes) -> bool:
        """Whether to pass a request on; counts it if it is a fetch."""
        api_key, _version, _correlation, length = struct.unpack_from(">hhih", request)
        if api_key == _FETCH:
            client_id = request[10 : 10 + max(length, 0)].decode()
            with self._lock:
                self.fetched[client_id] += 1
                connection.fetchers.add(client_id)
                connection.dead |= self._cut is not None and self._cut.fullmatch(client_id) is not None
                self.swallowed += connection.dead
        return not connection.dead

    def forget(self, connection: _Connection) -> None:
        """Forget a connection that has closed."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection((LOCALHOST, self._target_port))
            except OSError:  # the broker is away
                client.close()
                continue
            connection = _Connection(self, client, broker)
            with self._lock:
                self._connections.add(connection)
            connection.start()


class _Connection:
    """A client's connection and the one to the broker, each read by a thread."""

    def __init__(self, proxy: KafkaProxy, client: socket.socket, broker: socket.socket) -> None:
        self.dead = False
        self.fetchers: set[str] = set()
        self._proxy, self._client, self._broker = proxy, client, broker
        for end in (client, broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for pump in (self._requests, self._responses):
            threading.Thread(target=pump, name="kafka-proxy-connection", daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._broker):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _requests(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                size = self._exactly(4)
                request = self._exactly(int.from_bytes(size))
                if self._proxy.passes(self, request):
                    self._broker.sendall(size + request)
        self._end()

    def _responses(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := self._broker.recv(_CHUNK):
                if not self.dead:
                    self._client.sendall(chunk)
        if not self.dead:
            self._end()

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            chunk = self._client.recv(min(_CHUNK, size - len(found)))
            if not chunk:
                raise EOFError
            found += chunk
        return bytes(found)

    def _end(self) -> None:
        self.close()
        self._client.close()
        self._broker.close()
        self._proxy.forget(self)


class ProxiedBroker(KafkaBroker):
    """A broker with one more listener, behind a proxy. Clients that start at ``proxy.address`` stay behind it."""

    def __init__(self) -> None:
        super().__init__()
        (self._behind,) = free_ports(1)
        self.proxy = KafkaProxy(self._behind)

    def stop(self) -> None:
        self.proxy.close()
        super().stop()

    def _properties(self) -> dict[str, Any]:
        properties = super()._properties()
        properties["listeners"] += f",PROXIED://{LOCALHOST}:{self._behind}"
        properties["advertised.listeners"] += f",PROXIED://{self.proxy.address}"
        properties["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        return properties
