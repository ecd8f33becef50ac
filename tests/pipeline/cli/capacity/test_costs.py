"""What a cluster costs: the arithmetic by hand, quantities as Terraform has them, and the command's prices."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.capacity import costs
from pipeline.cli.capacity.brokers import LARGEST_VOLUME_GIB, Brokers, brokers_for
from pipeline.cli.capacity.costs import MACHINES, PRICES_FILE, Prices, between_zones_gb, monthly, read_prices, together
from pipeline.cli.capacity.model import TIERS, FiguresError, Load, Plan, read_figures
from pipeline.cli.main import main
from tests.capacity_docs import LOADS
from tests.pipeline.cli.capacity.test_capacity import FIGURES, TERRAFORM, terraform_tiers

SMALL, MEDIUM, LARGE = TIERS
# One dollar for everything, so that costs are quantities.
ONE = Prices(dict.fromkeys(read_prices().values, 1.0), "nowhere", "2026")


def plan(events_per_second: float, users: float = 1, tier: Any = SMALL, parallelism: int = 4) -> Plan:
    return Plan(Load(events_per_second, users), FIGURES, tier, parallelism=parallelism)


def test_machines_and_volumes_are_counted() -> None:
    found = monthly(plan(1000, tier=MEDIUM, parallelism=16), ONE)
    assert found["TaskManagers"].least == 4 * 730
    assert found["JobManagers"].least == 2 * 730
    assert found["ZooKeeper"].least == 3 * 730
    # 6 nodes of 180 GiB, RocksDB's 100 on 4 with 3,000 operations and 125 MiB/s more, 3 of 50 for ZooKeeper.
    assert found["volumes"].least == 6 * 180 + 4 * 100 + 3 * 50 + 4 * (3000 + 125)
    assert found["endpoints"].least == 7 * 3 * 730
    assert found["S3"].least == 500 + 500
    # On instance store there is no volume for RocksDB.
    assert monthly(plan(1000, tier=LARGE), ONE)["volumes"].least == 4 * 180 + 3 * 50


def test_deleted_checkpoints_are_what_a_day_and_a_half_uploaded() -> None:
    # 2,160 checkpoints of 60 s: from 1,000 x 60 x 100 bytes to 2 million users of 5,000.
    found = monthly(plan(1000, 2_000_000), ONE)["deleted checkpoints"]
    assert found.least == pytest.approx(2160 * 6_000_000 / 1024**3)
    assert found.most == pytest.approx(2160 * 10_000_000_000 / 1024**3)


def test_two_thirds_of_kafkas_traffic_go_to_another_zone() -> None:
    # 1,000 bytes of an event and a twentieth of an action of 10,000, in 2,628,000 s.
    month_gb = 1000 * 1500 * 2_628_000 / 1e9
    one_machine = plan(1000)
    assert between_zones_gb(one_machine) == pytest.approx(month_gb * 2 / 3)
    assert between_zones_gb(one_machine, single_zone=True) == between_zones_gb(one_machine)


@pytest.mark.parametrize(
    ("task_managers", "share"), [(1, 0), (2, 1 / 2), (3, 2 / 3), (4, 1 - (4 + 1 + 1) / 16), (30, 2 / 3)]
)
def test_the_shuffle_costs_what_goes_to_machines_of_other_zones(task_managers: int, share: float) -> None:
    found = plan(1000, parallelism=4 * task_managers)
    shuffle = between_zones_gb(found) - between_zones_gb(found, single_zone=True)
    assert shuffle == pytest.approx(1000 * 1000 * 2_628_000 / 1e9 * share)


def test_each_slot_sends_its_samples_once_a_minute() -> None:
    found = monthly(plan(1000, tier=MEDIUM, parallelism=16), ONE)["Prometheus"]
    of_all = 16 * costs.SERIES_OF_A_SLOT + 2 * costs.SERIES_OF_A_JOBMANAGER
    assert found.least == found.most == pytest.approx(of_all * 730 * 60 / 1e6)


def test_the_sum_is_of_all_parts() -> None:
    parts = monthly(plan(1000, 2_000_000), ONE)
    assert together(parts).least == pytest.approx(sum(part.least for part in parts.values()))
    assert together(parts).most == pytest.approx(sum(part.most for part in parts.values()))


@pytest.mark.parametrize("name", sorted(ONE.values))
def test_every_price_has_a_say(name: str) -> None:
    dearer = Prices({**ONE.values, name: 10.0}, "nowhere", "2026")
    assert any(monthly(plan(1000, tier=tier), dearer) != monthly(plan(1000, tier=tier), ONE) for tier in TIERS)


# Quantities are Terraform's


def test_nodes_are_those_of_terraform() -> None:
    for tier in TIERS:
        given, machines = terraform_tiers()[tier.name], MACHINES[tier.name]
        assert given["jobmanager_instance_type"].split('"')[1] == machines.jobmanager_type
        assert int(given["jobmanager_standby_count"]) + 1 == machines.jobmanagers
        store = given["rocksdb_on_instance_store"] == "true"
        assert machines.rocksdb_gib == (0 if store else int(given["rocksdb_volume_gib"]))
        assert int(given["savepoint_storage_gib"]) == costs.SAVEPOINT_GIB


def test_volumes_are_those_of_terraform() -> None:
    text = (TERRAFORM / "variables.tf").read_text("utf-8")
    default = {
        name: int(value) for name, value in re.findall(r'variable "(\w+)" \{[^}]*?default += (\d+)\n', text, re.DOTALL)
    }
    assert sum(default[f"{kind}_volume_gib"] for kind in ("root", "tmp", "log")) == costs.NODE_GIB
    assert default["root_volume_gib"] + default["zookeeper_volume_gib"] == costs.ZOOKEEPER_GIB
    assert default["rocksdb_volume_iops"] - 3000 == costs.ROCKSDB_IOPS
    assert default["rocksdb_volume_throughput"] - 125 == costs.ROCKSDB_THROUGHPUT
    state = (TERRAFORM / "state" / "variables.tf").read_text("utf-8")
    (days,) = re.findall(r'"checkpoint_noncurrent_version_days" \{.*?default += (\d+)\n', state, re.DOTALL)
    assert int(days) + 0.5 == costs.DELETED_CHECKPOINT_DAYS


def test_the_alarm_on_the_checkpoint_bucket_is_the_models() -> None:
    figures, _ = read_figures()
    for tier in TIERS:
        given = terraform_tiers()[tier.name]
        bound = int(given["checkpoint_storage_gib"]) + int(given["deleted_checkpoint_gib"])
        assert bound == costs.checkpoint_bucket_gib(Plan(LOADS[tier.name], figures, tier))


def test_the_brokers_of_a_tier_are_the_models() -> None:
    figures, _ = read_figures()
    for tier in TIERS:
        given = terraform_tiers()[tier.name]
        model = brokers_for(Plan(LOADS[tier.name], figures, tier))
        assert given["kafka_broker_instance_type"].strip('"') == model.instance_type
        assert (int(given["kafka_broker_count"]), int(given["kafka_broker_volume_gib"])) == (
            model.count,
            model.volume_gib,
        )


def test_brokers_are_one_a_zone_until_the_largest_is_not_enough() -> None:
    figures, _ = read_figures()

    def found(events_per_second: float) -> Brokers:
        return brokers_for(Plan(Load(events_per_second, 1000), figures, TIERS[2]))

    assert (found(1).instance_type, found(1).count) == ("kafka.m7g.large", 3)
    assert (found(500_000).instance_type, found(500_000).count) == ("kafka.m7g.8xlarge", 3)
    assert (found(3_000_000).count % 3, found(3_000_000).count > 3) == (0, True)
    assert found(1).hours == pytest.approx(24, rel=0.5) or found(1).volume_gib == 1
    # What does not fit the largest volume is said by the hours that do.
    assert found(3_000_000).volume_gib == LARGEST_VOLUME_GIB
    assert found(3_000_000).hours < 24


# The command


def test_the_command_says_what_it_costs_at_given_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(PRICES_FILE.read_text("utf-8"))
    document["m6i.xlarge"]["value"] = 1000
    document["source"] = {"region": "eu-central-1", "date": "2026-11-01"}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(document))
    command = ["capacity", "--events_per_second=1000", "--users=1000", f"--prices={path}"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "USD a month  (eu-central-1, 2026-11-01; without Kafka)" in text
    assert "TaskManagers 730,000  JobManagers 62" in text
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["cost"]
    assert (found["region"], found["date"]) == ("eu-central-1", "2026-11-01")
    assert found["usd_a_month"]["TaskManagers"] == [730_000, 730_000]
    parts = [cost for name, cost in found["usd_a_month"].items() if name != "together"]
    assert found["usd_a_month"]["together"][0] == pytest.approx(sum(cost[0] for cost in parts), abs=5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"s3_gib": None}, "allowed are exactly"),
        ({"more": {"value": 1}}, "allowed are exactly"),
        ({"s3_gib": {"value": 0}}, "s3_gib is 0, allowed: a number above 0"),
        ({"s3_gib": {"value": True}}, "s3_gib is True, allowed"),
        ({"s3_gib": 9}, "s3_gib is None, allowed"),
        ({"source": {"region": "us-east-1"}}, "source needs a region and a date"),
        ({"source": "mine"}, "source needs a region and a date"),
    ],
)
def test_prices_that_cannot_be_used_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    document = json.loads(PRICES_FILE.read_text("utf-8")) | change
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({name: price for name, price in document.items() if price is not None}))
    with pytest.raises(FiguresError, match=text):
        read_prices(path)


def test_the_command_refuses_them_with_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", "--events_per_second=1", "--users=1", f"--prices={tmp_path / 'none'}"]) == 2
    assert "prices " in capsys.readouterr().err
