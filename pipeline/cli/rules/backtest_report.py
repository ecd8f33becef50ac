"""The report of ``rules backtest``, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

import orjson

from pipeline.timestamps import shown_time
from transforms.domain.simulation.backtest import Report, RuleDifference, RuleReport

# Heading and name in ``RuleReport.counts``; those in the second list are shown if any rule has some.
_ALWAYS: Final = ("allowed", "fired")
_COLUMNS: Final = (
    ("allowed", "allowed"),
    ("begun", "begun"),
    ("followed", "followed"),
    ("timed out", "timed_out"),
    ("cooldown", "cooled_down"),
    ("cap", "capped"),
    ("fired", "fired"),
    ("held", "held"),
    ("errors", "error"),
)


def report_text(report: Report, seconds: float) -> str:
    """Top line, a line a rule, and what else is worth knowing."""
    lines = [_top_line(report, seconds)]
    if report.dead_letters:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in report.dead_letters.items())
        lines.append(f"dead letters: {sum(report.dead_letters.values()):,} ({reasons})")
    known = [
        f"{what} {report.counts[f'users_{what}']:,}"
        for what in ("fetched", "unknown", "unavailable")
        if report.counts.get(f"users_{what}")
    ]
    if known:
        lines.append(f"profiles loaded: {', '.join(known)}")
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
    lines += ["", *_table(rows)]
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


def comparison_text(differences: Sequence[RuleDifference], before: str, after: str) -> str:
    """What the second rule set changes, a line a rule; ``-`` where a set does not have it."""
    rows = [["rule", "fired before", "after", "change", "users before", "after", "gained", "lost"]]
    for one in differences:
        sides = (one.before, one.after)
        fired = [0 if side is None else side.counts.get("fired", 0) for side in sides]
        users = [0 if side is None else side.users for side in sides]
        shown = [["-" if side is None else f"{of[n]:,}" for n, side in enumerate(sides)] for of in (fired, users)]
        change = f"{fired[1] - fired[0]:+,}" if fired[0] != fired[1] else "0"
        rows.append([one.rule, *shown[0], change, *shown[1], f"{one.users_gained:,}", f"{one.users_lost:,}"])
    return "\n".join([f"before: {before}, after: {after}", *_table(rows)]) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def report_json(report: Report, seconds: float, differences: Sequence[RuleDifference] | None) -> bytes:
    """All of it; times in ms. ``firings`` are pairs of a bucket's start and its count."""
    document: dict[str, Any] = {"seconds": round(seconds, 3), **asdict(report)}
    if differences is not None:
        document["compared"] = [asdict(one) for one in differences]
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
