"""Structured logs of launcher and workers: one JSON object a line, users as hashes, secrets hidden.

Whoever logs uses ``logging`` with ``extra``; what is extra becomes a key of its own. ``user_id`` is personal data: it
is shown as ``user_sha256``, as in audit records, unless that is asked for.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "[hidden]"

_CALLED_SECRET: Final = r"password|passwd|secret|token|api[_-]?key|authorization|credential|signature|jaas"  # noqa: S105 - names
_SECRET_KEY: Final = re.compile(_CALLED_SECRET, re.IGNORECASE)
# What looks like a secret wherever it stands: signing keys and signatures of webhooks, AWS keys, credentials of HTTP
# and of URLs, values that are called a secret.
_SECRET_TEXTS: Final = (
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), HIDDEN),
    (re.compile(r"\bv1,[A-Za-z0-9+/=]{20,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)\s+[!-~]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),
    (
        re.compile(
            rf"""(?<![A-Za-z])([\w.-]*(?:{_CALLED_SECRET})[\w.-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s"',;&)}}]+)""",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
)


def formatter(fields: Mapping[str, Any], *, show_users: bool = False) -> logging.Formatter:
    """Records as JSON; ``fields`` (the job, the worker) are part of each, as they are when it is written."""

    def add_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**event, **fields}

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_fields,
    ]
    processors: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        *([] if show_users else [hide_users]),
        hide_secrets,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=processors)


def hide_users(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The SHA-256 of the user in place of the user."""
    if "user_id" in event:
        event = {**event, "user_sha256": hashlib.sha256(str(event["user_id"]).encode()).hexdigest()}
        del event["user_id"]
    return event


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Hide values whose key says that they are secret, and in texts what looks like one."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def _without_secrets(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(inner): _without_secrets(str(inner), held) for inner, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets("", held) for held in value]
    if isinstance(value, str):
        return without_secrets(value)
    return value if value is None or isinstance(value, bool | int | float) else without_secrets(str(value))


def without_secrets(text: str) -> str:
    """A text with ``[hidden]`` where something looks like a secret."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def format_before(handler: logging.Handler, written_by: logging.Formatter) -> None:
    """Let a handler see formatted records alone: Beam's looks at them itself and would send the bare traceback, too."""
    handler.emit = functools.partial(_emit_formatted, handler.emit, written_by)  # type: ignore[method-assign]


def _emit_formatted(
    emit: Callable[[logging.LogRecord], None], written_by: logging.Formatter, record: logging.LogRecord
) -> None:
    formatted = logging.makeLogRecord(record.__dict__)
    formatted.msg, formatted.args = written_by.format(record), ()
    formatted.exc_info = formatted.exc_text = formatted.stack_info = None
    emit(formatted)
