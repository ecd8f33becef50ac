"""Whether a job is healthy: the one place that decides it, from facts and their age.

Each check looks at one thing and has a section in docs/runbook.md of its name. ``verdict_of`` takes the worst, and of
equal ones the first: what comes first explains what comes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.job.snapshot import is_silent

HEALTHY: Final = "HEALTHY"
DEGRADED: Final = "DEGRADED"
DOWN: Final = "DOWN"
EXIT_CODES: Final = {HEALTHY: 0, DEGRADED: 1, DOWN: 2}

STALLED_S: Final = 10.0
_LAG: Final = 10_000
_LOOP: Final = 3  # failures within ``status.RECENT_S``; more are a loop
_SHARE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a job.

    Attributes:
        flink_master: Flink's address.
        job_name: the job's name.
        status: the newest status (``status_of``); empty if there has been none.
        silence: why the newest look found no Flink; None if it did.
        no_job: why the newest look found no job; None if it did.
        seen_s: how long ago Flink answered last; None if never.
        stale_s: from which age on an answer is too old: two looks.
        stalled_s: for how long records have waited and none was taken.
    """

    flink_master: str
    job_name: str
    status: Mapping[str, Any] = field(default_factory=dict)
    silence: str | None = None
    no_job: str | None = None
    seen_s: float | None = None
    stale_s: float = 10.0
    stalled_s: float = 0.0

    @property
    def is_stale(self) -> bool:
        """Whether what is known is too old to go by."""
        return self.silence is not None and (self.seen_s is None or self.seen_s > self.stale_s)

    @property
    def command(self) -> str:
        """The flags that name the job for a command."""
        return f"--flink_master={self.flink_master} --job_name={self.job_name}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a job is.

    Attributes:
        state: HEALTHY, DEGRADED or DOWN.
        cause: why, in our words; empty if HEALTHY. It holds no text of users and no secrets.
        detail: what Flink or Kafka say about it, for those who may read everything.
        next: the command that helps.
        section: the section of docs/runbook.md about it.
    """

    state: str
    cause: str = ""
    detail: str = ""
    next: str = ""
    section: str = ""

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return EXIT_CODES[self.state]

    @property
    def why(self) -> str:
        """Cause and detail in one line."""
        return f"{self.cause}: {' '.join(self.detail.split())}" if self.detail else self.cause

    def document(self) -> dict[str, Any]:
        """The verdict as JSON."""
        keys = ("state", "cause", "detail", "next", "section")
        return {key: getattr(self, key) or None for key in keys}


@dataclass(frozen=True, slots=True)
class Check:
    """A check by its section of the runbook; ``find`` returns a verdict without section, None if all is ``well``."""

    section: str
    well: str
    find: Callable[[Facts], Verdict | None]


def verdict_of(facts: Facts) -> Verdict:
    """The verdict about a job."""
    found = [verdict for _, verdict in results_of(facts) if verdict is not None]
    return max(found, key=lambda verdict: verdict.exit_code, default=Verdict(HEALTHY))


def results_of(facts: Facts) -> Iterator[tuple[Check, Verdict | None]]:
    """Each check that can be made with these facts, and what it found. Without Flink's answers it is the first only."""
    for check in CHECKS:
        found = check.find(facts)
        yield (
            check,
            None if found is None else Verdict(found.state, found.cause, found.detail, found.next, check.section),
        )
        if found is not None and check in _ENDING:
            return


# Flink and the job


def _flink(facts: Facts) -> Verdict | None:
    if not facts.is_stale:
        return None
    seen = "" if facts.seen_s is None else f", not seen for {facts.seen_s:,.0f} s"
    command = f"event-trigger doctor --flink_master={facts.flink_master}"
    return Verdict(DOWN, f"Flink at {facts.flink_master} does not answer{seen}", facts.silence or "", command)


