"""The rows: how each system is started, killed and brought back. Everything about measuring is elsewhere."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from pipeline.launch.flink import submit
from pipeline.launch.options import parse
from runners.flink import artifacts, configuration
from runners.flink.local.processes import Process, stop_all
from runners.flink.rest import FlinkRest
from tests.benchmarks.peers import workload
from tests.benchmarks.peers.environments import python_of, version_of
from tests.benchmarks.peers.sampling import process_tree
from tests.benchmarks.webhooks import receiver
from tests.builders import load_rules
from tests.flink_cluster import FlinkCluster
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import load_destinations

_JOBS: Final = Path(__file__).parent / "jobs"
_SUBMIT_S: Final = 120.0
# As few as docs/user-state.md allows for that many users.
_SHARDS_A_SLOT: Final = 4
_KAFKA_JARS: Final = ("flink-connector-kafka-", "kafka-clients-")


@dataclass(frozen=True)
class Wiring:
    """What a job is connected to, the same for every row."""

    bootstrap_servers: str
    broker_data: Path
    user_api_url: str
    events: str
    actions: str
    dead_letters: str
    decisions: str
    group: str
    checkpoint_s: float
    users: int


class Running(Protocol):
    """A job at work."""

    def groups(self) -> dict[str, list[int]]:
        """Its processes, by what they are."""

    def kill(self) -> None:
        """``kill -9`` what handles events."""

    def revive(self) -> None:
        """Start what was killed, as a supervisor would at once."""

    def checkpoints(self) -> dict[str, float]:
        """How many there were, their bytes and seconds."""


@dataclass(frozen=True)
class Row:
    """A line of the tables. ``start`` takes the number of slots; ``guarantee`` is about actions and state, through a
    kill; actions of a ``transactional`` row can be read after the next checkpoint; one ``on_java`` is warmed up."""

    title: str
    guarantee: str
    prepare: Callable[[], object]
    start: Callable[[int], AbstractContextManager[Callable[[Wiring], AbstractContextManager[Running]]]]
    parts: tuple[str, ...] = ("zipf", "uniform", "misses", "load")
    transactional: bool = False
    on_java: bool = True


class FlinkJob:
    """A job on a cluster with one TaskManager."""

    def __init__(self, flink: FlinkCluster, job_id: str) -> None:
        self._flink, self._job_id = flink, job_id

    def groups(self) -> dict[str, list[int]]:
        task_managers = self._flink.task_manager_pids
        return {"worker": sorted(process_tree(task_managers)), "TaskManager": task_managers}

    def kill(self) -> None:
        self._flink.kill_task_manager()

    def revive(self) -> None:
        self._flink.start_task_manager()

    def checkpoints(self) -> dict[str, float]:
        history = self._flink.rest.checkpoints(self._job_id)["history"]
        done = [checkpoint for checkpoint in history if checkpoint["status"] == "COMPLETED"]
        return checkpoint_figures(
            [checkpoint["checkpointed_size"] for checkpoint in done],
            [checkpoint["state_size"] for checkpoint in done],
            [checkpoint["end_to_end_duration"] / 1e3 for checkpoint in done],
        )


def checkpoint_figures(written: Sequence[float], whole: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """Means of the checkpoints' bytes written and of the state behind them, and the slowest's seconds."""
    if not seconds:
        return {"checkpoints": 0}
    return {
        "checkpoints": len(seconds),
        "checkpoint MB": sum(written) / len(written) / 1e6,
        "state MB": sum(whole) / len(whole) / 1e6,
        "checkpoint s": max(seconds),
    }


@contextmanager
def _until_cancelled(flink: FlinkCluster, job_id: str) -> Iterator[Running]:
    rest = FlinkRest(flink.rest_url)
    rest.wait_for_state(job_id, {"RUNNING"}, _SUBMIT_S)
    try:
        yield FlinkJob(flink, job_id)
    finally:
        rest.cancel(job_id)
        rest.wait_for_state(job_id, {"CANCELED", "FAILED"}, 60)


@contextmanager
def ours(
    slots: int, *options: str, rules: str = workload.RULE
) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """This pipeline; ``options`` are its own, in which ``{decisions}`` is the topic of its decision log."""
    with (
        FlinkCluster(task_managers=1, slots=slots, long_lived=True) as flink,
        our_jobs(flink, slots, *options, rules=rules) as job,
    ):
        yield job


@contextmanager
def with_webhooks(slots: int) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """This pipeline, which also POSTs each action to a receiver that answers after ``workload.STUB_DELAY_S``."""
    with tempfile.TemporaryDirectory() as folder, receiver(round(workload.STUB_DELAY_S * 1000), pem=None) as port:
        secret, destinations = Path(folder) / "secret", Path(folder) / "destinations.yaml"
        secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        secret.chmod(0o600)
        destinations.write_text(
            "destinations:\n"
            f"- {{name: receiver, url: 'http://127.0.0.1:{port}/', secrets: ['file:{secret}'], max_in_flight: 100}}\n"
        )
        options = (f"--destinations={destinations}", "--allow_private_destinations")
        with ours(slots, *options, rules=workload.WEBHOOK_RULE) as job:
            yield job


@contextmanager
def our_jobs(
    flink: FlinkCluster, slots: int, *options: str, rules: str = workload.RULE
) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """This pipeline, as ``ours``, on a cluster that runs already and has at least so many slots."""
    with tempfile.TemporaryDirectory() as folder:
        rules_file = Path(folder) / "rules.yaml"
        rules_file.write_text(rules)

        def job(wiring: Wiring) -> AbstractContextManager[Running]:
            settings = parse(
                [
                    "--runner=FlinkRunner",
                    f"--bootstrap_servers={wiring.bootstrap_servers}",
                    f"--events_topic={wiring.events}",
                    f"--actions_topic={wiring.actions}",
                    f"--dead_letters_topic={wiring.dead_letters}",
                    f"--group_id={wiring.group}",
                    f"--job_name={wiring.group}",
                    f"--transactional_id_prefix={wiring.group}",
                    f"--rules={rules_file}",
                    f"--user_api_url={wiring.user_api_url}",
                    f"--checkpointing_interval_ms={round(wiring.checkpoint_s * 1000)}",
                    f"--parallelism={slots}",
                    f"--workers_per_task_manager={slots}",
                    f"--user_shards={_SHARDS_A_SLOT * slots}",
                    *(option.format(decisions=wiring.decisions) for option in options),
                ]
            )
            rule_set = RuleSet(0, load_rules(rules_file))
            file = settings.destinations
            destinations = () if file is None else load_destinations(file, settings.egress_policy())
            return _until_cancelled(flink, submit(settings, rule_set, flink.flink_master, destinations))

        yield job


@contextmanager
def pyflink(slots: int, mode: str) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """PyFlink in ``process`` or ``thread`` mode, on a cluster configured as ours."""
    python, java, home = python_of("pyflink"), artifacts.java(), artifacts.flink_home()
    # The very connector that our jobs use, and PyFlink's jar, which Flink ships in opt/.
    kafka = [jar for jar in artifacts.connectors() if jar.name.startswith(_KAFKA_JARS)]
    jars = [*kafka, *home.glob("opt/flink-python-*.jar")]
    with FlinkCluster(task_managers=1, slots=slots, jars=jars, long_lived=True) as flink:

        def job(wiring: Wiring) -> AbstractContextManager[Running]:
            # `flink run`, without the shell script around it, which PyPI's Flink does not have.
            command = [
                "env", f"FLINK_CONF_DIR={flink.conf_dir}", f"FLINK_HOME={home}", f"FLINK_OPT_DIR={home / 'opt'}",
                java, *configuration.JAVA_17_OPTIONS, f"-Dlog.file={flink.log_dir / 'client.log'}",
                f"-Dlog4j.configurationFile={flink.conf_dir / 'log4j.properties'}", "-cp", flink.class_path,
                "org.apache.flink.client.cli.CliFrontend", "run", "--detached", f"--jobmanager={flink.flink_master}",
                f"--python={_JOBS / 'pyflink_job.py'}", f"--pyFiles={_JOBS / 'user_actions.py'}",
                f"--pyExecutable={python}", f"--pyClientExecutable={python}",
                *_flags(wiring), f"--mode={mode}", f"--name={wiring.group}", f"--slots={slots}",
                f"--checkpoint_ms={round(wiring.checkpoint_s * 1000)}", f"--cached_users={max(wiring.users, 1000)}",
            ]  # fmt: skip
            return _until_cancelled(flink, _submitted(command))

        yield job


def _submitted(command: Sequence[str]) -> str:
    """Run Flink's client; the job's id."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=_SUBMIT_S
    )
    found = re.search(r"JobID ([0-9a-f]{32})", done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"flink run ended with {done.returncode}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
    return found[1]


class AppJob:
    """Processes of a program that is its own supervisor's business."""

    def __init__(self, commands: Sequence[Sequence[str]], folder: Path) -> None:
        self._commands, self._folder = commands, folder
        self._processes: list[Process] = []

    def start(self) -> None:
        """Start all."""
        self._processes = [
            Process.start(Path(command[1]).name, command, log_file=self._folder / f"app-{number}.log")
            for number, command in enumerate(self._commands)
        ]

    def groups(self) -> dict[str, list[int]]:
        for process in self._processes:
            if not process.running:
                raise RuntimeError(f"{process.name} ended:\n{process.log_tail()}")
        return {"worker": [process.pid for process in self._processes]}

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def revive(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        """End all."""
        stop_all(self._processes, 5)

    def checkpoints(self) -> dict[str, float]:
        return {"checkpoints": 0}


class QuixJob(AppJob):
    """Quix Streams' checkpoint: state into the changelog topic and RocksDB, then the offsets."""

    def __init__(self, commands: Sequence[Sequence[str]], folder: Path, wiring: Wiring) -> None:
        super().__init__(commands, folder)
        self._wiring = wiring

    def checkpoints(self) -> dict[str, float]:
        logs = "".join(log.read_text(errors="replace") for log in self._folder.glob("app-*.log"))
        seconds = [float(found) for found in re.findall(r"Committed a checkpoint; .*time_elapsed=([0-9.]+)s", logs)]
        changelogs = self._wiring.broker_data.glob(f"changelog__{self._wiring.group}--*/*.log")
        written = sum(log.stat().st_size for log in changelogs) / max(len(seconds), 1)
        stored = sum(file.stat().st_size for file in (self._folder / "state").rglob("*") if file.is_file())
        return checkpoint_figures([written] * len(seconds), [stored] * len(seconds), seconds)


class AppContext(AbstractContextManager[Running]):
    """A program's processes while the context is open."""

    def __init__(self, job: AppJob) -> None:
        self._job = job

    def __enter__(self) -> Running:
        self._job.start()
        return self._job

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._job.stop()


@contextmanager
def quix(slots: int, guarantee: str) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """Quix Streams, a process for each slot that Flink would have."""
    python = python_of("quix")
    with tempfile.TemporaryDirectory() as folder:

        def job(wiring: Wiring) -> AbstractContextManager[Running]:
            own = Path(tempfile.mkdtemp(dir=folder))
            commands = [
                [
                    str(python), str(_JOBS / "quix_job.py"), f"--state_dir={own / 'state' / str(number)}",
                    f"--guarantee={guarantee}", f"--instance=app-{number}", f"--commit_s={wiring.checkpoint_s}",
                    *_flags(wiring),
                ]
                for number in range(slots)
            ]  # fmt: skip
            return AppContext(QuixJob(commands, own, wiring))

        yield job


@contextmanager
def plain(slots: int) -> Iterator[Callable[[Wiring], AbstractContextManager[Running]]]:
    """The loop with a dict, a process for each slot that Flink would have."""
    python = python_of("plain")
    with tempfile.TemporaryDirectory() as folder:

        def job(wiring: Wiring) -> AbstractContextManager[Running]:
            own = Path(tempfile.mkdtemp(dir=folder))
            command = [str(python), str(_JOBS / "plain_job.py"), *_flags(wiring)]
            return AppContext(AppJob([command] * slots, own))

        yield job


def _flags(wiring: Wiring) -> list[str]:
    return [
        f"--bootstrap={wiring.bootstrap_servers}", f"--events={wiring.events}", f"--actions={wiring.actions}",
        f"--group={wiring.group}", f"--user_api={wiring.user_api_url}",
    ]  # fmt: skip


_STATE_ONCE: Final = "state exactly once, actions at least once"
_PYFLINK: Final = version_of("pyflink", "apache-flink")
_QUIX: Final = version_of("quix", "quixstreams")

ROWS: Final[dict[str, Row]] = {
    "shards": Row("this pipeline, by user shard", _STATE_ONCE, artifacts.connectors, ours),
    "users": Row(
        "this pipeline, by user", _STATE_ONCE, artifacts.connectors, lambda slots: ours(slots, "--user_shards=0")
    ),
    "exactly-once": Row(
        "this pipeline, by user shard, EXACTLY_ONCE",
        "state and actions exactly once; readable at the next checkpoint",
        artifacts.connectors,
        lambda slots: ours(slots, "--delivery_guarantee=EXACTLY_ONCE"),
        parts=("zipf", "load"),
        transactional=True,
    ),
    "ten-rules": Row(
        "this pipeline, by user shard, ten rules with caps and sequences",
        _STATE_ONCE,
        artifacts.connectors,
        lambda slots: ours(slots, rules=workload.TEN_RULES),
        parts=("zipf",),
    ),
    "decisions": Row(
        "this pipeline, by user shard, decision log with one in a hundred of the silent",
        _STATE_ONCE,
        artifacts.connectors,
        lambda slots: ours(slots, "--decisions_topic={decisions}", "--decision_sample=0.01"),
        parts=("zipf",),
    ),
    # Uniform keys only: webhooks of a user go out one after the other, and the busiest user of Zipf's has too many.
    "webhooks": Row(
        "this pipeline, by user shard, each action also a webhook",
        _STATE_ONCE,
        artifacts.connectors,
        with_webhooks,
        parts=("uniform",),
    ),
    "pyflink-process": Row(
        f"PyFlink {_PYFLINK}, process mode",
        _STATE_ONCE,
        lambda: python_of("pyflink"),
        lambda slots: pyflink(slots, "process"),
    ),
    "pyflink-thread": Row(
        f"PyFlink {_PYFLINK}, thread mode",
        _STATE_ONCE,
        lambda: python_of("pyflink"),
        lambda slots: pyflink(slots, "thread"),
    ),
    "quix": Row(
        f"Quix Streams {_QUIX}",
        "state and actions at least once",
        lambda: python_of("quix"),
        lambda slots: quix(slots, "at-least-once"),
        on_java=False,
    ),
    "plain": Row(
        "confluent-kafka and a dict",
        "actions at least once, no state kept",
        lambda: python_of("plain"),
        plain,
        on_java=False,
    ),
}
