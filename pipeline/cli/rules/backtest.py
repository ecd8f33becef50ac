"""``python -m pipeline rules backtest``: replays recorded events through rules, without Beam or Flink."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final

import orjson

from pipeline.cli.rules.backtest_inputs import open_lines, read_profiles
from pipeline.cli.rules.backtest_report import comparison_text, report_json, report_text
from pipeline.console import lines_of, one_line
from pipeline.errors import OptionError
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.recorded_topic import records_between
from pipeline.launch.options import Settings, parse
from pipeline.launch.options.parsing import given_flags
from pipeline.timestamps import read_time, shown_time
from transforms.adapters.kafka.bounded_reader import TopicReadError
from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.secrets import TokenError
from transforms.adapters.user_api.client import HttpUserApi
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.model import RuleError
from transforms.domain.simulation.backtest import Backtest, Fetch
from transforms.domain.simulation.recordings import RecordingError, records_of
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser

PROGRAM: Final = "python -m pipeline rules backtest"
_INTERRUPTED: Final = 130
_PROGRESS_INTERVAL_S: Final = 2.0
_PLOT_SUFFIXES: Final = (".png", ".svg", ".pdf")

_DESCRIPTION: Final = """\
Replays recorded events through the code of the job, each at its own time, and says what each rule did with them.
Give --events=FILE, or --bootstrap_servers=… --events_topic=… --from=TIME --until=TIME for a part of a topic.

The options of the job hold here too, so give those that it runs with: --history_fields, --state_ttl_seconds,
--user_key, --user_api_url …"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that are not options of the pipeline."""
    parser.add_argument("path", type=Path, help="rule file or directory")
    parser.add_argument(
        "--events",
        metavar="FILE",
        help='JSON Lines (.gz too, - for standard input): events, or {"timestamp_ms": …, "key": …, "value": {…}}',
    )
    parser.add_argument("--from", dest="from_", metavar="TIME", help="first time, as 2024-01-31T08:00:00Z")
    parser.add_argument("--until", metavar="TIME", help="time before which it ends")
    parser.add_argument(
        "--profiles",
        type=Path,
        metavar="FILE",
        help='JSON Lines of what the user API would say: {"user_id": …, "profile": {…}, "visit": …, "history": […]}; '
        "without it and --user_api_url nobody is known",
    )
    parser.add_argument("--compare", type=Path, metavar="DIR2", help="a second rule set over the same events")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--actions", type=Path, metavar="FILE", help="write what would have been sent, JSON Lines")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the firings of each rule over time")


