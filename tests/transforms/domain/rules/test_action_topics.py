from __future__ import annotations

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, filter_set, rule
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.action_topics import ActionTopics, topics_of
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import RuleSet, encode_rule_set
from transforms.domain.shard.step_input import Answer

TOPICS = ActionTopics(("events", "dead", "alerts-own"), ("actions", "alerts-*", "*ents"))


def writes(*topics: str) -> Rule:
    return rule("r", "true", actions=[{"type": "kafka", "name": f"k{n}", "topic": t} for n, t in enumerate(topics)])


@pytest.mark.parametrize("topic", ["events", "alerts-own", "dead", "__consumer_offsets", "__x", "other", "Alerts-a"])
def test_topics_of_the_job_and_those_that_nobody_allowed_are_refused(topic: str) -> None:
    with pytest.raises(RuleError, match=f"rule 'r': action 'k1': topic is '{topic}'"):
        TOPICS.check([writes("actions", topic)])


def test_patterns_allow_what_they_match_and_no_list_allows_every_other_topic() -> None:
    TOPICS.check([writes("actions", "alerts-a", "payments"), rule("s")])
    ActionTopics(("events",)).check([writes("Events", "other")])
    assert topics_of([writes("a", "b", "a")]) == ("a", "b")


def test_a_published_set_that_writes_a_topic_of_the_job_is_one_letter_and_the_old_set_stays() -> None:
    sets = RuleSets(RuleSet(0, (writes("actions"),)), filter_set, "rules")
    shard = Shard(filters=sets, action_topics=TOPICS)
    value = encode_rule_set(RuleSet(1, (writes("events"),)))
    done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [Record(0, 0, NOW_MS, b"set-1", value)]))
    done.include_shared_dead_letters()
    assert [letter.reason for letter in done.dead_letters] == ["bad_control_record"]
    assert "'events', a topic of the job itself" in done.dead_letters[0].detail
    good = encode_rule_set(RuleSet(2, (writes("alerts-b"),)))
    done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [Record(0, 1, NOW_MS, b"set-2", good)]))
    assert done.applied_rule_sets == [2]


def test_an_action_that_may_not_be_written_any_more_is_a_letter_of_its_rule() -> None:
    shard = Shard(writes("events", "alerts-c"), action_topics=TOPICS)
    shard.step(batch(event("u", event_id="a")))
    done = shard.step(answers=[Answer("u", fetched(None))])
    assert [(letter.reason, letter.rule, letter.stage) for letter in done.dead_letters] == [
        ("action_topic_refused", "r", "rule")
    ]
    assert [orjson.loads(fired.body)["event"]["event_id"] for fired in done.actions] == ["a"]
    assert done.counts["actions"] == 1


def test_an_action_whose_topic_is_gone_is_a_letter_and_the_others_leave() -> None:
    shard = Shard(writes("gone", "here"), missing_topics=["gone"])
    shard.step(batch(event("u", event_id="a")))
    done = shard.step(answers=[Answer("u", fetched(None))])
    assert [(letter.reason, letter.rule, letter.stage, letter.detail) for letter in done.dead_letters] == [
        ("action_topic_missing", "r", "rule", "action 'k0': topic 'gone' does not exist")
    ]
    assert [fired.action.name for fired in done.actions] == ["k1"]


def test_a_topic_of_the_job_is_refused_also_where_it_is_missing() -> None:
    shard = Shard(writes("events"), action_topics=TOPICS, missing_topics=["events"])
    shard.step(batch(event("u")))
    done = shard.step(answers=[Answer("u", fetched(None))])
    assert [letter.reason for letter in done.dead_letters] == ["action_topic_refused"]
