"""What a bundle costs a Python worker: ``python -m tests.benchmarks.bundles``.

A real worker process, started as Flink starts it, and a small runner in this process that speaks the Fn API with it:
bundles of micro-batches, state in memory, timers taken and never fired. So the costs of a worker can be seen by bundle,
micro-batch and event without Kafka and Flink, and in CPU time, which other programs on the machine do not change much.

``--without=commit_pipelined,read_bag`` leaves these overrides of Beam out, which shows what they gain.

For each shape of a bundle: CPU ms of the worker, those of its busiest thread, which handles the bundles (the others are
gRPC's), and the *tail*, wall ms from the last byte of input to the answer, which is latency of each event in it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import grpc
from apache_beam.coders import BytesCoder, TupleCoder, WindowedValueCoder
from apache_beam.coders.coders import GlobalWindowCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.runners.worker.bundle_processor import DATA_INPUT_URN, DATA_OUTPUT_URN
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.launch.flink import worker_command
from pipeline.launch.options import parse
from runners.flink.overrides import OVERRIDES
from tests.benchmarks.shards import event, quantile
from transforms.domain.events.micro_batch import (
    EVENTS,
    encode_batch,
    key_of,
    shard_of,
)
from transforms.domain.events.record import Record
from transforms.domain.rules.model import KafkaAction, Rule
from transforms.handle_events import ACTIONS, DEBUG, RECORDS, HandleEvents, HandleSettings
from transforms.sinks import PrintDebugActions

_STAGE: Final = "stage"
_INPUT: Final = "input"
_USERS: Final = 2000
_CACHE_MB: Final = 512
_BUFFER_BYTES: Final = 16_384  # as pipeline.launch.flink sets data_buffer_size_limit
_RULE: Final = Rule(
    name="bench",
    version=1,
    filter='event.triggerable and user.email ~= ""',
    actions=(KafkaAction(type="kafka"),),
    on_missing_profile="run",
)


@dataclass(frozen=True)
class Shape:
    """A bundle: ``shards`` user shards get ``batches`` micro-batches each, of ``events`` events."""

    shards: int
    batches: int
    events: int


class Runner(
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
    beam_fn_api_pb2_grpc.BeamFnDataServicer,
    beam_fn_api_pb2_grpc.BeamFnStateServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
):
    """The runner's side of the Fn API, for one worker and one stage."""

    def __init__(self, user_shards: int, buffer_bytes: int = _BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes
        self._server = grpc.server(ThreadPoolExecutor(16))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnDataServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnStateServicer_to_server(self, self._server)
        beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(self, self._server)
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(self, self._server)
        self._instructions: queue.Queue[Any] = queue.Queue()
        self._elements: queue.Queue[Any] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._ends: queue.Queue[Any] = queue.Queue()
        self._ids = itertools.count(1)
        self.state: dict[bytes, bytes] = {}
        self.state_requests = 0
        self._descriptor, self._timer_families = self._stage(user_shards)

    def __enter__(self) -> Runner:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._instructions.put(None)
        self._elements.put(None)
        self._server.stop(0).wait()

    def bundle(self, batches: list[tuple[bytes, bytes]], over_s: float = 0.0) -> float:
        """Have a bundle handled whose micro-batches come within ``over_s``; s from the last one to the answer."""
        name = f"b{next(self._ids)}"
        token = beam_fn_api_pb2.ProcessBundleRequest.CacheToken(
            user_state=beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState(), token=b"token"
        )
        request = beam_fn_api_pb2.ProcessBundleRequest(process_bundle_descriptor_id=_STAGE, cache_tokens=[token])
        self._instructions.put(beam_fn_api_pb2.InstructionRequest(instruction_id=name, process_bundle=request))
        buffered = b""
        for batch in batches:
            if over_s:
                time.sleep(over_s / len(batches))
            buffered += _ELEMENT.encode_nested(WindowedValue(batch, 0, GlobalWindows.windowed_value(None).windows))
            if len(buffered) >= self._buffer_bytes:
                self._elements.put(beam_fn_api_pb2.Elements(data=[self._data(name, buffered)]))
                buffered = b""
        ends = [self._data(name, buffered)] if buffered else []
        timers = [
            beam_fn_api_pb2.Elements.Timers(
                instruction_id=name, transform_id=transform, timer_family_id=family, is_last=True
            )
            for transform, family in self._timer_families
        ]
        last = beam_fn_api_pb2.Elements.Data(instruction_id=name, transform_id=_INPUT, is_last=True)
        sent = time.perf_counter()
        self._elements.put(beam_fn_api_pb2.Elements(data=[*ends, last], timers=timers))
        answer = self._answers.get(timeout=60)
        took_s = time.perf_counter() - sent
        if answer.error:
            raise RuntimeError(answer.error)
        for _ in range(2 + len(self._timer_families)):
            self._ends.get(timeout=60)
        return took_s

    @staticmethod
    def _data(bundle: str, data: bytes) -> Any:
        return beam_fn_api_pb2.Elements.Data(instruction_id=bundle, transform_id=_INPUT, data=data)

    # The Fn API; names are gRPC's.

    def Control(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        def read() -> None:
            with contextlib.suppress(grpc.RpcError):  # the worker has ended
                for answer in request_iterator:
                    self._answers.put(answer)

        threading.Thread(target=read, daemon=True).start()
        yield from iter(self._instructions.get, None)

    def GetProcessBundleDescriptor(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._descriptor

    def Data(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for elements in request_iterator:
                    for element in (*elements.data, *elements.timers):
                        if element.is_last:
                            self._ends.put(element)

        threading.Thread(target=read, daemon=True).start()
        yield from iter(self._elements.get, None)

    def State(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        for request in request_iterator:
            self.state_requests += 1
            answer = beam_fn_api_pb2.StateResponse(id=request.id)
            cell = request.state_key.SerializeToString()
            kind = request.WhichOneof("request")
            if kind == "get":
                answer.get.data = self.state.get(cell, b"")
            elif kind == "append":
                self.state[cell] = self.state.get(cell, b"") + request.append.data
                answer.append.SetInParent()
            else:
                self.state.pop(cell, None)
                answer.clear.SetInParent()
            yield answer

    def Logging(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        for _ in request_iterator:
            pass
        yield from ()

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = beam_provision_api_pb2.ProvisionInfo()
        info.logging_endpoint.url = info.control_endpoint.url = self.address
        info.pipeline_options.update({"beam:option:max_cache_memory_usage_mb:v1": _CACHE_MB})
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    def _stage(self, user_shards: int) -> tuple[Any, list[tuple[str, str]]]:
        """The stage as Flink's fuser cuts it out of the graph, between a data source and two data sinks."""
        options = PipelineOptions(["--environment_type=PROCESS", '--environment_config={"command": "none"}'])
        pipeline = beam.Pipeline(options=options)
        handled = (
            pipeline
            | beam.Impulse()
            | beam.Map(lambda key: (key, key)).with_output_types(tuple[bytes, bytes])
            | "HandleEvents" >> HandleEvents(HandleSettings((_RULE,), user_shards=user_shards))
        )
        handled[DEBUG] | "PrintDebugActions" >> PrintDebugActions()
        whole = pipeline.to_runner_api(default_environment=None)
        components = whole.components
        kept = {
            name: transform
            for name, transform in components.transforms.items()
            if not transform.subtransforms and transform.unique_name.startswith(("HandleEvents", "PrintDebugActions"))
        }
        (handle,) = (transform for transform in kept.values() if transform.unique_name.startswith("HandleEvents"))
        port = beam_fn_api_pb2.RemoteGrpcPort()
        port.api_service_descriptor.url = self.address
        window_coder = next(iter(components.windowing_strategies.values())).window_coder_id

        def ends(pcollection: str) -> bytes:
            coder = f"windowed-{pcollection}"
            components.coders[coder].spec.urn = common_urns.coders.WINDOWED_VALUE.urn
            components.coders[coder].component_coder_ids.extend(
                [components.pcollections[pcollection].coder_id, window_coder]
            )
            port.coder_id = coder
            return bytes(port.SerializeToString())

        def transform(name: str, urn: str, pcollection: str) -> Any:
            transform = beam_runner_api_pb2.PTransform(unique_name=name)
            transform.spec.urn, transform.spec.payload = urn, ends(pcollection)
            (transform.outputs if urn == DATA_INPUT_URN else transform.inputs)["only"] = pcollection
            return transform

        (given,) = handle.inputs.values()
        kept[_INPUT] = transform(_INPUT, DATA_INPUT_URN, given)
        for tag in (ACTIONS, RECORDS):
            kept[tag] = transform(tag, DATA_OUTPUT_URN, handle.outputs[tag])
        descriptor = beam_fn_api_pb2.ProcessBundleDescriptor(
            id=_STAGE,
            transforms=kept,
            pcollections=components.pcollections,
            windowing_strategies=components.windowing_strategies,
            coders=components.coders,
            environments=components.environments,
        )
        descriptor.state_api_service_descriptor.url = self.address
        descriptor.timer_api_service_descriptor.url = self.address
        payload = beam_runner_api_pb2.ParDoPayload.FromString(handle.spec.payload)
        (name,) = (name for name, transform in kept.items() if transform is handle)
        return descriptor, [(name, family) for family in payload.timer_family_specs]


_ELEMENT: Final = WindowedValueCoder(TupleCoder([BytesCoder(), BytesCoder()]), GlobalWindowCoder()).get_impl()


# A worker without the overrides that its first argument names.
_WITHOUT: Final = """\
import sys
from runners.flink import overrides, worker
names = sys.argv.pop(1).split(",")
overrides.OVERRIDES = {target: new for target, new in overrides.OVERRIDES.items() if new.__name__ not in names}
worker.main()
"""


@contextlib.contextmanager
def worker(runner: Runner, without: str = "") -> Iterator[int]:
    """A worker of that runner while the context is open; its process id."""
    command = [worker_command(parse(["--runner=FlinkRunner", "--bootstrap_servers=none:1", "--rules=none"]))]
    if without:
        command = [sys.executable, "-c", _WITHOUT, without]
    with tempfile.TemporaryDirectory() as logs:
        process = subprocess.Popen(
            [*command, "--id=1-1", f"--provision_endpoint={runner.address}"],
            env={**os.environ, "EVENT_TRIGGER_WORKER_LOG_DIR": logs},
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()
            for log in Path(logs).iterdir():
                if "Traceback" in (text := log.read_text()):
                    sys.stderr.write(text)


class Load:
    """Micro-batches of events of known users."""

    def __init__(self, shards: int) -> None:
        self._random = random.Random(7)
        self._offsets = itertools.count()
        self._shards = shards
        self._users: dict[int, list[bytes]] = {}
        for user in (b"user_%05d" % number for number in range(_USERS)):
            self._users.setdefault(shard_of(user, shards), []).append(user)

    def everybody(self) -> list[tuple[bytes, bytes]]:
        """An event of each user."""
        return [self._batch(users) for users in self._users.values()]

    def bundle(self, shape: Shape) -> list[tuple[bytes, bytes]]:
        """A bundle's micro-batches, shard by shard as often as ``batches`` says."""
        return [
            self._batch(self._random.choices(self._users[shard], k=shape.events))
            for _ in range(shape.batches)
            for shard in range(shape.shards)
        ]

    def _batch(self, users: list[bytes]) -> tuple[bytes, bytes]:
        now_ms = time.time_ns() // 1_000_000
        records = [
            Record(0, next(self._offsets), now_ms, user, event(user, now_ms, triggerable=self._random.random() < 0.1))
            for user in users
        ]
        return key_of(users[0], self._shards), encode_batch(EVENTS, "events", records)


def thread_cpu_s(pid: int) -> Counter[str]:
    """CPU seconds of each thread of a process."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            found[entry.name] = int((entry / "schedstat").read_text().split()[0]) / 1e9  # type: ignore[assignment]
    return found


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process, with those of threads that have ended."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)


@dataclass(frozen=True)
class Cost:
    """Of a bundle: CPU ms, those of the busiest thread among them; ms of the tail; state requests."""

    cpu_ms: float
    thread_ms: float
    tail_ms: float
    tail_p99_ms: float
    state_requests: float


def measured(shape: Shape, bundles: int, over_ms: float, without: str = "") -> Cost:
    """Run so many bundles of a shape."""
    load = Load(shape.shards)
    with Runner(shape.shards) as runner, worker(runner, without) as pid:
        runner.bundle(load.everybody())
        for _ in range(max(50, bundles // 5)):
            runner.bundle(load.bundle(shape))
        prepared = [load.bundle(shape) for _ in range(bundles)]
        requests, cpu_s, threads_s = runner.state_requests, process_cpu_s(pid), thread_cpu_s(pid)
        tails = sorted(runner.bundle(bundle, over_ms / 1e3) * 1e3 for bundle in prepared)
        return Cost(
            (process_cpu_s(pid) - cpu_s) / bundles * 1e3,
            max((thread_cpu_s(pid) - threads_s).values()) / bundles * 1e3,
            quantile(tails, 0.5),
            quantile(tails, 0.99),
            (runner.state_requests - requests) / bundles,
        )


def main() -> int:
    """Print a line a shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shapes",
        default="1x1x1,1x1x48,4x1x12,16x1x3,16x2x3",
        help="user shards, micro-batches of each, events of each",
    )
    parser.add_argument("--bundles", type=int, default=200)
    parser.add_argument("--over_ms", type=float, default=20, help="time within which a bundle's micro-batches come")
    parser.add_argument("--without", default="", help="overrides of Beam to leave out, separated by commas")
    arguments = parser.parse_args()
    names = [replacement.__name__ for replacement in OVERRIDES.values()]
    if {*filter(None, arguments.without.split(","))} - {*names}:
        parser.error(f"--without={arguments.without}; allowed: {', '.join(names)}")
    for text in arguments.shapes.split(","):
        shape = Shape(*map(int, text.split("x")))
        cost = measured(shape, arguments.bundles, arguments.over_ms, arguments.without)
        events = shape.shards * shape.batches * shape.events
        sys.stdout.write(
            f"{text:>8}: {cost.cpu_ms:6.2f} ms CPU a bundle ({cost.cpu_ms / events * 1e3:6.1f} µs an event), busiest "
            f"thread {cost.thread_ms:5.2f}; tail {cost.tail_ms:6.2f} ms, p99 {cost.tail_p99_ms:6.2f}; "
            f"{cost.state_requests:.1f} state requests\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
