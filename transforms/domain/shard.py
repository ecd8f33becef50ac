"""The state machine of a user shard: what happens to a view when something comes in. No Beam, no clock, no network.

``step`` decides, one input after the other, and applies every fact at once, because the next event of a user must see
the one before. What it returns is all there is to do: facts for the journal, outputs, fetches to start.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import orjson

from transforms.domain import dead_letters as reasons
from transforms.domain.actions import FiredAction, enriched_event, fire
from transforms.domain.batches import EVENTS, MicroBatch, Record
from transforms.domain.dead_letters import DeadLetter, RejectedError
from transforms.domain.events import DEFAULT_MAX_EVENT_BYTES, MAX_SAFE_INTEGER, Event, parse_event
from transforms.domain.filters import FilterSet
from transforms.domain.history import Row
from transforms.domain.profiles import OVERFLOW, TIMEOUT, FetchedUser, unavailable
from transforms.domain.rules import RUN
from transforms.domain.users import PENDING, UNAVAILABLE, UserState, Visit, advance_visit, join_visits
from transforms.domain.view import (
    CUT,
    DROPPED,
    FORGOTTEN,
    LOADED,
    OBSERVED,
    PARKED,
    SWEPT,
    TOUCHED,
    UNPARKED,
    UPDATED,
    Fact,
    View,
)


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What the state machine needs to know; times in ms, sizes in bytes or rows.

    ``profile_max_age_ms`` None is for ever. ``max_waiting_bytes`` and ``max_user_bytes`` are for one user.
    """

    ttl_ms: int = 600_000
    enrichment_deadline_ms: int = 10_000
    enrichment_retry_ms: int = 30_000
    profile_max_age_ms: int | None = None
    max_waiting_bytes: int = 1_000_000
    max_user_bytes: int = 16_000_000
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


@dataclass(frozen=True, slots=True)
class Erasure:
    """That a user was forgotten because a control record said so, without saying who it was."""

    user_id: str
    found: bool
    at_ms: int
    topic: str
    record: Record

    @property
    def user_sha256(self) -> str:
        """The user as the audit shows it, hex."""
        return hashlib.sha256(self.user_id.encode()).hexdigest()

    def to_json(self) -> bytes:
        """The audit record."""
        return orjson.dumps(
            {
                "audit": "forget",
                "user_sha256": self.user_sha256,
                "found": self.found,
                "time": self.at_ms,
                "topic": self.topic,
                "partition": self.record.partition,
                "offset": self.record.offset,
            }
        )


@dataclass(slots=True)
class Step:
    """Everything a step decided; ``counts`` are metrics by name.

    ``wanted`` are users to ask the user API for, ``given_up`` those whose answer is not waited for any more. After an
    erasure nothing of its user may stay in what is stored.
    """

    facts: list[Fact] = field(default_factory=list)
    actions: list[FiredAction] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    inspections: list[Inspection] = field(default_factory=list)
    erasures: list[Erasure] = field(default_factory=list)
    wanted: dict[str, None] = field(default_factory=dict)  # in this order
    given_up: list[str] = field(default_factory=list)
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

    ``asked_ms`` names everybody whom the user API is being asked for, and since when.
    """
    machine = _Machine(view, now_ms, settings, filters, asked_ms)
    for answer in answers:
        machine.resume(answer)
    if batch is not None and batch.kind == EVENTS:
        machine.step.counts["events"] += len(batch.records)
        for record in batch.records:
            machine.event(batch.topic, record)
    elif batch is not None:
        for record in batch.records:
            machine.control(batch.topic, record)
    machine.give_up_waiting()
    machine.sweep()
    return machine.step


def idle_due_ms(view: View, settings: ShardSettings) -> int | None:
    """When the first user's TTL ends; None without users."""
    user = view.longest_idle()
    return None if user is None else user.last_seen_ms + settings.ttl_ms


