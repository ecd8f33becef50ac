"""TaskManagers that follow the load: the policy's arithmetic, its numbers in the plan, and a node that has to go."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.scaling import Group, Policy, day, simulate
from pipeline.cli.capacity.model import TIERS, Plan, read_figures
from tests.capacity_docs import LOADS
from tests.infra import terraform
from tests.infra.terraform import Report
from tests.pipeline.cli.capacity.test_capacity import FIGURES, terraform_tiers

LARGE = TIERS[-1]
ELASTIC = "everything_on"
MEASURED, _ = read_figures()


def group(least: int = 2, most: int = 50, running: int | None = None, figures: object = FIGURES) -> Group:
    assert isinstance(figures, type(FIGURES))
    return Group(Policy(least, most), figures, LARGE, running or least)


# The arithmetic


@given(slots_of_load=st.floats(0, 190), running=st.integers(2, 50), worker_us=st.sampled_from([1.0, 40.0, 80.0]))
def test_a_steady_load_ends_with_a_steady_number(slots_of_load: float, running: int, worker_us: float) -> None:
    """However the group begins, and however much CPU batches take: no change is followed by its opposite for ever."""
    figures = type(MEASURED)(
        **{name: getattr(MEASURED, name) for name in MEASURED.__slots__} | {"worker_us_per_event": worker_us}
    )
    found = group(running=running, figures=figures)
    settling = 10 * 60
    # 0.8 of what the workers of these slots carry when they do nothing else.
    minutes = simulate(found, [0.8 * slots_of_load * 1e6 / worker_us] * (settling + 2 * 60))
    numbers = {minute.running for minute in minutes[settling:]}
    assert len(numbers) == 1
    (number,) = numbers
    assert 2 <= number <= 50
    assert number == 50 or minutes[-1].busy_percent <= 85


def test_more_start_when_workers_are_busy_for_five_minutes_and_register_later() -> None:
    found = group(running=4)
    load = 0.9 * found.capacity()
    minutes = simulate(found, [load] * 30)
    assert all(minute.paid == 4 for minute in minutes[:5])
    assert (minutes[5].running, minutes[5].paid) == (4, 5)
    assert found.restarts >= 1
    assert minutes[-1].running > 4


def test_four_minutes_are_a_burst() -> None:
    found = group(running=4)
    busy, quiet = 0.9 * found.capacity(), 0.5 * found.capacity()
    assert {minute.paid for minute in simulate(found, ([busy] * 4 + [quiet]) * 20)} == {4}


def test_a_quarter_goes_after_half_an_hour_and_the_next_after_another() -> None:
    found = group(running=16)
    numbers = [minute.running for minute in simulate(found, [0.0] * 100)]
    assert (numbers[29], numbers[30], numbers[59], numbers[60], numbers[90]) == (16, 12, 12, 9, 7)


def test_nothing_goes_while_events_wait() -> None:
    found = group(running=8)
    found._backlog = 3600 * 1e9
    assert {minute.running for minute in simulate(found, [1.0] * 120)}.isdisjoint(range(8))


def test_the_bounds_hold() -> None:
    up = simulate(group(least=2, most=5), [1e9] * 500)
    assert max(minute.paid for minute in up) == 5
    assert min(minute.running for minute in simulate(group(least=3, running=9), [0.0] * 500)) == 3


def test_events_that_wait_are_not_lost() -> None:
    """What came is handled, or still waits; a restart repeats half an interval of it."""
    found = group(running=2)
    load = 1.2 * found.capacity()
    minutes = simulate(found, [load] * 60 + [0.2 * load] * 120)
    assert max(minute.lag_s for minute in minutes) > 60
    assert minutes[-1].lag_s == 0


def test_a_day_ends_without_lag_and_on_fewer_machines_than_a_fixed_number() -> None:
    load = day(LOADS["large"].events_per_second)
    minutes = simulate(group(running=6, figures=MEASURED), load * 2)[1440:]
    plan = Plan(LOADS["large"], MEASURED, LARGE)
    assert max(minute.lag_s for minute in minutes) < 60
    assert sum(minute.paid for minute in minutes) < plan.task_managers * 1440
    assert max(load) == pytest.approx(1e6, rel=0.01)


# The plan


def test_the_plan_has_the_numbers_of_the_arithmetic(audited: Report) -> None:
    policy = Policy(2, 3)
    alarms = {
        alarm["alarm_name"].removeprefix("test-taskmanager-"): alarm
        for alarm in audited.resources(ELASTIC, "aws_cloudwatch_metric_alarm")
        if alarm["metric_query"]
    }
    out, inwards = (
        next(p for p in audited.resources(ELASTIC, "aws_autoscaling_policy") if p["name"].endswith(name))
        for name in ("-out", "-in")
    )
    assert set(alarms) == {"busy", "behind", "idle"}
    lag = int(terraform_tiers()["large"]["scale_out_lag"])
    assert (alarms["busy"]["threshold"], alarms["busy"]["evaluation_periods"]) == (
        policy.out_percent,
        policy.out_minutes,
    )
    assert (alarms["behind"]["threshold"], alarms["behind"]["evaluation_periods"]) == (lag, policy.out_minutes)
    assert (alarms["idle"]["threshold"], alarms["idle"]["evaluation_periods"]) == (policy.in_percent, policy.in_minutes)
    expressions = {
        name: next(query["expression"] for query in alarm["metric_query"] if query["return_data"])
        for name, alarm in alarms.items()
    }
    assert expressions == {
        "busy": "busy",
        "behind": f"IF(busy > {policy.in_percent:.0f}, lag, 0)",
        "idle": f"IF(lag > {lag}, 100, busy)",
    }
    # Without a running job there is nothing to follow.
    assert {alarm["treat_missing_data"] for alarm in alarms.values()} == {"notBreaching"}
    assert {alarm["comparison_operator"] for alarm in alarms.values()} == {"GreaterThanThreshold", "LessThanThreshold"}
    assert alarms["idle"]["comparison_operator"] == "LessThanThreshold"
    assert [name for name, alarm in alarms.items() if alarm["alarm_actions"] == [inwards["arn"]]] == ["idle"]
    assert [name for name, alarm in alarms.items() if alarm["alarm_actions"] == [out["arn"]]] == ["behind", "busy"]
    assert [step["scaling_adjustment"] for step in out["step_adjustment"]] == [100 * policy.out_share]
    assert out["estimated_instance_warmup"] == policy.warmup_minutes * 60
    assert (inwards["scaling_adjustment"], inwards["cooldown"]) == (
        -100 * policy.in_share,
        policy.cooldown_minutes * 60,
    )
    assert {each["adjustment_type"] for each in (out, inwards)} == {"PercentChangeInCapacity"}
    assert (out["policy_type"], inwards["policy_type"]) == ("StepScaling", "SimpleScaling")


def test_the_lag_of_a_tier_is_two_minutes_of_its_load() -> None:
    for tier in TIERS:
        of_a_partition = LOADS[tier.name].events_per_second / tier.kafka_partitions
        assert int(terraform_tiers()[tier.name]["scale_out_lag"]) == of_a_partition * Policy(2, 3).max_lag_s


def test_alarms_look_at_what_nodes_send(audited: Report) -> None:
    sent = terraform.files(audited.output(ELASTIC, "user_data")["taskmanager"])[
        "/etc/event-trigger/cloudwatch-metrics.json"
    ]
    alarms = [each for each in audited.resources(ELASTIC, "aws_cloudwatch_metric_alarm") if each["metric_query"]]
    names = {
        query["metric"][0]["metric_name"] for alarm in alarms for query in alarm["metric_query"] if query["metric"]
    }
    assert "event_trigger_worker_cpu_percent" in names
    assert [name for name in names if f"^{name}$" not in sent] == []


def test_the_number_is_auto_scalings_and_those_beyond_the_first_are_spot_instances(audited: Report) -> None:
    groups = {each["name"]: each for each in audited.resources(ELASTIC, "aws_autoscaling_group")}
    found = groups["test-taskmanager"]
    assert (found["min_size"], found["max_size"], found["launch_template"]) == (20, 50, [])
    (mixed,) = found["mixed_instances_policy"]
    (distribution,) = mixed["instances_distribution"]
    assert distribution["on_demand_base_capacity"] == 20
    assert distribution["on_demand_percentage_above_base_capacity"] == 0
    types = [override["instance_type"] for override in mixed["launch_template"][0]["override"]]
    assert types == ["m6idn.2xlarge", "m6id.2xlarge"]
    # Only ours: nothing but the TaskManagers' number follows the load.
    assert groups["test-jobmanager"]["desired_capacity"] == 3
    assert {each["autoscaling_group_name"] for each in audited.resources(ELASTIC, "aws_autoscaling_policy")} == {
        "test-taskmanager"
    }
    assert audited.resources("large", "aws_autoscaling_policy") == []


def test_a_job_may_have_fewer_slots_than_it_wants_only_where_their_number_follows_the_load(audited: Report) -> None:
    def elastic(user_data: dict[str, str]) -> bool:
        return 'event-trigger.elastic: "true"' in terraform.files(user_data["jobmanager"])["/etc/flink/cluster.yaml"]

    assert elastic(audited.output(ELASTIC, "user_data"))
    assert not elastic(audited.output("large", "cluster")["user_data"])


# A node that has to go


@pytest.mark.parametrize(
    ("path", "answer"),
    [("autoscaling/target-lifecycle-state", "Terminated"), ("spot/instance-action", '{"action": "terminate"}')],
    ids=["Auto Scaling", "a spot instance"],
)
def test_a_node_that_goes_stops_its_task_manager_first(audited: Report, tmp_path: Path, path: str, answer: str) -> None:
    calls = tmp_path / "calls"
    stubs = {
        "curl": f"""case "$*" in
          *{path}*) [ -f {tmp_path}/going ] || exit 22; echo '{answer}' ;;
          *api/token*) echo token ;;
          *instance-id*) echo i-1 ;;
          *target-lifecycle-state*) echo InService ;;
          *) exit 22 ;;
        esac""",
        "systemctl": f'echo "systemctl $*" >>{calls}\n',
        "aws": f'echo "aws $*" >>{calls}\n',
        "sleep": f"[ $1 = infinity ] && exit 0; echo wait >>{calls}; touch {tmp_path}/going\n",
    }
    for name, text in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    script = terraform.files(audited.output(ELASTIC, "user_data")["taskmanager"])["/usr/local/sbin/event-trigger-drain"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AWS_REGION": "eu-central-1"}
    subprocess.run(["bash", "-c", script], env=environment, check=True, timeout=60)
    assert [line.partition(" --")[0] for line in calls.read_text().splitlines()] == [
        "wait",
        "systemctl stop flink-taskmanager.service",
        "aws autoscaling complete-lifecycle-action",
    ]
