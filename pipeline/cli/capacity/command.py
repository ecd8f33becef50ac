"""``event-trigger capacity``: prints how many slots, machines and partitions a load needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

from cyclopts import Parameter

from pipeline.cli.capacity import costs, model
from pipeline.cli.capacity.report import plan_document, plan_text
from pipeline.cli.parameters import File, Name
from pipeline.console import out_json
from pipeline.errors import OptionError

Figure = Annotated[str | None, Parameter(metavar="NUMBER")]
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


def capacity(
    *,
    events_per_second: Figure = None,
    users: Figure = None,
    event_bytes: Figure = None,
    actions_per_event: Figure = "0.05",
    action_bytes: Figure = None,
    bytes_per_user: Figure = None,
    tier: Name | None = None,
    parallelism: Figure = None,
    figures: File | None = None,
    prices: File | None = None,
    json: bool = False,
) -> int:
    """Say how many slots, TaskManagers, partitions, how much memory and network a load needs, and what it costs.

    The figures were measured on a small machine: docs/capacity.md has the formulae, and what of them has been seen.

    0: there is a tier for it; 1: no tier is large enough, or --parallelism is too low; 2: an option cannot be used.

    Args:
        events_per_second: at the busiest time.
        users: in the state: with an event within --state_ttl_seconds.
        event_bytes: of an event, JSON; default: as measured.
        actions_per_event: Kafka actions.
        action_bytes: of an action, JSON; default: as measured.
        bytes_per_user: of a worker's memory; default: as measured.
        tier: small, medium or large; default: the smallest that carries it.
        parallelism: slots that there are; default: as many as it takes.
        figures: measured figures; default: this release's.
        prices: of AWS, with their date; default: this release's.
        json: print JSON.
    """
    given = {
        "events_per_second": events_per_second,
        "users": users,
        "event_bytes": event_bytes,
        "actions_per_event": actions_per_event,
        "action_bytes": action_bytes,
        "bytes_per_user": bytes_per_user,
        "parallelism": parallelism,
    }
    numbers = {name: _number(name, text) for name, text in given.items() if text is not None}
    for name in ("events_per_second", "users"):
        if name not in numbers:
            raise OptionError(f"--{name} is missing: give a number; event-trigger capacity --help lists what there is")
    measured, _ = model.read_figures(figures or model.FIGURES_FILE)
    measured = replace(measured, **{figure: numbers[name] for name, figure in _FIGURES.items() if name in numbers})
    load = model.Load(numbers["events_per_second"], numbers["users"], numbers["actions_per_event"])
    slots = round(numbers["parallelism"]) if "parallelism" in numbers else None
    plan = model.choose(load, measured, _tiers(tier), slots)
    priced = costs.read_prices(prices or costs.PRICES_FILE)
    if json:
        out_json(plan_document(plan, priced))
    else:
        sys.stdout.write(plan_text(plan, priced))
    return 0 if plan.is_enough and plan.fits_tier else 1


def _tiers(name: str | None) -> Sequence[model.Tier]:
    tiers = [tier for tier in model.TIERS if name in (None, tier.name)]
    if not tiers:
        raise OptionError(f"--tier is {name!r}, allowed: {', '.join(tier.name for tier in model.TIERS)}")
    return tiers


def _number(name: str, text: str) -> float:
    least, most, unit = _NUMBERS[name]
    allowed = f"allowed: {least:,} to {most:,} {unit}"
    try:
        number = float(text)
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, {allowed}") from None
    if not least <= number <= most or (name == "parallelism" and number != round(number)):
        raise OptionError(f"--{name} is {text}, {allowed}")
    return number
