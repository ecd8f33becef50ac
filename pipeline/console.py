"""The launcher's messages on standard error, as text or with ``--log_format=json`` as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from runners.flink import logs
from transforms.domain.base.terminal_text import json_line, lines_of, one_line

__all__ = ["complain", "json_line", "lines_of", "log_json", "one_line", "say", "warn"]

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
    _report(logging.INFO, text.strip(), text, fields)


def complain(text: str, **fields: Any) -> None:
    """Report an error that ends the program; ``fields`` become fields of the JSON."""
    _report(logging.ERROR, text, f"error: {text}", fields)


def warn(text: str) -> None:
    """Report a problem that does not end the program, in one line."""
    _report(logging.WARNING, text, f"warning: {one_line(text)}", {})


def _report(level: int, message: str, line: str, fields: dict[str, Any]) -> None:
    """Log the message as JSON; while messages are text, write the line."""
    if _json_fields:
        _LOG.log(level, message, extra=fields)
    else:
        sys.stderr.write(f"{lines_of(logs.without_secrets(line))}\n")
        sys.stderr.flush()
