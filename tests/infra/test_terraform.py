"""The Terraform code: its own tests pass, and nodes get complete settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from infra import readme
from tests.infra import terraform
from tests.infra.terraform import Report


def test_the_code_is_formatted(code: Path) -> None:
    result = terraform.run(code, "fmt", "-check", "-recursive", "-diff")
    assert result.returncode == 0, result.stdout


def test_the_tiers_are_the_architectures_and_bad_input_is_refused(code: Path) -> None:
    files = ("small", "medium", "validation")
    report = terraform.run_tests(code, *(f"-filter=tests/{name}.tftest.hcl" for name in files))
    assert {name: status for name, status in report.status.items() if status != "pass"} == {}, report.diagnostics
    assert {"small", "medium", "every_number_out_of_range"} <= set(report.status)


def test_the_largest_tier_and_all_options_apply(audited: Report) -> None:
    assert {name: status for name, status in audited.status.items() if status != "pass"} == {}, audited.diagnostics
    assert {"state", "large", "everything_on"} <= set(audited.status)


def test_only_an_image_replaces_nodes(code: Path) -> None:
    report = terraform.run_tests(code, "-verbose", "-filter=tests/changes.tftest.hcl")
    assert {name: status for name, status in report.status.items() if status != "pass"} == {}, report.diagnostics
    assert {"another_name_on_the_same_state", "another_range_on_the_same_state"} <= set(report.status)

    def changed(run: str) -> dict[str, set[str]]:
        return {address.rpartition("module.")[2]: keys for address, keys in report.changes(run).items()}

    assert changed("one_more_taskmanager") == {
        "taskmanager.aws_autoscaling_group.this": {"desired_capacity", "max_size"}
    }
    assert changed("another_interval") == {}
    assert changed("another_image") == {
        "jobmanager.aws_launch_template.this": {"image_id"},
        "taskmanager.aws_launch_template.this": {"image_id"},
    }


def test_no_test_file_is_forgotten() -> None:
    names = {path.name.partition(".")[0] for path in (terraform.SOURCE / "tests").glob("*.tftest.hcl")}
    assert names == {"small", "medium", "large", "options", "validation", "state", "changes", "network"}


def test_every_variable_and_output_is_described_and_typed() -> None:
    missing = []
    for path in terraform.SOURCE.rglob("*.tf"):
        for kind, name, body in re.findall(r'^(variable|output) "(\w+)" {\n(.*?)^}', path.read_text(), re.S | re.M):
            required = ("description", "type") if kind == "variable" else ("description",)
            missing += [
                f"{path}: {name} has no {key}" for key in required if not re.search(rf"^  {key} +=", body, re.M)
            ]
    assert missing == []


def test_user_data_names_what_a_node_needs(audited: Report) -> None:
    user_data = audited.output("large", "cluster")["user_data"]
    assert set(user_data) == {"zookeeper", "jobmanager", "taskmanager"}
    files = terraform.files(user_data["taskmanager"])
    assert files["/etc/event-trigger/volumes"].splitlines() == [
        "/dev/disk/by-id/nvme-Amazon_EC2_NVMe_Instance_Storage_* /data/rocksdb rocksdb",
        "/dev/sdg /tmp tmp",
        "/dev/sdh /var/log/flink log",
    ]
    sha256 = "0" * 64
    assert [line.split()[1:] for line in files["/etc/event-trigger/artifacts"].splitlines()] == [
        [sha256, "/opt/flink"],
        [sha256, "/opt/event-trigger"],
    ]
    flink = {
        key: ast.literal_eval(value)
        for key, _, value in (line.partition(": ") for line in files["/etc/flink/cluster.yaml"].splitlines())
    }
    assert flink["rest.bind-address"] == "127.0.0.1"
    assert flink["security.ssl.internal.enabled"] == "true"
    assert flink["high-availability.zookeeper.quorum"] == "10.60.0.10:2181,10.60.16.10:2181,10.60.32.10:2181"


def test_groups_replace_their_nodes_in_order(audited: Report) -> None:
    groups = {group["name"]: group for group in audited.resources("large", "aws_autoscaling_group")}
    assert set(groups) == {"test-jobmanager", "test-taskmanager"}
    for group in groups.values():
        (refresh,) = group["instance_refresh"]
        assert refresh["strategy"] == "Rolling"
        assert refresh["preferences"][0]["min_healthy_percentage"] == 100
        assert refresh["preferences"][0]["auto_rollback"] is True
        (watched,) = refresh["preferences"][0]["alarm_specification"]
        assert watched["alarms"] == ["test-taskmanagers-missing"]
    hooks = {
        (hook["autoscaling_group_name"], hook["name"]): hook
        for hook in audited.resources("large", "aws_autoscaling_lifecycle_hook")
    }
    assert {
        place: (hook["lifecycle_transition"].rpartition("_")[2], hook["default_result"])
        for place, hook in hooks.items()
    } == {
        ("test-taskmanager", "drain"): ("TERMINATING", "CONTINUE"),
        ("test-taskmanager", "registered"): ("LAUNCHING", "ABANDON"),
        ("test-jobmanager", "registered"): ("LAUNCHING", "ABANDON"),
    }
    user_data = audited.output("large", "cluster")["user_data"]
    script = terraform.files(user_data["taskmanager"])["/usr/local/sbin/event-trigger-drain"]
    assert "--auto-scaling-group-name 'test-taskmanager'" in script
    assert "--lifecycle-hook-name 'drain'" in script
    for kind in ("jobmanager", "taskmanager"):
        node = terraform.files(user_data[kind])
        variables = dict(line.split("=", 1) for line in node["/etc/event-trigger/node.env"].splitlines())
        assert variables["GROUP_NAME"] == f"'test-{kind}'"
        assert "event-trigger-registered.service" in variables["SERVICE"]
        assert "--lifecycle-hook-name registered" in node["/usr/local/sbin/event-trigger-registered"]


def test_every_alarm_notifies_the_topic(audited: Report) -> None:
    (topic,) = audited.resources("large", "aws_sns_topic")
    alarms = {
        alarm["alarm_name"].removeprefix("test-"): alarm
        for alarm in audited.resources("large", "aws_cloudwatch_metric_alarm")
    }
    assert {"job-not-running", "taskmanagers-missing", "savepoint-missing", "checkpoints-size"} <= set(alarms)
    assert all(alarm["alarm_actions"] == [topic["arn"]] for alarm in alarms.values())
    # A cluster that has stopped reporting is not well.
    silent = {name for name, alarm in alarms.items() if alarm["treat_missing_data"] == "breaching"}
    assert {"savepoint-missing", "job-not-running", "taskmanagers-missing"} <= silent


def test_the_tables_of_the_readme_match_the_code() -> None:
    text = readme.README.read_text()
    assert readme.rendered(text) == text, "run make readme"
    assert "| `tier` | string | required |" in text
