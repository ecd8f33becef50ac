"""The units of a TaskManager's workers on a booted machine, with stand-ins for Flink and Beam, which take minutes.

check_cluster.py has the same questions for a whole cluster.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.long.machines import Machine, lan, wait_for
from tests.infra.long.workers import check_that_workers_read_nothing_of_flinks
from tests.infra.terraform import ROOT, SOURCE

FILES = SOURCE / "modules" / "taskmanager"
# Beam is what takes long to import: here for ever, so that workers stay.
PROGRAM = """\
#!/bin/sh
for id in 1 2; do /opt/event-trigger/bin/event-trigger-worker --id=$id-1 --provision_endpoint=127.0.0.1:1 & done
wait
"""
BOOTED = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
PREPARE = """\
useradd --system --user-group flink
useradd --system --user-group event-trigger-worker
install -d -o flink -g flink -m 0755 /var/log/flink
install -d -o flink -g flink -m 0750 /data/rocksdb
install -d -g flink -m 0750 /etc/flink/tls
for name in tls/internal.p12 config.yaml jaas.conf; do
  echo secret | install -g flink -m 0640 /dev/stdin /etc/flink/$name
done
systemctl daemon-reload
systemctl start flink-taskmanager.service
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    folder = Path(os.environ["EVENT_TRIGGER_INFRA_MACHINES"]) / "workers"
    rootfs = Path(os.environ["EVENT_TRIGGER_INFRA_ROOTFS"])
    with lan():
        booted = Machine("workers", "i-9", "10.77.9.1", b"#cloud-config\n", {}, rootfs, folder)
        try:
            booted.start()
            wait_for(
                lambda: booted.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"),
                "up",
                900,
            )
            install(booted.root)
            prepared = booted.run("sh", "-e", "-c", PREPARE)
            assert prepared.returncode == 0, prepared.stderr + booted.journal()
            yield booted
        finally:
            booted.remove()


def install(root: Path) -> None:
    template = (FILES / "templates" / "event-trigger-worker@.service.tftpl").read_text()
    units = {path.name: path.read_text() for path in (FILES / "files").glob("*-*.*") if path.suffix != ".conf"}
    units |= {
        "event-trigger-worker@.service": "\n".join(line for line in template.splitlines() if "%{" not in line) + "\n",
        "event-trigger-boot.service": BOOTED,
    }
    for name, text in units.items():
        (root / "etc/systemd/system" / name).write_text(text)
    packages = root / "opt/event-trigger/site-packages"
    shutil.copytree(ROOT / "runners", packages / "runners", ignore=shutil.ignore_patterns("connectors", "__pycache__"))
    (packages / "apache_beam").mkdir()
    (packages / "apache_beam" / "__init__.py").write_text("import time\ntime.sleep(1000)\n")
    import structlog

    shutil.copytree(Path(structlog.__file__).parent, packages / "structlog")
    programs = {
        "opt/event-trigger/bin/event-trigger-worker": (ROOT / "infra/release/event-trigger-worker.sh").read_text(),
        "opt/flink/bin/flink-node": PROGRAM,
    }
    for name, text in programs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)


def pids(machine: Machine, user: str, pattern: str) -> list[str]:
    return machine.run("pgrep", "-u", user, "-f", pattern).stdout.split()


def both(machine: Machine) -> tuple[list[str], list[str]]:
    """Process ids of the stand-ins and of the workers, two each when all have started."""

    def started() -> bool:
        return [len(pids(machine, *who)) for who in ((*STAND_INS,), (*WORKERS,))] == [2, 2]

    wait_for(started, f"two workers run: {machine.journal()}", 600)
    return pids(machine, *STAND_INS), pids(machine, *WORKERS)


STAND_INS = ("flink", "runners.flink.worker --id")
WORKERS = ("event-trigger-worker", "runners.flink.worker --from_socket")


def test_workers_have_a_user_that_reads_nothing_of_flinks(machine: Machine) -> None:
    stand_ins, workers = both(machine)
    check_that_workers_read_nothing_of_flinks(machine, stand_ins[0], workers)
    for worker in workers:
        # It writes the log that was opened for it, in a folder that it may not write.
        log = machine.run("readlink", f"/proc/{worker}/fd/2").stdout.strip()
        assert log.rpartition("/")[2].startswith("worker-"), log
    logs = machine.run("sh", "-c", "stat -c %U /var/log/flink/worker-*.log").stdout.split()
    assert logs == ["flink", "flink"]


def test_a_worker_and_its_stand_in_end_together(machine: Machine) -> None:
    _, workers = both(machine)
    main = machine.run("systemctl", "show", "-P", "MainPID", "flink-taskmanager").stdout.strip()
    machine.run("kill", "-9", workers[0])
    wait_for(lambda: len(pids(machine, *STAND_INS)) == 1, "the stand-in of a killed worker has ended", 300)
    left = pids(machine, *STAND_INS)
    machine.run("kill", "-9", *left)
    wait_for(lambda: pids(machine, *WORKERS) == [], "the worker of a killed stand-in has ended", 300)
    # Flink would ask again; here the program has ended with its children, and systemd starts it anew.
    both(machine)
    again = machine.run("systemctl", "show", "-P", "MainPID", "flink-taskmanager").stdout.strip()
    assert again not in (main, "0")
    assert machine.run("systemctl", "stop", "flink-taskmanager").returncode == 0
    wait_for(lambda: pids(machine, *WORKERS) == [], "workers end with the TaskManager's service", 300)
    failed = machine.run("systemctl", "--failed", "--plain", "--no-legend").stdout
    assert "event-trigger-worker" not in failed
