"""The token with which the user API is called; where it lies: ``secret_references``."""

from __future__ import annotations

import contextlib
import re
from typing import Final

from transforms.domain.secret_references import LOCAL, SecretError, is_local_reference, read_secret

_TOKEN: Final = re.compile(r"[!-~]+")  # anything else could end the header


class TokenError(ValueError):
    """A token cannot be read; names the reference, never the token."""


class Token:
    """A token read now and again on ``reread``; its text is only in ``value``."""

    def __init__(self, reference: str) -> None:
        if not is_local_reference(reference):
            raise TokenError(f"a token reference of another form, allowed: {LOCAL}")
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
        try:
            text = read_secret(self._reference).strip()
        except SecretError as error:
            raise TokenError(f"token {error}") from None
        if not _TOKEN.fullmatch(text):
            raise TokenError(f"token {self._reference}: empty, or with characters that are not visible ASCII")
        return text
