"""Measurements become the figures that capacity is computed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.capacity.model import FIGURES_FILE, read_figures
from tests.benchmarks import capacity_figures


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "capacity.json"
    path.write_text(FIGURES_FILE.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(capacity_figures, "FIGURES_FILE", path)
    return path


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_what_was_measured_replaces_value_and_origin_and_the_rest_stays(figures: Path, tmp_path: Path) -> None:
    bench, growth = tmp_path / "bench", tmp_path / "growth"
    cpu = {"worker µs/event": 33.4, "TaskManager µs/event": 21.6, "broker µs/event": 7.0, "events/s": 23_456.7}
    write(bench / "run.json", {"commit": "0123456789abcdef"})
    write(bench / "results.json", {"shards": {"zipf": cpu}})
    point = {"journal B/event": 91.2, "action B": 12_999.7, "date": "2030-01-02", "commit": "abc1234"}
    write(growth / "users.100-events-of-history.1000.1.json", point)
    state = {
        "other": {},
        "5 users in 2 shards": {
            "figure": {
                "users": 5, "user_shards": 2, "workers KB/user, restored": 11.5,
                "journal B/user (savepoint / users)": 4321.9,
            }
        },
    }  # fmt: skip
    path = write(tmp_path / "state.json", state)
    before, _ = read_figures()

    assert capacity_figures.main([f"--bench={bench}", f"--growth={growth}", f"--state={path}"]) == 0

    found, document = read_figures(figures)
    assert (found.worker_us_per_event, found.task_manager_us_per_event, found.broker_us_per_event) == (33, 22, 7)
    assert (found.highest_rate_seen, found.journal_bytes_per_event, found.action_bytes) == (23_457, 91, 13_000)
    assert (found.memory_bytes_per_user, found.journal_bytes_per_user) == (11_500, 4322)
    assert found.by_user_worker_us_per_event == before.by_user_worker_us_per_event
    assert document["worker_us_per_event"]["commit"] == "0123456"
    assert document["action_bytes"]["date"] == "2030-01-02"
    assert document["memory_bytes_per_user"]["command"] == "make bench-state ARGS='size --users=5 --user_shards=2'"


def test_nothing_given_changes_nothing(figures: Path) -> None:
    assert capacity_figures.main([]) == 0
    assert json.loads(figures.read_text("utf-8")) == json.loads(FIGURES_FILE.read_text("utf-8"))
