"""``python -m pipeline status``: what it makes of two looks, and of a real job."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.cli.main import main
from pipeline.job.status import Look, NoJobError, find_job, look, quantile, status_of, status_text
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.processes import free_ports
from runners.flink.rest import FlinkRest
from tests.builders import event
from tests.integration.jobs import Topics, reading, running
from transforms.adapters.telemetry.metrics import BOUNDS_MS

JOB = "0123456789abcdef0123456789abcdef"
CHECKPOINTS = {
    "counts": {"completed": 7, "failed": 1},
    "latest": {"completed": {"end_to_end_duration": 321, "state_size": 5_000_000, "latest_ack_timestamp": 96_000}},
}


def seen(at_s: float, read: int = 0, **ours: list[int]) -> Look:
    job = {"jid": JOB, "name": "event-trigger", "state": "RUNNING", "duration": 3_725_000, "now": 100_000}
    return Look(at_s, job, 2, CHECKPOINTS, read, 17, {name.replace("__", "."): one for name, one in ours.items()})


def test_rates_are_of_the_time_between_and_sums_over_subtasks() -> None:
    before = seen(10, read=1000, events_handled=[400, 500], actions=[40, 60], action__webhook__crm__delivered=[10])
    now = seen(12, read=3000, events_handled=[1400, 1500], actions=[50, 70], action__webhook__crm__delivered=[30])
    status = status_of(before, now)

    assert status["events"] == {"read_per_second": 1000, "handled_per_second": 1000, "lag": 17, "dead_letters": 0}
    assert status["actions"]["per_second"] == 10
    (crm,) = status["destinations"]
    assert (crm["name"], crm["state"], crm["delivered_per_second"], crm["delivered"]) == ("crm", "ok", 10, 30)
    assert status["checkpoints"] == {
        "completed": 7, "failed": 1, "last_ms": 321, "last_bytes": 5_000_000, "age_seconds": 4
    }  # fmt: skip


def test_counters_that_began_anew_do_not_make_negative_rates() -> None:
    status = status_of(seen(10, read=5000, events_handled=[5000]), seen(12, read=100, events_handled=[60]))
    assert status["events"]["read_per_second"] == 50
    assert status["events"]["handled_per_second"] == 30


def test_gauges_of_shards_add_up_and_those_of_workers_do_not() -> None:
    ours = {"shard__0__users": [5], "shard__1__users": [7], "shard__1__parked_users": [2], "worker_rss_bytes": [9, 4]}
    status = status_of(seen(1), seen(2, **ours, rules_live=[3, 3], user_api_breaker_open=[0, 1]))
    assert (status["users"]["in_state"], status["users"]["parked"]) == (12, 2)
    assert status["worker_bytes"] == 9
    assert status["rules"]["live"] == 3
    assert status["user_api"]["breaker_open"] is True


@pytest.mark.parametrize(
    ("gauge", "state"), [("breaker_open", "failing"), ("disabled", "disabled"), ("something", "ok")]
)
def test_a_destination_s_state_is_told(gauge: str, state: str) -> None:
    now = seen(2, action__webhook__crm__queued=[1], **{f"destination__crm__{gauge}": [0, 1]})
    assert [one["state"] for one in status_of(seen(1), now)["destinations"]] == [state]


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


def test_people_get_a_table() -> None:
    now = seen(
        2, read=2468, rule__welcome__fired=[1200], action__webhook__crm__delivered=[3], rules_live=[1], rule_set=[4]
    )
    assert status_text(status_of(seen(1), now)).splitlines() == [
        "job           event-trigger  RUNNING for 1 h 2 min  2 restarts",
        "events        2,468/s read  0/s handled",
        "lag           17 records",
        "actions       0/s  no action",
        "users         0 in the state  0 wait for the user API",
        "user API      0/s  0/s fail",
        "checkpoints   7 completed  1 failed  last: 321 ms  5.0 MB  4 s ago",
        "dead letters  0",
        "rules         1 live, set 4",
        "",
        "rule     fired/min  fired  errors  quarantined",
        "welcome   72,000.0  1,200       0            0",
        "",
        "destination  state  delivered/s  delivered  retried  delayed  refused  given up  dropped",
        "crm             ok          3.0          3        0        0        0         0        0",
    ]


def jobs(*states: tuple[str, str, int]) -> dict[str, Any]:
    return {
        "jobs": [{"jid": f"{n}", "name": one[0], "state": one[1], "start-time": one[2]} for n, one in enumerate(states)]
    }


def test_of_jobs_with_a_name_the_newest_that_runs_is_meant(httpserver: HTTPServer) -> None:
    rest = FlinkRest(httpserver.url_for("/"))
    found = jobs(("a", "RUNNING", 5), ("a", "RUNNING", 7), ("a", "FAILED", 9), ("b", "RUNNING", 10))
    httpserver.expect_request("/jobs/overview").respond_with_json(found)
    assert find_job(rest, "a") == "1"
    with pytest.raises(NoJobError, match=r"no job 'c' at http://\S+, there are 'a', 'b': see --job_name"):
        find_job(rest, "c")


def test_a_look_takes_the_metrics_of_all_vertices_and_subtasks(httpserver: HTTPServer) -> None:
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
            shown = [{"id": one} if wanted is None else {"id": one, "value": values[one]} for one in wanted or values]
            return Response(json.dumps(shown), content_type="application/json")

        return answer

    listed = [{"id": "s", "name": "Source: ReadEvents -> ReadEvents/batch"}, {"id": "h", "name": "[2]HandleEvents"}]
    httpserver.expect_request(f"/jobs/{JOB}").respond_with_json({"jid": JOB, "vertices": listed})
    httpserver.expect_request(f"/jobs/{JOB}/checkpoints").respond_with_json(CHECKPOINTS)
    httpserver.expect_request(f"/jobs/{JOB}/metrics").respond_with_json([{"id": "numRestarts", "value": "4"}])
    for name, values in vertices.items():
        httpserver.expect_request(f"/jobs/{JOB}/vertices/{name}/metrics").respond_with_handler(metrics(values))

    found = look(FlinkRest(httpserver.url_for("/")), JOB, 1.0)
    assert (found.read, found.lag, found.restarts) == (15, 3, 4)
    assert found.ours == {"rule.win_back.fired": [6, 7]}


def test_options_that_cannot_be_used_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 2
    assert main(["status", "--flink_master=x:1", "--every_seconds=0"]) == 2
    assert main(["status", "--flink_master=nowhere"]) == 2
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "--flink_master", "--every_seconds", "--flink_master"
    ]  # fmt: skip


def test_a_cluster_that_does_not_answer_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["status", f"--flink_master=127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err.startswith(f"error: GET http://127.0.0.1:{port}/jobs/overview")


@pytest.mark.stack
def test_a_real_job_is_shown(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: every\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\non_missing_profile: run\n")
    made = [event(f"u{number % 40}", event_id=f"e{number}") for number in range(400)]
    topics.produce([(one["user_id"].encode(), orjson.dumps(one)) for one in made])
    options = [f"--flink_master={flink.flink_master}", f"--job_name=test-{topics.tag}"]
    with (
        running(flink, topics, rules, "--checkpointing_interval_ms=1000") as job_id,
        reading(kafka, topics.actions) as actions,
    ):
        actions.until(400, 60)
        flink.rest.wait_for_checkpoint(job_id, 1, 30)
        assert main(["status", *options, "--json"]) == 0
        status = json.loads(capsys.readouterr().out)
        assert main(["status", *options, "--once"]) == 0
        text = capsys.readouterr().out

    assert status["job"] | {"uptime_seconds": 0} == {
        "id": job_id, "name": f"test-{topics.tag}", "state": "RUNNING", "uptime_seconds": 0, "restarts": 0
    }  # fmt: skip
    assert status["events"]["lag"] == 0
    assert status["users"]["in_state"] == 40
    assert status["rules"]["live"] == 1
    assert [(one["name"], one["fired"]) for one in status["rules"]["each"]] == [("every", 400)]
    assert status["checkpoints"]["completed"] >= 1
    assert status["worker_bytes"] > 50e6
    assert re.search(r"^rule +fired/min +fired +errors +quarantined\nevery +[\d.]+ +400 ", text, re.MULTILINE)
