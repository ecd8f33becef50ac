"""``python -m pipeline dead-letters``: see what could not be handled, and send it again, without Flink or Beam."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.cli.command_line import CommandGroup, add_kafka_options, add_topic_option, kafka_config
from pipeline.cli.progress import Progress
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.job import stored_letters
from pipeline.job.dead_letter_view import letter_document, letter_fields, letter_line, letter_summary
from pipeline.job.redrive_view import plan_document, plan_lines, result_lines
from pipeline.job.redriving import (
    NEEDS_CONTROL_TOPIC,
    Plan,
    Redrive,
    RedriveResult,
    RedriveSettings,
    Writer,
    open_writer,
)
from pipeline.job.stored_letters import LetterFilter, StoredLetter
from pipeline.kafka.topics import TopicReader, existing_topic
from pipeline.timestamps import read_time
from transforms.adapters.letter_keys import letter_signer
from transforms.domain.base.secret_references import ALLOWED, is_reference
from transforms.domain.events.dead_letter import FAILS_AGAIN, STAGES
from transforms.domain.events.letter_signature import LetterSigner

_UNREADABLE_SHOWN = 20


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 done, 1 something was not sent or is not there, 2 an argument or topic is no good."""
    parser = CommandGroup("dead-letters", __doc__)
    list_ = parser.add("list", _list, "one line a letter, and how many there are of each reason")
    show = parser.add("show", _show, "everything of one letter")
    show.add_argument("place", metavar="PARTITION/OFFSET", help="as `list` shows it")
    redrive = parser.add("redrive", _redrive, "show what would be sent again and where to; --execute sends it")
    redrive.add_argument(
        "--control_topic", metavar="TOPIC", help="as the pipeline's; required if there are actions among the letters"
    )
    redrive.add_argument("--rate", type=float, metavar="NUMBER", help="at most so many a second; default: no limit")
    redrive.add_argument("--execute", action="store_true", help="send what is shown; without it nothing is sent")
    redrive.add_argument(
        "--accept_unsigned",
        action="store_true",
        help="also letters without a valid signature, which anybody who may write to the topic may have written",
    )
    redrive.add_argument("--again", action="store_true", help="also letters that were redriven before")
    add_topic_option(redrive, "events_topic")
    for command in (list_, redrive):
        _add_filters(command)
    for command in (list_, show, redrive):
        add_topic_option(command, "dead_letters_topic")
        add_kafka_options(command)
        command.add_argument("--dead_letters_key", metavar="REFERENCE", help="as the pipeline's; checks signatures")
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser.run(argv)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name in ("reason", "rule", "destination"):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME", help=f"only of this {name}; may be repeated"
        )
    parser.add_argument("--since", metavar="TIME", help="only letters written from then on, as 2024-01-01T00:00Z")
    parser.add_argument("--until", metavar="TIME", help="only letters written before")
    parser.add_argument("--limit", type=int, metavar="NUMBER", help="only so many, the first ones")


def _letter_filter(arguments: argparse.Namespace) -> LetterFilter:
    if arguments.limit is not None and arguments.limit < 1:
        raise OptionError(f"--limit is {arguments.limit}, allowed: a number from 1 on")
    for reason in arguments.reason:
        if reason not in STAGES:
            raise OptionError(f"--reason is {reason!r}, allowed: {', '.join(STAGES)}")
    since_ms, until_ms = read_time("since", arguments.since), read_time("until", arguments.until)
    return LetterFilter(arguments.reason, arguments.rule, arguments.destination, since_ms, until_ms)


@contextmanager
def _letters(
    arguments: argparse.Namespace, selected: LetterFilter, unreadable: list[str]
) -> Iterator[tuple[TopicReader, Iterator[StoredLetter]]]:
    """The topic's reader and the selected letters; ``unreadable`` gets a message for each other record."""
    topic = arguments.dead_letters_topic
    description = f"dead letters topic {topic!r}"
    with existing_topic(kafka_config(arguments), topic, description, selected.since_ms) as reader:
        letters = filter(selected.matches, stored_letters.stored_letters(reader.records(), unreadable))
        yield reader, itertools.islice(letters, arguments.limit)


