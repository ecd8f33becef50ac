"""``python -m pipeline demo``: the real thing on one machine, with made-up users, until Ctrl-C."""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import secrets
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, Message, TopicPartition

from pipeline.cli.command_line import exit_code_of
from pipeline.console import one_line, say
from pipeline.embedded.load import LoadGenerator
from pipeline.embedded.server import Receiver
from pipeline.embedded.user_api import UserApi
from pipeline.errors import OptionError
from pipeline.job.status import is_lag, is_records_read
from pipeline.launch.flink import submit
from pipeline.launch.options import FLINK_RUNNER, Settings
from pipeline.launch.run import bundled_rules
from runners.flink.local import monitoring
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from runners.flink.rest import FlinkRest
from transforms.domain.rules.model import KafkaAction, WebhookAction
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination

_KEY_VARIABLE: Final = "EVENT_TRIGGER_DEMO_SIGNING_KEY"
_DESTINATION: Final = "receiver"
_PARTITIONS: Final = 4
_RUNNING_S: Final = 180.0
_WINDOW_S: Final = 10.0
_SHOWN_A_SECOND: Final = 4


def main(argv: Sequence[str]) -> int:
    """Run the demo; 0 when it was stopped, 1 when something did not start, 2 for a bad option."""
    return exit_code_of(lambda: _demo(argv))


def _demo(argv: Sequence[str]) -> int:
    arguments = _parse(argv)
    # SIGTERM stops all processes, too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        _run(arguments, stack)
    say("\nstopped everything")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rate", type=float, default=200, help="events a second (default: 200)")
    parser.add_argument("--users", type=int, default=1000, help="made-up users (default: 1000)")
    parser.add_argument("--api_delay_ms", type=float, default=20, help="the user API's answer time in ms (default: 20)")
    parser.add_argument("--seconds", type=float, default=None, help="stop after so many seconds (default: Ctrl-C)")
    parser.add_argument(
        "--monitoring",
        action="store_true",
        help="start Prometheus, too, and Grafana if it is there (GRAFANA_HOME, PATH)",
    )
    arguments = parser.parse_args(argv)
    for name, least, most in (("rate", 1, 100_000), ("users", 1, 1_000_000), ("api_delay_ms", 0, 60_000)):
        if not least <= getattr(arguments, name) <= most:
            raise OptionError(f"--{name} is {getattr(arguments, name)}, allowed: {least} to {most}")
    return arguments


