from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam import coders
from apache_beam.metrics import Metrics, monitoring_infos
from apache_beam.metrics.execution import MetricsContainer
from apache_beam.metrics.metricbase import MetricName
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.common import NameContext
from apache_beam.runners.worker import bundle_processor, operations, sdk_worker, statecache, statesampler
from apache_beam.transforms import combiners, userstate, window
from apache_beam.utils.counters import CounterFactory

from runners.flink import overrides as beam_overrides
from runners.flink.errors import LocalStackError
from tests.overridden import overridden

# Beam's source that the overrides replace or rely upon, in 2.70.0. When this fails after an upgrade, compare the old
# and the new source of what changed, adapt beam_overrides.py, and only then these hashes.
SOURCE = {
    "statecache.get_deep_size": "da557bd7faffc13f",
    "statecache.WeightedValue": "edb8e7c733088c84",
    "statecache.StateCache": "8a67e40b941bd833",
    "bundle_processor.FnApiUserStateContext": "febd15312c4d2c3d",
    "bundle_processor.SynchronousBagRuntimeState": "975ad68a8d234d0a",
    "bundle_processor.ReadModifyWriteRuntimeState": "106f3652278f83e6",
    "bundle_processor.CombiningValueRuntimeState": "dc6ab56c662eeb68",
    "bundle_processor.BundleProcessor.reset": "369c1884af108ef0",
    "bundle_processor.BundleProcessor.monitoring_infos": "c36b13616451ab42",
    "bundle_processor.BundleProcessor.process_bundle": "6a41161ebe7eade4",
    "statesampler.StateSampler": "6f6bff93c4d9c0c0",
    "sdk_worker.GlobalCachingStateHandler": "0c95878795be5883",
    "sdk_worker.GrpcStateHandler": "d03e89160a6eba13",
    "sdk_worker._Future": "67a5534e1bd2e614",
    "sdk_worker._DeferredCall": "866a0bdfdc0257ea",
    "sdk_worker_main.create_harness": "2ee8acdb08bc1b6b",
    "sdk_worker_main.main": "fea9481fce5034ee",
}


def test_beam_is_what_the_overrides_were_written_for() -> None:
    assert beam_overrides.fingerprints() == SOURCE


@pytest.fixture
def applied() -> Iterator[None]:
    with overridden():
        yield


def test_another_beam_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apache_beam.version.__version__", "2.71.0")
    with pytest.raises(LocalStackError, match=r"version 2\.71\.0 found, .*made for 2\.70\.0.*OVERRIDES=off"):
        beam_overrides.apply()


@pytest.mark.usefixtures("applied")
def test_another_beam_is_taken_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apache_beam.version.__version__", "2.71.0")
    beam_overrides.apply(any_version=True)