def _job(facts: Facts) -> Verdict | None:
    resume = f"event-trigger resume {facts.command} OPTIONS"
    if facts.no_job is not None:
        return Verdict(DOWN, f"no job {facts.job_name!r} runs at {facts.flink_master}", facts.no_job, resume)
    job = facts.status["job"]
    if job["state"] not in ("FAILED", "CANCELED", "FINISHED", "SUSPENDED"):
        return None
    return Verdict(DOWN, f"the job is {job['state']}", _failure(job) if job["state"] == "FAILED" else "", resume)


def _restarts(facts: Facts) -> Verdict | None:
    status = facts.status
    job, checkpoints = status["job"], status["checkpoints"]
    count = job["recent_failures"]
    command = f"event-trigger doctor --running {facts.command}"
    if count > _LOOP:
        state = DEGRADED if checkpoints["since_failure"] else DOWN
        return Verdict(state, f"the job failed {count} times in 15 minutes", _failure(job), command)
    if count and not checkpoints["since_failure"] and _runs(job):
        ago = f"{job['failure']['seconds_ago']:,.0f} s ago"
        return Verdict(DEGRADED, f"the job restarted {ago}, no checkpoint has completed since", _failure(job), command)
    return None


def _task_managers(facts: Facts) -> Verdict | None:
    job = facts.status["job"]
    managers = job["task_managers"]
    registered, needed = managers["registered"], managers["needed"]
    is_smaller = managers["slots"] < managers["slots_wanted"] and _runs(job)
    goes_on = f"the job runs on {managers['slots']} of {managers['slots_wanted']} slots"
    if needed is not None and registered < needed:
        state, now = (DEGRADED, goes_on) if is_smaller else (DOWN, f"the job is {job['state']}")
        return Verdict(state, f"{registered} of {needed} TaskManagers are there, {now}", _failure(job), _doctor(facts))
    seen_s = managers["seen_seconds_ago"]
    if is_silent(seen_s, managers["heartbeat_seconds"]):
        return Verdict(DOWN, f"a TaskManager was not seen for {seen_s:,.0f} s", "", _doctor(facts))
    return Verdict(DEGRADED, goes_on, "", _doctor(facts)) if is_smaller else None


def _steps(facts: Facts) -> Verdict | None:
    job = facts.status["job"]
    if _runs(job):
        return None
    cause = f"the job is {job['state']}, {job['steps_running']} of {job['steps']} steps run"
    return Verdict(DOWN, cause, _failure(job), _doctor(facts))


# Kafka


def _topics(facts: Facts) -> Verdict | None:
    kafka = facts.status["kafka"]
    if not kafka["missing"]:
        return None
    named = [
        f"{topic!r} of --{option}" + (f" ({kafka['hints'][option]})" if option in kafka["hints"] else "")
        for option, topic in kafka["missing"].items()
    ]
    return Verdict(DOWN, f"topic {', '.join(named)} does not exist", "", _doctor(facts))


def _brokers(facts: Facts) -> Verdict | None:
    kafka = facts.status["kafka"]
    silent, all_ = kafka["silent_partitions"], kafka["partitions"]
    detail = kafka["trouble"] or ""
    if silent and len(silent) == all_:
        return Verdict(DOWN, "no broker answers the job", detail, _doctor(facts))
    if silent:
        cause = f"no broker answers the job about partition {', '.join(map(str, silent))}"
        return Verdict(DEGRADED, cause, detail, _doctor(facts))
    return None


def _handling(facts: Facts) -> Verdict | None:
    events = facts.status["events"]
    if facts.stalled_s < STALLED_S or not events["lag"]:
        return None
    cause = f"{events['lag']:,} events wait, and none was taken for {facts.stalled_s:,.0f} s"
    return Verdict(DOWN, cause, _failure(facts.status["job"]), _doctor(facts))


def _lag(facts: Facts) -> Verdict | None:
    events = facts.status["events"]
    before, lag = events["lag_before"], events["lag"]
    if lag is None or before is None or lag <= _LAG or lag <= before:
        return None
    return Verdict(DEGRADED, f"{lag:,} events wait, and more by the minute", "", _look(facts))


