"""The Terraform code: its own tests pass, and what they planned is audited again here, resource by resource."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from infra import readme
from tests.infra import terraform
from tests.infra.terraform import Report

APPLIED = ("large", "everything_on")


def test_the_code_is_formatted(code: Path) -> None:
    done = terraform.run(code, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_the_code_is_valid(code: Path) -> None:
    done = terraform.run(code, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tiers_are_the_architectures_and_bad_input_is_refused(code: Path) -> None:
    files = ("small", "medium", "validation")
    report = terraform.run_tests(code, *(f"-filter=tests/{name}.tftest.hcl" for name in files))
    assert {name: status for name, status in report.status.items() if status != "pass"} == {}, report.diagnostics
    assert {"small", "medium", "every_number_out_of_range"} <= set(report.status)


def test_the_largest_tier_and_all_options_apply(audited: Report) -> None:
    assert audited.status == dict.fromkeys(APPLIED, "pass"), audited.diagnostics


def test_no_test_file_is_forgotten() -> None:
    found = {path.name.partition(".")[0] for path in (terraform.SOURCE / "tests").glob("*.tftest.hcl")}
    assert found == {"small", "medium", "large", "options", "validation"}


def test_every_variable_and_output_is_described_and_typed() -> None:
    missing = []
    for path in terraform.SOURCE.rglob("*.tf"):
        for kind, name, body in re.findall(r'^(variable|output) "(\w+)" {\n(.*?)^}', path.read_text(), re.S | re.M):
            wanted = ("description", "type") if kind == "variable" else ("description",)
            missing += [f"{path}: {name} has no {key}" for key in wanted if not re.search(rf"^  {key} +=", body, re.M)]
    assert missing == []


@pytest.mark.parametrize("run", APPLIED)
def test_no_ingress_names_an_address(audited: Report, run: str) -> None:
    rules = audited.resources(run, "aws_vpc_security_group_ingress_rule")
    assert len(rules) >= 14
    for rule in rules:
        assert rule["referenced_security_group_id"]
        assert not rule["cidr_ipv4"]
        assert not rule["cidr_ipv6"]
        assert rule["from_port"] == rule["to_port"] != 8081
    # Rules written inside a group would not be seen above.
    for group in audited.resources(run, "aws_security_group"):
        assert not group.get("ingress")
    assert [
        one for one in audited.resources(run, "aws_default_security_group") if one["ingress"] or one["egress"]
    ] == []


@pytest.mark.parametrize("run", APPLIED)
def test_egress_is_by_reference_but_for_what_was_asked_for(audited: Report, run: str) -> None:
    by_address = [
        rule["cidr_ipv4"] for rule in audited.resources(run, "aws_vpc_security_group_egress_rule") if rule["cidr_ipv4"]
    ]
    assert by_address == (["0.0.0.0/0"] if run == "everything_on" else [])


@pytest.mark.parametrize("run", APPLIED)
def test_every_disk_is_encrypted_gp3(audited: Report, run: str) -> None:
    templates = audited.resources(run, "aws_launch_template")
    assert len(templates) == 2
    for template in templates:
        disks = {disk["device_name"]: disk["ebs"][0] for disk in template["block_device_mappings"]}
        assert "/dev/xvda" in disks  # the root disk: left out, its encryption would be the image's choice
        assert {(disk["encrypted"], disk["volume_type"]) for disk in disks.values()} == {("true", "gp3")}
        assert all(disk["kms_key_id"].startswith("arn:aws:kms:") for disk in disks.values())
    instances, volumes = audited.resources(run, "aws_instance"), audited.resources(run, "aws_ebs_volume")
    assert len(instances) == len(volumes) == 3
    for disk in [*(one["root_block_device"][0] for one in instances), *volumes]:
        assert disk["encrypted"] is True
        assert disk["kms_key_id"].startswith("arn:aws:kms:")


@pytest.mark.parametrize("run", APPLIED)
def test_every_node_has_imdsv2_and_no_public_address(audited: Report, run: str) -> None:
    for node in [*audited.resources(run, "aws_launch_template"), *audited.resources(run, "aws_instance")]:
        (metadata,) = node["metadata_options"]
        assert (metadata["http_tokens"], metadata["http_put_response_hop_limit"]) == ("required", 1)
        interface = node["network_interfaces"][0] if node.get("network_interfaces") else node
        assert interface["associate_public_ip_address"] in (False, "false")
    assert not any(one["map_public_ip_on_launch"] for one in audited.resources(run, "aws_subnet"))


def test_no_keys_anywhere() -> None:
    for path in terraform.SOURCE.rglob("*"):
        if path.is_file() and ".terraform" not in str(path.relative_to(terraform.SOURCE)):
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|PRIVATE KEY-----|\bkey_name\b *=|aws_key_pair", text), path


@pytest.mark.parametrize("run", APPLIED)
def test_nothing_is_destroyed_by_mistake(audited: Report, run: str) -> None:
    assert [one["force_destroy"] for one in audited.resources(run, "aws_s3_bucket")] == [False] * 3
    assert [one["disable_api_termination"] for one in audited.resources(run, "aws_instance")] == [True] * 3
    assert [one["final_snapshot"] for one in audited.resources(run, "aws_ebs_volume")] == [True] * 3
    assert [one["deletion_window_in_days"] for one in audited.resources(run, "aws_kms_key")] == [30]


@pytest.mark.parametrize("run", APPLIED)
def test_buckets_are_versioned_private_encrypted_and_expire_nothing_live(audited: Report, run: str) -> None:
    buckets = {one["bucket"] for one in audited.resources(run, "aws_s3_bucket")}
    assert len(buckets) == 3

    def by_bucket(kind: str) -> dict[str, dict[str, object]]:
        found = {one["bucket"]: one for one in audited.resources(run, f"aws_s3_bucket{kind}")}
        assert set(found) == buckets
        return found

    for one in by_bucket("_versioning").values():
        assert one["versioning_configuration"][0]["status"] == "Enabled"  # type: ignore[index]
    for one in by_bucket("_public_access_block").values():
        blocks = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
        assert all(one[key] is True for key in blocks)
    for one in by_bucket("_server_side_encryption_configuration").values():
        (rule,) = one["rule"]  # type: ignore[misc]
        assert rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "aws:kms"  # type: ignore[index]
    assert by_bucket("_policy")
    for one in by_bucket("_lifecycle_configuration").values():
        for rule in one["rule"]:  # type: ignore[attr-defined]
            assert not rule["transition"]
            for expiration in rule["expiration"]:
                assert not expiration["days"]
                assert not expiration["date"]
            assert rule["noncurrent_version_expiration"][0]["noncurrent_days"] >= 7


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


def test_the_readmes_tables_are_the_codes() -> None:
    text = readme.README.read_text()
    assert readme.rendered(text) == text, "run make readme"
    assert "| `tier` | string | required |" in text
