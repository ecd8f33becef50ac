"""``event-trigger why``, and the decision log and Kafka actions on a real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS, event
from tests.integration.jobs import Topics, launch, reading
from transforms.domain.rules.actions import action_id
from transforms.domain.shard.decisions import Decision

SECOND = 1000


def decision(what: str, seconds: int = 0, user_id: str = "u1", event_id: str = "e1", **fields: Any) -> Decision:
    named = {"rule": "offer", "version": 3} | fields
    return Decision(decision=what, time=NOW_MS + seconds * SECOND, user_id=user_id, event_id=event_id, **named)


def why(tmp_path: Path, *options: str, log: list[Decision | bytes]) -> int:
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(
        b"".join((decision if isinstance(decision, bytes) else decision.to_json()) + b"\n" for decision in log)
    )
    return main(["why", f"--decisions_file={path}", *options])


def test_a_user_s_decisions_are_shown_in_the_order_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    webhook = {"action": "webhook", "action_id": "9f1c", "destination": "crm"}
    log: list[Decision | bytes] = [
        decision("delivered", 9, attempts=4, status=200, latency_ms=85, **webhook),
        decision("fired", 0, event_name="page_view", event_time=NOW_MS, rule_set=0, **webhook),
        decision("fired", 1, user_id="u2"),
        decision("retried", 3, attempts=1, status=503, latency_ms=210, detail="status: 503\n", **webhook),
        decision("dropped", 20, event_id="e2", version=None, detail="no rule with this sequence is live"),
    ]
    assert why(tmp_path, "--user=u1", log=log) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2024-01-01T00:00:00.000Z  fired        offer 3  page_view e1  action webhook to crm, 9f1c",
        "2024-01-01T00:00:03.000Z  retried      offer 3  e1  action webhook to crm, 9f1c  "
        "1 attempt, status 503, 210 ms: status: 503\\n",
        "2024-01-01T00:00:09.000Z  delivered    offer 3  e1  action webhook to crm, 9f1c  "
        "4 attempts, status 200, 85 ms",
        "2024-01-01T00:00:20.000Z  dropped      offer  e2  no rule with this sequence is live",
    ]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--user=u1"], [0, 1, 2]),
        (["--user=u1", "--event=e1"], [0, 1]),
        (["--user=u1", "--rule=offer"], [0, 2]),
        (["--user=u1", "--event=e1", "--rule=offer"], [0]),
        (["--user=u2"], [3]),
    ],
)
def test_selected_decisions_are_printed_as_they_are_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], wanted: list[int]
) -> None:
    log: list[Decision | bytes] = [
        decision("fired"),
        decision("capped", 1, rule="other"),
        decision("fired", 2, event_id="e2"),
        decision("fired", 3, user_id="u2"),
    ]
    assert why(tmp_path, *options, "--json", log=log) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown == [json.loads(log[n].to_json()) for n in wanted]  # type: ignore[union-attr]


def test_nothing_found_says_where_it_might_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert why(tmp_path, "--user=u9", log=[decision("fired"), b"no decision", b""]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "warning: 2 records are no decisions",
        "nothing found; that a rule did not allow an event is only in the log with --decision_sample",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decisions_file=/nowhere/log"], "error: --decisions_file is '/nowhere/log': No such file or directory"),
        (["--decisions_topic=t"], "error: --bootstrap_servers is missing: give HOST:PORT of a broker"),
        (
            ["--decisions_topic=t", "--bootstrap_servers=b:1", "--kafka_property=x"],
            "error: --kafka_property is 'x', allowed: NAME=VALUE",
        ),
    ],
)
def test_a_log_that_cannot_be_read_is_named(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", "--user=u1", *options]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith(message)


@pytest.mark.stack
def test_the_log_on_a_topic_answers_why_and_kafka_actions_are_cloudevents(
    kafka: LocalKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = Topics(kafka)
    log = f"decisions-{topics.tag}"
    kafka.create_topic(log, 3)
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "{name: offer, version: 2, filter: event.triggerable, cap: {count: 1, per: day}, actions: [{type: kafka}]}"
    )
    users = [f"user {number} ü" for number in range(20)]
    sent = [
        event(user, event_id=f"{user} {n}", timestamp=NOW_MS + n, triggerable=n > 0) for n in range(3) for user in users
    ]
    topics.produce([(event["user_id"].encode(), orjson.dumps(event)) for event in sent])
    options = [f"--rules={rules}", f"--decisions_topic={log}", "--decision_sample=1", "--job_name=my job"]
    done = launch(*topics.options(), *options)
    assert done.returncode == 0, done.stderr

    with reading(kafka, log) as reader:
        messages = reader.until(3 * len(users), 30)
    assert all(message.key().decode() == json.loads(message.value())["user_id"] for message in messages)
    where = [f"--decisions_topic={log}", f"--bootstrap_servers={kafka.bootstrap_servers}", "--json"]
    for user in users[:3]:
        assert main(["why", f"--user={user}", *where]) == 0
        shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(decision["event_id"], decision["decision"]) for decision in shown] == [
            (f"{user} 0", "not_allowed"), (f"{user} 1", "fired"), (f"{user} 2", "capped"),
        ]  # fmt: skip
    assert main(["why", "--user=nobody", *where]) == 1
    assert main(["why", "--user=u", "--decisions_topic=nowhere", *where[1:]]) == 2
    assert "error: decisions topic 'nowhere' does not exist" in capsys.readouterr().err

    with reading(kafka, topics.actions) as reader:
        found = {message.key().decode(): dict(message.headers()) for message in reader.until(len(users), 30)}
    for user in users:
        identity = action_id(user, f"{user} 1", "offer", 2, "kafka").encode()
        assert found[user] == {
            "action-id": identity,
            "rule": b"offer",
            "rule-version": b"2",
            "rule-set": b"0",
            "ce_specversion": b"1.0",
            "ce_id": identity,
            "ce_source": b"event-trigger/my%20job",
            "ce_type": b"event-trigger.action",
            "ce_subject": user.encode(),
            "ce_time": b"2024-01-01T00:00:00.001Z",
            "content-type": b"application/json",
        }
