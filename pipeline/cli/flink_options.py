"""What every command that steers a job has: where Flink is, which job, and one line where it does not do as asked."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.console import complain
from pipeline.errors import OptionError
from pipeline.job.status import NoJobError
from pipeline.launch.options import check_addresses
from pipeline.launch.probes import S3Error
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest

MOST_S: Final = 86_400.0


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """The flags that say where Flink is and which job is meant."""
    parser.add_argument("--flink_master", metavar="HOST:PORT", help="Flink's REST endpoint")
    parser.add_argument("--terraform", type=Path, metavar="FOLDER", help=f"instead, as of deploy: {FOLDER_HELP}")
    parser.add_argument("--job", metavar="NAME_OR_ID", help="of a running job (default: the only one)")


@contextlib.contextmanager
def reaching(arguments: argparse.Namespace) -> Iterator[FlinkRest]:
    """A client of the cluster that ``add_job_options`` name, while the context is open.

    Raises:
        OptionError: it is not said which.
        LocalStackError: there is no way to it.
    """
    if arguments.terraform is None:
        yield cluster(arguments.flink_master)
        return
    if arguments.flink_master is not None:
        raise OptionError("--flink_master and --terraform are both given, allowed: one of them")
    with tunnel(terraform_cluster(arguments.terraform).tunnel_command) as port:
        yield cluster(f"localhost:{port}")


def cluster(flink_master: str | None) -> FlinkRest:
    """A client of the cluster.

    Raises:
        OptionError: it is not said which.
    """
    if flink_master is None:
        raise OptionError("--flink_master is missing: give HOST:PORT of Flink's REST endpoint")
    check_addresses("flink_master", [flink_master])
    return FlinkRest(f"http://{flink_master}")


def told(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """What ``run`` returns; after a line on standard error 1 if it cannot be done, 2 for an option, 130 on Ctrl-C."""
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
