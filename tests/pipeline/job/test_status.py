"""A job's status from two snapshots, and what a snapshot reads from Flink."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.job.snapshot import JobSnapshot, take_snapshot
from pipeline.job.status import quantile, status_of
from runners.flink.rest import FlinkRest
from transforms.adapters.telemetry.metrics import BOUNDS_MS

JOB = "0123456789abcdef0123456789abcdef"
CHECKPOINTS = {
    "counts": {"completed": 7, "failed": 1},
    "latest": {"completed": {"end_to_end_duration": 321, "state_size": 5_000_000, "latest_ack_timestamp": 96_000}},
}


def snapshot(at_s: float, read: int = 0, **metrics: list[int]) -> JobSnapshot:
    job = {"jid": JOB, "name": "event-trigger", "state": "RUNNING", "duration": 3_725_000, "now": 100_000}
    named = {name.replace("__", "."): values for name, values in metrics.items()}
    return JobSnapshot(at_s, job, 2, CHECKPOINTS, read, 17, named)


def test_rates_are_of_the_time_between_and_sums_over_subtasks() -> None:
    before = snapshot(10, read=1000, events_handled=[400, 500], actions=[40, 60], action__webhook__crm__delivered=[10])
    now = snapshot(12, read=3000, events_handled=[1400, 1500], actions=[50, 70], action__webhook__crm__delivered=[30])
    status = status_of(before, now)

    shown = ("read_per_second", "handled_per_second", "lag", "dead_letters")
    assert [status["events"][name] for name in shown] == [1000, 1000, 17, 0]
    assert status["actions"]["per_second"] == 10
    (crm,) = status["destinations"]
    assert (crm["name"], crm["delivered_per_second"], crm["delivered"]) == ("crm", 10, 30)
    checkpoints = {"completed": 7, "failed": 1, "last_ms": 321, "last_bytes": 5_000_000, "age_seconds": 4}
    assert status["checkpoints"] | checkpoints == status["checkpoints"]


def test_counters_that_began_anew_do_not_make_negative_rates() -> None:
    status = status_of(snapshot(10, read=5000, events_handled=[5000]), snapshot(12, read=100, events_handled=[60]))
    assert status["events"]["read_per_second"] == 50
    assert status["events"]["handled_per_second"] == 30


def test_gauges_of_shards_add_up_and_those_of_workers_do_not() -> None:
    shards = {"shard__0__users": [5], "shard__1__users": [7], "shard__1__parked_users": [2]}
    now = snapshot(2, **shards, worker_rss_bytes=[9, 4], rules_live=[3, 3], user_api_breaker_open=[0, 1])
    status = status_of(snapshot(1), now)
    assert (status["users"]["in_state"], status["users"]["parked"]) == (12, 2)
    assert status["worker_bytes"] == 9
    assert status["rules"]["live"] == 3
    assert status["user_api"]["breaker_open"] is True


@pytest.mark.parametrize(
    ("gauges", "state"),
    [
        ({"breaker_open": [0, 1], "disabled": [0]}, "failing"),
        ({"breaker_open": [0, 1], "disabled": [0, 1]}, "disabled"),
        ({"breaker_open": [0, 0], "disabled": [0, 0]}, "ok"),
        ({}, "unknown"),
    ],
)
def test_a_destination_has_a_state(gauges: dict[str, list[int]], state: str) -> None:
    shown = {f"destination__crm__{name}": values for name, values in gauges.items()}
    now = snapshot(2, action__webhook__crm__queued=[1], **shown)
    assert [destination["state"] for destination in status_of(snapshot(1), now)["destinations"]] == [state]


@given(st.lists(st.integers(0, 9_999), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[int], share: float) -> None:
    counts = [sum(value <= bound for value in values) for bound in BOUNDS_MS] + [len(values)]
    found = quantile(counts, share)
    # The smallest value that at least this share of all does not exceed.
    true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
    bounds = (0, *BOUNDS_MS)
    upper = next(bound for bound in BOUNDS_MS if true <= bound)
    assert found is not None
    assert bounds[bounds.index(upper) - 1] <= found <= upper


def test_without_actions_there_is_no_quantile_and_beyond_the_last_bound_it_is_that() -> None:
    assert quantile([0] * (len(BOUNDS_MS) + 1), 0.5) is None
    assert quantile([0] * len(BOUNDS_MS) + [4], 0.5) == BOUNDS_MS[-1]


class Cluster:
    """Flink's REST API over a job with a source of two subtasks, three partitions and a stage."""

    def __init__(self, httpserver: HTTPServer) -> None:
        self.source = {
            "0.Source__ReadEvents.numRecordsIn": "10",
            "1.Source__ReadEvents.numRecordsIn": "5",
            "0.ReadEvents/batch.numRecordsIn": "99",
            "0.ReadEvents/batch.tombstones": "2",
            "0.Source__ReadEvents.event_trigger_partition_0_unread": "3",
            "0.Source__ReadEvents.event_trigger_partition_2_unread": "0",
            "1.Source__ReadEvents.event_trigger_partition_1_unread": "4",
        }
        self.stage = {
            "0._2_.event_trigger_rule_win_back_fired": "6",
            "1._2_.event_trigger_rule_win_back_fired": "7",
            "0._2_.event_trigger_events": "8",
            "1._2_.event_trigger_events": "4",
            "0._2_.numRecordsIn": "99",
        }
        self.of_job = {"uptime": "400000", "numRestarts": "4"}
        self.state = "RUNNING"
        self.scheduler: str | None = None
        self.is_elastic = False
        listed = [
            {"id": "s", "name": "Source: ReadEvents -> ReadEvents/batch", "parallelism": 2},
            {"id": "h", "name": "[2]HandleEvents", "parallelism": 2},
        ]
        self._answers: dict[str, Callable[[], Any]] = {
            f"/jobs/{JOB}": lambda: {
                "jid": JOB,
                "name": "event-trigger",
                "state": self.state,
                "duration": 400_000,
                "now": 500_000,
                "vertices": [{**vertex, "status": self.state} for vertex in listed],
            },
            f"/jobs/{JOB}/checkpoints": lambda: CHECKPOINTS,
            f"/jobs/{JOB}/checkpoints/config": lambda: {"interval": 10_000},
            f"/jobs/{JOB}/exceptions": lambda: {"exceptionHistory": {"entries": [{"timestamp": 1}]}},
            "/taskmanagers": lambda: {"taskmanagers": [{"slotsNumber": 2}]},
            "/jobmanager/config": lambda: [
                {"key": "heartbeat.interval", "value": "2000"},
                *([{"key": "jobmanager.scheduler", "value": self.scheduler}] if self.scheduler else []),
                *([{"key": "event-trigger.elastic", "value": "true"}] if self.is_elastic else []),
            ],
            f"/jobs/{JOB}/config": lambda: {"jid": JOB, "execution-config": {"job-parallelism": 4}},
        }
        for path in self._answers:
            httpserver.expect_request(path).respond_with_handler(self._answer)
        for path, values in (("vertices/s", self.source), ("vertices/h", self.stage), ("", self.of_job)):
            path = "/".join(filter(None, (f"/jobs/{JOB}", path, "metrics")))
            httpserver.expect_request(path).respond_with_handler(partial(self._metrics, values))
        self._rest = FlinkRest(httpserver.url_for("/"))

    def _answer(self, request: Request) -> Response:
        return Response(json.dumps(self._answers[request.path]()), content_type="application/json")

    def _metrics(self, values: dict[str, str], request: Request) -> Response:
        wanted = request.args["get"].split(",") if "get" in request.args else None
        shown = [
            {"id": name} if wanted is None else {"id": name, "value": values[name]}
            for name in wanted or values
            if name in values
        ]
        if values is self.stage and wanted is not None and len(self.renewals) > 0:
            self.of_job["uptime"] = self.renewals.pop()
        return Response(json.dumps(shown), content_type="application/json")

    renewals: list[str] = []  # noqa: RUF012

    def look(self) -> JobSnapshot:
        return take_snapshot(self._rest, JOB, 1.0)


