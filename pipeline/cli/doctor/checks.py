"""The checks of ``doctor``: each looks at one thing that a launch depends on and says what to do about it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pycurl
import requests

from pipeline.job.checkpoint_storage import S3_SCHEMES, S3Error, write_to_s3
from pipeline.kafka.client_properties import cannot_log_in, for_librdkafka
from pipeline.kafka.cluster_settings import KafkaAdminError, topic_partitions
from pipeline.kafka.security import AWS_MSK_IAM, advice_for
from pipeline.launch import findings
from pipeline.launch.findings import FAIL, OK, SKIP, WARN, Cluster, Finding
from pipeline.launch.options import FLINK_RUNNER, Settings
from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.local.processes import free_ports
from runners.flink.overrides import BEAM_VERSION
from runners.flink.rest import FlinkRest
from transforms.adapters.letter_keys import letter_signer
from transforms.adapters.lua import confinement
from transforms.adapters.lua.sandbox_process import SandboxProcess
from transforms.adapters.secrets import Token, TokenError
from transforms.adapters.user_hash_key import user_hash
from transforms.domain.base.secret_references import SecretError, is_reference
from transforms.domain.rules.engine import EngineError, Program
from transforms.domain.webhooks.destinations import Destination, read_destinations

_ANSWER_S: Final = 5.0
_PORTS: Final = 8  # of a job server, a JobManager, a TaskManager and their metrics
_SKEW_S: Final = 2.0
# An id that no user has. A user API that knows it all the same answers 200, which is as good.
_UNKNOWN_USER: Final = "event-trigger-doctor"


class Doctor:
    """Runs the checks that a launch with these settings depends on.

    ``checkpoint_dir`` and ``s3_endpoint`` replace those of the cluster's configuration. If the job is ``running``, its
    slots may be taken. Kafka and S3 are left as they were. No check raises an error for a problem that it finds.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint_dir: str | None = None,
        s3_endpoint: str | None = None,
        clock: Callable[[], float] = time.time,
        *,
        running: bool = False,
    ) -> None:
        self._settings = settings
        self._checkpoint_dir = checkpoint_dir
        self._s3_endpoint = s3_endpoint
        self._clock = clock
        self._running = running
        self._on_flink = settings.runner == FLINK_RUNNER or settings.flink_master is not None
        self._cluster: Cluster | None = None
        # How far the clocks of other machines are ahead, and the measurement's uncertainty [s].
        self._skews: dict[str, tuple[float, float]] = {}

    def run(self) -> Iterator[Finding]:
        """Yield each finding as soon as it is known."""
        yield self._java()
        yield self._maven()
        yield findings.check_beam()
        yield Finding("HTTP client", OK, pycurl.version)
        yield self._ports()
        if self._settings.rules_isolation == "process":
            yield self._isolation()
        if self._settings.dead_letters_key is not None:
            yield _key("Letters' key", self._settings.dead_letters_key, letter_signer)
        if self._settings.user_hash_key is not None:
            yield _key("Users' hash key", self._settings.user_hash_key, user_hash)
        yield from _open_secrets(self._settings)
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
        wanted = FAIL if self._on_flink else WARN
        try:
            connectors = artifacts.built_connectors()
        except LocalStackError as error:  # an installed package, which Maven could not help
            return Finding("Maven", wanted, str(error), "jobs on Flink are submitted with them")
        if connectors is not None:
            return Finding("Maven", OK, f"not needed: the connectors are in {connectors}")
        program = shutil.which("mvn")
        if program is not None:
            return Finding("Maven", OK, program)
        message = "mvn is not on the PATH and the connectors are not built"
        advice = "install Maven 3.8 or newer, or set EVENT_TRIGGER_CONNECTORS to a folder with their jars"
        return Finding("Maven", wanted, message, advice)

    def _ports(self) -> Finding:
        try:
            free_ports(_PORTS)
        except LocalStackError as error:
            return Finding("Ports", FAIL, str(error), "end what holds them (ss -ltnp)")
        return Finding("Ports", OK, f"{_PORTS} free ones on 127.0.0.1")

    def _isolation(self) -> Finding:
        """What a process of ``--rules_isolation=process`` gives up on this machine; workers may run on others."""
        check = "Rules' processes"
        try:
            with contextlib.closing(SandboxProcess([Program("doctor", "true")])) as sandbox:
                holds = sandbox.confinement
        except EngineError as error:
            return Finding(check, FAIL, str(error), "see that this Python and its packages can be read by this user")
        missing = [measure for measure in confinement.MEASURES if measure not in holds]
        if missing:
            advice = "run workers on a newer kernel, or under seccomp rules that let processes confine themselves"
            return Finding(check, WARN, f"missing here: {', '.join(missing)}; {', '.join(holds)} hold", advice)
        return Finding(check, OK, f"{', '.join(holds)} hold here")

    # Kafka

    def _kafka(self) -> Iterator[Finding]:
        settings = self._settings
        if settings.bootstrap_servers is None:
            yield Finding("Kafka", SKIP, "no --bootstrap_servers")
            return
        addresses = [address.strip() for address in settings.bootstrap_servers.split(",")]
        problems = [problem for address in addresses if (problem := _connection_problem(address)) is not None]
        for problem in problems:
            yield Finding("Kafka", FAIL, problem, "start the broker, open the way to it or correct the address")
        if len(problems) == len(addresses):
            return
        try:
            topics = topic_partitions(for_librdkafka(settings.consumer_config(), settings.kafka_access()))
        except KafkaAdminError as error:
            yield _refusal(error, addresses, settings)
            return
        yield Finding("Kafka", OK, f"{settings.bootstrap_servers} answers, {len(topics)} topics")
        if settings.kafka_access().is_clear_text:
            advice = "use SASL_SSL, or a SCRAM mechanism"
            yield Finding("Kafka", WARN, "the password travels in clear text", advice)
        yield from check_topics(settings, topics)

    # Flink

    def _flink(self) -> Iterator[Finding]:
        master = self._settings.flink_master
        if master is None:
            yield Finding("Flink", SKIP, "no --flink_master: a local cluster would be started")
            return
        advice = "start the cluster, open the way to it or correct --flink_master"
        problem = _connection_problem(master)
        if problem is not None:
            yield Finding("Flink", FAIL, problem, advice)
            return
        rest = FlinkRest(f"http://{master}", _ANSWER_S)
        try:
            self._cluster = Cluster.read(rest)
            self._measure_skew_of_job_manager(rest)
        except LocalStackError as error:
            yield Finding("Flink", FAIL, str(error), advice)
            return
        except (KeyError, TypeError, ValueError) as error:
            yield Finding("Flink", FAIL, f"{master} answers, but not as Flink does: {error!r}", advice)
            return
        yield from check_cluster(self._cluster, self._settings, self._running)

    def _measure_skew_of_job_manager(self, rest: FlinkRest) -> None:
        for job in rest.jobs()[:1]:
            started_s = self._clock()
            job_manager_s = int(rest.job(job["jid"])["now"]) / 1000
            # The JobManager answers from a copy that may be some seconds old.
            self._skews["Flink's JobManager"] = (job_manager_s - (started_s + self._clock()) / 2, 4.0)

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
        url = f"{base.rstrip('/')}/users/{_UNKNOWN_USER}/profile"
        started_s = self._clock()
        try:
            answer = session.get(url, headers=headers, timeout=settings.user_api_timeout_seconds, allow_redirects=False)
        except requests.RequestException as error:
            message = f"{_host(base)}: {type(error).__name__}"
            return Finding("User API", FAIL, message, "start it, open the way to it or correct --user_api_url")
        took_s = self._clock() - started_s
        self._measure_skew("the user API", answer.headers.get("Date"), started_s + took_s / 2)
        if answer.status_code in (200, 404):
            return Finding("User API", OK, f"{_host(base)} answers in {took_s * 1000:.0f} ms")
        advice = (
            "see --user_api_token" if answer.status_code in (401, 403) else "allowed for a user nobody knows: 200, 404"
        )
        return Finding("User API", FAIL, f"{_host(base)}: HTTP {answer.status_code}", advice)

    # S3

    def _s3(self) -> Finding:
        configuration = self._cluster.configuration if self._cluster is not None else {}
        folder = self._checkpoint_dir or configuration.get("state.checkpoints.dir")
        if folder is None or urlsplit(folder).scheme not in S3_SCHEMES:
            return Finding("S3", SKIP, f"checkpoints go to {folder}" if folder else "no --checkpoint_dir")
        started_s = self._clock()
        try:
            date = write_to_s3(folder, self._s3_endpoint or configuration.get("s3.endpoint"))
        except S3Error as error:
            return Finding(
                "S3", FAIL, f"{folder}: {error}", "see the bucket, its policy and this machine's credentials"
            )
        self._measure_skew("S3", date, (started_s + self._clock()) / 2)
        return Finding("S3", OK, f"{folder}: an object was written and removed from this machine")

    # Clocks

    def _measure_skew(self, name: str, date: str | None, at_s: float) -> None:
        """Compare a ``Date`` header, if it can be read, with this machine's time when it was written."""
        try:
            date_s = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        self._skews[name] = (date_s + 0.5 - at_s, 0.5)  # the header has whole seconds, rounded down

    def _clocks(self) -> Finding:
        if not self._skews:
            return Finding("Clocks", SKIP, "nobody who was asked told the time")
        skews = ", ".join(f"{name} {skew:+.1f} s" for name, (skew, _) in self._skews.items())
        if any(abs(skew) > _SKEW_S + uncertainty for skew, uncertainty in self._skews.values()):
            now = datetime.fromtimestamp(self._clock(), UTC)
            return Finding(
                "Clocks", WARN, f"{skews}; here it is {now:%Y-%m-%d %H:%M:%S} UTC", "run an NTP client on all"
            )
        return Finding("Clocks", OK, skews)


