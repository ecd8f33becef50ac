"""``HandleEvents`` with a ledger of deliveries, on Beam's own state cache, through the crash of a worker."""

from __future__ import annotations

import copy
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.builders import NOW_MS, batch, control, event, rule
from tests.fake_ledger import FakeLog, FakeTopic
from tests.receiver import SECRET, Receiver, receiving
from tests.transforms.harness import Harness
from transforms.adapters.ledger import delivery_ledger
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.events.letter_signature import LetterSigner
from transforms.domain.events.record import decode_produced
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks import ledger_session
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.redrive import redrive_record
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.handle_events import RECORDS, HandleSettings, WebhookSettings, _HandleFn
from transforms.runtime import process
from transforms.runtime.process import PROCESS

WEBHOOK = rule("r", "true", actions=[{"type": "webhook", "destination": "crm"}], on_missing_profile="run")


class Job:
    """A shard whose worker can crash: what is left is the last checkpoint, the topic and the receiver."""

    def __init__(self, receiver: Receiver, topic: FakeTopic | None, secret: Path) -> None:
        self.receiver = receiver
        crm = Destination(name="crm", url=f"{receiver.url}/crm", secrets=(f"file:{secret}",))
        self.harness = Harness(
            HandleSettings(
                (WEBHOOK,),
                ShardSettings(destinations={"crm": crm.retry}),
                dead_letter_topic="dead",
                webhooks=WebhookSettings((crm,), EgressPolicy(allow_private=True)),
                user_shards=16,
                kafka_config={},
                deliveries_topic=None if topic is None else "deliveries",
            )
        )
        self.harness.key = struct.pack(">II", 3, 0)
        self.harness.now_ms = NOW_MS
        self.counts: Counter[str] = Counter()
        self.fn: _HandleFn = self.harness.instance()
        self.checkpoint()

    def checkpoint(self) -> None:
        self.saved = copy.deepcopy((self.harness.stored, self.harness.due))

    def handle(self, *batches: object, timer: str | None = None) -> None:
        self.harness.now_ms += 2000
        self.harness.bundle(self.fn, *batches, timer=timer)
        self.counts.update(self.fn._services.metrics.counts)

    def until(self, done: Callable[[], bool]) -> None:
        """Let timers fire until something is so."""
        give_up_s = time.monotonic() + 60
        while not done():
            assert time.monotonic() < give_up_s, (self.counts, self.receiver.seen)
            time.sleep(0.02)
            if self.harness.due["pending"] is not None:
                self.handle(timer="pending")

    def crash(self) -> None:
        """The process dies; another one restores the last checkpoint."""
        for resource in PROCESS._made.values():
            if isinstance(resource, DeliveryLedger):
                resource._core.stopped.set()
        PROCESS.reset()
        self.harness.stored, self.harness.due = copy.deepcopy(self.saved)
        self.harness.restore()
        self.counts.clear()
        self.fn = self.harness.instance()

    def letters(self) -> list[DeadLetter]:
        records = [output.value for output in self.harness.outputs if output.tag == RECORDS]
        return [DeadLetter.of_json(decode_produced(record).value) for record in records]

    @property
    def events(self) -> list[str]:
        """The events of the webhooks that came."""
        return [orjson.loads(body)["event"]["event_id"] for _, _, body in self.receiver.seen]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> FakeTopic:
    topic = FakeTopic()
    monkeypatch.setattr(process, "KafkaLog", lambda *_: FakeLog(topic))
    monkeypatch.setattr(ledger_session, "LEASE_S", 2.0)
    return topic


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    PROCESS.reset()
    path = tmp_path / "secret"
    path.write_text(SECRET)
    yield path
    PROCESS.reset()


def three(user: str = "u1") -> object:
    return batch(*(event(user, event_id=f"{user}-{number}") for number in range(3)))