def main(argv: Sequence[str]) -> int:
    """Replay and report; returns 0, 1 for an unusable rule, 2 for an argument or file, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    arguments, rest = parser.parse_known_args(argv)
    try:
        settings = parse([f"--rules={arguments.path}", *rest], PROGRAM)
        # A file of events or profiles stands for a broker or user API that only the configuration names.
        flags = given_flags(rest, PROGRAM)
        for file, option in ((arguments.events, "bootstrap_servers"), (arguments.profiles, "user_api_url")):
            if file is not None and option not in flags:
                settings = settings.model_copy(update={option: None})
        return _Run(arguments, settings).run()
    except RuleError as error:
        sys.stderr.write(f"error: {one_line(str(error))}\n")
        return 1
    except (OptionError, RecordingError, TokenError) as error:
        sys.stderr.write(f"error: {one_line(str(error))}\n")
    except TopicReadError as error:
        sys.stderr.write(f"error: --events_topic: {one_line(str(error))}\n")
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or 'writing'}: {error.strerror or error}\n")
    return 2


class _Run:
    """A backtest of one rule set, or of two over the same records."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        self._arguments = arguments
        self._settings = settings
        self._stopped = False
        self._from_ms = read_time("from", arguments.from_)
        self._until_ms = read_time("until", arguments.until)
        if (arguments.events is None) == (settings.bootstrap_servers is None):
            raise OptionError("give either --events=FILE or --bootstrap_servers=…, to say where events come from")
        if arguments.profiles is not None and settings.user_api_url is not None:
            raise OptionError("--profiles and --user_api_url are two answers to one question: give one")
        for name in ("json", "actions", "plot"):
            path = getattr(arguments, name)
            if path is not None and not path.parent.is_dir():
                raise OptionError(f"--{name} is {str(path)!r}: there is no such directory")
        if arguments.plot is not None and arguments.plot.suffix not in _PLOT_SUFFIXES:
            raise OptionError(f"--plot is {str(arguments.plot)!r}, allowed endings: {', '.join(_PLOT_SUFFIXES)}")
        if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
            raise OptionError("--plot needs matplotlib: pip install 'event-trigger[plot]'")

    def run(self) -> int:
        arguments, settings = self._arguments, self._settings
        paths = [arguments.path, *([arguments.compare] if arguments.compare is not None else [])]
        rule_sets = [load_rules(path, LuaEngines()) for path in paths]
        self._fetched: dict[str, FetchedUser] = {}
        self._user_api = self._open_user_api()
        with contextlib.ExitStack() as stack:
            write = None
            if arguments.actions is not None:
                write = partial(_write_action, stack.enter_context(arguments.actions.open("wb")))
            backtests: list[Backtest] = []
            for rules in rule_sets:
                on_sent = write if not backtests else None
                lua = LuaEngines(settings.rules_isolation)
                backtests.append(Backtest(rules, settings.shard(()), self._fetch, lua, on_sent))
                stack.callback(backtests[-1].close)
            seconds = self._replay(backtests)
        self._report(backtests, seconds)
        return _INTERRUPTED if self._stopped else 0

    # The user API

    def _fetch(self, user_id: str) -> FetchedUser:
        """Both rule sets get the same answer about a user at the same record."""
        if user_id not in self._fetched:
            self._fetched[user_id] = self._user_api(user_id)
        return self._fetched[user_id]

    def _open_user_api(self) -> Fetch:
        arguments, settings = self._arguments, self._settings
        if arguments.profiles is not None:
            return read_profiles(arguments.profiles, settings.history_fields)
        if settings.user_api_url is None:
            return lambda user_id: NOTHING_KNOWN
        client = HttpUserApi(settings.user_api(), settings.enrichment_deadline_seconds, settings.history_fields)
        return FetchPool(client).wait

    # The records

    def _replay(self, backtests: Sequence[Backtest]) -> float:
        """Feed every record to every backtest; returns the seconds that it took."""
        progress = _Progress()
        previous_handler = signal.signal(signal.SIGINT, self._stop)
        try:
            for record in self._records():
                if self._stopped:
                    break
                self._fetched.clear()
                for backtest in backtests:
                    backtest.feed(record)
                progress.count(record)
            if not self._stopped:
                self._fetched.clear()
                for backtest in backtests:
                    backtest.finish()
        finally:
            signal.signal(signal.SIGINT, previous_handler)
            progress.end()
        return progress.seconds

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once, without a report

    def _records(self) -> Iterator[Record]:
        settings = self._settings
        if settings.bootstrap_servers is not None:
            yield from records_between(
                for_librdkafka(settings.consumer_config()),
                settings.events_topic,
                self._from_ms,
                self._until_ms,
                lambda: self._stopped,
            )
            return
        name = self._arguments.events
        with open_lines(name) as lines:
            for record in records_of(lines, name, time.time_ns() // 1_000_000):
                is_late_enough = self._from_ms is None or record.timestamp_ms >= self._from_ms
                if is_late_enough and (self._until_ms is None or record.timestamp_ms < self._until_ms):
                    yield record

    # The report

    def _report(self, backtests: Sequence[Backtest], seconds: float) -> None:
        arguments = self._arguments
        reports = [backtest.report() for backtest in backtests]
        if self._stopped:
            sys.stdout.write("interrupted; so far:\n")
        sys.stdout.write(lines_of(report_text(reports[0], seconds)))
        differences = None
        names = [str(path) for path in (arguments.path, arguments.compare) if path is not None]
        if len(backtests) > 1:
            differences = backtests[0].differences(backtests[1])
            sys.stdout.write("\n" + lines_of(comparison_text(differences, *names)))
        if arguments.json is not None:
            arguments.json.write_bytes(report_json(reports[0], seconds, differences))
        if arguments.plot is not None:
            from pipeline.cli.rules.backtest_plot import plot_firings

            plot_firings(reports, names, arguments.plot)


def _write_action(file: BinaryIO, at_ms: int, sent: FiredAction) -> None:
    """Write an action that the job would have sent, as a line of JSON."""
    line: dict[str, Any] = {
        "time": at_ms,
        "rule": sent.rule,
        "version": sent.rule_version,
        "action": sent.action.name,
        "action_id": sent.action_id,
        "user_id": sent.user_id,
        "body": orjson.Fragment(sent.body),
    }
    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


class _Progress:
    """Reports progress on standard error, every two seconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._next_s = _PROGRESS_INTERVAL_S
        self._events = 0
        self._shown = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def count(self, record: Record) -> None:
        self._events += 1
        if self._events % 256 == 0 and self.seconds >= self._next_s:
            self._next_s = self.seconds + _PROGRESS_INTERVAL_S
            self._shown = True
            speed = self._events / self.seconds
            end = "\r" if sys.stderr.isatty() else "\n"
            sys.stderr.write(
                f"{self._events:,} events, at {shown_time(record.timestamp_ms)}, {speed:,.0f} events/s{end}"
            )
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown and sys.stderr.isatty():
            sys.stderr.write("\n")
