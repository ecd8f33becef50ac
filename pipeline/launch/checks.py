"""What ``python -m pipeline doctor`` looks at: each check asks one thing of the surroundings and says what to do."""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import requests

from pipeline.launch.options import FLINK_RUNNER, Settings
from pipeline.launch.probes import (
    ANSWER_S,
    S3_SCHEMES,
    KafkaProblemError,
    S3Error,
    connection_problem,
    topic_partitions,
    write_to_s3,
)
from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import free_ports
from runners.flink.overrides import BEAM_VERSION
from runners.flink.rest import FlinkRest
from transforms.adapters.user_api.token import Token, TokenError

OK, WARN, FAIL, SKIP = "ok", "warn", "FAIL", "skip"

_PORTS: Final = 8  # of a job server, a JobManager, a TaskManager and their metrics
_SKEW_S: Final = 2.0
# Nobody's id; a user API that knows it is asked a question all the same.
_NOBODY: Final = "event-trigger-doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to: ``outcome`` is one of this module's, ``advice`` what to do about it."""

    check: str
    outcome: str
    said: str
    advice: str = ""


@dataclass(slots=True)
class Cluster:
    """A Flink cluster as its REST endpoint describes it."""

    url: str
    version: str
    slots_free: int
    task_managers: int
    machines: int
    configuration: Mapping[str, str]
    class_path: list[str]

    @classmethod
    def asked(cls, rest: FlinkRest) -> Cluster:
        """What a cluster says of itself.

        Raises:
            LocalStackError: it does not answer, or not as Flink does.
        """
        overview = rest.overview()
        try:
            # pekko.tcp://flink@HOST:PORT/user/rpc/taskmanager_0
            hosts = {urlsplit(str(one["path"])).hostname for one in rest.task_managers()}
            return cls(
                rest.url,
                str(overview["flink-version"]),
                int(overview["slots-available"]),
                int(overview["taskmanagers"]),
                len(hosts),
                rest.configuration(),
                rest.class_path(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LocalStackError(f"{rest.url} answers, but not as Flink does: {error!r}") from None


class Doctor:
    """Runs the checks that a launch with these settings depends on.

    ``checkpoint_dir`` and ``s3_endpoint`` replace what the cluster says of itself. Nothing is left behind, neither on
    Kafka nor in S3; no check raises for what it finds.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint_dir: str | None = None,
        s3_endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._checkpoint_dir = checkpoint_dir
        self._s3_endpoint = s3_endpoint
        self._clock = clock
        self._on_flink = settings.runner == FLINK_RUNNER or settings.flink_master is not None
        self._cluster: Cluster | None = None
        # How far clocks elsewhere are ahead, s, and how exactly that is known.
        self._skews: dict[str, tuple[float, float]] = {}

    def run(self) -> Iterator[Finding]:
        """All findings, each as soon as it is known."""
        yield self._java()
        yield self._maven()
        yield check_beam()
        yield self._ports()
        yield from self._kafka()
        yield from self._flink()
        yield self._user_api()
        yield self._s3()
        yield self._clocks()

    # This machine

    def _java(self) -> Finding:
        try:
            return Finding("Java", OK, artifacts.java())
        except LocalStackError as error:
            if self._on_flink:
                return Finding("Java", FAIL, str(error), "install it: jobs are submitted through a Java job server")
            return Finding("Java", WARN, str(error), "install it for FlinkRunner and the demo")

    def _maven(self) -> Finding:
        built = artifacts.built_connectors()
        if built is not None:
            return Finding("Maven", OK, f"not needed: the connectors are in {built}")
        program = shutil.which("mvn")
        if program is not None:
            return Finding("Maven", OK, program)
        said = "mvn is not on the PATH and the connectors are not built"
        advice = "install Maven 3.8 or newer, or set EVENT_TRIGGER_CONNECTORS to a folder with their jars"
        return Finding("Maven", FAIL if self._on_flink else WARN, said, advice)

    def _ports(self) -> Finding:
        try:
            free_ports(_PORTS)
        except LocalStackError as error:
            return Finding("Ports", FAIL, str(error), "end what holds them (ss -ltnp)")
        return Finding("Ports", OK, f"{_PORTS} free ones on 127.0.0.1")

    # Kafka

    def _kafka(self) -> Iterator[Finding]:
        settings = self._settings
        if settings.bootstrap_servers is None:
            yield Finding("Kafka", SKIP, "no --bootstrap_servers")
            return
        addresses = [one.strip() for one in settings.bootstrap_servers.split(",")]
        problems = [problem for one in addresses if (problem := connection_problem(one)) is not None]
        for problem in problems:
            yield Finding("Kafka", FAIL, problem, "start the broker, open the way to it or correct the address")
        if len(problems) == len(addresses):
            return
        try:
            topics = topic_partitions(settings.consumer_config())
        except KafkaProblemError as error:
            outcome, advice = FAIL, "see --kafka_property and --consumer_property"
            if error.unusable:
                outcome, advice = WARN, "properties of Java's clients are for Flink; the topics were not looked at"
            yield Finding("Kafka", outcome, str(error), advice)
            return
        yield Finding("Kafka", OK, f"{settings.bootstrap_servers} answers, {len(topics)} topics")
        yield from check_topics(settings, topics)

    # Flink

    def _flink(self) -> Iterator[Finding]:
        master = self._settings.flink_master
        if master is None:
            yield Finding("Flink", SKIP, "no --flink_master: a local cluster would be started")
            return
        advice = "start the cluster, open the way to it or correct --flink_master"
        problem = connection_problem(master)
        if problem is not None:
            yield Finding("Flink", FAIL, problem, advice)
            return
        rest = FlinkRest(f"http://{master}", ANSWER_S)
        try:
            self._cluster = Cluster.asked(rest)
            self._ask_job_manager_for_the_time(rest)
        except LocalStackError as error:
            yield Finding("Flink", FAIL, str(error), advice)
            return
        except (KeyError, TypeError, ValueError) as error:
            yield Finding("Flink", FAIL, f"{master} answers, but not as Flink does: {error!r}", advice)
            return
        yield from check_cluster(self._cluster, self._settings)

    def _ask_job_manager_for_the_time(self, rest: FlinkRest) -> None:
        for job in rest.jobs()[:1]:
            before = self._clock()
            at_s = int(rest.job(job["jid"])["now"]) / 1000
            # The JobManager answers from a copy that may be some seconds old.
            self._skews["Flink's JobManager"] = (at_s - (before + self._clock()) / 2, 4.0)

    # The user API

    def _user_api(self) -> Finding:
        settings, base = self._settings, self._settings.user_api_url
        if base is None:
            return Finding("User API", SKIP, "no --user_api_url: every user is unknown")
        headers = {}
        if settings.user_api_token is not None:
            try:
                headers["Authorization"] = f"Bearer {Token(settings.user_api_token).value}"
            except TokenError as error:
                return Finding("User API", WARN, str(error), "workers read it, so it may be in order there; not asked")
        session = requests.Session()
        session.trust_env = False  # as the workers: no proxies, no netrc
        if settings.user_api_ca_file is not None:
            session.verify = str(settings.user_api_ca_file)
        url = f"{base.rstrip('/')}/users/{_NOBODY}/profile"
        before = self._clock()
        try:
            answer = session.get(url, headers=headers, timeout=settings.user_api_timeout_seconds, allow_redirects=False)
        except requests.RequestException as error:
            said = f"{_host(base)}: {type(error).__name__}"
            return Finding("User API", FAIL, said, "start it, open the way to it or correct --user_api_url")
        took_s = self._clock() - before
        self._learn_skew("the user API", answer.headers.get("Date"), before + took_s / 2)
        if answer.status_code in (200, 404):
            return Finding("User API", OK, f"{_host(base)} answers in {took_s * 1000:.0f} ms")
        advice = (
            "see --user_api_token" if answer.status_code in (401, 403) else "allowed for a user nobody knows: 200, 404"
        )
        return Finding("User API", FAIL, f"{_host(base)}: HTTP {answer.status_code}", advice)

    # S3

    def _s3(self) -> Finding:
        known = self._cluster.configuration if self._cluster is not None else {}
        folder = self._checkpoint_dir or known.get("state.checkpoints.dir")
        if folder is None or urlsplit(folder).scheme not in S3_SCHEMES:
            return Finding("S3", SKIP, f"checkpoints go to {folder}" if folder else "no --checkpoint_dir")
        endpoint = self._s3_endpoint or known.get("s3.endpoint")
        before = self._clock()
        try:
            date = write_to_s3(folder, endpoint)
        except S3Error as error:
            return Finding(
                "S3", FAIL, f"{folder}: {error}", "see the bucket, its policy and this machine's credentials"
            )
        self._learn_skew("S3", date, (before + self._clock()) / 2)
        return Finding("S3", OK, f"{folder}: an object was written and removed from this machine")

    # Time

    def _learn_skew(self, who: str, date: str | None, at_s: float) -> None:
        try:
            told_s = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        self._skews[who] = (told_s + 0.5 - at_s, 0.5)  # whole seconds, cut off

    def _clocks(self) -> Finding:
        if not self._skews:
            return Finding("Clocks", SKIP, "nobody who was asked told the time")
        said = ", ".join(f"{who} {skew:+.1f} s" for who, (skew, _) in self._skews.items())
        if any(abs(skew) > _SKEW_S + uncertain for skew, uncertain in self._skews.values()):
            now = datetime.fromtimestamp(self._clock(), UTC)
            return Finding(
                "Clocks", WARN, f"{said}; here it is {now:%Y-%m-%d %H:%M:%S} UTC", "run an NTP client on all"
            )
        return Finding("Clocks", OK, said)


def check_topics(settings: Settings, topics: Mapping[str, int]) -> Iterator[Finding]:
    """Whether the topics of a launch are there, with partitions enough; ``topics`` are partitions by name."""
    wanted = {"events": settings.events_topic, "actions": settings.actions_topic}
    wanted["dead_letters"] = settings.dead_letters_topic
    if settings.control_topic is not None:
        wanted |= {"control": settings.control_topic, "inspections": settings.inspections_topic}
    if settings.control_topic is not None or settings.rules_topic is not None:
        wanted["audit"] = settings.audit_topic
    missing = {name: topic for name, topic in wanted.items() if topic not in topics}
    for name, topic in missing.items():
        yield Finding("Topics", FAIL, f"{topic!r} does not exist", f"create it or correct --{name}_topic")
    if settings.rules_topic is not None and topics.get(settings.rules_topic, 1) != 1:
        said = f"{settings.rules_topic!r} has {topics[settings.rules_topic]} partitions, allowed is 1"
        yield Finding("Topics", FAIL, said, "create another: sets apply in the order of one partition")
    if not missing:
        yield Finding("Topics", OK, ", ".join(wanted.values()))
    partitions = topics.get(settings.events_topic)
    if partitions is None:
        return
    said = f"{settings.events_topic!r} has {partitions}, --parallelism is {settings.parallelism}"
    if partitions < settings.parallelism:
        advice = (
            f"{settings.parallelism - partitions} subtasks would read nothing: add partitions before there are users"
        )
        yield Finding("Partitions", WARN, said, advice)
    elif partitions % settings.parallelism:
        yield Finding("Partitions", WARN, said, "some subtasks read one more than others: make it a multiple")
    else:
        yield Finding("Partitions", OK, said)


def check_cluster(cluster: Cluster, settings: Settings) -> Iterator[Finding]:
    """Whether a job with these settings can run on a cluster."""
    needed = artifacts.FLINK_VERSION.rpartition(".")[0]
    said = f"{cluster.version} at {cluster.url}; the runner of Beam {BEAM_VERSION} is for {needed}"
    if cluster.version.rpartition(".")[0] == needed:
        yield Finding("Flink", OK, said)
    else:
        yield Finding("Flink", FAIL, said, f"use a cluster of Flink {needed}")
    if cluster.slots_free >= settings.parallelism:
        yield Finding("Slots", OK, f"{cluster.slots_free} free on {cluster.task_managers} TaskManagers")
    else:
        said = f"{cluster.slots_free} free on {cluster.task_managers} TaskManagers"
        said += f", --parallelism is {settings.parallelism}"
        yield Finding("Slots", FAIL, said, "add TaskManagers, end another job or lower --parallelism")
    yield check_jars(cluster)
    yield check_checkpoint_dir(cluster, settings.checkpoint_dir_is_shared)


def check_jars(cluster: Cluster) -> Finding:
    """Whether our connectors and the runner of our Beam are in the cluster's class path."""
    # A path is the same name on every node only by convention, so names are what is compared.
    names = [entry.rpartition("/")[2] for entry in cluster.class_path]
    advice = "copy the jars of `make connectors` into lib/ of every node and restart them"
    if not any(name.startswith("event-trigger-connectors") for name in names):
        return Finding("Connectors", FAIL, "not in the JobManager's class path", advice)
    runners = [name for name in names if name.startswith("beam-runners-flink-")]
    wanted = f"-{BEAM_VERSION}.jar"
    if [name for name in runners if not name.endswith(wanted)] or not runners:
        said = (
            f"the JobManager's class path has {', '.join(runners) or 'no runner of Beam'}, allowed: Beam {BEAM_VERSION}"
        )
        return Finding("Connectors", FAIL, said, f"{advice}, without those of another release")
    return Finding("Connectors", OK, "in the JobManager's class path")


def check_checkpoint_dir(cluster: Cluster, is_shared: bool) -> Finding:
    """Whether checkpoints go where they outlive the machine that wrote them."""
    folder = cluster.configuration.get("state.checkpoints.dir")
    if folder is None:
        said = "state.checkpoints.dir is not set: checkpoints are in the JobManager's memory, and gone with it"
        return Finding("Checkpoints", FAIL, said, "set it in the cluster's configuration")
    if urlsplit(folder).scheme in ("", "file") and cluster.machines > 1 and not is_shared:
        said = f"state.checkpoints.dir is {folder}, and TaskManagers are on {cluster.machines} machines: a job that "
        said += "restarts on another finds no state"
        advice = "set it to a folder in S3, or give --checkpoint_dir_is_shared if all machines share this one"
        return Finding("Checkpoints", FAIL, said, advice)
    return Finding("Checkpoints", OK, folder)


def check_beam() -> Finding:
    """Whether the installed Beam is the one that the runner is of."""
    found = importlib.metadata.version("apache-beam")
    if found == BEAM_VERSION:
        return Finding("Beam", OK, f"{found}, as the runner")
    return Finding("Beam", FAIL, f"{found} is installed, the runner is {BEAM_VERSION}", "run make setup")


def _host(url: str) -> str:
    """Of a URL what may be shown: a path may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
