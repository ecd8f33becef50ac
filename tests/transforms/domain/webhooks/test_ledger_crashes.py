"""The ledger under simulated crashes, pauses and take-overs: a shard's webhooks against a log, a clock and receivers.

The model is what a job does: a state that is decided again from the last checkpoint, calls, answers, and records on
their way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from transforms.domain.webhooks import ledger_session
from transforms.domain.webhooks.delivery_queue import DELIVERED
from transforms.domain.webhooks.ledger import Claim, LedgerRecord, Released, Settled, decode_record, encode_record
from transforms.domain.webhooks.ledger_session import FOLDED_S, LEASE_S, RECLAIM_S, UNFOLDED_S, LedgerSession

JOB = b"job"
USERS = 3


@dataclass
class State:
    """What a checkpoint holds: decisions are the same whenever they are made again."""

    decided: int = 0
    waiting: list[int] = field(default_factory=list)
    position: int | None = None


class Worker:
    """A process that holds the shard, or believes so."""

    def __init__(self, number: int, state: State) -> None:
        self.state = copy.deepcopy(state)
        self.session = LedgerSession(JOB, b"worker %d" % number)
        self.next_offset = self.state.position or 0
        self.claims = 0
        self.number = number
        self.calls: list[int] = []
        self.answers: list[int] = []
        self.outgoing: list[LedgerRecord] = []
        self.excused: set[int] | None = None
        self.claim()

    def claim(self) -> None:
        self.claims += 1
        self.outgoing.append(self.session.claim(b"%d-%d" % (self.number, self.claims)))


def key(number: int) -> bytes:
    return b"%d" % number


class CrashingShard(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.log: list[LedgerRecord] = []
        self.called: list[int] = []
        self.checkpoint = State()
        self.workers: list[Worker] = []
        self.started = 0
        self.senders: list[Worker] = []

    @initialize()
    def first(self) -> None:
        self.start()

    @property
    def owner(self) -> Worker:
        return self.workers[-1]

    def start(self) -> None:
        self.started += 1
        self.workers = [*self.workers[-1:], Worker(self.started, self.checkpoint)]

    def worker(self, who: int) -> Worker:
        return self.workers[-1 - who % len(self.workers)]

    @rule(pause_s=strategies.sampled_from([0.01, 0.5, 2.0, LEASE_S, 90.0]))
    def pass_time(self, pause_s: float) -> None:
        self.now_s += pause_s

    @rule(number=strategies.integers(1, 3))
    def decide(self, number: int) -> None:
        state = self.owner.state
        for _ in range(number):
            state.waiting.append(state.decided)
            state.decided += 1

    @rule(who=strategies.integers(0, 1))
    def send(self, who: int) -> None:
        worker = self.worker(who)
        heads: dict[int, int] = {}
        for number in worker.state.waiting:
            heads.setdefault(number % USERS, number)
        for number in heads.values():
            if number in worker.calls or number in worker.answers or not worker.session.allows(self.now_s):
                continue
            if worker.session.find(key(number)) is not None:
                worker.state.waiting.remove(number)
                worker.session.fold(key(number), self.now_s)
                continue
            if number in self.called:
                assert worker.excused is not None
                assert number in worker.excused, "a repeat of a webhook whose end the ledger had"
            self.called.append(number)
            worker.calls.append(number)

    @rule(who=strategies.integers(0, 1))
    def answer(self, who: int) -> None:
        worker = self.worker(who)
        if worker.calls:
            number = worker.calls.pop(0)
            settled = Settled(JOB, key(number), DELIVERED)
            worker.session.append(settled, self.now_s)
            worker.outgoing.append(settled)
            worker.answers.append(number)

    @rule(who=strategies.integers(0, 1), number=strategies.integers(1, 5))
    def acknowledge(self, who: int, number: int) -> None:
        worker = self.worker(who)
        self.log += worker.outgoing[:number]
        del worker.outgoing[:number]

    @rule(who=strategies.integers(0, 1), number=strategies.sampled_from([1, 3, 100]))
    def read(self, who: int, number: int) -> None:
        worker = self.worker(who)
        for offset in range(worker.next_offset, min(len(self.log), worker.next_offset + number)):
            released = worker.session.read(offset, encode_record(self.log[offset]), self.now_s)
            worker.next_offset = offset + 1
            if released is not None:
                worker.outgoing.append(released)

    @rule(who=strategies.integers(0, 1), late_s=strategies.sampled_from([0.0, 0.0, 1.0, 90.0]))
    def ask_for_the_end(self, who: int, late_s: float) -> None:
        end, asked_s = len(self.log), self.now_s
        self.now_s += late_s
        self.worker(who).session.end_is(end, asked_s)

    @rule(who=strategies.integers(0, 1))
    def keep_up(self, who: int) -> None:
        """What a worker does each second; the next request to Kafka comes a moment later."""
        self.acknowledge(who, 100)
        self.read(who, 100)
        self.ask_for_the_end(who, 0.0)
        self.read(who, 100)

    @rule()
    def take_over_and_wait(self) -> None:
        self.take_over()
        self.keep_up(0)
        self.now_s += LEASE_S
        self.keep_up(0)
        self.keep_up(1)

    @rule(who=strategies.integers(0, 1))
    def handle_some(self, who: int) -> None:
        self.decide(3)
        self.keep_up(who)
        self.only_one_may_send()
        self.send(who)
        self.answer(who)

    @rule()
    def fold(self) -> None:
        owner = self.owner
        for number in owner.answers:
            owner.state.waiting.remove(number)
            owner.session.fold(key(number), self.now_s)
        owner.answers.clear()
        owner.state.position = owner.session.position

    @rule()
    def complete_a_checkpoint(self) -> None:
        self.checkpoint = copy.deepcopy(self.owner.state)

    @rule()
    def fail_the_bundle(self) -> None:
        """Results were taken, and the state that knows of them is lost: the journal is folded anew."""
        owner = self.owner
        for number in owner.answers:
            owner.session.fold(key(number), self.now_s)
        owner.answers.clear()
        assert owner.session.refold(owner.state.position)

    @rule(arrived=strategies.integers(0, 3))
    def kill(self, arrived: int) -> None:
        self.log += self.owner.outgoing[:arrived]
        self.workers.pop()
        self.start()

    @rule()
    def take_over(self) -> None:
        """The worker counts as dead, and goes on: it was stopped, or nobody told it."""
        self.start()

    @rule()
    def claim_again(self) -> None:
        if self.owner.session.should_claim(self.now_s):
            self.owner.claim()

    @invariant()
    def only_one_may_send(self) -> None:
        senders = [worker for worker in self.workers if worker.session.allows(self.now_s)]
        assert len(senders) <= 1
        for worker in senders:
            if worker not in self.senders:
                ended = {record.key for record in self.log if isinstance(record, Settled)}
                worker.excused = {number for number in self.called if key(number) not in ended}
        self.senders = senders

    def teardown(self) -> None:
        """Whatever happened, the last worker sends everything that was decided, in order for each user."""
        if not self.workers:
            return
        self.workers = [self.owner]
        for _ in range(3000):
            self.claim_again()
            self.acknowledge(0, 100)
            self.read(0, 100)
            self.ask_for_the_end(0, 0.0)
            self.only_one_may_send()
            self.send(0)
            self.answer(0)
            self.fold()
            self.now_s += 1.0
            if not self.owner.state.waiting:
                break
        assert set(self.called) >= set(range(self.owner.state.decided))
        for user in range(USERS):
            first_calls = list(dict.fromkeys(number for number in self.called if number % USERS == user))
            assert first_calls == sorted(first_calls)


CrashingShard.TestCase.settings = settings(max_examples=60, stateful_step_count=80, deadline=None)
TestCrashingShard = pytest.mark.slow(CrashingShard.TestCase)


def test_records_read_back_as_written() -> None:
    settled = Settled(JOB, b"k" * 16, DELIVERED, 200, 2, "")
    assert decode_record(encode_record(settled)) == settled
    assert decode_record(b"no record") is None
    assert RECLAIM_S > 2 * LEASE_S


def session_with(*numbers: int) -> LedgerSession:
    session = LedgerSession(JOB, b"worker")
    session.claim(b"session")
    for offset, number in enumerate(numbers):
        session.read(offset, encode_record(Settled(JOB, key(number), DELIVERED)), 0.0)
    return session


def test_what_is_folded_is_kept_for_a_minute_and_as_long_as_a_refold_may_need_it() -> None:
    session = session_with(0, 1, 2)
    session.fold(key(1), 0.0)
    session.fold(key(0), 0.0)
    session.forget_old(FOLDED_S + 1)
    assert session.position == 2
    assert not session.refold(1)
    session = session_with(0, 1, 2)
    session.fold(key(1), 0.0)
    session.forget_old(FOLDED_S + 1)
    assert session.position == 0
    assert session.refold(0)
    assert session.find(key(1)) is not None


def test_ids_that_nobody_asks_for_hold_the_position_for_an_hour() -> None:
    session = session_with(0, 1)
    session.forget_old(UNFOLDED_S)
    assert session.position == 0
    session.forget_old(UNFOLDED_S + 1)
    assert (session.position, session.forgotten) == (2, 0)


def test_of_too_many_ids_the_newest_stay_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_session, "MAX_UNFOLDED", 10)
    session = session_with(*range(12))
    session.forget_old(0.0)
    assert (session.forgotten, session.position) == (2, 2)
    assert [session.find(key(number)) is not None for number in (1, 2, 11)] == [False, True, True]


def test_a_worker_that_was_paused_has_no_lease_and_gets_none_after_a_newer_claim() -> None:
    session = LedgerSession(JOB, b"worker")
    session.read(0, encode_record(session.claim(b"session")), 0.0)
    session.end_is(1, 0.0)
    assert session.allows(LEASE_S - 0.01)
    assert not session.allows(90.0)
    released = session.read(1, encode_record(Claim(JOB, b"other", b"other session")), 90.0)
    assert released == Released(JOB, b"other session")
    session.end_is(2, 90.0)
    session.allow_unguarded(200.0)
    assert not session.allows(90.0)
