"""What users in state cost on this machine, and whether misses slow the others down. ``make bench-state``.

``size``: many users with full histories on real Kafka and Flink: memory, checkpoints, journal, restore; and, in this
process, the longest step of a compaction and a shard's cold read. ``isolation``: latency of users who are known, with
and without others who are not. ``heavy``: users with very many events, in this process.

The user API has a process of its own. Everything shares the machine, whose load is printed with every table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.launch.flink import submit, wait_until_running
from pipeline.launch.options import parse
from runners.flink.local.broker import LocalKafka
from tests.benchmarks import shards
from tests.benchmarks.user_api import SLOW_PREFIX, UserApiProcess
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from transforms.domain.rules.sets import RuleSet

_PARTITIONS: Final = 4
# Of the events that fill the state so many are followed by an action: they tell how far it is.
_PROBE_EVERY: Final = 20
_WAITING_USERS: Final = 1500
_CHECKPOINT_MS: Final = 15_000
_PARTS: Final = ("size", "steps", "isolation", "cold", "heavy", "all")

Figures = dict[str, float]


class Stack:
    """A broker, a cluster, a user API, and topics for one job that may be stopped and restored."""

    def __init__(self, slow_s: float = 0.0, *, long_lived: bool = True) -> None:
        self._slow_s, self._long_lived = slow_s, long_lived

    def __enter__(self) -> Stack:
        self._folder = tempfile.TemporaryDirectory()
        self.kafka = LocalKafka().__enter__()
        self.flink = FlinkCluster(task_managers=1, slots=2, long_lived=self._long_lived).__enter__()
        self.api = UserApiProcess(self._slow_s).__enter__()
        self.rest = self.flink.rest
        tag = uuid.uuid4().hex[:8]
        self.events, self.actions, self.dead_letters = f"events-{tag}", f"actions-{tag}", f"dead-{tag}"
        for topic in (self.events, self.actions, self.dead_letters):
            self.kafka.create_topic(topic, _PARTITIONS)
        self.producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 1})
        self.consumer = Consumer(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": tag, "auto.offset.reset": "earliest"}
        )
        self.consumer.assign([TopicPartition(self.actions, partition, 0) for partition in range(_PARTITIONS)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.consumer.close()
        for part in (self.api, self.flink, self.kafka):
            part.__exit__(kind, error, trace)
        self._folder.cleanup()

    def submit(self, *options: str) -> str:
        """Start the job; its id."""
        settings = parse(
            [
                "--runner=FlinkRunner",
                f"--bootstrap_servers={self.kafka.bootstrap_servers}",
                f"--events_topic={self.events}",
                f"--actions_topic={self.actions}",
                f"--dead_letters_topic={self.dead_letters}",
                f"--group_id={self.events}",
                f"--rules={self._folder.name}",
                f"--user_api_url={self.api.url}",
                f"--checkpointing_interval_ms={_CHECKPOINT_MS}",
                "--state_ttl_seconds=3600",
                "--state_cache_mb=4096",
                "--enrichment_deadline_seconds=120",
                "--user_api_timeout_seconds=30",
                *options,
            ]
        )
        job_id = submit(settings, RuleSet(0, (shards.RULE,)), self.flink.flink_master)
        wait_until_running(self.rest, job_id)
        return job_id

    def send(self, user_id: bytes, triggerable: bool) -> None:
        """Produce an event of a user, now."""
        value = shards.event(user_id, time.time_ns() // 1_000_000, triggerable)
        while True:
            try:
                self.producer.produce(self.events, value, user_id)
                return
            except BufferError:
                self.producer.poll(0.05)

    def received(self, wait_s: float) -> list[tuple[str, int, float]]:
        """Actions at hand: user, when the event was sent and how long ago that was (µs, ms)."""
        found = []
        for message in self.consumer.consume(1000, wait_s):
            if message.error() is None:
                now_us = time.time_ns() // 1000
                event = orjson.loads(message.value())["event"]
                sent_us = event["parameters"]["sent_us"]
                found.append((event["user_id"], sent_us, (now_us - sent_us) / 1000))
        return found

    def workers(self) -> list[int]:
        """Process ids of this cluster's Python workers."""
        parents = set(self.flink.task_manager_pids)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent in parents and b"event-trigger-worker" in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def rss_mb(self) -> Figures:
        """Resident memory: of all workers together, and of the TaskManager."""
        return {
            "workers RSS MB": sum(map(_rss_mb, self.workers())),
            "TaskManager RSS MB": sum(map(_rss_mb, self.flink.task_manager_pids)),
        }

    def counter(self, job_id: str, name: str) -> int:
        """One of the pipeline's counters."""
        total = 0
        for vertex in self.rest.job(job_id)["vertices"]:
            names = [metric for metric in self.rest.vertex_metrics(job_id, vertex["id"]) if metric.endswith(name)]
            found = self.rest.vertex_metrics(job_id, vertex["id"], names).values() if names else ()
            total += sum(int(float(value or 0)) for value in found)
        return total


