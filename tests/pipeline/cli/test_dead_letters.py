"""``event-trigger dead-letters`` on a real broker, and a webhook that is redriven through the job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from pipeline.cli.main import main
from pipeline.job.redriving import Redrive, RedriveSettings, open_writer
from pipeline.job.stored_letters import LetterFilter
from pipeline.kafka.transactional_writer import TransactionalWriter
from runners.flink.local.broker import LocalKafka
from tests.builders import event
from tests.integration.jobs import ROOT, Topics, reading
from tests.receiver import SECRET, receiving
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.webhooks.redrive import read_redrive
from transforms.domain.webhooks.signatures import parse_keys

pytestmark = pytest.mark.stack

KEY = "whsec_" + "bGV0dGVycw" * 4
SIGNER = LetterSigner(lambda: parse_keys(KEY))

ACTION = LostAction("0" * 32, 2, "webhook", "crm", "u2", "e", b'{"n": 1}', 5, 3, 400)
NOT_JSON = DeadLetter("not_json", "bad \x1b[31m", "TOPIC", 2, 7, 9, b"u1", b"\x00event")
MISMATCH = DeadLetter("key_mismatch", "why", "TOPIC", 2, 7, 9, b"u1", b"\x00event")
RULE_ERROR = DeadLetter("rule_error", "r:1: no", "TOPIC", 3, 8, 9, b"u1", b'{"event_id": "e"}', "r")
LOST = DeadLetter("undelivered", "after 3 attempts: HTTP 400", "", -1, -1, 9, b"u2", b"", "r", ACTION)
CONTROL = DeadLetter("bad_control_record", "why", "control", 0, 1, 9, None, b"{}")


class Letters:
    """Topics of its own, with letters written a second apart, and the commands on them."""

    def __init__(self, kafka: LocalKafka) -> None:
        self.kafka = kafka
        self.topics = Topics(kafka)
        self.written = [replace(letter, topic=self.topics.events) for letter in (NOT_JSON, RULE_ERROR)] + [
            LOST,
            CONTROL,
        ]

    def write(self, *values: bytes, key: bytes | None = b"u1") -> None:
        """By default the letters; the first one at 10:00:00 UTC, 2024."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for number, value in enumerate(values or [letter.to_json() for letter in self.written]):
            producer.produce(self.topics.dead_letters, value, key, timestamp=1_704_103_200_000 + 1000 * number)
        assert producer.flush(30) == 0

    def run(self, command: str, *options: str) -> int:
        where = [f"--dead_letters_topic={self.topics.dead_letters}"]
        if command == "redrive":
            where.append(f"--events_topic={self.topics.events}")
        return main(["dead-letters", command, *where, f"--bootstrap_servers={self.kafka.bootstrap_servers}", *options])

    def control(self) -> str:
        return f"--control_topic={self.topics.control}"

    def records(self, topic: str, count: int) -> list[tuple[int, bytes | None, bytes]]:
        """Partition, key and value of all records, which have to be so many."""
        with reading(self.kafka, topic) as reader:
            reader.until(count, 10)
            return [(message.partition(), message.key(), message.value()) for message in reader.settle(0.5)]


@pytest.fixture
def letters(kafka: LocalKafka) -> Letters:
    return Letters(kafka)


def test_letters_are_listed_one_a_line_and_counted(letters: Letters, capsys: pytest.CaptureFixture[str]) -> None:
    letters.write()
    letters.write(b"no letter")
    assert letters.run("list") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "0/0  2024-01-01T10:00:00Z  not_json  user u1  bad \\x1b[31m",
        "0/1  2024-01-01T10:00:01Z  rule_error  rule r  user u1  r:1: no",
        "0/2  2024-01-01T10:00:02Z  undelivered  rule r  user u2  destination crm  after 3 attempts: HTTP 400",
        "0/3  2024-01-01T10:00:03Z  bad_control_record  why",
        "      1  not_json",
        "      1  rule_error",
        "      1  undelivered",
        "      1  bad_control_record",
        "      4  letters",
    ]
    assert shown.err.startswith("warning: 0/4: no dead letter: ")


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["--reason=not_json", "--reason=undelivered"], [0, 2]),
        (["--rule=r"], [1, 2]),
        (["--rule=r", "--destination=crm"], [2]),
        (["--since=2024-01-01T10:00:01Z", "--until=2024-01-01T11:00:03+01:00"], [1, 2]),
        (["--since=2024-01-01T10:00:02.500"], [3]),
        (["--since=2025-01-01"], []),
        (["--limit=3", "--until=2024-01-01T10:00:02Z"], [0, 1]),
        (["--limit=1"], [0]),
    ],
)
def test_filters(letters: Letters, capsys: pytest.CaptureFixture[str], options: list[str], offsets: list[int]) -> None:
    letters.write()
    assert letters.run("list", "--json", *options) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [letter["offset"] for letter in shown["letters"]] == offsets
    assert sum(shown["reasons"].values()) == len(offsets)


