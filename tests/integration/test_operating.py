"""The job's life on a real cluster: resubmission, savepoints, refusals, state TTL."""

import subprocess
import time
from pathlib import Path

import orjson
import pytest

from runners.flink.local.broker import LocalKafka
from runners.flink.rest import FlinkRest
from tests.builders import NOW_MS
from tests.flink_cluster import FlinkCluster, wait_for_checkpoint
from tests.integration.jobs import Topics, inspect, launch, reading, running, submit

pytestmark = pytest.mark.stack

RULE = "name: every_event\nversion: 1\nfilter: event.event_name ~= nil\nactions: [{type: kafka}]\n"
OPTIONS = ("--checkpointing_interval_ms=1000", "--starting_offsets=earliest")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rule.yaml"
    path.write_text(RULE)
    return path


def event(user: str, number: int) -> tuple[bytes, bytes]:
    fields = {"event_id": f"{user}-{number}", "user_id": user, "event_name": "page_view", "timestamp": NOW_MS + number}
    return user.encode(), orjson.dumps(fields)


def history(state: dict[str, list[dict[str, str]]]) -> list[str]:
    return [row["event_id"] for row in state["eventHistory"]]


def test_offsets_are_committed_to_the_group_on_checkpoint(kafka: LocalKafka, flink: FlinkCluster, rules: Path) -> None:
    topics = Topics(kafka)
    topics.produce(event(f"user-{number % 7}", number) for number in range(100))

    with running(flink, topics, rules, *OPTIONS) as job_id, reading(kafka, topics.actions) as actions:
        actions.until(100, 30)
        wait_for_checkpoint(FlinkRest(flink.rest_url), job_id, 2, 30)
        topics.wait_for_commits(100, 20)


def test_a_savepoint_without_control_topic_is_restored_into_a_job_with_one(
    kafka: LocalKafka, flink: FlinkCluster, rules: Path
) -> None:
    topics = Topics(kafka)
    rest = FlinkRest(flink.rest_url)
    topics.produce(event("user-1", number) for number in range(5))
    job_id = submit(flink, topics, rules, *OPTIONS)
    with reading(kafka, topics.actions) as actions:
        actions.until(5, 30)
    savepoint = rest.stop(job_id)

    topics.produce([event("user-1", 5)])
    restored = (f"--savepoint_path={savepoint}", f"--control_topic={topics.control}")
    with (
        running(flink, topics, rules, *OPTIONS, *restored),
        reading(kafka, topics.inspections) as inspections,
        reading(kafka, topics.actions) as actions,
    ):
        actions.until(6, 30)
        state = inspect(topics, inspections, ["user-1"])["user-1"]

    assert history(state) == [f"user-1-{number}" for number in range(6)]
    assert [row["event_id"] for row in orjson.loads(actions.messages[-1].value())["eventHistory"]] == [
        f"user-1-{number}" for number in range(5)
    ]


def test_a_restore_that_changes_user_shards_is_refused_naming_both(
    kafka: LocalKafka, flink: FlinkCluster, rules: Path
) -> None:
    topics = Topics(kafka)
    rest = FlinkRest(flink.rest_url)
    topics.produce([event("user-1", 1)])
    job_id = submit(flink, topics, rules, *OPTIONS, "--user_shards=64")
    with reading(kafka, topics.actions) as actions:
        actions.until(1, 30)
    savepoint = rest.stop(job_id)

    done = launch(
        "--runner=FlinkRunner",
        f"--flink_master={flink.flink_master}",
        f"--rules={rules}",
        "--user_shards=32",
        f"--savepoint_path={savepoint}",
        f"--job_name=refused-{topics.tag}",
        *topics.options(),
        *OPTIONS,
    )

    assert done.returncode == 1
    failed = next(job for job in rest.jobs() if job["name"] == f"refused-{topics.tag}")
    assert failed["state"] == "FAILED"
    why = str(rest.exceptions(failed["jid"]))
    assert "user_shards" in why
    assert "64" in why
    assert "32" in why
    assert "user_shards" in done.stderr


def test_an_idle_user_is_forgotten_and_loaded_anew(kafka: LocalKafka, flink: FlinkCluster, rules: Path) -> None:
    topics = Topics(kafka)
    topics.produce([event("idle", 1), event("idle", 2)])
    options = (*OPTIONS, "--state_ttl_seconds=3", f"--control_topic={topics.control}")

    with (
        running(flink, topics, rules, *options),
        reading(kafka, topics.actions) as actions,
        reading(kafka, topics.inspections) as inspections,
    ):
        actions.until(2, 30)
        assert inspect(topics, inspections, ["idle"])["idle"]["found"]
        deadline = time.monotonic() + 20
        while inspect(topics, inspections, ["idle"])["idle"]["found"]:
            assert time.monotonic() < deadline, "still known 20 s after its last event, the TTL is 3 s"
        topics.produce([event("idle", 2), event("idle", 3)])
        actions.until(4, 30)

    # Forgotten with it: the history, and that event 2 was seen before.
    assert [len(orjson.loads(message.value())["eventHistory"]) for message in actions.messages] == [0, 1, 0, 1]


def test_five_submissions_leave_the_metaspace_as_it_was(kafka: LocalKafka, flink: FlinkCluster, rules: Path) -> None:
    used, latencies_s = [], []
    for number in range(5):
        topics = Topics(kafka)
        topics.produce([event("user-1", number)])
        started = time.monotonic()
        with running(flink, topics, rules, *OPTIONS), reading(kafka, topics.actions) as actions:
            actions.until(1, 30)
            latencies_s.append(time.monotonic() - started)
        used.append(_metaspace(flink))

    print("seconds to the first action:", [round(seconds, 1) for seconds in latencies_s])
    print("metaspace, MB:", [round(size / 1e6, 1) for size in used])
    # The first submissions load what every job needs; after them a leak of the classes of a job would be 10 MB each.
    assert max(used[2:]) - used[2] < 5e6


def _metaspace(flink: FlinkCluster) -> int:
    """Bytes of classes in the TaskManagers, asked of the virtual machines.

    After one lost answer Flink's REST server asks for no metrics for ten minutes (``web.timeout``).
    """
    class_counts = [
        subprocess.run(["jstat", "-gc", str(pid)], check=True, capture_output=True, text=True).stdout.splitlines()
        for pid in flink.task_manager_pids
    ]
    return sum(
        int(float(dict(zip(names.split(), values.split(), strict=True))["MU"]) * 1024) for names, values in class_counts
    )
