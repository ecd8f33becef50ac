"""The small example on moto: the move from the older layout, what changes of inputs plan, what destroy takes.

The tests build on each other in the order of the file. AWS's provider itself makes these plans, so they also show what
it would replace. moto forgets some attributes, so that plans leave out the refresh.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra import terraform
from tests.infra.plans.conftest import Root

pytestmark = pytest.mark.timeout(3600)

KEPT = ("aws_kms_key", "aws_kms_alias", "aws_s3_bucket")


def actions(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is done with each resource that is not left as it is."""
    done = {entry["address"]: list(entry["change"]["actions"]) for entry in plan["resource_changes"]}
    return {address: what for address, what in done.items() if what not in (["no-op"], ["read"])}


def short(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {address.removeprefix("module.cluster."): what for address, what in changes.items()}


def test_key_and_buckets_are_imported_as_the_page_says(state: Root) -> None:
    shutil.copy(state.folder / "migrate" / "import.tf", state.folder)
    plan = state.plan()
    imported = [entry for entry in plan["resource_changes"] if entry["change"].get("importing")]
    managed = [entry for entry in plan["resource_changes"] if entry["mode"] == "managed"]
    assert len(imported) == len(managed) == 20  # and three policies, which moto must not have
    assert all(what == ["update"] for what in actions(plan).values())
    assert {address for address in actions(plan) if address.startswith("aws_s3_bucket.")} == set()
    state.apply()
    (state.folder / "import.tf").unlink()


def test_the_cluster_forgets_them_and_destroys_nothing(example: Root) -> None:
    plan = example.plan()
    forgotten = {address for address, what in actions(plan).items() if what == ["forget"]}
    assert len(forgotten) == 20
    assert all(".module.storage." in address for address in forgotten)
    assert {tuple(what) for what in actions(plan).values()} == {("forget",), ("create",)}
    example.apply()


def test_an_apply_without_a_change_does_nothing(example: Root) -> None:
    assert actions(example.plan("-refresh=false")) == {}


def test_scaling_changes_the_group_alone(example: Root) -> None:
    main = example.folder / "main.tf"
    text = main.read_text()
    main.write_text(text.replace('= "small"\n', '= "small"\n  taskmanager_count = 2\n  taskmanager_max_count = 2\n', 1))
    changed = short(terraform.changes(example.plan("-refresh=false")))
    main.write_text(text)
    assert changed == {"module.taskmanager.aws_autoscaling_group.this": {"desired_capacity", "max_size"}}


def with_input(example: Root, line: str) -> dict[str, Any]:
    """The plan of the example with one more line in its module."""
    main = example.folder / "main.tf"
    text = main.read_text()
    main.write_text(text.replace('= "small"\n', f'= "small"\n  {line}\n', 1))
    try:
        return example.plan("-refresh=false")
    finally:
        main.write_text(text)


def test_another_interval_changes_outputs_alone(example: Root) -> None:
    plan = with_input(example, "checkpointing_interval_s = 30")
    assert actions(plan) == {}
    assert plan["output_changes"]["cluster"]["actions"] == ["update"]


def test_another_instance_type_rolls_taskmanagers_and_no_other_node(example: Root) -> None:
    changed = short(actions(with_input(example, 'taskmanager_instance_type = "m6i.2xlarge"')))
    assert changed == {
        "module.taskmanager.aws_launch_template.this": ["update"],
        "module.taskmanager.aws_autoscaling_group.this": ["update"],
    }


def test_another_image_rolls_both_groups_and_no_zookeeper_node(example: Root) -> None:
    groups = ("jobmanager", "taskmanager")
    rolled = {
        f"module.{group}.{kind}.this": ["update"]
        for group in groups
        for kind in ("aws_launch_template", "aws_autoscaling_group")
    }
    assert short(actions(example.plan("-refresh=false", ami_id="ami-0fedcba9876543210"))) == rolled


def test_a_larger_zookeeper_stops_no_node(example: Root) -> None:
    assert actions(with_input(example, 'zookeeper_instance_type = "t3.medium"')) == {}


def test_a_zookeeper_node_is_replaced_alone_and_gets_its_volume_back(example: Root) -> None:
    node = "module.zookeeper.aws_instance.this[0]"
    plan = example.plan("-refresh=false", f"-replace=module.cluster.{node}", ami_id="ami-0123456789abcdef0")
    replaced = {address: what for address, what in short(actions(plan)).items() if "delete" in what}
    assert set(replaced) == {node, "module.zookeeper.aws_volume_attachment.data[0]"}


@pytest.mark.parametrize("other", ["another", "test-2"])
def test_a_rename_is_refused(example: Root, other: str) -> None:
    refused = example.run("plan", "-refresh=false", name=other)
    assert refused.returncode != 0
    assert f"alias/{other}" in refused.stderr or f"name is '{other}'" in " ".join(refused.stderr.split())


def test_destroy_leaves_key_and_buckets(example: Root) -> None:
    taken = actions(example.plan("-destroy", "-refresh=false"))
    assert len(taken) > 100
    assert {address for address in taken if address.split(".")[-2].startswith(KEPT)} == set()


def test_the_state_is_destroyed_only_on_purpose(state: Root) -> None:
    refused = state.run("plan", "-destroy")
    assert refused.returncode != 0
    assert "Instance cannot be destroyed" in refused.stderr
    terraform.allow_destroy(state.folder)
    assert all(what == ["delete"] for what in actions(state.plan("-destroy")).values())
