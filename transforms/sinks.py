"""Sinks that need no broker: standard output, standard error, and lines in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import orjson

from transforms.domain.base.terminal_text import json_line, one_line
from transforms.domain.events.record import decode_produced


@dataclass
class PrintDebugActions(beam.PTransform):
    """Print ``DEBUG EVENT {json}`` for each debug action to the worker's standard output.

    Input: ``bytes``, enriched events as JSON. Output: nothing. At least once: a replay prints again.
    """

    def expand(self, bodies: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """One ParDo."""
        return bodies | "Print" >> beam.ParDo(_print_debug).with_output_types(None)


@dataclass
class PrintDeadLetters(beam.PTransform):
    """Print a line for each dead letter to standard error, for jobs without a dead letter topic.

    Input: ``bytes``, produced records whose values are dead letters. Output: nothing.
    """

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """One ParDo."""
        return records | "Print" >> beam.ParDo(_print_dead_letter).with_output_types(None)


@dataclass
class WriteLines(beam.PTransform):
    """Append the values of one topic's records to a file, one line each; for runs in this process.

    Input: ``bytes``, produced records. Output: the records of other topics.
    """

    topic: str
    path: str

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        """One ParDo."""
        return records | "Lines" >> beam.ParDo(_WriteLinesFn(self.topic, self.path)).with_output_types(bytes)


class _WriteLinesFn(beam.DoFn):
    def __init__(self, topic: str, path: str) -> None:
        self._topic = topic
        self._path = path

    def setup(self) -> None:
        # Unbuffered, so that each line is one write: several instances append to the file.
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed in teardown

    def teardown(self) -> None:
        self._file.close()

    def process(self, packed: bytes) -> Iterator[bytes]:
        record = decode_produced(packed)
        if record.topic == self._topic:
            self._file.write(record.value + b"\n")
        else:
            yield packed


def _print_debug(body: bytes) -> None:
    # One write for each line, so that lines of several threads do not mix.
    sys.stdout.write(f"DEBUG EVENT {json_line(body.decode())}\n")
    sys.stdout.flush()


def _print_dead_letter(packed: bytes) -> None:
    letter = orjson.loads(decode_produced(packed).value)
    coordinates = "{topic}/{partition}@{offset}".format_map(letter)
    line = f"DEAD LETTER {letter['reason']} at {coordinates}: {letter['detail']}"
    sys.stderr.write(f"{one_line(line)}\n")
