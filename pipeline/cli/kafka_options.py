"""What all commands that use Kafka share: the flags that say where it is, and how they report errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pipeline.errors import OptionError
from pipeline.kafka.topics import TopicError
from pipeline.launch.options.kafka_properties import kafka_properties


def add_kafka_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the flags that say where Kafka is."""
    parser.add_argument("--bootstrap_servers", required=required, metavar="BROKERS", help="HOST:PORT[,HOST:PORT]")
    parser.add_argument(
        "--kafka_property", action="append", default=[], metavar="NAME=VALUE", help="of librdkafka; may be repeated"
    )


def kafka_config(arguments: argparse.Namespace) -> dict[str, str]:
    """The librdkafka properties that these flags give.

    Raises:
        OptionError: a ``--kafka_property`` is not NAME=VALUE.
    """
    properties = kafka_properties("kafka_property", arguments.kafka_property)
    return {"bootstrap.servers": arguments.bootstrap_servers, **properties}


def exit_code_of(run: Callable[[], int]) -> int:
    """Run a command: its exit code, 130 on Ctrl-C, or 2 with an error line if an option or topic cannot be used."""
    try:
        return run()
    except (OptionError, TopicError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