def check_topics(settings: Settings, topics: Mapping[str, int]) -> Iterator[Finding]:
    """Check that a launch's topics exist and have enough partitions; ``topics`` has the number of each."""
    needed = {name.removesuffix("_topic"): topic for name, topic in settings.needed_topics(True).items()}
    needed.pop("rules", None)  # a launch creates it
    missing = {name: topic for name, topic in needed.items() if topic not in topics}
    for name, topic in missing.items():
        yield Finding("Topics", FAIL, f"{topic!r} does not exist", f"create it or correct --{name}_topic")
    if settings.rules_topic is not None and topics.get(settings.rules_topic, 1) != 1:
        message = f"{settings.rules_topic!r} has {topics[settings.rules_topic]} partitions, allowed is 1"
        yield Finding("Topics", FAIL, message, "create another: sets apply in the order of one partition")
    if not missing:
        yield Finding("Topics", OK, ", ".join(needed.values()))
    partitions = topics.get(settings.events_topic)
    if partitions is None:
        return
    message = f"{settings.events_topic!r} has {partitions}, --parallelism is {settings.parallelism}"
    if partitions < settings.parallelism:
        advice = (
            f"{settings.parallelism - partitions} subtasks would read nothing: add partitions before there are users"
        )
        yield Finding("Partitions", WARN, message, advice)
    elif partitions % settings.parallelism:
        yield Finding("Partitions", WARN, message, "some subtasks read one more than others: make it a multiple")
    else:
        yield Finding("Partitions", OK, message)


