"""Child processes and temporary folders that never outlive this process.

Every child runs in a session and process group of its own, with its output in a log file. Three mechanisms make sure
that nothing is left: ``Process.stop`` ends the whole group; an ``atexit`` handler stops all children that still run; a
small guard process ends all groups when this process dies without running the handler (SIGKILL, or SIGTERM's default
action). The guard watches a pipe, so it does not matter which thread started a child, and it ends grandchildren too.
The same mechanisms remove the folders that ``temporary_folder`` has made, after the processes that write there.
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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
        without: Collection[str] = (),
        cwd: Path | None = None,
    ) -> "Process":
        """Start ``command``; its stderr goes to ``log_file``, its stdout to ``stdout_file`` or the log as well.

        ``env`` is added to this process's environment, of which the variables ``without`` are left out.

        Raises:
            LocalStackError: the program cannot be executed.
        """
        kept = {name: value for name, value in os.environ.items() if name not in without}
        with contextlib.ExitStack() as files:
            log: IO[bytes] = files.enter_context(log_file.open("ab"))
            stdout = log if stdout_file is None else files.enter_context(stdout_file.open("ab"))
            try:
                popen = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=log,
                    env={**kept, **(env or {})},
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
            # WNOWAIT leaves the zombie. While it exists, no other process gets its id, and the group can be killed.
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log file."""
        return tail(self.log_file, lines)

    def wait_for(self, condition: Callable[[], bool], *, what: str, deadline_s: float, every_s: float = 0.1) -> None:
        """Return as soon as ``condition()`` is true; it is called every ``every_s`` seconds.

        Raises:
            LocalStackError: the process ended, or ``deadline_s`` seconds have passed; with the end of the log.
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
        """``kill -9`` the process alone, not its children, as a test of faults needs it. Returns when it has ended."""
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
    """Stop several processes at the same time: send SIGTERM to all, then wait for each."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        process.stop(grace_s)


def temporary_folder(prefix: str) -> Path:
    """A new folder. ``remove_folder`` removes it, or the end of this process, however it ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    _REGISTRY.add(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder that ``temporary_folder`` made. May be called twice."""
    shutil.rmtree(folder, ignore_errors=True)
    _REGISTRY.remove(folder)


def group_members(group: int) -> list[int]:
    """Ids of the living processes in a process group, without zombies."""
    members = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            # pid (name) state ppid pgrp ...; the name may contain anything, so parse from its closing bracket on.
            state, _parent, pgrp = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                members.append(int(entry))
    return members


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a text file; ``(empty)`` if there are none or no file."""
    with contextlib.suppress(OSError):
        text = path.read_bytes()[-64_000:].decode(errors="replace")
        if text.strip():
            return "\n".join(text.splitlines()[-lines:])
    return "(empty)"


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 that no process listens on.

    Raises:
        LocalStackError: there are not enough.
    """
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOCALHOST, port))
                ports.append(port)
        if len(ports) == count:
            return ports
    allowed = f"{_PORTS.start} to {_PORTS.stop - 1}"
    raise LocalStackError(f"free ports of {LOCALHOST}: {len(ports)} found from {allowed}, {count} needed")


def accepts_connections(port: int) -> bool:
    """Whether a process listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((LOCALHOST, port)) == 0


class _Registry:
    """All processes and folders that are still in use, mirrored to the guard process."""

    # The guard reads one line for each process group or folder (its path) that is added (+) or removed (-). The end of
    # the input means that the parent has ended. Folders are removed last: a process may write until it is killed.
    _GUARD = (
        "import os, shutil, signal, sys, time\n"
        "known = set()\n"
        "for line in sys.stdin:\n"
        "    (known.add if line[0] == '+' else known.discard)(line[1:-1])\n"
        "for group in [name for name in known if name.isdigit()]:\n"
        "    try:\n"
        "        os.killpg(int(group), signal.SIGKILL)\n"
        "    except OSError:\n"
        "        pass\n"
        "give_up = time.monotonic() + 10\n"
        "for folder in [name for name in known if not name.isdigit()]:\n"
        "    while os.path.isdir(folder) and time.monotonic() < give_up:\n"
        "        shutil.rmtree(folder, ignore_errors=True)\n"
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._in_use: list[Process | Path] = []
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def add(self, thing: Process | Path) -> None:
        with self._lock:
            self._send("+", thing)
            self._in_use.append(thing)

    def remove(self, thing: Process | Path) -> None:
        with self._lock:
            if thing in self._in_use:
                self._in_use.remove(thing)
                self._send("-", thing)
                if not self._in_use:
                    self._end_guard()

    def stop_everything(self) -> None:
        """Stop all processes that still run. A forked child stops nothing: the processes belong to its parent."""
        if os.getpid() == self._owner:
            stop_all([thing for thing in self._in_use if isinstance(thing, Process)], grace_s=3.0)
            for folder in [thing for thing in self._in_use if isinstance(thing, Path)]:
                remove_folder(folder)

    def _send(self, sign: str, thing: Process | Path) -> None:
        if self._guard is None:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", self._GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},  # it needs none, and secrets may be in it
                start_new_session=True,
            )
        if self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # the guard was killed; the other two mechanisms remain
                self._guard.stdin.write(f"{sign}{thing.pid if isinstance(thing, Process) else thing}\n".encode())
                self._guard.stdin.flush()

    def _end_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin:
            with contextlib.suppress(BrokenPipeError):
                guard.stdin.close()
            guard.wait()


_REGISTRY = _Registry()
atexit.register(_REGISTRY.stop_everything)
