from __future__ import annotations

from tests.builders import rule
from transforms.domain.rules.diff import RuleChanges, reused_versions, rule_changes


def test_equal_sets_change_nothing() -> None:
    assert not rule_changes([rule("a"), rule("b")], [rule("b"), rule("a")])


def test_added_removed_and_changed_rules_are_named_in_order() -> None:
    live = [rule("a"), rule("gone"), rule("b")]
    wanted = [rule("new2"), rule("b", "false", version=2), rule("a", description="better"), rule("new1")]
    assert rule_changes(live, wanted) == RuleChanges(("new2", "new1"), ("gone",), ("b", "a"))


def test_another_meaning_needs_a_higher_version() -> None:
    changes = rule_changes([rule("a", version=3)], [rule("a", "false", version=3, cooldown="1h")])
    assert changes.problems == ("rule 'a': filter, cooldown differ from the live version 3: raise the version",)


def test_a_version_must_not_decrease() -> None:
    changes = rule_changes([rule("a", version=3)], [rule("a", version=2)])
    assert changes.problems == ("rule 'a': version 2 is lower than the live 3",)


def test_a_rule_that_was_removed_may_return_with_any_version() -> None:
    assert rule_changes([], [rule("a", version=1)]).problems == ()


def test_a_version_that_had_another_meaning_in_any_earlier_set_is_named_with_the_last() -> None:
    earlier = [(1, [rule("a", version=2)]), (5, [rule("b"), rule("a", "false", version=2)]), (7, [rule("a")])]
    wanted = [rule("a", version=2), rule("b", description="better"), rule("c")]
    assert reused_versions(earlier, wanted) == ("rule 'a': filter differ from version 2 in set 5: raise the version",)
    assert reused_versions(earlier, [rule("a", version=3)]) == ()
