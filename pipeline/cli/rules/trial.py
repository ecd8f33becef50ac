"""What a rule set would have done with the newest events of the topic, beside the set that is live."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.cli.rules.backtest_report import comparison_lines
from pipeline.kafka.recorded_topic import newest_records
from pipeline.timestamps import shown_time
from transforms.adapters.kafka.bounded_reader import TopicReadError
from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.secrets import TokenError
from transforms.adapters.user_api.client import HttpUserApi, UserApiSettings
from transforms.adapters.user_api.fetch_pool import FetchPool
from transforms.domain.rules.history_fields import with_fields_of
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.backtest import Backtest, Fetch
from transforms.domain.users.fetched_user import NOTHING_KNOWN, FetchedUser

_MOST_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Which events a rule set is tried on, and who knows their users.

    Attributes:
        config: librdkafka's properties.
        topic: the events topic.
        events: how many of its newest events at most; 0 tries nothing.
        settings: settings of the job.
        user_api: where users are loaded from; without a URL nobody is known.
        most_s: the time after which it stops, with the events so far.
    """

    config: Mapping[str, str]
    topic: str
    events: int
    settings: ShardSettings
    user_api: UserApiSettings = field(default_factory=UserApiSettings)
    most_s: float = _MOST_S

    def lines(self, live: tuple[Rule, ...], wanted: tuple[Rule, ...], names: tuple[str, str]) -> list[str]:
        """What would change, as lines; why there is nothing to compare if the events cannot be read."""
        if self.events == 0:
            return []
        if not live:
            return ["not tried on past events: there is no live set to compare with"]
        try:
            return self._compare(live, wanted, names)
        except (TopicReadError, TokenError, RuleError) as error:
            return [f"not tried on past events: {error}"]

    def _compare(self, live: tuple[Rule, ...], wanted: tuple[Rule, ...], names: tuple[str, str]) -> list[str]:
        fetched: dict[str, FetchedUser] = {}
        ask = self._user_api(with_fields_of(self.settings.history_fields, (*live, *wanted)))

        def fetch(user_id: str) -> FetchedUser:
            # Both sets get the same answer.
            if user_id not in fetched:
                fetched[user_id] = ask(user_id)
            return fetched[user_id]

        backtests = [Backtest(rules, self.settings, fetch, LuaEngines()) for rules in (live, wanted)]
        give_up_s = time.monotonic() + self.most_s
        is_late = False
        try:
            for record in newest_records(self.config, self.topic, self.events, lambda: is_late):
                for backtest in backtests:
                    backtest.feed(record)
                if is_late := time.monotonic() >= give_up_s:
                    break
            for backtest in backtests:
                backtest.finish()
        finally:
            for backtest in backtests:
                backtest.close()
        report = backtests[0].report()
        if report.first_ms is None or report.last_ms is None:
            return [f"not tried on past events: {self.topic} has none"]
        span = f"{shown_time(report.first_ms)} to {shown_time(report.last_ms)}"
        stopped = f", all that were done in {self.most_s:g} s" if is_late else ""
        unknown = "" if self.user_api.base_url else "; without --user_api_url nobody is known"
        top = f"on the newest {report.events:,} events of {self.topic}, {span}{stopped}{unknown}:"
        return [top, *comparison_lines(backtests[0].differences(backtests[1]), *names)]

    def _user_api(self, history_fields: tuple[str, ...]) -> Fetch:
        if self.user_api.base_url is None:
            return lambda user_id: NOTHING_KNOWN
        deadline_s = self.settings.enrichment_deadline_ms / 1000
        return FetchPool(HttpUserApi(self.user_api, deadline_s, history_fields)).wait
