"""Structured logs of launcher and workers: one JSON object a line, users as hashes, secrets hidden.

Code logs through ``logging`` with ``extra``; each extra becomes a key of its own. ``user_id`` is personal data: the log
has ``user_sha256`` instead, as in audit records, unless user ids are switched on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "[hidden]"

_SECRET_NAMES: Final = r"password|passwd|secret|token|api[_-]?key|authorization|credential|signature|jaas"  # noqa: S105 - names
_SECRET_KEY: Final = re.compile(_SECRET_NAMES, re.IGNORECASE)
# Patterns of secrets in any text: signing keys and signatures of webhooks, AWS keys, credentials of HTTP and of URLs,
# values whose name says that they are secret, but for references as env:API_TOKEN and aws-secret:NAME: they name one.
_SECRET_TEXTS: Final = (
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), HIDDEN),
    (re.compile(r"\bv1,[A-Za-z0-9+/=]{20,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)\s+[!-~]+", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),
    (
        re.compile(
            rf"""(?<![\w.-])(?<!env:)(?<!file:)(?!aws-secret:)([\w.-]*(?:{_SECRET_NAMES})[\w.-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s"',;&)}}]+)""",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
)


def formatter(fields: Mapping[str, Any], *, show_users: bool = False) -> logging.Formatter:
    """Formats records as JSON, each with the ``fields`` (the job, the worker) as they are when it is written."""
    import structlog  # takes a quarter of a second, and messages as text need only ``without_secrets``

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
        structlog.processors.JSONRenderer(default=str, ensure_ascii=True),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=processors)


def hide_users(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the user id by its SHA-256."""
    if "user_id" in event:
        event = {**event, "user_sha256": hashlib.sha256(str(event["user_id"]).encode()).hexdigest()}
        del event["user_id"]
    return event


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Hide values whose key says that they are secret, and secrets inside texts."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def _without_secrets(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(name): _without_secrets(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets("", item) for item in value]
    if isinstance(value, str):
        return without_secrets(value)
    return value if value is None or isinstance(value, bool | int | float) else without_secrets(str(value))


def without_secrets(text: str) -> str:
    """The text with ``[hidden]`` in place of each secret."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def format_before(handler: logging.Handler, written_by: logging.Formatter) -> None:
    """Have a handler emit formatted records only: Beam's would append the exception's unfiltered traceback."""
    emit = handler.emit

    def emit_formatted(record: logging.LogRecord) -> None:
        formatted = logging.makeLogRecord(record.__dict__)
        formatted.msg, formatted.args = written_by.format(record), ()
        formatted.exc_info = formatted.exc_text = formatted.stack_info = None
        emit(formatted)

    handler.emit = emit_formatted  # type: ignore[method-assign]
