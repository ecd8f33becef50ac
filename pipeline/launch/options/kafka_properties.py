"""Kafka client properties and addresses given as flags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import OptionError
from pipeline.kafka.client_properties import refusal_of, unknown_property
from transforms.adapters.kafka.clients import CONFIDENTIAL


def kafka_properties(name: str, pairs: Sequence[str], label: str = "") -> dict[str, str]:
    """Properties of the ``NAME=VALUE`` pairs that were given as ``--name``, or as what ``label`` says.

    Raises:
        OptionError: a pair has no ``=``, or a name that neither Java's clients nor librdkafka have, a property has an
            option of its own, or a value is a secret. No message shows a value that may be one.
    """
    properties = {}
    label = label or f"--{name}"
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9._-]+", key):
            shown = "no pair" if re.search(CONFIDENTIAL, pair, re.IGNORECASE) else repr(pair)
            raise OptionError(f"{label} is {shown}, allowed: NAME=VALUE")
        refusal = refusal_of(key, value)
        if refusal is not None:
            raise OptionError(f"{label} sets {key!r}, {refusal}")
        properties[key] = value
    unknown = unknown_property(properties)
    if unknown is not None:
        raise OptionError(f"{label} sets {unknown[0]!r}, which no Kafka client has: {unknown[1]}")
    return properties


def check_addresses(name: str, addresses: Sequence[str]) -> None:
    """Raise an ``OptionError`` if an address given as ``--name`` is not HOST:PORT."""
    for address in addresses:
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise OptionError(f"--{name} is {address!r}, allowed: HOST:PORT")
