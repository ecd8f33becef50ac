"""The main job on this machine: throughput, CPU per event and latency, for both keyings. ``make bench-job``.

Everything shares the machine (broker, Flink, workers, load), so ratios of one run say more than its absolute numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.embedded.load import LoadGenerator
from pipeline.embedded.stream import Visitors
from pipeline.embedded.user_api import UserApi
from pipeline.launch.flink import submit
from pipeline.launch.options import parse
from runners.flink.rest import FlinkRest
from tests.benchmarks.peers.sampling import cpu_seconds
from tests.builders import load_rules
from tests.flink_cluster import FlinkCluster
from tests.kafka_broker import KafkaBroker
from transforms.domain.rules.sets import RuleSet

_PARTITIONS = 4
_USERS = 2000
_WARM_UP_S = 45
_RULE = """\
name: bench
version: 1
filter: event.triggerable and user.country == "US"
actions: [{type: kafka}]
"""


@dataclass(frozen=True)
class Topics:
    """Fresh topics of one measurement."""

    events: str
    actions: str
    dead_letters: str


class Bench:
    """A broker, a cluster and a user API; each measurement gets topics and a job of its own."""

    def __init__(self, kafka: KafkaBroker, flink: FlinkCluster, api: UserApi, work_dir: Path) -> None:
        self.kafka, self.flink, self.api = kafka, flink, api
        self.rules_file = work_dir / "rule.yaml"
        self.rules_file.write_text(_RULE)

    def topics(self) -> Topics:
        """Make topics."""
        tag = uuid.uuid4().hex[:8]
        topics = Topics(f"events-{tag}", f"actions-{tag}", f"dead-{tag}")
        self.kafka.create_topic(topics.events, _PARTITIONS)
        self.kafka.create_topic(topics.actions, _PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
        self.kafka.create_topic(topics.dead_letters, 1)
        return topics

    @contextmanager
    def job(self, topics: Topics, *options: str) -> Iterator[str]:
        """Run the pipeline on Flink while the context is open; its job id."""
        settings = parse(
            [
                "--runner=FlinkRunner",
                f"--bootstrap_servers={self.kafka.bootstrap_servers}",
                f"--events_topic={topics.events}",
                f"--actions_topic={topics.actions}",
                f"--dead_letters_topic={topics.dead_letters}",
                f"--group_id={topics.events}",
                f"--rules={self.rules_file}",
                f"--user_api_url={self.api.url}",
                f"--job_name={topics.events}",
                *options,
            ]
        )
        job_id = submit(settings, RuleSet(0, load_rules(self.rules_file)), self.flink.flink_master)
        rest = FlinkRest(self.flink.rest_url)
        try:
            yield job_id
        finally:
            rest.cancel(job_id)
            rest.wait_for_state(job_id, {"CANCELED"}, 60)


@contextmanager
def running_bench() -> Iterator[Bench]:
    """All of it on this machine while the context is open."""
    with (
        tempfile.TemporaryDirectory() as work,
        KafkaBroker(long_lived=True) as kafka,
        FlinkCluster(task_managers=1, slots=2, long_lived=True) as flink,
        UserApi() as api,
    ):
        yield Bench(kafka, flink, api, Path(work))


def workers() -> list[int]:
    """Python workers of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"event-trigger-worker" in command:
                found.append(int(entry.name))
    return found


def produce(bootstrap_servers: str, topic: str, events: int, users: int) -> None:
    """Fill a topic with events, stamped now."""
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
    )
    visitors = Visitors(7, users)
    now_ms = time.time_ns() // 1_000_000
    for number in range(events):
        event = visitors.next_event(now_ms - events + number)
        producer.produce(topic, orjson.dumps(event), event["user_id"].encode())
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush(60)


def committed_input(rest: FlinkRest, job_id: str) -> int:
    """Records that the job's source has read."""
    vertices = rest.job(job_id)["vertices"]
    source = next(vertex for vertex in vertices if "ReadEvents" in vertex["name"])
    names = [name for name in rest.vertex_metrics(job_id, source["id"]) if name.endswith("numRecordsIn")]
    names = [name for name in names if "Source" in name and "batch" not in name]
    return sum(int(float(value)) for value in rest.vertex_metrics(job_id, source["id"], names).values())


def count(consumer: Consumer) -> int:
    """Records at hand right now."""
    return len([message for message in consumer.consume(10_000, 0.2) if message.error() is None])


