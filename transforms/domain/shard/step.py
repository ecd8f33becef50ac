"""The state machine of a user shard: what happens to a view when something comes in. No Beam, no clock, no network.

``step`` decides, one input after the other, and applies every fact at once, because the next event of a user must see
the one before. What it returns is all there is to do: facts for the journal, outputs, fetches to start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from transforms.domain.events.dead_letter import RejectedError
from transforms.domain.events.event import MAX_SAFE_INTEGER, Event, parse_event
from transforms.domain.events.micro_batch import EVENTS, MicroBatch, is_for_all
from transforms.domain.events.record import MAX_PRODUCED_BYTES, Record
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import LiveSet, RuleSets
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import StoredRules
from transforms.domain.shard.decision_log import DecisionLog
from transforms.domain.shard.rule_engine import RuleEngine
from transforms.domain.shard.shard_state import (
    AWAITED,
    CUT,
    DROPPED,
    FORGOTTEN,
    LAPSED,
    LOADED,
    OBSERVED,
    PARKED,
    RULES,
    SWEPT,
    TOUCHED,
    UNPARKED,
    UPDATED,
    ShardState,
)
from transforms.domain.shard.step_result import Answer, Erasure, Inspection, ShardSettings, StepResult
from transforms.domain.shard.webhook_dispatch import WebhookDispatch
from transforms.domain.users.fetched_user import OVERFLOW, TIMEOUT, FetchedUser, unavailable
from transforms.domain.users.history import Row
from transforms.domain.users.user import PENDING, UNAVAILABLE, UserState
from transforms.domain.users.visit import advance_visit, join_visits
from transforms.domain.webhooks.delivery_queue import EMPTY_QUEUE, DeliveryResult, is_switch
from transforms.domain.webhooks.redrive import read_redrive


@dataclass(frozen=True, slots=True)
class StepInput:
    """What comes in with one step; times in ms.

    Attributes:
        now_ms: processing time.
        batch: events or control records, in partition order.
        answers: the user API's answers since the last step.
        delivery_results: what attempts to deliver webhooks came to since the last step.
        fetch_started_ms: the users for whom a fetch is in flight, and since when.
        stream_ms: every record that Kafka had received by this time has been handled; None outside the stream timer.
    """

    now_ms: int
    batch: MicroBatch | None = None
    answers: Sequence[Answer] = ()
    delivery_results: Sequence[DeliveryResult] = ()
    fetch_started_ms: Mapping[str, int] = field(default_factory=dict)
    stream_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StepContext:
    """What all steps of a worker share.

    Attributes:
        settings: the state machine's settings.
        rules: one compiled rule set, or the sets of which the shard picks its own.
    """

    settings: ShardSettings
    rules: FilterSet | RuleSets


def step(state: ShardState, context: StepContext, step_input: StepInput) -> StepResult:
    """Advance a shard by one input.

    The order is fixed: actions that quiet hours held until now, delivery results, user API answers, the batch, then
    everything else that is due. A rule set that comes in the batch is live for everything after it.

    Args:
        state: the shard's state; the step changes it through facts only.
        context: settings and rules.
        step_input: the input.

    Returns:
        The facts to store, the outputs to emit and the fetches to start.
    """
    machine = _Machine(state, context, step_input)
    machine.release()
    for result in step_input.delivery_results:
        machine.tried(result)
    for answer in step_input.answers:
        machine.resume(answer)
    batch = step_input.batch
    if batch is not None and batch.kind == EVENTS:
        machine.step.counts["events"] += len(batch.records)
        machine.step.counts["bytes"] += sum(len(record.value) + len(record.key or b"") for record in batch.records)
        for record in batch.records:
            machine.event(batch.topic, record)
    elif batch is not None:
        for record in batch.records:
            machine.control(batch.topic, record)
    machine.give_up_waiting()
    if step_input.stream_ms is not None:
        machine.settle_until(step_input.stream_ms)
    machine.sweep()
    return machine.step


def idle_due_ms(view: ShardState, settings: ShardSettings) -> int | None:
    """When the first user's TTL ends; None without users."""
    user = view.longest_idle()
    return None if user is None else user.last_seen_ms + settings.ttl_ms


