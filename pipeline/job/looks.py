"""Looks at a job again and again: the rates of a window, and the age of what was seen."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from pipeline.job.health import DOWN, STALLED_S, Facts, Verdict, verdict_of
from pipeline.job.jobs import NoJobError
from pipeline.job.snapshot import JobSnapshot, is_silent
from pipeline.job.status import status_of
from runners.flink.errors import FlinkSilentError, LocalStackError

WINDOW_S: Final = 60.0


class Looks:
    """The newest looks at a job. ``take`` takes one more; everything else goes by what was seen last.

    Args:
        take_snapshot: looks once.
        where: Flink's address, and the job's name.
        every_s: how often ``take`` is called; what is older than two looks is stale.
        window_s: what rates are of.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        take_snapshot: Callable[[], JobSnapshot],
        where: tuple[str, str],
        every_s: float,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take_snapshot = take_snapshot
        self._where = where
        self._stale_s = 2 * every_s
        self._window_s = window_s
        self._clock = clock
        self._newest: JobSnapshot | None = None
        # Only snapshots with metrics, each with newer ones than the one before.
        self._renewed: deque[JobSnapshot] = deque()
        self._seen_s: float | None = None
        self._renewed_s: float | None = None
        self._taken_s = self._clock()  # when the newest record was taken, or none waited
        self.silence: str | None = "it was not asked yet"
        self.no_job: str | None = None

    def take(self) -> None:
        """Look once."""
        try:
            now = self._take_snapshot()
        except NoJobError as error:
            self.silence, self.no_job, self._seen_s = None, str(error), self._clock()
            return
        except LocalStackError as error:
            self.silence = error.why if isinstance(error, FlinkSilentError) else str(error)
            return
        self.silence, self.no_job, self._seen_s = None, None, self._clock()
        if self._newest is not None and self._newest.job["jid"] != now.job["jid"]:
            self._renewed.clear()
        self._note(now)
        self._newest = now

    def _note(self, now: JobSnapshot) -> None:
        renewed, before = self._renewed, self._renewed[-1] if self._renewed else None
        if not now.lag or before is None or now.total("events") != before.total("events"):
            self._taken_s = self._clock()
        # Flink fetches metrics only when they are requested. Compared with none, all counts would be new.
        if now.metrics and (before is None or now.metrics_at_ms is None or now.metrics_at_ms != before.metrics_at_ms):
            renewed.append(now)
            self._renewed_s = self._clock()
        while len(renewed) > 2 and renewed[1].at_s <= now.at_s - self._window_s:
            renewed.popleft()

    @property
    def is_settled(self) -> bool:
        """Whether a further look would tell no more: the job is DOWN, or rates are known and waiting records taken."""
        now = self._newest
        if now is None or not now.is_running or self.verdict.state == DOWN:
            return True
        is_stalled = self._clock() - self._taken_s >= STALLED_S
        return len(self._renewed) > 1 and (
            not now.lag or is_stalled or self._renewed[0].total("events") < now.total("events")
        )

    @property
    def status(self) -> Mapping[str, Any] | None:
        """The newest status; None if there has been none. A lag of metrics that are old is unknown."""
        now = self._newest
        if now is None:
            return None
        if self.silence is not None or not self._is_renewed(now) or is_silent(now.unheard_s, now.heartbeat_s):
            now = replace(now, lag=None)
        return status_of(self._renewed[0] if self._renewed else now, now)

    def _is_renewed(self, now: JobSnapshot) -> bool:
        if self._renewed_s is None:
            return False
        return self._clock() - self._renewed_s <= max(self._stale_s, 2 * now.metrics_interval_s)

    @property
    def trouble(self) -> str | None:
        """Why there is no newer status; None if there is."""
        if self.silence is not None:
            seen = "" if self.seen_s is None else f", not seen for {self.seen_s:,.0f} s"
            return f"Flink at {self._where[0]} does not answer: {self.silence}{seen}"
        if self.no_job is None and not self._renewed and self._newest is not None and self._newest.is_running:
            return "Flink has not told the job's metrics yet"
        return self.no_job

    @property
    def metrics_interval_s(self) -> float:
        """How often Flink renews metrics; 0 while that is unknown."""
        return 0.0 if self._newest is None else self._newest.metrics_interval_s

    @property
    def seen_s(self) -> float | None:
        """How long ago Flink answered last; None if it never did."""
        return None if self._seen_s is None else self._clock() - self._seen_s

    @property
    def facts(self) -> Facts:
        """All that is known, for ``health``."""
        return Facts(
            *self._where,
            self.status or {},
            self.silence,
            self.no_job,
            self.seen_s,
            self._stale_s,
            self._clock() - self._taken_s,
        )

    @property
    def verdict(self) -> Verdict:
        """Whether the job is healthy."""
        return verdict_of(self.facts)

    def document(self) -> dict[str, Any]:
        """Verdict and status as JSON; without a status the verdict only."""
        seen_s = self.seen_s
        seen = {"seen_seconds_ago": None if seen_s is None else round(seen_s, 1)}
        return {"verdict": self.verdict.document(), **seen, **(self.status or {})}
