"""HTTP/1.1 calls on libcurl: many in flight in one thread, which lets Python's interpreter lock go while it works.

libcurl only moves bytes. Deadlines, limits of sizes, retries, addresses and the meaning of answers are ours, and
everything that libcurl would do by itself is switched off: redirects, proxies, netrc, other protocols, repeated POSTs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import certifi
import pycurl

from transforms.adapters.http.calls import CaFileError, CallError, check_ca_file
from transforms.adapters.http.curl_endings import (
    HEADERS_TOO_LARGE,
    call_error,
    decoded,
    has_input,
    is_cut_off,
)
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.multi import Multi
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.users.fetched_user import BAD_ANSWER, CONNECTION, OTHER, TOO_LARGE

_CHECK_CAS_EVERY_S: Final = 1.0
# An idle connection is closed before most servers close it (60 s and more are common).
_IDLE_S: Final = 50
# A name may get other addresses: they count after this time at the latest.
_KEPT_S: Final = 60
_LOOKUP_S: Final = 5
_OPTIONS: Final = (
    (pycurl.NOSIGNAL, 1),
    (pycurl.USERAGENT, "event-trigger"),
    (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
    (pycurl.FOLLOWLOCATION, 0),
    (pycurl.PROXY, ""),
    (pycurl.NETRC, pycurl.NETRC_IGNORED),
    (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
    (pycurl.HTTP09_ALLOWED, 0),
    (pycurl.PATH_AS_IS, 1),
    (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
    (pycurl.SSL_VERIFYPEER, 1),
    (pycurl.SSL_VERIFYHOST, 2),
    (pycurl.MAXAGE_CONN, _IDLE_S),
    (pycurl.MAXLIFETIME_CONN, _KEPT_S),
    (pycurl.DNS_CACHE_TIMEOUT, _LOOKUP_S),
)


@dataclass(frozen=True, slots=True)
class Request:
    """A call.

    Attributes:
        url: an absolute URL of http or https.
        headers: header lines, without line ends.
        deadline_s: the time of the whole call in seconds, up to the last byte of the answer.
        body: the body of a POST; None for a GET.
        connect_s: the time for connecting, TLS included; ``deadline_s`` if None.
        fresh: whether it takes a connection of its own: after a call without an answer, kept ones may be dead too.
    """

    url: str
    headers: list[str]
    deadline_s: float
    body: bytes | None = None
    connect_s: float | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; ``retry_after`` is the header's text, or seconds as text."""

    status: int
    body: bytes
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a transport takes from servers.

    Attributes:
        body_bytes: limit of an answer's body, decoded.
        header_bytes: limit of an answer's headers.
        needs_body: whether a body that is cut off or too large is an error; otherwise the status counts once all
            headers are there, with as much of the body as came.
        check: raises an ``EventTriggerError`` for an IP address that is not allowed. It is called before a connection
            is made and again before each request, because a kept connection is used without another look. With it,
            no POST is sent twice.
    """

    body_bytes: int
    header_bytes: int = 65_536
    needs_body: bool = True
    check: Callable[[str], None] | None = None


Ending = Response | EventTriggerError
Done = Callable[[Ending], None]


class Transport:
    """A pool of connections with its rules. Only used in the I/O thread; two uses with other rules are two transports.

    TLS is verified against the CAs of ``ca_file`` (PEM), or the public ones; a file that is replaced is read again.
    ``kept_connections`` stay open between calls: with fewer than are in flight, connections are made all the time.

    Raises:
        CaFileError: ``ca_file`` cannot be used.
    """

    def __init__(
        self,
        io: IoThread,
        rules: Rules,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        kept_connections: int = 256,
    ) -> None:
        if ca_file is not None:
            check_ca_file(ca_file)
        self._io = io
        self._rules = rules
        self._clock = clock
        self._ca_file = ca_file or certifi.where()
        self._ca_stamp = _stamp(self._ca_file)
        self._check_cas_at_s = clock() + _CHECK_CAS_EVERY_S
        self._kept_connections = kept_connections
        self._multi: Multi[_Transfer] = Multi(io, kept_connections)

    def start(self, request: Request, done: Done) -> None:
        """Start a call; later ``done`` gets its answer or its error, once."""
        self._renew_cas()
        transfer = self._multi.idle.pop() if self._multi.idle else _Transfer(self._multi, self._rules, self._ca_file)
        try:
            transfer.start(request, done)
        except (pycurl.error, ValueError, OSError) as error:
            # The caller has not gone on yet: it gets an error as it gets every other.
            self._io.submit(done, CallError(OTHER, f"{type(error).__name__}: {error}"))

    def _renew_cas(self) -> None:
        """Leave the connections, and libcurl's copy of the CAs, once the file has changed."""
        if self._clock() < self._check_cas_at_s:
            return
        self._check_cas_at_s = self._clock() + _CHECK_CAS_EVERY_S
        with contextlib.suppress(OSError, CaFileError):
            stamp = _stamp(self._ca_file)
            if stamp != self._ca_stamp:
                check_ca_file(self._ca_file)
                self._ca_stamp, self._multi = stamp, Multi(self._io, self._kept_connections)