def check_cluster(cluster: Cluster, settings: Settings, is_running: bool = False) -> Iterator[Finding]:
    """Check that a job with these settings can run on a cluster; one that ``is_running`` has its slots."""
    needed = artifacts.FLINK_VERSION.rpartition(".")[0]
    message = f"{cluster.version} at {cluster.url}; the runner of Beam {BEAM_VERSION} is for {needed}"
    if cluster.version.rpartition(".")[0] == needed:
        yield Finding("Flink", OK, message)
    else:
        yield Finding("Flink", FAIL, message, f"use a cluster of Flink {needed}")
    slots = f"{cluster.slots_free} free on {cluster.task_managers} TaskManagers"
    if is_running or cluster.slots_free >= settings.parallelism:
        yield Finding("Slots", OK, slots)
    else:
        message = f"{slots}, --parallelism is {settings.parallelism}"
        advice = "add TaskManagers, end another job or lower --parallelism"
        if cluster.slots_free and cluster.configuration.get("jobmanager.scheduler", "").lower() == "adaptive":
            yield Finding("Slots", WARN, f"{message}: the job runs on those, and takes new ones in", advice)
        else:
            yield Finding("Slots", FAIL, message, advice)
    yield findings.check_jars(cluster)
    yield findings.check_ports(cluster)
    if settings.kafka_sasl_mechanism == AWS_MSK_IAM:
        yield findings.check_msk_iam(cluster)
    yield findings.check_checkpoint_dir(cluster, settings.checkpoint_dir_is_shared)


