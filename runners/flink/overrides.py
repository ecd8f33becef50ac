"""Every override of Beam internals, in one place, each with its reason.

They hold for exactly one Beam release: ``apply`` refuses another one, and a test compares ``fingerprints`` (hashes of
the source that is replaced or relied upon) with a committed list. Beam is imported inside the functions only, because
``without_cloud_clients`` has to act before that.
"""

import contextlib
import hashlib
import inspect
import sys
import threading
from collections.abc import Iterator
from typing import Any

from runners.flink.errors import LocalStackError

BEAM_VERSION = "2.70.0"

_CLOUD_CLIENTS = ("apitools", "boto3", "google.api_core", "google.auth", "google.cloud", "pymongo")
_DEPTH = 4
_LIST_SLOT = 8
_MOST_HANDLES = 1024
_BYTES_HEAD = sys.getsizeof(b"")


@contextlib.contextmanager
def without_cloud_clients() -> Iterator[None]:
    """Import Beam inside this block as if its cloud extras were not installed.

    Why: ``import apache_beam`` loads the clients of BigQuery, Pub/Sub, Storage, S3 and MongoDB if they are there. No
    worker of ours uses them. Without them the import took 1.4 s instead of 2.8 and the process 129 MB instead of 164.
    Beam supports their absence; afterwards they can be imported as usual.
    """
    # Some are there before anybody imports them: namespace packages, from .pth files.
    before = {name: sys.modules.get(name) for name in _CLOUD_CLIENTS}
    for name in before:
        sys.modules[name] = None  # type: ignore[assignment]  # makes the import statement raise ImportError
    try:
        yield
    finally:
        for name, module in before.items():
            if module is not None:
                sys.modules[name] = module
            else:
                sys.modules.pop(name, None)


def apply(*, any_version: bool = False) -> None:
    """Replace what is listed below, once for the process.

    Raises LocalStackError if Beam is not the release these overrides were written for, unless ``any_version``.
    """
    from apache_beam.runners.worker import bundle_processor, statecache, statesampler
    from apache_beam.version import __version__ as found

    if found != BEAM_VERSION and not any_version:
        raise LocalStackError(
            f"apache-beam: version {found} found, but the overrides of its internals are made for {BEAM_VERSION}; "
            "check runners/flink/overrides.py against the new source or set EVENT_TRIGGER_BEAM_OVERRIDES=off"
        )
    # Why: the state cache weighs a value on each write. Beam's own scale follows every reference, through the objects'
    # classes into all imported modules: 0.87 ms a write. Ours asks the objects, or looks at the surface.
    statecache.get_deep_size = cache_weight
    # Why: Beam waits for each state cell of a bundle in turn, a gRPC round trip each. All writes travel on one ordered
    # stream, so they can be issued first and awaited together.
    bundle_processor.FnApiUserStateContext.commit = commit_pipelined
    # Why: Beam makes the handle of each cell, with its key on the wire, anew for each bundle and key.
    bundle_processor.FnApiUserStateContext.reset = keep_handles
    # Why: Beam hands out a cached bag through two nested generators, 0.1 us an element on each read. A user shard's
    # journal has thousands of elements and is read for each micro-batch.
    bundle_processor.SynchronousBagRuntimeState.read = read_bag
    # Why: Beam sends every metric that a bundle processor ever touched with each bundle, 8 us of CPU apiece, nearly all
    # of them with an increase of 0. Ours sends those that the bundle touched.
    bundle_processor.BundleProcessor.reset = reset_processor
    # Why: to tell the time spent in each transform, Beam starts a thread for each bundle that looks every few
    # milliseconds, ever less often, and waits for it to wake up before the bundle may end: a tenth of the bundle's time
    # and a millisecond on average, twice that at most, while the events of the bundle wait. We have no use for the
    # times.
    statesampler.StateSampler.start = start_untimed
    statesampler.StateSampler.stop = stop_untimed
    # Why: with each bundle Beam tells these times, counts and sizes for each transform, 30 metrics beside ours, which
    # the worker encodes and the TaskManager looks up by name twice.
    bundle_processor.BundleProcessor.monitoring_infos = own_metrics


