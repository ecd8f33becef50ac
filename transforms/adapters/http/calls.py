"""Errors of HTTP calls, and parts of answers that all uses read alike.

::

    EventTriggerError
     +-- CaFileError (ValueError)
     +-- CallError
"""

from __future__ import annotations

import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime

from transforms.domain.base.errors import EventTriggerError


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
        date = parsedate_to_datetime(text)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s)
    except (ValueError, TypeError, IndexError, OverflowError):
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
