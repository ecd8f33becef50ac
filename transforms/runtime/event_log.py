"""Writes the rare events of steps to the log: ``user_id``, which logs show only where it is allowed, and its hash."""

from __future__ import annotations

import logging
import secrets
import threading
from typing import Any, Final

from transforms.domain.base.user_hash import UserHash
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.shard.facts import DeliveryQueued
from transforms.domain.shard.step_result import StepResult

LOG: Final = logging.getLogger("event_trigger")
PER_MINUTE: Final = 30
_MINUTE_MS: Final = 60_000


class EventLog:
    """Writes to the log ``event_trigger``, at most ``per_minute`` lines of each kind. Thread-safe.

    The first line of the next minute says how many were left out. A worker has one event log, in memory.

    Attributes:
        user_hash: of users, under the job's key; under a random one until that is known.
    """

    def __init__(self, per_minute: int = PER_MINUTE) -> None:
        self._per_minute = per_minute
        self.user_hash = UserHash(secrets.token_bytes(32))
        self._lock = threading.Lock()
        # By kind: the minute, the lines in it, the lines left out since the last one.
        self._counts: dict[str, list[int]] = {}
        self._open_breakers: dict[str, bool] = {}

    def step(self, result: StepResult, shard: int | None, now_ms: int) -> None:
        """Log the rare events of a step: rule sets, erasures, 410s, limits, dead letters; at DEBUG its actions, too."""
        for number in result.applied_rule_sets:
            self._write(logging.INFO, "rule set live", now_ms, rule_set=number, shard=shard)
        for erasure in result.erasures:
            self._write(logging.INFO, "user forgotten", now_ms, user_id=erasure.user_id, found=erasure.found)
        for destination in result.gone_destinations:
            self._write(logging.WARNING, "destination wants no more", now_ms, destination=destination)
        if result.counts["rules_tripped"]:
            for (rule, count), number in result.rule_counts.items():
                if count == "tripped":
                    self._write(logging.WARNING, "rule hit a limit", now_ms, rule=rule, times=number)
        for letter in result.dead_letters:
            self._write(logging.INFO, "dead letter", now_ms, **_letter_fields(letter))
        if LOG.isEnabledFor(logging.DEBUG):
            self._write_actions(result)

    def breaker(self, service: str, is_open: bool, now_ms: int) -> None:
        """Log that the breaker of a service has opened or closed; nothing if it has not changed."""
        with self._lock:
            has_changed = self._open_breakers.get(service, False) is not is_open
            self._open_breakers[service] = is_open
        if has_changed:
            level, event = (logging.WARNING, "breaker opened") if is_open else (logging.INFO, "breaker closed")
            self._write(level, event, now_ms, of=service)

    def _write(self, level: int, event: str, now_ms: int, **fields: Any) -> None:
        with self._lock:
            count = self._counts.setdefault(event, [0, 0, 0])
            if count[0] != now_ms // _MINUTE_MS:
                count[:2] = [now_ms // _MINUTE_MS, 0]
            if count[1] >= self._per_minute:
                count[2] += 1
                return
            count[1] += 1
            if count[2]:
                fields["left_out"], count[2] = count[2], 0
        self._log(level, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if "user_id" in fields:
            fields["user_hash"] = self.user_hash(fields["user_id"])
        LOG.log(level, event, extra=fields)

    def _write_actions(self, result: StepResult) -> None:
        for fired in result.actions:
            fields = {"rule": fired.rule, "rule_version": fired.rule_version, "rule_set": fired.rule_set}
            fields |= {"action": fired.action.name, "action_id": fired.action_id, "user_id": fired.user_id}
            self._log(logging.DEBUG, "action decided", fields)
        for fact in result.facts:
            if isinstance(fact, DeliveryQueued):
                delivery = fact.delivery
                fields = {"rule": delivery.rule, "rule_version": delivery.version, "destination": delivery.destination}
                fields |= {"action": delivery.action, "action_id": delivery.action_id, "user_id": fact.user_id}
                self._log(logging.DEBUG, "action decided", fields)


def _letter_fields(letter: DeadLetter) -> dict[str, Any]:
    fields: dict[str, Any] = {"reason": letter.reason, "rule": letter.rule}
    if letter.action is not None:
        action = letter.action
        fields |= {"action_id": action.action_id, "destination": action.destination, "user_id": action.user_id}
    else:
        fields |= {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset}
        if letter.key is not None:
            fields["user_id"] = letter.key.decode(errors="replace")
    return {name: value for name, value in fields.items() if value is not None}
