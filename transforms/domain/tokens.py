"""Secrets by reference: what travels in options and plans says where a token lies, never what it is."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

ALLOWED: Final = "env:NAME or file:/ABSOLUTE/PATH"

_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\0]*")
_TOKEN: Final = re.compile(r"[!-~]+")  # anything else could end the header


class TokenError(ValueError):
    """A token cannot be read; names the reference, never the token."""


def is_reference(text: str) -> bool:
    """Whether ``text`` has the form of a reference; what it refers to may exist on the workers only."""
    return _REFERENCE.fullmatch(text) is not None


class Token:
    """A token read now and again on ``reread``; its text is only in ``value``."""

    def __init__(self, reference: str) -> None:
        if not is_reference(reference):
            raise TokenError(f"a token reference of another form, allowed: {ALLOWED}")
        self._reference = reference
        self.value = self._read()

    def __repr__(self) -> str:
        return f"Token({self._reference!r})"

    def reread(self) -> str:
        """The token as it is by now; the one before if it cannot be read."""
        with contextlib.suppress(TokenError):  # a file may be away for the moment in which it is replaced
            self.value = self._read()
        return self.value

    def _read(self) -> str:
        where, _, name = self._reference.partition(":")
        try:
            text = os.environ[name] if where == "env" else Path(name).read_text("ascii")
        except (KeyError, OSError, UnicodeDecodeError) as error:
            raise TokenError(f"token {self._reference}: {_trouble(error)}") from None
        if not _TOKEN.fullmatch(text.strip()):
            raise TokenError(f"token {self._reference}: empty, or with characters that are not visible ASCII")
        return text.strip()


def _trouble(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "no such environment variable"
    return str(error.strerror) if isinstance(error, OSError) else "not ASCII"
