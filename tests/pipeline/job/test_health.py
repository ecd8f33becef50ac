"""The verdict about a job, from facts and their age."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.job.health import CHECKS, DEGRADED, DOWN, HEALTHY, Facts, Verdict, results_of, verdict_of
from pipeline.job.kafka_look import KafkaLook
from pipeline.job.snapshot import JobSnapshot
from pipeline.job.status import status_of
from tests.pipeline.job.snapshots import NOW_MS, completed, failure, healthy, of_checkpoints, of_job, steps

ROOT = Path(__file__).parents[3]
WELL = healthy(10)
NO_TASK_MANAGER = replace(WELL, task_managers=[])
SILENT = {"heartbeat.interval": "2000", "taskmanager.numberOfTaskSlots": "2"}
FAILED = {"failure_message": "Checkpoint expired"}


def facts(now: JobSnapshot = WELL, before: JobSnapshot | None = None, **known: Any) -> Facts:
    return Facts("flink:8081", "shop", status_of(healthy(0) if before is None else before, now), **known)


def verdict(now: JobSnapshot = WELL, **known: Any) -> Verdict:
    return verdict_of(facts(now, **known))


def test_a_job_that_runs_and_takes_its_records_is_healthy() -> None:
    assert verdict() == Verdict(HEALTHY)
    assert verdict().exit_code == 0
    assert [found for _, found in results_of(facts())] == [None] * len(CHECKS)


# Section of the runbook -> what is so, the verdict, its cause.
CASES: dict[str, tuple[str, JobSnapshot, str, str]] = {
    "a failed job": (
        "JobNotRunning",
        replace(of_job(WELL, state="FAILED"), failures=[failure(9)]),
        DOWN,
        "the job is FAILED: java.io.IOException: Connection reset",
    ),
    "a cancelled job": ("JobNotRunning", of_job(WELL, state="CANCELED"), DOWN, "the job is CANCELED"),
    "a job that starts": (
        "StepsNotRunning",
        steps(WELL, "RUNNING", "DEPLOYING"),
        DOWN,
        "the job is RUNNING, 1 of 2 steps run",
    ),
    "a job that failed and comes back": (
        "StepsNotRunning",
        replace(steps(WELL, "FAILED", "CANCELED", state="RESTARTING"), failures=[failure(2)]),
        DOWN,
        "the job is RESTARTING, 0 of 2 steps run: java.io.IOException: Connection reset",
    ),
    "a job that has come back": (
        "JobRestarts",
        replace(WELL, failures=[failure(3)]),
        DEGRADED,
        "the job restarted 3 s ago, no checkpoint has completed since: java.io.IOException: Connection reset",
    ),
    "a job that restarts for ever": (
        "JobRestarts",
        replace(WELL, failures=[failure(age) for age in (2, 12, 22, 32)]),
        DOWN,
        "the job failed 4 times in 15 minutes: java.io.IOException: Connection reset",
    ),
    "a job that restarts often": (
        "JobRestarts",
        replace(WELL, failures=[failure(age) for age in (100, 200, 300, 400)]),
        DEGRADED,
        "the job failed 4 times in 15 minutes: java.io.IOException: Connection reset",
    ),
    "no TaskManager": (
        "TaskManagerLost",
        replace(steps(NO_TASK_MANAGER, "FAILED", state="RESTARTING"), configuration=SILENT, failures=[failure(1)]),
        DOWN,
        "0 of 1 TaskManagers are there, the job is RESTARTING: java.io.IOException: Connection reset",
    ),
    "too few TaskManagers": (
        "TaskManagerLost",
        replace(WELL, task_managers=[{"slotsNumber": 1}]),
        DOWN,
        "1 of 2 TaskManagers are there, the job is RUNNING",
    ),
    "too few TaskManagers for all of a job that runs": (
        "TaskManagerLost",
        replace(WELL, task_managers=[{"slotsNumber": 2}], wanted_slots=4),
        DEGRADED,
        "1 of 2 TaskManagers are there, the job runs on 2 of 4 slots",
    ),
    "slots that another job has": (
        "TaskManagerLost",
        replace(WELL, task_managers=[{"slotsNumber": 2}] * 2, wanted_slots=4),
        DEGRADED,
        "the job runs on 2 of 4 slots",
    ),
    "no TaskManager for a job that wants two": (
        "TaskManagerLost",
        replace(steps(NO_TASK_MANAGER, "CREATED", state="CREATED"), configuration=SILENT, wanted_slots=4),
        DOWN,
        "0 of 2 TaskManagers are there, the job is CREATED",
    ),
    "a TaskManager that Flink still counts": (
        "TaskManagerLost",
        replace(WELL, task_managers=[{"slotsNumber": 2, "timeSinceLastHeartbeat": NOW_MS - 5100}]),
        DOWN,
        "a TaskManager was not seen for 5 s",
    ),
    "a topic that is gone": (
        "TopicMissing",
        replace(WELL, kafka=KafkaLook(missing={"decisions_topic": "decisons"}, hints={"decisions_topic": "why?"})),
        DOWN,
        "topic 'decisons' of --decisions_topic (why?) does not exist",
    ),
    "no broker": (
        "KafkaSilent",
        replace(healthy(10, None, partition__0__time_hold=3, partition__1__time_hold=3), kafka=KafkaLook("timed out")),
        DOWN,
        "no broker answers the job: timed out",
    ),
    "one broker of two": (
        "KafkaSilent",
        healthy(10, None, partition__0__time_hold=3, partition__1__time_hold=0),
        DEGRADED,
        "no broker answers the job about partition 0",
    ),
    "a checkpoint that failed": (
        "CheckpointsFail",
        of_checkpoints(
            WELL,
            latest={"completed": completed(NOW_MS), "failed": FAILED},
            history=[{"status": "IN_PROGRESS"}, {"status": "FAILED"}, {"status": "COMPLETED"}, {"status": "FAILED"}],
        ),
        DEGRADED,
        "the newest checkpoint failed: Checkpoint expired",
    ),
    "checkpoints that fail": (
        "CheckpointsFail",
        of_checkpoints(WELL, latest={"completed": None, "failed": FAILED}, history=[{"status": "FAILED"}] * 2),
        DEGRADED,
        "the 2 newest checkpoints failed: Checkpoint expired",
    ),
    "no checkpoint yet": (
        "NoCheckpoint",
        of_checkpoints(WELL, latest={"completed": None, "failed": None}, history=[]),
        DEGRADED,
        "no checkpoint has completed yet",
    ),
    "an old checkpoint": (
        "NoCheckpoint",
        of_checkpoints(WELL, latest={"completed": completed(NOW_MS - 41_000), "failed": None}),
        DEGRADED,
        "the last checkpoint completed 41 s ago, they are due every 10 s",
    ),
    "a slow checkpoint": (
        "CheckpointsSlow",
        of_checkpoints(WELL, latest={"completed": completed(NOW_MS, took_ms=61_000), "failed": None}),
        DEGRADED,
        "the last checkpoint took 61 s",
    ),
    "an open breaker": (
        "UserApiFails",
        healthy(10, user_api_breaker_open=1, shard__0__parked_users=12),
        DEGRADED,
        "the user API fails and is spared (its breaker is open), 12 users wait for it",
    ),
    "a destination that fails": (
        "DestinationFails",
        healthy(10, action__webhook__crm__queued=1, destination__crm__breaker_open=1, destination__crm__disabled=0),
        DEGRADED,
        "destination crm fails and is spared",
    ),
    "a disabled destination": (
        "DestinationDisabled",
        healthy(10, action__webhook__crm__queued=1, destination__crm__disabled=1),
        DEGRADED,
        "destination crm is disabled",
    ),
    "a destination nobody configured": (
        "DestinationUnknown",
        healthy(10, action__webhook__crn__dropped=1),
        DEGRADED,
        "nobody configured destination crn, its webhooks become dead letters",
    ),
    "records that Kafka deleted": (
        "RecordsSkipped",
        healthy(10, records_skipped=7, position_resets=1),
        DEGRADED,
        "Kafka had deleted 7 records before the job read them",
    ),
    "an open transaction": (
        "StreamTimeHeld",
        healthy(10, partition__2__time_hold=2, partition__2__time_behind_ms=31_000),
        DEGRADED,
        "partition 2 holds the stream's time: an open transaction",
    ),
    "a rule set aside": (
        "RuleTrips",
        healthy(10, rule__slow__quarantined=4),
        DEGRADED,
        "rule slow is set aside: it hit its limits",
    ),
    "a rule that fails": (
        "RuleFails",
        healthy(10, rule__bad__error=5, rule__bad__evaluated=100),
        DEGRADED,
        "rule bad fails at 30 events a minute",
    ),
    "a ledger that does not answer": (
        "LedgerAway",
        healthy(10, ledger_shards_unguarded=8),
        DEGRADED,
        "8 shards of a worker send without the ledger of deliveries",
    ),
    "two jobs on one ledger": (
        "LedgerContested",
        healthy(10, ledger_claims_lost=20),
        DEGRADED,
        "workers take shards' webhooks from each other",
    ),
    "dead letters": (
        "DeadLetters",
        healthy(10, dead_letters=20, events=1000),
        DEGRADED,
        "2.0 dead letters a second, of 100.0 events",
    ),
    "a lag that grows": (
        "LagGrows",
        healthy(10, 10_001, events=5),
        DEGRADED,
        "10,001 events wait, and more by the minute",
    ),
    "a high latency": (
        "LatencyHigh",
        healthy(10, latency_ms_le_2500=100, latency_ms_le_5000=100, latency_ms_le_10000=100, latency_ms_le_inf=100),
        DEGRADED,
        "one action in a hundred takes 2,485 ms or longer",
    ),
    "a cache that is too small": (
        "StateCacheTooSmall",
        healthy(10, refolds=110),
        DEGRADED,
        "11 shards a second are read from RocksDB again",
    ),
    "a large worker": (
        "WorkerMemoryHigh",
        healthy(10, worker_rss_bytes=4_100_000_000),
        DEGRADED,
        "a Python worker takes 4.1 GB",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_trouble_has_its_verdict_its_cause_and_a_command(case: str) -> None:
    section, now, state, why = CASES[case]
    found = verdict(now)
    assert (found.state, found.section, found.why) == (state, section, why)
    assert found.exit_code == {DEGRADED: 1, DOWN: 2}[state]
    assert found.next.startswith("event-trigger ")
    assert "\n" not in found.why


@pytest.mark.parametrize(
    ("known", "state", "why"),
    [
        (
            {"silence": "Connection refused", "seen_s": 10.1},
            DOWN,
            "flink:8081 does not answer, not seen for 10 s: Conn",
        ),
        ({"silence": "Connection refused"}, DOWN, "Flink at flink:8081 does not answer: Connection refused"),
        ({"silence": "Connection refused", "seen_s": 9.9}, HEALTHY, ""),  # one look that failed is none of two
        ({"no_job": "others run", "seen_s": 0.0}, DOWN, "no job 'shop' runs at flink:8081: others run"),
    ],
)
def test_what_is_not_seen_for_two_looks_counts_as_gone(known: dict[str, Any], state: str, why: str) -> None:
    found = verdict(**known)
    assert (found.state, why in found.why) == (state, True)


def test_nobody_who_never_answered_has_a_status() -> None:
    found = verdict_of(Facts("flink:8081", "shop", silence="Connection refused"))
    assert (found.state, found.section) == (DOWN, "FlinkSilent")


@pytest.mark.parametrize(("lag", "stalled_s", "state"), [(12, 10.0, DOWN), (12, 9.9, HEALTHY), (0, 99.0, HEALTHY)])
def test_records_that_nobody_takes_are_a_standstill(lag: int, stalled_s: float, state: str) -> None:
    found = verdict(healthy(10, lag), stalled_s=stalled_s)
    assert found.state == state
    assert found.cause in ("", "12 events wait, and none was taken for 10 s")


def test_the_worst_is_the_verdict_and_of_equals_the_first() -> None:
    both = replace(steps(NO_TASK_MANAGER, "FAILED"), configuration=SILENT, kafka=KafkaLook(missing={"x_topic": "x"}))
    assert verdict(both).section == "TopicMissing"
    open_breaker = replace(WELL, metrics={"user_api_breaker_open": [1], "refolds": [999]})
    assert verdict(open_breaker).section == "UserApiFails"
    assert verdict(replace(open_breaker, task_managers=[{"slotsNumber": 1}])).section == "TaskManagerLost"


def test_foreign_text_is_in_the_detail_alone() -> None:
    found = verdict(replace(of_job(WELL, state="FAILED"), failures=[failure(9, "user u7 password=hunter2")]))
    assert "u7" not in found.cause + found.next
    assert "hunter2" not in found.why


def test_every_alert_and_every_check_has_a_section_of_the_runbook_and_every_section_a_check() -> None:
    alerts = yaml.safe_load((ROOT / "runners" / "flink" / "monitoring" / "alerts.yml").read_text())
    named = {rule["alert"] for group in alerts["groups"] for rule in group["rules"]}
    checks = {check.section for check in CHECKS}
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    # Of CloudWatch, which looks at machines, buckets and costs.
    modules = ROOT / "infra" / "terraform" / "modules" / "observability"
    code = "".join(path.read_text() for path in modules.glob("*.tf"))
    alarms = set(re.findall(r'docs/runbook\.md#(\w+)|runbook +=  *"(\w+)"', code))
    of_cloudwatch = {section for section in sections if section.lower() in {"".join(each) for each in alarms}}
    assert {section.lower() for section in of_cloudwatch} == {"".join(each) for each in alarms}
    assert sections == named | checks | of_cloudwatch
    # What Flink's REST API does not show: whether Prometheus reaches a process, and the network's buffers. And what is
    # a receiver's trouble of the last minutes, not the job's of now.
    assert named - checks == {"ScrapeFails", "Backpressured", "WebhooksExpire"}
