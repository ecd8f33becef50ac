"""The logs of launcher and workers on a real cluster: JSON with job, rule and action ids, without user ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from runners.flink.local.broker import LocalKafka
from tests.builders import event
from tests.flink_cluster import FlinkCluster
from tests.integration.jobs import Topics, launch, reading
from tests.waiting import eventually
from transforms.domain.base.user_hash import UserHash

pytestmark = pytest.mark.stack

USER = "alice-in-wonderland"
KEY = "0123456789abcdef0123456789abcdef"


def of_workers(flink: FlinkCluster) -> list[dict[str, Any]]:
    lines = [line for file in flink.log_dir.glob("worker-*.log") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_job_rule_and_action_can_be_followed_and_the_user_cannot(kafka: LocalKafka, tmp_path: Path) -> None:
    topics = Topics(kafka)
    rules = tmp_path / "rule.yaml"
    rules.write_text("name: welcome\nversion: 3\nfilter: 'true'\nactions: [{type: kafka}]\n")
    topics.produce([(USER.encode(), orjson.dumps(event(USER, event_id="e1"))), (USER.encode(), b"no JSON")])
    with (
        FlinkCluster(environment={"EVENT_TRIGGER_LOG_LEVEL": "DEBUG", "HASH_KEY": KEY}) as flink,
        reading(kafka, topics.actions) as actions,
    ):
        options = [
            f"--flink_master={flink.flink_master}",
            "--user_hash_key=env:HASH_KEY",
            f"--rules={rules}",
            *topics.options(),
        ]
        done = launch("--runner=FlinkRunner", "--detached", "--job_name=nightly", "--log_format=json", *options)
        assert done.returncode == 0, done.stderr
        (message,) = actions.until(1, 60)
        eventually(
            lambda: any(line["event"] == "dead letter" for line in of_workers(flink)), "the dead letter is logged"
        )

        lines = of_workers(flink)
        task_manager = (flink.log_dir / "taskmanager-0.log").read_text()

    lines_of_launcher = [json.loads(line) for line in done.stderr.splitlines()]
    (running,) = [line for line in lines_of_launcher if "is running" in line["event"]]
    assert running["job"] == "nightly"
    assert len(running["job_id"]) == 32

    (decided,) = [line for line in lines if line["event"] == "action decided"]
    headers = {name: value.decode() for name, value in message.headers()}
    assert (decided["rule"], decided["rule_version"], decided["job"]) == ("welcome", 3, "nightly")
    assert decided["action_id"] == headers["action-id"]
    (letter,) = [line for line in lines if line["event"] == "dead letter"]
    assert letter["user_hash"] == decided["user_hash"] == UserHash(KEY.encode())(USER)
    assert all({"time", "level", "logger", "event", "worker", "pid"} <= set(line) for line in lines)

    # Those that are no DEBUG reach Flink's log, too, and in neither is the user.
    assert f'"user_hash": "{letter["user_hash"]}"' in task_manager
    assert USER not in task_manager
    assert USER not in json.dumps(lines)
