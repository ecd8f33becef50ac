"""An SDK harness around ``HandleEvents``: Beam's own state cache and state cells, the runner's side in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from apache_beam.coders import coder_impl
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker import bundle_processor, sdk_worker, statecache
from apache_beam.utils.timestamp import Timestamp

from tests.builders import Elements, control
from tests.oracle import SeenAction
from tests.waiting import eventually
from transforms.adapters.user_api import fetch_pool
from transforms.domain.events.micro_batch import encode_batch
from transforms.domain.events.record import decode_produced
from transforms.domain.shard.journal import Journal
from transforms.domain.shard.shard_state import ShardState
from transforms.handle_events import ACTIONS, HandleSettings, _HandleFn


def wait_for_answers(pool: fetch_pool.FetchPool) -> None:
    """Return when the user API has answered all requests of the pool; fails after 10 s."""
    eventually(lambda: len(pool._ended) == len(pool._calls), "every request is answered", 10, 0.001)


class StoredState:
    """The runner's side of the state API: bytes by cell."""

    def __init__(self) -> None:
        self.cells: dict[bytes, bytes] = {}

    @contextmanager
    def process_instruction_id(self, _: str) -> Iterator[None]:
        yield

    def get_raw(self, state_key: Any, _: bytes | None = None) -> tuple[bytes, None]:
        return self.cells.get(state_key.SerializeToString(), b""), None

    def append_raw(self, state_key: Any, data: bytes) -> Any:
        name = state_key.SerializeToString()
        self.cells[name] = self.cells.get(name, b"") + data
        return done()

    def clear(self, state_key: Any) -> Any:
        self.cells.pop(state_key.SerializeToString(), None)
        return done()


def done() -> Any:
    future = sdk_worker._Future()
    future.set(beam_fn_api_pb2.StateResponse())
    return future


class Timer:
    """What a timer is set to within a bundle, ms."""

    def __init__(self) -> None:
        self.changed = False
        self.due_ms: int | None = None

    def set(self, due: Timestamp) -> None:
        self.changed, self.due_ms = True, due.micros // 1000

    def clear(self) -> None:
        self.changed, self.due_ms = True, None


class FailedBundleError(Exception):
    pass


class Harness:
    """Runs DoFn instances over one key as the SDK harness does: real state cache, commits, timers that count then."""

    def __init__(self, settings: HandleSettings) -> None:
        self.settings = settings
        self.stored = StoredState()
        self.key = b"key"
        self.token = 0
        self.now_ms = 10_000
        self.due: dict[str, int | None] = {"idle": None, "pending": None, "stream": None}
        self.outputs: list[Any] = []
        self.restore()

    def restore(self) -> None:
        """Restore as after a failure of the job: only bytes are left, and the cache token is new."""
        self.token += 1
        self.cache = statecache.StateCache(100 << 20)
        self.handler = sdk_worker.GlobalCachingStateHandler(self.cache, self.stored)

    def instance(self) -> _HandleFn:
        fn = _HandleFn(self.settings, lambda: self.now_ms)
        fn.setup()
        return fn

    def bundle(self, fn: _HandleFn, *batches: Any, timer: str | None = None, fail: bool = False) -> None:
        token = beam_fn_api_pb2.ProcessBundleRequest.CacheToken(
            user_state=beam_fn_api_pb2.ProcessBundleRequest.CacheToken.UserState(), token=b"%d" % self.token
        )
        with self.handler.process_instruction_id("bundle", [token]):
            journals = [
                self._bag("journal_v1", _HandleFn.JOURNAL.coder),
                self._bag("journal_v2", _HandleFn.JOURNAL_2.coder),
            ]
            meta = userstate_of(self._bag("meta_v1", _HandleFn.META.coder))
            timers = {"idle": Timer(), "pending": Timer(), "stream": Timer()}
            outputs: list[Any] = []
            fn.start_bundle()
            if timer is not None:
                due_ms, self.due[timer] = self.due[timer], None
                if timer == "stream":
                    due = Timestamp(micros=(due_ms or 0) * 1000)
                    outputs += fn.on_stream(*journals, meta, *timers.values(), due, key=self.key)
                else:
                    fire = fn.on_idle if timer == "idle" else fn.on_pending
                    outputs += fire(*journals, meta, *timers.values(), key=self.key)
            for batch in batches:
                payload = encode_batch(batch.kind, batch.topic, batch.records)
                process: Any = fn.process
                outputs += process((self.key, payload), *journals, meta, *timers.values())
            if fail:
                self.restore()  # a bundle that fails is the job's failure
                return
            fn.finish_bundle()
            for cell in (*journals, meta):
                cell.commit()
        self.outputs += outputs
        for name, set_timer in timers.items():
            self.due[name] = set_timer.due_ms if set_timer.changed else self.due[name]

    def fire_pending(self, fn: _HandleFn) -> None:
        """Let the user API answer, then fire the timer that polls for the answers."""
        due = self.due["pending"]
        assert due is not None, "no pending timer is set"
        wait_for_answers(fn._services.fetch_pool)
        self.now_ms = max(self.now_ms, due)
        self.bundle(fn, timer="pending")

    def folded_state(self, history_size: int) -> ShardState:
        """The stored journal, folded anew."""
        cells = []
        for name in ("journal_v1", "journal_v2"):
            stored, elements = self.stored.get_raw(self._key(name))[0], []
            stream = coder_impl.create_InputStream(stored)
            while stream.size():
                elements.append(_HandleFn.JOURNAL.coder.get_impl().decode_from_stream(stream, True))
            cells.append(Elements(elements))
        return Journal(cells, history_size).folded.state

    def state(self, fn: _HandleFn, user: str = "u1") -> dict[str, Any]:
        before = len(self.outputs)
        self.bundle(fn, control({"inspect": user}))
        (inspection,) = self.outputs[before:]
        del self.outputs[before:]
        document: dict[str, Any] = orjson.loads(decode_produced(inspection.value).value)
        return document

    def actions(self) -> list[SeenAction]:
        produced = [decode_produced(output.value) for output in self.outputs if output.tag == ACTIONS]
        return [SeenAction.of_kafka(record.value, record.headers) for record in produced]

    def _bag(self, name: str, coder: Any) -> Any:
        return bundle_processor.SynchronousBagRuntimeState(self.handler, self._key(name), coder)

    def _key(self, name: str) -> Any:
        return beam_fn_api_pb2.StateKey(
            bag_user_state=beam_fn_api_pb2.StateKey.BagUserState(transform_id="t", user_state_id=name, key=b"key")
        )


def userstate_of(bag: Any) -> Any:
    return bundle_processor.ReadModifyWriteRuntimeState(bag)
