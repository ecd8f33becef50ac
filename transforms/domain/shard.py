"""The state machine of a user shard: what happens to a view when something comes in. No Beam, no clock, no network.

``step`` decides, one input after the other, and applies every fact at once, because the next event of a user must see
the one before. What it returns is all there is to do: facts for the journal, outputs, fetches to start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from transforms.domain import dead_letters as reasons
from transforms.domain.actions import FiredAction, enriched_event, fire
from transforms.domain.batches import EVENTS, MicroBatch, Record
from transforms.domain.dead_letters import DeadLetter, RejectedError
from transforms.domain.events import DEFAULT_MAX_EVENT_BYTES, Event, parse_event
from transforms.domain.filters import FilterSet
from transforms.domain.history import Row, public_rows
from transforms.domain.profiles import TIMEOUT, FetchedUser, unavailable
from transforms.domain.users import UserState, advance_visit
from transforms.domain.view import FORGOTTEN, LOADED, OBSERVED, PARKED, SWEPT, UNPARKED, Fact, View


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What the state machine needs to know; times in ms, sizes in bytes or rows."""

    ttl_ms: int = 600_000
    enrichment_deadline_ms: int = 10_000
    history_size: int = 100
    history_fields: tuple[str, ...] = ()
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES
    user_key: str = "record"


@dataclass(frozen=True, slots=True)
class Answer:
    """The user API's answer for one user."""

    user_id: str
    fetched: FetchedUser


@dataclass(frozen=True, slots=True)
class Inspection:
    """A user's state, as a control record asked for it; ``body`` is JSON."""

    user_id: str
    body: bytes


@dataclass(slots=True)
class Step:
    """Everything a step decided. ``wanted`` are users to ask the user API for; ``counts`` are metrics by name."""

    facts: list[Fact] = field(default_factory=list)
    actions: list[FiredAction] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    inspections: list[Inspection] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def step(
    view: View,
    now_ms: int,
    settings: ShardSettings,
    filters: FilterSet,
    answers: Sequence[Answer] = (),
    batch: MicroBatch | None = None,
    asked_ms: Mapping[str, int] = MappingProxyType({}),
) -> Step:
    """Bring a view forward: answers of the user API first, then a batch, then whatever is due at ``now_ms``.

    ``asked_ms`` says since when the user API is being asked for a user, where that may be later than the parking.
    """
    machine = _Machine(view, now_ms, settings, filters)
    for answer in answers:
        machine.resume(answer)
    if batch is not None and batch.kind == EVENTS:
        machine.step.counts["events"] += len(batch.records)
        for record in batch.records:
            machine.event(batch.topic, record)
    elif batch is not None:
        for record in batch.records:
            machine.control(batch.topic, record)
    machine.give_up_waiting(asked_ms)
    machine.sweep()
    return machine.step


def idle_due_ms(view: View, settings: ShardSettings) -> int | None:
    """When the first user's TTL ends; None without users."""
    return next(iter(view.users.values())).last_seen_ms + settings.ttl_ms if view.users else None


