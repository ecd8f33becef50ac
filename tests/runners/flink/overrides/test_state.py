from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam import coders
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import bundle_processor, sdk_worker, statecache
from apache_beam.transforms import combiners, userstate, window

VALUE = userstate.ReadModifyWriteStateSpec("value", coders.BytesCoder())


class Runner:
    """Beam's gRPC state stub: records requests and answers once ``answer_after`` have arrived, on its own thread."""

    def __init__(self) -> None:
        self.requests: list[beam_fn_api_pb2.StateRequest] = []
        self.arrived = threading.Condition()
        self.answer_after = 1
        self.errors: dict[str, str] = {}
        self.broken: Exception | None = None

    def State(self, requests: Iterator[Any]) -> Iterator[Any]:  # noqa: N802  # gRPC's name
        unanswered = []
        for request in requests:
            with self.arrived:
                self.requests.append(request)
                self.arrived.notify_all()
            unanswered.append(request)
            if self.broken:
                raise self.broken
            if len(self.requests) >= self.answer_after:
                for waiting in unanswered:
                    error = self.errors.get(waiting.state_key.bag_user_state.user_state_id, "")
                    yield beam_fn_api_pb2.StateResponse(id=waiting.id, error=error)
                unanswered = []

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


def test_cells_that_were_only_read_or_not_used_are_not_written(context: Any, runner: Runner) -> None:
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


def test_handles_are_reused_without_the_state_of_the_last_bundle(context: Any, runner: Runner) -> None:
    specs = [userstate.BagStateSpec("bag", coders.BytesCoder()), VALUE]
    bundles = []
    for _ in range(2):
        cell, other = (context.get_state(spec, b"k", window.GlobalWindow()) for spec in specs)
        cell.clear()
        cell.add(b"1")
        other.write(b"2")
        context.commit()
        bundles.append((cell, other))
        context.reset()
    assert bundles[0] == bundles[1]
    context.commit()
    assert len(runner.log()) == 8
    assert list(bundles[1][0].read()) == [b"1"]
    assert bundles[1][1].read() == b"2"


def test_handles_of_very_many_keys_are_dropped(context: Any) -> None:
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
