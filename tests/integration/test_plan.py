"""The plan that Flink gets; no cluster is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from runners.flink.local.broker import LocalKafka
from tests.integration.jobs import launch

UIDS = Path(__file__).parent / "uids.json"
RULE = "name: r\nversion: 1\nfilter: event.triggerable\nactions: [{type: kafka}, {type: debug}]\n"

pytestmark = pytest.mark.stack


def plan(tmp_path: Path, *options: str) -> dict[str, Any]:
    rules, file = tmp_path / "rule.yaml", tmp_path / "plan.json"
    rules.write_text(RULE)
    done = launch(
        "--runner=FlinkRunner",
        "--bootstrap_servers=127.0.0.1:9092",
        f"--rules={rules}",
        f"--plan_file={file}",
        *options,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def is_python(node: dict[str, Any]) -> bool:
    return "ExecutableStage" in node["operator"]


def test_there_is_one_python_vertex_and_the_uids_are_the_committed_ones(tmp_path: Path) -> None:
    found = plan(tmp_path)

    assert len([node for node in found["nodes"] if is_python(node)]) == 1
    # A source vertex (micro-batches chained to it) an input and one for everything behind the shuffle.
    assert len(found["vertices"]) == 3
    assert sorted(node["uid"] for node in found["nodes"]) == json.loads(UIDS.read_text())["without_control_topic"]


def test_a_control_topic_changes_no_other_uid(tmp_path: Path) -> None:
    with_control = {node["uid"] for node in plan(tmp_path, "--control_topic=control")["nodes"]}

    committed = json.loads(UIDS.read_text())
    assert sorted(with_control) == committed["with_control_topic"]
    control = {uid for uid in (*with_control, *committed["without_control_topic"]) if "ReadControl" in uid}
    assert with_control - control == set(committed["without_control_topic"]) - control


def test_a_rules_topic_is_read_under_the_uids_of_a_control_topic(kafka: LocalKafka, tmp_path: Path) -> None:
    servers = f"--bootstrap_servers={kafka.bootstrap_servers}"
    found = plan(tmp_path, servers, "--rules_topic=rules-of-a-plan")

    assert sorted(node["uid"] for node in found["nodes"]) == json.loads(UIDS.read_text())["with_control_topic"]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    assert "rules-of-a-plan" not in admin.list_topics(timeout=10).topics


def test_neither_keying_nor_parallelism_nor_guarantee_changes_a_uid(tmp_path: Path) -> None:
    options = ("--user_shards=0", "--parallelism=3", "--delivery_guarantee=EXACTLY_ONCE", "--user_key=field")

    found = plan(tmp_path, *options)

    assert sorted(node["uid"] for node in found["nodes"]) == json.loads(UIDS.read_text())["without_control_topic"]


def test_a_setting_that_kafka_does_not_know_is_named_at_submission(tmp_path: Path) -> None:
    rules = tmp_path / "rule.yaml"
    rules.write_text(RULE)

    done = launch(
        "--runner=FlinkRunner",
        "--bootstrap_servers=127.0.0.1:9092",
        f"--rules={rules}",
        f"--plan_file={tmp_path / 'plan.json'}",
        "--consumer_property=max.poll.records=many",
    )

    assert done.returncode == 1
    assert "max.poll.records" in done.stderr
    assert "Traceback" not in done.stderr
