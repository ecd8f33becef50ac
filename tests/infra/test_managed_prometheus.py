"""Alarms on the job on AWS: every alert that we have is evaluated there, on what nodes send, and reaches the topic."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pytest_httpserver import HTTPServer

from pipeline.cli.capacity import costs
from runners.flink.local.monitoring import CONFIGURATION
from tests import monitoring
from tests.infra import terraform
from tests.infra.terraform import ROOT, Report
from tests.infra.test_monitoring import exposition
from tests.monitoring import answers, prometheus_of

INSTANCE = "i-0123456789abcdef0"
# Flink's own, as far as alerts look at them, and one that they do not look at.
FLINKS = (
    "flink_jobmanager_numRunningJobs",
    "flink_jobmanager_job_numRestarts",
    "flink_jobmanager_job_numberOfFailedCheckpoints",
    "flink_jobmanager_job_numberOfCompletedCheckpoints",
    "flink_jobmanager_job_lastCheckpointDuration",
    "flink_taskmanager_job_task_operator_pendingRecords",
    "flink_taskmanager_job_task_Shuffle_Netty_Input_Buffers_inPoolUsage",
)
NOT_SENT = "flink_taskmanager_Status_JVM_Threads_Count"


def test_the_rules_are_those_of_every_cluster(audited: Report) -> None:
    (rules,) = audited.resources("large", "aws_prometheus_rule_group_namespace")
    assert rules["data"] == (CONFIGURATION / "alerts.yml").read_text()
    (workspace,) = audited.resources("large", "aws_prometheus_workspace")
    assert rules["workspace_id"] == workspace["id"]
    assert workspace["kms_key_arn"] is not None


def test_alerts_reach_the_topic_and_so_does_their_end(audited: Report) -> None:
    (definition,) = audited.resources("large", "aws_prometheus_alert_manager_definition")
    (topic,) = audited.resources("large", "aws_sns_topic")
    config = yaml.safe_load(yaml.safe_load(definition["definition"])["alertmanager_config"])
    (receiver,) = config["receivers"]
    assert config["route"]["receiver"] == receiver["name"]
    # No route of its own that would take an alert elsewhere, and nothing that silences one.
    assert not {"routes", "inhibit_rules"} & {*config, *config["route"]}
    (sns,) = receiver["sns_configs"]
    assert (sns["topic_arn"], sns["send_resolved"]) == (topic["arn"], True)
    (publish,) = audited.policy("large", "alarms")
    assert "aps.amazonaws.com" in publish["principals"][0]["identifiers"]
    (key,) = (each for each in audited.policy("state", "key") if each["sid"] == "AlarmsToEncryptedTopic")
    assert "aps.amazonaws.com" in key["principals"][0]["identifiers"]


def test_only_flinks_nodes_may_write_and_only_there(audited: Report) -> None:
    (workspace,) = audited.resources("large", "aws_prometheus_workspace")
    for node in ("jobmanager", "taskmanager"):
        (statement,) = (each for each in audited.policy("large", f'node["{node}"]') if each["sid"] == "Prometheus")
        assert (statement["actions"], statement["resources"]) == (["aps:RemoteWrite"], [workspace["arn"]])
    assert all(each["sid"] != "Prometheus" for each in audited.policy("large", 'node["zookeeper"]'))
    services = {endpoint["service_name"] for endpoint in audited.resources("large", "aws_vpc_endpoint")}
    assert "com.amazonaws.eu-central-1.aps-workspaces" in services


@pytest.mark.parametrize("node", ["jobmanager", "taskmanager"])
def test_the_agent_sends_metrics_to_the_workspace_and_disks_to_cloudwatch(audited: Report, node: str) -> None:
    files = terraform.files(audited.output("large", "cluster")["user_data"][node])
    agent = yaml.safe_load(files["/etc/event-trigger/cloudwatch-metrics.json"])["metrics"]
    (workspace,) = audited.resources("large", "aws_prometheus_workspace")
    assert agent["metrics_destinations"] == {"cloudwatch": {}, "amp": {"workspace_id": workspace["id"]}}
    assert {"disk", "mem", "prometheus"} == set(agent["metrics_collected"])
    path = agent["metrics_collected"]["prometheus"]["prometheus_config_path"]
    assert path in files


@pytest.fixture(scope="module")
def node_configuration(audited: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a TaskManager's agent scrapes by, after its boot."""
    files = terraform.files(audited.output("large", "cluster")["user_data"]["taskmanager"])
    folder = tmp_path_factory.mktemp("node")
    path = folder / "prometheus.yaml"
    path.write_text(files["/etc/event-trigger/prometheus.yaml"])
    (line,) = [line for line in files["/usr/local/sbin/event-trigger-boot"].splitlines() if "INSTANCE-ID" in line]
    environment = {"instance": INSTANCE, "CONFIG": str(folder), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", line], env=environment, check=True)
    return path


@pytest.fixture(scope="module")
def sent(node_configuration: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus that scrapes as a node's agent does; its URL."""
    page = exposition() + "".join(f'{name}{{job_name="nightly"}} 1\n' for name in (*FLINKS, NOT_SENT))
    folder = tmp_path_factory.mktemp("prometheus")
    with HTTPServer() as node:  # of its own: test_monitoring.py has another page at the same path
        node.expect_request("/metrics").respond_with_data(page, content_type="text/plain")
        text = node_configuration.read_text().replace('"1m"', '"1s"')
        text, found = re.subn(r"localhost:\d+", f"{node.host}:{node.port}", text)
        assert found == 1
        (folder / "prometheus.yml").write_text(text)
        with prometheus_of(folder, deadline_s=120) as url:
            yield url


def test_every_metric_of_every_alert_is_sent_with_the_instance(sent: str) -> None:
    for rule in monitoring.ALERTS:
        for name in monitoring.names_of(rule["expr"]):
            samples = answers(sent, name)
            assert samples, (rule["alert"], name)
            assert {sample["metric"]["instance"] for sample in samples} == {INSTANCE}
            assert {sample["metric"]["cluster"] for sample in samples} == {"test"}
    assert [sample["metric"]["instance"] for sample in answers(sent, 'up{job="flink"}')] == [INSTANCE]


def test_capacity_counts_what_is_sent(sent: str) -> None:
    """Of one slot with one rule, one destination and one partition."""
    (count,) = answers(sent, 'count({__name__=~"event_trigger_.*"})')
    assert int(count["value"][1]) == costs.SERIES_OF_OURS


def test_what_nobody_looks_at_is_not_sent(sent: str) -> None:
    assert answers(sent, NOT_SENT) == []
    assert answers(sent, 'count({__name__=~"event_trigger_shard_.*"})') == []


def test_each_alarm_names_a_section_of_the_runbook(audited: Report) -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = {title.lower() for title in re.findall(r"^## (\w+)$", runbook, re.MULTILINE)}
    alarms = audited.resources("large", "aws_cloudwatch_metric_alarm")
    assert len(alarms) >= 10
    for alarm in alarms:
        named = re.search(r"docs/runbook\.md#(\w+)\)$", alarm["alarm_description"])
        assert named is not None, alarm["alarm_name"]
        assert named[1] in sections, alarm["alarm_name"]