def _skipped(facts: Facts) -> Verdict | None:
    time = facts.status["time"]
    if not time["position_resets"] and not time["records_skipped"]:
        return None
    cause = f"Kafka had deleted {time['records_skipped']:,} records before the job read them"
    return Verdict(DEGRADED, cause, "", _look(facts))


def _time(facts: Facts) -> Verdict | None:
    held = [held for held in facts.status["time"]["held_by"] if held["reason"] != "not read to the end"]
    if not held:
        return None
    cause = f"partition {held[0]['partition']} holds the stream's time: {held[0]['reason']}"
    return Verdict(DEGRADED, cause, "", _look(facts))


# Checkpoints


def _failed_checkpoints(facts: Facts) -> Verdict | None:
    checkpoints = facts.status["checkpoints"]
    count = checkpoints["failed_since"]
    if not count:
        return None
    cause = "the newest checkpoint failed" if count == 1 else f"the {count} newest checkpoints failed"
    return Verdict(DEGRADED, cause, checkpoints["failure"] or "", _doctor(facts))


def _no_checkpoint(facts: Facts) -> Verdict | None:
    checkpoints = facts.status["checkpoints"]
    age_s, interval_s = checkpoints["age_seconds"], checkpoints["interval_seconds"]
    if age_s is None:
        return Verdict(DEGRADED, "no checkpoint has completed yet", "", _look(facts))
    if interval_s is None or age_s <= 3 * interval_s + STALLED_S:
        return None
    cause = f"the last checkpoint completed {age_s:,.0f} s ago, they are due every {interval_s:g} s"
    return Verdict(DEGRADED, cause, "", _doctor(facts))


# What the job calls, and its rules


def _user_api(facts: Facts) -> Verdict | None:
    status = facts.status
    if not status["user_api"]["breaker_open"]:
        return None
    parked = status["users"]["parked"]
    cause = f"the user API fails and is spared (its breaker is open), {parked:,} users wait for it"
    return Verdict(DEGRADED, cause, "", f"event-trigger doctor {facts.command} --user_api_url=URL")


def _destinations_in(state: str, cause: str, command: str) -> Callable[[Facts], Verdict | None]:
    def find(facts: Facts) -> Verdict | None:
        names = [found["name"] for found in facts.status["destinations"] if found["state"] == state]
        if not names:
            return None
        return Verdict(DEGRADED, cause.format(", ".join(names)), "", command.format(names[0]))

    return find


def _rule_fails(facts: Facts) -> Verdict | None:
    for rule in facts.status["rules"]["each"]:
        if rule["errors_per_minute"] > _SHARE * rule["evaluated_per_minute"]:
            cause = f"rule {rule['name']} fails at {rule['errors_per_minute']:,.0f} events a minute"
            return Verdict(DEGRADED, cause, "", _letters("rule_error"))
    return None


def _rule_trips(facts: Facts) -> Verdict | None:
    for rule in facts.status["rules"]["each"]:
        if rule["quarantined_per_minute"]:
            return Verdict(DEGRADED, f"rule {rule['name']} is set aside: it hit its limits", "", _look(facts))
    return None


def _dead_letters(facts: Facts) -> Verdict | None:
    events = facts.status["events"]
    letters, taken = events["dead_letters_per_second"], events["taken_per_second"]
    if not letters or letters <= _SHARE * taken:
        return None
    cause = f"{letters:,.1f} dead letters a second, of {taken:,.1f} events"
    return Verdict(DEGRADED, cause, "", _letters())


# Time and room


def _above(most: float, cause: str, *path: str, unit: float = 1) -> Callable[[Facts], Verdict | None]:
    """Finds a value of the status above ``most``, counted in ``unit``."""

    def find(facts: Facts) -> Verdict | None:
        value: Any = facts.status
        for key in path:
            value = value[key]
        if value is None or value / unit <= most:
            return None
        return Verdict(DEGRADED, cause.format(value / unit), "", _look(facts))

    return find


