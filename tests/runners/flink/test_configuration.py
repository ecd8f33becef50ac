from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runners.flink import configuration
from tests.faults.dumps import CANCELING_S


def test_the_file_has_the_settings_of_the_dict(tmp_path: Path) -> None:
    settings = {"a.b": 'it\'s: "quoted" # no comment', "c": "true", **configuration.BASE}
    configuration.write(tmp_path, settings)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == settings
    assert "${sys:log.file}" in (tmp_path / "log4j.properties").read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "state.backend.type": "rocksdb",
        "state.backend.incremental": "true",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.interval": "60 s",
        "execution.checkpointing.timeout": "10 min",
        "execution.checkpointing.min-pause": "30 s",
        "execution.checkpointing.max-concurrent-checkpoints": "1",
        "taskmanager.memory.managed.fraction": "0.4",
        "taskmanager.memory.network.fraction": "0.1",
    }.items(),
)
def test_the_specification_is_kept(key: str, value: str) -> None:
    assert configuration.BASE[key] == value


def test_local_replaces_no_promise() -> None:
    """A local cluster may be smaller and detect failures sooner, but keeps its state as a production cluster does."""
    replaced = set(configuration.LOCAL) & set(configuration.BASE)
    assert replaced == {"jobmanager.scheduler", "restart-strategy.exponential-delay.max-backoff"}


def test_a_task_that_hangs_delays_a_recovery_by_a_quarter_of_a_minute() -> None:
    """The rest of the minute that a recovery may take is for the TaskManager's end, a new one and the restore."""
    interval_ms, timeout_ms = (int(configuration.BASE[f"task.cancellation.{name}"]) for name in ("interval", "timeout"))
    assert 0 < interval_ms < timeout_ms <= 15_000
    # A worker whose control channel has closed ends itself after 10 s: its TaskManager can stay.
    assert timeout_ms > 10_000
    # The fault rig takes stacks, which takes some seconds, before the TaskManager ends itself.
    assert timeout_ms > CANCELING_S * 1000 + interval_ms