class Load:
    """Sends events at a steady rate while the context is open; it never waits for anybody.

    ``users`` gives the user of each. One in ``fire_every`` may be followed by an action.
    """

    def __init__(self, stack: Stack, rate_hz: float, users: Iterator[bytes], fire_every: int) -> None:
        self._stack, self._rate_hz, self._users, self._fire_every = stack, rate_hz, users, fire_every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._stack.producer.flush(10)

    def _run(self) -> None:
        started = time.monotonic()
        while not self._ending.is_set():
            due = int((time.monotonic() - started) * self._rate_hz)
            while self.sent < due:
                self._stack.send(next(self._users), random.random() < 1 / self._fire_every)
                self.sent += 1
            self._stack.producer.poll(0)
            self._ending.wait(0.002)


def size(users: int, user_shards: int) -> Figures:
    """Fill the state, checkpoint it, stop and restore it, kill its TaskManager."""
    options = (f"--user_shards={user_shards}",)
    known = shards.user_ids(users)
    with Stack() as stack:
        job_id = stack.submit(*options)
        _fill(stack, job_id, known[:200], 0)
        before = stack.rss_mb()
        started = time.monotonic()
        _fill(stack, job_id, known[200:], 200)
        figures = {"users": users, "user_shards": user_shards, "fill s": time.monotonic() - started}
        figures |= _memory("filled", stack, before, users)
        figures |= _checkpoints(stack, job_id, known)
        figures |= _memory("after the load", stack, before, users)
        figures["refolds"] = stack.counter(job_id, "refolds")
        figures["compactions"] = stack.counter(job_id, "compactions")
        stopping = time.monotonic()
        savepoint = stack.rest.stop(job_id, deadline_s=600)
        figures["stop with savepoint s"] = time.monotonic() - stopping
        size_bytes = _folder_bytes(Path(savepoint.removeprefix("file:")))
        figures["savepoint MB"] = size_bytes / 1e6
        figures["journal B/user (savepoint / users)"] = size_bytes / users
        with _restoring(stack, known, figures, "restored"):
            job_id = stack.submit(*options, f"--savepoint_path={savepoint}")
        figures |= _memory("restored", stack, before, users)
        done = stack.rest.checkpoints(job_id)["counts"]["completed"]
        wait_for_checkpoint(stack.rest, job_id, done + 1, 300)
        since = running_since(stack.rest, job_id)
        # First the kill, then the events: what comes out afterwards has been restored.
        stack.flink.kill_task_manager()
        with _restoring(stack, known, figures, "killed"):
            stack.flink.start_task_manager()
            wait_for_recovery(stack.rest, job_id, since, 300)
        stack.rest.cancel(job_id)
    return figures


def _fill(stack: Stack, job_id: str, user_ids: Sequence[bytes], filled: int) -> None:
    """One event of each user; no more of them wait for the user API than it answers in a few seconds."""
    probes = 0
    give_up = time.monotonic() + 3600
    for sent, user_id in enumerate(user_ids, 1):
        stack.send(user_id, sent % _PROBE_EVERY == 1)
        while sent - probes * _PROBE_EVERY > _WAITING_USERS:
            stack.producer.poll(0)
            probes += len(stack.received(0.05))
            _check(give_up, f"{probes * _PROBE_EVERY} of {len(user_ids)} users filled")
    stack.producer.flush(30)
    while (fetched := stack.counter(job_id, "users_fetched")) < filled + len(user_ids):
        stack.received(0.2)
        _check(give_up, f"{fetched} of {filled + len(user_ids)} users filled")


def _check(give_up: float, what: str) -> None:
    if time.monotonic() > give_up:
        raise TimeoutError(what)


def _memory(when: str, stack: Stack, before: Figures, users: int) -> Figures:
    now = stack.rss_mb()
    figures = {f"{name}, {when}": value for name, value in now.items()}
    grown = now["workers RSS MB"] - before["workers RSS MB"]
    return {
        **{f"{name}, before": value for name, value in before.items()},
        **figures,
        f"workers KB/user, {when}": grown * 1e3 / users,
    }


