"""The demo as a user meets it, with Prometheus watching: every panel of every dashboard, every alert."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from runners.flink.local.monitoring import SCRAPE_EVERY_S
from tests.integration.launchers import interrupt, started, wait_for
from tests.monitoring import ALERTS, filled, queries, specified_rows
from tests.waiting import eventually

pytestmark = pytest.mark.stack

# What Grafana makes of $__rate_interval for an hour of these scrapes.
RATE_INTERVAL = f"{4 * SCRAPE_EVERY_S}s"

# There, but 0 as long as all is well, no rule of the demo asks for it, or nothing waits at that moment.
MAY_BE_ZERO = {
    "delivery: Failed for now, per second [{{destination}} {{outcome}}]",
    "delivery: Lost to the dead letters, per second [{{destination}} {{outcome}}]",
    "delivery: Breaker open, disabled [{{destination}} breaker]",
    "delivery: Breaker open, disabled [{{destination}} disabled]",
    "delivery: Ledger: webhooks it had settled, requests without it, per second [found]",
    "delivery: Ledger: webhooks it had settled, requests without it, per second [without it]",
    "delivery: Ledger: shards that wait for it, that send without it, that were claimed by another worker [wait]",
    "delivery: Ledger: shards that wait for it, that send without it, that were claimed by another worker [without it]",
    "delivery: Ledger: shards that wait for it, that send without it, that were claimed by another worker "
    "[claimed by another]",
    "delivery: Suppressed and expired, per second [{{destination}} {{outcome}}]",
    "delivery: Users with webhooks that have not ended [users]",
    "overview: Events per second [duplicates]",
    "overview: Records skipped [positions out of range]",
    "overview: Records skipped [records]",
    "overview: Records that wait [wait]",
    "overview: Lag [records that wait]",
    "overview: Lag [most in one partition]",
    "overview: Dead letters, 1 h [dead letters]",
    "overview: Dead letters per second [all]",
    "overview: Dead letters per second [{{reason}}]",
    "overview: User API calls per second [errors]",
    "overview: User API spared [spared]",
    "overview: Restarts [restarts]",
    "overview: Jobs [free slots {{cluster}}]",
    "overview: Time of subtasks [{{task}} held back]",
    "rules: Errors, last hour [errors]",
    "rules: Rules in quarantine [rules]",
    "rules: Errors per minute [{{rule}}]",
    "rules: Stopped by cooldown and cap, per minute [{{rule}} cooldown]",
    "rules: Stopped by cooldown and cap, per minute [{{rule}} cap]",
    "rules: Limits hit and quarantine, events per minute [{{rule}} tripped]",
    "rules: Limits hit and quarantine, events per minute [{{rule}} not asked]",
    "rules: Sequences per minute [{{rule}} begun]",
    "rules: Sequences per minute [{{rule}} followed]",
    "rules: Sequences per minute [{{rule}} timed out]",
    "rules: Held by quiet hours and let go, per minute [{{rule}} held]",
    "rules: Held by quiet hours and let go, per minute [{{rule}} released]",
    "rules: Not picked by their group, per minute [{{rule}} group's cap]",
    "rules: Not picked by their group, per minute [{{rule}} outranked]",
    "rules: Not picked by their group, per minute [{{rule}} waits]",
    "rules: Suppressed and expired, per minute [{{rule}} expired]",
    "rules: Suppressed and expired, per minute [{{rule}} suppressed]",
    "rules: Live rule set [set]",
    "state: Checkpoints, last hour [failed]",
    "state: Users in the state [of them wait for the user API]",
    "state: Journals rewritten, read again, per second [rewritten]",
    "state: Journals rewritten, read again, per second [read again]",
    "state: RocksDB on disk [compaction due]",
    "state: RocksDB compactions under way [compactions]",
    "state: Buffers in use [{{task}} in]",
    "state: Buffers in use [{{task}} out]",
    "state: RocksDB reads and writes [read {{instance}}]",
    "state: RocksDB reads and writes [read by compaction {{instance}}]",
    "state: RocksDB reads and writes [written by compaction {{instance}}]",
}


class Prometheus:
    """Asks the demo's Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """The current values of a query, without NaN."""
        found = [float(series["value"][1]) for series in self.get("query", query=query)["result"]]
        return [value for value in found if math.isfinite(value)]

    def targets(self) -> list[str]:
        return [target["health"] for target in self.get("targets")["activeTargets"]]

    def alerts(self) -> dict[str, tuple[str, str]]:
        """Each alert's health and state."""
        rules = [rule for group in self.get("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: (rule["health"], rule["state"]) for rule in rules}


def lines_without_data(prometheus: Prometheus, expected: set[str]) -> set[str]:
    """The expected lines of dashboards that show nothing now, or 0 where 0 is not enough.

    Some show only what there was in the time shown (``… and … > 0``): without that there has to be a 0.
    """
    found = set()
    for line, query in queries():
        if line in expected:
            values = prometheus.values(filled(query, RATE_INTERVAL))
            if not values and line in MAY_BE_ZERO:
                values = prometheus.values(filled(query.partition(" and ")[0], RATE_INTERVAL))
            if not values or (max(values) <= 0 and line not in MAY_BE_ZERO):
                found.add(line)
    return found


def test_demo_shows_actions_and_every_panel_and_leaves_nothing_after_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path, "demo", "--rate=100", "--users=500", "--monitoring") as (process, output, mark):
        wait_for(output, r"ACTION \w+ +user_\d+ .* after [\d,]+ ms", 200)
        wait_for(
            output,
            r"\d+ events/s .* p50 [\d,]+ ms  p99 [\d,]+ ms  lag \d+ .* webhooks [1-9][\d,]*, repeated 0, kills 0",
            30,
        )
        assert "Flink's web page: http://127.0.0.1:" in output.read_text()
        found = re.search(r"Prometheus: (http://127\.0\.0\.1:\d+) ", output.read_text())
        assert found, output.read_text()
        prometheus = Prometheus(found[1])
        links = re.search(r"alerts: (http\S+)    targets: (http\S+)\n", output.read_text())
        assert links, output.read_text()
        assert [requests.get(link, timeout=5).status_code for link in links.groups()] == [200, 200]
        eventually(lambda: prometheus.targets() == ["up", "up"], "JobManager and TaskManager are scraped", 30, 0.5)

        dark = {line for line, _ in queries()}
        assert dark >= MAY_BE_ZERO

        def all_seen() -> bool:
            dark.intersection_update(lines_without_data(prometheus, dark))
            return not dark

        try:
            eventually(all_seen, "every line of the dashboards has had data", 60, 1.0)
        except AssertionError:
            pytest.fail(f"no data in {sorted(dark)}")

        specified = {metric for _, metrics, _ in specified_rows() for metric in metrics}
        assert [metric for metric in sorted(specified) if not prometheus.values(metric)] == []
        alerts = prometheus.alerts()
        assert set(alerts) == {alert["alert"] for alert in ALERTS}
        assert {health for health, _ in alerts.values()} == {"ok"}
        assert [name for name, (_, state) in alerts.items() if state == "firing"] == []

        interrupt(process, mark, tmp_path)
    assert "Traceback" not in output.read_text()
