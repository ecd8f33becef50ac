"""The demo's rate and lag are those of values that Flink has renewed."""

from __future__ import annotations

from typing import Any, cast

from pipeline.cli.demo import SourceMetrics
from runners.flink.errors import LocalStackError
from runners.flink.local.cluster import LocalFlink

READ = "0.Source__ReadEvents.numRecordsIn"
UNREAD = "0.Source__ReadEvents.event_trigger_partition_0_unread"


class Flink:
    """A cluster whose job has run for ``uptime_ms`` and has read 40 records a second since."""

    def __init__(self) -> None:
        self.uptime_ms, self.unread, self.is_away = 0, "0", False
        self.rest = self
        self.task_manager_pids = [7]

    def replace_dead_task_managers(self) -> int:
        return 0

    def job(self, _: str) -> dict[str, Any]:
        return {"vertices": [{"id": "v", "name": "Source: ReadEvents"}]}

    def job_metrics(self, _: str, names: list[str]) -> dict[str, str]:
        if self.is_away:
            raise LocalStackError("no answer")
        return {"uptime": str(self.uptime_ms)}

    def vertex_metrics(self, _: str, vertex: str, names: list[str] | None = None) -> dict[str, str]:
        return {READ: str(self.uptime_ms // 25), UNREAD: self.unread}


def shown(flink: Flink, *uptimes_s: float) -> list[tuple[float | None, int | None]]:
    source, found = SourceMetrics(cast(LocalFlink, flink), "j"), []
    for uptime_s in uptimes_s:
        flink.uptime_ms = round(1000 * uptime_s)
        found.append(source.read())
    return found


def test_a_refresh_that_comes_late_or_twice_changes_no_rate() -> None:
    assert [rate for rate, _ in shown(Flink(), 10, 10, 12.1, 12.1, 13, 15.5)] == [None, None, 40, 40, 40, 40]


def test_a_restart_begins_anew() -> None:
    assert [rate for rate, _ in shown(Flink(), 10, 12, 1, 2)] == [None, 40, None, 40]


def test_a_lag_that_nobody_can_tell_is_none() -> None:
    flink = Flink()
    flink.unread = "-1"
    assert shown(flink, 10)[0][1] is None
    flink.unread = "12"
    assert shown(flink, 10)[0][1] == 12
    source = SourceMetrics(cast(LocalFlink, flink), "j")
    flink.is_away = True
    assert source.read() == (None, None)
