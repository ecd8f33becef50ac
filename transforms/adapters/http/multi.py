"""libcurl's transfers and its pool of connections on the event loop of the I/O thread."""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Any, Final, Generic, Protocol, TypeVar

import pycurl

from transforms.adapters.http.io_thread import IoThread

_EPOLL_EVENTS: Final = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Transfer(Protocol):
    """A call of libcurl."""

    handle: pycurl.Curl

    def end(self, code: int, message: str) -> None:
        """The call has ended; ``code`` and ``message`` are libcurl's."""


_T = TypeVar("_T", bound=Transfer)


class Multi(Generic[_T]):
    """libcurl's pool of connections, driven by the event loop.

    The loop watches one epoll, which watches the sockets: libcurl changes what it waits for several times a call. Its
    timer is asked for after each round and not called back, because each call back takes the interpreter lock.
    ``kept_connections`` stay open when they are idle.
    """

    def __init__(self, io: IoThread, kept_connections: int) -> None:
        self._loop = io.loop
        self._epoll = select.epoll()
        self._due_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[pycurl.Curl, _T] = {}
        self.idle: list[_T] = []
        self.kept: dict[tuple[Any, ...], int] = {}  # descriptors of connections without a transfer, by both ends
        self._kept_connections = kept_connections
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, kept_connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)

    def add(self, transfer: _T) -> None:
        """Begin a transfer."""
        if not self._running:
            self._loop.add_reader(self._epoll.fileno(), self._on_sockets)
        self._running[transfer.handle] = transfer
        self._multi.add_handle(transfer.handle)
        self._set_timer(0)  # the transfer begins after those that are added now, too

    def keep(self, place: tuple[Any, ...], descriptor: int) -> None:
        """Note a connection that a transfer has left; -1 is none. libcurl does not say when it closes one."""
        if descriptor >= 0:
            self.kept[place] = descriptor
            if len(self.kept) > 4 * self._kept_connections:
                del self.kept[next(iter(self.kept))]

    def remove(self, transfer: _T) -> None:
        """Take back a transfer that has ended."""
        del self._running[transfer.handle]
        self._multi.remove_handle(transfer.handle)
        if not self._running:
            self._loop.remove_reader(self._epoll.fileno())

    def _watch(self, event: int, fd: int, *_: Any) -> None:
        # libcurl calls this in the midst of its work; it must not call libcurl.
        events = _EPOLL_EVENTS.get(event)
        if events is None:
            with contextlib.suppress(OSError):  # a socket that is closed has left the epoll
                self._epoll.unregister(fd)
            return
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def _set_timer(self, timeout_ms: int) -> None:
        """Come back after a while. A timer that is earlier stays: most are set anew many times before they are due."""
        if timeout_ms < 0:
            self._due_s = None
            return
        now_s = self._loop.time()
        self._due_s = now_s + timeout_ms / 1000
        if self._timer is None or self._due_s < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._due_s > self._loop.time():
            self._timer = self._loop.call_at(self._due_s, self._on_timer)
            return
        self._due_s = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._end_round()

    def _on_sockets(self) -> None:
        for fd, ready in self._epoll.poll(0):
            readable = pycurl.CSELECT_IN if ready & ~select.EPOLLOUT else 0
            self._multi.socket_action(fd, readable | (pycurl.CSELECT_OUT if ready & select.EPOLLOUT else 0))
        self._end_round()

    def _end_round(self) -> None:
        waiting = 1
        while waiting:
            waiting, ended, failed = self._multi.info_read()
            for handle in ended:
                self._running[handle].end(pycurl.E_OK, "")
            for handle, code, message in failed:
                self._running[handle].end(code, message)
        self._set_timer(self._multi.timeout())
