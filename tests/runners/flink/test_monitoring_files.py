"""Alerts and dashboards query existing metrics. tests/infra/test_monitoring.py runs them in Prometheus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.monitoring import ALERTS, BOARDS, names_of, specified_rows
from tests.readme import METRICS as PAGE
from transforms.adapters.telemetry.metric_names import HISTOGRAM, METRICS

ROOT = Path(__file__).parents[3]


OF_PROCESSES = ("flink_taskmanager_Status", "flink_jobmanager_num", "flink_jobmanager_taskSlots")
# architecture.md, "Key Metrics to Monitor", and event-dispatch.md, "Monitoring Backpressure"
SPECIFIED = [
    "JobManager: Active Jobs", "JobManager: Checkpoint Success Rate", "JobManager: Job Restart Count",
    "TaskManager: CPU Usage per TM", "TaskManager: Memory Usage per TM", "TaskManager: Network I/O",
    "TaskManager: Disk I/O",
    "Application: Events/sec Processed", "Application: End-to-end Latency", "Application: Backpressure Indicators",
    "Application: State Size per User",
    "State Backend: Total State Size", "State Backend: Checkpoint Duration", "State Backend: RocksDB Compaction",
    "`buffers.inPoolUsage`", "`buffers.outPoolUsage`", "`records-lag-max`", "`checkpointDuration`",
]  # fmt: skip


def after_relabelling() -> set[str]:
    """The names that prometheus.yml makes of the names in the table."""
    names = set()
    for metric in METRICS:
        if metric.kind == HISTOGRAM:
            names |= {f"event_trigger_{metric.name}_bucket", f"event_trigger_{metric.name}_sum"}
        elif metric.name.startswith("action."):
            names.add("event_trigger_actions_by_outcome")
        elif metric.name.startswith("dead_letter."):
            names.add("event_trigger_dead_letters_by_reason")
        else:
            names.add("event_trigger_" + re.sub(r"\.[A-Z]+", "", metric.name).replace(".", "_"))
    return names


KNOWN = after_relabelling() | set(re.findall(r"^\| `(flink_\w+)`", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_queries_documented_metrics_and_has_its_section_in_the_runbook(alert: dict[str, Any]) -> None:
    assert names_of(alert["expr"]) - KNOWN == set()
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]
    assert alert["labels"]["severity"] in ("critical", "warning")


def test_the_runbook_has_the_alerts_in_their_order() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    alerts = [alert["alert"] for alert in ALERTS]
    assert [heading for heading in headings if heading in alerts] == alerts


def test_there_is_a_dashboard_for_each_view() -> None:
    assert set(BOARDS) == {"overview", "rules", "delivery", "state"}
    assert len({board["uid"] for board in BOARDS.values()}) == 4


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_queries_documented_metrics_of_the_chosen_job(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    for panel in panels:
        for target in panel["targets"]:
            names = names_of(target["expr"])
            assert names, panel["title"]
            assert names - KNOWN == set()
            of_job = [name for name in names if not name.startswith(OF_PROCESSES)]
            assert target["expr"].count('job_name=~"$job"') >= len(of_job)
    told = [found[1] for panel in panels if (found := re.search(r"Runbook: ([\w, ]+)$", panel["description"]))]
    assert told
    assert {alert_name for text in told for alert_name in text.split(", ")} <= {alert["alert"] for alert in ALERTS}


def test_a_dashboard_shows_the_metric_of_every_alert() -> None:
    shown = {
        metric
        for board in BOARDS.values()
        for panel in board["panels"]
        for t in panel["targets"]
        for metric in names_of(t["expr"])
    }
    without = {"ScrapeFails", "JobNotRunning"}  # of processes, not of a job
    for alert in ALERTS:
        assert alert["alert"] in without or names_of(alert["expr"]) & shown


def test_the_named_panel_shows_the_metrics_of_every_entry_of_the_specification() -> None:
    rows = specified_rows()
    assert [entry for entry, _, _ in rows if entry] == SPECIFIED
    for entry, metrics, where in rows:
        name, _, title = where.partition(": ")
        (panel,) = [panel for panel in BOARDS[name]["panels"] if panel["title"] == title]
        shown = {metric for target in panel["targets"] for metric in names_of(target["expr"])}
        assert metrics, entry
        assert set(metrics) <= shown, (entry, where)


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Paths at which two JSON values differ, additions of the second excepted."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [key_path for key in before for key_path in lost(before[key], after.get(key), f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [key_path for number, pair in enumerate(pairs) for key_path in lost(*pair, f"{path}[{number}]")]
    return [] if before == after else [path]


def as_grafana_has_it(board: dict[str, Any]) -> Any:
    """A dashboard decoded and encoded by the types that Grafana publishes, which drop unknown fields."""
    register_default_plugins()
    return orjson.loads(JSONEncoder().encode(Dashboard.from_json(board)))


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_s_own_types_have_every_field_of_a_dashboard(name: str) -> None:
    assert lost(BOARDS[name], as_grafana_has_it(BOARDS[name])) == []


def test_a_field_that_grafana_does_not_have_is_detected() -> None:
    board = orjson.loads(orjson.dumps(BOARDS["overview"]))
    board["panels"][0]["fieldConfig"]["defaults"]["units"] = "ms"
    board["panels"][1]["targets"][0]["legend"] = "x"
    assert lost(board, as_grafana_has_it(board)) == [
        ".panels[0].fieldConfig.defaults.units",
        ".panels[1].targets[0].legend",
    ]
