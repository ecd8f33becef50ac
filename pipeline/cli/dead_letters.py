"""``event-trigger dead-letters``: see what could not be handled, and send it again, without Flink or Beam."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from pipeline.cli.parameters import DEAD_LETTERS_TOPIC, EVENTS_TOPIC, Brokers, Count, Name, Number, Time, Topic
from pipeline.console import Progress, complain, did_you_mean, out, out_json, warn
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
from pipeline.kafka.topics import existing_topic
from pipeline.timestamps import read_time
from transforms.adapters.letter_keys import letter_signer
from transforms.domain.base.secret_references import ALLOWED, is_reference
from transforms.domain.events.dead_letter import FAILS_AGAIN, STAGES
from transforms.domain.events.letter_signature import LetterSigner

_UNREADABLE_SHOWN: Final = 20


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Letters:
    """Where letters are, and how their signatures are checked.

    Args:
        dead_letters_topic: as the pipeline's.
        dead_letters_key: as the pipeline's; checks signatures.
    """

    dead_letters_topic: Topic = DEAD_LETTERS_TOPIC
    dead_letters_key: Annotated[str | None, Parameter(metavar="REFERENCE")] = None
    brokers: Brokers = Brokers()  # noqa: RUF009 - frozen

    def signer(self) -> LetterSigner:
        """The signer with the keys that the reference names.

        Raises:
            OptionError: it is no reference.
        """
        if self.dead_letters_key is not None and not is_reference(self.dead_letters_key):
            raise OptionError(f"--dead_letters_key is no reference, allowed: {ALLOWED}")
        return letter_signer(self.dead_letters_key)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which letters.

    Args:
        reason: only of this reason; may be repeated.
        rule: only of this rule; may be repeated.
        destination: only of this destination; may be repeated.
        since: only letters written from then on, as 2024-01-01T00:00Z.
        until: only letters written before.
        limit: only so many, the first ones.
    """

    reason: tuple[Name, ...] = ()
    rule: tuple[Name, ...] = ()
    destination: tuple[Name, ...] = ()
    since: Time | None = None
    until: Time | None = None
    limit: Count | None = None

    def filter(self) -> LetterFilter:
        """The filter of the flags.

        Raises:
            OptionError: a value is not allowed.
        """
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit is {self.limit}, allowed: a number from 1 on")
        for reason in self.reason:
            if reason not in STAGES:
                hint = did_you_mean(reason, STAGES)
                raise OptionError(f"--reason is {reason!r}, {hint or 'allowed: ' + ', '.join(STAGES)}")
        since_ms, until_ms = read_time("since", self.since), read_time("until", self.until)
        return LetterFilter(self.reason, self.rule, self.destination, since_ms, until_ms)


@contextmanager
def _read(letters: Letters, selection: Selection, unreadable: list[str]) -> Iterator[Iterator[StoredLetter]]:
    """The selected letters; ``unreadable`` gets a message for each other record."""
    topic, selected = letters.dead_letters_topic, selection.filter()
    description = f"dead letters topic {topic!r}"
    with existing_topic(letters.brokers.config(), topic, description, selected.since_ms) as reader:
        rules, destinations = set[str | None](), set[str | None]()

        def read() -> Iterator[StoredLetter]:
            for stored in stored_letters.stored_letters(reader.records(), unreadable):
                rules.add(stored.letter.rule)
                destinations.add(stored.destination)
                yield stored

        yield itertools.islice(filter(selected.matches, read()), selection.limit)
        if selection.limit is None:
            _warn_of_typos("rule", selection.rule, rules)
            _warn_of_typos("destination", selection.destination, destinations)


def _warn_of_typos(option: str, names: Sequence[str], known: Collection[str | None]) -> None:
    for name in names:
        hint = "" if name in known else did_you_mean(name, filter(None, known), f"--{option}=")
        if hint:
            warn(f"no letter has --{option}={name}: {hint}")


def _warn(unreadable: Sequence[str]) -> None:
    for problem in unreadable[:_UNREADABLE_SHOWN]:
        warn(problem)
    if len(unreadable) > _UNREADABLE_SHOWN:
        warn(f"{len(unreadable) - _UNREADABLE_SHOWN:,} further records are no dead letters")


