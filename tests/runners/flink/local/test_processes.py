from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.flink.errors import LocalStackError
from runners.flink.local import processes
from runners.flink.local.processes import (
    Process,
    accepts_connections,
    free_ports,
    group_members,
    remove_folder,
    stop_all,
    temporary_folder,
)
from tests.waiting import eventually

LeftOver = Callable[[], list[str]]

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(100)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(100)",
]
WITH_CHILD = [
    sys.executable,
    "-c",
    f"import subprocess, time; subprocess.Popen({SLEEP!r}); print('up', flush=True); time.sleep(100)",
]


def start(tmp_path: Path, command: list[str], name: str = "thing") -> Process:
    log_file = tmp_path / f"{name}.log"
    process = Process.start(name, command, log_file=log_file)
    process.wait_for(lambda: "up" in log_file.read_text(), what="up", deadline_s=10, every_s=0.02)
    return process


def test_a_process_runs_until_it_is_stopped(tmp_path: Path, left_over: LeftOver) -> None:
    process = start(tmp_path, SLEEP)
    assert process.running
    assert group_members(process.pid) == [process.pid]
    process.stop()
    assert not process.running
    process.stop()  # again does no harm
    assert left_over() == []


def test_a_process_gets_this_environment_without_what_it_shall_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", "s3cr3t")
    monkeypatch.setenv("KEPT_OF_TEST", "kept")
    process = Process.start(
        "env", SLEEP, log_file=tmp_path / "log", env={"MORE_OF_TEST": "more"}, without={"SECRET_OF_TEST", "NO_SUCH"}
    )
    try:
        eventually(lambda: "up" in (tmp_path / "log").read_text(), "it is up")
        names = {line.partition(b"=")[0] for line in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")}
        guard = processes._REGISTRY._guard
        assert guard is not None
        assert Path(f"/proc/{guard.pid}/environ").read_bytes() == b""
    finally:
        process.stop()
    assert {b"KEPT_OF_TEST", b"MORE_OF_TEST"} <= names
    assert b"SECRET_OF_TEST" not in names


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path, left_over: LeftOver) -> None:
    process = start(tmp_path, STUBBORN)
    started = time.monotonic()
    process.stop(grace_s=0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert left_over() == []


def test_stop_ends_grandchildren_too(tmp_path: Path, left_over: LeftOver) -> None:
    process = start(tmp_path, WITH_CHILD)
    assert len(group_members(process.pid)) == 2
    process.stop()
    assert left_over() == []


def test_kill_ends_the_process_alone_and_stop_the_rest(tmp_path: Path, left_over: LeftOver) -> None:
    process = start(tmp_path, WITH_CHILD)
    process.kill()
    assert not process.running
    assert len(group_members(process.pid)) == 1
    process.stop()
    assert left_over() == []


def test_several_processes_are_stopped_at_the_same_time(tmp_path: Path, left_over: LeftOver) -> None:
    processes = [start(tmp_path, STUBBORN, f"thing-{number}") for number in range(3)]
    started = time.monotonic()
    stop_all(processes, grace_s=0.3)
    assert time.monotonic() - started < 3
    assert left_over() == []


def test_a_process_that_dies_early_is_reported_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    process = Process.start("thing", command, log_file=tmp_path / "log")
    with pytest.raises(LocalStackError, match=r"(?s)thing .*ended before it was ready.*no such luck"):
        process.wait_for(lambda: False, what="ready", deadline_s=10)
    process.stop()


def test_a_missed_deadline_is_reported_with_the_log(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEP)
    with pytest.raises(LocalStackError, match=r"(?s)thing .*was not ready within 0\.2 s.*up"):
        process.wait_for(lambda: False, what="ready", deadline_s=0.2)
    process.stop()


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="thing: cannot start '/no/such/program'"):
        Process.start("thing", ["/no/such/program"], log_file=tmp_path / "log")


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(start(tmp_path, SLEEP)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert started[0].running
    started[0].stop()


PARENT = """
import signal, sys, time
from pathlib import Path
from runners.flink.local.processes import Process
process = Process.start("thing", {command!r}, log_file=Path({log!r}))
process.wait_for(lambda: "up" in Path({log!r}).read_text(), what="up", deadline_s=10, every_s=0.02)
print(process.pid, flush=True)
sys.stdin.readline()
{then}
"""


def run_parent(tmp_path: Path, then: str) -> subprocess.Popen[str]:
    """A program of its own that starts a process with a child; it does ``then`` once both run."""
    code = PARENT.format(command=WITH_CHILD, log=str(tmp_path / "log"), then=then)
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert len(group_members(int(parent.stdout.readline()))) == 2
    parent.stdin.write("\n")
    parent.stdin.flush()
    return parent


@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda fatal: fatal.name)
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path, left_over: LeftOver, fatal: signal.Signals) -> None:
    # Short sleeps: a Ctrl-C that comes right before a sleep begins is only seen when that ends.
    parent = run_parent(tmp_path, "while True:\n    time.sleep(0.05)")
    parent.send_signal(fatal)
    parent.wait(10)
    assert left_over() == []


def test_nothing_outlives_a_parent_that_forgets_to_stop(tmp_path: Path, left_over: LeftOver) -> None:
    parent = run_parent(tmp_path, "")
    assert parent.wait(10) == 0
    assert left_over() == []


def test_a_forked_child_leaves_the_processes_of_its_parent_alone(tmp_path: Path, left_over: LeftOver) -> None:
    then = (
        "import os\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(0)\n"  # runs the exit handlers
        "os.waitpid(child, 0)\n"
        "time.sleep(0.5)\n"
        "sys.exit(0 if process.running else 3)"
    )
    assert run_parent(tmp_path, then).wait(10) == 0
    assert left_over() == []


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        assert not accepts_connections(port)
    with socket.create_server(("127.0.0.1", ports[0])):
        assert accepts_connections(ports[0])


def test_more_ports_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.flink.local.processes._PORTS", range(20_000, 20_003))
    with pytest.raises(LocalStackError, match="from 20000 to 20002, 10 needed"):
        free_ports(10)


def test_a_zombie_is_no_member_of_its_group() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert group_members(process.pid) == []
    process.wait()


WITH_FOLDER = """
import subprocess, sys, time
from pathlib import Path
from runners.flink.local.processes import Process, temporary_folder
folder = temporary_folder("event-trigger-test-")
write = "import itertools, pathlib, sys\\nfor n in itertools.count():\\n    pathlib.Path(sys.argv[1], str(n)).touch()"
process = Process.start("writer", [sys.executable, "-c", write, str(folder)], log_file=folder / "log")
process.wait_for(lambda: (folder / "9").exists(), what="up", deadline_s=10, every_s=0.02)
print(folder, flush=True)
sys.stdin.readline()
{then}
"""


@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None], ids=str)
def test_no_temporary_folder_outlives_its_process(left_over: LeftOver, fatal: signal.Signals | None) -> None:
    """Not even a folder that a process writes to: that process is killed first."""
    code = WITH_FOLDER.replace("{then}", "while True:\n    time.sleep(0.05)" if fatal else "")
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    folder = Path(parent.stdout.readline().strip())
    assert folder.is_dir()
    parent.stdin.write("\n")
    parent.stdin.flush()
    if fatal:
        parent.send_signal(fatal)
    parent.wait(10)
    eventually(lambda: not folder.exists(), f"{folder} is gone", 15)
    assert left_over() == []


def test_a_removed_folder_is_forgotten() -> None:
    folder = temporary_folder("event-trigger-test-")
    assert folder.is_dir()
    (folder / "file").write_text("x")
    remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)  # again does no harm
