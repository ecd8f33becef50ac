from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from runners.flink.errors import FlinkRunnerError, LocalStackError
from runners.flink.local.processes import Process
from runners.flink.local.service import Service


class Sleeper(Service):
    name = "Sleeping thing"

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self._fails = fails

    def start(self) -> None:
        command = [sys.executable, "-c", "import time; time.sleep(100)"]
        self._process = Process.start(self.name, command, log_file=self._open_work_dir() / "log")
        if self._fails:
            raise LocalStackError("the start failed")


def test_stop_ends_the_process_and_removes_the_temporary_folder(left_over: Callable[[], list[str]]) -> None:
    with Sleeper() as service:
        folder = service.work_dir
        assert folder.name.startswith("event-trigger-sleeping-thing-")
        assert (folder / "log").exists()
    assert not folder.exists()
    assert left_over() == []
    service.stop()  # again does no harm
    with pytest.raises(LocalStackError, match=r"^Sleeping thing: not started$"):
        _ = service.work_dir


def test_a_start_that_fails_leaves_nothing(left_over: Callable[[], list[str]]) -> None:
    service = Sleeper(fails=True)
    with pytest.raises(FlinkRunnerError, match="the start failed"), service:
        pass
    assert left_over() == []
    with pytest.raises(LocalStackError, match="not started"):
        _ = service.work_dir


def test_a_second_start_is_refused() -> None:
    with Sleeper() as service, pytest.raises(LocalStackError, match=r"^Sleeping thing: is already started$"):
        service.start()
