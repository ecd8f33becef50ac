"""Random events of users in five zones: the shard does what docs/rules.md says, through restores from its journal."""

from __future__ import annotations

import pytest

from tests.rules_oracle.comparison import Comparison
from tests.rules_oracle.events import records, users
from tests.rules_oracle.rules import oracle_rules

STRANGER = "nobody_knows"


def test_shard_does_what_the_docs_say(request: pytest.FixtureRequest) -> None:
    """`make test` tries some events, `make test-rules` 100,000 of 1,000 users."""
    count = request.config.getoption("oracle_events")
    known = users(max(25, count // 100), seed=26)
    comparison = Comparison(known, seed=26, history_size=30)
    differences = comparison.run(records(count, [*known, STRANGER], seed=26), restores=5)
    assert "\n".join(differences[:20]) == ""
    assert comparison.restores == 5
    assert comparison.letters.keys() <= {"rule_error"}, "beyond the bounds, which the oracle lacks"
    fired = {rule.name for rule in oracle_rules() if comparison.counts[f"{rule.name}.fired"]}
    assert count < 1500 or fired >= {rule.name for rule in oracle_rules() if len(rule.steps) < 3}
    print(f"\n{count} events of {len(known)} users, {sum(comparison.counts.values())} decisions as expected")
