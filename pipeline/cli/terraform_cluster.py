"""A cluster made by infra/terraform: its description in Terraform's output, and the tunnel to its REST API."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import OptionError
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import Process, free_ports
from runners.flink.rest import FlinkRest

OUTPUT: Final = "cluster"
FOLDER_HELP: Final = (
    f"applied configuration with the module as its output {OUTPUT!r}, as infra/terraform/examples/medium"
)
_TUNNEL_S: Final = 60.0


@dataclass(frozen=True)
class TerraformCluster:
    """The shell command that opens a tunnel to the cluster, and the launch flags that belong to it."""

    tunnel_command: str
    submit_flags: list[str]


def terraform_cluster(folder: Path) -> TerraformCluster:
    """Read the cluster from an applied Terraform configuration.

    Raises:
        OptionError: Terraform cannot be run, or the configuration has no such output.
    """
    option = f"--terraform {str(folder)!r}"
    if not folder.is_dir():
        raise OptionError(f"{option}: there is no such folder")
    try:
        completed = subprocess.run(
            ["terraform", f"-chdir={folder}", "output", "-no-color", "-json", OUTPUT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise OptionError(f"{option}: terraform cannot be run: {error}") from error
    if completed.returncode != 0:
        raise OptionError(f"{option}: terraform output: {' '.join(completed.stderr.split())}")
    output: Any = json.loads(completed.stdout)
    try:
        return TerraformCluster(str(output["tunnel_command"]), [str(flag) for flag in output["submit_flags"]])
    except (KeyError, TypeError) as error:
        raise OptionError(f"{option}: the output {OUTPUT!r} has no tunnel_command and submit_flags") from error


@contextlib.contextmanager
def tunnel(command: str) -> Iterator[int]:
    """The local port that leads to Flink's REST API while the context is open.

    Raises:
        LocalStackError: the session ended or Flink does not answer; the message has the session's output.
    """
    (port,) = free_ports(1)
    rest = FlinkRest(f"http://localhost:{port}", timeout_s=5)

    def answers() -> bool:
        with contextlib.suppress(LocalStackError):
            return bool(rest.overview())
        return False

    with tempfile.TemporaryDirectory(prefix="event-trigger-tunnel-") as folder:
        log = Path(folder, "log")
        session = Process.start(
            "SSM session", ["sh", "-c", f"exec {command}"], log_file=log, env={"FLINK_PORT": str(port)}
        )
        try:
            session.wait_for(answers, what="a way to Flink's REST API", deadline_s=_TUNNEL_S)
            yield port
        finally:
            session.stop()