def test_one_is_shown_with_everything(letters: Letters, capsys: pytest.CaptureFixture[str]) -> None:
    letters.write()
    letters.write(b"no letter")
    assert letters.run("show", "0/2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"reason: undelivered", "stage: delivery", "action.destination: crm", 'action.body: {"n": 1}'} <= set(lines)
    assert letters.run("show", "0/1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["record"]["value"] == '{"event_id": "e"}'
    assert (shown["partition"], shown["offset"], shown["time"]) == (0, 1, 1_704_103_201_000)
    assert (shown["record"]["topic"], shown["record"]["offset"], shown["action"]) == (letters.topics.events, 8, None)
    assert letters.run("show", "0/0") == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "record.value.base64: AGV2ZW50" in out.splitlines()
    for place in ("0/4", "0/5", "0/99", "7/0"):
        assert letters.run("show", place) == 1
        assert place.partition("/")[0] in capsys.readouterr().err
    assert letters.run("show", "0") == 2
    assert "error: '0' is no place of a letter, allowed: PARTITION/OFFSET" in capsys.readouterr().err


def test_each_letter_is_sent_again_in_its_way(
    letters: Letters, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = [replace(letter, topic=letters.topics.events) for letter in (MISMATCH, RULE_ERROR)] + [LOST, CONTROL]
    letters.write(*(SIGNER.signed(letter).to_json() for letter in signed), letters.written[0].to_json())
    assert letters.run("redrive", letters.control()) == 0
    assert capsys.readouterr().out.splitlines() == [
        "would be sent: 0 actions, 0 events",
        "skipped: 3: signature not checked: the job may not have written it",
        "skipped: 1: control records, which are not redriven",
        "skipped: 1: reason not_json: the same bytes would fail again",
        "nothing was sent: --execute sends it",
    ]
    monkeypatch.setenv("LETTER_KEY", KEY)
    options = [letters.control(), "--dead_letters_key=env:LETTER_KEY", "--rate=100"]
    assert letters.run("redrive", *options) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "would be sent: 1 actions, 2 events"
    assert f"      1  undelivered  signed  webhook to crm, through topic {letters.topics.control}" in out
    assert '         0/1  user u1  {"event_id": "e"}' in out
    assert letters.run("redrive", "--execute", *options) == 0
    assert "sent: 1 actions, 2 events" in capsys.readouterr().out.splitlines()
    for _ in range(2):
        assert letters.run("redrive", "--execute", *options) == 0
        again = capsys.readouterr().out.splitlines()
        assert (again[0], again[1]) == ("would be sent: 0 actions, 0 events", "skipped: 3: redriven before")
    assert letters.run("list", "--reason=undelivered") == 0
    assert capsys.readouterr().err == ""  # markers are no letters, and nothing to warn of
    assert sorted(letters.records(letters.topics.events, 2)) == [
        (2, b"u1", b"\x00event"),
        (3, b"u1", b'{"event_id": "e"}'),
    ]
    ((partition, key, value),) = letters.records(letters.topics.control, 1)
    assert (partition, key) == (0, b"u2")
    record = orjson.loads(value)
    assert (record["redrive"], record["action"]) == ("u2", {"rule": "r", **ACTION.public()})
    assert read_redrive(value, 1, SIGNER)[0] == "u2"


def test_what_cannot_be_sent_is_counted_and_the_exit_code_says_so(
    letters: Letters, capsys: pytest.CaptureFixture[str]
) -> None:
    letters.kafka.create_topic(small := f"small-{letters.topics.tag}", 1, {"max.message.bytes": "1000"})
    large = replace(MISMATCH, topic=small, partition=0, value=b"x" * 5000)
    letters.write(large.to_json(), replace(large, topic="gone").to_json(), replace(large, value=b"x").to_json())
    options = ["redrive", f"--events_topic={small}", "--accept_unsigned", "--json"]
    assert letters.run(*options, "--execute") == 1
    counts = json.loads(capsys.readouterr().out)
    assert counts["sent"] == {"actions": 0, "events": 1}, json.dumps([counts["failed"], counts["stopped"]])
    assert counts["skipped"] == {f"of another topic than the events topic {small!r}": 1}
    assert list(counts["failed"].values()) == [1]
    assert letters.run(*options) == 0  # the one that was refused has no marker
    assert json.loads(capsys.readouterr().out)["would_send"] == {"actions": 0, "events": 1}


def test_of_two_redrives_at_the_same_time_the_first_is_stopped_and_no_letter_is_sent_twice(letters: Letters) -> None:
    letters.write(*(replace(MISMATCH, topic=letters.topics.events, offset=n).to_json() for n in range(250)))
    config = {"bootstrap.servers": letters.kafka.bootstrap_servers}
    topics = letters.topics
    settings = RedriveSettings(topics.dead_letters, topics.events, None, LetterSigner(), accept_unsigned=True)

    def begin() -> tuple[Redrive, TransactionalWriter]:
        writer = open_writer(config, settings)
        return Redrive(config, settings, LetterFilter()), writer

    first, first_writer = begin()
    plan = first.plan()
    half = Redrive(config, settings, LetterFilter(), limit=100)
    assert half.send(half.plan(), first_writer).sent == {"events": 100}
    second, second_writer = begin()
    stopped = first.send(plan, first_writer)
    assert (stopped.sent, "another one has begun" in str(stopped.stopped)) == ({}, True)
    assert second.send(second.plan(), second_writer).sent == {"events": 150}
    assert len(letters.records(topics.events, 250)) == 250


def test_options_that_cannot_be_used_send_nothing(letters: Letters, capsys: pytest.CaptureFixture[str]) -> None:
    letters.write()
    wrong = {
        (): "--control_topic is missing: letter 0/2 has an action",
        ("--control_topic=nowhere",): "control topic 'nowhere' does not exist",
        (letters.control(), "--rate=0"): "--rate is 0.0, allowed: a number above 0",
        (letters.control(), "--reason=destination_gone"): "--reason is 'destination_gone', did you mean destination_un",
        (letters.control(), "--reason=not_json"): "--reason is 'not_json', of which the same bytes would fail again",
        (letters.control(), "--dead_letters_key=whsec_x"): "--dead_letters_key is no reference, allowed: env:NAME",
        (letters.control(), "--dead_letters_key=env:NO_SUCH"): "env:NO_SUCH: no such environment variable",
        (letters.control(), "--limit=0"): "--limit is 0, allowed: a number from 1 on",
        (letters.control(), "--since=yesterday"): "--since is 'yesterday', allowed: a time like 2024-01-31T08:00:00Z",
        (letters.control(), "--dead_letters_topic=nowhere"): "dead letters topic 'nowhere' does not exist",
    }
    for options, message in wrong.items():
        assert letters.run("redrive", "--execute", "--accept_unsigned", *options) == 2
        assert f"error: {message}" in capsys.readouterr().err
    with reading(letters.kafka, letters.topics.events) as reader:
        assert reader.settle(0.5) == []


def test_the_commands_do_without_beam() -> None:
    code = """
import sys
from pipeline.cli.main import main
from pipeline.job.redriving import Redrive, RedriveSettings, open_writer
from pipeline.job.stored_letters import LetterFilter
from pipeline.kafka.transactional_writer import TransactionalWriter
for command in ("dead-letters", "destinations", "inspect", "ui"):
    try:
        main([command, "--help"])
    except SystemExit:
        pass
sys.exit("apache_beam" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.count(b"Usage: ")) == (0, 4), done.stderr


def test_the_longest_record_that_kafka_takes_becomes_a_letter_that_is_cut(letters: Letters, tmp_path: Path) -> None:
    topics = letters.topics
    topics.produce([(b"u1", b"x" * 999_000), (b"k" * 499_000, b"x" * 500_000)])
    (tmp_path / "r.yaml").write_text("name: r\nversion: 1\nfilter: 'true'\nactions: [{type: debug}]\n")
    assert main([*topics.options(), f"--rules={tmp_path}"]) == 0
    found = [orjson.loads(value) for _, _, value in letters.records(topics.dead_letters, 2)]
    assert [(letter["reason"], letter["cut"]) for letter in found] == [("too_large", True)] * 2


def test_a_refused_webhook_is_redriven_through_the_job(
    letters: Letters, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = letters.topics
    monkeypatch.setenv("LETTER_KEY", KEY)
    (tmp_path / "secret").write_text(SECRET)
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "r.yaml").write_text("name: r\nversion: 1\nfilter: 'true'\nactions: [{type: webhook, destination: crm}]\n")

    def run(*options: str) -> int:
        destinations = [f"--destinations={tmp_path / 'destinations.yaml'}", "--allow_private_destinations"]
        key = "--dead_letters_key=env:LETTER_KEY"
        return main([*topics.options(), letters.control(), key, f"--rules={rules}", *destinations, *options])

    topics.produce([(b"u1", orjson.dumps(event("u1", event_id="e1")))])
    with receiving() as receiver:
        crm: dict[str, Any] = {"name": "crm", "url": f"{receiver.url}/crm", "secrets": [f"file:{tmp_path / 'secret'}"]}
        (tmp_path / "destinations.yaml").write_text(json.dumps({"destinations": [crm]}))
        receiver.answers = {"/crm": lambda: 400}
        assert run() == 0
        redrive = ["redrive", letters.control(), "--reason=undelivered", "--dead_letters_key=env:LETTER_KEY"]
        assert letters.run(*redrive, "--execute") == 0
        assert "sent: 1 actions, 0 events" in capsys.readouterr().out
        receiver.answers = {}
        assert run("--starting_offsets=latest") == 0  # of the events; the control topic is read from its beginning
    first, again = receiver.seen
    assert again == first  # id, path and body
    assert receiver.bad == []
    assert len(letters.records(topics.dead_letters, 2)) == 2  # the letter and its marker