def cache_weight(*values: Any) -> int:
    """Bytes that values take in the state cache, never less than 1; replaces ``statecache.get_deep_size``.

    An object with a method ``cache_weight()`` is believed. So is, for a whole bag, its first element if that has a
    method ``cache_weight_of_bag()``: a bag is weighed on each write, and this does not grow with its length. Otherwise
    strings count their length, lists, tuples, sets and dicts what they hold down to a few levels, and anything else
    its own size without what it refers to.
    """
    return max(1, sum(_weight(value, _DEPTH) for value in values))


def _weight(value: Any, depth: int) -> int:
    kind = type(value)
    if kind is bytes:
        return len(value) + _BYTES_HEAD
    own = getattr(value, "cache_weight", None)
    if own is not None:
        return int(own())
    if depth > 0:
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            if kind is list and value and (whole := getattr(value[0], "cache_weight_of_bag", None)) is not None:
                return int(whole())
            weight = 64
            for element in value:
                # Inline for the common case, a bag of entries: it is weighed whole on each write.
                if type(element) is bytes:
                    weight += len(element) + _BYTES_HEAD + _LIST_SLOT
                elif (own := getattr(element, "cache_weight", None)) is not None:
                    weight += own() + _LIST_SLOT
                else:
                    weight += _weight(element, depth - 1) + _LIST_SLOT
            return weight
        if kind is dict:
            return 64 + sum(_weight(key, depth - 1) + _weight(held, depth - 1) for key, held in value.items())
        if hasattr(value, "get_referents_for_cache"):  # Beam's CacheAware: a large side input's first page
            return 64 + sum(_weight(held, depth - 1) for held in value.get_referents_for_cache())
    return sys.getsizeof(value, 64)


def commit_pipelined(context: Any) -> None:
    """Commit all state of a bundle; replaces ``FnApiUserStateContext.commit``.

    As in Beam, cells are written in the order of their first use, and a cleared cell is cleared before its new elements
    are appended; the runner handles requests in the order sent. Sets and ordered lists commit themselves, as before.

    Beam drops the runner's answer; here RuntimeError is raised with the runner's message for a write that failed, and
    the stream's exception if it broke, so that the bundle fails instead of losing state or waiting for ever.
    """
    from apache_beam.runners.worker.bundle_processor import SynchronousBagRuntimeState

    issued = []
    for state in context._all_states.values():
        # ValueState and CombiningState are a bag underneath.
        bag = getattr(state, "_underlying_bag_state", state)
        if type(bag) is not SynchronousBagRuntimeState:
            state.commit()
            continue
        handler, key = bag._state_handler, bag._state_key
        if bag._cleared:
            issued.append((handler, key, handler.clear(key)))
        if bag._added_elements:
            future = handler.extend(key, bag._value_coder.get_impl(), bag._added_elements)
            issued.append((handler, key, future))
    for handler, key, future in issued:
        _await(handler, key, future)


def keep_handles(context: Any) -> None:
    """Make the state of a bundle ready for the next one; replaces ``FnApiUserStateContext.reset``.

    As in Beam, but handles of bags and values are kept, unless there are many: with a key a user they would pile up.
    """
    from apache_beam.runners.worker.bundle_processor import ReadModifyWriteRuntimeState, SynchronousBagRuntimeState

    kept = {}
    for name, state in context._all_states.items():
        state.finalize()
        bag = state._underlying_bag_state if type(state) is ReadModifyWriteRuntimeState else state
        if type(bag) is SynchronousBagRuntimeState:
            bag._cleared, bag._added_elements = False, []
            kept[name] = state
    context._all_states = kept if len(kept) <= _MOST_HANDLES else {}


