"""Workers with a ledger of deliveries as processes that are killed and frozen, on librdkafka's mock broker."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from tests.benchmarks.ledger import mock_broker
from tests.receiver import SECRET, Receiver, receiving
from tests.waiting import eventually

RECEIVER_S = 0.02
# In flight, and answered within the 5 ms of a batch, a write and the steps of a busy machine.
ALLOWED_PER_BLOW = 8 + 20


class Job:
    """The process that has the shard, and those that had it before and are frozen."""

    def __init__(self, receiver: Receiver, brokers: str, folder: Path, last: int) -> None:
        self.receiver = receiver
        self.checkpoint = folder / "checkpoint"
        (folder / "secret").write_text(SECRET)
        given = {"url": receiver.url, "brokers": brokers, "secret": str(folder / "secret")}
        self._given = json.dumps(given | {"checkpoint": str(self.checkpoint), "last": last})
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def owner(self) -> subprocess.Popen[bytes]:
        return self.processes[-1]

    def start(self) -> None:
        """Start another process from the last checkpoint."""
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "tests.ledger_worker", self._given])
        self.checkpoint.with_suffix(".owner").write_text(str(process.pid))
        self.processes.append(process)

    def sends_new_ones(self) -> None:
        seen = self.different()
        eventually(lambda: self.different() > seen + 100, "webhooks that are new", 120)

    def different(self) -> int:
        return len({webhook_id for webhook_id, _, _ in list(self.receiver.seen)})

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def running(folder: Path, last: int) -> Iterator[Job]:
    with mock_broker() as brokers, receiving() as receiver:
        receiver.answers["/crm"] = lambda: (time.sleep(RECEIVER_S), 200)[1]
        job = Job(receiver, brokers, folder, last)
        try:
            job.start()
            job.sends_new_ones()
            yield job
        finally:
            job.end()


def check(job: Job, blows: int, last: int) -> int:
    """All webhooks came, in order for each user, and few again; returns how many did."""
    eventually(lambda: job.different() == last, "all webhooks", 120)
    time.sleep(0.5)
    times = Counter(webhook_id for webhook_id, _, _ in job.receiver.seen)
    order: dict[str, list[int]] = {}
    for _, _, body in job.receiver.seen:
        document = orjson.loads(body)["event"]
        numbers = order.setdefault(document["user_id"], [])
        if int(document["event_id"]) not in numbers:
            numbers.append(int(document["event_id"]))
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert sum(map(len, order.values())) == last
    repeats = times.total() - len(times)
    assert repeats <= ALLOWED_PER_BLOW * blows
    return repeats


def kill(job: Job) -> None:
    job.owner.kill()
    job.owner.wait()
    job.start()
    job.sends_new_ones()


def freeze(job: Job) -> None:
    """Stop a process for longer than its lease. When it goes on, the shard has another one."""
    former = job.owner
    former.send_signal(signal.SIGSTOP)
    job.start()
    job.sends_new_ones()
    former.send_signal(signal.SIGCONT)
    job.sends_new_ones()
    former.kill()
    former.wait()


@pytest.mark.slow
def test_after_kills_and_a_freeze_only_what_was_in_flight_comes_again(tmp_path: Path) -> None:
    chance = random.Random(28)
    blows = [kill, freeze]
    last = 800 * len(blows)
    with running(tmp_path, last) as job:
        for blow in blows:
            time.sleep(chance.uniform(0.2, 1.2))  # any moment between checkpoints
            blow(job)
        check(job, len(blows), last)
