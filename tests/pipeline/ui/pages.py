"""The page on a free port, over a fake job with a given state."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.ui import Address
from pipeline.job.decision_log import DecisionFilter
from pipeline.job.redriving import Plan, PlanGroup, RedriveResult, RedriveSettings
from pipeline.job.snapshot import JobSnapshot
from pipeline.job.status import status_of
from pipeline.job.stored_letters import StoredLetter
from pipeline.kafka.announcements import Announcement
from pipeline.kafka.rules_topic import PublishedSets
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from pipeline.ui.app import build
from pipeline.ui.guard import Guard
from pipeline.ui.job import JobError
from pipeline.ui.rule_changes import ProposedChange, RuleChanges
from pipeline.ui.watch import Watch
from tests.builders import NOW_MS
from transforms.adapters.secrets import Secret
from transforms.domain.base.strength import check_strength
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision

HOSTS = ("127.0.0.1", "localhost", "[::1]")


def snapshot(at_s: float, **metrics: int) -> JobSnapshot:
    """A snapshot of a running job; two underscores in a metric's name are a dot."""
    job = {"jid": "0" * 32, "name": "shop", "state": "RUNNING", "duration": 3_725_000, "now": 100_000}
    completed = {"end_to_end_duration": 321, "state_size": 5_000_000, "latest_ack_timestamp": 96_000}
    checkpoints = {"counts": {"completed": 7, "failed": 0}, "latest": {"completed": completed}}
    return JobSnapshot(
        at_s, job, 0, checkpoints, 0, 17, {name.replace("__", "."): [value] for name, value in metrics.items()}
    )


class GivenRules(RuleChanges):
    """Changes of the sets that a fake job has."""

    def __init__(self, job: GivenJob) -> None:
        super().__init__("rules", job.settings, {})
        self._job = job

    def read(self) -> PublishedSets:
        sets = tuple(self._job.sets or ())
        return PublishedSets(sets, highest=sets[-1].number if sets else 0)

    def announced_job(self) -> Announcement:
        if self._job.announced is None:
            raise TopicError("no job has announced them on event-audit")
        return self._job.announced

    def publish(self, change: ProposedChange, note: str) -> RuleSet:
        assert self._job.sets is not None
        assert change.problems == []
        self._job.sets.append(RuleSet(change.highest + 1, change.rules, self._job.clock_ms, "page", note))
        return self._job.sets[-1]


@dataclass
class GivenJob:
    """A fake ``RunningJob``.

    Attributes:
        redriven: the places of letters that it sent again.
        asked: the users that it was asked about.
        waiting: if given, it answers about users once this is set.
    """

    settings: Settings = field(default_factory=lambda: Settings(job_name="shop", control_topic="control"))
    rules: RuleSet | None = None
    log: list[Decision] | None = None
    dead: dict[str, StoredLetter] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    snapshots: Sequence[JobSnapshot] = ()
    trouble: str | None = None
    redriven: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    waiting: threading.Event | None = None
    flags: list[tuple[bool, bool]] = field(default_factory=list)
    clock_ms: int = NOW_MS
    sets: list[RuleSet] | None = None
    announced: Announcement | None = None

    @property
    def name(self) -> str:
        return self.settings.job_name

    def rule_set(self) -> RuleSet | None:
        self._fail()
        return self.sets[-1] if self.sets else self.rules

    def rule_changes(self) -> RuleChanges | None:
        return None if self.sets is None else GivenRules(self)

    def now_ms(self) -> int:
        return self.clock_ms

    def decisions(self, selected: DecisionFilter, most: int = 1000) -> list[Decision] | None:
        self._fail()
        return None if self.log is None else [decision for decision in self.log if selected.matches(decision)][:most]

    @property
    def redrive_settings(self) -> RedriveSettings:
        return RedriveSettings("letters", "events", self.settings.control_topic)

    def letters(self) -> list[tuple[StoredLetter, int | None]]:
        self._fail()
        return [(stored, 7 if stored.place in self.redriven else None) for stored in self.dead.values()]

    def letter(self, partition: int, offset: int) -> StoredLetter | None:
        self._fail()
        return self.dead.get(f"{partition}/{offset}")

    def redrive(
        self, places: Collection[tuple[int, int]], execute: bool, accept_unsigned: bool = False, again: bool = False
    ) -> tuple[Plan, RedriveResult | None]:
        self._fail()
        self.flags.append((accept_unsigned, again))
        plan, result = Plan(), RedriveResult()
        for partition, offset in places:
            stored = self.dead.get(f"{partition}/{offset}")
            if stored is None:
                plan.skipped["there is no such letter any more"] += 1
                continue
            kind = "actions" if stored.letter.action else "events"
            group = PlanGroup(kind, "control", stored.letter.reason, stored.destination, "unsigned")
            plan.counts[group] += 1
            plan.samples[group] = [stored]
            if execute:
                self.redriven.append(stored.place)
                result.sent[kind] += 1
        return plan, result if execute else None

    def inspect(self, user_id: str) -> dict[str, Any]:
        self._fail()
        self.asked.append(user_id)
        if self.waiting is not None:
            self.waiting.wait(60)
        if user_id not in self.users:
            raise JobError(f"no answer about {user_id}")
        return self.users[user_id]

    def _fail(self) -> None:
        if self.trouble is not None:
            raise JobError(self.trouble)


class GivenWatch(Watch):
    """A watch that has taken its snapshots already; the last one was taken at ``now_ms``."""

    def __init__(self, snapshots: Sequence[JobSnapshot], now_ms: int = NOW_MS) -> None:
        coming = iter(snapshots)
        times_ms = iter([now_ms - round(1000 * (snapshots[-1].at_s - taken.at_s)) for taken in snapshots])
        where = ("flink:8081", "shop")
        super().__init__(lambda: next(coming), 60.0, where=where, clock_ms=lambda: next(times_ms, now_ms))
        for _ in snapshots:
            self.take()
        if snapshots:
            self.status, self.trouble = status_of(snapshots[0], snapshots[-1]), None


@contextmanager
def serving(
    job: Any,
    token: str | None = None,
    reads_need_it: bool = False,
    address: str = "127.0.0.1",
    trusted_proxy: str | None = None,
) -> Iterator[str]:
    """The page's URL while the context is open; ``token`` is a reference."""
    secret = None if token is None else Secret(token, check_strength)
    app = build(job, GivenWatch(job.snapshots), Guard(secret, HOSTS, reads_need_it))
    server = Address(address=address, port=0, trusted_proxy=trusted_proxy).serve(app)
    ended = threading.Event()

    def run() -> None:
        # As server.run(), which would wait for browsers to close their connections.
        while not ended.is_set():
            server.asyncore.loop(timeout=0.05, map=server._map, count=1, use_poll=True)
        server.task_dispatcher.shutdown()
        server.asyncore.close_all(server._map)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"http://{f'[{address}]' if ':' in address else address}:{server.effective_port}"
    finally:
        ended.set()
        thread.join(30)
