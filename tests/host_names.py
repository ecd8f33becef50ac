"""Gives host names addresses of a test's choice, for calls over libcurl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch
from urllib.parse import urlsplit

import pycurl

from transforms.adapters.http import transport
from transforms.adapters.http.transport import Done, Request


@contextmanager
def host_names(resolve: Callable[[str], list[str]]) -> Iterator[None]:
    """While the context is open, each call that starts asks ``resolve`` for its host's addresses, in place of DNS."""
    start = transport._Transfer.start

    def start_there(transfer: transport._Transfer, request: Request, done: Done) -> None:
        target = urlsplit(request.url)
        place = f"{target.hostname}:{target.port or {'http': 80, 'https': 443}[target.scheme]}"
        # libcurl forgets what it knew, and takes this for as long as any other answer.
        known = [f"-{place}", f"+{place}:{','.join(resolve(target.hostname or ''))}"]
        transfer.handle.setopt(pycurl.RESOLVE, known)
        start(transfer, request, done)

    with patch.object(transport._Transfer, "start", start_there):
        yield
