"""The bearer token of the user API; its reference has the form of ``domain.base.secret_references``."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from transforms.adapters.secrets import read_secret
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.secret_references import ALLOWED, SecretError, is_reference

_TOKEN: Final = re.compile(r"[!-~]+")  # anything else could end the header
_PAUSE_S: Final = 5.0


class TokenError(EventTriggerError, ValueError):
    """A token cannot be read; the message names the reference, never the token."""


class Token:
    """A token that is read at once, and again by ``reread``; only ``value`` has its text. Thread-safe.

    Raises:
        TokenError: the reference has another form, or the token cannot be read.
    """

    def __init__(self, reference: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not is_reference(reference):
            raise TokenError(f"a token reference of another form, allowed: {ALLOWED}")
        self._reference = reference
        self._clock = clock
        self._lock = threading.Lock()
        self._due_s = clock()
        self.value = self._read()

    def __repr__(self) -> str:
        return f"Token({self._reference!r})"

    def reread(self) -> str:
        """Read the token again; returns the former one if that fails, or if it was read less than five seconds ago.

        Without the pause, an API that refuses the newest token as well would have the secret read for each call.
        """
        with self._lock:
            if self._clock() >= self._due_s:
                self._due_s = self._clock() + _PAUSE_S
                with contextlib.suppress(TokenError):  # a file may be missing while it is replaced
                    self.value = self._read()
        return self.value

    def _read(self) -> str:
        try:
            text = read_secret(self._reference).strip()
        except SecretError as error:
            raise TokenError(f"token {error}") from None
        if not _TOKEN.fullmatch(text):
            raise TokenError(f"token {self._reference}: empty, or with characters that are not visible ASCII")
        return text
