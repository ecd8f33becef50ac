"""The state machine of a user shard: what an input changes in the state. No Beam, no clock, no network.

``step`` decides, one input after the other. What it returns is all there is to do: facts for the journal, outputs,
fetches to start.
"""

from __future__ import annotations

from transforms.domain.events.micro_batch import EVENTS, MicroBatch
from transforms.domain.shard.control_handler import ControlHandler
from transforms.domain.shard.event_handler import EventHandler
from transforms.domain.shard.facts import IdleUsersForgotten, ProfileWaitSet
from transforms.domain.shard.rule_engine import RuleEngine
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_input import ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.shard.step_scope import StepScope
from transforms.domain.shard.webhook_dispatch import WebhookDispatch
from transforms.domain.users.user import PENDING


def step(state: ShardState, context: StepContext, step_input: StepInput) -> StepResult:
    """Advance a shard by one input.

    The order is fixed: actions that quiet hours held until now, delivery results, webhooks that expired, user API
    answers, the batch, then everything else that is due. A rule set that comes in the batch is live for what follows.

    Args:
        state: the shard's state; the step changes it through facts only.
        context: settings and rules.
        step_input: the input.

    Returns:
        The facts to store, the outputs to emit and the fetches to start.
    """
    shard_step = _ShardStep(state, context, step_input)
    shard_step.release_held_actions()
    for delivery_result in step_input.delivery_results:
        shard_step.dispatch.handle_delivery_result(delivery_result)
    if step_input.ledger is not None:
        shard_step.dispatch.note_ledger(step_input.ledger)
    shard_step.dispatch.expire()
    for answer in step_input.answers:
        shard_step.events.handle_answer(answer)
    if step_input.batch is not None:
        shard_step.handle_batch(step_input.batch)
    shard_step.events.handle_passed_deadlines()
    if step_input.stream_ms is not None:
        shard_step.settle_rule_state(step_input.stream_ms)
    shard_step.forget_idle_users()
    shard_step.events.add_counts()
    return shard_step.result


def idle_due_ms(state: ShardState, settings: ShardSettings) -> int | None:
    """Processing time at which the first user's TTL ends; None without users."""
    user = state.users.longest_idle()
    return None if user is None else user.last_seen_ms + settings.ttl_ms


class _ShardStep:
    """One step: its parts, one a subject, and what time makes due."""

    __slots__ = ("_engine", "_scope", "_state", "dispatch", "events", "result")

    def __init__(self, state: ShardState, context: StepContext, step_input: StepInput) -> None:
        self._state = state
        self._scope = StepScope(state, context, step_input)
        self.result = self._scope.result
        self.dispatch = WebhookDispatch(self._scope)
        self._engine = RuleEngine(self._scope, self.dispatch)
        self.events = EventHandler(self._scope, self._engine)

    def handle_batch(self, batch: MicroBatch) -> None:
        """Handle events or control records, in their order."""
        if batch.kind != EVENTS:
            control = ControlHandler(self._scope, self.dispatch)
            for record in batch.records:
                control.handle(batch.topic, record)
            return
        self.result.counts["events"] += len(batch.records)
        self.result.counts["bytes"] += sum([len(record.value) + len(record.key or b"") for record in batch.records])
        for record in batch.records:
            self.events.handle(batch.topic, record)

    def release_held_actions(self) -> None:
        """Send the actions that quiet hours held until now."""
        for user_id in self._state.rule_states.clock_due.until(self._scope.now_ms):
            self._engine.held.release(user_id)

    def settle_rule_state(self, stream_ms: int) -> None:
        """Do what sequences and groups have due at ``stream_ms``, and forget firings that no event can ask for."""
        engine = self._engine
        for user_id in self._state.rule_states.stream_due.until(stream_ms):
            rule_state = self._state.rule_states.of(user_id)
            is_due = any(sequence.due_ms <= stream_ms for sequence in rule_state.open)
            is_due = is_due or any(0 < held.due_ms <= stream_ms for held in rule_state.held)
            user = self.events.live_user(user_id) if is_due else None
            has_answer = user is not None and user.enrichment != PENDING
            needs_answer = not has_answer and engine.needs_profile(user_id, stream_ms)
            if needs_answer:
                self.events.request_fetch(user_id)
            if needs_answer or user_id in self._state.parked:
                # The user's events that wait come first.
                self._scope.record(ProfileWaitSet(user_id, stream_ms))
            else:
                engine.settle(user_id, stream_ms)

    def forget_idle_users(self) -> None:
        """Forget the users whose TTL has ended."""
        due_ms = idle_due_ms(self._state, self._scope.settings)
        if due_ms is None or self._scope.now_ms < due_ms:
            return
        before = len(self._state.users)
        self._scope.record(IdleUsersForgotten(self._scope.now_ms - self._scope.settings.ttl_ms))
        self.result.counts["users_expired"] += before - len(self._state.users)
