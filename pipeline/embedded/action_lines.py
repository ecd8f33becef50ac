"""Actions as lines, for embedded runs and the demo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.console import one_line
from transforms.domain.rules.model import Action, DebugAction, KafkaAction, Rule
from transforms.domain.shard import decisions
from transforms.domain.shard.decisions import Decision

# Decisions about an action, which are shown.
_SHOWN: Final = frozenset({decisions.FIRED, decisions.HELD, decisions.RELEASED})
_LONGEST: Final = 60


class ActionLines:
    """Lines about actions, with aligned columns."""

    def __init__(self, rules: Iterable[Rule], actions_topic: str) -> None:
        self._targets = {
            (rule.name, action.name): _target(action, actions_topic) for rule in rules for action in rule.actions
        }
        self._width = max((len(rule) for rule, _ in self._targets), default=0)

    def line(self, decision: Decision) -> str | None:
        """The line of a decision; None for decisions that are about no action."""
        if decision.decision not in _SHOWN or decision.action is None:
            return None
        user_id = shortened(decision.user_id, _LONGEST)
        # Of an action that was held, the log has only the event's id.
        event = shortened(decision.event_name or decision.event_id, _LONGEST)
        target = self._targets.get((decision.rule, decision.action), decision.action)
        return f"{decision.decision.upper():<5} {decision.rule:<{self._width}}  {user_id:<12}  {event:<12}  {target}"


def _target(action: Action, actions_topic: str) -> str:
    if isinstance(action, DebugAction):
        return action.type
    if isinstance(action, KafkaAction):
        return f"{action.type} {action.topic or actions_topic}"
    return f"{action.type} {action.destination}"


def shortened(text: str, longest: int) -> str:
    """The text, escaped, of at most ``longest`` characters."""
    text = one_line(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
