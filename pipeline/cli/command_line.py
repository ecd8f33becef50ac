"""What the commands share: their parsers, the flags that name Kafka, the cluster and the job, and their exit codes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline import errors
from pipeline.cli.terraform_cluster import FOLDER_HELP, terraform_cluster, tunnel
from pipeline.console import complain, one_line
from pipeline.errors import OptionError
from pipeline.job.checkpoint_storage import S3Error
from pipeline.job.jobs import NoJobError
from pipeline.job.user_inspection import NoAnswerError
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings, parse_rules_optional
from pipeline.launch.options.kafka_properties import check_addresses, kafka_properties
from pipeline.launch.options.resolving import with_configured
from pipeline.launch.options.settings import OPTIONS
from runners.flink.errors import LocalStackError
from runners.flink.rest import FlinkRest
from transforms.domain.base.secret_references import SecretError
from transforms.domain.rules.model import RuleError

_UNUSABLE: Final = (OptionError, TopicError, SecretError)
_FAILED: Final = (LocalStackError, errors.SubmissionError, NoJobError, NoAnswerError, S3Error, RuleError)


def show_error(text: str) -> None:
    """Show an error as a line on standard error."""
    sys.stderr.write(f"error: {one_line(text)}\n")


def exit_code_of(
    run: Callable[[], int], report: Callable[[str], None] = show_error, interrupted: str | None = None
) -> int:
    """Run a command.

    Args:
        run: the command; returns its exit code.
        report: shows the message of an error that ends the command.
        interrupted: what is reported on Ctrl-C.

    Returns:
        The command's exit code; after an error 1 (failed) or 2 (an option or topic cannot be used); 130 (Ctrl-C).
    """
    try:
        return run()
    except _UNUSABLE as error:
        report(str(error))
        return 2
    except _FAILED as error:
        report(str(error))
        return 1
    except KeyboardInterrupt:
        if interrupted is not None:
            report(interrupted)
        return 130


def steer(run: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """``exit_code_of`` a command that steers a job, which Ctrl-C does not stop."""
    return exit_code_of(lambda: run(argv), complain, "interrupted; what Flink was asked for goes on")


class CommandParser(argparse.ArgumentParser):
    """A parser of the flags of ``python -m pipeline COMMAND``, without abbreviations.

    ``usage`` follows this in the help's first line; ``description`` keeps its line breaks.
    """

    def __init__(self, command: str, usage: str, description: str) -> None:
        program = f"python -m pipeline {command}"
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def run_with_launch_options(self, run: Callable[[argparse.Namespace, Settings], int], argv: Sequence[str]) -> int:
        """Run a command that also takes the options of a launch; returns its exit code, as ``exit_code_of``."""
        arguments, options = self.parse_known_args(argv)
        return exit_code_of(lambda: run(arguments, parse_rules_optional(options, self.prog)))


class RaisingParser(CommandParser):
    """A parser of a command's flags that raises ``OptionError``s."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of printing usage and error and ending the process."""
        raise OptionError(f"{message}; {self.prog} --help lists what there is")


class CommandGroup(argparse.ArgumentParser):
    """A command that consists of ``commands``, as ``rules test``; one of them is required."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(prog=f"python -m pipeline {command}", description=description, allow_abbrev=False)
        self.commands = self.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], help: str, **options: Any
    ) -> argparse.ArgumentParser:
        """Add a command, which ``run`` runs; ``options`` are those of its parser."""
        # argparse does not inherit allow_abbrev from the parent parser.
        command = self.commands.add_parser(name, help=help, allow_abbrev=False, **options)
        command.set_defaults(run=run)
        return command

    def run(self, argv: Sequence[str]) -> int:
        """Run the command that the arguments name; returns its exit code, as ``exit_code_of``."""
        arguments = self.parse_args(argv)
        return exit_code_of(lambda: int(arguments.run(with_options(arguments))))


# What flags do not give


def with_options(arguments: argparse.Namespace) -> argparse.Namespace:
    """``with_configured`` of a command's arguments."""
    return argparse.Namespace(**with_configured(vars(arguments)))


def required(arguments: argparse.Namespace, name: str, what: str) -> Any:
    """The value of an option that a command needs.

    Raises:
        OptionError: nothing gives it.
    """
    value = getattr(arguments, name)
    if value is None:
        raise OptionError(f"--{name} is missing: give {what}, here or in event-trigger.yaml")
    return value


# Kafka


def add_kafka_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where Kafka is."""
    parser.add_argument("--bootstrap_servers", metavar="BROKERS", help="HOST:PORT[,HOST:PORT]")
    parser.add_argument(
        "--kafka_property", action="append", metavar="NAME=VALUE", help="for Kafka's clients; may be repeated"
    )


def kafka_config(arguments: argparse.Namespace) -> dict[str, str]:
    """The properties, for librdkafka, that the flags of ``add_kafka_options`` give.

    Raises:
        OptionError: no broker is given, a ``--kafka_property`` is not NAME=VALUE, or no client has it.
    """
    properties = kafka_properties("kafka_property", arguments.kafka_property)
    brokers = required(arguments, "bootstrap_servers", "HOST:PORT of a broker")
    return for_librdkafka({"bootstrap.servers": brokers, **properties})


def add_topic_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add a flag of the launch that names a topic, with the launch's default."""
    default = OPTIONS[name].default
    parser.add_argument(f"--{name}", metavar="TOPIC", help=f"as the pipeline's (default: {default})")


# Flink


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
