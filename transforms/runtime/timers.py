"""When the timers of a shard fire: pure functions for the times, and the timers that are set to them."""

from __future__ import annotations

from typing import Any, Final

from apache_beam.utils.timestamp import Timestamp

from transforms.adapters.telemetry.metrics import PUBLISH_EVERY_MS
from transforms.domain.shard.shard_state import ShardState
from transforms.domain.shard.step import idle_due_ms
from transforms.runtime.settings import HandleSettings
from transforms.runtime.shard_memory import ShardMemory

_SCHEMA_VERSION: Final = 1
_MAX_DOUBLINGS: Final = 4
# A shard with events publishes its sizes every second without a timer; without events it needs one last timer.
_PUBLISH_LAST_MS: Final = 5 * PUBLISH_EVERY_MS


def idle_timer_ms(due_ms: int | None, set_ms: int | None, now_ms: int, tick_ms: int) -> int | None:
    """The new time of the idle timer; None leaves it as it is.

    Users whose TTL ends within the same tick are swept together, so that not each of them costs a timer.

    Args:
        due_ms: when the TTL of the longest idle user ends, if there are users.
        set_ms: what the timer is set to, if it is.
        now_ms: processing time.
        tick_ms: the step by which users are swept.
    """
    if due_ms is None or (set_ms is not None and set_ms <= due_ms + tick_ms):
        return None
    return max(due_ms, now_ms) + tick_ms


def stream_timer_ms(due_ms: int | None, set_ms: int | None, tick_ms: int) -> int | None:
    """The new time of the stream timer, the first tick after ``due_ms``; None leaves it as it is."""
    if due_ms is None or (set_ms is not None and set_ms <= due_ms + tick_ms):
        return None
    return due_ms + tick_ms - due_ms % tick_ms


def next_poll_ms(now_ms: int, every_ms: int, empty_polls: int) -> int:
    """The time of the next poll: the pause doubles with each empty poll, up to 16 times ``every_ms``."""
    return now_ms + (every_ms << min(empty_polls, _MAX_DOUBLINGS))


def pending_timer_ms(
    clock_due_ms: int | None, memory: ShardMemory, settings: HandleSettings, now_ms: int
) -> int | None:
    """The new time of the pending timer; None leaves it as it is.

    The timer wakes the shard for the next poll of fetches and deliveries, the next attempt of a webhook, the end of
    quiet hours, and the sizes that are not published yet.

    Args:
        clock_due_ms: when the state has something due by processing time.
        memory: what is in flight, and what the timer is set to.
        settings: the pauses between polls.
        now_ms: processing time.
    """
    due_ms = clock_due_ms
    if memory.fetch_started_ms:
        due_ms = _earlier(due_ms, next_poll_ms(now_ms, settings.fetch_poll_ms, memory.empty_fetch_polls))
    # Only the user's next webhook waits for a delivery result, so polls for these may be rarer.
    poll_ms = next_poll_ms(now_ms, settings.delivery_poll_ms, memory.empty_delivery_polls)
    if memory.outbox.in_flight:
        due_ms = _earlier(due_ms, poll_ms)
    elif (attempt_ms := memory.outbox.next_ms()) is not None:
        due_ms = _earlier(due_ms, max(attempt_ms, poll_ms))  # due already: the pool had no room
    if memory.has_unpublished_size:
        due_ms = _earlier(due_ms, max(now_ms, memory.published_ms + _PUBLISH_LAST_MS))
    if due_ms is None or (memory.pending_due_ms is not None and memory.pending_due_ms <= due_ms):
        return None
    return due_ms


def _earlier(first_ms: int | None, second_ms: int) -> int:
    return second_ms if first_ms is None or second_ms < first_ms else first_ms


class ShardTimers:
    """The timers of one shard, and the ``meta`` cell, which keeps the idle timer's time over a restore.

    ``memory`` says what the timers are set to.
    """

    __slots__ = ("_idle", "_memory", "_meta", "_pending", "_stream")

    def __init__(self, meta: Any, idle: Any, pending: Any, stream: Any, memory: ShardMemory) -> None:
        self._meta, self._idle, self._pending, self._stream = meta, idle, pending, stream
        self._memory = memory

    def restore(self) -> None:
        """Read what the idle timer is set to.

        Raises:
            ValueError: a newer release has written the state.
        """
        stored = self._meta.read()
        if stored is None:
            return
        schema, due_ms = (int(number) for number in stored.split())
        if schema > _SCHEMA_VERSION:
            raise ValueError(f"state schema {schema}: this worker reads up to {_SCHEMA_VERSION}; use the newer release")
        self._memory.idle_due_ms = due_ms

    def arm(self, state: ShardState, settings: HandleSettings, now_ms: int) -> None:
        """Set the timers whose time has changed; inline, only the stream timer."""
        memory, tick_ms = self._memory, settings.sweep_every_ms
        stream_ms = stream_timer_ms(state.rule_states.stream_due.next_ms(), memory.stream_due_ms, tick_ms)
        if stream_ms is not None:
            memory.stream_due_ms = stream_ms
            self._stream.set(Timestamp(micros=stream_ms * 1000))
        if settings.inline:
            return
        idle_ms = idle_timer_ms(idle_due_ms(state, settings.shard), memory.idle_due_ms, now_ms, tick_ms)
        if idle_ms is not None:
            memory.idle_due_ms = idle_ms
            self._idle.set(Timestamp(micros=idle_ms * 1000))
            self._meta.write(b"%d %d" % (_SCHEMA_VERSION, idle_ms))
        pending_ms = pending_timer_ms(state.rule_states.clock_due.next_ms(), memory, settings, now_ms)
        if pending_ms is not None:
            memory.pending_due_ms = pending_ms
            self._pending.set(Timestamp(micros=pending_ms * 1000))

    def clear(self) -> None:
        """Unset all timers and clear the cell: with ``user_shards=0`` the key is a user, whom a timer would name."""
        memory = self._memory
        self._meta.clear()
        set_ms = (memory.idle_due_ms, memory.pending_due_ms, memory.stream_due_ms)
        for timer, due_ms in zip((self._idle, self._pending, self._stream), set_ms, strict=True):
            if due_ms is not None:
                timer.clear()
        memory.idle_due_ms = memory.pending_due_ms = memory.stream_due_ms = None
