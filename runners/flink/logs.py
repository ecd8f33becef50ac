"""Structured logs of launcher and workers: one JSON object a line, without user ids, secrets hidden.

Code logs through ``logging`` with ``extra``; each extra of ``FIELDS`` becomes a key of its own. ``user_id`` is personal
data: the log has it only if user ids are switched on, and ``user_hash`` always.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from runners.flink.redaction import without_secret_values

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

# What a record may say beside its message: fields of ours, each known to hold no text of events, profiles or bodies.
# Other programs' fields are left out, because nobody knows what they hold.
FIELDS: Final = frozenset(
    [
        "action",
        "action_id",
        "destination",
        "found",
        "job_id",
        "left_out",
        "of",
        "offset",
        "partition",
        "reason",
        "rule",
        "rule_set",
        "rule_version",
        "shard",
        "times",
        "topic",
        "user_hash",
    ]
)
_USER_ID: Final = "user_id"


def formatter(fields: Mapping[str, Any], *, show_users: bool = False) -> logging.Formatter:
    """Formats records as JSON, each with the ``fields`` (the job, the worker) as they are when it is written."""
    import structlog  # takes a quarter of a second, and messages as text need only ``without_secrets``

    def add_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**event, **fields}

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(FIELDS | {_USER_ID} if show_users else FIELDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_fields,
    ]
    processors: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        hide_secrets,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=True),
    ]

    class Formatter(structlog.stdlib.ProcessorFormatter):
        def format(self, record: logging.LogRecord) -> str:
            try:
                record.getMessage()
            except Exception:  # noqa: BLE001 - logging itself would write the arguments as they are
                record = logging.makeLogRecord(record.__dict__)
                record.msg, record.args = f"{record.msg} [with arguments that do not fit]", ()
            return super().format(record)

    return Formatter(foreign_pre_chain=before, processors=processors)


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Hide values whose key says that they are secret, and secrets inside texts."""
    return {key: without_secret_values(key, value) for key, value in event.items()}


def format_before(handler: logging.Handler, written_by: logging.Formatter) -> None:
    """Have a handler emit formatted records only: Beam's would append the exception's unfiltered traceback."""
    emit = handler.emit

    def emit_formatted(record: logging.LogRecord) -> None:
        formatted = logging.makeLogRecord(record.__dict__)
        formatted.msg, formatted.args = written_by.format(record), ()
        formatted.exc_info = formatted.exc_text = formatted.stack_info = None
        emit(formatted)

    handler.emit = emit_formatted  # type: ignore[method-assign]
