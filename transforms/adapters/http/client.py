"""HTTP GETs with a deadline and a size limit, many in parallel in one thread, on aiohttp (its parser is C).

One thread with an event loop instead of a thread for each call: all threads share Python's interpreter lock with the
events, and a thread that wakes up waits for that lock at each step of each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from transforms.adapters.http.calls import CallError, check_ca_file, retry_after_s
from transforms.adapters.threads import DaemonThreads
from transforms.domain.users.fetched_user import BAD_ANSWER, CONNECTION, STATUS, TIMEOUT, TOO_LARGE

_T = TypeVar("_T")

_CHUNK: Final = 65_536
_JOIN_S: Final = 1.0
_CHECK_CAS_EVERY_S: Final = 1.0


class HttpClient:
    """GETs over pooled connections: TLS is verified; no redirects, proxies, netrc or cookies.

    The client trusts the CAs of ``ca_file`` (PEM), or the public ones without it; it reads a replaced file again. When
    the client is no longer referenced, its connections are closed and its thread ends.

    Raises:
        CaFileError: ``ca_file`` cannot be used.
    """

    def __init__(
        self,
        max_bytes: int,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        name: str = "http-client",
    ) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        if ca_file is not None:
            check_ca_file(ca_file)
        self._tls = _Tls(ca_file or certifi.where(), clock)
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(self._loop,), name=name, daemon=True)
        thread.start()
        self._session = self.start(_session(name)).result()
        weakref.finalize(self, _end, self._loop, self._session, thread)

    def start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run ``work`` in the client's thread; called from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def get(self, url: str, headers: dict[str, str], until_s: float) -> bytes | None:
        """GET a URL, in the client's thread; ``until_s`` is the deadline on the client's clock.

        Returns:
            The body of a 200; None for a 404.

        Raises:
            CallError: any other status, an answer over ``max_bytes``, or none before the deadline.
        """
        remaining_s = until_s - self._clock()
        if remaining_s <= 0:
            raise CallError(TIMEOUT, "no time left", passing=True, down=True)
        try:
            async with (
                asyncio.timeout(remaining_s),
                self._session.get(
                    URL(url, encoded=True), headers=headers, allow_redirects=False, ssl=self._tls.context()
                ) as response,
            ):
                return await self._read(response)
        except aiohttp.ClientSSLError as error:
            cause = getattr(error, "certificate_error", None)
            why = f": {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else ""
            raise CallError(CONNECTION, f"SSLError{why}", down=True) from None
        except TimeoutError:
            raise CallError(TIMEOUT, "TimeoutError", passing=True, down=True) from None
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, ContentEncodingError):
                raise CallError(BAD_ANSWER, "ContentEncodingError") from None
            raise CallError(CONNECTION, type(error).__name__, passing=True, down=True) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The body of a 200; no other answer's body is read."""
        status = response.status
        if status == 200:
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > self._max_bytes:
                    raise CallError(TOO_LARGE, f"over {self._max_bytes} bytes")
            return bytes(body)
        if status == 404:
            return None
        passing = status in (408, 429) or 500 <= status < 600
        after_s = retry_after_s(response.headers.get("Retry-After"), self._wall_clock()) if passing else None
        raise CallError(
            STATUS,
            f"HTTP {status}",
            passing=passing,
            # A 429 without Retry-After means that no call gets through: the server counts as down.
            down=500 <= status < 600 or (status == 429 and after_s is None),
            status=status,
            retry_after_s=after_s,
        )


class _Tls:
    """The CAs of a file, read again when it changes."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._check_at_s = clock() + _CHECK_CAS_EVERY_S
        self._seen = self._stamp()
        self._context = ssl.create_default_context(cafile=path)

    def context(self) -> ssl.SSLContext:
        """The current context; the former one while the file cannot be used."""
        if self._clock() >= self._check_at_s:
            self._check_at_s = self._clock() + _CHECK_CAS_EVERY_S
            with contextlib.suppress(OSError):
                if (stamp := self._stamp()) != self._seen:
                    self._context = ssl.create_default_context(cafile=self._path)
                    self._seen = stamp
        return self._context

    def _stamp(self) -> tuple[int, int]:
        stat = os.stat(self._path)
        return stat.st_ino, stat.st_mtime_ns


async def _session(name: str) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=_Resolver(name)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "gzip, deflate"},
        timeout=aiohttp.ClientTimeout(),  # none: ``get`` has its own
    )
    # Otherwise aiohttp repeats a call whose connection is lost, unseen by breaker and metrics.
    session._retry_connection = False
    return session


class _Resolver(AbstractResolver):
    """Looks names up in daemon threads: a process waits at its end for the event loop's own threads."""

    def __init__(self, name: str) -> None:
        self._threads = DaemonThreads(2, f"{name}-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = self._threads.submit(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=of_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of_family, _, proto, _, address in await asyncio.wrap_future(look_up)
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession, thread: threading.Thread) -> None:
    async def close() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await session.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if thread is not threading.current_thread():  # work in this thread may have held the last reference
        thread.join(_JOIN_S)
