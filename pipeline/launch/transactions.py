"""Timeouts of exactly-once actions: a transaction that the broker aborts before Flink has committed it is lost.

A transaction holds the actions between two checkpoints and is committed when the second is complete, or, if that one
fails, when a later one is. While checkpoints fail it stays open, up to the broker's ``transaction.timeout.ms``.
A restart loses nothing: the job goes back to the last complete checkpoint and makes those actions again. So the job
has to restart before that timeout, which bounds how many checkpoints may fail in a row and how long each may take.
(flink-connector-kafka 3.3: KafkaCommitter gives up a transaction that was fenced or aborted, and goes on.)
"""

from __future__ import annotations

from typing import Final

# The checkpoint timeout if the transaction timeout allows more.
_TIMEOUT_MS: Final = 600_000
_MIN_CHECKPOINT_MS: Final = 20_000
_RESTART_MS: Final = 60_000
# An outage of S3 that the job survives without a restart.
_OUTAGE_MS: Final = 120_000


def least_transaction_timeout_ms(interval_ms: int) -> int:
    """The shortest transaction timeout that outlives one failed checkpoint and the restart that follows."""
    return 2 * interval_ms + _MIN_CHECKPOINT_MS + _RESTART_MS


def checkpoint_bounds(interval_ms: int, transaction_timeout_ms: int) -> tuple[int, int]:
    """How long a checkpoint may take [ms], and how many may fail in a row before the job restarts.

    A transaction begins an interval before the first checkpoint that fails. Each that fails costs its timeout and the
    wait for the next. ``transaction_timeout_ms`` is at least ``least_transaction_timeout_ms``.
    """
    available_ms = transaction_timeout_ms - interval_ms - _RESTART_MS
    attempts_in_outage = _OUTAGE_MS // interval_ms + 2
    attempts = max(1, min(attempts_in_outage, available_ms // (interval_ms + _MIN_CHECKPOINT_MS)))
    return min(_TIMEOUT_MS, available_ms // attempts - interval_ms), attempts - 1


def checkpoint_settings(interval_ms: int, transaction_timeout_ms: int) -> dict[str, str]:
    """``checkpoint_bounds`` as Flink settings of a job."""
    timeout_ms, failures = checkpoint_bounds(interval_ms, transaction_timeout_ms)
    return {
        "execution.checkpointing.timeout": f"{timeout_ms} ms",
        "execution.checkpointing.tolerable-failed-checkpoints": str(failures),
    }