@pytest.mark.parametrize("has_ledger", [True, False])
def test_after_a_crash_webhooks_that_ended_are_settled_without_a_request(
    topic: FakeTopic, receiver: Receiver, secret: Path, has_ledger: bool
) -> None:
    job = Job(receiver, topic if has_ledger else None, secret)
    job.handle(three("u1"))
    job.checkpoint()  # with the first of them in flight or waiting
    job.handle(three("u2"))
    job.until(lambda: job.counts["deliveries_delivered"] == 6)
    first = sorted(job.events)
    job.crash()
    job.handle(three("u2"))
    job.until(lambda: job.counts["deliveries_delivered"] == 6)
    assert sorted(job.events) == (first if has_ledger else sorted(first * 2))
    assert (job.counts["deliveries_found"], job.counts["delivery_attempts"]) == ((6, 0) if has_ledger else (0, 6))
    job.handle(batch(event("u1", event_id="new")))
    job.until(lambda: "new" in job.events)


def test_a_shard_without_further_events_sends_what_waits(topic: FakeTopic, receiver: Receiver, secret: Path) -> None:
    job = Job(receiver, topic, secret)
    job.handle(three())
    job.checkpoint()
    job.crash()  # no batch shows the shard's number to the next worker
    job.until(lambda: job.counts["deliveries_delivered"] == 3)
    assert sorted(set(job.events)) == ["u1-0", "u1-1", "u1-2"]


def test_a_refusal_that_is_found_makes_its_dead_letter_again(
    topic: FakeTopic, receiver: Receiver, secret: Path
) -> None:
    receiver.answers = {"/crm": lambda: 400}
    job = Job(receiver, topic, secret)
    job.handle(batch(event("u1", event_id="e1")))
    job.until(lambda: len(job.letters()) == 1)
    job.crash()
    job.handle(batch(event("u1", event_id="e1")))
    job.until(lambda: len(job.letters()) == 2)
    first, second = job.letters()
    assert len(receiver.seen) == 1
    assert (second.reason, second.detail) == ("undelivered", "after 1 attempts: HTTP 400")
    assert first.action is not None
    assert second.action is not None
    assert second.action.action_id == first.action.action_id


def test_a_redriven_webhook_is_sent_though_the_ledger_has_its_refusal(
    topic: FakeTopic, receiver: Receiver, secret: Path
) -> None:
    receiver.answers = {"/crm": lambda: 400}
    job = Job(receiver, topic, secret)
    job.handle(batch(event("u1", event_id="e1")))
    job.until(lambda: len(job.letters()) == 1)
    (letter,) = job.letters()
    assert letter.action is not None
    receiver.answers = {}
    redrive = control(redrive_record(letter.action, "r", LetterSigner()))
    for _ in range(2):  # before a crash, and after it while the webhook waits for the ledger
        job.handle(redrive)
        job.until(lambda: job.counts["deliveries_delivered"] == 1)
        job.crash()
        job.handle(batch(event("u1", event_id="e1")))
    assert len(receiver.seen) == 2


def test_while_the_ledger_is_away_webhooks_go_out(
    topic: FakeTopic, receiver: Receiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_ledger, "AWAY_S", 0.5)
    topic.is_away = True
    job = Job(receiver, topic, secret)
    job.handle(three())
    job.until(lambda: job.counts["deliveries_delivered"] == 3)
    assert job.counts["deliveries_found"] == 0


def test_the_position_moves_on_so_that_a_restore_reads_little(
    topic: FakeTopic, receiver: Receiver, secret: Path
) -> None:
    job = Job(receiver, topic, secret)
    for number in range(5):
        job.handle(batch(event("u1", event_id=f"e{number}")))
        job.until(lambda number=number: job.counts["deliveries_delivered"] > number)
    job.until(lambda: job.handle(batch(event("u1", event_id="e0"))) or len(topic.partitions[3]) == 6)
    job.harness.now_ms += 2000
    job.handle(batch(event("u1", event_id="last")))
    job.until(lambda: job.counts["deliveries_delivered"] == 6)
    state = job.harness.folded_state(100)
    assert state.ledger is not None
    assert state.ledger.offset >= 5


def test_a_user_who_is_forgotten_leaves_nothing_but_hashes(topic: FakeTopic, receiver: Receiver, secret: Path) -> None:
    job = Job(receiver, topic, secret)
    job.handle(three("ann"))
    job.until(lambda: job.counts["deliveries_delivered"] == 3)
    job.handle(control({"forget": "ann"}))
    assert not any(b"ann" in cell for cell in job.harness.stored.cells.values())
    assert not any(b"ann" in value for value in topic.partitions[3])
