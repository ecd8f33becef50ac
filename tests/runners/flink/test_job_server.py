"""A job end to end: our job server, Flink, and Python workers that worker.py starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import BagStateSpec

from runners.flink import artifacts
from runners.flink.errors import LocalStackError
from runners.flink.job_server import JobServer
from runners.flink.local.processes import accepts_connections, group_members
from tests.flink_cluster import FlinkCluster, running_since, wait_for_checkpoint, wait_for_recovery
from tests.waiting import eventually

LeftOver = Callable[[], list[str]]

WORKER = Path(sys.executable).parent / "event-trigger-worker"
ELEMENTS = 60


def stateful_dofn() -> beam.DoFn:
    """A DoFn that adds each element to a bag, reads all of it and prints figures of the harness's state cache."""

    # Defined in a function, so that it is pickled by value: workers do not have the tests.
    class AddAndRead(beam.DoFn):
        BAG = BagStateSpec("bag", coders.BytesCoder())

        STATE = beam.DoFn.StateParam(BAG)

        def process(self, element: Any, bag: Any = STATE) -> Iterator[Any]:
            import gc

            from apache_beam.runners.worker import bundle_processor, statecache

            bag.add(b"x")
            (cache,) = (candidate for candidate in gc.get_objects() if type(candidate) is statecache.StateCache)
            line = {
                "count": len(list(bag.read())),
                "cache_bytes": cache._max_weight,
                "misses": cache._miss_count,
                "weigher": statecache.get_deep_size.__module__,
                "commit": bundle_processor.FnApiUserStateContext.commit.__name__,
            }
            print(f"DEBUG EVENT {json.dumps(line)}\n", end="")  # one write, as a debug action does
            yield element

    return AddAndRead()


def submit(server: JobServer, *options: str) -> str:
    arguments = [
        "--runner=PortableRunner",
        f"--job_endpoint={server.job_endpoint}",
        "--streaming",
        "--environment_type=PROCESS",
        f"--environment_config={json.dumps({'command': str(WORKER)})}",
        "--max_cache_memory_usage_mb=77",
        "--checkpointing_interval=1000",
        "--min_pause_between_checkpoints=200",
        # Every element is a bundle, so whatever is cached is cached across bundles.
        "--max_bundle_size=1",
        *options,
    ]
    pipeline = beam.Pipeline(options=PipelineOptions(arguments))
    (
        pipeline
        | beam.Create([(b"key", number) for number in range(ELEMENTS)])
        | beam.Reshuffle()
        | beam.Map(lambda pair: pair).with_output_types(tuple[bytes, int])
        | "Stateful" >> beam.ParDo(stateful_dofn())
    )
    pipeline.run()
    return server.wait_submitted(60)


def printed(flink: FlinkCluster) -> list[dict[str, Any]]:
    # Up to the last whole line: a worker is writing the next one.
    logs = [log.read_text().rpartition("\n")[0] for log in sorted(flink.log_dir.glob("worker-*.log"))]
    marked = [line for log in logs for line in log.splitlines() if line.startswith("DEBUG EVENT ")]
    return [json.loads(line.removeprefix("DEBUG EVENT ")) for line in marked]


@pytest.fixture(scope="module")
def own_flink() -> Iterator[FlinkCluster]:
    """A cluster of this module alone: a test may kill its TaskManager, and no other worker writes to its logs."""
    with FlinkCluster(task_managers=1, slots=1) as cluster:
        yield cluster


def test_nothing_is_known_before_the_start() -> None:
    server = JobServer("127.0.0.1:1")
    with pytest.raises(LocalStackError, match="job server: not started"):
        _ = server.job_endpoint
    with pytest.raises(LocalStackError, match="job server: not started"):
        server.wait_submitted(1)


@pytest.mark.stack
def test_a_job_runs_in_our_workers_and_survives_a_killed_task_manager(own_flink: FlinkCluster) -> None:
    rest = own_flink.rest
    with JobServer(own_flink.flink_master) as server:
        job_id = submit(server)
        eventually(lambda: printed(own_flink), "something is printed")
    eventually(lambda: len(printed(own_flink)) >= ELEMENTS, "all of it is printed")
    last = printed(own_flink)[ELEMENTS - 1]
    assert last["count"] == ELEMENTS
    assert last["cache_bytes"] == 77 << 20
    # One key: the first read finds nothing in the cache, all later ones do, in bundles of one element.
    assert last["misses"] <= 2
    assert last["weigher"] == "runners.flink.overrides.cache_weight"
    assert last["commit"] == "commit_pipelined"
    rest.wait_for_state(job_id, {"RUNNING", "FINISHED"}, 30)
    config = rest.checkpoint_config(job_id)
    assert (config["interval"], config["min_pause"], config["timeout"]) == (1000, 200, 600_000)
    assert config["mode"] == "exactly_once"
    assert config["unaligned_checkpoints"]
    assert config["aligned_checkpoint_timeout"] == 10_000
    assert config["externalization"] == {"enabled": True, "delete_on_cancellation": False}
    assert config["tolerable_failed_checkpoints"] == 30
    assert config["state_backend"] == "EmbeddedRocksDBStateBackend"
    # How to restart is not the job's to say: a local cluster waits no longer than this.
    assert "maxBackoffMS=5000" in (own_flink.log_dir / "jobmanager.log").read_text()

    wait_for_checkpoint(rest, job_id, 2, 30)
    (task_manager,) = own_flink.task_manager_pids
    assert len(group_members(task_manager)) == 2
    since = running_since(rest, job_id)
    own_flink.kill_task_manager(0)
    # Its worker notices this by itself.
    eventually(lambda: group_members(task_manager) == [], "its workers are gone", 5)
    own_flink.start_task_manager()
    wait_for_recovery(rest, job_id, since, 60)
    savepoint = rest.stop(job_id)
    assert Path(savepoint.removeprefix("file:")).is_dir()
    assert rest.wait_for_state(job_id, {"FINISHED"}, 30) == "FINISHED"


@pytest.mark.stack
def test_a_job_server_leaves_nothing(own_flink: FlinkCluster, left_over: LeftOver) -> None:
    with JobServer(own_flink.flink_master) as server:
        host, _, port = server.job_endpoint.partition(":")
        assert host in ("127.0.0.1", "localhost")
        assert accepts_connections(int(port))
        with pytest.raises(LocalStackError, match=r"was not submitting a job within 0\.1 s"):
            server.wait_submitted(0.1)
    assert left_over() == []


@pytest.mark.stack
def test_a_job_server_that_cannot_start_says_why(
    tmp_path: Path, left_over: LeftOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "not-a-server.jar").touch()
    monkeypatch.setattr(artifacts, "connectors", lambda: [tmp_path / "not-a-server.jar"])
    server = JobServer("127.0.0.1:1")
    with pytest.raises(LocalStackError, match=r"(?s)job server .*ended before it was ready.*JobServer"):
        server.start()
    server.stop()
    assert left_over() == []
