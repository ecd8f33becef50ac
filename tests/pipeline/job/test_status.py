"""A job's status from two snapshots, and what a snapshot reads from Flink."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.job.status import JobSnapshot, quantile, status_of, take_snapshot
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

    assert status["events"] == {"read_per_second": 1000, "handled_per_second": 1000, "lag": 17, "dead_letters": 0}
    assert status["actions"]["per_second"] == 10
    (crm,) = status["destinations"]
    assert (crm["name"], crm["state"], crm["delivered_per_second"], crm["delivered"]) == ("crm", "ok", 10, 30)
    assert status["checkpoints"] == {
        "completed": 7, "failed": 1, "last_ms": 321, "last_bytes": 5_000_000, "age_seconds": 4
    }  # fmt: skip


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
    ("gauge", "state"), [("breaker_open", "failing"), ("disabled", "disabled"), ("something", "ok")]
)
def test_a_destination_has_a_state(gauge: str, state: str) -> None:
    now = snapshot(2, action__webhook__crm__queued=[1], **{f"destination__crm__{gauge}": [0, 1]})
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


def test_a_snapshot_has_the_metrics_of_all_vertices_and_subtasks(httpserver: HTTPServer) -> None:
    vertices = {
        "s": {
            "0.Source__ReadEvents.numRecordsIn": "10",
            "1.Source__ReadEvents.numRecordsIn": "5",
            "0.Source__ReadEvents.pendingRecords": "3",
            "0.ReadEvents/batch.numRecordsIn": "99",
        },
        "h": {
            "0._2_.event_trigger_rule_win_back_fired": "6",
            "1._2_.event_trigger_rule_win_back_fired": "7",
            "0._2_.numRecordsIn": "99",
        },
    }

    def metrics(values: dict[str, str]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            wanted = request.args["get"].split(",") if "get" in request.args else None
            shown = [
                {"id": name} if wanted is None else {"id": name, "value": values[name]} for name in wanted or values
            ]
            return Response(json.dumps(shown), content_type="application/json")

        return answer

    listed = [{"id": "s", "name": "Source: ReadEvents -> ReadEvents/batch"}, {"id": "h", "name": "[2]HandleEvents"}]
    httpserver.expect_request(f"/jobs/{JOB}").respond_with_json({"jid": JOB, "vertices": listed})
    httpserver.expect_request(f"/jobs/{JOB}/checkpoints").respond_with_json(CHECKPOINTS)
    httpserver.expect_request(f"/jobs/{JOB}/metrics").respond_with_json([{"id": "numRestarts", "value": "4"}])
    for name, values in vertices.items():
        httpserver.expect_request(f"/jobs/{JOB}/vertices/{name}/metrics").respond_with_handler(metrics(values))

    snapshot = take_snapshot(FlinkRest(httpserver.url_for("/")), JOB, 1.0)
    assert (snapshot.read, snapshot.lag, snapshot.restarts) == (15, 3, 4)
    assert snapshot.metrics == {"rule.win_back.fired": [6, 7]}
