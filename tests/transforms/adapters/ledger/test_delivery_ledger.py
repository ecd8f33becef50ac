from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fake_ledger import FakeLog, FakeTopic
from tests.waiting import eventually
from transforms.adapters.ledger import delivery_ledger
from transforms.adapters.ledger.delivery_ledger import DeliveryLedger, LedgerCall, ShardLedger
from transforms.adapters.telemetry.metrics import WorkerMetrics
from transforms.domain.webhooks import ledger_session
from transforms.domain.webhooks.delivery_queue import Delivery
from transforms.domain.webhooks.ledger import LedgerPosition, Released, Settled, decode_record, delivery_key
from transforms.domain.webhooks.results import Outcome, SendResult

JOB = b"job"
DELIVERED = SendResult(Outcome.DELIVERED, status=200)


def delivery(name: str) -> Delivery:
    return Delivery(name, "crm", "r", 1, "a", "e", b"{}", 0, 0)


def at_once(_: float, call: Callable[[], None]) -> None:
    call()


class Worker:
    def __init__(self, topic: FakeTopic, job: bytes = JOB) -> None:
        self.metrics = WorkerMetrics()
        self.log = FakeLog(topic)
        self.ledger = DeliveryLedger(self.log, "deliveries", job, self.metrics, at_once)

    def open(self, position: LedgerPosition | None = None, shard: int = 3) -> ShardLedger:
        ledger = self.ledger.open(shard, position)
        eventually(ledger.is_ready, "a lease")
        return ledger

    def close(self) -> None:
        self.ledger._core.stopped.set()


def begin(ledger: ShardLedger, name: str) -> LedgerCall:
    assert ledger.find(delivery(name)) is None
    call = ledger.call(delivery(name))
    eventually(call.may_send, "a lease")
    return call


def send(ledger: ShardLedger, name: str, result: SendResult = DELIVERED) -> None:
    begin(ledger, name).ended(result)


def settled(topic: FakeTopic, shard: int = 3) -> list[bytes]:
    records = map(decode_record, topic.partitions[shard])
    return [record.key for record in records if isinstance(record, Settled)]


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_session, "LEASE_S", 2.0)


@pytest.fixture
def topic() -> FakeTopic:
    return FakeTopic()


@pytest.fixture
def start(topic: FakeTopic) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def new(*args: bytes) -> Worker:
        workers.append(Worker(topic, *args))
        return workers[-1]

    yield new
    for worker in workers:
        worker.close()


Start = Callable[..., Worker]


def test_a_webhook_that_ended_is_found_by_the_next_worker(topic: FakeTopic, start: Start) -> None:
    first = start()
    ledger = first.open()
    send(ledger, "taken")
    send(ledger, "refused", SendResult(Outcome.REFUSED, 2, 404, "status", "HTTP 404", excerpt="no such user 7"))
    send(ledger, "later", SendResult(Outcome.RETRY, 1, 503))
    send(ledger, "blocked", SendResult(Outcome.REFUSED, 0, error="blocked"))
    eventually(lambda: len(settled(topic)) == 2, "the records are stored")
    first.close()
    second = start().open()
    taken, refused = second.find(delivery("taken")), second.find(delivery("refused"))
    assert taken is not None
    assert taken.result("u1", "taken").outcome == "delivered"
    assert refused is not None
    result = refused.result("u1", "refused")
    assert (result.outcome, result.status, result.attempts, result.message) == ("refused", 404, 2, "HTTP 404")
    assert second.find(delivery("later")) is None
    assert second.find(delivery("blocked")) is None


def test_what_the_ledger_says_names_nobody(topic: FakeTopic, start: Start) -> None:
    send(start().open(), "id-of-ann", SendResult(Outcome.REFUSED, 1, 404, error="HTTP 404", excerpt="no user ann"))
    eventually(lambda: len(settled(topic)) == 1, "the records are stored")
    assert not any(b"ann" in value for value in topic.partitions[3])


def test_a_redriven_webhook_is_another_than_the_first() -> None:
    first = delivery("a")
    redriven = Delivery("a", "crm", "r", 1, "a", "e", b"{}", 0, 0, redrive="0:17:1700000000000")
    assert delivery_key(first) != delivery_key(redriven)


def test_reading_begins_at_the_position_of_the_state(topic: FakeTopic, start: Start) -> None:
    first = start()
    ledger = first.open()
    for name in ("a", "b"):
        send(ledger, name)
    eventually(lambda: len(settled(topic)) == 2, "the records are stored")
    eventually(lambda: ledger._session.read_to == 3, "a claim and two webhooks were read")
    position = ledger.fold(["a"], 10_000)
    assert position == LedgerPosition("deliveries", 2)
    send(ledger, "c")
    eventually(lambda: len(settled(topic)) == 3, "the records are stored")
    first.close()
    second = start().open(position)
    assert [second.find(delivery(name)) is not None for name in ("a", "b", "c")] == [False, True, True]


