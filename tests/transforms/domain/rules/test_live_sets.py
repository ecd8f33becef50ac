"""A published set replaces the one before for everything after it in a shard's input."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, control, event, fetched, published, rule, rule_sets
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import MAX_JUMP, RuleSet, StoredRules, encode_rule_set
from transforms.domain.shard.facts import RuleSetReplaced
from transforms.domain.shard.step_input import Answer
from transforms.runtime.clocks import monotonic_ms

OLD, NEW = rule("r", "true"), rule("r", "event.n == 1", version=2)
NOBODY = fetched(None)


def shard_of(number: int, *rules: Rule, **settings: Any) -> Shard:
    shard = Shard(**settings)
    shard.filters = rule_sets(RuleSet(number, rules), "rules")
    return shard


def with_loaded_users(shard: Shard, *users: str) -> Shard:
    """The shard with users who are loaded."""
    for user in users:
        shard.step(batch(event(user, event_id=f"load-{user}", n=0)))
        shard.step(answers=[Answer(user, NOBODY)])
    return shard


def raw(*values: bytes, topic: str = "rules") -> MicroBatch:
    return MicroBatch(VERSION, CONTROL, topic, [Record(0, n, NOW_MS, None, value) for n, value in enumerate(values)])


def fired(done: Any) -> list[tuple[str, int, int]]:
    return [(action.rule, action.rule_version, action.rule_set) for action in done.actions]


def test_events_after_a_set_see_it_and_those_before_do_not() -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    assert fired(shard.step(batch(event(n=0)))) == [("r", 1, 0)]
    done = shard.step(published(3, NEW))
    assert (done.applied_rule_sets, done.counts["rule_sets_applied"]) == ([3], 1)
    assert fired(shard.step(batch(event(n=0), event(n=1)))) == [("r", 2, 3)]


def test_only_a_higher_number_applies() -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    shard.step(published(3, NEW))
    for number in (3, 2, 1):
        done = shard.step(published(number, OLD))
        assert (done.facts, done.applied_rule_sets, dict(done.counts)) == ([], [], {"rule_sets_ignored": 1})
    assert fired(shard.step(batch(event(n=1)))) == [("r", 2, 3)]
    shard.step(published(4, OLD))
    assert fired(shard.step(batch(event(n=0)))) == [("r", 1, 4)]


def test_a_number_far_beyond_the_last_one_is_a_letter_and_sets_that_follow_apply() -> None:
    shard = with_loaded_users(shard_of(2, OLD), "u1")
    for number in (2**53 - 1, 2 + MAX_JUMP + 1):
        done = shard.step(published(number, NEW))
        (letter,) = done.shared_dead_letters
        assert (done.facts, letter.reason) == ([], "bad_control_record")
        assert letter.detail == (
            f"rule set: number is {number}, allowed are up to 1000002, 1,000,000 beyond the last one"
        )
    assert shard.step(published(3, NEW)).applied_rule_sets == [3]
    assert shard.step(published(3 + MAX_JUMP, OLD)).applied_rule_sets == [3 + MAX_JUMP]


def test_a_number_out_of_reach_that_an_earlier_release_stored_does_not_stay_for_ever() -> None:
    shard = with_loaded_users(shard_of(2, OLD), "u1")
    pinned = encode_rule_set(RuleSet(2**53 - 1, (NEW,)))
    with shard.journal.changing():
        fact = RuleSetReplaced(2**53 - 1, pinned)
        shard.state.apply(NOW_MS, fact)
        shard.journal.append(NOW_MS, [fact])
    shard.restore()
    assert fired(shard.step(batch(event(n=1)))) == [("r", 1, 2)]
    assert shard.step(published(3, NEW)).applied_rule_sets == [3]
    assert fired(shard.step(batch(event(n=1)))) == [("r", 2, 3)]


@pytest.mark.parametrize(("initial", "stored", "live"), [(5, 3, 5), (3, 5, 5), (4, 4, 4)])
def test_of_the_launched_and_the_kept_set_the_higher_is_live(initial: int, stored: int, live: int) -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    shard.step(published(stored, OLD))
    shard.restore()
    shard.filters = rule_sets(RuleSet(initial, (OLD,)), "rules")
    assert fired(shard.step(batch(event(n=0)))) == [("r", 1, live)]
    assert shard.step(published(live - 1, OLD)).applied_rule_sets == []
    assert shard.step(published(live + 1, OLD)).applied_rule_sets == [live + 1]


def test_a_job_that_is_started_without_the_topic_goes_by_its_files_until_it_has_one_again() -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    shard.step(published(3, NEW))
    shard.restore()
    shard.filters = rule_sets(RuleSet(0, (OLD,)))
    assert fired(shard.step(batch(event(n=1)))) == [("r", 1, 0)]
    shard.filters = rule_sets(RuleSet(0, (OLD,)), "rules")
    assert fired(shard.step(batch(event(n=1)))) == [("r", 2, 3)]


def test_the_launched_set_is_stored_and_acknowledged_when_the_topic_has_it() -> None:
    shard = shard_of(3, OLD)
    assert shard.step(published(2, OLD)).applied_rule_sets == []
    assert shard.step(published(3, OLD)).applied_rule_sets == [3]
    assert shard.step(published(3, OLD)).applied_rule_sets == []
    shard.restore()
    shard.filters = rule_sets(RuleSet(0, (NEW,)), "rules")
    with_loaded_users(shard, "u1")
    assert fired(shard.step(batch(event(n=0)))) == [("r", 1, 3)]


def test_events_that_waited_are_for_the_set_that_is_live_when_they_go_on() -> None:
    shard = shard_of(0, OLD)
    shard.step(batch(event("u1", n=0), event("u1", n=1)))
    shard.step(published(1, NEW))
    assert fired(shard.step(answers=[Answer("u1", NOBODY)])) == [("r", 2, 1)]
    # Nor does the end of a wait in the same step come before the set.
    shard = shard_of(0, OLD)
    shard.step(batch(event("u1", n=0), event("u1", n=1)))
    shard.fetch_started_ms["u1"] = NOW_MS
    done = shard.step(published(1, NEW), now_ms=NOW_MS + shard.settings.enrichment_deadline_ms)
    assert fired(done) == [("r", 2, 1)]


def test_a_set_that_waits_for_profiles_takes_over_from_one_that_does_not() -> None:
    runs, waits = rule("r", on_missing_profile="run"), rule("r", 'user.country == "US"', version=2)
    shard = shard_of(0, runs)
    assert fired(shard.step(batch(event("u1")))) == [("r", 1, 0)]
    shard.step(published(1, waits))
    assert fired(shard.step(batch(event("u1")))) == []
    us = fetched({"profile": {"country": "US"}, "visit": None, "history": []})
    assert fired(shard.step(answers=[Answer("u1", us)])) == [("r", 2, 1)]


def test_what_is_held_goes_out_with_the_number_of_the_set_that_decided_it() -> None:
    quiet = rule("r", quiet_hours={"start": "00:00", "end": "12:00"})
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    shard.step(published(1, quiet))
    assert fired(shard.step(batch(event(n=0)))) == []
    shard.step(published(2, NEW))
    shard.restore()
    assert fired(shard.step(now_ms=NOW_MS + 12 * 3_600_000)) == [("r", 1, 1)]


def test_a_shard_without_users_remembers_its_set_over_restores_and_rewrites() -> None:
    shard = shard_of(0, OLD, compact_bytes=1)
    shard.step(published(7, NEW))
    assert not shard.state.is_empty
    for user in ("u1", "u2", "u3"):
        with_loaded_users(shard, user)
        shard.restore()
        shard.step(control({"forget": user}))
        shard.restore()
    assert shard.state.users == {}
    assert shard.state.rules is not None
    assert shard.state.rules.number == 7
    with_loaded_users(shard, "u1")
    assert fired(shard.step(batch(event(n=1)))) == [("r", 2, 7)]


@pytest.mark.parametrize(
    ("value", "detail", "is_shared"),
    [
        (b"nonsense", "rule set is not JSON", False),
        (b'{"rules": 7}', "rule set: rules is 7", True),
        (b'{"forget": "u1"}', "rule set: ", False),
        (b'{"destination": {}}', "rule set: ", True),
        (encode_rule_set(RuleSet(9, (rule("bad", "return return"),))), "rule set 9 cannot be used: rule 'bad'", True),
        (encode_rule_set(RuleSet(9, (OLD,))).replace(b'"filter"', b'"filtre"'), "rule set: rules.0.filter", True),
    ],
)
def test_what_is_no_set_is_a_dead_letter_and_the_old_set_stays(value: bytes, detail: str, is_shared: bool) -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    shard.step(published(3, NEW))
    done = shard.step(raw(value))
    letters = done.shared_dead_letters if is_shared else done.dead_letters
    (letter,) = letters
    assert (letter.reason, letter.topic, letter.value) == ("bad_control_record", "rules", value)
    assert letter.detail.startswith(detail)
    assert len(done.dead_letters) + len(done.shared_dead_letters) == 1
    assert (done.facts, done.applied_rule_sets, done.erasures) == ([], [], [])
    assert fired(shard.step(batch(event(n=1)))) == [("r", 2, 3)]


def test_a_set_on_the_control_topic_is_a_dead_letter() -> None:
    shard = with_loaded_users(shard_of(0, OLD), "u1")
    done = shard.step(published(3, NEW, topic="control"))
    assert [(letter.reason, letter.topic) for letter in done.shared_dead_letters] == [("bad_control_record", "control")]
    assert "rule sets go to --rules_topic" in done.shared_dead_letters[0].detail
    assert shard.state.rules is None


def test_sets_are_compiled_once_and_few_are_kept() -> None:
    made: list[FilterSet] = []
    closed: list[FilterSet] = []

    class CountedFilterSet(FilterSet):
        def close(self) -> None:
            closed.append(self)

    def compile_rules(rules: tuple[Rule, ...]) -> FilterSet:
        made.append(CountedFilterSet(rules, LuaEngines(), monotonic_ms))
        return made[-1]

    sets = RuleSets(RuleSet(0, (OLD,)), compile_rules, "rules")
    stored = [StoredRules(number, encode_rule_set(RuleSet(number, (OLD,)))) for number in range(1, 7)]
    for rules in stored[:2]:
        same = StoredRules(rules.number, bytes(bytearray(rules.record)))
        assert sets.live(rules) is sets.live(same) is sets.live(rules)
    assert len(made) == 3
    for rules in stored[2:]:
        assert sets.live(rules).number == rules.number
    assert closed == made[1:3]
    assert sets.live(stored[0]).number == 1  # made anew
    assert len(made) == 8
    sets.close()
    assert set(closed) == set(made)


def test_a_kept_set_that_this_release_cannot_use_stops_the_job_and_a_higher_launched_one_helps() -> None:
    unusable = StoredRules(3, b'{"rules": {"version": 2}}')
    with pytest.raises(RuleError, match="rule set 3 cannot be used: rule set: version is 2, this release reads 1"):
        rule_sets(RuleSet(2, (OLD,)), "rules").live(unusable)
    assert rule_sets(RuleSet(4, (OLD,)), "rules").live(unusable).number == 4


def test_the_fact_is_what_journals_hold_for_ever() -> None:
    shard = shard_of(0, OLD)
    done = shard.step(published(3, NEW))
    assert done.facts == [RuleSetReplaced(3, encode_rule_set(RuleSet(3, (NEW,))))]
    assert RuleSetReplaced.__struct_config__.tag == 18
    assert isinstance(done.facts[0], RuleSetReplaced)
    assert orjson.loads(done.facts[0].record)["rules"]["number"] == 3
