"""What topics a launch wants is what docs/configuration.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import OptionError
from pipeline.kafka.topic_creation import WantedTopic
from pipeline.launch.options import Settings, parse
from pipeline.launch.wanted_topics import wanted_topics
from tests.builders import rule

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
FLINK = ("--runner=FlinkRunner", "--bootstrap_servers=b:1", "--rules=r")
ALL = (
    "--control_topic=control",
    "--rules_topic=rules",
    "--decisions_topic=decisions",
    "--deliveries_topic=deliveries",
    "--destinations=d",
)


def settings(*flags: str) -> Settings:
    return parse([*FLINK, *flags])


def by_option(*flags: str, partitions: int | None = None) -> dict[str, WantedTopic]:
    return {topic.option: topic for topic in wanted_topics(settings(*flags), (), partitions)}


def kept(topic: WantedTopic) -> str:
    if topic.config["cleanup.policy"] == "compact":
        return "compacted"
    days = int(topic.config["retention.ms"]) / 86_400_000
    return "for ever" if days < 0 else "1 day" if days == 1 else f"{days:g} days"


def test_the_page_has_partitions_and_retention_of_every_topic() -> None:
    rows = {}
    for line in PAGE.read_text().partition("\n## Topics\n")[2].partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 1 and cells[1].startswith("`--"):
            rows[cells[1].strip("`")] = (cells[3], cells[4])
    words = {"--deliveries_topic": "`--user_shards`"}
    assert rows == {
        option: (
            words.get(option, "1" if topic.partitions == 1 else "`--partitions`"),
            kept(topic),
        )
        for option, topic in by_option(*ALL).items()
    }


def test_a_launch_without_more_wants_events_actions_and_letters() -> None:
    assert set(by_option()) == {"--events_topic", "--actions_topic", "--dead_letters_topic"}


@pytest.mark.parametrize(
    ("flags", "given", "partitions"), [((), None, 4), (("--parallelism=16",), None, 16), ((), 7, 7)]
)
def test_there_is_a_partition_for_each_subtask(flags: tuple[str, ...], given: int | None, partitions: int) -> None:
    assert by_option(*flags, partitions=given)["--events_topic"].partitions == partitions


def test_fewer_partitions_than_subtasks_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--partitions is 3, allowed: from --parallelism=8 on"):
        by_option("--parallelism=8", partitions=3)


def test_the_ledger_has_a_partition_for_each_shard_and_outlasts_ten_checkpoints() -> None:
    flags = (*ALL, "--user_shards=48", "--checkpointing_interval_ms=36000000")
    ledger = by_option(*flags)["--deliveries_topic"]
    assert (ledger.partitions, ledger.needed) == (48, 48)
    assert ledger.config["retention.ms"] == str(ledger.least_retention_ms) == "360000000"


def test_topics_of_rules_and_options_are_wanted_but_no_patterns_and_none_twice() -> None:
    kafka = [{"type": "kafka", "topic": "alerts"}, {"type": "kafka", "topic": "event-actions"}, {"type": "kafka"}]
    rules = [rule("a", actions=kafka[:1]), rule("b", actions=kafka[1:2]), rule("c", actions=kafka[2:])]
    wanted = [topic.name for topic in wanted_topics(settings("--action_topics=more", "--action_topics=all-*"), rules)]
    assert sorted(wanted) == ["alerts", "event-actions", "event-dead-letters", "more", "user-tracking-events"]
