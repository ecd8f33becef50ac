"""A server that behaves badly once, to the first request that asks for it, and well before and afterwards."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.raw_http import LocalServer, read_request

# A request whose text has this is answered badly, the first time.
BAD = "hostile"


class Wire:
    """The server's end of a connection.

    Attributes:
        ended: set when the test is over, for what waits.
    """

    def __init__(self, connection: socket.socket, ended: threading.Event) -> None:
        self._socket = connection
        self.ended = ended

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def wait(self) -> None:
        """Wait until the client hangs up, or the test is over."""
        self._socket.settimeout(0.05)
        while not self.ended.is_set():
            try:
                if not self._socket.recv(65_536):
                    return
            except TimeoutError:
                continue
        self._socket.settimeout(None)

    def stop_sending(self) -> None:
        """Close this side only."""
        self._socket.shutdown(socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Send TLS's notice of the end; without it, an end of the connection may be anybody's work."""
        self._socket.settimeout(0)  # the client's notice is not awaited
        with contextlib.suppress(OSError, ValueError):
            self._socket.unwrap()  # type: ignore[attr-defined]

    def hang_up(self) -> None:
        """Close without TLS's notice."""
        self._socket.close()

    def reset(self) -> None:
        """Hang up with a reset, so that the client loses what it has not read."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


Act = Callable[[Wire], None]


@dataclass
class HostileServer(LocalServer):
    """Counts what it sees.

    Attributes:
        act: what happens to the first request with ``BAD``; the connection is closed afterwards.
        good: the answer to all others.
        leftover: what is sent over a connection that is kept, once ``go`` is set; ``left`` is set afterwards.
        over: the connection's number of each request with ``BAD``.
    """

    act: Act
    good: bytes
    leftover: bytes = b""
    over: list[int] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def handle(self, connection: socket.socket, number: int) -> None:
        wire = Wire(connection, self.ended)
        while request := read_request(connection).decode("latin-1"):
            if BAD in request:
                self.over.append(number)
                if len(self.over) == 1:
                    self.act(wire)
                    if self.tls is not None:
                        wire.say_goodbye()
                    return
            connection.sendall(self.good)
            if not self.over and self.leftover:
                self.go.wait(30)
                connection.sendall(self.leftover)
                self.left.set()


@contextmanager
def hostile_server(
    act: Act, good: bytes, leftover: bytes = b"", tls: ssl.SSLContext | None = None
) -> Iterator[HostileServer]:
    """Serves while the context is open."""
    server = HostileServer(act, good, leftover, tls=tls)
    with server.serving():
        yield server
