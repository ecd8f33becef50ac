"""A worker as another user: the test stands for systemd, which starts a process for each connection of a socket."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually

LeftOver = Callable[[], list[str]]
WORKER = [sys.executable, "-m", "runners.flink.worker"]
# Waits for a runner that never answers.
ARGUMENTS = ["--id=1-1", "--provision_endpoint=127.0.0.1:1"]
# Says what it sees, as the worker's user, and hangs in a child that has inherited everything.
SEES = """
import os, subprocess, sys
from runners.flink import starter
words = starter.take_request()
print(words, os.getuid(), os.environ["FROM_TASK_MANAGER"], os.environ["HOME"], repr(sys.stdin.read()), flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
os.kill(os.getpid(), 9) if "--dies" in words else __import__("time").sleep(100)
"""


class Unit:
    """A socket unit with Accept=yes, and the processes that it has started."""

    def __init__(self, path: Path, command: list[str]) -> None:
        self.processes = list[subprocess.Popen[bytes]]()
        self._command = command
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                environment = {
                    "PATH": os.environ["PATH"], "HOME": "/of-the-unit", "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                    "EVENT_TRIGGER_TEST": os.environ["EVENT_TRIGGER_TEST"],
                }  # fmt: skip
                process = subprocess.Popen(self._command, stdin=connection.fileno(), env=environment)
                connection.close()
                self.processes.append(process)
                threading.Thread(target=process.wait, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in self.processes:
            process.kill()


@contextlib.contextmanager
def unit(tmp_path: Path, command: list[str]) -> Iterator[Unit]:
    started = Unit(tmp_path / "workers.sock", command)
    try:
        yield started
    finally:
        started.close()


def stand_in(tmp_path: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "EVENT_TRIGGER_WORKER_SOCKET": str(tmp_path / "workers.sock"),
        "EVENT_TRIGGER_WORKER_LOG_DIR": str(tmp_path / "log"),
        "FROM_TASK_MANAGER": "x\udcff",
        "HOME": "/of-the-task-manager",
    }
    (tmp_path / "log").mkdir(exist_ok=True)
    return subprocess.Popen([*WORKER, *ARGUMENTS, *more], env=environment)


def log_of(tmp_path: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in (tmp_path / "log").glob("worker-1-1-*.log"))


def test_the_unit_behind_the_socket_starts_the_worker_which_ends_with_its_stand_in(
    tmp_path: Path, left_over: LeftOver
) -> None:
    with unit(tmp_path, [*WORKER, "--from_socket"]) as systemd:
        process = stand_in(tmp_path)
        eventually(lambda: len(systemd.processes) == 1, "the worker is started")
        (worker,) = systemd.processes
        eventually(lambda: len(list(Path(f"/proc/{worker.pid}/task").iterdir())) > 1, "it watches its stand-in")
        process.send_signal(signal.SIGUSR1)  # is meant for workers, and ends no stand-in
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert worker.poll() is None
        process.kill()
        assert worker.wait(30) == 0
        process.wait()
    assert left_over() == []


def test_a_worker_has_arguments_variables_and_log_of_its_stand_in_which_ends_with_it(
    tmp_path: Path, left_over: LeftOver
) -> None:
    with unit(tmp_path, [sys.executable, "-c", SEES]) as systemd:
        process = stand_in(tmp_path, "--dies")
        assert process.wait(60) == 1
        assert [worker.wait(30) for worker in systemd.processes] == [-signal.SIGKILL]
    log = log_of(tmp_path)
    # Its unit's variables before those of the TaskManager; nothing to read; the child did not hold the connection.
    assert str([*ARGUMENTS, "--dies"]) + f" {os.getuid()} x\ufffd /of-the-unit ''" in log
    assert "workers.sock: the worker behind this socket: ended" in log
    end(left_over())


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts a process as another user")
def test_a_worker_as_another_user_writes_the_log_and_needs_no_right_on_its_folder(
    tmp_path: Path, left_over: LeftOver
) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    # The program is read by root: an unprivileged user may not read this checkout.
    becomes = f"\nos.setgroups([]); os.setgid({nobody}); os.setuid({nobody})\nwords ="
    (tmp_path / "log").mkdir(mode=0o700)
    with unit(tmp_path, [sys.executable, "-c", SEES.replace("\nwords =", becomes)]):
        assert stand_in(tmp_path, "--dies").wait(60) == 1
    assert f" {nobody} x" in log_of(tmp_path)
    (log,) = (tmp_path / "log").iterdir()
    assert log.stat().st_uid == 0
    end(left_over())


def end(processes: list[str]) -> None:
    """Kill the children that workers have left."""
    for line in processes:
        os.kill(int(line.split()[0]), signal.SIGKILL)


def test_a_socket_that_is_not_there_is_named_in_the_log(tmp_path: Path) -> None:
    assert stand_in(tmp_path).wait(60) == 1
    assert "EVENT_TRIGGER_WORKER_SOCKET=" in log_of(tmp_path)
    assert "No such file or directory" in log_of(tmp_path)


def test_standard_input_that_is_no_connection_of_a_stand_in_is_refused() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    result = subprocess.run(
        [*WORKER, "--from_socket"], stdin=theirs.fileno(), capture_output=True, text=True, timeout=60, check=False
    )
    theirs.close()
    assert result.returncode == 1
    assert "--from_socket: standard input gave no log" in result.stderr
