"""``event-trigger rules publish``, ``rollback`` and ``status`` on a real broker."""

from __future__ import annotations

import io
import json
import threading
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from pipeline.cli.main import main
from pipeline.errors import OptionError
from pipeline.kafka import topics
from pipeline.kafka.announcements import Announcement, announce
from pipeline.kafka.rules_topic import KEPT_SETS, RulesTopic
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings, parse
from pipeline.launch.run import _rule_set
from runners.flink.local.broker import LocalKafka
from tests.builders import event, rule
from tests.integration.jobs import reading
from transforms.domain.rules.sets import Acknowledgement, RuleSet, decode_rule_set, encode_rule_set

RULE = """\
name: NAME
version: 1
filter: event.event_name == "page_view"
actions:
  - type: kafka
tests:
  - name: fires
    events: [{event_name: page_view}]
    expect: [kafka]
"""


class Published:
    """A topic of its own, the commands on it, and rule files to publish."""

    def __init__(self, kafka: LocalKafka, folder: Path) -> None:
        self.kafka, self.folder = kafka, folder
        self.name = f"rules-{uuid.uuid4().hex[:8]}"
        self.audit = f"audit-{self.name}"
        self.topic = RulesTopic(self.name, self.config)
        folder.mkdir()

    @property
    def config(self) -> dict[str, str]:
        return {"bootstrap.servers": self.kafka.bootstrap_servers}

    def write(self, name: str, text: str = RULE) -> None:
        (self.folder / f"{name}.yaml").write_text(text.replace("NAME", name))

    def run(self, command: str, *options: str) -> int:
        where = [f"--rules_topic={self.name}", f"--bootstrap_servers={self.kafka.bootstrap_servers}"]
        path = [str(self.folder)] if command == "publish" else []
        return main(["rules", command, *path, *where, *options])

    def numbers(self) -> list[int]:
        return [rule_set.number for rule_set in self.topic.read().sets]

    def produce(self, topic: str, *records: tuple[bytes, bytes | None]) -> None:
        producer = Producer(self.config)
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(30) == 0

    def acknowledge(self, number: int, *shards: int, of: int = 4, at_ms: int = 5) -> None:
        acknowledgements = [Acknowledgement(number, shard, of, at_ms) for shard in shards]
        self.produce(
            self.audit, *((acknowledgement.key, acknowledgement.to_json()) for acknowledgement in acknowledgements)
        )


@pytest.fixture
def published(kafka: LocalKafka, tmp_path: Path) -> Published:
    return Published(kafka, tmp_path / "rules")


pytestmark = pytest.mark.stack


