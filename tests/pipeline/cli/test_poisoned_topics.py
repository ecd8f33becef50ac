"""Commands and the page over topics into which somebody wrote what they like: lines and exit codes, no escapes."""

from __future__ import annotations

import json
import random
import re
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.cli.main import main
from pipeline.kafka.announcements import Announcement
from pipeline.launch.options import parse
from pipeline.ui.app import build
from pipeline.ui.guard import Guard
from pipeline.ui.job import RunningJob
from tests.builders import NOW_MS, rule
from tests.hostile.edits import HOSTILE_NUMBERS, HOSTILE_TEXTS, edited_json, json_text
from tests.kafka_broker import KafkaBroker
from tests.pipeline.job.letters import EVENT, LOST, SIGNER
from tests.pipeline.ui.pages import GivenWatch
from transforms.domain.rules.sets import Acknowledgement, RuleSet, encode_rule_set
from transforms.domain.shard.decisions import Decision

pytestmark = pytest.mark.stack

EDITS = 150
VALID = (
    encode_rule_set(RuleSet(1, (rule(),), NOW_MS, "ann", "why")),
    Acknowledgement(1, 0, 16, NOW_MS).to_json(),
    Announcement("job", "TOPIC", ("crm",), {"state_ttl_seconds": 600}, NOW_MS).to_json(),
    SIGNER.signed(LOST).to_json(),
    SIGNER.signed(EVENT).to_json(),
    Decision(
        decision="delivered", time=NOW_MS, user_id="u", event_id="e", rule="r", version=1, action="webhook",
        action_id="0" * 32, destination="crm", attempts=1, latency_ms=5, status=200, detail="x",
    ).to_json(),
    b'{"destination": "crm", "enabled": false, "time": 5}',
    b'{"forget": "u"}',
)  # fmt: skip


def poison() -> list[bytes]:
    """Valid records of every kind with each field replaced by each hostile value, random edits, and no JSON at all."""
    rng = random.Random(21)
    records = [b"", b"{", b"null", b"\xff\xfe", b"[" * 100_000, b'"\\ud800"', b"{}", *VALID]
    for valid in VALID:
        document = json.loads(valid)
        for key in document:
            for value in (*HOSTILE_TEXTS, *HOSTILE_NUMBERS, None, True, [], {}):
                text = json_text({**document, key: value}, ensure_ascii=False)
                records.append(text.encode("utf-8", "surrogatepass"))
        records += [edited_json(document, rng) for _ in range(EDITS)]
    return records


@pytest.fixture(scope="module")
def topic(kafka: KafkaBroker) -> str:
    """One topic that plays all parts, with all of it."""
    kafka.create_topic(name := f"poison-{uuid.uuid4().hex[:8]}", 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number, record in enumerate(poison()):
        key = (None, b"\xff", b"set", b"rules-0", b"u", b"1")[number % 6]
        producer.produce(name, record.replace(b"TOPIC", name.encode()), key, partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0
    return name


COMMANDS = (
    "rules status --rules_topic=T --audit_topic=T",
    "rules status --rules_topic=T --audit_topic=T --json",
    "rules history --rules_topic=T",
    "rules history --rules_topic=T --json",
    "rules rollback --rules_topic=T --to=1 --note=x",
    "rules publish --rules_topic=T --audit_topic=T --events_topic=T --yes R",
    "dead-letters list --dead_letters_topic=T",
    "dead-letters list --dead_letters_topic=T --json",
    "dead-letters show --dead_letters_topic=T 0/9",
    "dead-letters redrive --dead_letters_topic=T --events_topic=T --control_topic=T",
    "why --user=u --decisions_topic=T",
    "why --user=u --decisions_topic=T --json",
    "destinations list --control_topic=T",
    "destinations list --control_topic=T --json",
    "inspect user --control_topic=T --inspections_topic=T --timeout_seconds=1 u",
    "rules backtest --events_topic=T --from=2000-01-01 --until=2100-01-01 R",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_in_lines_without_escapes(
    command: str, topic: str, kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("name: r\nversion: 1\nfilter: 'event.n == 1'\nactions: [{type: debug}]\n")
    words = [str(tmp_path / "r.yaml") if word == "R" else re.sub("=T$", f"={topic}", word) for word in command.split()]
    code = main([*words, f"--bootstrap_servers={kafka.bootstrap_servers}"])
    out, err = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in out + err
    assert not re.findall(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out + err)
    assert not re.search("^error: (unknown|--)", err, re.MULTILINE), err


@pytest.mark.parametrize(
    "path",
    [
        "/", "/decisions", "/decisions?user=u", "/decisions?rule=r", "/dead-letters", "/dead-letters/0/9", "/rule-sets",
        "/rules", "/rules/r",
    ],
)  # fmt: skip
def test_the_page_shows_a_poisoned_topic(path: str, topic: str, kafka: KafkaBroker) -> None:
    names = ("rules", "audit", "decisions", "dead_letters", "control", "events")
    options = ["--runner=FlinkRunner", "--flink_master=127.0.0.1:1", f"--bootstrap_servers={kafka.bootstrap_servers}"]
    # A launch refuses one topic for all.
    update = {f"{name}_topic": topic for name in names}
    settings = parse(options, rules_required=False).model_copy(update=update)
    job = RunningJob(settings)
    app = build(job, GivenWatch([]), Guard(None, ["localhost"], reads_need_it=False))
    answer = app.test_client().get(path)
    assert answer.status_code in (200, 404), answer.text
    assert "\x1b" not in answer.text
