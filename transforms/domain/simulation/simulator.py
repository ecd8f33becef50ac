"""Runs rules through the production ``step`` at a simulated clock, without a cluster.

One user shard holds all users. Every destination that a rule names exists and accepts each webhook at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from transforms.domain.events.event import Event
from transforms.domain.events.micro_batch import EVENTS, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.engine import EngineFactory
from transforms.domain.rules.filters import FilterResult, FilterSet
from transforms.domain.rules.model import Rule, WebhookAction
from transforms.domain.rules.state import NOTHING, RuleState
from transforms.domain.shard.facts import UserLoaded
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import step
from transforms.domain.shard.step_input import Answer, ShardSettings, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.fetched_user import TIMEOUT, FetchedUser, unavailable
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit
from transforms.domain.webhooks.delivery_queue import DELIVERED, EMPTY_QUEUE, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule

_TOPIC: Final = "events"
_NO_ANSWER: Final = unavailable(TIMEOUT, "no answer")


OnStep = Callable[[StepResult, list[FiredAction]], None]
OnEvaluation = Callable[[Event, Visit | None, UserState], None]


class Simulator:
    """One user shard with its rules, settings and clock (``now_ms``, ms since the epoch).

    Args:
        rules: the rule set.
        settings: settings of the job; the rules decide which destinations there are.
        fetch: answers a user API miss; None means that no answer comes before the enrichment deadline.
        lua: makes the engine that runs the rules' Lua.
        on_step: called after each step with its result and the actions that it sent, webhooks last.
        start_ms: the first time of the clock.
        on_evaluation: called before the filters evaluate an event, with their arguments.

    Raises:
        RuleError: Lua that does not compile.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        settings: ShardSettings,
        fetch: Callable[[str], FetchedUser | None],
        lua: EngineFactory,
        on_step: OnStep,
        start_ms: int = 0,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.now_ms = start_ms
        self.state = ShardState(settings.history_size)
        self._filters = FilterSet(rules, lua, lambda: self.now_ms)
        self._context = StepContext(replace(settings, destinations=_destinations_of(rules)), self._filters)
        self._fetch = fetch
        self._on_step = on_step
        self._fetch_started_ms: dict[str, int] = {}  # of the users whose answer does not come
        if on_evaluation is not None:
            _call_before_evaluation(self._filters, on_evaluation)

    def load_user(self, user_id: str, fetched: FetchedUser) -> None:
        """Put a user into the shard, so that the user's first event is a state hit."""
        fact = UserLoaded(user_id, fetched.enrichment, fetched.profile_json, fetched.visit, fetched.history.rows())
        self.state.apply(self.now_ms, fact)

    def handle(self, record: Record) -> None:
        """Advance to a record's time and handle it; a record that is older than the clock is handled now."""
        # What is due at the record's own time happens after the record.
        self.advance(record.timestamp_ms - 1)
        self.now_ms = max(self.now_ms, record.timestamp_ms)
        self._run(MicroBatch(VERSION, EVENTS, _TOPIC, [record]))

    def advance(self, until_ms: int) -> None:
        """Run everything that is due up to ``until_ms``, each at its own time; the clock stops at the last of them."""
        while (due_ms := self._next_due_ms()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            late = [user_id for user_id, deadline_ms in self._deadlines_ms().items() if deadline_ms <= self.now_ms]
            for user_id in late:
                del self._fetch_started_ms[user_id]
            self._run(None, due_ms, [Answer(user_id, _NO_ANSWER) for user_id in late])

    def close(self) -> None:
        """End the process of the filters, if they have one."""
        self._filters.close()

    def _deadlines_ms(self) -> dict[str, int]:
        wait_ms = self._context.settings.enrichment_deadline_ms
        return {user_id: started_ms + wait_ms for user_id, started_ms in self._fetch_started_ms.items()}

    def _next_due_ms(self) -> int | None:
        due = [
            self.state.rule_states.stream_due.next_ms(),
            self.state.rule_states.clock_due.next_ms(),
            *self._deadlines_ms().values(),
        ]
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    def _run(self, batch: MicroBatch | None, stream_ms: int | None = None, answers: Iterable[Answer] = ()) -> None:
        """Run one step, then further ones for the answers and delivery results that it caused."""
        answers, results = list(answers), list[DeliveryResult]()
        while batch is not None or stream_ms is not None or answers or results:
            step_input = StepInput(self.now_ms, batch, answers, results, self._fetch_started_ms, stream_ms)
            step_result = step(self.state, self._context, step_input)
            batch = stream_ms = None
            decided = {fired.action_id: fired for fired in step_result.decided_actions}
            webhooks = [
                decided[delivery.action_id]
                for user_id in step_result.users_with_new_deliveries
                for delivery in self.state.deliveries.get(user_id, EMPTY_QUEUE)
            ]
            self._on_step(step_result, step_result.actions + webhooks)
            results = [DeliveryResult(webhook.user_id, webhook.action_id, DELIVERED) for webhook in webhooks]
            answers = self._answers(step_result.users_to_fetch)

    def _answers(self, user_ids: Iterable[str]) -> list[Answer]:
        answers = []
        for user_id in user_ids:
            fetched = self._fetch(user_id)
            if fetched is None:
                self._fetch_started_ms[user_id] = self.now_ms
            else:
                answers.append(Answer(user_id, fetched))
        return answers


def _destinations_of(rules: Iterable[Rule]) -> dict[str, RetrySchedule]:
    actions = [action for rule in rules for action in rule.actions]
    return {action.destination: RetrySchedule() for action in actions if isinstance(action, WebhookAction)}


def _call_before_evaluation(filters: FilterSet, on_evaluation: OnEvaluation) -> None:
    """Hook into this one filter set, so that production does not pay for the check of a hook."""
    evaluate = filters.evaluate

    def observed(event: Event, visit: Visit | None, user: UserState, rule_state: RuleState = NOTHING) -> FilterResult:
        on_evaluation(event, visit, user)
        return evaluate(event, visit, user, rule_state)

    filters.evaluate = observed  # type: ignore[method-assign]
