"""One blocking HTTP call with a hard deadline, on urllib3.

The deadline holds for every byte of the answer, headers and body. The timeout of a socket alone starts anew with each
byte, so that a slow server could hold a caller without limit. requests takes three times the CPU of urllib3 for a call,
and calls share the worker's CPU with the events.

::

    EventTriggerError
     +-- CaFileError (ValueError)
     +-- CallError
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
    """A file of CA certificates cannot be used; the message names the file and the reason."""


class CallError(EventTriggerError):
    """A call without an answer, or with one that cannot be used.

    Attributes:
        kind: one of the kinds of ``domain.users.fetched_user``.
        passing: whether another attempt may help.
        down: whether the server may be down for all calls.
        status: the HTTP status, if there was one.
        retry_after_s: the pause that the server asked for.
    """

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
    """Seconds of a ``Retry-After`` header, a number or a date; None if it is neither. ``now_s`` is Unix time."""
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
    """Check that ``path`` is a file of CA certificates as PEM.

    Raises:
        CaFileError: it is no such file, or it cannot be read.
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
    """Open an answer, whose body the caller reads in the context.

    Args:
        urlopen: that of a ``TimedPool`` or ``TimedTlsPool``.
        method: the HTTP method.
        url: the path, or the URL.
        headers: all headers to send.
        remaining_s: when this time is over, connecting and reading end.
        body: the body to send.
        connect_s: the time for connecting, and again for the TLS handshake; ``remaining_s`` if None.

    Raises:
        CallError: no time is left, the answer or the rest of it does not come, or it cannot be decoded.
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
    """When the call of this thread ends, on ``time.monotonic``: urllib3 has no parameter that reaches the socket."""

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
        if self._reader.ended:  # http.client takes headers that were cut off for complete ones
            raise http.client.RemoteDisconnected("cut off within the headers")


class _Connection(HTTPConnection):
    response_class = _TimedResponse

    def send(self, data: Any) -> None:
        if self.sock is not None:  # a socket that is used again has the timeout of its former call
            _limit(self.sock, _call.ends_s)
        super().send(data)


class _TlsConnection(_Connection, HTTPSConnection):
    """As ``_Connection``, whose ``send`` comes first."""


class TimedPool(urllib3.HTTPConnectionPool):
    """Connections that keep the deadline of ``open_answer``."""

    ConnectionCls = _Connection


class TimedTlsPool(urllib3.HTTPSConnectionPool):
    """TLS connections that keep the deadline of ``open_answer``."""

    ConnectionCls = _TlsConnection
