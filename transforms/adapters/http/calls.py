"""One HTTP call that ends when it should: by the wall clock and by size, without surprises from its surroundings.

The time a call has holds for every byte of its answer, headers and body: a socket's timeout alone starts anew with
each byte, so that a server that drips keeps a caller for as long as it likes. On urllib3, not on requests, which takes
three times the CPU a call, and calls share their worker with everybody's events.

::

    CaFileError
    CallError
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from transforms.domain.base.errors import EventTriggerError
from transforms.domain.users.fetched_user import BAD_ANSWER, CONNECTION, TIMEOUT


class CaFileError(EventTriggerError, ValueError):
    """A file of CA certificates cannot be used; names the file and why."""


class CallError(EventTriggerError):
    """A call without an answer. ``passing``: another try may help; ``down``: perhaps the server serves nobody."""

    def __init__(
        self,
        kind: str,
        reason: str,
        *,
        passing: bool = False,
        down: bool = False,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.passing = passing
        self.down = down
        self.status = status
        self.retry_after_s = retry_after_s


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds of a ``Retry-After``, a number or a date; None if it is neither. ``now_s`` is since the epoch."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def check_ca_file(path: str) -> None:
    """Make sure that ``path`` is a file of CA certificates as PEM.

    Raises:
        CaFileError: it is not, or cannot be read.
    """
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise CaFileError(f"{path}: no certificates as PEM") from None
    except OSError as error:
        raise CaFileError(f"{path}: {error.strerror}") from None


@contextlib.contextmanager
def open_answer(
    urlopen: Callable[..., urllib3.BaseHTTPResponse],
    method: str,
    url: str,
    headers: Mapping[str, str],
    remaining_s: float,
    *,
    body: bytes | None = None,
    connect_s: float | None = None,
) -> Iterator[urllib3.BaseHTTPResponse]:
    """One answer whose body is to be read in the context; after ``remaining_s`` all its reading ends.

    ``urlopen`` is a method of a ``TimedPool`` or ``TimedTlsPool``, or of what is made of them. Connecting and the
    handshake of TLS may take ``connect_s`` each.

    Raises:
        CallError: the answer, or in the context the rest of it, did not come; no time was left; it cannot be decoded.
    """
    if remaining_s <= 0:
        raise CallError(TIMEOUT, "no time left", passing=True, down=True)
    _call.ends_s = time.monotonic() + remaining_s
    try:
        response = urlopen(
            method,
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(connect=remaining_s if connect_s is None else connect_s, read=remaining_s),
            redirect=False,
            retries=False,
            preload_content=False,
        )
        with contextlib.closing(response):
            yield response
    except exceptions.DecodeError as error:
        raise CallError(BAD_ANSWER, type(error).__name__) from None
    except exceptions.SSLError as error:
        cause = error.args[0] if error.args else None
        why = f": {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else ""
        raise CallError(CONNECTION, f"{type(error).__name__}{why}", down=True) from None
    except exceptions.HTTPError as error:
        refused = isinstance(error, exceptions.NewConnectionError)  # which urllib3 takes for a timeout
        late = (isinstance(error, exceptions.TimeoutError) and not refused) or time.monotonic() >= _call.ends_s
        kind = TIMEOUT if late else CONNECTION
        raise CallError(kind, type(error).__name__, passing=True, down=True) from None


class _Call(threading.local):
    """When the call of this thread ends, on ``time.monotonic``: nothing in between would hand it on to the socket."""

    ends_s = 0.0


_call: Final = _Call()


def _limit(sock: socket.socket, ends_s: float) -> None:
    remaining_s = ends_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("the call's time is up")
    sock.settimeout(remaining_s)


class _TimedReader(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, ends_s: float) -> None:
        self._raw = raw
        self._sock = sock
        self._ends_s = ends_s
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        _limit(self._sock, self._ends_s)
        read: int | None = self._raw.readinto(buffer)
        self.ended = read == 0
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _TimedReader(self.fp.detach(), sock, _call.ends_s)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        if self._reader.ended:  # http.client takes headers that were cut off for all there are
            raise http.client.RemoteDisconnected("cut off within the headers")


class _Connection(HTTPConnection):
    response_class = _TimedResponse

    def send(self, data: Any) -> None:
        if self.sock is not None:  # one that is used again has the time that was left at the end of the call before
            _limit(self.sock, _call.ends_s)
        super().send(data)


class _TlsConnection(HTTPSConnection):
    response_class = _TimedResponse

    def send(self, data: Any) -> None:
        if self.sock is not None:
            _limit(self.sock, _call.ends_s)
        super().send(data)


class TimedPool(urllib3.HTTPConnectionPool):
    """Connections whose calls end when ``open_answer`` says."""

    ConnectionCls = _Connection


class TimedTlsPool(urllib3.HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _TlsConnection