def test_a_destination_that_the_job_does_not_have_is_refused(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write(
        "first", RULE.replace("type: kafka", "type: webhook\n    destination: shop").replace("[kafka]", "[webhook]")
    )
    options = {"history_size": 100, "state_ttl_seconds": 60.0}
    published.kafka.create_topic(published.audit, 1)
    for at_ms, destinations in ((5, ("shop",)), (6, ("crm",))):
        announcement = Announcement("job", published.name, destinations, options, at_ms)
        announce(published.config, published.audit, announcement)
    announce(published.config, published.audit, Announcement("other", "other-rules", ("shop",), options, 7))
    assert published.run("publish", f"--audit_topic={published.audit}") == 1
    assert "rule 'first': destination is 'shop', allowed: crm, of job 'job', launched " in capsys.readouterr().err
    assert published.numbers() == []
    announce(published.config, published.audit, Announcement("job", published.name, ("shop",), options, 8))
    assert published.run("publish", f"--audit_topic={published.audit}") == 0
    assert "the job runs with --state_ttl_seconds=60.0, the tests here with 600.0" in capsys.readouterr().err
    assert published.numbers() == [1]


def test_rules_are_published_changed_and_rolled_back(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    published.write("first")
    published.write("second")
    assert published.run("publish", "--note=to begin with") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["ok      first: fires", "ok      second: fires"]
    assert shown[-4:] == [
        f"against {published.name}, which has no set yet:",
        "  + first  version 1",
        "  + second  version 1",
        "published set 1",
    ]

    (published.folder / "second.yaml").unlink()
    published.write("third")
    published.write("first", RULE.replace("version: 1", "version: 2").replace("page_view", "click"))
    assert published.run("publish", "--events_topic=nowhere") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-9:-2] == [
        f"against set 1 on {published.name}:",
        "  + third  version 1",
        "  ~ first  version 1 -> 2",
        "      filter:",
        '        - event.event_name == "page_view"',
        '        + event.event_name == "click"',
        "  - second  version 1",
    ]
    assert shown[-2].startswith("not tried on past events: ")
    assert "nowhere" in shown[-2]
    assert shown[-1] == "published set 2"

    assert published.run("rollback") == 0
    assert capsys.readouterr().out == "published set 3: the rules of set 1\n"
    first, second, third = published.topic.read().sets
    assert first.note == "to begin with"
    assert first.versions == {"first": 1, "second": 1}
    assert second.versions == {"first": 2, "third": 1}
    assert third.rules == first.rules
    assert third.note == "set 1 again"
    assert third.number == 3

    assert published.run("rollback", "--to=1") == 1
    assert "error: set 1 has the rules of the live set 3: give another with --to\n" in capsys.readouterr().err
    assert published.run("rollback", "--to=9") == 1
    assert "error: --to is 9, allowed: 1, 2; live is 3\n" in capsys.readouterr().err
    assert published.run("rollback", "--to=2", "--note=why") == 0
    live = published.topic.read().live
    assert live is not None
    assert (live.number, live.note, live.rules) == (4, "why", second.rules)


def test_a_change_is_tried_on_the_newest_events_before_it_is_published(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    events = f"events-{published.name}"
    published.kafka.create_topic(events, 2)
    where = f"--events_topic={events}"
    published.write("first")
    assert published.run("publish", where) == 0
    assert "not tried" not in capsys.readouterr().out
    published.write("first", RULE.replace("version: 1", "version: 2").replace("page_view", "click"))
    assert published.run("publish", where, "--dry_run") == 0
    assert f"not tried on past events: {events} has none\n" in capsys.readouterr().out

    names = ["page_view"] * 60 + ["click"] * 20 + ["other"] * 20
    bodies = [event(f"u{number % 10}", event_id=f"e{number}", event_name=name) for number, name in enumerate(names)]
    published.produce(events, *((body["user_id"].encode(), orjson.dumps(body)) for body in bodies))

    assert published.run("publish", where, "--dry_run") == 0
    shown = capsys.readouterr().out
    assert f"on the newest 100 events of {events}, " in shown
    assert "without --user_api_url nobody is known" in shown
    assert f"before: set 1, after: {published.folder}" in shown
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("first  ")]
    assert line == ["first", "60", "20", "-40", "10", "10", "0", "0"]
    assert published.run("publish", where, "--dry_run", "--backtest_events=0") == 0
    assert events not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "is_published"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False), ("n\n", False)]
)
def test_in_a_terminal_publishing_is_asked_for(
    published: Published,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    is_published: bool,
) -> None:
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    published.write("first")
    assert published.run("publish") == (0 if is_published else 1)
    assert "publish set 1? [y/N] " in capsys.readouterr().out
    assert published.numbers() == ([1] if is_published else [])
    published.write("second")
    assert published.run("publish", "--yes") == 0
    assert "[y/N]" not in capsys.readouterr().out