def _checkpoints(stack: Stack, job_id: str, known: Sequence[bytes]) -> Figures:
    rest = stack.rest
    done = rest.checkpoints(job_id)["counts"]["completed"]
    full = wait_for_checkpoint(rest, job_id, done + 2, 300)  # the one under way may have begun before
    with Load(stack, 1000, _choices(known), 1000):
        loaded = wait_for_checkpoint(rest, job_id, done + 4, 300)
    return {
        "checkpoint MB, full": full["state_size"] / 1e6,
        "checkpoint MB, nothing new": full["checkpointed_size"] / 1e6,
        f"checkpoint MB, {_CHECKPOINT_MS // 1000} s of 1000 events/s": loaded["checkpointed_size"] / 1e6,
        "checkpoint s": loaded["end_to_end_duration"] / 1e3,
    }


def _choices(user_ids: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield random.choice(user_ids)


@contextmanager
def _restoring(stack: Stack, known: Sequence[bytes], figures: Figures, name: str) -> Iterator[None]:
    """Time until the first action comes out, and until 1,000 users of all shards have had theirs."""
    started = time.monotonic()
    since_us = time.time_ns() // 1000
    awaited = set(random.sample(known, 1000))
    for user_id in awaited:
        stack.send(user_id, True)
    stack.producer.flush(30)
    first_s: list[float] = []
    seen: set[bytes] = set()
    problem: list[BaseException] = []

    def watch() -> None:
        try:
            while not awaited <= seen:
                for user, sent_us, _ in stack.received(0.05):
                    if sent_us >= since_us:
                        seen.add(user.encode())
                        first_s.append(time.monotonic() - started)
                _check(started + 600, f"{name}: {len(seen)} of {len(awaited)} users had an action")
        except BaseException as error:  # noqa: BLE001 - told to who waits
            problem.append(error)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    figures[f"{name}: running after s"] = time.monotonic() - started
    watcher.join()
    if problem:
        raise problem[0]
    figures[f"{name}: first action after s"] = first_s[0]
    figures[f"{name}: all shards answered after s"] = time.monotonic() - started


def isolation(rate: float, seconds: float, repeats: int, slow_s: float, *options: str) -> dict[str, Figures]:
    """Latency of known users: nobody misses, then one event in ten is a new user's whom the API keeps waiting."""
    known = shards.user_ids(2000)
    calls = ("--user_api_concurrency=128",)  # Little: 100 misses/s of 3 calls of 0.2 s are 60 at a time, in two workers
    phases: list[tuple[str, Figures]] = []
    with Stack(slow_s) as stack:
        job_id = stack.submit(*calls, *options)
        _fill(stack, job_id, known, 0)
        strangers = iter(f"{SLOW_PREFIX}_{number:07d}".encode() for number in range(10_000_000))
        nobody, some = _choices(known), _mixed(known, strangers)
        _phase(stack, rate, 20, nobody)  # warm-up
        _phase(stack, rate, 10, some)
        for _ in range(repeats):
            phases.append(("no misses", _phase(stack, rate, seconds, nobody)))
            phases.append(("10 % miss", _phase(stack, rate, seconds, some)))
        stack.rest.cancel(job_id)
    figures = {f"{name}, {number // 2 + 1}": phase for number, (name, phase) in enumerate(phases)}
    medians = {
        kind: {part: _median([phase[part] for name, phase in phases if name == kind]) for part in ("p50", "p95", "p99")}
        for kind in ("no misses", "10 % miss")
    }
    figures |= {f"{kind}, median": median for kind, median in medians.items()}
    figures["10 % miss / no misses"] = {
        part: medians["10 % miss"][part] / medians["no misses"][part] for part in ("p50", "p95", "p99")
    }
    return figures


def cold(rate: float, seconds: float, *options: str) -> dict[str, Figures]:
    """Latency of new users from a job's first second on: every event is of a user whom nobody has seen."""
    delays: list[tuple[float, float]] = []
    with Stack(0.02, long_lived=False) as stack:  # as in the demo
        job_id = stack.submit(*options)
        strangers = (f"{SLOW_PREFIX}_{number:07d}".encode() for number in itertools.count())
        started_us = time.time_ns() // 1000
        with Load(stack, rate, strangers, 1) as load:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                delays += [((sent_us - started_us) / 1e6, delay_ms) for _, sent_us, delay_ms in stack.received(0.005)]
        give_up = time.monotonic() + 60
        while len(delays) < load.sent:
            delays += [((sent_us - started_us) / 1e6, delay_ms) for _, sent_us, delay_ms in stack.received(0.1)]
            _check(give_up, f"{len(delays)} of {load.sent} actions")
        stack.rest.cancel(job_id)
    seconds_of = {
        f"second {number + 1}": [delay_ms for at_s, delay_ms in delays if number <= at_s < number + 1]
        for number in (*range(min(5, int(seconds))), int(seconds) - 1)
    }
    return {
        name: {"p50": _median(found), "p99": shards.quantile(found, 0.99), "longest": max(found)}
        for name, found in {"all": [delay_ms for _, delay_ms in delays], **seconds_of}.items()
    }


def _mixed(known: Sequence[bytes], strangers: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        for _ in range(9):
            yield random.choice(known)
        yield next(strangers)


def _phase(stack: Stack, rate: float, seconds: float, users: Iterator[bytes]) -> Figures:
    """Steady load for so long; what is sent in its first three seconds does not count."""
    slow, delays, slow_delays = SLOW_PREFIX, [], []
    with Load(stack, rate, users, 4) as load:
        started_us = time.time_ns() // 1000
        cpu = {"workers": _cpu_s(stack.workers()), "TaskManager": _cpu_s(stack.flink.task_manager_pids)}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for user, sent_us, delay_ms in stack.received(0.005):
                if sent_us > started_us + 3_000_000:
                    (slow_delays if user.startswith(slow) else delays).append(delay_ms)
        sent = load.sent
        cpu["workers"] = _cpu_s(stack.workers()) - cpu["workers"]
        cpu["TaskManager"] = _cpu_s(stack.flink.task_manager_pids) - cpu["TaskManager"]
    while stack.received(0.5):  # what is still under way belongs to nobody
        continue
    return {
        "events/s": sent / seconds,
        "actions": len(delays),
        **{f"p{part}": shards.quantile(delays, part / 100) for part in (50, 95, 99)},
        "missed p50": shards.quantile(slow_delays, 0.5) if slow_delays else 0.0,
        "missed p99": shards.quantile(slow_delays, 0.99) if slow_delays else 0.0,
        **{f"{name} µs/event": used / sent * 1e6 for name, used in cpu.items()},
        "load": os.getloadavg()[0],
    }


def _median(values: Sequence[float]) -> float:
    return shards.quantile(values, 0.5)


def _rss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024 / 1e6


def _cpu_s(pids: Sequence[int]) -> float:
    total = 0
    for pid in pids:
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(parts[11]) + int(parts[12])
    return total / os.sysconf("SC_CLK_TCK")


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _print(title: str, columns: dict[str, Figures]) -> None:
    """A table: figures down, measurements across."""
    print(f"\n## {title} (load average {os.getloadavg()[0]:.1f})\n")
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name in names:
        print(f"| {name} | {' | '.join(_shown(column.get(name)) for column in columns.values())} |")
    sys.stdout.flush()


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=_PARTS)
    parser.add_argument("--users", type=int, default=200_000, help="users in state")
    parser.add_argument("--user_shards", type=int, action="append", help="default: 32 and 256; may be repeated")
    parser.add_argument("--rate", type=float, default=1000, help="events/s of the isolation runs")
    parser.add_argument("--seconds", type=float, default=25, help="length of each isolation run")
    parser.add_argument("--repeats", type=int, default=3, help="isolation runs of each kind")
    parser.add_argument("--slow_s", type=float, default=0.2, help="how long the API keeps new users waiting")
    parser.add_argument("--option", action="append", default=[], help="option for the pipeline's isolation runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    counts = arguments.user_shards or [32, 256]
    figures: dict[str, Any] = {}

    def table(title: str, what: str, measure: Callable[[], dict[str, Figures]]) -> None:
        if arguments.what in (what, "all") or (what, arguments.what) == ("steps", "size"):
            figures[title] = measure()
            _print(title, figures[title])
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(figures, indent=1))

    table(
        "heavy users, in process",
        "heavy",
        lambda: {
            name: shards.heavy(name, events)
            for name, events in (("500 events a session", 50_000), ("a bot", 500_000), ("half of all events", 300_000))
        },
    )
    table(
        "a shard, in process",
        "steps",
        lambda: {
            f"{arguments.users // count} users": shards.steps(arguments.users // count, arguments.users // count * 50)
            for count in counts
        },
    )
    table(
        f"latency of known users at {arguments.rate:g} events/s, ms",
        "isolation",
        lambda: isolation(arguments.rate, arguments.seconds, arguments.repeats, arguments.slow_s, *arguments.option),
    )
    table(
        "latency of new users from the start of a job at 200 events/s, ms",
        "cold",
        lambda: cold(200, 15, *arguments.option),
    )
    table(
        "the shards of one worker under equal load, in process",
        "steps",
        lambda: {f"{n // 2} shards": shards.together(n // 2, 6400 // n, 320_000) for n in counts},
    )
    for count in counts:
        table(
            f"{arguments.users} users in {count} shards", "size", lambda n=count: {"figure": size(arguments.users, n)}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
