"""``savepoint``, ``resume`` and ``cancel`` on a real cluster: an upgrade is two commands, and so is the way back."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from runners.flink.local.broker import LocalKafka
from runners.flink.rest import TERMINAL_STATES
from tests.builders import NOW_MS
from tests.flink_cluster import FlinkCluster
from tests.integration.jobs import Reader, Topics, launch, reading
from tests.waiting import eventually

pytestmark = pytest.mark.stack

RULE = "name: every_event\nversion: {version}\nfilter: event.event_name ~= nil\nactions: [{{type: kafka}}]\n"


class Operator:
    """Runs the commands of one job, as an operator in a terminal does."""

    def __init__(self, flink: FlinkCluster, topics: Topics, folder: Path) -> None:
        self.flink, self.topics = flink, topics
        self.name = f"steered-{topics.tag}"
        self.rules = folder / "rules.yaml"
        self.control = True
        self.upgrade(1)

    def upgrade(self, version: int) -> None:
        """Write another version of the rule; the next launch reads it."""
        self.rules.write_text(RULE.format(version=version))

    def launches(self, *command: str) -> subprocess.CompletedProcess[str]:
        options = [f"--rules={self.rules}", f"--job_name={self.name}", "--checkpointing_interval_ms=1000"]
        options += ["--delivery_guarantee=EXACTLY_ONCE", "--detached"]
        options += [f"--control_topic={self.topics.control}"] if self.control else []
        return launch(*command, f"--flink_master={self.flink.flink_master}", *options, *self.topics.options())

    def steers(self, *command: str) -> subprocess.CompletedProcess[str]:
        return launch(*command, f"--flink_master={self.flink.flink_master}")

    def state(self) -> str:
        """The id of the newest job."""
        jobs = [job for job in self.flink.rest.jobs() if job["name"] == self.name]
        return str(max(jobs, key=lambda job: int(job["start-time"]))["state"])

    def workers(self) -> list[str]:
        """Ids of the processes that the TaskManagers have started."""
        workers = list[str]()
        for task in (task for pid in self.flink.task_manager_pids for task in Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
                workers += (task / "children").read_text().split()
        return workers

    def files(self) -> set[str]:
        """Files of TaskManagers. A JobManager keeps ended jobs for an hour on purpose."""
        folders = [
            folder for name in ("tmp", "rocksdb") for folder in (self.flink.work_dir / name).glob("taskmanager-*")
        ]
        return {str(path.relative_to(self.flink.work_dir)) for folder in folders for path in folder.rglob("*")}

    def produces(self, number: int) -> None:
        body = {"event_id": str(number), "user_id": "u", "event_name": "page_view", "timestamp": NOW_MS + number}
        self.topics.produce([(b"u", orjson.dumps(body))])


@pytest.fixture
def operator(kafka: LocalKafka, flink: FlinkCluster, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(flink, Topics(kafka), tmp_path)
    yield operator
    for job in flink.rest.jobs():
        if job["name"] == operator.name and job["state"] not in TERMINAL_STATES:
            flink.rest.cancel(job["jid"])
            flink.rest.wait_for_state(job["jid"], {"CANCELED"}, 60)


def acted(actions: Reader, count: int) -> list[tuple[str, str, list[str]]]:
    """Event id, rule version and history of each action."""
    bodies = [(orjson.loads(message.value()), dict(message.headers() or [])) for message in actions.until(count, 60)]
    return [
        (body["event"]["event_id"], headers["rule-version"].decode(), [row["event_id"] for row in body["eventHistory"]])
        for body, headers in bodies
    ]


def test_an_upgrade_is_two_commands_and_so_is_the_way_back(kafka: LocalKafka, operator: Operator) -> None:
    with reading(kafka, operator.topics.actions) as actions:
        assert operator.launches("--runner=FlinkRunner").returncode == 0
        operator.produces(0)
        assert acted(actions, 1) == [("0", "1", [])]

        # The upgrade.
        stopped = operator.steers("savepoint", "--stop", f"--job={operator.name}")
        assert stopped.returncode == 0, stopped.stderr
        (before,) = stopped.stdout.splitlines()
        assert (Path(before.removeprefix("file:")) / "_metadata").is_file()
        assert operator.state() == "FINISHED"
        eventually(lambda: operator.workers() == [], "the stopped job's workers are gone", 30)
        files_after_stop = operator.files()
        operator.upgrade(2)
        # Without its state it is not started by mistake.
        anew = operator.launches("--runner=FlinkRunner")
        assert (anew.returncode, anew.stdout) == (2, "")
        assert "all would be lost: savepoint of " in anew.stderr
        assert before in anew.stderr
        resumed = operator.launches("resume")
        assert resumed.returncode == 0, resumed.stderr
        assert f": {before}\n" in resumed.stderr
        operator.produces(1)
        assert acted(actions, 2)[1:] == [("1", "2", ["0"])]

        # Cancelled, and on from the checkpoint.
        cancelled = operator.steers("cancel", f"--job={operator.name}", "--yes")
        assert cancelled.returncode == 0, cancelled.stderr
        (checkpoint,) = cancelled.stdout.splitlines()
        assert "/chk-" in checkpoint
        assert (Path(checkpoint.removeprefix("file:")) / "_metadata").is_file()
        eventually(lambda: operator.workers() == [], "the cancelled job's workers are gone", 30)
        eventually(
            lambda: operator.files() == files_after_stop,
            f"{operator.files()} and nothing else than {files_after_stop}",
            30,
        )
        resumed = operator.launches("resume")
        assert resumed.returncode == 0, resumed.stderr
        assert f": {checkpoint}\n" in resumed.stderr
        operator.produces(2)
        assert acted(actions, 3)[2:] == [("2", "2", ["0", "1"])]

        # The way back: the release before, from the state that it has left. What came since is handled again, by it.
        taken = operator.steers("savepoint", "--stop", f"--job={operator.name}")
        assert taken.returncode == 0, taken.stderr
        operator.upgrade(1)
        operator.control = False
        part = operator.launches("resume", f"--savepoint_path={before}")
        assert part.returncode == 1
        assert (
            f"--savepoint_path is '{before}', which has state that belongs to no step of this pipeline" in part.stderr
        )
        back = operator.launches("resume", f"--savepoint_path={before}", "--allow_non_restored_state")
        assert back.returncode == 0, back.stderr
        assert acted(actions, 5)[3:] == [("1", "1", ["0"]), ("2", "1", ["0", "1"])]


def test_state_that_cannot_be_started_from_is_refused_in_a_sentence(operator: Operator, tmp_path: Path) -> None:
    nowhere = (tmp_path / "nowhere").as_uri()
    refused = operator.launches("resume", f"--savepoint_path={nowhere}")
    assert refused.returncode == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line == f"error: --savepoint_path is '{nowhere}', where the cluster finds no savepoint or checkpoint"

    none = operator.launches("resume")
    assert none.returncode == 1
    assert f"job '{operator.name}' has left no state" in none.stderr
