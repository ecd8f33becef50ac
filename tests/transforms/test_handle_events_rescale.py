"""Shards with a ledger of deliveries move between workers, as when a job's parallelism changes, and back."""

from __future__ import annotations

import copy
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.builders import NOW_MS, batch, event
from tests.fake_ledger import FakeLog, FakeTopic
from tests.receiver import SECRET, Receiver, receiving
from tests.transforms.harness import Harness
from tests.transforms.test_handle_events_ledger import WEBHOOK
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.webhooks import ledger_session
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.url_policy import EgressPolicy
from transforms.handle_events import HandleSettings, WebhookSettings
from transforms.runtime import process
from transforms.runtime.process import PROCESS

SHARDS = range(4)


class Job:
    """Shards on workers of their own process-wide resources. Former workers live on, and hold what they held."""

    def __init__(self, settings: HandleSettings) -> None:
        self.harnesses = [Harness(settings) for _ in SHARDS]
        for number, harness in enumerate(self.harnesses):
            harness.key = struct.pack(">II", number, 0)
            harness.now_ms = NOW_MS
        self.counts: Counter[str] = Counter()

    def run_on(self, workers: int) -> None:
        """Restore the shards on so many new workers."""
        self.counts.clear()
        self.instances = {}
        for worker in range(workers):
            PROCESS.reset()
            for number in SHARDS:
                if number * workers // len(SHARDS) == worker:
                    self.harnesses[number].restore()
                    self.instances[number] = self.harnesses[number].instance()

    def handle(self, number: int, *batches: object, timer: str | None = None) -> None:
        harness, fn = self.harnesses[number], self.instances[number]
        harness.now_ms += 2000
        harness.bundle(fn, *batches, timer=timer)
        self.counts.update(fn._services.metrics.counts)

    def deliver(self, number_of_webhooks: int) -> None:
        """Let timers fire until so many webhooks have ended."""
        give_up_s = time.monotonic() + 60
        while self.counts["deliveries_delivered"] < number_of_webhooks:
            assert time.monotonic() < give_up_s, self.counts
            time.sleep(0.02)
            for number, harness in enumerate(self.harnesses):
                if harness.due["pending"] is not None:
                    self.handle(number, timer="pending")

    def states(self) -> list[object]:
        return [copy.deepcopy((harness.stored, harness.due)) for harness in self.harnesses]

    def go_back_to(self, states: list[object]) -> None:
        for harness, state in zip(self.harnesses, states, strict=True):
            harness.stored, harness.due = copy.deepcopy(state)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def job(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    topic, ledgers = FakeTopic(), []

    def ledger(*arguments: object) -> DeliveryLedger:
        ledgers.append(DeliveryLedger(*arguments))
        return ledgers[-1]

    monkeypatch.setattr(process, "KafkaLog", lambda *_: FakeLog(topic))
    monkeypatch.setattr(process, "DeliveryLedger", ledger)
    monkeypatch.setattr(ledger_session, "LEASE_S", 2.0)
    (tmp_path / "secret").write_text(SECRET)
    crm = Destination(name="crm", url=f"{receiver.url}/crm", secrets=(f"file:{tmp_path}/secret",))
    yield Job(
        HandleSettings(
            (WEBHOOK,),
            ShardSettings(destinations={"crm": crm.retry}),
            dead_letter_topic="dead",
            webhooks=WebhookSettings((crm,), EgressPolicy(allow_private=True)),
            user_shards=len(SHARDS),
            kafka_config={},
            deliveries_topic="deliveries",
        )
    )
    for made in ledgers:
        made._core.stopped.set()
    PROCESS.reset()


def three(number: int, phase: str) -> object:
    return batch(*(event(f"u{number}", event_id=f"{phase}-{number}-{n}") for n in range(3)))


# What the restored state knows: the decisions only, or that the webhooks have ended, too.
@pytest.mark.parametrize("is_late", [False, True], ids=["state before the webhooks ended", "state after they ended"])
def test_from_2_workers_to_4_and_back_each_webhook_is_sent_once_and_in_order(
    job: Job, receiver: Receiver, is_late: bool
) -> None:
    new = 3 * len(SHARDS)
    for phase, workers in enumerate((2, 4, 2)):
        job.run_on(workers)
        for number in SHARDS:
            job.handle(number, three(number, str(phase)))
        states = job.states()
        found = 0 if is_late else new * phase
        job.deliver(new + found)
        assert job.counts["deliveries_found"] == found
        assert len({webhook_id for webhook_id, _, _ in receiver.seen}) == len(receiver.seen) == new * (phase + 1)
        job.go_back_to(job.states() if is_late else states)
    events = [body_event(body) for _, _, body in receiver.seen]
    for number in SHARDS:
        of_user = [event_id for event_id in events if event_id.split("-")[1] == str(number)]
        assert of_user == [f"{phase}-{number}-{n}" for phase in range(3) for n in range(3)]


def body_event(body: bytes) -> str:
    return str(orjson.loads(body)["event"]["event_id"])
