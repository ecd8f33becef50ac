"""The launcher's messages on standard error, as text or with ``--log_format=json`` as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from runners.flink import logs

_LOG: Final = logging.getLogger("event_trigger.launcher")
# Fields of every JSON message; empty while messages are text. Set once, by the launcher.
_json_fields: dict[str, Any] = {}


def log_json(job: str) -> None:
    """Switch to JSON, an object a line, for the messages of other packages, too."""
    _json_fields["job"] = job
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logs.formatter(_json_fields))
    _LOG.setLevel(logging.INFO)


def say(text: str, **fields: Any) -> None:
    """Report progress; ``fields`` become fields of the JSON."""
    if _json_fields:
        _LOG.info(text.strip(), extra=fields)
    else:
        _print(text)


def complain(text: str, **fields: Any) -> None:
    """Report an error that ends the program; ``fields`` become fields of the JSON."""
    if _json_fields:
        _LOG.error(text, extra=fields)
    else:
        _print(f"error: {text}")


def warn(text: str) -> None:
    """Report a problem that does not end the program."""
    if _json_fields:
        _LOG.warning(text)
    else:
        _print(f"warning: {text}")


def _print(text: str) -> None:
    sys.stderr.write(f"{logs.without_secrets(text)}\n")
    sys.stderr.flush()


def one_line(text: str) -> str:
    """The text with control characters escaped, so that foreign text cannot add lines or control a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
