"""Prometheus itself on runners/flink/monitoring: promtool on the alerts, a real scrape of the metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from pytest_httpserver import HTTPServer

from runners.flink.local.monitoring import CONFIGURATION
from tests import monitoring
from tests.monitoring import answers, filled, prometheus_of, queries
from transforms.adapters.telemetry.metric_names import HISTOGRAM, METRICS, expanded
from transforms.adapters.telemetry.metrics import BOUNDS_MS, bucket_names

ALERTS = {rule["alert"]: rule for rule in monitoring.ALERTS}
PREFIX = "flink_taskmanager_job_task_operator_event_trigger_"
BUFFERS = "flink_taskmanager_job_task_Shuffle_Netty_Input_Buffers_inPoolUsage"
PENDING = "flink_taskmanager_job_task_operator_pendingRecords"
CHECKPOINTS = "flink_jobmanager_job_numberOf{}Checkpoints"

# Alert -> series that make it fire, and the same when all is well; a sample a minute, as promtool writes them.
SERIES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "JobNotRunning": ({"flink_jobmanager_numRunningJobs": "0x60"}, {"flink_jobmanager_numRunningJobs": "1x60"}),
    "ScrapeFails": ({'up{job="flink"}': "0x60"}, {'up{job="flink"}': "1x60"}),
    "JobRestarts": ({"flink_jobmanager_job_numRestarts": "0+1x60"}, {"flink_jobmanager_job_numRestarts": "7x60"}),
    "CheckpointsFail": ({CHECKPOINTS.format("Failed"): "0+1x60"}, {CHECKPOINTS.format("Failed"): "9x60"}),
    "NoCheckpoint": ({CHECKPOINTS.format("Completed"): "5x60"}, {CHECKPOINTS.format("Completed"): "5+1x60"}),
    "CheckpointsSlow": (
        {"flink_jobmanager_job_lastCheckpointDuration": "90000x60"},
        {"flink_jobmanager_job_lastCheckpointDuration": "900x60"},
    ),
    "LagGrows": ({PENDING: "20000+100x60"}, {PENDING: "90000-1000x60"}),
    "StreamTimeHeld": (
        {
            'event_trigger_partition_time_behind_ms{partition="3"}': "0+60000x60",
            'event_trigger_partition_time_hold{partition="3"}': "3x60",
        },
        {
            'event_trigger_partition_time_behind_ms{partition="3"}': "0+60000x60",
            'event_trigger_partition_time_hold{partition="3"}': "1x60",
        },
    ),
    "RecordsSkipped": ({"event_trigger_records_skipped": "5x60"}, {"event_trigger_records_skipped": "0x60"}),
    "LatencyHigh": (
        {
            'event_trigger_latency_ms_bucket{le="1000"}': "0+50x60",
            'event_trigger_latency_ms_bucket{le="2500"}': "0+100x60",
            'event_trigger_latency_ms_bucket{le="+Inf"}': "0+100x60",
        },
        {
            'event_trigger_latency_ms_bucket{le="50"}': "0+100x60",
            'event_trigger_latency_ms_bucket{le="+Inf"}': "0+100x60",
        },
    ),
    "Backpressured": ({BUFFERS: "0.9x60"}, {BUFFERS: "0.3x60"}),
    "UserApiFails": ({"event_trigger_user_api_breaker_open": "1x60"}, {"event_trigger_user_api_breaker_open": "0x60"}),
    "RuleFails": (
        {'event_trigger_rule_error{rule="r"}': "0+2x60", 'event_trigger_rule_evaluated{rule="r"}': "0+100x60"},
        {'event_trigger_rule_error{rule="r"}': "0+1x60", 'event_trigger_rule_evaluated{rule="r"}': "0+1000x60"},
    ),
    "RuleTrips": (
        {'event_trigger_rule_quarantined{rule="r"}': "0+1x60"},
        {'event_trigger_rule_quarantined{rule="r"}': "9x60"},
    ),
    "DestinationFails": (
        {'event_trigger_destination_breaker_open{destination="crm"}': "1x60"},
        {'event_trigger_destination_breaker_open{destination="crm"}': "0x60"},
    ),
    "DestinationDisabled": (
        {'event_trigger_destination_disabled{destination="crm"}': "1x60"},
        {'event_trigger_destination_disabled{destination="crm"}': "0x60"},
    ),
    "WebhooksExpire": (
        {'event_trigger_actions_by_outcome{destination="crm",outcome="expired"}': "0+1x60"},
        {
            'event_trigger_actions_by_outcome{destination="crm",outcome="expired"}': "7x60",
            'event_trigger_actions_by_outcome{destination="crm",outcome="delivered"}': "0+9x60",
        },
    ),
    "LedgerAway": (
        {"event_trigger_ledger_shards_unguarded": "0x10 8x60"},
        {"event_trigger_ledger_shards_unguarded": "0x60"},
    ),
    "LedgerContested": (
        {"event_trigger_ledger_claims_lost": "0+8x60"},
        {"event_trigger_ledger_claims_lost": "0x20 8x40"},
    ),
    "DeadLetters": (
        {"event_trigger_dead_letters": "0+5x60", "event_trigger_events": "0+100x60"},
        {"event_trigger_dead_letters": "0+5x60", "event_trigger_events": "0+1000x60"},
    ),
    "StateCacheTooSmall": ({"event_trigger_refolds": "0+3000x60"}, {"event_trigger_refolds": "0+60x60"}),
    "WorkerMemoryHigh": ({"event_trigger_worker_rss_bytes": "5e9x60"}, {"event_trigger_worker_rss_bytes": "1e9x60"}),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    for name in ("promtool", "prometheus"):
        assert shutil.which(name), f"{name}: not found; make infra-tools installs it"


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_promtool_accepts_configuration_and_alerts() -> None:
    for arguments in (("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml")):
        result = promtool(*arguments, cwd=CONFIGURATION)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_series() -> None:
    assert set(SERIES) == set(ALERTS)


@pytest.mark.parametrize("alert", SERIES)
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays quiet"])
def test_an_alert_fires_when_it_should_and_only_then(alert: str, fires: bool, tmp_path: Path) -> None:
    series = SERIES[alert][0 if fires else 1]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    # promtool wants labels and texts to the letter; that it fires at all is told by an expectation of nothing failing.
    test = {"interval": "1m", "input_series": inputs, "alert_rule_test": [{"eval_time": "45m", "alertname": alert}]}
    content = {"rule_files": [str(CONFIGURATION / "alerts.yml")], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    result = promtool("test", "rules", "test.yml", cwd=tmp_path)
    assert (result.returncode != 0) is fires, result.stdout + result.stderr
    if fires:
        assert f'alertname="{alert}"' in result.stdout + result.stderr


def exposition() -> str:
    """Every metric of the pipeline as Flink writes it, with 1 to 4 as values of a histogram's first four buckets."""
    labels = (
        'job_id="j",task_id="t",task_attempt_id="a",operator_name="HandleEvents",job_name="nightly",subtask_index="0",'
    )
    lines = []
    for metric in METRICS:
        names = bucket_names(metric.name) if metric.kind == HISTOGRAM else expanded(
            metric.name.replace("TOPIC", "default"), ["win_back"], ["crm"], [7], [7]
        )  # fmt: skip
        for number, name in enumerate(names):
            lines.append(f"{PREFIX}{re.sub(r'[^a-zA-Z0-9]', '_', name)}{{{labels}}} {float(number + 1)}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, make_httpserver: HTTPServer) -> Iterator[str]:
    """A real Prometheus that scrapes ``exposition`` as the configuration says; its URL."""
    make_httpserver.expect_request("/metrics").respond_with_data(exposition(), content_type="text/plain")
    folder = tmp_path_factory.mktemp("prometheus")
    text = (CONFIGURATION / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(text.replace("scrape_interval: 15s", "scrape_interval: 1s"))
    shutil.copy(CONFIGURATION / "alerts.yml", folder)
    target = f"{make_httpserver.host}:{make_httpserver.port}"
    (folder / "targets.json").write_text(json.dumps([{"targets": [target], "labels": {"cluster": "test"}}]))
    with prometheus_of(folder, deadline_s=60) as url:
        yield url


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ("event_trigger_events", {}),
        ("event_trigger_rule_errors", {}),
        ('event_trigger_latency_ms_bucket{le="+Inf"}', {"le": "+Inf"}),
        ("event_trigger_latency_ms_sum", {}),
        ("event_trigger_rule_fired", {"rule": "win_back"}),
        ("event_trigger_rule_timed_out", {"rule": "win_back"}),
        ('event_trigger_actions_by_outcome{type="webhook",outcome="given_up"}', {"destination": "crm"}),
        ('event_trigger_actions_by_outcome{type="kafka"}', {"destination": "default", "outcome": "emitted"}),
        ("event_trigger_destination_breaker_open", {"destination": "crm"}),
        ("event_trigger_shard_journal_bytes", {"shard": "7"}),
        ("event_trigger_partition_time_hold", {"partition": "7"}),
        ('event_trigger_dead_letters_by_reason{reason="not_json"}', {"reason": "not_json"}),
        ("event_trigger_dead_letters", {}),
    ],
)
def test_names_become_labels(prometheus: str, query: str, labels: dict[str, str]) -> None:
    (sample,) = answers(prometheus, query)
    own = {"__name__", "job_name", "operator_name", "subtask_index", "instance", "job", "cluster"}
    assert {name: value for name, value in sample["metric"].items() if name not in own} | labels == {
        name: value for name, value in sample["metric"].items() if name not in own
    }
    assert set(sample["metric"]) - own <= {
        "rule",
        "destination",
        "outcome",
        "type",
        "shard",
        "partition",
        "reason",
        "le",
    }


def test_quantiles_can_be_queried(prometheus: str) -> None:
    (sample,) = answers(prometheus, "histogram_quantile(0.5, event_trigger_latency_ms_bucket)")
    # Bucket n holds n values of twelve, so that the median is the sixth bound.
    assert float(sample["value"][1]) == BOUNDS_MS[5]


def test_no_metric_keeps_its_long_name(prometheus: str) -> None:
    assert answers(prometheus, f'count({{__name__=~"{PREFIX}.*"}})') == []


def test_prometheus_accepts_every_query_of_alerts_and_dashboards(prometheus: str) -> None:
    expressions = [rule["expr"] for rule in ALERTS.values()] + [filled(query, "1m") for _, query in queries()]
    assert len(expressions) > 40
    for query in expressions:
        answer = requests.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=5).json()
        assert answer["status"] == "success", (query, answer)
