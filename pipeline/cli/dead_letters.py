"""``python -m pipeline dead-letters``: see what could not be handled, and send it again, without Flink or Beam."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipeline.cli.command_line import CommandGroup, add_kafka_options, add_topic_option, kafka_config
from pipeline.cli.progress import Progress
from pipeline.console import one_line
from pipeline.errors import OptionError
from pipeline.job import redriving
from pipeline.job.dead_letter_view import letter_document, letter_fields, letter_summary
from pipeline.job.redriving import ACTIONS, EVENTS, LetterFilter, RedriveResult, StoredLetter
from pipeline.kafka.topics import TopicReader, existing_topic
from pipeline.timestamps import read_time, shown_time

_DUPLICATES: Final = (
    "of these events had been handled but for a rule: as long as one is in its user's history it is a duplicate and "
    "does nothing (docs/dead-letters.md, Events are sent again)"
)


def main(argv: Sequence[str]) -> int:
    """Run one of the commands; 0 done, 1 something was not sent or is not there, 2 an argument or topic is no good."""
    parser = CommandGroup("dead-letters", __doc__)
    list_ = parser.add("list", _list, "one line a letter, and how many there are of each reason")
    show = parser.add("show", _show, "everything of one letter")
    show.add_argument("place", metavar="PARTITION/OFFSET", help="as `list` shows it")
    redrive = parser.add("redrive", _redrive, "send letters again: actions with the same id, events as they were")
    redrive.add_argument(
        "--control_topic", metavar="TOPIC", help="as the pipeline's; required if there are actions among the letters"
    )
    redrive.add_argument("--rate", type=float, metavar="NUMBER", help="at most so many a second; default: no limit")
    redrive.add_argument("--dry_run", action="store_true", help="count, send nothing")
    for command in (list_, redrive):
        _add_filters(command)
    for command in (list_, show, redrive):
        add_topic_option(command, "dead_letters_topic")
        add_kafka_options(command)
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
        letters = filter(selected.matches, redriving.stored_letters(reader.records(), unreadable))
        yield reader, itertools.islice(letters, arguments.limit)


def _warn(unreadable: Sequence[str]) -> None:
    for problem in unreadable:
        sys.stderr.write(f"warning: {one_line(problem)}\n")


# Listing


def _list(arguments: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    listed = []
    unreadable: list[str] = []
    with _letters(arguments, _letter_filter(arguments), unreadable) as (_, letters):
        for stored in letters:
            counts[stored.letter.reason] += 1
            if arguments.json:
                listed.append(letter_summary(stored))
            else:
                sys.stdout.write(_line(stored) + "\n")
    _warn(unreadable)
    if arguments.json:
        sys.stdout.write(json.dumps({"letters": listed, "reasons": counts}) + "\n")
        return 0
    sys.stdout.writelines(f"{count:>7,}  {one_line(reason)}\n" for reason, count in counts.most_common())
    sys.stdout.write(f"{counts.total():>7,}  letters\n")
    return 0


def _line(stored: StoredLetter) -> str:
    letter = stored.letter
    names = ("rule", letter.rule), ("user", stored.user), ("destination", stored.destination)
    subjects = "".join(f"  {name} {value}" for name, value in names if value is not None)
    return one_line(f"{stored.place}  {shown_time(stored.at_ms)}  {letter.reason}{subjects}  {letter.detail}")


# Showing


def _show(arguments: argparse.Namespace) -> int:
    place = redriving.read_place(arguments.place)
    if place is None:
        raise OptionError(f"{arguments.place!r} is no place of a letter, allowed: PARTITION/OFFSET, as `list` shows it")
    topic, unreadable = arguments.dead_letters_topic, list[str]()
    stored = redriving.letter_at(kafka_config(arguments), topic, place, unreadable)
    if stored is None:
        problem = unreadable[0] if unreadable else f"{arguments.place}: there is no such record"
        sys.stderr.write(f"error: dead letters topic {topic!r}: {one_line(problem)}\n")
        return 1
    document = letter_document(stored)
    if arguments.json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.writelines(one_line(f"{name}: {value}") + "\n" for name, value in letter_fields("", document))
    return 0


# Redriving


def _redrive(arguments: argparse.Namespace) -> int:
    if arguments.rate is not None and not 0 < arguments.rate < float("inf"):
        raise OptionError(f"--rate is {arguments.rate}, allowed: a number above 0 [letters a second]")
    selected = _letter_filter(arguments)
    if arguments.control_topic is None:
        _check_for_actions(arguments, selected)
    config = kafka_config(arguments)
    redriver = redriving.open_redriver(config, arguments.control_topic, arguments.rate, arguments.dry_run)
    unreadable: list[str] = []
    progress = Progress("redrive", sys.stderr)
    try:
        with _letters(arguments, selected, unreadable) as (reader, letters):
            for number, stored in enumerate(letters, 1):
                redriver.send(stored.letter)
                share = max(reader.share_read, number / arguments.limit if arguments.limit else 0.0)
                progress.show(share, str(redriver.result))
    finally:  # after an error or Ctrl-C, too, the command reports what it has sent
        redriver.flush()
        progress.end()
        _warn(unreadable)
        _print_result(arguments, redriver.result)
    return 1 if redriver.result.failed else 0


def _check_for_actions(arguments: argparse.Namespace, selected: LetterFilter) -> None:
    """Check before anything is sent that no selected letter has an action, which would need a control topic.

    Raises:
        OptionError: a letter has one.
    """
    with _letters(arguments, selected, []) as (_, letters):
        action = next((stored for stored in letters if stored.letter.action is not None), None)
    if action is not None:
        raise OptionError(
            f"--control_topic is missing: letter {action.place} has an action, which is sent again through it"
        )


def _print_result(arguments: argparse.Namespace, result: RedriveResult) -> None:
    sent = result.sent
    if arguments.json:
        counts = {
            "dry_run": arguments.dry_run,
            "sent": {ACTIONS: sent[ACTIONS], EVENTS: sent[EVENTS]},
            "may_be_duplicates": result.may_be_duplicates,
            "skipped": result.skipped,
            "failed": result.failed,
        }
        sys.stdout.write(json.dumps(counts) + "\n")
        return
    word = "would be sent" if arguments.dry_run else "sent"
    sys.stdout.write(f"{word}: {sent[ACTIONS]:,} actions, {sent[EVENTS]:,} events\n")
    if result.may_be_duplicates:
        sys.stdout.write(f"  {result.may_be_duplicates:,} {_DUPLICATES}\n")
    for heading, counter in (("skipped", result.skipped), ("failed", result.failed)):
        sys.stdout.writelines(f"{heading}: {count:,}: {one_line(cause)}\n" for cause, count in counter.most_common())
