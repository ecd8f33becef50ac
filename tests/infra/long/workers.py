"""What must hold of the Python workers of a booted TaskManager, with Flink or with a stand-in for it."""

from __future__ import annotations

from collections.abc import Iterable

from tests.infra.long.machines import Machine

_AS_WORKER = ("setpriv", "--reuid=event-trigger-worker", "--regid=event-trigger-worker", "--clear-groups")
_FLINKS = ("/etc/flink/tls/internal.p12", "/etc/flink/config.yaml", "/etc/flink/jaas.conf", "/data/rocksdb")
_CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect('/run/event-trigger/workers.sock')"


def check_that_workers_read_nothing_of_flinks(machine: Machine, of_flink: str, workers: Iterable[str]) -> None:
    """Check what the workers' user and each worker may read; ``of_flink`` is a process of Flink's user."""
    for file in (*_FLINKS, f"/proc/{of_flink}/environ"):
        assert machine.run("ls", "-d", file).returncode == 0, file
        refused = machine.run(*_AS_WORKER, "grep", "-r", "x", file)
        assert (refused.returncode, "Permission denied" in refused.stderr) == (2, True), (file, refused.stderr)
    assert "PermissionError" in machine.run(*_AS_WORKER, "python3.11", "-c", _CONNECT).stderr
    for worker in workers:
        assert machine.run("cat", f"/proc/{worker}/oom_score_adj").stdout.strip() == "500"
        # As root in the worker's own view of files: nothing of Flink's is there.
        for folder in ("/etc/flink", "/data", "/var/log/flink"):
            assert machine.run("nsenter", "-t", worker, "-m", "find", folder, "-mindepth", "1").stdout == "", folder
