"""What the launcher says while it works, on standard error: for people, or as JSON with ``--log_format=json``."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from runners.flink import logs

_LOG: Final = logging.getLogger("event_trigger.launcher")
# Set once for the process, by the launcher.
_json_fields: dict[str, Any] = {}


def speak_json(job: str) -> None:
    """From here on everything is a JSON object a line, what other packages log included."""
    _json_fields["job"] = job
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logs.formatter(_json_fields))
    _LOG.setLevel(logging.INFO)


def say(text: str, **fields: Any) -> None:
    """Progress; ``fields`` are keys of the JSON."""
    if _json_fields:
        _LOG.info(text.strip(), extra=fields)
    else:
        _print(text)


def complain(text: str, **fields: Any) -> None:
    """Why it cannot go on."""
    if _json_fields:
        _LOG.error(text, extra=fields)
    else:
        _print(f"error: {text}")


def warn(text: str) -> None:
    """What it goes on without."""
    if _json_fields:
        _LOG.warning(text)
    else:
        _print(f"warning: {text}")


def _print(text: str) -> None:
    sys.stderr.write(f"{logs.without_secrets(text)}\n")
    sys.stderr.flush()


def one_line(text: str) -> str:
    """The text as one line that does nothing to a terminal: ids, details and receivers' answers hold anything."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
