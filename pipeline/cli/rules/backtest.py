"""``event-trigger rules backtest``: replays recorded events through rules, without Beam or Flink."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, BinaryIO, Final

import orjson
from cyclopts import Parameter

from pipeline.cli.parameters import File, Launch, Time
from pipeline.cli.rules.backtest_inputs import open_lines, read_profiles
from pipeline.cli.rules.backtest_report import comparison_lines, report_json, report_text
from pipeline.console import Progress, lines_of, out
from pipeline.errors import OptionError
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.recorded_topic import records_between
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from pipeline.launch.options.parsing import given_flags
from pipeline.timestamps import read_time, shown_time
from transforms.adapters.kafka.bounded_reader import TopicReadError
from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.user_api.client import HttpUserApi
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.history_fields import with_fields_of
from transforms.domain.simulation.backtest import Backtest, Fetch
from transforms.domain.simulation.recordings import records_of
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser

_INTERRUPTED: Final = 130
_PLOT_SUFFIXES: Final = (".png", ".svg", ".pdf")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Files:
    """What a backtest reads and writes.

    Args:
        events: JSON Lines (.gz too, - for standard input): events, or {"timestamp_ms": …, "key": …, "value": {…}}.
        from_: first time, as 2024-01-31T08:00:00Z.
        until: time before which it ends.
        profiles: JSON Lines of what the user API would say: {"user_id": …, "profile": {…}, "visit": …, "history":
            […]}; without it and --user_api_url nobody is known.
        compare: a second rule set over the same events.
        json: write the report as JSON.
        actions: write what would have been sent, JSON Lines.
        plot: draw the firings of each rule over time, FILE.png.
    """

    events: Annotated[str | None, Parameter(metavar="FILE", allow_leading_hyphen=True)] = None
    from_: Annotated[Time | None, Parameter(name="--from")] = None
    until: Time | None = None
    profiles: File | None = None
    compare: Annotated[Path | None, Parameter(metavar="DIR2")] = None
    json: File | None = None
    actions: File | None = None
    plot: File | None = None


def backtest(path: Path, /, *, files: Files = Files(), options: Launch = Launch()) -> int:
    """Replay recorded events through the code of the job, each at its own time, and say what each rule did with them.

    Give --events=FILE, or --bootstrap_servers=… --events_topic=… --from=TIME --until=TIME for a part of a topic.

    The options of the job (`event-trigger run --help`) hold here too, so give those that it runs with:
    --history_fields, --state_ttl_seconds, --user_key, --user_api_url …

    0: done; 1: a rule cannot be used; 2: an option or a file cannot be used; 130: interrupted.

    Args:
        path: rule file or directory.
    """
    try:
        settings, flags = options.settings(f"--rules={path}"), given_flags(options.flags)
        # A file of events or profiles stands for a broker or user API that only the configuration names.
        for file, option in ((files.events, "bootstrap_servers"), (files.profiles, "user_api_url")):
            if file is not None and option not in flags:
                settings = settings.model_copy(update={option: None})
        return _Run(path, files, settings).run()
    except TopicReadError as error:
        raise TopicError(f"--events_topic: {error}") from None


class _Run:
    """A backtest of one rule set, or of two over the same records."""

    def __init__(self, path: Path, files: Files, settings: Settings) -> None:
        self._path = path
        self._files = files
        self._settings = settings
        self._stopped = False
        self._from_ms = read_time("from", files.from_)
        self._until_ms = read_time("until", files.until)
        if (files.events is None) == (settings.bootstrap_servers is None):
            raise OptionError("give either --events=FILE or --bootstrap_servers=…, to say where events come from")
        if files.profiles is not None and settings.user_api_url is not None:
            raise OptionError("--profiles and --user_api_url are two answers to one question: give one")
        for name in ("json", "actions", "plot"):
            path = getattr(files, name)
            if path is not None and not path.parent.is_dir():
                raise OptionError(f"--{name} is {str(path)!r}: there is no such directory")
        if files.plot is not None and files.plot.suffix not in _PLOT_SUFFIXES:
            raise OptionError(f"--plot is {str(files.plot)!r}, allowed endings: {', '.join(_PLOT_SUFFIXES)}")
        if files.plot is not None and importlib.util.find_spec("matplotlib") is None:
            raise OptionError("--plot needs matplotlib: pip install matplotlib")

    def run(self) -> int:
        files, settings = self._files, self._settings
        paths = [self._path, *([files.compare] if files.compare is not None else [])]
        rule_sets = [load_rules(path, LuaEngines()) for path in paths]
        self._fetched: dict[str, FetchedUser] = {}
        self._user_api = self._open_user_api(
            with_fields_of(settings.history_fields, (rule for rules in rule_sets for rule in rules))
        )
        with contextlib.ExitStack() as stack:
            write = None
            if files.actions is not None:
                write = partial(_write_action, stack.enter_context(files.actions.open("wb")))
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

    def _open_user_api(self, history_fields: tuple[str, ...]) -> Fetch:
        files, settings = self._files, self._settings
        if files.profiles is not None:
            return read_profiles(files.profiles, history_fields)
        if settings.user_api_url is None:
            return lambda user_id: NOTHING_KNOWN
        client = HttpUserApi(settings.user_api(), settings.enrichment_deadline_seconds, history_fields)
        return FetchPool(client).wait

    # The records

    def _replay(self, backtests: Sequence[Backtest]) -> float:
        """Feed every record to every backtest; returns the seconds that it took."""
        progress, events, started_s = Progress("backtest"), 0, time.perf_counter()
        previous_handler = signal.signal(signal.SIGINT, self._stop)
        try:
            for record in self._records():
                if self._stopped:
                    break
                self._fetched.clear()
                for backtest in backtests:
                    backtest.feed(record)
                events += 1
                if events % 256 == 0:
                    speed = events / (time.perf_counter() - started_s)
                    at = shown_time(record.timestamp_ms)
                    progress.show(None, f"{events:,} events, at {at}, {speed:,.0f} events/s")
            if not self._stopped:
                self._fetched.clear()
                for backtest in backtests:
                    backtest.finish()
        finally:
            signal.signal(signal.SIGINT, previous_handler)
            progress.end()
        return time.perf_counter() - started_s

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once, without a report

    def _records(self) -> Iterator[Record]:
        settings = self._settings
        if settings.bootstrap_servers is not None:
            yield from records_between(
                for_librdkafka(settings.consumer_config(), settings.kafka_access()),
                settings.events_topic,
                self._from_ms,
                self._until_ms,
                lambda: self._stopped,
            )
            return
        name = self._files.events or "-"
        with open_lines(name) as lines:
            for record in records_of(lines, name, time.time_ns() // 1_000_000):
                is_late_enough = self._from_ms is None or record.timestamp_ms >= self._from_ms
                if is_late_enough and (self._until_ms is None or record.timestamp_ms < self._until_ms):
                    yield record

    # The report

    def _report(self, backtests: Sequence[Backtest], seconds: float) -> None:
        files = self._files
        reports = [backtest.report() for backtest in backtests]
        if self._stopped:
            out("interrupted; so far:")
        sys.stdout.write(lines_of(report_text(reports[0], seconds)))
        differences = None
        names = [str(path) for path in (self._path, files.compare) if path is not None]
        if len(backtests) > 1:
            differences = backtests[0].differences(backtests[1])
            out("", *comparison_lines(differences, *names))
        if files.json is not None:
            files.json.write_bytes(report_json(reports[0], seconds, differences))
        if files.plot is not None:
            from pipeline.cli.rules.backtest_plot import plot_firings

            plot_firings(reports, names, files.plot)


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
