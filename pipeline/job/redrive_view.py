"""What a redrive would do and did, for the command and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pipeline.console import one_line
from pipeline.job.redriving import ACTIONS, EVENTS, Plan, PlanGroup, RedriveResult
from pipeline.job.stored_letters import StoredLetter

DUPLICATES: Final = (
    "of these events had been handled but for a rule: as long as one is in its user's history it is a duplicate and "
    "does nothing (docs/dead-letters.md, Events are sent again)"
)
_SAMPLE_CHARS: Final = 200
_MAX_GROUPS: Final = 50


def plan_lines(plan: Plan) -> Iterator[str]:
    """What would be sent where, with samples, and what would not, and why."""
    yield f"would be sent: {plan.of_kind(ACTIONS):,} actions, {plan.of_kind(EVENTS):,} events"
    for group, count in plan.counts.most_common(_MAX_GROUPS):
        yield f"{count:>7,}  {group_line(group)}"
        for stored in plan.samples[group]:
            yield f"         {sample_line(stored)}"
    if len(plan.counts) > _MAX_GROUPS:
        yield f"         and {len(plan.counts) - _MAX_GROUPS:,} more kinds of letters: filter by reason or destination"
    if plan.may_be_duplicates:
        yield f"  {plan.may_be_duplicates:,} {DUPLICATES}"
    for cause, count in plan.skipped.most_common():
        yield f"skipped: {count:,}: {one_line(cause)}"


def result_lines(result: RedriveResult | None) -> Iterator[str]:
    """What was sent; None was a dry run."""
    if result is None:
        yield "nothing was sent: --execute sends it"
        return
    yield f"sent: {result.sent[ACTIONS]:,} actions, {result.sent[EVENTS]:,} events"
    for cause, count in result.failed.most_common():
        yield f"failed: {count:,}: {one_line(cause)}"


def group_line(group: PlanGroup) -> str:
    """How the letters of a group are sent."""
    webhook = "" if group.destination is None else f"webhook to {group.destination}, through "
    return one_line(f"{group.reason}  {group.origin}  {webhook}topic {group.topic}")


def sample_line(stored: StoredLetter) -> str:
    """A letter, and the beginning of what would be sent."""
    letter = stored.letter
    value = letter.value if letter.action is None else letter.action.body
    text = value[:_SAMPLE_CHARS].decode(errors="replace") + ("…" if len(value) > _SAMPLE_CHARS else "")
    user = "" if stored.user is None else f"  user {stored.user[:_SAMPLE_CHARS]}"
    return one_line(f"{stored.place}{user}  {text}")


def plan_document(plan: Plan, result: RedriveResult | None) -> dict[str, Any]:
    """The plan and what was sent, as JSON; a dry run has sent nothing."""
    groups = [
        {
            "kind": group.kind,
            "topic": group.topic,
            "reason": group.reason,
            "destination": group.destination,
            "origin": group.origin,
            "letters": count,
            "samples": [stored.place for stored in plan.samples[group]],
        }
        for group, count in plan.counts.most_common()
    ]
    sent = RedriveResult() if result is None else result
    return {
        "dry_run": result is None,
        "would_send": {ACTIONS: plan.of_kind(ACTIONS), EVENTS: plan.of_kind(EVENTS)},
        "groups": groups,
        "may_be_duplicates": plan.may_be_duplicates,
        "skipped": plan.skipped,
        "sent": {ACTIONS: sent.sent[ACTIONS], EVENTS: sent.sent[EVENTS]},
        "failed": sent.failed,
        "stopped": sent.stopped,
    }
