"""``event-trigger demo``: the real thing on one machine, with made-up users, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import orjson
from confluent_kafka import Consumer, Message, TopicPartition
from cyclopts import Parameter

from pipeline.cli.demo_kill_key import KILL_KEY, KillKey, keys, standard_input
from pipeline.cli.demo_rules import (
    DECISIONS_TOPIC,
    RULES_TOPIC,
    OwnRules,
    checked_rules,
    config_file,
    destination_names,
    next_steps,
)
from pipeline.cli.parameters import Count, Number
from pipeline.cli.ui import check_page_packages, served_page
from pipeline.console import out, say
from pipeline.embedded.action_lines import ActionLines
from pipeline.embedded.load import LoadGenerator
from pipeline.embedded.receivers import SIGNING_KEY_VARIABLE, made_up_key, stand_in
from pipeline.embedded.server import CountingReceiver
from pipeline.embedded.user_api import UserApi
from pipeline.errors import OptionError
from pipeline.job.snapshot import UPTIME, is_records_read, is_unread_shown
from pipeline.launch.options import FLINK_RUNNER, Settings
from pipeline.launch.run import bundled_rules, import_beam
from runners.flink.errors import LocalStackError
from runners.flink.local import monitoring
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from transforms.domain.rules.model import KafkaAction, WebhookAction
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import FIRED, decode_decision

_DESTINATION: Final = "receiver"
_PARTITIONS: Final = 4
_DELIVERIES_TOPIC: Final = "event-deliveries"
_WINDOW_S: Final = 10.0
_SHOWN_A_SECOND: Final = 4
_RENEWED: Final = 6  # values that a rate is of, about so many seconds


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Load:
    """What the demo makes up.

    Args:
        rate: events a second.
        users: made-up users.
        api_delay_ms: the user API's answer time in ms.
        seconds: stop after so many seconds; default: Ctrl-C.
        monitoring: start Prometheus, too, and Grafana if it is there (GRAFANA_HOME, PATH).
    """

    rate: Number = 200
    users: Count = 1000
    api_delay_ms: Number = 20
    seconds: Number | None = None
    monitoring: bool = False

    def check(self) -> None:
        """Raise an ``OptionError`` for a number that is not allowed."""
        for name, least, most in (("rate", 1, 100_000), ("users", 1, 1_000_000), ("api_delay_ms", 0, 60_000)):
            if not least <= getattr(self, name) <= most:
                raise OptionError(f"--{name} is {getattr(self, name)}, allowed: {least} to {most}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise OptionError(f"--seconds is {self.seconds}, allowed: a number above 0")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Own:
    """What a reader adds to the demo.

    Args:
        rules: rule file or folder instead of the sample rules: published now and whenever a file is saved.
        ui: serve the page, too.
    """

    rules: Annotated[Path | None, Parameter(metavar="PATH")] = None
    ui: bool = False


def demo(*, load: Load = Load(), own: Own = Own()) -> None:
    """Run the real thing on one machine, with made-up users, until Ctrl-C.

    0: stopped; 1: something did not start; 2: an option cannot be used.
    """
    load.check()
    if own.ui:
        check_page_packages()
    # SIGTERM stops all processes, too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        _run(load, own, stack)
    say("\nstopped everything")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(load: Load, own: Own, stack: contextlib.ExitStack) -> None:
    grafana = None
    if load.monitoring:
        monitoring.prometheus_program()  # fails here if it is missing, before anything else starts
        grafana = monitoring.grafana_home(os.environ.get("GRAFANA_HOME"))
    rules = None if own.rules is None else checked_rules(own.rules)
    say("starting a user API, a receiver of webhooks and a Kafka broker")
    api = stack.enter_context(UserApi(load.api_delay_ms / 1000))
    receiver = stack.enter_context(CountingReceiver())
    kafka = stack.enter_context(LocalKafka())
    say("starting Flink: a JobManager and a TaskManager with two slots")
    flink = stack.enter_context(LocalFlink(task_managers=1, slots=2, environment={SIGNING_KEY_VARIABLE: made_up_key()}))
    settings = Settings(
        runner=FLINK_RUNNER,
        bootstrap_servers=kafka.bootstrap_servers,
        user_api_url=api.url,
        control_topic="event-control",
        rules_topic=None if rules is None else RULES_TOPIC,
        decisions_topic=None if rules is None and not own.ui else DECISIONS_TOPIC,
        deliveries_topic=_DELIVERIES_TOPIC,
        # Rules that are saved later may write topics of their own.
        action_topics=() if rules is None else ("*",),
        checkpointing_interval_ms=10_000,
        flink_master=flink.flink_master,
        allow_private_destinations=True,
    )
    for topic, partitions in (
        (settings.events_topic, _PARTITIONS),
        (settings.actions_topic, _PARTITIONS),
        (settings.decisions_topic, _PARTITIONS),
        (settings.dead_letters_topic, 1),
        (settings.inspections_topic, 1),
        (settings.audit_topic, 1),
        ("event-control", 1),
        (settings.deliveries_topic, settings.user_shards),
    ):
        if topic is not None:
            kafka.create_topic(topic, partitions)
    names = destination_names(rules or (), _DESTINATION)
    own_rules = None
    rule_set = _sample_rules()
    if own.rules is not None:
        own_rules = OwnRules(own.rules, kafka, settings, names)
        rule_set = own_rules.publish()
    say("submitting the pipeline")
    import_beam()
    from pipeline.launch.flink import submit, wait_until_running  # with Beam

    job_id = submit(settings, rule_set, flink.flink_master, tuple(stand_in(name, receiver.url) for name in names))
    say(f"Flink's web page: {flink.rest_url}/#/job/{job_id}/overview    Kafka: {kafka.bootstrap_servers}")
    wait_until_running(flink.rest, job_id)
    if load.monitoring:
        _start_monitoring(flink, grafana, stack)
    if own.ui:
        say(f"the page: {stack.enter_context(served_page(settings))}")
    suggest = None
    if own_rules is not None or own.ui:
        suggest = partial(_suggest, settings, stack.enter_context(config_file(settings)), flink)
    if own_rules is not None:
        say(f"save a rule in {own.rules}, and it is live in seconds")
        stack.enter_context(own_rules.watched())
    kill_key = KillKey(stack.enter_context(keys(standard_input())), lambda: flink.task_manager_pids)
    say(
        f"producing {load.rate:g} events/s of {load.users} users; {KILL_KEY} kills the TaskManager, "
        "Ctrl-C stops everything\n"
    )
    generator = stack.enter_context(
        LoadGenerator(kafka.bootstrap_servers, settings.events_topic, load.rate, load.users)
    )
    is_own = own_rules is not None and settings.decisions_topic is not None
    topic = settings.decisions_topic if is_own and settings.decisions_topic else settings.actions_topic
    consumer = stack.enter_context(contextlib.closing(_consumer(kafka.bootstrap_servers, topic)))
    actions = FiredActions(rule_set, settings.actions_topic) if is_own else SentActions()
    demo = RunningDemo(generator, SourceMetrics(flink, job_id), receiver, kill_key)
    _watch(consumer, actions, demo, load.seconds, suggest)


def _suggest(settings: Settings, path: Path | None, flink: LocalFlink, user_id: str) -> None:
    """Say what to try next, about a user for whom a rule has fired."""
    say("\nin another terminal, with `. .venv/bin/activate`:")
    for what, command in next_steps(settings, path, user_id, flink.task_manager_pids[0]).items():
        say(f"  {what:<16}  {command}")
    say("")


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


def _sample_rules() -> RuleSet:
    """The sample rules, with a Kafka action and a webhook instead of their debug actions."""
    actions = (KafkaAction(type="kafka"), WebhookAction(type="webhook", destination=_DESTINATION))
    return RuleSet(0, tuple(rule.model_copy(update={"actions": actions}) for rule in bundled_rules()))


def _consumer(bootstrap_servers: str, topic: str) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": f"demo-{uuid.uuid4()}", "fetch.wait.max.ms": 5}
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(_PARTITIONS)])
    return consumer


class SourceMetrics:
    """Reads from Flink's metrics how fast the job reads, and how many records it has still to read.

    A ``JobSnapshot`` has both, too, but takes many requests; meanwhile the demo would measure longer delays.
    """

    def __init__(self, flink: LocalFlink, job_id: str) -> None:
        self._flink, self._rest, self._job_id = flink, flink.rest, job_id
        vertices = self._rest.job(job_id)["vertices"]
        self._vertex = next(vertex["id"] for vertex in vertices if "ReadEvents" in vertex["name"])
        self._names: list[str] = []
        # Records read, and how long the job had run then [ms]: only values that Flink has renewed.
        self._renewed: deque[tuple[int, int]] = deque(maxlen=_RENEWED)

    def read(self) -> tuple[float | None, int | None]:
        """Records read a second, and records waiting; None while nobody can tell, as while the job restarts."""
        if self._flink.replace_dead_task_managers():
            pid = self._flink.task_manager_pids[0]
            say(f"the TaskManager has ended; another, process {pid}, takes the job over from the last checkpoint")
            self._names = []
            self._renewed.clear()
        with contextlib.suppress(LocalStackError):
            uptime_ms = int(self._rest.job_metrics(self._job_id, [UPTIME]).get(UPTIME) or 0)
            if not any(is_unread_shown(name) for name in self._names):
                names = self._rest.vertex_metrics(self._job_id, self._vertex)
                self._names = [name for name in names if is_records_read(name) or is_unread_shown(name)]
            metrics = self._rest.vertex_metrics(self._job_id, self._vertex, self._names) if self._names else {}
            read = sum(int(value) for name, value in metrics.items() if is_records_read(name) and value)
            unread = [int(value) for name, value in metrics.items() if is_unread_shown(name) and value]
            return self._rate(read, uptime_ms), sum(unread) if unread and min(unread) >= 0 else None
        return None, None

    def _rate(self, read: int, uptime_ms: int) -> float | None:
        renewed = self._renewed
        if renewed and uptime_ms < renewed[-1][1]:
            renewed.clear()
        if uptime_ms > 0 and (not renewed or uptime_ms > renewed[-1][1]):
            renewed.append((read, uptime_ms))
        if len(renewed) < 2:
            return None
        return 1000 * (renewed[-1][0] - renewed[0][0]) / (renewed[-1][1] - renewed[0][1])


class SentActions:
    """Records of the actions topic as lines."""

    def line(self, message: Message) -> tuple[str, int, str]:
        """The line of an action, the timestamp and the user of its event."""
        event: dict[str, Any] = orjson.loads(message.value())["event"]
        rule = dict(message.headers())["rule"].decode()
        return f"ACTION {rule:<24} {event['user_id']} {event['event_name']:<12}", event["timestamp"], event["user_id"]


class FiredActions:
    """Records of the decision log as lines, for rules with actions of any kind."""

    def __init__(self, rule_set: RuleSet, actions_topic: str) -> None:
        self._lines = ActionLines(rule_set.rules, actions_topic)

    def line(self, message: Message) -> tuple[str, int, str] | None:
        """The line of an action that fired, the timestamp and the user of its event; None for other decisions."""
        decision = decode_decision(message.value())
        line = self._lines.line(decision) if decision.decision == FIRED else None
        if line is None or decision.event_time is None:
            return None
        return line, decision.event_time, decision.user_id


@dataclass(frozen=True)
class RunningDemo:
    """What is shown and done beside the actions while the job runs."""

    load: LoadGenerator
    source: SourceMetrics
    receiver: CountingReceiver
    kill_key: KillKey


def _watch(
    consumer: Consumer,
    actions: SentActions | FiredActions,
    demo: RunningDemo,
    seconds: float | None,
    suggest: Callable[[str], None] | None,
) -> None:
    """Show actions and rates; ``suggest`` is called once, with the user of the first action."""
    delays: deque[tuple[float, float]] = deque()
    started_s = last_report_s = time.monotonic()
    fired, shown = 0, 0
    while seconds is None or time.monotonic() - started_s < seconds:
        for message in consumer.consume(500, 0.02):
            about = actions.line(message) if message.error() is None else None
            if about is not None:
                fired += 1
                shown += 1
                line, event_ms, user_id = about
                delay_ms = time.time_ns() / 1e6 - event_ms
                delays.append((time.monotonic(), delay_ms))
                if shown <= _SHOWN_A_SECOND:
                    out(f"{line} after {delay_ms:,.0f} ms")
                if suggest is not None:
                    suggest(user_id)
                    suggest = None
        demo.kill_key.kill_if_pressed()
        now_s = time.monotonic()
        elapsed_s = now_s - last_report_s
        if elapsed_s >= 1:
            while delays and delays[0][0] < now_s - _WINDOW_S:
                delays.popleft()
            read, lag = demo.source.read()
            rates = f"{'?' if read is None else format(read, ',.0f'):>6} events/s  {fired / elapsed_s:5,.0f} actions/s"
            waiting = "?" if lag is None else f"{lag:,}"
            webhooks, repeats = demo.receiver.counts()
            counts = f"produced {demo.load.produced:,}  webhooks {webhooks:,}, repeated {repeats:,}"
            say(f"── {rates}  {_percentiles(delays)}  lag {waiting}  {counts}, kills {demo.kill_key.kills}")
            last_report_s, fired, shown = now_s, 0, 0


def _percentiles(delays: deque[tuple[float, float]]) -> str:
    values = sorted(delay for _, delay in delays)
    if not values:
        return "no action yet"
    return (
        f"p50 {values[len(values) // 2]:,.0f} ms  p99 {values[min(len(values) - 1, len(values) * 99 // 100)]:,.0f} ms"
    )