def _is_shared(record: Record) -> bool:
    try:
        return is_for_all(orjson.loads(record.value))
    except orjson.JSONDecodeError:
        return False


class _Machine:
    def __init__(self, state: ShardState, context: StepContext, step_input: StepInput) -> None:
        self.view = state
        self.now_ms = now_ms = step_input.now_ms
        self.settings = settings = context.settings
        rules = context.rules
        self.rule_sets = rules if isinstance(rules, RuleSets) else None
        live = rules.live(state.rules) if isinstance(rules, RuleSets) else LiveSet(0, rules)
        self.filters = live.filters
        self.asked_ms = step_input.fetch_started_ms
        self.step = StepResult()
        log = DecisionLog(now_ms, settings, self.step)
        self._delivering = WebhookDispatch(state, now_ms, settings, self.step, log)
        self._deciding = RuleEngine(state, now_ms, settings, live, self.step, self._delivering, log)

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
        user = self._present(user_id)
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

    def _present(self, user_id: str) -> UserState | None:
        """The user, if there is one whose TTL has not ended."""
        user = self.view.users.get(user_id)
        if user is None or not self._has_expired(user):
            return user
        self._record(FORGOTTEN, user_id)
        self.step.counts["users_expired"] += 1
        return None

    def _has_expired(self, user: UserState) -> bool:
        return self.now_ms >= user.last_seen_ms + self.settings.ttl_ms

    def _ask(self, user_id: str) -> None:
        if user_id not in self.asked_ms:
            self.step.users_to_fetch[user_id] = None

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
            self.step.reject(topic, record, rejection.reason, rejection.detail)
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
        self._deciding.event(topic, record, event, user, visit)
        self.step.counts["events_handled"] += 1
        unchanged = visit == user.visit
        self._record(OBSERVED, event.user_id, self._row(event), None if unchanged else visit)
        self._cut(event.user_id, user)

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

    # Enrichment

    def resume(self, answer: Answer) -> None:
        """Take in what the user API says and run the events that waited; nothing if the user is gone."""
        user_id, fetched = answer.user_id, answer.fetched
        waiting = self.view.parked.get(user_id)
        user = self._present(user_id) if user_id in self.view.awaiting_profile else self.view.users.get(user_id)
        if waiting is None and user_id not in self.view.awaiting_profile and (user is None or self._has_expired(user)):
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
        if user_id in self.view.awaiting_profile:
            stream_ms = self.view.rule_state(user_id).awaited_ms
            self._record(AWAITED, user_id, 0)
            self._settle(user_id, stream_ms)

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
        self.step.users_given_up += late
        for user_id in late:
            self.resume(Answer(user_id, unavailable(TIMEOUT, "no answer before the enrichment deadline")))

    # Time

    def settle_until(self, stream_ms: int) -> None:
        """Settle the sequences that are over, and forget firings that no event can ask for any more."""
        for user_id in self.view.stream_due.until(stream_ms):
            is_over = any(opening.due_ms <= stream_ms for opening in self.view.rule_state(user_id).open)
            user = self._present(user_id) if is_over else None
            has_answer = user is not None and user.enrichment != PENDING
            needs_answer = not has_answer and self._deciding.needs_user(user_id, stream_ms)
            if needs_answer:
                self._ask(user_id)
            if needs_answer or user_id in self.view.parked:
                # The user's events that wait come first.
                self._record(AWAITED, user_id, stream_ms)
            else:
                self._settle(user_id, stream_ms)

    def _settle(self, user_id: str, stream_ms: int) -> None:
        self._deciding.settle(user_id, stream_ms)
        if any(firings.until_ms <= stream_ms for firings in self.view.rule_state(user_id).fired.values()):
            self._record(LAPSED, user_id, stream_ms)

    def tried(self, tried: DeliveryResult) -> None:
        """Take in what a try to deliver a webhook came to."""
        self._delivering.tried(tried)

    def release(self) -> None:
        """Let go what was held until now."""
        for user_id in self.view.clock_due.until(self.now_ms):
            self._deciding.release(user_id)

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
        if self.rule_sets is not None and topic == self.rule_sets.topic:
            self._replace_rules(self.rule_sets, topic, record)
            return
        try:
            document = orjson.loads(record.value)
        except orjson.JSONDecodeError as error:
            self.step.reject_control(topic, record, f"not JSON: {error}", False)
            return
        name, user_id = next(iter(document.items()), (None, None)) if isinstance(document, dict) else (None, None)
        if name == "inspect" and isinstance(user_id, str) and len(document) == 1:
            self.step.inspections.append(Inspection(user_id, self._inspect(user_id)))
        elif name == "forget" and isinstance(user_id, str) and len(document) == 1:
            self._forget(user_id, topic, record)
        elif is_switch(document):
            self._delivering.switch(document["destination"], document["enabled"])
        elif isinstance(document, dict) and "redrive" in document:
            self._redrive(topic, record, is_for_all(document))
        else:
            detail = (
                'allowed are {"inspect": user_id}, {"forget": user_id}, {"redrive": user_id, "action": {...}} and '
                '{"destination": name, "enabled": true or false}; rule sets go to --rules_topic'
            )
            self.step.reject_control(topic, record, detail, is_for_all(document))

    def _replace_rules(self, rule_sets: RuleSets, topic: str, record: Record) -> None:
        """Make a set live from here on, if its number is higher; what cannot be used changes nothing."""
        try:
            wanted = rule_sets.decoded(record.value)
            if not rule_sets.replaces(wanted.number, self.view.rules):
                self.step.counts["rule_sets_ignored"] += 1
                return
            live = rule_sets.compiled(StoredRules(wanted.number, record.value))
        except RuleError as error:
            self.step.reject_control(topic, record, str(error), _is_shared(record))
            return
        self._record(RULES, wanted.number, record.value)
        self.step.applied_rule_sets.append(wanted.number)
        self.step.counts["rule_sets_applied"] += 1
        self.filters = live.filters
        self._deciding.use(live)

    def _redrive(self, topic: str, record: Record, is_shared: bool) -> None:
        try:
            user_id, delivery = read_redrive(record.value, self.now_ms)
        except ValueError as error:
            self.step.reject_control(topic, record, str(error), is_shared)
        else:
            self._delivering.redrive(user_id, delivery)

    def _forget(self, user_id: str, topic: str, record: Record) -> None:
        waiting = self.view.parked.get(user_id)
        view = self.view
        found = any(user_id in one for one in (view.users, view.parked, view.rule_states, view.deliveries))
        self.step.counts["users_forgotten"] += 1
        self.step.counts["events_forgotten"] += len(waiting.records) if waiting is not None else 0
        if user_id in view.deliveries:
            self.step.counts["deliveries_forgotten"] += len(list(view.deliveries[user_id]))
            self.step.users_with_new_deliveries[user_id] = None
        self._record(FORGOTTEN, user_id, True)
        self.step.erasures.append(Erasure(user_id, found, self.now_ms, topic, record))

    def _inspect(self, user_id: str) -> bytes:
        user = self.view.users.get(user_id)
        waiting = self.view.parked.get(user_id)
        shown: dict[str, Any] = {
            "user_id": user_id,
            "found": user is not None,
            "parked": len(waiting.records) if waiting else 0,
            "last_seen": user.last_seen_ms if user else None,
            "enrichment": user.enrichment if user else None,
            "userProfile": user.profile() if user else None,
            "currentVisit": user.visit.public() if user and user.visit else None,
            "eventHistory": [row.public() for row in user.history.rows()] if user else [],
            "ruleState": self.view.rule_state(user_id).public(),
            "deliveries": self.view.deliveries.get(user_id, EMPTY_QUEUE).public(),
        }
        body = orjson.dumps(shown)
        for name in ("eventHistory", "userProfile", "ruleState", "deliveries", "currentVisit"):
            if len(body) <= MAX_PRODUCED_BYTES:
                break
            shown |= {name: None, "left_out": [*shown.get("left_out", ()), name]}
            body = orjson.dumps(shown)
        return body