def reader(kafka: KafkaBroker, topic: str) -> Consumer:
    """A consumer of a whole topic from its start."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
    return consumer


def throughput(bench: Bench, user_shards: int, events: int, parallelism: int) -> dict[str, float]:
    """Work off a full topic; events/s and CPU-µs/event between the first 20 % and the last 5 %."""
    topics = bench.topics()
    produce(bench.kafka.bootstrap_servers, topics.events, events, _USERS)
    expected = _expected_actions(events)
    submitted = time.monotonic()
    options = (
        f"--user_shards={user_shards}",
        f"--parallelism={parallelism}",
        f"--workers_per_task_manager={parallelism}",
    )
    with bench.job(topics, *options):
        consumer = reader(bench.kafka, topics.actions)
        seen = wait_for_actions(consumer, 0, 1)
        first_output_s = time.monotonic() - submitted
        seen = wait_for_actions(consumer, seen, int(expected * 0.2))
        pids = {"worker": workers(), "TaskManager": bench.flink.task_manager_pids, "broker": [bench.kafka.pid]}
        before = {name: cpu_seconds(ids) for name, ids in pids.items()}
        started, seen_before = time.monotonic(), seen
        seen = wait_for_actions(consumer, seen, int(expected * 0.95))
        elapsed = time.monotonic() - started
        worked = events * (seen - seen_before) / expected
        cpu = {name: (cpu_seconds(ids) - before[name]) / worked * 1e6 for name, ids in pids.items()}
        consumer.close()
    return {
        "events/s": worked / elapsed,
        "first output s": first_output_s,
        **{f"{n} µs/event": v for n, v in cpu.items()},
    }


def _expected_actions(events: int) -> int:
    from pipeline.embedded.user_api import profile_of

    visitors = Visitors(7, _USERS)
    made = (visitors.next_event(1) for _ in range(events))
    return sum(1 for e in made if e["triggerable"] and (profile_of(e["user_id"]) or {}).get("country") == "US")


def wait_for_actions(consumer: Consumer, seen: int, wanted: int, deadline_s: float = 300) -> int:
    """Read on until there are so many; how many there are.

    Raises:
        TimeoutError: they did not come in time.
    """
    give_up = time.monotonic() + deadline_s
    while seen < wanted:
        if time.monotonic() > give_up:
            raise TimeoutError(f"{seen} of {wanted} actions after {deadline_s} s")
        seen += count(consumer)
    return seen


def latency(bench: Bench, rate: float, seconds: float, *options: str) -> dict[str, float]:
    """Produce call to consumer receipt of actions under a steady load, after a warm-up of ten seconds; ms."""
    topics = bench.topics()
    with bench.job(topics, "--starting_offsets=earliest", *options):
        consumer = reader(bench.kafka, topics.actions)
        with LoadGenerator(bench.kafka.bootstrap_servers, topics.events, rate, _USERS) as load:
            wait_for_actions(consumer, 0, 1)
            warm = time.monotonic() + 10
            end = warm + seconds
            delays: list[float] = []
            while time.monotonic() < end:
                for message in consumer.consume(1000, 0.005):
                    if message.error() is None and time.monotonic() > warm:
                        now_ms = time.time_ns() / 1e6
                        delays.append(now_ms - orjson.loads(message.value())["event"]["timestamp"])
            produced = load.produced
        consumer.close()
    delays.sort()
    return {
        "rate": rate,
        "produced": produced,
        "actions": len(delays),
        **{f"p{part:g}": delays[min(len(delays) - 1, int(len(delays) * part / 100))] for part in (50, 90, 99)},
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="events for the sharded throughput runs")
    parser.add_argument("--seconds", type=float, default=30, help="length of each latency run")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", choices=("throughput", "latency"), help="one part only")
    parser.add_argument("--option", action="append", default=[], help="option for the pipeline's latency runs")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}

    def measure(name: str, run: Callable[[], dict[str, float]]) -> None:
        figures[name] = run()
        print(name, {key: round(value, 1) for key, value in figures[name].items()}, flush=True)

    with running_bench() as bench:
        # Java compiles itself meanwhile: a third of a core, more than all else that a TaskManager does at these rates.
        latency(bench, 5000, _WARM_UP_S)
        if arguments.only != "latency":
            for parallelism in (1, 2):
                measure(
                    f"by user shard, {parallelism} slots",
                    lambda p=parallelism: throughput(bench, 32, arguments.events, p),
                )
            measure("by user, 2 slots", lambda: throughput(bench, 0, arguments.events // 10, 2))
        if arguments.only != "throughput":
            for rate in (500, 2000, 5000):
                measure(f"latency at {rate}/s", lambda r=rate: latency(bench, r, arguments.seconds, *arguments.option))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