def test_the_cloud_clients_are_not_imported_and_stay_importable() -> None:
    code = (
        "import sys\n"
        "from runners.flink.overrides import without_cloud_clients\n"
        "with without_cloud_clients():\n"
        "    import apache_beam.runners.worker.sdk_worker_main\n"
        "clients = ('google.cloud.', 'google.auth', 'boto3', 'pymongo')\n"
        "assert not [name for name in sys.modules if name.startswith(clients)]\n"
        "import boto3, google.cloud.storage\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Weights


class Head:
    def cache_weight(self) -> int:
        return 5_000


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (b"x" * 1000, 1000, 1100),
        ("x" * 1000, 1000, 1100),
        ([b"x" * 1000] * 10, 10_000, 11_000),
        ([Head(), b"x" * 1000], 6_000, 6_300),
        ((Head(), [Head()]), 10_000, 10_300),
        ({"a": b"x" * 1000}, 1000, 1300),
        ([], 1, 100),
        (None, 1, 100),
        (0, 1, 100),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_weight_is_about_what_is_held(value: Any, least: int, most: int) -> None:
    assert least <= beam_overrides.cache_weight(value) <= most


def test_weighing_does_not_follow_references_into_modules_or_cycles() -> None:
    loop: list[Any] = [sys]
    loop.append(loop)
    assert beam_overrides.cache_weight(loop, sys, subprocess.Popen) < 10_000


def test_the_first_element_may_speak_for_the_whole_bag() -> None:
    head = SimpleNamespace(cache_weight_of_bag=lambda: 700, cache_weight=lambda: 5)
    assert beam_overrides.cache_weight([head, b"x" * 1000]) == 700
    assert beam_overrides.cache_weight([b"x" * 1000, head]) > 1000


def test_an_object_is_believed_even_if_it_says_nothing() -> None:
    assert beam_overrides.cache_weight(SimpleNamespace(cache_weight=lambda: 0)) == 1


@pytest.mark.usefixtures("applied")
def test_the_cache_evicts_by_the_weight_that_objects_report() -> None:
    cache = statecache.StateCache(12_000)
    for key in ("a", "b", "c"):
        cache.put(key, [Head()])
    assert [cache.peek(key) is not None for key in ("a", "b", "c")] == [False, True, True]


@pytest.mark.usefixtures("applied")
def test_an_entry_that_grew_is_weighed_again() -> None:
    cache = statecache.StateCache(12_000)
    bag: list[Any] = [Head()]
    cache.put("bag", bag)
    cache.put("other", [Head()])
    bag.append(Head())
    cache.put("bag", bag)
    assert cache.peek("other") is None
    assert cache.peek("bag") is bag


# Commits

VALUE = userstate.ReadModifyWriteStateSpec("value", coders.BytesCoder())


class Runner:
    """Beam's gRPC state stub, answering on its own thread: records requests; answers only those it is told to."""

    def __init__(self) -> None:
        self.requests: list[beam_fn_api_pb2.StateRequest] = []
        self.arrived = threading.Condition()
        self.answer_after = 1
        self.errors: dict[str, str] = {}
        self.broken: Exception | None = None

    def State(self, requests: Iterator[Any]) -> Iterator[Any]:  # noqa: N802  # gRPC's name
        waiting = []
        for request in requests:
            with self.arrived:
                self.requests.append(request)
                self.arrived.notify_all()
            waiting.append(request)
            if self.broken:
                raise self.broken
            if len(self.requests) >= self.answer_after:
                for asked in waiting:
                    error = self.errors.get(asked.state_key.bag_user_state.user_state_id, "")
                    yield beam_fn_api_pb2.StateResponse(id=asked.id, error=error)
                waiting = []

    def log(self) -> list[tuple[str, str, bytes]]:
        return [
            (
                request.state_key.bag_user_state.user_state_id,
                request.WhichOneof("request"),
                request.append.data if request.HasField("append") else b"",
            )
            for request in self.requests
        ]


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def context(runner: Runner, applied: None) -> Iterator[Any]:
    """The real state context of a bundle, over Beam's real state handlers, with the cache on."""
    grpc_handler = sdk_worker.GrpcStateHandler(runner)
    handler = sdk_worker.GlobalCachingStateHandler(statecache.StateCache(1 << 20), grpc_handler)
    token = beam_fn_api_pb2.ProcessBundleRequest.CacheToken(
        user_state=beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState(), token=b"t"
    )
    with handler.process_instruction_id("bundle", [token]):
        yield bundle_processor.FnApiUserStateContext(
            handler, "Stage", coders.BytesCoder(), window.GlobalWindows().get_window_coder()
        )
    grpc_handler.done()


def bag(context: Any, name: str, key: bytes = b"k") -> Any:
    return context.get_state(userstate.BagStateSpec(name, coders.BytesCoder()), key, window.GlobalWindow())


def value(context: Any, name: str, key: bytes = b"k") -> Any:
    spec = userstate.ReadModifyWriteStateSpec(name, coders.BytesCoder())
    return context.get_state(spec, key, window.GlobalWindow())


def test_all_writes_are_sent_before_the_first_is_awaited(context: Any, runner: Runner) -> None:
    runner.answer_after = 4  # Beam's own commit would wait for ever for the first answer
    bag(context, "a").add(b"1")
    value(context, "b").write(b"2")
    bag(context, "c").add(b"3")
    context.commit()
    assert runner.log() == [
        ("a", "append", b"\x011"),
        ("b", "clear", b""),
        ("b", "append", b"\x012"),
        ("c", "append", b"\x013"),
    ]


def test_a_cleared_bag_is_cleared_before_its_new_elements_are_appended(context: Any, runner: Runner) -> None:
    journal = bag(context, "journal")
    journal.add(b"forgotten")
    journal.clear()
    journal.add(b"s")
    journal.add(b"e")
    context.commit()
    assert runner.log() == [("journal", "clear", b""), ("journal", "append", b"\x01s\x01e")]


def test_a_bag_that_is_only_cleared_is_cleared(context: Any, runner: Runner) -> None:
    bag(context, "journal").clear()
    context.commit()
    assert runner.log() == [("journal", "clear", b"")]


def test_what_was_only_read_or_not_touched_is_not_written(context: Any, runner: Runner) -> None:
    bag(context, "journal")
    assert list(bag(context, "other").read()) == []
    context.commit()
    assert [(name, kind) for name, kind, _ in runner.log()] == [("other", "get")]


def test_the_cache_keeps_the_same_objects_that_were_added(context: Any) -> None:
    bag(context, "journal").clear()
    element = b"an entry"
    bag(context, "journal").add(element)
    context.commit()
    context.reset()
    (cached,) = bag(context, "journal").read()
    assert cached is element


def test_handles_are_used_again_and_know_nothing_of_the_bundle_before(context: Any, runner: Runner) -> None:
    specs = [userstate.BagStateSpec("bag", coders.BytesCoder()), VALUE]
    bundles = []
    for _ in range(2):
        one, other = (context.get_state(spec, b"k", window.GlobalWindow()) for spec in specs)
        one.clear()
        one.add(b"1")
        other.write(b"2")
        context.commit()
        bundles.append((one, other))
        context.reset()
    assert bundles[0] == bundles[1]
    context.commit()
    assert len(runner.log()) == 8
    assert list(bundles[1][0].read()) == [b"1"]
    assert bundles[1][1].read() == b"2"


def test_handles_of_very_many_keys_are_let_go(context: Any) -> None:
    for number in range(1025):
        context.get_state(VALUE, b"%d" % number, window.GlobalWindow())
    context.reset()
    assert context._all_states == {}


def test_a_combining_state_is_made_anew(context: Any) -> None:
    spec = userstate.CombiningValueStateSpec("count", coders.VarIntCoder(), combiners.CountCombineFn())
    first = context.get_state(spec, b"k", window.GlobalWindow())
    context.reset()
    assert context.get_state(spec, b"k", window.GlobalWindow()) is not first


def test_a_combining_state_is_committed(context: Any, runner: Runner) -> None:
    spec = userstate.CombiningValueStateSpec("count", coders.VarIntCoder(), combiners.CountCombineFn())
    context.get_state(spec, b"k", window.GlobalWindow()).add("x")
    context.commit()
    assert runner.log()[-1] == ("count", "append", b"\x01")


def test_a_set_state_is_committed(context: Any, runner: Runner) -> None:
    spec = userstate.SetStateSpec("set", coders.BytesCoder())
    state = context.get_state(spec, b"k", window.GlobalWindow())
    state.clear()
    state.add(b"x")
    bag(context, "after").add(b"y")
    context.commit()
    assert runner.log()[-2:] == [("set", "append", b"\x01x"), ("after", "append", b"\x01y")]


@pytest.mark.parametrize("failing", ["first", "last"])
def test_a_failed_write_fails_the_bundle(context: Any, runner: Runner, failing: str) -> None:
    runner.errors = {failing: "disk full"}
    bag(context, "first").add(b"1")
    bag(context, "last").add(b"2")
    with pytest.raises(RuntimeError, match=f"state '{failing}' of 'Stage': write failed: disk full"):
        context.commit()


def test_a_failed_clear_fails_the_bundle(context: Any, runner: Runner) -> None:
    runner.errors = {"journal": "disk full"}
    bag(context, "journal").clear()
    with pytest.raises(RuntimeError, match="write failed: disk full"):
        context.commit()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_stream_fails_the_bundle_instead_of_hanging(context: Any, runner: Runner) -> None:
    runner.broken = ConnectionError("stream is gone")
    bag(context, "journal").add(b"1")
    with pytest.raises(ConnectionError, match="stream is gone"):
        context.commit()


def test_an_element_that_cannot_be_encoded_fails_the_bundle(context: Any) -> None:
    bag(context, "journal").add("not bytes")
    with pytest.raises(TypeError):
        context.commit()


# Metrics


def test_a_bundle_tells_the_metrics_that_it_touched_and_no_others() -> None:
    operation = SimpleNamespace(metrics_container=MetricsContainer("step"))
    operation.reset = operation.metrics_container.reset
    processor = SimpleNamespace(
        ops={"step": operation}, counter_factory=CounterFactory(), state_sampler=SimpleNamespace(reset=lambda: None)
    )
    container = operation.metrics_container
    first, second = MetricName("ours", "first"), MetricName("ours", "second")
    container.get_counter(first).inc(3)
    container.get_gauge(second).set(7)

    beam_overrides.reset_processor(processor)
    assert container.to_runner_api_monitoring_infos("step") == {}

    container.get_counter(first).inc(2)
    (told,) = container.to_runner_api_monitoring_infos("step").values()
    assert told.labels["NAME"] == "first"
    assert monitoring_infos.extract_counter_value(told) == 2


class CountingOperation(operations.Operation):
    """An operation with a metric of ours, beside those that Beam has of each."""

    def __init__(self, sampler: statesampler.StateSampler, counters: CounterFactory) -> None:
        super().__init__(NameContext("step"), None, counters, sampler)

    def count(self) -> None:
        with self.scoped_process_state:
            Metrics.counter("ours", "seen").inc(5)


@pytest.fixture
def processor() -> Any:
    counters = CounterFactory()
    sampler = statesampler.StateSampler("bundle", counters)
    operation = CountingOperation(sampler, counters)
    descriptor = SimpleNamespace(transforms={"step": SimpleNamespace(outputs={})})
    return SimpleNamespace(
        ops={"step": operation}, counter_factory=counters, state_sampler=sampler, process_bundle_descriptor=descriptor
    )


@pytest.mark.usefixtures("applied")
def test_a_bundle_tells_our_metrics_and_none_of_beams(processor: Any) -> None:
    for _ in range(2):  # a processor is used again
        threads = threading.active_count()
        processor.state_sampler.start()
        assert threading.active_count() == threads
        processor.ops["step"].count()
        processor.state_sampler.stop_if_still_running()
        processor.state_sampler.stop_if_still_running()  # as after an error
        assert statesampler.get_current_tracker() is None

        (told,) = bundle_processor.BundleProcessor.monitoring_infos(processor)
        assert told.labels["NAME"] == "seen"
        assert told.labels["PTRANSFORM"] == "step"
        assert monitoring_infos.extract_counter_value(told) == 5
        bundle_processor.BundleProcessor.reset(processor)


def test_beam_itself_tells_more(processor: Any) -> None:
    processor.state_sampler.start()
    processor.ops["step"].count()
    processor.state_sampler.stop_if_still_running()
    told = bundle_processor.BundleProcessor.monitoring_infos(processor)
    assert len(told) == 5  # ours, and four times of the step