@pytest.fixture
def cluster(httpserver: HTTPServer) -> Cluster:
    return Cluster(httpserver)


def test_a_snapshot_has_the_metrics_of_all_vertices_and_subtasks(cluster: Cluster) -> None:
    snapshot = cluster.look()
    assert (snapshot.read, snapshot.restarts, snapshot.metrics_at_ms) == (15, 4, 400_000)
    assert snapshot.metrics["rule.win_back.fired"] == [6, 7]
    assert (snapshot.failures, snapshot.task_managers) == ([{"timestamp": 1}], [{"slotsNumber": 2}])
    assert snapshot.checkpoints["interval_ms"] == 10_000


def test_where_auto_scaling_decides_how_many_slots_there_are_none_is_missing(cluster: Cluster) -> None:
    cluster.scheduler, cluster.is_elastic = "adaptive", True
    well = replace(cluster.look(), failures=())
    managers = status_of(well, well)["job"]["task_managers"]
    assert (managers["slots"], managers["slots_wanted"], managers["needed"]) == (2, 2, 1)


@pytest.mark.parametrize(("scheduler", "wanted"), [("adaptive", 4), ("Adaptive", 4), ("Default", None), (None, None)])
def test_only_the_adaptive_scheduler_runs_a_job_with_fewer_slots_than_it_wants(
    cluster: Cluster, scheduler: str | None, wanted: int | None
) -> None:
    cluster.scheduler = scheduler
    snapshot = cluster.look()
    assert snapshot.wanted_slots == wanted
    well = replace(snapshot, failures=())
    managers = status_of(well, well)["job"]["task_managers"]
    assert (managers["slots"], managers["slots_wanted"], managers["needed"]) == (2, wanted or 2, (wanted or 2) // 2)


def test_the_lag_is_what_is_unread_and_what_is_read_but_not_taken(cluster: Cluster) -> None:
    # 3 + 0 + 4 unread; of 15 read ones 2 are tombstones and 12 taken.
    assert cluster.look().lag == 8


@pytest.mark.parametrize(
    "wrong", ["a partition of a broker that is away", "a dead reader", "no partition", "a restart"]
)
def test_a_lag_that_nobody_can_tell_is_unknown(cluster: Cluster, wrong: str) -> None:
    if wrong == "a restart":
        cluster.state = "RESTARTING"
    elif wrong == "a dead reader":
        del cluster.source["1.Source__ReadEvents.numRecordsIn"]
    for name in [name for name in cluster.source if name.endswith("unread")]:
        if wrong == "no partition":
            del cluster.source[name]
        elif wrong == "a partition of a broker that is away":
            cluster.source[name] = "-1"
    assert cluster.look().lag is None


def test_values_of_two_refreshes_are_not_mixed(cluster: Cluster) -> None:
    cluster.renewals = ["401000"]  # Flink renews its metrics after those of the last vertex were read
    assert cluster.look().metrics_at_ms == 401_000
    assert cluster.renewals == []
