"""``python -m pipeline deploy``: submits the job to a cluster that infra/terraform made.

The cluster's own flags are an output of its Terraform configuration; every other flag is as without ``deploy``, and
wins. Flink's REST API is reached through an SSM session, which is opened before and closed after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline import run
from pipeline.options import OptionError, parse
from runners.flink.errors import LocalStackError
from runners.flink.processes import Process, free_ports
from runners.flink.rest import FlinkRest

_OUTPUT: Final = "cluster"
_TUNNEL_S: Final = 60.0


def main(argv: Sequence[str]) -> int:
    """Submit; 0 done, 1 the cluster cannot be reached or refused the job, 2 an option or rule that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m pipeline deploy", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--terraform",
        type=Path,
        required=True,
        metavar="FOLDER",
        help=f"applied configuration with the module as its output {_OUTPUT!r}, as infra/terraform/examples/medium",
    )
    known, flags = parser.parse_known_args(list(argv))
    try:
        if any(flag.split("=")[0] in ("--flink_master", "--runner") for flag in flags):
            raise OptionError("deploy: --flink_master and --runner are the cluster's")
        cluster = _cluster(known.terraform)
        flags = [*cluster.submit_flags, *flags]
        parse(flags)  # before a session is opened
        with _tunnel(cluster.tunnel_command) as port:
            return run.main([*flags, f"--flink_master=localhost:{port}"])
    except OptionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except LocalStackError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


@dataclass(frozen=True)
class _Cluster:
    tunnel_command: str
    submit_flags: list[str]


def _cluster(folder: Path) -> _Cluster:
    """What the applied configuration says about its cluster.

    Raises:
        OptionError: it says nothing.
    """
    where = f"--terraform {str(folder)!r}"
    try:
        shown = subprocess.run(
            ["terraform", f"-chdir={folder}", "output", "-no-color", "-json", _OUTPUT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise OptionError(f"{where}: terraform cannot be run: {error}") from error
    if shown.returncode != 0:
        raise OptionError(f"{where}: terraform output: {' '.join(shown.stderr.split())}")
    found: Any = json.loads(shown.stdout)
    try:
        return _Cluster(str(found["tunnel_command"]), [str(flag) for flag in found["submit_flags"]])
    except (KeyError, TypeError) as error:
        raise OptionError(f"{where}: the output {_OUTPUT!r} has no tunnel_command and submit_flags") from error


@contextlib.contextmanager
def _tunnel(command: str) -> Iterator[int]:
    """The local port that is Flink's REST API while the context is open.

    Raises:
        LocalStackError: the session ends or Flink does not answer; with what the session printed.
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
