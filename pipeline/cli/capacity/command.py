"""``python -m pipeline capacity``: prints how many slots, machines and partitions a load needs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.cli.capacity import model
from pipeline.cli.capacity.report import plan_document, plan_text
from pipeline.cli.command_line import RaisingParser, exit_code_of
from pipeline.errors import OptionError

_DESCRIPTION: Final = """\
Says how many slots, TaskManagers, partitions and how much memory and network a load needs, from figures that were
measured on a small machine: docs/capacity.md has the formulae, and what of them has been seen.
0: there is a tier for it; 1: no tier is large enough, or --parallelism is too low; 2: an option cannot be used."""
# Option -> lowest and highest value, and unit.
_NUMBERS: Final = {
    "events_per_second": (1, 100_000_000, "events/s"),
    "users": (1, 10_000_000_000, "users in the state"),
    "event_bytes": (1, 1_000_000, "bytes"),
    "actions_per_event": (0, 100, "actions"),
    "action_bytes": (1, 1_000_000, "bytes"),
    "bytes_per_user": (1, 16_000_000, "bytes"),
    "parallelism": (1, 32_768, "slots, a whole number"),
}
# Option -> the figure that it replaces.
_FIGURES: Final = {
    "event_bytes": "event_bytes",
    "action_bytes": "action_bytes",
    "bytes_per_user": "memory_bytes_per_user",
}


def main(argv: Sequence[str]) -> int:
    """Print the plan; returns the exit code."""
    return exit_code_of(lambda: _capacity(argv))


def _capacity(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    plan = _plan(parser, arguments)
    sys.stdout.write(f"{json.dumps(plan_document(plan))}\n" if arguments.json else plan_text(plan))
    return 0 if plan.is_enough and plan.fits_tier else 1


def _parser() -> argparse.ArgumentParser:
    parser = RaisingParser("capacity", "--events_per_second=NUMBER --users=NUMBER [OPTIONS]", _DESCRIPTION)
    parser.add_argument("--events_per_second", metavar="NUMBER", help="at the busiest time")
    parser.add_argument("--users", metavar="NUMBER", help="in the state: with an event within --state_ttl_seconds")
    parser.add_argument("--event_bytes", metavar="NUMBER", help="of an event, JSON (default: as measured)")
    parser.add_argument("--actions_per_event", metavar="NUMBER", default="0.05", help="Kafka actions (default: 0.05)")
    parser.add_argument("--action_bytes", metavar="NUMBER", help="of an action, JSON (default: as measured)")
    parser.add_argument("--bytes_per_user", metavar="NUMBER", help="of a worker's memory (default: as measured)")
    parser.add_argument("--tier", metavar="NAME", help="small, medium or large (default: the smallest that carries it)")
    parser.add_argument("--parallelism", metavar="NUMBER", help="slots that there are (default: as many as it takes)")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="measured figures (default: this release's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _plan(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> model.Plan:
    """The plan for the load and the machines that the arguments describe.

    Raises:
        OptionError: an argument is missing or not allowed.
        FiguresError: the file of figures cannot be used.
    """
    numbers = {name: _number(name, getattr(arguments, name)) for name in _NUMBERS}
    for name in ("events_per_second", "users"):
        if numbers[name] is None:
            raise OptionError(
                f"--{name} is missing: give a number; python -m pipeline capacity --help lists what there is"
            )
    figures, _ = model.read_figures(arguments.figures or model.FIGURES_FILE)
    given = {figure: value for name, figure in _FIGURES.items() if (value := numbers[name]) is not None}
    figures = replace(figures, **given)
    load = model.Load(numbers["events_per_second"] or 0, numbers["users"] or 0, numbers["actions_per_event"] or 0)
    parallelism = None if numbers["parallelism"] is None else round(numbers["parallelism"])
    return model.choose(load, figures, _tiers(arguments.tier), parallelism)


def _tiers(name: str | None) -> Sequence[model.Tier]:
    tiers = [tier for tier in model.TIERS if name in (None, tier.name)]
    if not tiers:
        raise OptionError(f"--tier is {name!r}, allowed: {', '.join(tier.name for tier in model.TIERS)}")
    return tiers


def _number(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    least, most, unit = _NUMBERS[name]
    allowed = f"allowed: {least:,} to {most:,} {unit}"
    try:
        number = float(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, {allowed}") from None
    if not least <= number <= most or (name == "parallelism" and number != round(number)):
        raise OptionError(f"--{name} is {text}, {allowed}")
    return number
