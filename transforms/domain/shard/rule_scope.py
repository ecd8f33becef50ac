"""What the parts of the rule engine share during one step."""

from __future__ import annotations

from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import LiveSet
from transforms.domain.rules.model import RUN, Rule
from transforms.domain.shard.decision_log import DecisionLog
from transforms.domain.shard.fact_recorder import FactRecorder
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.user import UserState


class RuleScope:
    """State, settings and outputs of the step, and the rule set that is live at this point of it."""

    __slots__ = ("filters", "log", "now_ms", "recorder", "result", "rule_set", "settings", "state")

    def __init__(
        self, recorder: FactRecorder, settings: ShardSettings, live: LiveSet, result: StepResult, log: DecisionLog
    ) -> None:
        self.recorder = recorder
        self.state = recorder.state
        self.now_ms = recorder.now_ms
        self.settings = settings
        self.result = result
        self.log = log
        self.use(live)

    def use(self, live: LiveSet) -> None:
        """Make another rule set live."""
        self.filters: FilterSet = live.filters
        self.rule_set = self.log.rule_set = live.number

    def count(self, rule: Rule, outcome: str, metric: str | None = None, number: int = 1) -> None:
        """Count an outcome of a rule, and in a metric of all rules."""
        self.result.rule_counts[rule.name, outcome] += number
        if metric is not None:
            self.result.counts[metric] += number

    def skips(self, rule: Rule, user: UserState) -> bool:
        """Whether a rule is skipped because the user has no profile."""
        return not user.has_profile and not self.filters.waits and rule.on_missing_profile != RUN