def _warn(unreadable: Sequence[str]) -> None:
    for problem in unreadable[:_UNREADABLE_SHOWN]:
        sys.stderr.write(f"warning: {one_line(problem)}\n")
    if len(unreadable) > _UNREADABLE_SHOWN:
        sys.stderr.write(f"warning: {len(unreadable) - _UNREADABLE_SHOWN:,} further records are no dead letters\n")


def _signer(arguments: argparse.Namespace) -> LetterSigner:
    reference = arguments.dead_letters_key
    if reference is not None and not is_reference(reference):
        raise OptionError(f"--dead_letters_key is no reference, allowed: {ALLOWED}")
    return letter_signer(reference)


# Listing


def _list(arguments: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    listed = []
    unreadable: list[str] = []
    signer = _signer(arguments)
    with _letters(arguments, _letter_filter(arguments), unreadable) as (_, letters):
        for stored in letters:
            counts[stored.letter.reason] += 1
            if arguments.json:
                listed.append(letter_summary(stored, signer))
            else:
                sys.stdout.write(letter_line(stored, signer) + "\n")
    _warn(unreadable)
    if arguments.json:
        sys.stdout.write(json.dumps({"letters": listed, "reasons": counts}) + "\n")
        return 0
    sys.stdout.writelines(f"{count:>7,}  {one_line(reason)}\n" for reason, count in counts.most_common())
    sys.stdout.write(f"{counts.total():>7,}  letters\n")
    return 0


# Showing


def _show(arguments: argparse.Namespace) -> int:
    place = stored_letters.read_place(arguments.place)
    if place is None:
        raise OptionError(f"{arguments.place!r} is no place of a letter, allowed: PARTITION/OFFSET, as `list` shows it")
    topic, unreadable = arguments.dead_letters_topic, list[str]()
    stored = stored_letters.letter_at(kafka_config(arguments), topic, place, unreadable)
    if stored is None:
        problem = unreadable[0] if unreadable else f"{arguments.place}: there is no such record"
        sys.stderr.write(f"error: dead letters topic {topic!r}: {one_line(problem)}\n")
        return 1
    document = letter_document(stored, _signer(arguments))
    if arguments.json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.writelines(one_line(f"{name}: {value}") + "\n" for name, value in letter_fields("", document))
    return 0


# Redriving


def _redrive(arguments: argparse.Namespace) -> int:
    if arguments.rate is not None and not 0 < arguments.rate < float("inf"):
        raise OptionError(f"--rate is {arguments.rate}, allowed: a number above 0 [letters a second]")
    for reason in FAILS_AGAIN.intersection(arguments.reason):
        raise OptionError(f"--reason is {reason!r}, of which the same bytes would fail again: it is not redriven")
    settings = RedriveSettings(
        arguments.dead_letters_topic,
        arguments.events_topic,
        arguments.control_topic,
        _signer(arguments),
        arguments.accept_unsigned,
        arguments.again,
        arguments.rate,
    )
    config, selected = kafka_config(arguments), _letter_filter(arguments)
    writer = open_writer(config, settings) if arguments.execute else None
    redrive = Redrive(config, settings, selected, arguments.limit)
    plan = redrive.plan()
    if NEEDS_CONTROL_TOPIC in plan.skipped_first:
        place = plan.skipped_first[NEEDS_CONTROL_TOPIC].place
        raise OptionError(f"--control_topic is missing: letter {place} has an action, which is sent again through it")
    if not arguments.json:
        sys.stdout.writelines(f"{line}\n" for line in plan_lines(plan))
        sys.stdout.flush()
    _warn(plan.unreadable)
    result = None if writer is None else _send(redrive, plan, writer)
    if arguments.json:
        sys.stdout.write(json.dumps(plan_document(plan, result)) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in result_lines(result))
    if result is not None and result.stopped is not None:
        sys.stderr.write(f"error: {one_line(result.stopped)}\n")
    return 1 if result is not None and (result.failed or result.stopped) else 0


def _send(redrive: Redrive, plan: Plan, writer: Writer) -> RedriveResult:
    progress = Progress("redrive", sys.stderr)
    try:
        return redrive.send(plan, writer, lambda share, result: progress.show(share, str(result)))
    finally:
        progress.end()
