"""What the parts of one step share."""

from __future__ import annotations

from transforms.domain.base.field_paths import selection
from transforms.domain.rules.live_sets import LiveSet, RuleSets
from transforms.domain.rules.model import RUN, Rule
from transforms.domain.shard.decision_log import DecisionLog
from transforms.domain.shard.facts import Fact
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step_input import StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.user import UserState


class StepScope:
    """State, settings and outputs of one step, and the rule set that is live at this point of it.

    Attributes:
        state: the shard's state; only ``record`` changes it.
        now_ms: processing time of the step.
        fetch_started_ms: users for whom a fetch is in flight, and since when.
        in_flight: ids of the actions whose webhooks are being sent.
        log: the decision log.
        rule_sets: the sets of which a shard picks its own; None if there is only one.
        signer: checks redrive records.
        is_topic_missing: whether Kafka is known not to have the topic of an action.
        filters: the live rule set, compiled; ``rule_set`` is its number.
        history_fields: the fields that histories keep, those that this set reads included; None: no more than always.
    """

    __slots__ = (
        "fetch_started_ms",
        "filters",
        "history_fields",
        "in_flight",
        "is_topic_missing",
        "log",
        "now_ms",
        "result",
        "rule_set",
        "rule_sets",
        "settings",
        "signer",
        "state",
    )

    def __init__(self, state: ShardState, context: StepContext, step_input: StepInput) -> None:
        self.state = state
        self.now_ms = step_input.now_ms
        self.fetch_started_ms = step_input.fetch_started_ms
        self.in_flight = step_input.in_flight
        self.settings = context.settings
        self.signer = context.signer
        self.is_topic_missing = context.is_topic_missing
        self.result = StepResult()
        self.log = DecisionLog(self.now_ms, self.settings, self.result)
        rules = context.rules
        self.rule_sets = rules if isinstance(rules, RuleSets) else None
        self.use(rules.live(state.rules) if isinstance(rules, RuleSets) else LiveSet(0, rules))

    def use(self, live: LiveSet) -> None:
        """Make a rule set live for everything that follows."""
        self.filters = live.filters
        self.rule_set = self.log.rule_set = live.number
        read = live.filters.history_fields
        names = self.settings.history_fields
        self.history_fields = selection((*names, *read) if read else names) if names or read else None

    def record(self, fact: Fact) -> None:
        """Apply a fact at once, because the next event of a user must see it, and keep it for the journal."""
        self.state.apply(self.now_ms, fact)
        self.result.facts.append(fact)

    def count(self, rule: Rule, outcome: str, metric: str | None = None, number: int = 1) -> None:
        """Count an outcome of a rule, and in a metric of all rules."""
        self.result.rule_counts[rule.name, outcome] += number
        if metric is not None:
            self.result.counts[metric] += number

    def has_expired(self, user: UserState) -> bool:
        """Whether the user's TTL has ended."""
        return self.now_ms >= user.last_seen_ms + self.settings.ttl_ms

    def skips(self, rule: Rule, user: UserState) -> bool:
        """Whether a rule is skipped because the user has no profile."""
        return not user.has_profile and not self.filters.waits and rule.on_missing_profile != RUN
