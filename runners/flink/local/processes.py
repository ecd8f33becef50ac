"""Child processes and temporary folders that never outlive us.

Every process runs in a session and process group of its own with its output in a log file. Three nets make sure that
nothing is left: ``Process.stop`` ends the whole group, an ``atexit`` handler stops what was forgotten, and a small
guard process ends all groups when this process is gone without having said goodbye (SIGKILL, or SIGTERM's default
action). The guard watches a pipe, so it does not matter which thread started what, and it reaches grandchildren too.
The same nets remove what ``temporary_folder`` has made, once nobody is left who writes there.
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from runners.flink.errors import LocalStackError

LOCALHOST = "127.0.0.1"
# Below Linux's range for outgoing connections (from 32768), so that a restarted server finds its port still free.
_PORTS = range(20_000, 32_000)
_GROUP_END_S = 5.0


class Process:
    """A running child process; ``start`` makes one, ``stop`` ends it and everything it started."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._popen = popen
        self._stopped = False
        self._lock = threading.RLock()

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log_file: Path,
        stdout_file: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> "Process":
        """Start ``command``; its stderr goes to ``log_file``, its stdout to ``stdout_file`` or the log as well.

        ``env`` is added to this process's environment. Raises LocalStackError if the program cannot be executed.
        """
        with contextlib.ExitStack() as files:
            log: IO[bytes] = files.enter_context(log_file.open("ab"))
            stdout = log if stdout_file is None else files.enter_context(stdout_file.open("ab"))
            try:
                popen = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=log,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise LocalStackError(f"{name}: cannot start {command[0]!r}: {error}") from error
        process = cls(name, popen, log_file)
        _REGISTRY.add(process)
        return process

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session and process group."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process itself has not ended yet."""
        if self._popen.returncode is not None:
            return False
        try:
            # WNOWAIT leaves the zombie: as long as it is there, nobody else gets its id, and the group can be killed.
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log file."""
        return tail(self.log_file, lines)

    def wait_for(self, condition: Callable[[], bool], *, what: str, deadline_s: float, every_s: float = 0.1) -> None:
        """Return as soon as ``condition()`` is true; it is asked every ``every_s`` seconds.

        Raises LocalStackError with the end of the log when the process ended or ``deadline_s`` seconds have passed.
        """
        give_up = time.monotonic() + deadline_s
        while not condition():
            if not self.running:
                problem = f"ended before it was {what}"
            elif time.monotonic() > give_up:
                problem = f"was not {what} within {deadline_s:g} s"
            else:
                time.sleep(every_s)
                continue
            raise LocalStackError(f"{self.name} (pid {self.pid}) {problem}; end of {self.log_file}:\n{self.log_tail()}")

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM) and return at once."""
        with self._lock:
            if self.running:
                self._popen.terminate()

    def kill(self) -> None:
        """``kill -9`` the process alone, not what it started: that is the fault to be tested. Returns when it ended."""
        with self._lock:
            if self.running:
                self._popen.kill()
            while self.running:
                time.sleep(0.01)

    def stop(self, grace_s: float = 10.0) -> None:
        """End the process and its whole group: SIGTERM, and SIGKILL after ``grace_s`` seconds. May be called twice."""
        with self._lock:
            if self._stopped:
                return
            self.terminate()
            give_up = time.monotonic() + grace_s
            while self.running and time.monotonic() < give_up:
                time.sleep(0.02)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._popen.wait()
            give_up = time.monotonic() + _GROUP_END_S
            while group_members(self.pid) and time.monotonic() < give_up:
                time.sleep(0.02)
            self._stopped = True
        _REGISTRY.remove(self)


def stop_all(processes: Iterable[Process], grace_s: float = 10.0) -> None:
    """Stop several processes at the same time: all are asked first, then each is waited for."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        process.stop(grace_s)


def temporary_folder(prefix: str) -> Path:
    """A new folder that ``remove_folder`` removes, or this process's end, however it comes."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    _REGISTRY.add_folder(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder that ``temporary_folder`` made. May be called twice."""
    shutil.rmtree(folder, ignore_errors=True)
    _REGISTRY.remove_folder(folder)


def group_members(group: int) -> list[int]:
    """Ids of the processes in a process group that are alive (zombies are not)."""
    members = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            # pid (name) state ppid pgrp ...; the name may hold anything, so count from its closing bracket.
            state, _parent, pgrp = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                members.append(int(entry))
    return members


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a text file; says so if there are none."""
    with contextlib.suppress(OSError):
        text = path.read_bytes()[-64_000:].decode(errors="replace")
        if text.strip():
            return "\n".join(text.splitlines()[-lines:])
    return "(empty)"


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 that nobody listens on.

    Raises LocalStackError if there are not enough.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOCALHOST, port))
                found.append(port)
        if len(found) == count:
            return found
    allowed = f"{_PORTS.start} to {_PORTS.stop - 1}"
    raise LocalStackError(f"free ports of {LOCALHOST}: {len(found)} found from {allowed}, {count} needed")


def accepts_connections(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOCALHOST, port)) == 0


class _Registry:
    """All processes and folders that are not done with yet, mirrored to the guard process."""

    # Reads a line for each that comes (+) and goes (-), a process group or the path of a folder. The end of the input
    # means that the parent is gone, however it ended. Folders go last: a process may write until it is ended.
    _GUARD = (
        "import os, shutil, signal, sys, time\n"
        "known = set()\n"
        "for line in sys.stdin:\n"
        "    (known.add if line[0] == '+' else known.discard)(line[1:-1])\n"
        "for group in [one for one in known if one.isdigit()]:\n"
        "    try:\n"
        "        os.killpg(int(group), signal.SIGKILL)\n"
        "    except OSError:\n"
        "        pass\n"
        "give_up = time.monotonic() + 10\n"
        "for folder in [one for one in known if not one.isdigit()]:\n"
        "    while os.path.isdir(folder) and time.monotonic() < give_up:\n"
        "        shutil.rmtree(folder, ignore_errors=True)\n"
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._processes: list[Process] = []
        self._folders: list[Path] = []
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def add(self, process: Process) -> None:
        with self._lock:
            self._tell(f"+{process.pid}\n")
            self._processes.append(process)

    def add_folder(self, folder: Path) -> None:
        with self._lock:
            self._tell(f"+{folder}\n")
            self._folders.append(folder)

    def remove(self, process: Process) -> None:
        with self._lock:
            if process in self._processes:
                self._processes.remove(process)
                self._tell(f"-{process.pid}\n")
                self._end_idle_guard()

    def remove_folder(self, folder: Path) -> None:
        with self._lock:
            if folder in self._folders:
                self._folders.remove(folder)
                self._tell(f"-{folder}\n")
                self._end_idle_guard()

    def stop_everything(self) -> None:
        """Stop what is still running; nothing in a forked child, whose processes these are not."""
        if os.getpid() == self._owner:
            stop_all(list(self._processes), grace_s=3.0)
            for folder in list(self._folders):
                remove_folder(folder)

    def _tell(self, line: str) -> None:
        if self._guard is None:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", self._GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        if self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # somebody ended the guard; the other two nets remain
                self._guard.stdin.write(line.encode())
                self._guard.stdin.flush()

    def _end_idle_guard(self) -> None:
        if not self._processes and not self._folders and self._guard is not None:
            guard, self._guard = self._guard, None
            if guard.stdin:
                with contextlib.suppress(BrokenPipeError):
                    guard.stdin.close()
            guard.wait()


_REGISTRY = _Registry()
atexit.register(_REGISTRY.stop_everything)
