"""docs/capacity.md: its generated parts match the figures, and so does its text."""

from __future__ import annotations

import re

from pipeline.cli.capacity import model as capacity
from tests.capacity_docs import LOADS, MANY_USERS, expected, expected_costs, halved
from tests.docs.pages import ROOT
from tests.readme import CAPACITY, INFRASTRUCTURE

TEXT = CAPACITY.read_text("utf-8")


def test_the_tables_are_those_that_the_figures_give() -> None:
    assert expected(TEXT) == TEXT, "run make readme"


def test_the_costs_of_the_clusters_page_are_those_that_the_command_calculates() -> None:
    text = INFRASTRUCTURE.read_text("utf-8")
    assert expected_costs(text) == text, "run make readme"
    assert "| between zones |" in text


def test_loads_are_the_architectures() -> None:
    figures, _ = capacity.read_figures()
    assert [LOADS[tier.name].events_per_second for tier in capacity.TIERS] == [10_000, 100_000, 1_000_000]
    assert LOADS["large"].users == 10_000_000
    for tier in capacity.TIERS:
        fewest = capacity.Plan(LOADS[tier.name], figures, tier, parallelism=tier.min_count * capacity.SLOTS)
        assert fewest.is_enough, "the page says that the fewest TaskManagers of each tier carry its load"
        assert halved(capacity.Plan(LOADS[tier.name], figures, tier)).fits_tier, "and its most with half of the CPU"
    by_shard = capacity.Plan(MANY_USERS, figures, capacity.TIERS[-1])
    by_user = capacity.Plan(MANY_USERS, figures, capacity.TIERS[-1], by_user=True)
    assert by_user.task_managers < by_shard.task_managers, "the page says when to prefer --user_shards=0"


def test_the_formulae_name_the_numbers_of_the_model() -> None:
    text = " ".join(TEXT.split()).translate({0xD7: "x", 0x2212: "-"})
    for sentence in (
        f"/ {capacity.TARGET_SHARE} / {capacity.SLOTS} slots",
        f"{capacity.MEMORY_MARGIN} x U x `memory_bytes_per_user` / (4 x (largest worker that fits - "
        f"{capacity.WORKER_RESERVE_MIB} MiB))",
        f"the machine / {capacity.MACHINE_MARGIN} less Flink's process",
        f"from {capacity.CHECKPOINT_INTERVAL_S} s x E x `journal_bytes_per_event`",
        f"within {capacity.CHECKPOINT_INTERVAL_S * capacity.UPLOAD_SHARE:.0f} s",
        f"over {capacity.PARTITION_BYTES_PER_S // 1_000_000} MB/s",
        f"{capacity.SHARDS_OF_A_SLOT} a slot, at most {capacity.USERS_OF_A_SHARD:,} users each",
        f"{capacity.TARGET_SHARE} / 0.4 = 1.5 times",
    ):
        assert sentence in text


def test_networks_are_those_that_the_page_of_the_cluster_gives() -> None:
    page = " ".join((ROOT / "docs" / "infrastructure.md").read_text("utf-8").split())
    bandwidths = re.search(r"sustained, m6i\.2xlarge has ([\d.]+) and m6idn\.2xlarge ([\d.]+) Gbit/s", page)
    assert bandwidths is not None
    medium, large = capacity.TIERS[1:]
    assert [medium.network_gbps, large.network_gbps] == [float(bandwidths[1]), float(bandwidths[2])]
