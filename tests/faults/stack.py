"""The stack that faults strike: Kafka, Flink with two JobManagers, ZooKeeper, S3; what jobs must not leave behind."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from tests.faults.s3 import CREDENTIALS, LocalS3
from tests.faults.zookeeper import LocalZooKeeper
from tests.flink_cluster import FlinkCluster
from tests.kafka_broker import KafkaBroker

_MARK = "EVENT_TRIGGER_FAULTS"
GONE_S = 20.0


@dataclass
class Stack:
    """A running stack. ``mark`` is in the environment of all processes of Flink and of their children.

    ``dumps`` is the folder for stacks of tasks that take long to cancel.
    """

    kafka: KafkaBroker
    s3: LocalS3
    flink: FlinkCluster
    mark: str
    worker_tmp: Path
    dumps: Path

    def workers(self) -> list[int]:
        """Process ids of the living SDK harnesses."""
        return [pid for pid in _marked(self.mark) if "event-trigger-worker" in _command(pid)]

    def orphans(self) -> list[str]:
        """Processes that belong to no living JobManager or TaskManager."""
        flink = {*self.flink.task_manager_pids, *self.flink.job_manager_pids}
        return [
            f"{pid} of {parent_of(pid)}: {_command(pid)[:150]}"
            for pid in _marked(self.mark)
            if pid not in flink and parent_of(pid) not in self.flink.task_manager_pids
        ]

    def check_no_orphans(self) -> None:
        """Wait until no process lives without the process that started it."""
        within(lambda: self.orphans() == [], lambda: f"orphans: {self.orphans()}", GONE_S)

    def check_nothing_is_left(self, deadline_s: float = GONE_S) -> None:
        """Wait until an ended job has left no harness, no thread in a TaskManager, no file and no stored job graph.

        The next JobManager would start a job from its graph.
        """
        within(lambda: self.left() == [], lambda: f"left after the job: {self.left()}", deadline_s)

    def left(self) -> list[str]:
        """Everything that still exists of ended jobs."""
        found = [f"harness {pid}" for pid in self.workers()] + self.orphans()
        for folder in (self.worker_tmp, self.flink.work_dir / "rocksdb"):
            found += [str(path) for path in folder.glob("*/*" if folder.name == "rocksdb" else "*")]
        # Flink reports a job as ended shortly before it deletes its graph: a leader killed in between leaves the graph.
        found += [key for key in self.s3.keys("ha/") if "submittedJobGraph" in key]
        for pid in self.flink.task_manager_pids:
            found += [f"thread {name!r} of TaskManager {pid}" for name in _threads(pid) if name.startswith(JOB_THREADS)]
        return found


# How threads begin that belong to one job: the clients of Kafka, the fetchers of sources, the data plane of harnesses.
# (The kernel keeps fifteen characters of a name.)
JOB_THREADS = ("kafka-producer-", "kafka-coordina", "Source Data Fe", "Source: ", "HandleEvents", "WriteActions")


@contextmanager
def running_stack(kafka: KafkaBroker, dumps: Path, config: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A stack of two JobManagers and two TaskManagers; checkpoints, savepoints and metadata on S3.

    ``config`` adds to Flink's settings.
    """
    with LocalZooKeeper() as zookeeper, LocalS3() as s3:
        mark = uuid.uuid4().hex
        worker_tmp = Path(f"/tmp/event-trigger-faults-{mark}")  # noqa: S108 - its name is unique
        worker_tmp.mkdir()
        try:
            with FlinkCluster(
                task_managers=2,
                slots=2,
                job_managers=2,
                config={**zookeeper.settings(mark), **s3.settings, **(config or {})},
                plugins=[artifacts.s3_plugin()],
                environment={**CREDENTIALS, _MARK: mark, "TMPDIR": str(worker_tmp)},
            ) as flink:
                yield Stack(kafka, s3, flink, mark, worker_tmp, dumps)
        finally:
            with contextlib.suppress(OSError):
                worker_tmp.rmdir()


def within(condition: Callable[[], bool], what: Callable[[], str], deadline_s: float, every_s: float = 0.2) -> float:
    """Wait until the condition holds. Returns the seconds it took; a cluster may fail to answer meanwhile."""
    started, problem = time.monotonic(), ""
    while True:
        try:
            if condition():
                return time.monotonic() - started
        except LocalStackError as error:
            problem = f" ({error})"
        if time.monotonic() - started > deadline_s:
            raise AssertionError(f"after {deadline_s:g} s: {what()}{problem}")
        time.sleep(every_s)


def _marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def parent_of(pid: int) -> int:
    """Process id of a process's parent; 0 if there is no such process."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _threads(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found.append((task / "comm").read_text().strip())
    return found
