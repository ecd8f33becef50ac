"""A killed run leaves no process, mount or network namespace; the next one clears its loop devices and files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.infra.long.machines import clear, contained, shell, wait_for
from tests.infra.terraform import ROOT

# What a long test does: a machine with a volume, booting when the run is killed.
RUN = """
import sys, threading
from pathlib import Path
from tests.infra.long.machines import Machine, lan
rootfs, folder = map(Path, sys.argv[1:])
with lan():
    Machine("m1", "i-1", "10.77.9.9", b"#cloud-config", {"/dev/sdf": 1}, rootfs, folder / "m1").start()
    print("up", flush=True)
    threading.Event().wait()
"""


def mentioning(text: str) -> list[str]:
    """Command lines of living processes that name ``text``."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in command and int(path.parent.name) != os.getpid():
            commands.append(command)
    return commands


def test_a_killed_run_leaves_nothing_that_the_next_does_not_clear(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    code = [sys.executable, "-c", RUN, os.environ["EVENT_TRIGGER_INFRA_ROOTFS"], str(folder)]
    run = subprocess.Popen(contained(*code), cwd=ROOT, stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"up\n"
    assert any("systemd-nspawn" in command for command in mentioning(str(folder)))
    volumes = ["losetup", "--noheadings", "--list", "--output", "BACK-FILE"]

    run.kill()
    run.wait(30)
    run.stdout.close()
    wait_for(lambda: not mentioning(str(folder)), "everything in the run has ended", 120)
    assert str(folder) in shell(*volumes)
    clear(folder)
    assert str(folder) not in shell(*volumes)
    assert not folder.exists()
    for left in (Path("/proc/self/mountinfo").read_text(), shell("ip", "netns", "list")):
        assert str(folder) not in left
        assert "event-trigger-m1" not in left