class _Transfer:
    """A handle of libcurl, which makes one call at a time."""

    def __init__(self, multi: Multi[_Transfer], rules: Rules, ca_file: str) -> None:
        self._multi = multi
        self._rules = rules
        self._done: Done | None = None
        self._is_post = False
        self._deadline_s = 0.0
        self._reset()
        self.handle = handle = pycurl.Curl()
        for option, value in _OPTIONS:
            handle.setopt(option, value)
        handle.setopt(pycurl.CAINFO, ca_file)
        handle.setopt(pycurl.WRITEFUNCTION, self._on_body)
        if not rules.needs_body:
            handle.setopt(pycurl.HEADERFUNCTION, self._on_header)
        if rules.check is not None:
            handle.setopt(pycurl.OPENSOCKETFUNCTION, self._on_socket)
        handle.setopt(pycurl.PREREQFUNCTION, self._on_request)

    def _reset(self) -> None:
        self._body = bytearray()
        self._requests = 0
        self._header_bytes = 0
        self._headers_end = False
        self._retry_after: str | None = None
        self._error: EventTriggerError | None = None  # of a callback: it says more than libcurl's
        self._is_unusable = False  # the kept connection
        self._place: tuple[Any, ...] = ()  # both ends of the connection

    def start(self, request: Request, done: Done) -> None:
        """Start a call."""
        self._reset()
        self._is_post, self._deadline_s = request.body is not None, request.deadline_s
        self._done = done
        handle = self.handle
        connect_s = request.deadline_s if request.connect_s is None else request.connect_s
        handle.setopt(pycurl.URL, request.url)
        # For libcurl 0 is no limit.
        handle.setopt(pycurl.TIMEOUT_MS, max(1, int(request.deadline_s * 1000)))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(connect_s * 1000)))
        handle.setopt(pycurl.FRESH_CONNECT, int(request.fresh))
        if request.body is None:
            handle.setopt(pycurl.HTTPGET, 1)
            handle.setopt(pycurl.HTTPHEADER, request.headers)
        else:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDS, request.body)
            # Without this libcurl would wait a second for a 100 before it sends a long body.
            handle.setopt(pycurl.HTTPHEADER, [*request.headers, "Expect:"])
        self._multi.add(self)

    def end(self, code: int, message: str) -> None:
        """Hand over the answer or the error; ``code`` and ``message`` are libcurl's."""
        if self._is_unusable:
            self._start_afresh()
            return
        done, self._done = self._done, None
        ending = self._ending(code, message)
        self._multi.keep(self._place, self.handle.getinfo(pycurl.ACTIVESOCKET))
        self._multi.remove(self)
        self._multi.idle.append(self)
        if done is not None:
            done(ending)

    def _start_afresh(self) -> None:
        """Begin again, over a new connection, what has not been sent or may be sent twice."""
        left_s = self._deadline_s - self.handle.getinfo(pycurl.TOTAL_TIME)
        self._multi.remove(self)
        self._reset()
        self.handle.setopt(pycurl.TIMEOUT_MS, max(1, int(left_s * 1000)))
        self.handle.setopt(pycurl.FRESH_CONNECT, 1)
        self._multi.add(self)

    def _ending(self, code: int, message: str) -> Ending:
        handle, needs_body = self.handle, self._rules.needs_body
        status, header_bytes = handle.getinfo(pycurl.RESPONSE_CODE), handle.getinfo(pycurl.HEADER_SIZE)
        after_s = handle.getinfo(pycurl.RETRY_AFTER)
        retry_after = str(after_s) if needs_body and after_s > 0 else self._retry_after
        # Once it is known what the server decided, it does not matter whether the rest of its answer comes.
        if status >= 300 if needs_body else status >= 200 and self._headers_end:
            return Response(status, bytes(self._body), retry_after)
        if code == HEADERS_TOO_LARGE or max(header_bytes, self._header_bytes) > self._rules.header_bytes:
            return CallError(BAD_ANSWER, f"headers of over {self._rules.header_bytes} bytes")
        if status == 101:
            return CallError(BAD_ANSWER, "HTTP 101: another protocol, which nobody asked for")
        if self._error is not None:
            return self._error
        if code != pycurl.E_OK:
            return call_error(code, message)
        if not self._body and status == 200 and (not needs_body or is_cut_off(handle)):
            return CallError(CONNECTION, "the answer ended early", passing=True, down=True)
        try:
            return Response(status, decoded(self._body, self._rules.body_bytes), retry_after)
        except CallError as error:
            return error

    # libcurl calls these in the midst of its work; they must not call it.

    def _on_body(self, chunk: bytes) -> int:
        self._body += chunk
        if len(self._body) <= self._rules.body_bytes:
            return len(chunk)
        if self._rules.needs_body:
            self._error = CallError(TOO_LARGE, f"over {self._rules.body_bytes} bytes")
        return -1

    def _on_header(self, line: bytes) -> int:
        self._header_bytes += len(line)
        if self._header_bytes > self._rules.header_bytes:
            return -1  # HEADER_SIZE shows why
        name, _, value = line.partition(b":")
        if line[:5].upper() == b"HTTP/":
            self._retry_after, self._headers_end = None, False  # what came before was interim (1xx)
        elif not line.strip():
            self._headers_end = True
        elif name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1").strip()
        return len(line)

    def _on_socket(self, _purpose: int, address: Any) -> socket.socket | int:
        ip = str(address.addr[0])
        if self._refuse(ip):
            return pycurl.SOCKET_BAD
        try:
            return socket.socket(address.family, address.socktype, address.protocol)
        except OSError:  # no file descriptor is left, or no such network: libcurl tries the next address
            return pycurl.SOCKET_BAD

    def _on_request(self, remote_ip: str, *place: Any) -> int:
        # libcurl sends a request again whose kept connection has died, also a POST that may have been handled.
        self._requests += 1
        is_again = self._requests > 1
        if is_again and self._is_post:
            self._error = CallError(CONNECTION, "the server closed a kept connection", passing=True, down=True)
            return pycurl.PREREQFUNC_ABORT
        self._place = (remote_ip, *place)
        descriptor = self._multi.kept.pop(self._place, None)
        if descriptor is not None and (is_again or has_input(descriptor)):
            # Of kept connections libcurl would try five, and take what came over one for the answer to this request.
            self._is_unusable = True
            return pycurl.PREREQFUNC_ABORT
        return pycurl.PREREQFUNC_ABORT if self._refuse(remote_ip) else pycurl.PREREQFUNC_OK

    def _refuse(self, ip: str) -> bool:
        if self._rules.check is None:
            return False
        try:
            self._rules.check(ip)
        except EventTriggerError as error:
            self._error = error
            return True
        return False


def _stamp(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_ino, stat.st_mtime_ns
