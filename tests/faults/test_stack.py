"""The stack that faults strike is what it says: one JobManager leads, all state is on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.stack import Stack, within
from tests.flink_cluster import wait_for_checkpoint
from tests.integration.jobs import Topics, inspect, reading, running

pytestmark = pytest.mark.stack

RULE = "name: every_event\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n"


def test_checkpoints_savepoints_and_metadata_are_on_s3(stack: Stack, tmp_path: Path) -> None:
    topics, rules, rest = Topics(stack.kafka), tmp_path / "rules.yaml", stack.flink.rest
    rules.write_text(RULE)
    with (
        reading(stack.kafka, topics.inspections) as inspections,
        running(
            stack.flink, topics, rules, f"--control_topic={topics.control}", "--checkpointing_interval_ms=1000"
        ) as job,
    ):
        done = wait_for_checkpoint(rest, job, 1, 60)
        assert done["external_path"].startswith(f"s3://{stack.s3.bucket}/checkpoints/{job}/chk-")
        assert not inspect(topics, inspections, ["nobody"])["nobody"]["found"]
        assert rest.stop(job).startswith(f"s3://{stack.s3.bucket}/savepoints/savepoint-")
    assert list((stack.flink.work_dir / "checkpoints").iterdir()) == []
    assert not (stack.flink.work_dir / "ha").exists()
    stack.check_nothing_is_left()


def test_another_job_manager_leads_when_the_leader_is_killed(stack: Stack) -> None:
    first = stack.flink.job_manager_pid
    assert len(stack.flink.job_manager_pids) == 2
    assert stack.flink.kill_job_manager() == first
    within(lambda: stack.flink.job_manager_pid != first, lambda: "nobody leads", 60)
    second = stack.flink.job_manager_pid
    stack.flink.restart_job_manager()
    assert len(stack.flink.job_manager_pids) == 2
    assert stack.flink.job_manager_pid == second
    stack.check_no_orphans()
