"""How many machines a load needs: the arithmetic by hand, the tiers as Terraform has them, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.capacity.model import (
    FIGURES_FILE,
    MACHINE_MARGIN,
    SLOTS,
    TARGET_SHARE,
    TIERS,
    WORKER_RESERVE_MIB,
    Figures,
    FiguresError,
    Load,
    Plan,
    Tier,
    choose,
    read_figures,
)
from pipeline.cli.main import main

ROOT = Path(__file__).parents[4]
TERRAFORM = ROOT / "infra" / "terraform"

# Round numbers: a core carries 20,000 events/s in workers and 50,000 in Flink, a user takes 10 KiB.
FIGURES = Figures(
    worker_us_per_event=50,
    task_manager_us_per_event=20,
    broker_us_per_event=6,
    by_user_worker_us_per_event=500,
    by_user_task_manager_us_per_event=200,
    memory_bytes_per_user=10 * 1024,
    journal_bytes_per_user=5000,
    journal_bytes_per_event=100,
    event_bytes=1000,
    action_bytes=10_000,
    highest_rate_seen=20_000,
)
# Of its memory 24,000 MiB are left for workers.
MACHINE = Tier("test", "any.large", 8, 35_200, 10.0, 1, 10, 8000, 32, 64, 100)


def plan(events_per_second: float, users: float = 1, **fields_: Any) -> Plan:
    return Plan(Load(events_per_second, users), FIGURES, MACHINE, **fields_)


def test_a_slot_has_one_core_and_is_busy_for_six_tenths_of_it() -> None:
    # 480,000 x 50 µs are 24 cores, 40 at 60 %: 10 TaskManagers of 4 slots. With Flink 33.6 cores, 56 vCPU: 7 machines.
    found = plan(480_000)
    assert (found.needed["workers' CPU"], found.needed["machines' CPU"]) == (10, 7)
    assert (found.limit, found.task_managers, found.slots) == ("workers' CPU", 10, 40)
    assert found.worker_share == pytest.approx(TARGET_SHARE)
    assert found.machine_share == pytest.approx(0.42)
    assert plan(480_100).task_managers == 11


def test_users_have_to_fit_the_workers_memory() -> None:
    # 35,200 MiB / 1.1 - 8,000 are 24,000, 6,000 a worker, 5,488 without what it takes for itself: 21,952 a machine.
    assert MACHINE.worker_memory_mib == 6000
    fit = 21_952 * 1024 * 1024 / (1.1 * 10 * 1024)
    assert plan(10, fit * 0.999).task_managers == 1
    found = plan(10, fit * 1.001)
    assert (found.limit, found.task_managers) == ("users' memory", 2)
    # Half of it in each of eight workers, in steps of 128.
    assert found.worker_memory_mib == 3328
    assert plan(10, 1).worker_memory_mib == 640


def test_the_network_carries_events_twice_and_a_whole_checkpoint_in_half_the_interval() -> None:
    # 1 GB/s of events are 8 Gbit/s: 16 in. Out are 8 in the shuffle, 4 of actions, and 6 GB in 30 s.
    found = Plan(Load(1_000_000, 1_200_000), FIGURES, MACHINE)
    assert found.network_in_gbps == pytest.approx(16)
    assert found.network_out_gbps == pytest.approx(8 + 4 + 1.6)
    assert found.needed["network"] == 3  # 16 / 0.6 / 10
    assert (found.checkpoint_least_bytes, found.checkpoint_bytes) == (6e9, 6e9)
    assert plan(1000, 1_200_000).checkpoint_least_bytes == 6e6


def test_kafka_has_a_partition_a_slot_and_none_above_ten_megabytes_a_second() -> None:
    assert plan(1000).kafka_partitions == 4
    assert replace(plan(480_000), parallelism=8).kafka_partitions == 48
    assert plan(100_000).broker_cores == pytest.approx(1.0)
    assert plan(100_000).broker_in_gbps == pytest.approx(3 * (0.8 + 0.4))


def test_shards_are_eight_a_slot_and_small_enough_to_be_read_in_one_piece() -> None:
    assert plan(1000).user_shards == 64  # the tier's
    assert plan(480_000).user_shards == 320
    assert plan(10, 5_000_000).user_shards == 500
    assert plan(10, 1e10).user_shards == 32_768


def test_keyed_by_user_memory_is_no_limit_and_cpu_is() -> None:
    many = plan(10_000, 100_000_000)
    assert many.limit == "users' memory"
    by_user = replace(many, by_user=True)
    assert (by_user.needed["workers' CPU"], by_user.needed["users' memory"]) == (3, 0)
    assert by_user.worker_memory_mib == 512


def test_a_parallelism_that_is_given_stays_and_is_found_too_low() -> None:
    found = replace(plan(480_000), parallelism=38)
    assert (found.slots, found.task_managers, found.is_enough) == (38, 10, False)
    assert replace(plan(480_000), parallelism=40).is_enough
    assert replace(plan(480_000), parallelism=48).worker_share == pytest.approx(0.5)


def test_the_smallest_tier_that_carries_a_load_is_taken() -> None:
    figures, _ = read_figures()
    found = [choose(Load(events, 1000), figures).tier.name for events in (1000, 100_000, 1_000_000, 1e8)]
    assert found == ["small", "medium", "large", "large"]
    assert not choose(Load(1e8, 1000), figures).fits_tier
    # What there is too few of is found on the tier that would carry it, not on a larger one.
    few = choose(Load(100_000, 1000), figures, parallelism=4)
    assert (few.tier.name, few.is_enough) == ("medium", False)


def test_twice_the_cost_takes_twice_the_machines() -> None:
    dearer = replace(FIGURES, worker_us_per_event=100)
    assert Plan(Load(480_000, 1), dearer, MACHINE).task_managers == 20


@pytest.mark.parametrize("name", [figure.name for figure in fields(Figures) if "broker" not in figure.name])
def test_every_figure_has_a_say(name: str) -> None:
    """A figure that was measured and changes nothing would be an answer that stays wrong."""

    def answers(figures: Figures) -> list[Any]:
        of = Plan(Load(100_000, 5_000_000), figures, MACHINE)
        users = replace(of, by_user=True)
        return [
            of.worker_share, of.machine_share, of.worker_memory_mib, of.network_in_gbps, of.network_out_gbps,
            of.checkpoint_least_bytes, users.worker_share, users.machine_share, of.is_extrapolated,
        ]  # fmt: skip

    assert answers(FIGURES) != answers(replace(FIGURES, **{name: getattr(FIGURES, name) * 10}))


# What the model takes from elsewhere


def terraform_tiers() -> dict[str, dict[str, str]]:
    text = (TERRAFORM / "tiers.tf").read_text("utf-8")
    return {
        name: dict(re.findall(r"(\w+) += (.+)", body))
        for name, body in re.findall(r"^    (small|medium|large) = \{\n(.*?)^    \}", text, re.MULTILINE | re.DOTALL)
    }


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_tiers_are_those_of_terraform(tier: Tier) -> None:
    given = terraform_tiers()[tier.name]
    kind = re.fullmatch(r'"([\w.]+)" # (\d+) vCPU, (\d+) GiB.*', given["taskmanager_instance_type"])
    assert kind is not None
    assert (tier.instance_type, tier.vcpus, tier.memory_mib) == (kind[1], int(kind[2]), int(kind[3]) * 1024)
    ours = {
        "taskmanager_min_count": tier.min_count,
        "taskmanager_max_count": tier.max_count,
        "taskmanager_memory_mib": tier.task_manager_memory_mib,
        "kafka_partitions": tier.kafka_partitions,
        "user_shards": tier.user_shards,
        "checkpoint_storage_gib": tier.checkpoint_storage_gib,
    }
    assert {name: int(given[name]) for name in ours} == ours


def test_margins_are_those_of_terraform() -> None:
    tiers, outputs, variables = (
        (TERRAFORM / f"{name}.tf").read_text("utf-8") for name in ("tiers", "outputs", "variables")
    )
    assert f"var.task_slots * var.python_worker_memory_mib) * {MACHINE_MARGIN}" in tiers
    assert f"var.python_worker_memory_mib - {WORKER_RESERVE_MIB}" in outputs
    slots = re.search(r'variable "task_slots" \{.*?default += (\d+)', variables, re.DOTALL)
    assert slots is not None
    assert int(slots[1]) == SLOTS


def test_every_figure_says_where_it_comes_from() -> None:
    _, document = read_figures()
    for name, figure in document.items():
        assert set(figure) == {"value", "unit", "what", "date", "commit", "command"}, name
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", figure["date"]), name
        assert all(figure[key] for key in ("unit", "what", "commit", "command")), name


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"event_bytes": None}, "allowed are exactly"),
        ({"more": {"value": 1}}, "allowed are exactly"),
        ({"event_bytes": {"value": 0}}, "event_bytes is 0, allowed: a number above 0"),
        ({"event_bytes": {"value": "9"}}, "event_bytes is '9', allowed"),
        ({"event_bytes": 9}, "event_bytes is None, allowed"),
    ],
)
def test_figures_that_cannot_be_used_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    document = json.loads(FIGURES_FILE.read_text("utf-8")) | change
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({name: figure for name, figure in document.items() if figure is not None}))
    with pytest.raises(FiguresError, match=text):
        read_figures(path)


# The command

GIVEN = ("capacity", "--events_per_second=1000000", "--users=1e7")


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GIVEN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    figures, _ = read_figures()
    of = Plan(Load(1_000_000, 10_000_000), figures, TIERS[-1])
    assert (found["tier"], found["task_managers"], found["slots"]) == ("large", of.task_managers, of.slots)
    assert found["needed"] == of.needed
    assert found["enough"] is True
    assert found["extrapolated"] is True


def test_own_figures_and_sizes_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(FIGURES_FILE.read_text("utf-8"))
    document["worker_us_per_event"]["value"] *= 2
    own = tmp_path / "own.json"
    own.write_text(json.dumps(document))

    def told(*more: str) -> dict[str, Any]:
        main([*GIVEN, "--json", *more])
        return dict(json.loads(capsys.readouterr().out))

    before = told()
    assert told(f"--figures={own}")["needed"]["workers' CPU"] in range(
        2 * before["needed"]["workers' CPU"] - 1, 2 * before["needed"]["workers' CPU"] + 1
    )
    assert told("--event_bytes=6690")["network_in_gbps"] == pytest.approx(10 * before["network_in_gbps"], rel=1e-3)
    assert told("--actions_per_event=1")["kafka_in_gbps"] > 5 * before["kafka_in_gbps"]
    assert told("--bytes_per_user=100000")["needed"]["users' memory"] > 5 * before["needed"]["users' memory"]
    assert told("--tier=medium")["tier"] == "medium"


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--parallelism=4"], 1, r"not enough: 4 slots on 1 TaskManagers; it takes \d+ TaskManagers with \d+ slots"),
        (["--tier=small"], 1, "not enough: tier small has up to 1 TaskManagers"),
        ([], 0, r"extrapolated: \d+ times the [\d,]+ events/s that were ever seen"),
    ],
)
def test_warnings_are_printed(more: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GIVEN, *more]) == code
    assert re.search(text, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--users=5"], "--events_per_second is missing: give a number"),
        (["--events_per_second=5"], "--users is missing: give a number"),
        (["--events_per_second=x", "--users=5"], "--events_per_second is 'x', allowed: 1 to 100,000,000 events/s"),
        (["--events_per_second=0", "--users=5"], "--events_per_second is 0, allowed: 1 to"),
        (["--events_per_second=5", "--users=-1"], "--users is -1, allowed: 1 to 10,000,000,000 users in the state"),
        (["--events_per_second=nan", "--users=5"], "--events_per_second is nan, allowed"),
        (["--events_per_second=inf", "--users=5"], "--events_per_second is inf, allowed"),
        (["--events_per_second=5", "--users=5", "--parallelism=2.5"], "--parallelism is 2.5, allowed: 1 to 32,768"),
        (["--events_per_second=5", "--users=5", "--tier=huge"], "--tier is 'huge', allowed: small, medium, large"),
        (["--events_per_second=5", "--users=5", "--figures=/none"], "figures '/none': "),
        (["--events_per_second=5", "--users=5", "--user=5"], "unknown option '--user': did you mean --users?"),
        (["--events_per_second"], "--events_per_second lacks its value: give at the busiest time"),
    ],
)
def test_an_unusable_option_is_one_error(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", *arguments]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: ")
    assert text in shown.err
