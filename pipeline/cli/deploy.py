"""``python -m pipeline deploy``: submits the job to a cluster that infra/terraform made.

The cluster's own flags are an output of its Terraform configuration; every other flag is as without ``deploy``, and
wins. Flink's REST API is reached through an SSM session, which is opened before and closed after.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.cli import resume
from pipeline.cli.command_line import exit_code_of
from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.errors import OptionError
from pipeline.launch import run
from pipeline.launch.options import parse


def main(argv: Sequence[str]) -> int:
    """Submit; 0 done, 1 the cluster cannot be reached or refused the job, 2 an option or rule that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m pipeline deploy", description=__doc__, allow_abbrev=False)
    parser.add_argument("--terraform", type=Path, required=True, metavar="FOLDER", help=FOLDER_HELP)
    parser.add_argument(
        "--resume", action="store_true", help="go on from what the last job has left, as python -m pipeline resume"
    )
    arguments, flags = parser.parse_known_args(list(argv))
    return exit_code_of(lambda: _deploy(arguments, flags))


def _deploy(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    if any(flag.split("=")[0] in ("--flink_master", "--runner") for flag in flags):
        raise OptionError("deploy: --flink_master and --runner are the cluster's")
    cluster = terraform_cluster(arguments.terraform)
    flags = [*cluster.submit_flags, *flags]
    parse(flags)  # before a session is opened
    launch = resume.main if arguments.resume else run.launch
    with tunnel(cluster.tunnel_command) as port:
        return launch([*flags, f"--flink_master=localhost:{port}"])
