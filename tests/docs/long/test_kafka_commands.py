"""The commands of docs/ that need only a broker, run with the address of a real one."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.cli.main import main
from runners.flink.local.broker import LocalKafka
from tests.docs.commands import commands_of
from tests.docs.conftest import shell_blocks
from tests.docs.pages import ROOT
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.shard.decisions import Decision
from transforms.domain.webhooks.signatures import parse_keys

pytestmark = pytest.mark.stack

PAGES = ("docs/dead-letters.md", "docs/decisions.md", "docs/delivery.md", "docs/rules.md", "docs/writing-rules.md")
LETTERS = 20
KEY = "whsec_" + "bGV0dGVycw" * 4


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Place and words of every command that has a broker, but for launches."""
    found_commands = []
    for page in PAGES:
        for block in shell_blocks(page):
            for command in commands_of(block.text):
                needs_broker = any(re.fullmatch("--bootstrap_servers(=.*)?", word) for word in command.words)
                if needs_broker and not any(word.startswith("--runner=") for word in command.words):
                    found_commands.append((f"{page}:{block.line + 1 + command.line}", command.words))
    return found_commands


def produce(kafka: LocalKafka, topic: str, values: Iterable[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for value in values:
        producer.produce(topic, value, b"u1")
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def broker(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalKafka, Path]:
    """A broker with the topics that the pages name, and a folder with the files that they name."""
    for topic in ("event-control", "event-audit", "event-dead-letters", "event-decisions"):
        kafka.create_topic(topic, 1)
    signer = LetterSigner(lambda: parse_keys(KEY))
    letters = []
    for number in range(LETTERS):
        lost = LostAction(f"{number:032}", 3, "webhook", "crm", "u1", "e17", b"{}", 5, 3, 400)
        letter = DeadLetter("undelivered", "HTTP 400", "", -1, -1, 9, b"u1", b"", "us_offers", lost)
        letters.append(signer.signed(letter).to_json())
    produce(kafka, "event-dead-letters", letters)
    fired = [
        Decision(decision="fired", time=1, user_id=user, event_id="e17", rule=rule, version=1).to_json()
        for user, rule in (("u1", "offer"), ("ada", "cart_reminder"))
    ]
    produce(kafka, "event-decisions", fired)
    folder = tmp_path_factory.mktemp("reader")
    (folder / "letters").write_text(KEY)
    (folder / "rules").symlink_to(ROOT / "examples" / "rules")
    (folder / "destinations.yaml").write_text(
        'destinations:\n  - {name: crm, url: "https://hooks.example.com/events", secrets: ["env:CRM"]}\n'
    )
    # There is something to roll back to.
    first = ["rules", "publish", str(ROOT / "examples" / "rules" / "win_back.yaml"), "--rules_topic=event-rules"]
    assert main([*first, f"--bootstrap_servers={kafka.bootstrap_servers}"]) == 0
    return kafka, folder


@pytest.mark.parametrize(("place", "words"), [pytest.param(*command, id=command[0]) for command in commands()])
def test_a_command_does_what_the_page_says(broker: tuple[LocalKafka, Path], place: str, words: tuple[str, ...]) -> None:
    kafka, folder = broker
    here = {"broker-1:9092": kafka.bootstrap_servers, "/run/secrets/letters": str(folder / "letters")}
    program, *rest = (functools.reduce(lambda text, name: text.replace(name, here[name]), here, word) for word in words)
    assert program == "event-trigger", place
    # No job runs, so a command that waits for a set to be live waits in vain.
    waits = any(word.startswith("--wait=") for word in rest)
    arguments = ["--wait=1" if word.startswith("--wait=") else word for word in rest]

    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        shown = ""
        for line in process.stdout:
            shown += line
            if arguments[:2] == ["rules", "watch"] and " 0 failed" in line:
                process.send_signal(signal.SIGINT)

    assert process.returncode == (1 if waits else 0), f"{place}:\n{shown}"
    assert shown


def test_there_are_commands_of_every_page() -> None:
    assert {place.partition(":")[0] for place, _ in commands()} == set(PAGES)
