"""The report of ``rules backtest``, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import orjson

from pipeline.console import table_lines
from pipeline.timestamps import shown_time
from transforms.domain.simulation.backtest import Report, RuleDifference, RuleReport

# Shown even if all rules have 0.
_ALWAYS: Final = ("allowed", "fired")
# Heading and name in ``RuleReport.counts``.
_COLUMNS: Final = (
    ("allowed", "allowed"),
    ("inactive", "inactive"),
    ("begun", "begun"),
    ("followed", "followed"),
    ("timed out", "timed_out"),
    ("cooldown", "cooled_down"),
    ("cap", "capped"),
    ("group cap", "capped_by_group"),
    ("outranked", "outranked"),
    ("suppressed", "suppressed"),
    ("expired", "expired"),
    ("fired", "fired"),
    ("held", "held"),
    ("dropped", "dropped"),
    ("recheck", "recheck_refused"),
    ("errors", "error"),
)
# Why a rule does not send what it would, by the names of columns.
_LOSSES: Final = ("capped_by_group", "outranked", "suppressed", "expired")


def report_text(report: Report, seconds: float) -> str:
    """The report as text: a top line, a line for each rule, and remarks."""
    lines = [_top_line(report, seconds)]
    if report.dead_letters:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in report.dead_letters.items())
        lines.append(f"dead letters: {sum(report.dead_letters.values()):,} ({reasons})")
    fetches = [
        f"{outcome} {report.counts[f'users_{outcome}']:,}"
        for outcome in ("fetched", "unknown", "unavailable")
        if report.counts.get(f"users_{outcome}")
    ]
    if fetches:
        lines.append(f"profiles loaded: {', '.join(fetches)}")
    if report.counts.get("duplicates"):
        lines.append(f"duplicates: {report.counts['duplicates']:,}, not evaluated")
    shown = [
        (heading, name)
        for heading, name in _COLUMNS
        if name in _ALWAYS or any(rule.counts.get(name) for rule in report.rules)
    ]
    rows = [["rule", "evaluated", *(heading for heading, _ in shown), "users"]]
    rows += [
        [
            f"{rule.rule} v{rule.version}",
            f"{rule.evaluated:,}",
            *(f"{rule.counts.get(name, 0):,}" for _, name in shown),
            f"{rule.users:,}",
        ]
        for rule in report.rules
    ]
    lines += ["", *table_lines(rows)]
    lines += [line for rule in report.rules for line in _remarks(rule)]
    return "\n".join(lines) + "\n"


def _top_line(report: Report, seconds: float) -> str:
    speed = f"{report.events / seconds:,.0f} events/s" if seconds > 0 else ""
    if report.first_ms is None or report.last_ms is None:
        return "no events"
    span = str(timedelta(milliseconds=report.last_ms - report.first_ms)).partition(".")[0]
    return (
        f"{report.events:,} events of {report.users:,} users, {shown_time(report.first_ms)} to "
        f"{shown_time(report.last_ms)} ({span}); {speed}"
    )


def _remarks(rule: RuleReport) -> list[str]:
    remarks = []
    if rule.first_error is not None:
        remarks.append(f"{rule.rule}: first error: {rule.first_error}")
    if rule.open_at_end:
        remarks.append(f"{rule.rule}: sequences open when the recording ended: {rule.open_at_end:,}")
    if rule.held_at_end:
        remarks.append(f"{rule.rule}: actions held when the recording ended: {rule.held_at_end:,}")
    return remarks


def comparison_lines(differences: Sequence[RuleDifference], before: str, after: str) -> list[str]:
    """What the second rule set changes, a line for each rule; ``-`` if a set does not have the rule."""
    rows = [["rule", "fired before", "after", "change", "users before", "after", "gained", "lost"]]
    for difference in differences:
        sides = (difference.before, difference.after)
        fired = [0 if side is None else side.counts.get("fired", 0) for side in sides]
        users = [0 if side is None else side.users for side in sides]
        cells = [
            ["-" if side is None else f"{count:,}" for side, count in zip(sides, counts, strict=True)]
            for counts in (fired, users)
        ]
        change = f"{fired[1] - fired[0]:+,}" if fired[0] != fired[1] else "0"
        gained, lost = f"{difference.users_gained:,}", f"{difference.users_lost:,}"
        rows.append([difference.rule, *cells[0], change, *cells[1], gained, lost])
    return [f"before: {before}, after: {after}", *table_lines(rows), *_losses(differences)]


def _losses(differences: Sequence[RuleDifference]) -> list[str]:
    """How often what a rule would send is not sent, for the reasons of which the numbers differ."""
    rows = []
    for difference in differences:
        sides = (difference.before, difference.after)
        for heading, name in (column for column in _COLUMNS if column[1] in _LOSSES):
            counts = [0 if side is None else side.counts.get(name, 0) for side in sides]
            if counts[0] != counts[1]:
                rows.append(
                    [difference.rule, heading, *(f"{count:,}" for count in counts), f"{counts[1] - counts[0]:+,}"]
                )
    return ["", *table_lines([["rule", "not sent", "before", "after", "change"], *rows], left=2)] if rows else []


def report_json(report: Report, seconds: float, differences: Sequence[RuleDifference] | None) -> bytes:
    """The report and the differences as JSON; times in ms, ``firings`` as pairs of a bucket's start and its count."""
    document: dict[str, Any] = {"seconds": round(seconds, 3), **asdict(report)}
    if differences is not None:
        document["compared"] = [asdict(difference) for difference in differences]
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
