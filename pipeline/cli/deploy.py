"""``event-trigger deploy``: submits the job to a cluster that infra/terraform made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.parameters import Launch
from pipeline.cli.resume import launch_from_state
from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.errors import OptionError
from pipeline.launch import run
from pipeline.launch.options import parse


def deploy(
    *,
    terraform: Annotated[Path, Parameter(metavar="FOLDER", help=FOLDER_HELP)],
    resume: bool = False,
    options: Launch = Launch(),
) -> int:
    """Submit the job to a cluster that infra/terraform made.

    The cluster's own flags are an output of its Terraform configuration; every other flag is as of `event-trigger run`,
    and wins. Flink's REST API is reached through an SSM session, which is opened before and closed after.

    0: submitted; 1: the cluster cannot be reached or refused the job; 2: an option or a rule cannot be used.

    Args:
        resume: go on from what the last job has left, as `event-trigger resume`.
    """
    if any(flag.split("=")[0] in ("--flink_master", "--runner") for flag in options.flags):
        raise OptionError("deploy: --flink_master and --runner are the cluster's")
    cluster = terraform_cluster(terraform)
    flags = [*cluster.submit_flags, *options.flags]
    parse(flags)  # before a session is opened
    with tunnel(cluster.tunnel_command) as port:
        flags.append(f"--flink_master=localhost:{port}")
        return launch_from_state(flags) if resume else run.launch(flags)
