"""Every input of a cluster, changed: the plan does what the README's column says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra import changes
from infra.changes import BASE, CHANGES
from tests.infra import terraform
from tests.infra.terraform import Report

GROUPS = {"module.jobmanager": "JobManagers", "module.taskmanager": "TaskManagers"}
# Machines on which every example fits.
PROVIDER = """
mock_provider "aws" {
  source = "./tests/mocks"
}

override_data {
  target = data.aws_ec2_instance_type.jobmanager
  values = { memory_size = 65536, supported_architectures = ["x86_64"] }
}

override_data {
  target = data.aws_ec2_instance_type.taskmanager
  values = {
    memory_size             = 65536
    network_performance     = "Up to 40 Gigabit"
    total_instance_storage  = 474
    instance_disks          = [{ count = 1, size = 474, type = "ssd" }]
    supported_architectures = ["x86_64"]
  }
}

override_data {
  target = data.aws_ec2_instance_type.spot
  values = { memory_size = 65536, supported_architectures = ["x86_64"], supported_usages_classes = ["spot"] }
}

override_data {
  target = data.aws_vpc.existing
  values = {
    id                   = "vpc-0123456789abcdef0"
    cidr_block           = "10.20.0.0/16"
    enable_dns_support   = true
    enable_dns_hostnames = true
  }
}

override_data {
  target = data.aws_subnet.existing
  values = { vpc_id = "vpc-0123456789abcdef0", cidr_block = "10.20.1.0/24", availability_zone = "eu-central-1a" }
}
"""


def block(values: Mapping[str, str]) -> str:
    return "variables {\n" + "".join(f"  {name} = {value}\n" for name, value in values.items()) + "}\n"


@pytest.fixture(scope="session")
def planned(code: Path) -> Report:
    """A cluster, and a plan for each input."""
    fixtures = code / "tests" / "fixtures"
    if not (fixtures / "newer").is_dir():
        shutil.copytree(fixtures / "release", fixtures / "newer")
        manifest = fixtures / "newer" / "manifest.json"
        manifest.write_text(re.sub("0{16,}", lambda zeros: "1" * len(zeros[0]), manifest.read_text()))
    runs = [PROVIDER, block(BASE), 'run "cluster" {\n  command = apply\n}\n']
    for name, change in CHANGES.items():
        expected = "expect_failures = [terraform_data.fixed]" if change.effect == changes.REFUSED else ""
        runs.append(f'run "{name}" {{\n  command = plan\n{block(change.example)}{expected}\n}}\n')
    (code / "tests" / "inputs.tftest.hcl").write_text("\n".join(runs))
    return terraform.run_tests(code, "-verbose", "-filter=tests/inputs.tftest.hcl", timeout_s=3000)


def effect(plan: Mapping[str, Any], given: Mapping[str, str]) -> str:
    """What a plan does, in the words of the column."""
    changed = terraform.changes(plan)
    rolled = [
        kind
        for module, kind in GROUPS.items()
        if f"{module}.aws_launch_template.this" in changed
        # The provider starts a refresh for this as for another template.
        or "mixed_instances_policy" in changed.get(f"{module}.aws_autoscaling_group.this", ())
    ]
    outputs = plan["output_changes"]
    was, will = (outputs["user_data"][side]["zookeeper"] for side in ("before", "after"))
    # Terraform ignores both on nodes that exist.
    by_hand = was != will or {"ami_id", "zookeeper_instance_type"} & set(given)
    if rolled or by_hand:
        return "; ".join(
            [*([f"rolls {' and '.join(rolled)}"] if rolled else []), *([changes.ZOOKEEPER] if by_hand else [])]
        )
    if changed:
        return changes.IN_PLACE
    return changes.LAUNCH if outputs["submit_flags"]["actions"] != ["no-op"] else changes.NOTHING


def test_there_is_an_example_of_every_input() -> None:
    text = (terraform.SOURCE / "variables.tf").read_text()
    assert list(CHANGES) == re.findall(r'^variable "(\w+)"', text, re.M)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_does_what_the_readme_says(planned: Report, name: str) -> None:
    assert planned.status[name] == "pass", planned.diagnostics
    change = CHANGES[name]
    if change.effect != changes.REFUSED:
        assert effect(planned.plans[name], change.example) == change.effect, json.dumps(
            terraform.changes(planned.plans[name]), default=sorted
        )


def test_no_plan_ends_a_running_zookeeper_node(planned: Report) -> None:
    for name, plan in planned.plans.items():
        if CHANGES[name].effect == changes.REFUSED:
            continue
        for address, attributes in terraform.changes(plan).items():
            if "aws_instance" in address or "aws_ebs_volume" in address or "aws_volume_attachment" in address:
                allowed = {"disable_api_termination", "final_snapshot", "root_block_device", "size"}
                assert attributes <= allowed, (name, address)
