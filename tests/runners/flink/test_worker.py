from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from google.protobuf import struct_pb2

from runners.flink import worker as worker_boot
from runners.flink.errors import LocalStackError
from tests.waiting import eventually

LeftOver = Callable[[], list[str]]
CACHE = "beam:option:max_cache_memory_usage_mb:v1"


def provision(options: dict[str, Any] | None = None, **endpoints: str) -> Any:
    info = beam_provision_api_pb2.ProvisionInfo(runner_capabilities=["a", "b"])
    struct = struct_pb2.Struct()
    struct.update(options or {})
    info.pipeline_options.CopyFrom(struct)
    for name, url in {"logging": "h:1", "control": "h:2", **endpoints}.items():
        getattr(info, f"{name}_endpoint").url = url
    return info


def environment(info: Any, *flags: str) -> dict[str, str]:
    return worker_boot.harness_environment(worker_boot._parse(["--id=1-1", "--provision_endpoint=h:9", *flags]), info)


def test_a_worker_imports_what_the_pipeline_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_by_the_pipeline.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["named_by_the_pipeline", "not_installed_here"]
    experiments = ["another=1", *(f"{worker_boot.IMPORT_EXPERIMENT}{name}" for name in names)]
    worker_boot._import_early({"beam:option:experiments:v1": experiments})
    assert sys.modules.pop("named_by_the_pipeline")
    assert "not_installed_here" not in sys.modules


def test_a_pipeline_without_experiments_names_nothing() -> None:
    worker_boot._import_early({})


def test_the_harness_gets_its_endpoints_from_the_runner() -> None:
    variables = environment(provision(status="h:3"), "--control_endpoint=other:5")
    assert variables["WORKER_ID"] == "1-1"
    assert variables["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "h:1"\n'
    assert variables["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "h:2"\n'
    assert variables["STATUS_API_SERVICE_DESCRIPTOR"] == 'url: "h:3"\n'
    assert variables["RUNNER_CAPABILITIES"] == "a b"


def test_endpoints_on_the_command_line_replace_missing_ones() -> None:
    variables = environment(provision(control=""), "--control_endpoint=h:5", "--semi_persist_dir=/tmp")
    assert variables["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "h:5"\n'


def test_a_missing_endpoint_is_an_error() -> None:
    with pytest.raises(LocalStackError, match="worker 1-1: neither the runner nor --control_endpoint"):
        environment(provision(control=""))


def test_options_keep_their_types_and_whole_numbers_stay_whole() -> None:
    options = {CACHE: 512, "beam:option:a:v1": [1, 2.5, "x", {"b": 3}], "beam:option:c:v1": True}
    assert json.loads(environment(provision(options))["PIPELINE_OPTIONS"]) == options
    assert ".0" not in environment(provision(options))["PIPELINE_OPTIONS"]


@pytest.mark.parametrize("options", [{}, {CACHE: 0}], ids=["absent", "zero"])
def test_the_state_cache_is_on_by_default(options: dict[str, Any]) -> None:
    options_read = json.loads(environment(provision(options))["PIPELINE_OPTIONS"])
    assert options_read[CACHE] == worker_boot.DEFAULT_CACHE_MB > 0


def test_beam_reads_the_cache_size_from_these_options() -> None:
    from apache_beam.runners.worker import sdk_worker_main

    options = sdk_worker_main._parse_pipeline_options(environment(provision({CACHE: 512}))["PIPELINE_OPTIONS"])
    assert sdk_worker_main._get_state_cache_size_bytes(options) == 512 << 20


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """A runner that provisions workers and does nothing else."""

    def __init__(self) -> None:
        self.worker_ids: list[str] = []
        self.info = provision()

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        self.worker_ids += [value for key, value in context.invocation_metadata() if key == "worker_id"]
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=self.info)


@pytest.fixture
def runner() -> Iterator[tuple[Provision, str]]:
    service = Provision()
    server = grpc.server(ThreadPoolExecutor(2))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0)


WORKER = [sys.executable, "-m", "runners.flink.worker", "--id=1-1"]


def test_a_worker_that_cannot_start_ends_and_says_why(
    runner: tuple[Provision, str], tmp_path: Path, left_over: LeftOver
) -> None:
    service, endpoint = runner
    service.info.control_endpoint.url = ""
    result = subprocess.run(
        [*WORKER, f"--provision_endpoint={endpoint}"],
        env={**os.environ, "EVENT_TRIGGER_WORKER_LOG_DIR": str(tmp_path)},
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert service.worker_ids == ["1-1"]
    (log,) = tmp_path.glob("worker-1-1-*.log")
    assert "neither the runner nor --control_endpoint names an endpoint" in log.read_text()
    assert left_over() == []


def test_an_unknown_switch_for_the_overrides_is_refused() -> None:
    result = subprocess.run(
        [*WORKER, "--provision_endpoint=127.0.0.1:1"],
        env={**os.environ, "EVENT_TRIGGER_BEAM_OVERRIDES": "maybe"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "EVENT_TRIGGER_BEAM_OVERRIDES='maybe'; allowed: on, off" in result.stderr


# Waits for a runner that never answers: long enough to be ended from outside.
WAITING = [*WORKER, "--provision_endpoint=127.0.0.1:1"]


def test_a_worker_ends_when_its_task_manager_is_killed(left_over: LeftOver) -> None:
    code = f"import subprocess, time; print(subprocess.Popen({WAITING!r}).pid, flush=True); time.sleep(100)"
    task_manager = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert task_manager.stdout is not None
    worker = int(task_manager.stdout.readline())
    eventually(lambda: len(list(Path(f"/proc/{worker}/task").iterdir())) > 1, "the worker watches its parent")
    time.sleep(1.2)  # long enough for two looks at its parent
    assert "runners.flink.worker" in Path(f"/proc/{worker}/cmdline").read_text()
    task_manager.kill()
    task_manager.wait()
    assert left_over() == []


def test_a_worker_ends_on_sigterm() -> None:
    worker = subprocess.Popen(WAITING)
    time.sleep(0.5)
    worker.terminate()
    assert worker.wait(5) == -signal.SIGTERM


_HANGS = """
import time
from types import SimpleNamespace
from runners.flink import worker

def hangs():
    time.sleep(100)

harness = SimpleNamespace(_alive=True)
worker._end_soon_after(harness, 0.3)
time.sleep(0.7)
print("alive", flush=True)
harness._alive = False
hangs()
"""


def test_a_worker_that_hangs_ends_soon_after_its_control_channel_and_says_where() -> None:
    result = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 1
    assert result.stdout == "alive\n"
    assert "in hangs" in result.stderr


def test_sigusr1_writes_the_stacks_of_a_worker_to_its_log(tmp_path: Path) -> None:
    with subprocess.Popen(WAITING, env={**os.environ, "EVENT_TRIGGER_WORKER_LOG_DIR": str(tmp_path)}) as process:
        try:
            eventually(lambda: list(tmp_path.glob("worker-1-1-*.log")) != [], "the worker opens its log")
            (log,) = tmp_path.glob("worker-1-1-*.log")
            handled = Path(f"/proc/{process.pid}/status")
            eventually(lambda: _catches_sigusr1(handled.read_text()), "the worker handles the signal")
            process.send_signal(signal.SIGUSR1)
            eventually(lambda: "most recent call first" in log.read_text(), "stacks in the log")
            assert process.poll() is None
        finally:
            process.kill()


def _catches_sigusr1(status: str) -> bool:
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)
