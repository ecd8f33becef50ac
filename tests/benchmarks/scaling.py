"""Draws docs/images/scaling-day.png: a day of the large tier whose TaskManagers follow the load, as infra/scaling.py
calculates it. ``python -m tests.benchmarks.scaling``.
"""

from __future__ import annotations

import sys
from itertools import accumulate
from typing import Any

from pipeline.cli.capacity.costs import read_prices
from pipeline.cli.capacity.model import SLOTS, TIERS, Plan, read_figures
from tests.benchmarks.figures import pyplot, save
from tests.capacity_docs import ELASTIC, LOADS, simulated_day
from tests.integration.jobs import ROOT

PLOT = ROOT / "docs" / "images" / "scaling-day.png"


def main() -> None:
    """Draw it."""
    figures, _ = read_figures()
    tier, price = TIERS[-1], read_prices().values[TIERS[-1].instance_type]
    minutes, _ = simulated_day(ELASTIC, figures)
    fixed = Plan(LOADS["large"], figures, tier).task_managers
    hours = [number / 60 for number in range(len(minutes))]
    figure, axes = pyplot().subplots(5, 1, figsize=(9, 10), sharex=True)

    def draw(axis: Any, title: str, lines: dict[str, list[float]]) -> None:
        for label, values in lines.items():
            axis.plot(hours, values, label=label, linewidth=1.4)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend(fontsize=8, loc="upper left")

    draw(axes[0], "load [thousand events/s]", {"": [minute.events_per_second / 1000 for minute in minutes]})
    draw(
        axes[1],
        "task slots",
        {
            "paid for": [float(minute.paid * SLOTS) for minute in minutes],
            "running the job": [float(minute.running * SLOTS) for minute in minutes],
            f"fixed, as capacity says: {fixed} TaskManagers": [float(fixed * SLOTS)] * len(minutes),
        },
    )
    draw(
        axes[2],
        "CPU of a Python worker [% of a core]",
        {
            "worker": [minute.busy_percent for minute in minutes],
            "more above": [ELASTIC.out_percent] * len(minutes),
            "fewer below": [ELASTIC.in_percent] * len(minutes),
        },
    )
    draw(axes[3], "lag [s]", {"": [minute.lag_s for minute in minutes]})
    draw(
        axes[4],
        "cost of TaskManagers since midnight [USD]",
        {
            "elastic": list(accumulate(minute.paid * price / 60 for minute in minutes)),
            f"fixed, {fixed}": list(accumulate(fixed * price / 60 for _ in minutes)),
            f"fixed, {tier.min_count}, the tier's fewest": list(
                accumulate(tier.min_count * price / 60 for _ in minutes)
            ),
        },
    )
    axes[-1].set_xlim(0, 24)
    axes[-1].set_xticks(range(0, 25, 2))
    axes[-1].set_xlabel("hour of the day")
    save(figure, PLOT)
    sys.stdout.write(f"{PLOT}\n")


if __name__ == "__main__":
    main()
