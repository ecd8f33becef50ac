"""What every command that talks to Kafka has: where it is, and one line where it does not do as asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pipeline.errors import OptionError
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import kafka_properties


def add_kafka_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flags that say where Kafka is."""
    parser.add_argument("--bootstrap_servers", required=required, metavar="BROKERS", help="HOST:PORT[,HOST:PORT]")
    parser.add_argument(
        "--kafka_property", action="append", default=[], metavar="NAME=VALUE", help="of librdkafka; may be repeated"
    )


def kafka_config(arguments: argparse.Namespace) -> dict[str, str]:
    """librdkafka's properties of these flags.

    Raises:
        OptionError: a property is none.
    """
    properties = kafka_properties("kafka_property", arguments.kafka_property)
    return {"bootstrap.servers": arguments.bootstrap_servers, **properties}


def told(run: Callable[[], int]) -> int:
    """What ``run`` returns; 2 after a line on standard error if an option or topic cannot be used, 130 on Ctrl-C."""
    try:
        return run()
    except (OptionError, TopicError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
