"""An event that fires rules, and the actions that it makes of them: bodies, ids, and what is too large."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from transforms.domain.events import dead_letter as reasons
from transforms.domain.events.record import MAX_PRODUCED_BYTES, Record
from transforms.domain.rules import templates
from transforms.domain.rules.actions import FiredAction, action_id, enriched_event
from transforms.domain.rules.begun_conditions import Met
from transforms.domain.rules.model import Action, DebugAction, KafkaAction, Rule, WebhookAction
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit

# All bodies for one event. Each is bounded, but a set may have any number of actions.
MAX_BODIES_BYTES: Final = 8_000_000
_ACTION_BYTES: Final = 200  # what an action has besides its body


@dataclass(frozen=True, slots=True)
class BodyTooLarge:
    """An action that is not taken, because of the size of its body or of all bodies for its event."""

    fired: FiredAction
    size: str
    allowed: int

    def __str__(self) -> str:
        return f"action {self.fired.action.name!r}: {self.size}, allowed are {self.allowed}"

    @property
    def reason(self) -> str:
        """The reason of its dead letter."""
        is_kafka = isinstance(self.fired.action, KafkaAction) and self.allowed == MAX_PRODUCED_BYTES
        return reasons.KAFKA_ACTION_TOO_LARGE if is_kafka else reasons.BODY_TOO_LARGE


@dataclass
class Trigger:
    """An event that fires rules, with its user as the rules saw it; ``topic`` and ``record`` are for dead letters.

    ``met`` are the open sequences whose conditions it meets, of conditions that read ``begun``.
    """

    user_id: str
    event_id: str
    fields: dict[str, Any]
    user: UserState
    visit: Visit | None
    topic: str
    record: Record
    met: frozenset[Met] = frozenset()
    _nbytes: int = 0  # of the bodies so far

    @functools.cached_property
    def profile(self) -> dict[str, Any]:
        """The user's profile."""
        return self.user.profile()

    @functools.cached_property
    def _enriched(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user)

    @functools.cached_property
    def _without_history(self) -> bytes:
        return enriched_event(self.fields, self.visit, self.user, history=False)

    @functools.cached_property
    def _values(self) -> templates.Values:
        return templates.Values(
            {
                "event": self.fields,
                "user": self.profile,
                "visit": {} if self.visit is None else self.visit.public(),
                "history": [row.public() for row in self.user.history.rows()],
                "enrichment": self.user.enrichment,
            }
        )

    def actions(
        self, rule: Rule, rule_set: int, at_ms: int, begun: dict[str, Any] | None = None, expires_ms: int = 0
    ) -> Iterator[FiredAction | BodyTooLarge]:
        """The actions of a rule that fires at ``at_ms``; ``rule_set`` is the number of its set."""
        group = rule.group or ""
        for action in rule.actions:
            identity = action_id(self.user_id, self.event_id, rule.name, rule.version, action.name)
            body, size, allowed = b"", "", MAX_PRODUCED_BYTES
            if self._nbytes > MAX_BODIES_BYTES:
                size, allowed = f"{self._nbytes} bytes in all bodies for the event", MAX_BODIES_BYTES
            else:
                try:
                    body = self._body(rule, action, identity, begun)
                except templates.BodyTooLargeError as error:
                    # What was built until then counts, too: it took its time.
                    self._nbytes += min(error.nbytes, MAX_PRODUCED_BYTES)
                    size = error.size
            if len(body) > MAX_PRODUCED_BYTES:
                body, size = b"", f"{len(body)} bytes"
            identified = (identity, self.user_id, rule.name, rule.version)
            fired = FiredAction(*identified, action, body, rule_set, at_ms, expires_ms, group)
            if size:
                yield BodyTooLarge(fired, size, allowed)
                continue
            self._nbytes += len(body) + _ACTION_BYTES
            yield fired

    def _body(self, rule: Rule, action: Action, identity: str, begun: dict[str, Any] | None) -> bytes:
        """What an action sends: its template, filled in, or the enriched event.

        Raises:
            BodyTooLargeError: the template becomes too large.
        """
        if not isinstance(action, DebugAction) and action.body is not None:
            shown = {"id": identity, "name": action.name, "rule": rule.name, "version": rule.version}
            return templates.render(action.body, self._values.with_action(shown, begun), MAX_PRODUCED_BYTES)
        if isinstance(action, WebhookAction) and not action.history:
            return self._without_history
        return self._enriched