class _Machine:
    def __init__(self, view: View, now_ms: int, settings: ShardSettings, filters: FilterSet) -> None:
        self.view = view
        self.now_ms = now_ms
        self.settings = settings
        self.filters = filters
        self.step = Step()

    def _record(self, fact: Fact) -> None:
        self.view.apply(self.now_ms, fact)
        self.step.facts.append(fact)

    # Events

    def event(self, topic: str, record: Record) -> None:
        event = self._parse(topic, record)
        if event is None:
            return
        user_id = event.user_id
        waiting = self.view.parked.get(user_id)
        if waiting is not None:
            self._record((PARKED, user_id, waiting.deadline_ms, topic, record))
            return
        user = self.view.users.get(user_id)
        if user is not None and self.now_ms >= user.last_seen_ms + self.settings.ttl_ms:
            self._record((FORGOTTEN, user_id))
            self.step.counts["users_expired"] += 1
            user = None
        if user is None:
            self.step.counts["state_misses"] += 1
            self.step.wanted.append(user_id)
            self._record((PARKED, user_id, self.now_ms + self.settings.enrichment_deadline_ms, topic, record))
            return
        self.step.counts["state_hits"] += 1
        self._handle(topic, record, event, user)

    def _parse(self, topic: str, record: Record) -> Event | None:
        try:
            return parse_event(record, self.now_ms, self.settings.max_event_bytes, self.settings.user_key)
        except RejectedError as rejection:
            self._reject(topic, record, rejection.reason, rejection.detail)
            return None

    def _handle(self, topic: str, record: Record, event: Event, user: UserState) -> None:
        if user.history.contains(event.event_id):
            self.step.counts["duplicates"] += 1
            return
        visit = advance_visit(user.visit, event)
        profile = user.profile() if self.filters.reads_user else {}
        verdict = self.filters.evaluate(event, profile, visit, user)
        if verdict.allowed:
            body = enriched_event(event, profile or user.profile(), visit, user)
            for rule in verdict.allowed:
                self.step.actions += fire(rule, event, body)
            self.step.counts["actions"] += sum(len(rule.actions) for rule in verdict.allowed)
            self.step.counts["rule_matches"] += len(verdict.allowed)
        for rule, message in verdict.errors:
            self.step.counts["rule_errors"] += 1
            self._reject(topic, record, reasons.RULE_ERROR, message, rule.name)
        self.step.counts["events_handled"] += 1
        unchanged = visit == user.visit
        self._record((OBSERVED, event.user_id, self._row(event), None if unchanged else visit))

    def _row(self, event: Event) -> Row:
        extra = {name: event.fields[name] for name in self.settings.history_fields if name in event.fields}
        return (event.timestamp_ms, event.event_id, event.event_name, extra or None)

    def _reject(self, topic: str, record: Record, reason: str, detail: str, rule: str | None = None) -> None:
        self.step.counts["dead_letters"] += 1
        if rule is None and reason != reasons.BAD_CONTROL_RECORD:
            self.step.counts["events_rejected"] += 1
        self.step.dead_letters.append(
            DeadLetter(
                reason,
                detail,
                topic,
                record.partition,
                record.offset,
                record.timestamp_ms,
                record.key,
                record.value,
                rule,
            )
        )

    # Enrichment

    def resume(self, answer: Answer) -> None:
        """Load a user and run the events that waited; an answer nobody waits for any more is dropped."""
        waiting = self.view.parked.get(answer.user_id)
        if waiting is None:
            return
        fetched = answer.fetched
        self.step.counts[f"users_{fetched.enrichment}"] += 1
        if fetched.error_kind is not None:
            self.step.counts[f"enrichment_errors_{fetched.error_kind}"] += 1
        parsed = [(topic, record, self._parse(topic, record)) for topic, record in waiting.records]
        events = [(topic, record, event) for topic, record, event in parsed if event is not None]
        self._record((UNPARKED, answer.user_id))
        # The user API may have recorded these very events already; they are no duplicates of themselves.
        ids = {event.event_id for _, _, event in events}
        past = sorted((row for row in fetched.history if row[1] not in ids), key=lambda row: row[0])
        rows = past[-self.settings.history_size :]
        self.step.counts["users_loaded"] += 1
        self._record((LOADED, answer.user_id, fetched.enrichment, fetched.profile_json, fetched.visit, rows))
        user = self.view.users[answer.user_id]
        for topic, record, event in events:
            self._handle(topic, record, event, user)

    def give_up_waiting(self, asked_ms: Mapping[str, int]) -> None:
        """Run the events of users whose deadline has passed, with an empty profile marked unavailable.

        Time in which nobody asked does not count: a restore takes longer than the deadline and asks anew.
        """
        asked_after_ms = self.now_ms - self.settings.enrichment_deadline_ms
        late = [
            user_id
            for user_id, waiting in self.view.parked.items()
            if waiting.deadline_ms <= self.now_ms and asked_ms.get(user_id, asked_after_ms) <= asked_after_ms
        ]
        for user_id in late:
            self.resume(Answer(user_id, unavailable(TIMEOUT, "no answer before the enrichment deadline")))

    # Time

    def sweep(self) -> None:
        """Forget everybody whose TTL has ended."""
        cutoff_ms = self.now_ms - self.settings.ttl_ms
        if not self.view.users or next(iter(self.view.users.values())).last_seen_ms > cutoff_ms:
            return
        before = len(self.view.users)
        self._record((SWEPT, cutoff_ms))
        self.step.counts["users_expired"] += before - len(self.view.users)

    # Control records

    def control(self, topic: str, record: Record) -> None:
        try:
            document = orjson.loads(record.value)
        except orjson.JSONDecodeError as error:
            self._reject(topic, record, reasons.BAD_CONTROL_RECORD, f"not JSON: {error}")
            return
        name, user_id = next(iter(document.items()), (None, None)) if isinstance(document, dict) else (None, None)
        if name == "inspect" and isinstance(user_id, str) and len(document) == 1:
            self.step.inspections.append(Inspection(user_id, self._inspect(user_id)))
        elif name == "forget" and isinstance(user_id, str) and len(document) == 1:
            self.step.counts["users_forgotten"] += 1
            if user_id in self.view.parked:
                self.step.counts["events_forgotten"] += len(self.view.parked[user_id].records)
            self._record((FORGOTTEN, user_id))
        else:
            detail = 'allowed are {"inspect": user_id} and {"forget": user_id}'
            self._reject(topic, record, reasons.BAD_CONTROL_RECORD, detail)

    def _inspect(self, user_id: str) -> bytes:
        user = self.view.users.get(user_id)
        waiting = self.view.parked.get(user_id)
        return orjson.dumps(
            {
                "user_id": user_id,
                "found": user is not None,
                "parked": len(waiting.records) if waiting else 0,
                "last_seen": user.last_seen_ms if user else None,
                "enrichment": user.enrichment if user else None,
                "userProfile": user.profile() if user else None,
                "currentVisit": user.visit.public() if user and user.visit else None,
                "eventHistory": public_rows(user.history.rows()) if user else [],
            }
        )