def read_bag(bag: Any) -> Any:
    """A bag's elements; replaces ``SynchronousBagRuntimeState.read``.

    As in Beam, what was there before and then what this bundle added. Where the cache holds all of it that is the
    cached list itself, not a copy: it must not be changed.
    """
    stored = [] if bag._cleared else bag._state_handler.blocking_get(bag._state_key, bag._value_coder.get_impl())
    if type(stored) is not list:
        stored = list(stored)
    return stored + bag._added_elements if bag._added_elements else stored


def reset_processor(processor: Any) -> None:
    """Make a bundle processor ready for its next bundle; replaces ``BundleProcessor.reset``.

    As in Beam, but metrics are dropped instead of set to zero: a metric is made anew when it is next touched. Runners
    add up what bundles tell, so that one that is not told is one that did not change.
    """
    processor.counter_factory.reset()
    processor.state_sampler.reset()
    for operation in processor.ops.values():
        operation.reset()
        operation.metrics_container.metrics.clear()


def start_untimed(sampler: Any) -> None:
    """Make a bundle's sampler the thread's, which metrics go through; replaces ``StateSampler.start``.

    As in Beam, but without the thread that samples: all times stay 0.
    """
    from apache_beam.runners.worker import statesampler

    sampler.tracked_thread = threading.current_thread()
    statesampler.set_current_tracker(sampler)
    sampler.started = True


def stop_untimed(sampler: Any) -> None:
    """Take the sampler from the thread; replaces ``StateSampler.stop``, which waits for the thread that samples."""
    from apache_beam.runners.worker import statesampler

    statesampler.set_current_tracker(None)
    sampler.finished = True


def own_metrics(processor: Any) -> list[Any]:
    """What a bundle tells the runner; replaces ``BundleProcessor.monitoring_infos``.

    As in Beam, but only metrics that steps count themselves, not those of Beam about each transform and PCollection.
    """
    return [
        told
        for transform_id, operation in processor.ops.items()
        for told in operation.user_monitoring_infos(transform_id).values()
    ]


def _await(handler: Any, key: Any, future: Any) -> None:
    stream = getattr(handler, "_underlying", None)
    while not future.wait(timeout=1):
        # A broken stream never answers; its reader thread leaves the reason on the handler.
        broken = getattr(stream, "_exception", None)
        if broken is not None:
            raise broken
        if getattr(stream, "_done", False):
            raise RuntimeError("state: the harness shut down before a write was confirmed")
    response = future.get()
    if response is not None and response.error:
        cell = key.bag_user_state
        raise RuntimeError(f"state {cell.user_state_id!r} of {cell.transform_id!r}: write failed: {response.error}")


def fingerprints() -> dict[str, str]:
    """Hashes of the Beam source that is replaced or relied upon, by name."""
    from apache_beam.runners.worker import bundle_processor, sdk_worker, sdk_worker_main, statecache, statesampler

    relied_upon = (
        statecache.get_deep_size,
        statecache.WeightedValue,
        statecache.StateCache,
        bundle_processor.FnApiUserStateContext,
        bundle_processor.SynchronousBagRuntimeState,
        bundle_processor.ReadModifyWriteRuntimeState,
        bundle_processor.CombiningValueRuntimeState,
        bundle_processor.BundleProcessor.reset,
        bundle_processor.BundleProcessor.monitoring_infos,
        bundle_processor.BundleProcessor.process_bundle,
        statesampler.StateSampler,
        sdk_worker.GlobalCachingStateHandler,
        sdk_worker.GrpcStateHandler,
        sdk_worker._Future,
        sdk_worker._DeferredCall,
        sdk_worker_main.create_harness,
        sdk_worker_main.main,
    )
    return {
        f"{part.__module__.rpartition('.')[2]}.{part.__qualname__}": hashlib.sha256(
            inspect.getsource(part).encode()
        ).hexdigest()[:16]
        for part in relied_upon
    }