def _runs(job: Mapping[str, Any]) -> bool:
    return bool(job["state"] == "RUNNING" and job["steps_running"] == job["steps"])


def _failure(job: Mapping[str, Any]) -> str:
    return "" if job["failure"] is None else str(job["failure"]["cause"])


def _look(facts: Facts) -> str:
    return f"event-trigger status {facts.command}"


def _doctor(facts: Facts) -> str:
    return f"event-trigger doctor --running {facts.command} OPTIONS"


def _letters(reason: str | None = None) -> str:
    return "event-trigger dead-letters list" + (f" --reason={reason}" if reason else "")


_LATENCY: Final = _above(1000, "one action in a hundred takes {:,.0f} ms or longer", "actions", "latency_ms", "p99")
_CHECKPOINT: Final = _above(60, "the last checkpoint took {:,.0f} s", "checkpoints", "last_ms", unit=1000)
_AWAY: Final = _above(
    0, "{:,.0f} shards of a worker send without the ledger of deliveries", "ledger", "shards_unguarded"
)
_CONTESTED: Final = _above(0, "workers take shards' webhooks from each other", "ledger", "claims_lost_per_second")
_CACHE: Final = _above(10, "{:,.0f} shards a second are read from RocksDB again", "refolds_per_second")
_MEMORY: Final = _above(4, "a Python worker takes {:,.1f} GB", "worker_bytes", unit=1e9)

CHECKS: Final = (
    Check("FlinkSilent", "Flink answers", _flink),
    Check("JobNotRunning", "the job has not ended", _job),
    Check("TopicMissing", "no topic of the options is known to be missing", _topics),
    Check("TaskManagerLost", "as many TaskManagers as the job needs", _task_managers),
    Check("JobRestarts", "no failure without a checkpoint since", _restarts),
    Check("StepsNotRunning", "every step runs", _steps),
    Check("KafkaSilent", "brokers answer the job", _brokers),
    Check("NothingHandled", "records are taken", _handling),
    Check("CheckpointsFail", "the newest checkpoint has not failed", _failed_checkpoints),
    Check("NoCheckpoint", "checkpoints complete when they are due", _no_checkpoint),
    Check("UserApiFails", "its breaker is closed", _user_api),
    Check(
        "DestinationUnknown",
        "every destination is configured",
        _destinations_in(
            "unknown",
            "nobody configured destination {}, its webhooks become dead letters",
            "event-trigger dead-letters list --destination={}",
        ),
    ),
    Check(
        "DestinationFails",
        "no breaker is open",
        _destinations_in(
            "failing", "destination {} fails and is spared", "event-trigger dead-letters list --destination={}"
        ),
    ),
    Check(
        "DestinationDisabled",
        "none is disabled",
        _destinations_in("disabled", "destination {} is disabled", "event-trigger destinations enable {}"),
    ),
    Check("LedgerAway", "the ledger of deliveries answers, if there is one", _AWAY),
    Check("LedgerContested", "no worker takes another's webhooks", _CONTESTED),
    Check("RecordsSkipped", "none", _skipped),
    Check("StreamTimeHeld", "no partition holds the stream's time", _time),
    Check("RuleTrips", "no rule is set aside", _rule_trips),
    Check("RuleFails", "at less than one event in a hundred", _rule_fails),
    Check("DeadLetters", "less than one in a hundred events", _dead_letters),
    Check("LagGrows", "the lag is small or falls", _lag),
    Check("LatencyHigh", "99 of 100 actions take less than a second", _LATENCY),
    Check("CheckpointsSlow", "the last took less than a minute", _CHECKPOINT),
    Check("StateCacheTooSmall", "shards stay in the cache", _CACHE),
    Check("WorkerMemoryHigh", "less than 4 GB", _MEMORY),
)
# What the further checks look at is not there, or too old.
_ENDING: Final = CHECKS[:2]
