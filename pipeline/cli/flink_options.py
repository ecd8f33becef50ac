"""What all commands that steer a job share: flags that name the cluster and the job, and how they report errors."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.console import complain
from pipeline.errors import OptionError
from pipeline.job.checkpoint_storage import S3Error
from pipeline.job.jobs import NoJobError
from pipeline.launch.options.kafka_properties import check_addresses
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

MAX_TIMEOUT_S: Final = 86_400.0


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where Flink is and which job is meant."""
    parser.add_argument("--flink_master", metavar="HOST:PORT", help="Flink's REST endpoint")
    parser.add_argument("--terraform", type=Path, metavar="FOLDER", help=f"instead, as of deploy: {FOLDER_HELP}")
    parser.add_argument("--job", metavar="NAME_OR_ID", help="of a running job (default: the only one)")


@contextlib.contextmanager
def cluster_client(arguments: argparse.Namespace) -> Iterator[FlinkRest]:
    """A client of the cluster that the flags of ``add_job_options`` name; a tunnel lives as long as the context.

    Raises:
        OptionError: the flags name no cluster, or two.
        LocalStackError: the tunnel cannot be opened.
    """
    if arguments.terraform is None:
        yield rest_client(arguments.flink_master)
        return
    if arguments.flink_master is not None:
        raise OptionError("--flink_master and --terraform are both given, allowed: one of them")
    with tunnel(terraform_cluster(arguments.terraform).tunnel_command) as port:
        yield rest_client(f"localhost:{port}")


def rest_client(flink_master: str | None) -> FlinkRest:
    """A client of Flink's REST endpoint at HOST:PORT.

    Raises:
        OptionError: the address is missing or not HOST:PORT.
    """
    if flink_master is None:
        raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
    check_addresses("flink_master", [flink_master])
    return FlinkRest(f"http://{flink_master}")


def exit_code_of(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a command: its exit code, or after an error line 1 (failed), 2 (unusable option) or 130 (Ctrl-C)."""
    try:
        return run(argv)
    except OptionError as error:
        complain(str(error))
        return 2
    except (LocalStackError, NoJobError, S3Error) as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted; what Flink was asked for goes on")
        return 130
