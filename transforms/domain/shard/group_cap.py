"""The cap of a group: whether it lets a rule speak, and what it counts (docs/rules.md, "Groups")."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.domain.rules.frequency import Zone, cap_stops, kept_until_ms
from transforms.domain.rules.model import Group, Rule
from transforms.domain.rules.state import GROUP
from transforms.domain.shard import decisions
from transforms.domain.shard.facts import RuleFired
from transforms.domain.shard.firing import span_of, stopped
from transforms.domain.shard.step_scope import StepScope


@dataclass(frozen=True, slots=True)
class Winner:
    """The rule that a group picked first, and its first action."""

    rule: str
    action_id: str


def lost(
    scope: StepScope,
    user_id: str,
    name: str,
    group: Group,
    zone: Zone,
    times: tuple[int, int],
    winner: Winner | None,
) -> tuple[str, str, dict[str, str]] | None:
    """Decision, detail and further fields if a rule does not speak; ``winner`` has, of the same event or time."""
    by = None
    if group.cap is not None:
        slot = scope.state.rule_states.of(user_id).fired.get((name, GROUP))
        by = cap_stops(slot, group.cap, zone, *times)
    if winner is not None and (by is not None or group.within is not None):
        more = {"group": name, "winner": winner.rule, "winner_action_id": winner.action_id}
        return decisions.OUTRANKED, f"group {name}: {winner.rule} was picked, action {winner.action_id}", more
    if by is None or group.cap is None:
        return None
    detail = stopped(f"group {name}: {group.cap.count} {span_of(group.cap)}", by)
    return decisions.GROUP_CAPPED, detail, {"group": name}


def remember(scope: StepScope, user_id: str, name: str, group: Group, zone: Zone, times: tuple[int, int]) -> None:
    """Have the group's cap count a firing."""
    if group.cap is None:
        return
    at_ms, received_ms = times
    until_ms = kept_until_ms(group.cap, zone, max(times)) + scope.settings.allowed_lateness_ms
    scope.record(RuleFired(user_id, name, GROUP, at_ms, group.cap.count, until_ms, received_ms - at_ms))


def count_loss(scope: StepScope, rule: Rule, decision: str) -> None:
    """Count that a group did not let a rule speak."""
    # Monitoring splits names of counters at their ends, where `group_capped` would be `capped` of another rule.
    outcome = "capped_by_group" if decision == decisions.GROUP_CAPPED else decision
    scope.count(rule, outcome, f"rules_{outcome}")
