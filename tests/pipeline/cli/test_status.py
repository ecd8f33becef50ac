"""``event-trigger status``: its text, its options, and a real job."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from pipeline.cli.main import main
from pipeline.cli.status import status_text
from pipeline.job.kafka_look import KafkaLook
from pipeline.job.status import status_of
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.local.processes import free_ports
from tests.builders import event
from tests.flink_cluster import wait_for_checkpoint
from tests.integration.jobs import Topics, reading, running
from tests.pipeline.job.snapshots import failure, healthy, steps
from tests.pipeline.job.test_status import snapshot


def test_the_text_has_a_row_for_each_quantity_and_tables() -> None:
    now = snapshot(
        2,
        read=2468,
        rule__welcome__fired=[1200],
        action__webhook__crm__delivered=[3],
        rules_live=[1],
        rule_set=[4],
        destination__crm__disabled=[0],
    )
    assert status_text(status_of(snapshot(1), now)).splitlines() == [
        "job           event-trigger  RUNNING for 1 h 2 min  2 restarts",
        "events        2,468/s read  0/s handled",
        "lag           17 records",
        "time          unknown",
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


def test_the_text_says_which_partition_holds_the_time_since_when_and_why() -> None:
    held = {"partition__3__time_behind_ms": [62_000], "partition__3__time_hold": [2]}
    now = snapshot(2, **held, records_skipped=[5], position_resets=[1])
    lines = [line for line in status_text(status_of(snapshot(1), now)).splitlines() if line.startswith("time")]
    assert lines == [
        "time          partition 3 holds it at 1970-01-01 00:00:38 UTC: an open transaction",
        "time          5 records skipped that Kafka had deleted, 1 positions out of range",
    ]


def test_options_that_cannot_be_used_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 2
    assert main(["status", "--flink_master=x:1", "--every_seconds=0"]) == 2
    assert main(["status", "--flink_master=nowhere"]) == 2
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [
        "--flink_master", "--every_seconds", "--flink_master"
    ]  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--once"], ["--json"]])
def test_a_cluster_that_does_not_answer_is_down(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["status", f"--flink_master=127.0.0.1:{port}", *options]) == 2
    shown = capsys.readouterr()
    if "--json" in options:
        assert json.loads(shown.out)["verdict"] == {
            "state": "DOWN",
            "cause": f"Flink at 127.0.0.1:{port} does not answer",
            "detail": "Connection refused",
            "next": f"event-trigger doctor --flink_master=127.0.0.1:{port}",
            "section": "FlinkSilent",
        }
    else:
        assert shown.out.splitlines() == [
            f"DOWN          Flink at 127.0.0.1:{port} does not answer: Connection refused",
            f"next          event-trigger doctor --flink_master=127.0.0.1:{port}",
            "see           docs/runbook.md#flinksilent",
        ]
    assert shown.err == ""


def test_what_runs_of_a_job_that_does_not_run_and_why_is_shown() -> None:
    now = replace(steps(healthy(2), "RUNNING", "FAILED", state="RESTARTING"), failures=[failure(9)], task_managers=[])
    lines = status_text(status_of(healthy(1), now)).splitlines()
    assert lines[1:5] == [
        "              1 of 2 steps run, 0 of ? TaskManagers",
        "              failed 9 s ago: java.io.IOException: Connection reset",
        "              counts since 1970-01-01 02:39:58 UTC",
        "events        0/s read  0/s handled",
    ]


def test_a_lag_that_nobody_can_tell_and_a_kafka_that_does_not_answer_are_shown_as_such() -> None:
    now = replace(healthy(2, lag=None), kafka=KafkaLook(trouble="timed out"))
    lines = status_text(status_of(healthy(1), now)).splitlines()
    assert "lag           unknown" in lines
    assert "Kafka         does not answer from here: timed out" in lines


@pytest.mark.stack
def test_a_real_job_is_shown(
    kafka: LocalKafka, flink: LocalFlink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: every\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\non_missing_profile: run\n")
    events = [event(f"u{number % 40}", event_id=f"e{number}") for number in range(400)]
    topics.produce([(event["user_id"].encode(), orjson.dumps(event)) for event in events])
    options = [f"--flink_master={flink.flink_master}", f"--job_name=test-{topics.tag}"]
    with (
        running(flink, topics, rules, "--checkpointing_interval_ms=1000") as job_id,
        reading(kafka, topics.actions) as actions,
    ):
        actions.until(400, 60)
        wait_for_checkpoint(flink.rest, job_id, 1, 30)
        code = main(["status", *options, "--json"])
        status = json.loads(capsys.readouterr().out)
        assert main(["status", *options, "--once"]) in (0, 1)
        text = capsys.readouterr().out

    job = {"id": job_id, "name": f"test-{topics.tag}", "state": "RUNNING", "restarts": 0, "recent_failures": 0}
    assert status["job"].items() >= job.items()
    assert status["job"]["steps_running"] == status["job"]["steps"]
    # The events waited for the job, and a busy machine is slow.
    verdict = (status["verdict"]["state"], status["verdict"]["section"], code)
    assert verdict in [("HEALTHY", None, 0), ("DEGRADED", "LatencyHigh", 1)]
    assert status["events"]["lag"] == 0
    assert re.match("HEALTHY\n|DEGRADED +one action", text)
    assert status["users"]["in_state"] == 40
    assert status["rules"]["live"] == 1
    assert [(rule["name"], rule["fired"]) for rule in status["rules"]["each"]] == [("every", 400)]
    assert status["checkpoints"]["completed"] >= 1
    assert status["worker_bytes"] > 50e6
    assert re.search(r"^rule +fired/min +fired +errors +quarantined\nevery +[\d.]+ +400 ", text, re.MULTILINE)
