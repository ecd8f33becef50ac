"""docs/settings.md matches the configuration."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.launch.options import Settings
from runners.flink import configuration

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines()
    if line.startswith("| `")
]
VALUES = {row[0].strip("`"): row[2].strip("`") for row in ROWS}


def test_what_base_sets_is_shown_as_it_is() -> None:
    shown = {row[0].strip("`"): row[2].strip("`") for row in ROWS if "base" in row[3]}
    assert shown == {key: configuration.BASE.get(key) for key in shown}
    named = {key for key in configuration.BASE if key.startswith(("execution.checkpointing.", "state."))}
    # RocksDB's metrics are in docs/metrics.md.
    assert {key for key in named if ".metrics." not in key} <= shown.keys()


def test_what_the_cluster_sets_is_in_its_terraform() -> None:
    terraform = (ROOT / "infra" / "terraform" / "flink.tf").read_text()
    listed = [row[0].strip("`") for row in ROWS if "cluster" in row[3] and row[2] != "from ZooKeeper"]
    assert [key for key in listed if f'"{key}"' not in terraform] == []


def test_every_change_says_why() -> None:
    assert [row[0] for row in ROWS if not re.match(r"kept|(changed|added): ", row[4])] == []


def test_clients_are_left_alone() -> None:
    """The table assumes Kafka's defaults."""
    config = Settings(bootstrap_servers="b:9092").consumer_config()
    assert [key for key in config if key in VALUES] == []
