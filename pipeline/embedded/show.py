"""What an embedded run prints while it runs: a line for each action, and for each dead letter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TextIO

import apache_beam as beam
import orjson

from pipeline.embedded.action_lines import ActionLines, shortened
from transforms.domain.events.record import decode_produced
from transforms.domain.rules.model import Rule
from transforms.domain.shard import decisions
from transforms.domain.shard.decisions import decode_decision

_LONGEST_DETAIL: Final = 300


def show(text: str, stream: TextIO | None = None) -> None:
    """Write lines to standard output, or to ``stream``, in one write, so that those of several threads do not mix.

    Characters that the stream cannot encode are escaped. A reader that is gone, as ``head`` is, does not end the run.
    """
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass
class ShowActions(beam.PTransform):
    """Print ``FIRED rule  user  event  action`` for each action, from the decision log; text of events is escaped.

    Input: ``bytes``, produced records. Output: the same. ``actions_topic`` is that of Kafka actions that name none.
    """

    rules: tuple[Rule, ...]
    actions_topic: str

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        """One ParDo."""
        lines = ActionLines(self.rules, self.actions_topic)
        return records | "Show" >> beam.ParDo(_ShowActionsFn(lines)).with_output_types(bytes)


@dataclass
class ShowDeadLetters(beam.PTransform):
    """Print a line for each dead letter to standard error; text of records is escaped.

    Input: ``bytes``, produced records whose values are dead letters. Output: nothing.
    """

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[None]:
        """One ParDo."""
        return records | "Show" >> beam.ParDo(_show_dead_letter).with_output_types(None)


class _ShowActionsFn(beam.DoFn):
    def __init__(self, lines: ActionLines) -> None:
        self._lines = lines

    def process(self, packed: bytes) -> Iterator[bytes]:
        record = decode_produced(packed)
        if record.topic == decisions.FILE:
            line = self._lines.line(decode_decision(record.value))
            if line is not None:
                show(f"{line}\n")
        yield packed


def _show_dead_letter(packed: bytes) -> None:
    letter = orjson.loads(decode_produced(packed).value)
    coordinates = "{topic}/{partition}@{offset}".format_map(letter)
    detail = shortened(letter["detail"], _LONGEST_DETAIL)
    show(f"DEAD LETTER {letter['reason']} at {coordinates}: {detail}\n", sys.stderr)