class _Machine:
    def __init__(
        self, view: View, now_ms: int, settings: ShardSettings, filters: FilterSet, asked_ms: Mapping[str, int]
    ) -> None:
        self.view = view
        self.now_ms = now_ms
        self.settings = settings
        self.filters = filters
        self.asked_ms = asked_ms
        self.step = Step()

    def _record(self, *fact: object) -> None:
        self.view.apply(self.now_ms, fact)
        self.step.facts.append(fact)

    # Events

    def event(self, topic: str, record: Record) -> None:
        event = self._parse(topic, record)
        if event is None:
            return
        user_id = event.user_id
        if user_id in self.view.parked:
            self._park(user_id, topic, record)
            return
        user = self.view.users.get(user_id)
        if user is not None and self._has_expired(user):
            self._record(FORGOTTEN, user_id)
            self.step.counts["users_expired"] += 1
            user = None
        self.step.counts["state_misses" if user is None else "state_hits"] += 1
        if user is None or user.is_due(
            self.now_ms, self.settings.profile_max_age_ms, self.settings.enrichment_retry_ms
        ):
            self._ask(user_id)
        if self.filters.waits and (user is None or user.enrichment == PENDING):
            self._park(user_id, topic, record)
            return
        if user is None:
            self._record(LOADED, user_id, PENDING, b"{}", None, [])
            user = self.view.users[user_id]
        self._handle(topic, record, event, user)

    def _has_expired(self, user: UserState) -> bool:
        return self.now_ms >= user.last_seen_ms + self.settings.ttl_ms

    def _ask(self, user_id: str) -> None:
        if user_id not in self.asked_ms:
            self.step.wanted[user_id] = None

    def _park(self, user_id: str, topic: str, record: Record) -> None:
        waiting = self.view.parked.get(user_id)
        deadline_ms = self.now_ms + self.settings.enrichment_deadline_ms if waiting is None else waiting.deadline_ms
        self._record(PARKED, user_id, deadline_ms, topic, record)
        if self.view.parked[user_id].nbytes > self.settings.max_waiting_bytes:
            self.resume(Answer(user_id, unavailable(OVERFLOW, "too many events wait for the answer")))

    def _parse(self, topic: str, record: Record) -> Event | None:
        try:
            return parse_event(record, self.now_ms, self.settings.max_event_bytes, self.settings.user_key)
        except RejectedError as rejection:
            self._reject(topic, record, rejection.reason, rejection.detail)
            return None

    def _handle(self, topic: str, record: Record, event: Event, user: UserState) -> None:
        known = user.history.find(event.event_id)
        if known is not None and not known.from_api:
            self.step.counts["duplicates"] += 1
            if user.last_seen_ms != self.now_ms:
                self._record(TOUCHED, event.user_id)
            return
        if known is not None:
            # The user API was ahead of the stream. The event is no past of its own.
            self._record(DROPPED, event.user_id, event.event_id)
        visit = advance_visit(user.visit, event)
        self._decide(topic, record, event, user, visit)
        self.step.counts["events_handled"] += 1
        unchanged = visit == user.visit
        self._record(OBSERVED, event.user_id, self._row(event), None if unchanged else visit)
        self._cut(event.user_id, user)

    def _decide(self, topic: str, record: Record, event: Event, user: UserState, visit: Visit) -> None:
        profile = user.profile() if self.filters.reads_user else {}
        verdict = self.filters.evaluate(event, profile, visit, user)
        allowed, errors = verdict.allowed, verdict.errors
        if verdict.tripped or verdict.quarantined:
            self.step.counts["rules_tripped"] += len(verdict.tripped)
            self.step.counts["rules_quarantined"] += len(verdict.quarantined)
        if not user.has_profile and not self.filters.waits:
            allowed = tuple(rule for rule in allowed if rule.on_missing_profile == RUN)
            errors = tuple(error for error in errors if error[0].on_missing_profile == RUN)
            self.step.counts["rules_skipped"] += self.filters.skipping
        if allowed:
            body = enriched_event(event, profile or user.profile(), visit, user)
            for rule in allowed:
                self.step.actions += fire(rule, event, body)
            self.step.counts["actions"] += sum(len(rule.actions) for rule in allowed)
            self.step.counts["rule_matches"] += len(allowed)
        for rule, message in errors:
            self.step.counts["rule_errors"] += 1
            self._reject(topic, record, reasons.RULE_ERROR, message, rule.name)

    def _cut(self, user_id: str, user: UserState) -> None:
        """Hold a user to its size: the oldest history goes."""
        room = max(0, self.settings.max_user_bytes - len(user.profile_json))
        if user.history.nbytes > room:
            before = len(user.history)
            self._record(CUT, user_id, room)
            self.step.counts["history_rows_cut"] += before - len(user.history)

    def _row(self, event: Event) -> Row:
        extra = {name: event.fields[name] for name in self.settings.history_fields if name in event.fields}
        return Row(event.timestamp_ms, event.event_id, event.event_name, extra or None)

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
        """Take in what the user API says and run the events that waited; nothing if the user is gone."""
        user_id, fetched = answer.user_id, answer.fetched
        waiting = self.view.parked.get(user_id)
        user = self.view.users.get(user_id)
        if waiting is None and (user is None or self._has_expired(user)):
            return
        self.step.counts[f"users_{fetched.enrichment}"] += 1
        if fetched.error_kind is not None:
            self.step.counts[f"enrichment_errors_{fetched.error_kind}"] += 1
        parsed = [(topic, record, self._parse(topic, record)) for topic, record in (waiting.records if waiting else ())]
        events = [(topic, record, event) for topic, record, event in parsed if event is not None]
        waited = [event for _, _, event in events]
        if waiting is not None:
            self._record(UNPARKED, user_id)
        if user is None:
            rows = self._past(fetched, None, waited)
            self._record(LOADED, user_id, fetched.enrichment, fetched.profile_json, fetched.visit, rows)
            self.step.counts["users_loaded"] += 1
        else:
            self._update(user_id, user, fetched, waited)
        user = self.view.users[user_id]
        self._cut(user_id, user)
        for topic, record, event in events:
            self._handle(topic, record, event, user)

    def _update(self, user_id: str, user: UserState, fetched: FetchedUser, waiting: Sequence[Event]) -> None:
        """Fold an answer into the state of a user whose events were handled without it, or with an older one."""
        if fetched.enrichment == UNAVAILABLE:
            self.step.counts["refreshes_failed"] += 1
            enrichment = UNAVAILABLE if user.enrichment == PENDING else None
            self._record(UPDATED, user_id, enrichment, b"{}", None, [])
        elif user.has_profile:
            self.step.counts["refreshes"] += 1
            self._record(UPDATED, user_id, fetched.enrichment, fetched.profile_json, None, [])
        else:
            self.step.counts["users_loaded"] += 1
            visit = join_visits(fetched.visit, user.visit)
            rows = self._past(fetched, user, waiting)
            self._record(
                UPDATED,
                user_id,
                fetched.enrichment,
                fetched.profile_json,
                None if visit == user.visit else visit,
                rows,
            )

    def _past(self, fetched: FetchedUser, user: UserState | None, waiting: Sequence[Event]) -> list[Row]:
        """What the user API knows of the time before the oldest event in hand: what is newer, the stream tells.

        The user API may be ahead of the stream, and may have recorded the very events that wait.
        """
        ids = {event.event_id for event in waiting}
        in_hand = [event.timestamp_ms for event in waiting]
        if user is not None and (oldest_ms := user.history.oldest_ms()) is not None:
            in_hand.append(oldest_ms)
        until_ms = min(in_hand, default=MAX_SAFE_INTEGER)
        rows = [row for row in fetched.history if row.timestamp_ms <= until_ms and row.event_id not in ids]
        return sorted(rows, key=lambda row: row.timestamp_ms)[-self.settings.history_size :]

    def give_up_waiting(self) -> None:
        """Run the events of users whose deadline has passed, with an empty profile marked unavailable.

        Time in which nobody asked does not count: a restore takes longer than the deadline and asks anew.
        """
        asked_after_ms = self.now_ms - self.settings.enrichment_deadline_ms
        self.view.put_in_order()
        late = []
        for user_id, waiting in self.view.parked.items():
            if waiting.deadline_ms > self.now_ms:
                break
            if self.asked_ms.get(user_id, asked_after_ms) <= asked_after_ms:
                late.append(user_id)
        self.step.given_up += late
        for user_id in late:
            self.resume(Answer(user_id, unavailable(TIMEOUT, "no answer before the enrichment deadline")))

    # Time

    def sweep(self) -> None:
        """Forget everybody whose TTL has ended."""
        user = self.view.longest_idle()
        if user is None or not self._has_expired(user):
            return
        before = len(self.view.users)
        self._record(SWEPT, self.now_ms - self.settings.ttl_ms)
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
            self._forget(user_id, topic, record)
        else:
            detail = 'allowed are {"inspect": user_id} and {"forget": user_id}'
            self._reject(topic, record, reasons.BAD_CONTROL_RECORD, detail)

    def _forget(self, user_id: str, topic: str, record: Record) -> None:
        waiting = self.view.parked.get(user_id)
        found = waiting is not None or user_id in self.view.users
        self.step.counts["users_forgotten"] += 1
        self.step.counts["events_forgotten"] += len(waiting.records) if waiting is not None else 0
        self._record(FORGOTTEN, user_id)
        self.step.erasures.append(Erasure(user_id, found, self.now_ms, topic, record))

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
                "eventHistory": [row.public() for row in user.history.rows()] if user else [],
            }
        )
