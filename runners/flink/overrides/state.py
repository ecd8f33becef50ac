"""User state costs fewer round trips and fewer objects."""

from typing import Any

_MAX_HANDLES = 1024


def commit_pipelined(context: Any) -> None:
    """Commit all state of a bundle: send every write, then await every answer.

    As in Beam, cells are written in the order of their first use, and a cleared cell is cleared before its new elements
    are appended; the runner handles requests in the order sent. Sets and ordered lists commit themselves, as in Beam.

    Beam drops the runner's answer. This function raises RuntimeError with the runner's message for a write that failed,
    and the stream's exception if the stream broke, so that the bundle fails instead of losing state or hanging.

    Why: Beam awaits each cell of a bundle in turn, a gRPC round trip each. All writes travel on one ordered stream.

    Gain: 12.2 instead of 13.2 ms of CPU for a bundle of 16 user shards; 1.8 thousand events/s instead of 1.5 with a
    state cell for each user.
    """
    from apache_beam.runners.worker.bundle_processor import SynchronousBagRuntimeState

    writes = []
    for state in context._all_states.values():
        # ValueState and CombiningState are a bag underneath.
        bag = getattr(state, "_underlying_bag_state", state)
        if type(bag) is not SynchronousBagRuntimeState:
            state.commit()
            continue
        handler, key = bag._state_handler, bag._state_key
        if bag._cleared:
            writes.append((handler, key, handler.clear(key)))
        if bag._added_elements:
            future = handler.extend(key, bag._value_coder.get_impl(), bag._added_elements)
            writes.append((handler, key, future))
    for handler, key, future in writes:
        _await(handler, key, future)


def _await(handler: Any, key: Any, future: Any) -> None:
    stream = getattr(handler, "_underlying", None)
    while not future.wait(timeout=1):
        # A broken stream never answers; its reader thread leaves the reason on the handler.
        error = getattr(stream, "_exception", None)
        if error is not None:
            raise error
        if getattr(stream, "_done", False):
            raise RuntimeError("state: the harness shut down before a write was confirmed")
    response = future.get()
    if response is not None and response.error:
        cell = key.bag_user_state
        raise RuntimeError(f"state {cell.user_state_id!r} of {cell.transform_id!r}: write failed: {response.error}")


def keep_handles(context: Any) -> None:
    """Make the state of a bundle ready for the next bundle, with the same handles of bags and values.

    More than ``_MAX_HANDLES`` handles are dropped, as Beam drops all: with a key a user they would accumulate.

    Why: Beam makes the handle of each cell, with its encoded key, anew for each bundle and key.

    Gain: 11.3 instead of 12.0 ms of CPU for a bundle of 16 user shards, and 11.3 instead of 12.3 ms from its last byte
    of input to its answer (docs/performance.md).
    """
    from apache_beam.runners.worker.bundle_processor import ReadModifyWriteRuntimeState, SynchronousBagRuntimeState

    kept = {}
    for name, state in context._all_states.items():
        state.finalize()
        bag = state._underlying_bag_state if type(state) is ReadModifyWriteRuntimeState else state
        if type(bag) is SynchronousBagRuntimeState:
            bag._cleared, bag._added_elements = False, []
            kept[name] = state
    context._all_states = kept if len(kept) <= _MAX_HANDLES else {}


def read_bag(bag: Any) -> Any:
    """The elements of a bag: those stored, then those added in this bundle.

    If the cache holds all of them and the bundle added none, this is the cached list itself. Callers must not change
    it.

    Why: Beam hands out a cached bag through two nested generators. A user shard's journal has thousands of elements and
    is read for each micro-batch.

    Gain: a bag of 5,000 elements is read in 0.39 ms instead of 0.77.
    """
    stored = [] if bag._cleared else bag._state_handler.blocking_get(bag._state_key, bag._value_coder.get_impl())
    if type(stored) is not list:
        stored = list(stored)
    return stored + bag._added_elements if bag._added_elements else stored
