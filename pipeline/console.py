"""What commands print: results on standard output; messages on standard error, with ``--log_format=json`` as JSON.

Text from topics goes through ``one_line``. Nothing here reads markup, so that ``[red]`` in a name stays as it is.
"""

from __future__ import annotations

import difflib
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from transforms.domain.base.terminal_text import json_line as json_line
from transforms.domain.base.terminal_text import lines_of as lines_of
from transforms.domain.base.terminal_text import one_line as one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_TERMINAL_S: Final = 0.1
_LINE_S: Final = 5.0
_WIDEST: Final = 100_000  # of a table's line

_LOG: Final = logging.getLogger("event_trigger.launcher")
# Fields of every JSON message; None while messages are text.
_json_fields: dict[str, Any] | None = None


# Messages


class _TextFormatter(logging.Formatter):
    """Messages and tracebacks as text. Other packages' hold what brokers, Flink and receivers say."""

    def format(self, record: logging.LogRecord) -> str:
        return _shown(super().format(record))


def _shown(text: str) -> str:
    from runners.flink.redaction import without_secrets

    return lines_of(without_secrets(text))


def quiet_logging() -> None:
    """Log to standard error, without messages of other packages at import that users cannot act on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    noise = ("crcmod package not found", "Could not find a compatible bson package")
    logging.getLogger().handlers[0].addFilter(lambda record: not record.getMessage().startswith(noise))
    # Beam warns about the Flink runner's flags before it has fetched their definitions from the job server.
    logging.getLogger("apache_beam.options.pipeline_options").setLevel(logging.ERROR)


def hide_secrets_of_crashes() -> None:
    """Have Python write warnings, and tracebacks that end the program or a thread, as logging writes messages."""
    logging.captureWarnings(True)
    sys.excepthook = _write_crash
    threading.excepthook = lambda given: _write_crash(given.exc_type, given.exc_value, given.exc_traceback)


def _write_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):
        sys.stderr.write(f"{_shown(''.join(traceback.format_exception(kind, error, trace)).rstrip())}\n")


def log_json(**fields: Any) -> None:
    """Switch to JSON, an object a line, for the messages of other packages, too; ``fields`` are in every object."""
    from runners.flink import logs

    global _json_fields
    _json_fields = {**(_json_fields or {}), **fields}
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logs.formatter(_json_fields))
    _LOG.setLevel(logging.INFO)


def say(text: str, **fields: Any) -> None:
    """Report progress; ``fields`` become fields of the JSON."""
    _report(logging.INFO, text.strip(), text, fields)


def complain(text: str, **fields: Any) -> None:
    """Report an error in one line; ``fields`` become fields of the JSON."""
    _report(logging.ERROR, text, f"error: {one_line(text)}", fields)


def warn(text: str) -> None:
    """Report a problem that does not end the program, in one line."""
    _report(logging.WARNING, text, f"warning: {one_line(text)}", {})


def _report(level: int, message: str, line: str, fields: dict[str, Any]) -> None:
    """Log the message as JSON; while messages are text, write the line."""
    if _json_fields is not None:
        _LOG.log(level, message, extra=fields)
        return
    sys.stderr.write(f"{_shown(line)}\n")
    sys.stderr.flush()


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A question that names the closest of the names, as ``did you mean --rules?``; empty if none is close."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f"did you mean {prefix}{close[0]}?" if close else ""


# Results


def out(*lines: str) -> None:
    """Print lines of a result at once; control characters are escaped."""
    sys.stdout.writelines(f"{one_line(line)}\n" for line in lines)
    sys.stdout.flush()


def out_json(document: Any) -> None:
    """Print a document as one line of JSON."""
    sys.stdout.write(f"{json_line(json.dumps(document))}\n")
    sys.stdout.flush()


def table_lines(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows in aligned columns, the first row as heading: ``left`` columns are text, the others numbers.

    Nothing is cut or wrapped, whatever the terminal's width; colour codes are for terminals only.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, heading in enumerate(rows[0]):
        table.add_column(Text(one_line(heading)), justify="left" if number < left else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console = Console(width=_WIDEST)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


class Progress:
    """How far a command is, on standard error: a bar on a terminal; elsewhere, as in a log, a line every five seconds.

    What is quickly done writes nothing.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._every_s = _TERMINAL_S if sys.stderr.isatty() else _LINE_S
        self._next_s = clock() + self._every_s
        self._bar: Bar | None = None

    def show(self, share: float | None, text: str) -> None:
        """Show the share, from 0 to 1 or None if nobody knows, unless the last time is too recent."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        if not sys.stderr.isatty():
            say(f"{self._name}{'' if share is None else f' {share:.0%}'}  {text}")
            return
        if self._bar is None:
            self._bar = _started_bar(self._name)
        self._bar.update(self._bar.task_ids[0], total=None if share is None else 1, completed=share or 0, text=text)
        self._bar.refresh()

    def end(self) -> None:
        """Finish the line, so that later output begins on a new one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _started_bar(name: str) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}", markup=False)
    bar = Bar(TextColumn("{task.description}"), *columns, console=Console(file=sys.stderr), auto_refresh=False)
    bar.add_task(name, total=1, text="")
    bar.start()
    return bar