def list_letters(*, letters: Letters = Letters(), selection: Selection = Selection(), json: bool = False) -> None:
    """Print one line a letter, and how many there are of each reason.

    0: listed; 2: an option or topic cannot be used.

    Args:
        json: print JSON.
    """
    counts: Counter[str] = Counter()
    listed = []
    unreadable: list[str] = []
    signer = letters.signer()
    with _read(letters, selection, unreadable) as found:
        for stored in found:
            counts[stored.letter.reason] += 1
            if json:
                listed.append(letter_summary(stored, signer))
            else:
                out(letter_line(stored, signer))
    _warn(unreadable)
    if json:
        out_json({"letters": listed, "reasons": counts})
        return
    for reason, count in counts.most_common():
        out(f"{count:>7,}  {reason}")
    out(f"{counts.total():>7,}  letters")


def show(place: str, /, *, letters: Letters = Letters(), json: bool = False) -> int:
    """Print everything of one letter.

    0: shown; 1: there is no such letter; 2: an option or topic cannot be used.

    Args:
        place: PARTITION/OFFSET, as `list` shows it.
        json: print JSON.
    """
    parsed = stored_letters.read_place(place)
    if parsed is None:
        raise OptionError(f"{place!r} is no place of a letter, allowed: PARTITION/OFFSET, as `list` shows it")
    topic, unreadable = letters.dead_letters_topic, list[str]()
    stored = stored_letters.letter_at(letters.brokers.config(), topic, parsed, unreadable)
    if stored is None:
        problem = unreadable[0] if unreadable else f"{place}: there is no such record"
        complain(f"dead letters topic {topic!r}: {problem}")
        return 1
    document = letter_document(stored, letters.signer())
    if json:
        out_json(document)
    else:
        for name, value in letter_fields("", document):
            out(f"{name}: {value}")
    return 0


def redrive(
    *,
    letters: Letters = Letters(),
    selection: Selection = Selection(),
    events_topic: Topic = EVENTS_TOPIC,
    control_topic: Topic | None = None,
    rate: Number | None = None,
    execute: bool = False,
    dry_run: Annotated[bool, Parameter(show=False)] = False,
    accept_unsigned: bool = False,
    again: bool = False,
    json: bool = False,
) -> int:
    """Show what would be sent again and where to; --execute sends it: actions with the same id, events as they were.

    0: done; 1: something was not sent; 2: an option or topic cannot be used.

    Args:
        events_topic: as the pipeline's.
        control_topic: as the pipeline's; required if there are actions among the letters.
        rate: at most so many a second; default: no limit.
        execute: send what is shown; without it nothing is sent.
        dry_run: what it does anyway without --execute.
        accept_unsigned: also letters without a valid signature, which anybody who may write to the topic may have
            written.
        again: also letters that were redriven before.
        json: print JSON.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise OptionError(f"--rate is {rate}, allowed: a number above 0 [letters a second]")
    if dry_run and execute:
        raise OptionError("--dry_run and --execute are both given, allowed: one of them")
    for reason in FAILS_AGAIN.intersection(selection.reason):
        raise OptionError(f"--reason is {reason!r}, of which the same bytes would fail again: it is not redriven")
    settings = RedriveSettings(
        letters.dead_letters_topic, events_topic, control_topic, letters.signer(), accept_unsigned, again, rate
    )
    config, selected = letters.brokers.config(), selection.filter()
    writer = open_writer(config, settings) if execute else None
    redriving = Redrive(config, settings, selected, selection.limit)
    plan = redriving.plan()
    if NEEDS_CONTROL_TOPIC in plan.skipped_first:
        place = plan.skipped_first[NEEDS_CONTROL_TOPIC].place
        raise OptionError(f"--control_topic is missing: letter {place} has an action, which is sent again through it")
    if not json:
        for line in plan_lines(plan):
            out(line)
    _warn(plan.unreadable)
    result = None if writer is None else _send(redriving, plan, writer)
    if json:
        out_json(plan_document(plan, result))
    else:
        for line in result_lines(result):
            out(line)
    if result is not None and result.stopped is not None:
        complain(result.stopped)
    return 1 if result is not None and (result.failed or result.stopped) else 0


def _send(redriving: Redrive, plan: Plan, writer: Writer) -> RedriveResult:
    progress = Progress("redrive")
    try:
        return redriving.send(plan, writer, lambda share, result: progress.show(share, str(result)))
    finally:
        progress.end()