def test_what_is_on_the_topic_is_the_documented_record(published: Published) -> None:
    published.write("first")
    assert published.run("publish") == 0
    with reading(published.kafka, published.name) as topic:
        (message,) = topic.until(1, 10)
    assert message.key() == b"set-1"
    content = orjson.loads(message.value())["rules"]
    assert {name: content[name] for name in ("version", "number", "rules")} == {
        "version": 1,
        "number": 1,
        "rules": [
            {
                "name": "first",
                "version": 1,
                "filter": 'event.event_name == "page_view"',
                "actions": [{"type": "kafka"}],
            }
        ],
    }
    admin, resource = AdminClient(published.config), ConfigResource(ResourceType.TOPIC, published.name)
    settings = admin.describe_configs([resource])[resource].result(10)
    assert settings["cleanup.policy"].value == "compact"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULE.replace("version: 1", "version: 0"), "version is 0"),
        (RULE.replace('== "page_view"', "=="), "filter does not compile"),
        (RULE.replace("[kafka]", "nothing"), "error: nothing was published"),
        (RULE.replace("page_view", "click"), "rule 'first': filter differ from the live version 1: raise the version"),
    ],
)
def test_what_is_no_good_is_not_published(
    published: Published, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    published.write("first")
    assert published.run("publish") == 0
    published.write("first", text)
    assert published.run("publish") == 1
    assert message in capsys.readouterr().err
    assert published.numbers() == [1]


def test_a_version_keeps_its_meaning_after_a_rollback(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    published.write("first")
    assert published.run("publish") == 0
    published.write("first", RULE.replace("version: 1", "version: 2").replace("page_view", "click"))
    assert published.run("publish") == 0
    assert published.run("rollback") == 0
    published.write("first", RULE.replace("version: 1", "version: 2").replace("page_view", "scroll"))
    assert published.run("publish") == 1
    assert "rule 'first': filter differ from version 2 in set 2: raise the version" in capsys.readouterr().err
    assert published.numbers() == [1, 2, 3]


def test_nothing_new_and_a_dry_run_publish_nothing(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    published.write("first")
    assert published.run("publish", "--dry_run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "would publish set 1; nothing was published"
    assert published.name not in AdminClient(published.config).list_topics(timeout=10).topics
    assert published.run("publish") == 0
    assert published.run("publish") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(": nothing changes, nothing is published")
    assert published.run("publish", "--dry_run") == 0
    assert published.numbers() == [1]


def test_status_says_where_the_newest_set_is_live(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    assert published.run("status") == 0
    assert capsys.readouterr().out == f"{published.name} has no set\n"
    published.write("first")
    assert published.run("publish", "--note=why") == 0
    capsys.readouterr()
    assert published.run("status", f"--audit_topic={published.audit}") == 2
    assert f"error: audit topic {published.audit!r} does not exist" in capsys.readouterr().err
    published.kafka.create_topic(published.audit, 3)
    assert published.run("status", f"--audit_topic={published.audit}") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("set 1  20")
    assert shown[0].endswith("  (why)")
    assert shown[1:] == ["    first 1", "set 1: no shard has acknowledged a set"]

    published.produce(published.audit, (b"x", b"not JSON"), (b"x", b'{"audit": "forget"}'), (b"x", None))
    published.acknowledge(1, 0, 1, 2, 3)
    published.write("first", RULE.replace("version: 1", "version: 2"))
    assert published.run("publish") == 0
    published.acknowledge(2, 1, 3, at_ms=6)
    capsys.readouterr()
    assert published.run("status", f"--audit_topic={published.audit}", "--wait=0.5") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "set 2: live in 2 of 4 shards; not in 0, 2"
    late = threading.Timer(0.3, lambda: published.acknowledge(2, 0, 2, at_ms=7))
    late.start()
    assert published.run("status", f"--audit_topic={published.audit}", "--wait=30", "--json") == 0
    late.join()
    status: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert status["newest"] == {"number": 2, "shards": 4, "live_in": 4, "behind": []}
    assert status["live"] == {"0": 2, "1": 2, "2": 2, "3": 2}
    assert [(rule_set["number"], rule_set["rules"]) for rule_set in status["sets"]] == [
        (1, {"first": 1}),
        (2, {"first": 2}),
    ]


def test_history_is_read_from_the_topic_and_a_typo_makes_no_topic(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    assert published.run("history") == 0
    assert capsys.readouterr().out == f"{published.name} has no set\n"
    assert published.run("rollback") == 1
    assert published.name not in AdminClient(published.config).list_topics(timeout=10).topics
    published.write("first")
    assert published.run("publish", "--note=why") == 0
    capsys.readouterr()
    assert published.run("history") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith("  (why)  the oldest that is kept")
    assert shown[1:] == ["  + first  version 1"]


def test_a_record_that_is_no_set_is_a_warning_and_its_number_is_not_used(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write("first")
    assert published.run("publish") == 0
    published.kafka.create_topic(published.audit, 1)
    by_hand = RuleSet(4, (rule("hand"),), 5, "me")
    published.produce(published.name, (b"set-7", b"nonsense"), (b"whatever", encode_rule_set(by_hand)))
    assert published.run("status", f"--audit_topic={published.audit}") == 0
    assert "warning: record 'set-7': rule set is not JSON" in capsys.readouterr().err
    published.write("first", RULE.replace("version: 1", "version: 2"))
    assert published.run("publish") == 0
    assert published.numbers() == [1, 4, 8]


def test_the_newest_sets_are_kept(published: Published) -> None:
    published.kafka.create_topic(published.name, 1, {"cleanup.policy": "compact"})
    sets = [RuleSet(number, (rule("r", version=number),)) for number in range(1, KEPT_SETS + 2)]
    published.produce(published.name, *((rule_set.key, encode_rule_set(rule_set)) for rule_set in sets))
    for _ in range(2):
        with published.topic.publishing() as publisher:
            publisher.publish([rule("r", version=99)], "me", "", 5)
    assert published.numbers() == list(range(4, KEPT_SETS + 4))
    with reading(published.kafka, published.name) as topic:
        messages = topic.until(KEPT_SETS + 6, 10)
    assert [message.key() for message in messages if message.value() is None] == [b"set-1", b"set-2", b"set-3"]


def test_of_two_publishers_the_one_that_began_first_gets_an_error(published: Published) -> None:
    with published.topic.publishing() as early, published.topic.publishing() as late:
        with pytest.raises(TopicError, match=r"another publisher began meanwhile, so that this one published no"):
            early.publish([rule("early")], "me", "", 5)
        assert late.publish([rule("late")], "me", "", 5).number == 1
    assert [rule_set.versions for rule_set in published.topic.read().sets] == [{"late": 1}]


def test_what_a_publisher_left_half_done_is_not_there(published: Published) -> None:
    with published.topic.publishing() as early:
        early._producer.begin_transaction()
        early._producer.produce(published.name, encode_rule_set(RuleSet(1, (rule("half"),))), b"set-1")
        assert early._producer.flush(10) == 0
        with published.topic.publishing() as late:
            assert late.published.sets == ()
            assert late.publish([rule("whole")], "me", "", 5).number == 1
    with reading(published.kafka, published.name) as topic:
        assert [decode_rule_set(message.value()).versions for message in topic.until(1, 10)] == [{"whole": 1}]


def test_no_number_is_used_twice_however_many_publish(published: Published) -> None:
    numbers: list[int] = []
    others: list[str] = []

    def publish_once() -> None:
        while True:
            try:
                with RulesTopic(published.name, published.config).publishing() as publisher:
                    numbers.append(publisher.publish([rule("r")], "me", "", 5).number)
                return
            except TopicError as error:
                others.append(str(error))

    threads = [threading.Thread(target=publish_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == [1, 2, 3, 4]
    assert [error for error in others if "another publisher began meanwhile" not in error] == []
    with reading(published.kafka, published.name) as topic:
        assert [message.key() for message in topic.until(4, 10)] == [b"set-1", b"set-2", b"set-3", b"set-4"]


def test_a_topic_that_would_not_keep_the_order_or_the_sets_is_refused(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write("first")
    published.kafka.create_topic(published.name, 2)
    for command in ("publish", "rollback", "status"):
        assert published.run(command) == 2
        assert f"error: rules topic {published.name!r} has 2 partitions, allowed is 1" in capsys.readouterr().err
    published.name += "-deleted"
    published.kafka.create_topic(published.name, 1, {"cleanup.policy": "delete"})
    assert published.run("publish") == 2
    assert "has cleanup.policy 'delete', allowed is 'compact'" in capsys.readouterr().err


def test_a_broker_that_is_not_there_and_a_property_that_is_none_are_named(
    published: Published, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "ANSWER_S", 0.5)
    published.write("first")
    where = ["--rules_topic=t", "--bootstrap_servers=127.0.0.1:1"]
    assert main(["rules", "publish", str(published.folder), *where]) == 2
    assert capsys.readouterr().err.startswith("error: rules topic 't': ")
    assert published.run("status", "--kafka_property=no.such=x") == 2
    assert "error: --kafka_property sets 'no.such', which no Kafka client has" in capsys.readouterr().err
    assert published.run("status", "--kafka_property=x") == 2
    assert "error: --kafka_property is 'x', allowed: NAME=VALUE" in capsys.readouterr().err


def launched(published: Published, *options: str) -> Settings:
    servers = published.kafka.bootstrap_servers
    return parse([f"--bootstrap_servers={servers}", f"--rules_topic={published.name}", *options])


def test_a_launch_begins_with_files_where_nothing_is_published(published: Published) -> None:
    published.write("first")
    with pytest.raises(OptionError) as caught:
        _rule_set(launched(published))
    assert f"--rules_topic {published.name!r} has no rule set and --rules is missing: publish" in str(caught.value)
    admin = AdminClient(published.config)
    assert published.name not in admin.list_topics(timeout=10).topics
    found = _rule_set(launched(published, f"--rules={published.folder}"))
    assert (found.number, found.versions) == (0, {"first": 1})
    # A job would not start on a topic that is not there.
    assert len(admin.list_topics(timeout=10).topics[published.name].partitions) == 1


def test_a_launch_begins_with_the_newest_set_that_can_be_used(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write("first")
    assert published.run("publish") == 0
    published.write("first", RULE.replace("version: 1", "version: 2"))
    assert published.run("publish") == 0
    assert _rule_set(launched(published, "--rules=/nowhere")) == published.topic.read().live
    capsys.readouterr()
    bad_lua = RuleSet(3, (rule("hand", "return return"),))
    published.produce(published.name, (bad_lua.key, encode_rule_set(bad_lua)), (b"set-4", b"{}"))
    found = _rule_set(launched(published))
    assert (found.number, found.versions) == (2, {"first": 2})
    warnings = capsys.readouterr().err.splitlines()
    assert warnings[0].startswith(
        f"warning: rules topic {published.name!r}: record 'set-4': rule set: rules is missing"
    )
    assert warnings[1].startswith(
        f"warning: rules topic {published.name!r}: set 3: rule 'hand': filter does not compile"
    )
    assert warnings[2] == f"rules topic {published.name!r}: starting with set 2"


def test_a_launch_with_an_unusable_topic_ends_with_one_line(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    published.kafka.create_topic(published.name, 3)
    options = ["--runner=FlinkRunner", f"--bootstrap_servers={published.kafka.bootstrap_servers}"]
    assert main([*options, f"--rules_topic={published.name}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: rules topic {published.name!r} has 3 partitions, allowed is 1")
