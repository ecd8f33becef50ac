"""Reads secrets by reference: options, files and plans hold the place of a secret, never its text.

A reference has the form of ``domain.base.secret_references``.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from transforms.domain.base.checked_documents import FileError, read_regular_file
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.secret_references import ALLOWED, SecretError, is_reference

_ARN_REGION: Final = re.compile(r"arn:[a-z-]+:secretsmanager:([a-z0-9-]+):")
_AWS_TIMEOUT_S: Final = 3.0
_MAX_FILE_BYTES: Final = 64 * 1024  # as many as AWS allows
_TOKEN: Final = re.compile(r"[!-~]+")  # anything else could end the header
_TOKEN_PAUSE_S: Final = 5.0


class TokenError(EventTriggerError, ValueError):
    """A token cannot be read; the message names the reference, never the token."""


def read_secret(reference: str, check: Callable[[str], object]) -> str:
    """Read a secret now, without white space around it; from AWS this takes some seconds at most.

    Args:
        reference: ``env:NAME``, ``file:PATH`` or ``aws-secret:ID[#KEY]``.
        check: raises SecretError, without the text, for a text of the wrong form.

    Raises:
        SecretError: the secret cannot be read, is not ASCII or has the wrong form, or its file is not a regular one or
            has more than 64 KiB.
    """
    where, _, name = reference.partition(":")
    try:
        if where == "env":
            text = os.environ[name]
        elif where == "file":
            text = read_regular_file(Path(name), _MAX_FILE_BYTES).decode("ascii")
        else:
            text = _read_aws(name)
        text.encode("ascii")
        text = text.strip()
        check(text)
    except KeyError:
        raise SecretError(f"{reference}: no such environment variable") from None
    except OSError as error:
        raise SecretError(f"{reference}: {error.strerror}") from None
    except UnicodeError:
        raise SecretError(f"{reference}: not ASCII") from None
    except (FileError, SecretError) as error:
        raise SecretError(f"{reference}: {error}") from None
    return text


class Secret:
    """A secret that is read on first use, and again when it is older than ``refresh_s``. Thread-safe.

    One caller at a time reads it again. The others get the former text, which stays in use as long as the secret cannot
    be read. ``check`` is that of ``read_secret``.
    """

    def __init__(
        self,
        reference: str,
        check: Callable[[str], object],
        refresh_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reference = reference
        self._check = check
        self._refresh_s = refresh_s
        self._clock = clock
        self._lock = threading.Lock()
        self._text: str | None = None
        self._due_s = 0.0

    def __repr__(self) -> str:
        return f"Secret({self._reference!r})"

    def is_fresh(self) -> bool:
        """Whether ``text`` would read nothing."""
        with self._lock:
            return self._text is not None and self._clock() < self._due_s

    def text(self) -> str:
        """The secret's text, not older than ``refresh_s`` unless it cannot be read.

        Raises:
            SecretError: it could never be read.
        """
        with self._lock:
            text = self._text
            if text is not None:
                if self._clock() < self._due_s:
                    return text
                self._due_s = self._clock() + self._refresh_s
        return self._reread(text)

    def _reread(self, former: str | None) -> str:
        try:
            text = read_secret(self._reference, self._check)
        except SecretError:
            if former is None:
                raise
            return former
        with self._lock:
            self._text, self._due_s = text, self._clock() + self._refresh_s
        return text


class Token:
    """A bearer token that is read at once, and again by ``reread``; only ``value`` has its text. Thread-safe.

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
                self._due_s = self._clock() + _TOKEN_PAUSE_S
                with contextlib.suppress(TokenError):  # a file may be missing while it is replaced
                    self.value = self._read()
        return self.value

    def _read(self) -> str:
        try:
            return read_secret(self._reference, _check_token)
        except SecretError as error:
            raise TokenError(f"token {error}") from None


def _check_token(text: str) -> None:
    if not _TOKEN.fullmatch(text):
        raise SecretError("empty, or with characters that are not visible ASCII")


def _read_aws(name: str) -> str:
    """The text of AWS's secret; a ``SecretError`` says AWS's reason only."""
    # Imported here because it takes 0.3 s, which only users of such secrets should wait for.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    secret_id, _, key = name.partition("#")
    region = _ARN_REGION.match(secret_id)
    config = Config(connect_timeout=_AWS_TIMEOUT_S, read_timeout=_AWS_TIMEOUT_S, retries={"total_max_attempts": 2})
    try:
        client = boto3.session.Session(region_name=region and region[1]).client("secretsmanager", config=config)
        answer = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        raise SecretError(str(error.response.get("Error", {}).get("Code", "no reason given"))) from None
    except BotoCoreError as error:
        raise SecretError(type(error).__name__) from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise SecretError("binary, allowed is text")
    return _json_field(text, key) if key else text


def _json_field(text: str, key: str) -> str:
    try:
        fields: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise SecretError("not a JSON object, so it has no keys")
    if not isinstance(fields.get(key), str):
        raise SecretError(f"no text under the key {key!r}")
    return str(fields[key])