def _run(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    grafana = None
    if arguments.monitoring:
        monitoring.prometheus_program()  # fails here if it is missing, before anything else starts
        grafana = monitoring.grafana_home(os.environ.get("GRAFANA_HOME"))
    say("starting a user API, a receiver of webhooks and a Kafka broker")
    api = stack.enter_context(UserApi(arguments.api_delay_ms / 1000))
    receiver = stack.enter_context(Receiver())
    kafka = stack.enter_context(LocalKafka())
    say("starting Flink: a JobManager and a TaskManager with two slots")
    key = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
    flink = stack.enter_context(LocalFlink(task_managers=1, slots=2, environment={_KEY_VARIABLE: key}))
    settings = Settings(
        runner=FLINK_RUNNER,
        bootstrap_servers=kafka.bootstrap_servers,
        user_api_url=api.url,
        control_topic="event-control",
        checkpointing_interval_ms=10_000,
        flink_master=flink.flink_master,
        allow_private_destinations=True,
    )
    for topic, partitions in (
        (settings.events_topic, _PARTITIONS),
        (settings.actions_topic, _PARTITIONS),
        (settings.dead_letters_topic, 1),
        (settings.inspections_topic, 1),
        (settings.audit_topic, 1),
        ("event-control", 1),
    ):
        kafka.create_topic(topic, partitions)
    say("submitting the pipeline")
    destination = Destination(name=_DESTINATION, url=receiver.url, secrets=(f"env:{_KEY_VARIABLE}",))
    job_id = submit(settings, _rules(), flink.flink_master, (destination,))
    say(f"Flink's web page: {flink.rest_url}/#/job/{job_id}/overview    Kafka: {kafka.bootstrap_servers}")
    # Before the workers run, no checkpoint succeeds and events wait.
    flink.rest.wait_for_state(job_id, ["RUNNING"], _RUNNING_S)
    if arguments.monitoring:
        _start_monitoring(flink, grafana, stack)
    say(f"producing {arguments.rate:g} events/s of {arguments.users} users; Ctrl-C stops everything\n")
    load = stack.enter_context(
        LoadGenerator(kafka.bootstrap_servers, settings.events_topic, arguments.rate, arguments.users)
    )
    actions = stack.enter_context(
        contextlib.closing(_actions_consumer(kafka.bootstrap_servers, settings.actions_topic))
    )
    _watch(actions, load, SourceMetrics(flink.rest, job_id), arguments.seconds)


def _start_monitoring(flink: LocalFlink, grafana: Path | None, stack: contextlib.ExitStack) -> None:
    prometheus = stack.enter_context(monitoring.LocalPrometheus(flink.metrics_urls))
    pages = "    ".join(f"{name}: {prometheus.page(name)}" for name in ("alerts", "targets"))
    say(f"Prometheus: {prometheus.url}    {pages}")
    if grafana is None:
        say(
            f"Grafana: none found (GRAFANA_HOME, or grafana on the PATH); its dashboards are in {monitoring.DASHBOARDS}"
        )
    else:
        say(f"Grafana: {stack.enter_context(monitoring.LocalGrafana(grafana, prometheus.url)).url}/dashboards")


def _rules() -> RuleSet:
    """The sample rules, with a Kafka action and a webhook instead of their debug actions."""
    actions = (KafkaAction(type="kafka"), WebhookAction(type="webhook", destination=_DESTINATION))
    return RuleSet(0, tuple(rule.model_copy(update={"actions": actions}) for rule in bundled_rules()))


def _actions_consumer(bootstrap_servers: str, topic: str) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": f"demo-{uuid.uuid4()}", "fetch.wait.max.ms": 5}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
    return consumer


class SourceMetrics:
    """Reads from Flink's metrics how many records the job has read and has still to read.

    A ``JobSnapshot`` has both, too, but takes many requests; meanwhile the demo would measure longer delays.
    """

    def __init__(self, rest: FlinkRest, job_id: str) -> None:
        self._rest, self._job_id = rest, job_id
        vertices = rest.job(job_id)["vertices"]
        self._vertex = next(vertex["id"] for vertex in vertices if "ReadEvents" in vertex["name"])
        self._names: list[str] = []

    def read(self) -> tuple[int, int]:
        """Records read since the job started, records waiting."""
        if not self._names:
            names = self._rest.vertex_metrics(self._job_id, self._vertex)
            self._names = [name for name in names if is_records_read(name) or is_lag(name)]
        metrics = self._rest.vertex_metrics(self._job_id, self._vertex, self._names) if self._names else {}
        read = sum(int(value) for name, value in metrics.items() if is_records_read(name))
        return read, sum(int(value) for name, value in metrics.items() if not is_records_read(name))


def _watch(actions: Consumer, load: LoadGenerator, source: SourceMetrics, seconds: float | None) -> None:
    delays: deque[tuple[float, float]] = deque()
    started_s = last_report_s = time.monotonic()
    last_read, fired, shown = 0, 0, 0
    while seconds is None or time.monotonic() - started_s < seconds:
        for message in actions.consume(500, 0.02):
            if message.error() is None:
                fired += 1
                shown += 1
                delays.append((time.monotonic(), _print_action(message, shown <= _SHOWN_A_SECOND)))
        now_s = time.monotonic()
        elapsed_s = now_s - last_report_s
        if elapsed_s >= 1:
            while delays and delays[0][0] < now_s - _WINDOW_S:
                delays.popleft()
            read, lag = source.read()
            rates = f"{(read - last_read) / elapsed_s:6,.0f} events/s  {fired / elapsed_s:5,.0f} actions/s"
            say(f"── {rates}  {_percentiles(delays)}  lag {lag}  produced {load.produced:,}")
            last_read, last_report_s, fired, shown = read, now_s, 0, 0


def _print_action(message: Message, is_shown: bool) -> float:
    """Print an action if ``is_shown``; returns its delay since the event was produced [ms]."""
    event: dict[str, Any] = orjson.loads(message.value())["event"]
    delay_ms: float = time.time_ns() / 1e6 - event["timestamp"]
    if is_shown:
        rule = dict(message.headers())["rule"].decode()
        line = f"ACTION {rule:<24} {event['user_id']} {event['event_name']:<12} after {delay_ms:,.0f} ms"
        sys.stdout.write(f"{one_line(line)}\n")
        sys.stdout.flush()
    return delay_ms


def _percentiles(delays: deque[tuple[float, float]]) -> str:
    values = sorted(delay for _, delay in delays)
    if not values:
        return "no action yet"
    return (
        f"p50 {values[len(values) // 2]:,.0f} ms  p99 {values[min(len(values) - 1, len(values) * 99 // 100)]:,.0f} ms"
    )