def test_a_worker_whose_shard_another_has_claimed_sends_no_more(
    topic: FakeTopic, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_session, "LEASE_S", 600.0)  # only the release lets the second begin
    first, second = start(), start()
    ledger = first.open()
    call = begin(ledger, "a")
    second.open()
    assert not call.may_send()
    assert not ledger.is_ready()
    assert any(isinstance(decode_record(value), Released) for value in topic.partitions[3])
    assert first.metrics.drain()["ledger_claims_lost"] == 1
    call.ended(DELIVERED)  # it was in flight: the second hears of it
    again = second.ledger.open(3, None)
    eventually(lambda: again.find(delivery("a")) is not None, "the webhook is found")


def test_two_jobs_of_one_name_take_turns_and_share_what_has_ended(
    topic: FakeTopic, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_session, "RECLAIM_S", 0.3)
    first, second = start().open(), start().open()
    for name in ("a", "b", "c"):
        for ledger in (first, second):
            eventually(ledger.is_ready, "a lease")
            if ledger.find(delivery(name)) is None:
                send(ledger, name)
                other = second if ledger is first else first
                eventually(
                    lambda other=other, name=name: other.find(delivery(name)) is not None, "the webhook is found"
                )


def test_two_jobs_of_different_names_do_not_heed_each_other(start: Start) -> None:
    first, second = start(), start(b"another job")
    ledger = first.open()
    send(ledger, "a")
    other = second.open()
    assert other.find(delivery("a")) is None
    assert begin(ledger, "b").may_send()
    counts: dict[str, int] = {}
    eventually(
        lambda: counts.update(second.metrics.drain()) or counts.get("ledger_foreign_records", 0) >= 2,
        "records of another job",
    )


def test_without_an_answer_webhooks_go_out_and_are_counted_and_the_ledger_catches_up(
    topic: FakeTopic, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_ledger, "AWAY_S", 0.5)
    topic.is_away = True
    worker = start()
    ledger = worker.open()
    send(ledger, "a")
    counts: dict[str, int] = {}
    assert worker.metrics.drain()["deliveries_unguarded"] >= 1
    eventually(lambda: worker.metrics.gauges().get("ledger_shards_unguarded") == 1, "an unguarded shard")
    assert worker.metrics.gauges()["ledger_unacknowledged"] == 2  # its claim, and the webhook
    topic.is_away = False
    eventually(lambda: settled(topic) == [delivery_key(delivery("a"))], "the record is stored")
    eventually(lambda: worker.metrics.gauges()["ledger_shards_unguarded"] == 0, "a lease again")
    eventually(
        lambda: counts.update(worker.metrics.drain()) or counts.get("ledger_appends") == 2,
        "both records are acknowledged",
    )


def test_a_record_that_has_no_room_is_counted_and_forgotten(topic: FakeTopic, start: Start) -> None:
    worker = start()
    ledger = worker.open()
    worker.log.is_full = True
    send(ledger, "a")
    assert worker.metrics.drain()["ledger_appends_lost"] == 1
    assert ledger.find(delivery("a")) is None


def test_a_state_that_is_folded_anew_in_the_same_worker_need_not_wait(topic: FakeTopic, start: Start) -> None:
    worker = start()
    ledger = worker.open()
    send(ledger, "a")
    ledger.fold(["a"], 10_000)  # in a bundle that fails
    again = worker.ledger.open(3, None)
    assert again.is_ready()
    assert again.find(delivery("a")) is not None


def test_a_position_in_another_topic_says_nothing(topic: FakeTopic, start: Start) -> None:
    first = start()
    send(first.open(), "a")
    eventually(lambda: len(settled(topic)) == 1, "the records are stored")
    first.close()
    assert start().open(LedgerPosition("former-topic", 99)).find(delivery("a")) is not None


def test_ends_are_appended_together_and_known_before(topic: FakeTopic) -> None:
    waiting: list[tuple[float, Callable[[], None]]] = []
    ledger = DeliveryLedger(
        FakeLog(topic), "deliveries", JOB, WorkerMetrics(), lambda pause_s, call: waiting.append((pause_s, call))
    )
    shard = ledger.open(3, None)
    eventually(shard.is_ready, "a lease")
    for batch in (["a", "b", "c"], ["d"]):
        for name in batch:
            send(shard, name)
        assert all(shard.find(delivery(name)) is not None for name in batch)
        assert not {delivery_key(delivery(name)) for name in batch} & set(settled(topic))
        ((pause_s, append),) = waiting
        assert pause_s == 0.005
        waiting.clear()
        append()
    assert settled(topic) == [delivery_key(delivery(name)) for name in ("a", "b", "c", "d")]
    ledger._core.stopped.set()