def _key(check: str, reference: str, read: Callable[[str], object]) -> Finding:
    try:
        read(reference)
    except SecretError as error:
        return Finding(check, WARN, str(error), "workers read it, so it may be in order there")
    return Finding(check, OK, f"{reference} can be read here")


def _connection_problem(address: str) -> str | None:
    """Why a TCP connection to HOST:PORT fails; None if it succeeds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        return f"{address}: {error.strerror or type(error).__name__}"
    return None


def _open_secrets(settings: Settings) -> Iterator[Finding]:
    """The files of secrets on this machine that every user may read, whatever names them."""
    destinations: tuple[Destination, ...] = ()
    if settings.destinations is not None:
        destinations, problems = read_destinations(settings.destinations, settings.egress_policy())
        for problem in problems:
            yield Finding("Destinations", FAIL, str(problem), "correct the file: a launch refuses it")
    # The URL of a savepoint may look like a reference.
    named = {f"--{name}": value for name, value in settings.model_dump(exclude={"savepoint_path"}).items()}
    named |= {f"destination {destination.name!r}": destination.model_dump() for destination in destinations}
    for name, value in named.items():
        for file in sorted(set(_files(value))):
            with contextlib.suppress(OSError):  # workers may be on other machines
                if Path(file).stat().st_mode & stat.S_IROTH:
                    message = f"{name} refers to file:{file}, which every user of this machine may read"
                    yield Finding("Secrets", WARN, message, "chmod o-r, unless others cannot reach its folder")


def _files(value: object) -> Iterator[str]:
    """The files that references in a value name, which may also be in mappings, lists and NAME=VALUE pairs."""
    if isinstance(value, str):
        for text in (value, value.partition("=")[2]):
            if text.startswith("file:") and is_reference(text):
                yield text.removeprefix("file:")
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _files(item)


def _refusal(error: KafkaAdminError, addresses: Iterable[str], settings: Settings) -> Finding:
    """Why Kafka cannot be asked, and the option that is the cause."""
    tls_problem = next(filter(None, (_tls_problem(address, settings) for address in addresses)), None)
    message = f"{error}: {tls_problem}" if tls_problem else str(error)
    outcome, advice = FAIL, advice_for(tls_problem or message)
    if advice is None and (error.unusable or cannot_log_in(settings.consumer_config())):
        outcome, advice = WARN, "properties of Java's clients are for Flink; the topics were not looked at"
    return Finding("Kafka", outcome, message, advice or "see --kafka_security and --kafka_property")


def _tls_problem(address: str, settings: Settings) -> str | None:
    """What TLS says of a broker, in more words than librdkafka; None: nothing is wrong, or nothing is known."""
    has_tls = settings.kafka_security in ("SSL", "SASL_SSL")
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
        if not has_tls:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((host, int(port)), _ANSWER_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None if has_tls else "the port speaks TLS"
    except ssl.SSLCertVerificationError as error:
        return f"certificate verify failed: {error.verify_message}"
    except OSError:
        return None


def _host(url: str) -> str:
    """The part of a URL that may be shown: its path may hold a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
