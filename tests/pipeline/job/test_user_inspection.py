"""What people see of a user's state, made from inspections of a real shard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from pipeline.cli.inspect import text_lines
from pipeline.cli.main import main
from pipeline.job.user_inspection import is_known, moment, sections
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS, Shard, batch, control, event, fetched, rule
from tests.integration.jobs import ROOT, Topics, control_record, reading
from tests.waiting import again_and_again
from transforms.domain.shard.step_input import Answer
from transforms.domain.webhooks.delivery_queue import RETRY, DeliveryResult
from transforms.domain.webhooks.retries import RetrySchedule

PROFILE = {"country": "US", "name": "<b>Ann\x1b[31m", "score": [1.5, None]}
VISIT = {"visit_id": "v1", "start_time": NOW_MS - 90_000, "page_count": 3, "is_first_visit": False}
REMEMBERING = (
    rule("offer", cooldown="1h", cap={"count": 3, "window": "7d"}),
    rule("night", 'event.event_name == "cart"', quiet_hours={"start": "23:00", "end": "08:00"}),
    rule("left", 'event.event_name == "cart"', sequence={"not_followed_by": "false", "within": "30m"}),
    rule("hook", actions=[{"type": "webhook", "destination": "crm"}]),
)


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """A user about whom everything is remembered that can be."""
    schedules = {"crm": RetrySchedule()}
    shard = Shard(*REMEMBERING, history_fields=("page",), destinations=schedules)
    first = [event("u1", event_id=f"e{n}", timestamp=NOW_MS - 5000 + n, page=f"/{n}") for n in range(2)]
    shard.step(batch(*first, event("u1", event_id="c1", event_name="cart")))
    known = {"profile": PROFILE, "visit": VISIT, "history": []}
    shard.step(answers=[Answer("u1", fetched(known))])
    return shard.inspect("u1")


def test_people_see_everything_that_is_there(state: dict[str, Any]) -> None:
    ids = [delivery["action_id"] for delivery in state["deliveries"]]
    assert list(text_lines(state, NOW_MS + 1000, 100)) == [
        "user u1",
        "last seen 2024-01-01T00:00:00.000Z (1 s ago)",
        "",
        "profile (fetched)",
        "  country  US",
        "  name     <b>Ann\x1b[31m",
        "  score    [1.5,null]",
        "",
        "current visit",
        "  visit_id        v1",
        "  start_time      2023-12-31T23:58:30.000Z (91 s ago)",
        "  page_count      3",
        "  is_first_visit  false",
        "",
        "history (3 events)",
        "  time                      event      id  fields",
        "  2024-01-01T00:00:00.000Z  cart       c1",
        "  2023-12-31T23:59:55.001Z  page_view  e1  page=/1",
        "  2023-12-31T23:59:55.000Z  page_view  e0  page=/0",
        "",
        "cooldowns",
        "  rule   key  fired",
        "  offer       2023-12-31T23:59:55.000Z (6 s ago)",
        "",
        "caps",
        "  rule   firings  latest",
        "  offer  1        2023-12-31T23:59:55.000Z (6 s ago)",
        "",
        "open sequences",
        "  rule  begun by  begun                               ends",
        "  left  c1        2024-01-01T00:00:00.000Z (1 s ago)  2024-01-01T00:30:00.000Z (in 29 min)",
        "",
        "held by quiet hours",
        "  rule   action  event  until",
        "  night  debug   c1     2024-01-01T08:00:00.000Z (in 7 h)",
        "",
        "webhooks that wait",
        "  rule  destination  event  due                                 attempts  last  action id",
        f"  hook  crm          e0     2024-01-01T00:00:00.000Z (1 s ago)  0               {ids[0]}",
        f"  hook  crm          e1     2024-01-01T00:00:00.000Z (1 s ago)  0               {ids[1]}",
        f"  hook  crm          c1     2024-01-01T00:00:00.000Z (1 s ago)  0               {ids[2]}",
    ]


def test_the_docs_show_what_is_printed() -> None:
    crm = rule("hook", 'event.event_name == "checkout"', actions=[{"type": "webhook", "destination": "crm"}])
    shard = Shard(rule("offer", cap={"count": 3, "window": "7d"}), crm, destinations={"crm": RetrySchedule()})
    shard.step(batch(event("user_1", event_id="e16"), event("user_1", event_id="e17", event_name="checkout")))
    known = {"profile": {"country": "US", "tier": 2}, "visit": VISIT, "history": []}
    shard.step(answers=[Answer("user_1", fetched(known))])
    (waiting,) = shard.state.deliveries["user_1"]
    shard.step(delivery_results=[DeliveryResult("user_1", waiting.action_id, RETRY, 2, 503, "status: 503")])
    shown = list(text_lines(shard.inspect("user_1"), NOW_MS + 41_000, 20))
    operations = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert "\n".join(("```", *shown, "```")) in operations, "\n".join(shown)


def test_of_a_long_history_the_newest_events_are_shown(state: dict[str, Any]) -> None:
    (history,) = [section for section in sections(state, NOW_MS, 2) if section.title.startswith("history")]
    assert history.title == "history (newest 2 of 3 events)"
    assert [row[2] for row in history.rows] == ["c1", "e1"]


def test_parts_that_kafka_would_not_take_are_named(state: dict[str, Any]) -> None:
    cut = state | {"eventHistory": None, "userProfile": None, "ruleState": None, "deliveries": None}
    cut["left_out"] = ["eventHistory", "userProfile", "ruleState", "deliveries"]
    lines = list(text_lines(cut, NOW_MS, 20))
    assert lines[2] == "left out, as Kafka would not take it: eventHistory, userProfile, ruleState, deliveries"
    assert [line for line in lines if line.startswith(("profile", "history", "caps"))] == []
    assert is_known(cut)


def test_a_user_whose_events_wait_is_known() -> None:
    shard = Shard(rule())
    shard.step(batch(event("u1"), event("u1")))
    waiting = shard.inspect("u1")
    assert is_known(waiting)
    assert "events that wait for the user API: 2" in list(text_lines(waiting, NOW_MS, 20))


def test_a_user_of_whom_only_a_cap_is_left_is_known() -> None:
    shard = Shard(rule("offer", cap={"count": 3, "window": "7d"}))
    shard.step(batch(event("u1")))
    shard.step(answers=[Answer("u1", fetched(None))])
    shard.step(now_ms=NOW_MS + 3_600_000)  # beyond the TTL
    idle = shard.inspect("u1")
    assert not idle["found"]
    assert is_known(idle)
    assert "caps" in list(text_lines(idle, NOW_MS, 20))
    assert not is_known(shard.inspect("nobody"))


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [
        (NOW_MS - 119_999, "119 s ago"),
        (NOW_MS - 120_000, "2 min ago"),
        (NOW_MS + 7_200_000, "in 2 h"),
        (NOW_MS - 400 * 86_400_000, "400 d ago"),
        (NOW_MS, "0 s ago"),
    ],
)
def test_how_far_a_moment_is(at_ms: int, shown: str) -> None:
    assert moment(at_ms, NOW_MS).endswith(f"Z ({shown})")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "--control_topic is missing: give the pipeline's"),
        (["--control_topic=c", "--timeout_seconds=0"], "--timeout_seconds is 0, allowed: above 0, up to 3600"),
        (["--control_topic=c", "--timeout_seconds=nan"], "--timeout_seconds is nan, allowed"),
        (["--control_topic=c", "--history=0"], "--history is 0, allowed: a number from 1 on"),
        (["--control_topic=c", "--kafka_property=x"], "--kafka_property is 'x', allowed: NAME=VALUE"),
    ],
)
def test_an_unusable_option_is_one_error(options: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "user", "u1", "--bootstrap_servers=localhost:1", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {error}")


# On a real broker, with a shard in the place of a job.


@pytest.fixture
def topics(kafka: LocalKafka) -> Topics:
    return Topics(kafka)


def inspect(topics: Topics, user: str, *options: str) -> int:
    where = (f"--bootstrap_servers={topics.kafka.bootstrap_servers}", f"--inspections_topic={topics.inspections}")
    control_topic = (f"--control_topic={topics.control}",)
    return main(["inspect", "user", user, *where, *control_topic, *options])


@contextmanager
def answering(topics: Topics, shard: Shard) -> Iterator[None]:
    """What a job does with control records, done by a shard."""
    producer = Producer({"bootstrap.servers": topics.kafka.bootstrap_servers})
    with reading(topics.kafka, topics.control) as requests:
        done = 0

        def answer() -> None:
            nonlocal done
            requests.settle(0.1)
            for message in requests.messages[done:]:
                for inspection in shard.step(control(message.value())).inspections:
                    producer.produce(topics.inspections, inspection.body, inspection.user_id.encode())
            producer.flush(10)
            done = len(requests.messages)

        with again_and_again(answer, lambda: 0):
            yield


@pytest.mark.stack
def test_the_job_answers_with_the_user_s_state(topics: Topics, capsys: pytest.CaptureFixture[str]) -> None:
    shard = Shard(rule())
    shard.step(batch(event("ü1", event_id="e1"), event("u2", event_id="e2")))
    for user in ("ü1", "u2"):
        shard.step(answers=[Answer(user, fetched({"profile": PROFILE, "visit": None, "history": []}))])
    stale = orjson.dumps(shard.inspect("ü1") | {"userProfile": {"country": "stale"}})
    topics.produce([("ü1".encode(), stale), ("ü1".encode(), b"no JSON")], topics.inspections)
    topics.produce([control_record("inspect", "u2")], topics.control)

    with answering(topics, shard):
        assert inspect(topics, "ü1") == 0
        shown = capsys.readouterr()
        assert inspect(topics, "ü1", "--json") == 0
        state = json.loads(capsys.readouterr().out)
        assert inspect(topics, "nobody\x1b") == 1
        nobody = capsys.readouterr()

    assert "  country  US" in shown.out.splitlines()
    assert "  name     <b>Ann\\x1b[31m" in shown.out.splitlines()
    assert shown.err == ""
    assert state == shard.inspect("ü1")
    assert nobody.out == ""
    assert nobody.err == "error: the job knows nothing of user 'nobody\\x1b': never seen, or forgotten\n"


@pytest.mark.stack
def test_without_a_running_job_there_is_one_error(topics: Topics, capsys: pytest.CaptureFixture[str]) -> None:
    topics.produce([(b"u1", orjson.dumps({"user_id": "u1", "found": True}))], topics.inspections)  # of another time
    assert inspect(topics, "u1", "--timeout_seconds=1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no answer on topic {topics.inspections!r} within 1 s: is the job running, with")


@pytest.mark.stack
@pytest.mark.parametrize("name", ["control", "inspections"])
def test_a_topic_that_is_missing_is_named(topics: Topics, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert inspect(topics, "u1", f"--{name}_topic=missing") == 2
    assert capsys.readouterr().err == f"error: {name} topic 'missing' does not exist\n"
