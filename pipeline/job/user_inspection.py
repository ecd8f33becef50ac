"""A user's state: requested on the control topic, answered by the running job on the inspections topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import PipelineError
from pipeline.kafka.topics import existing_topic, send_control_record
from transforms.domain.base import exact_json
from transforms.domain.base.calendar import rfc_3339


class NoAnswerError(PipelineError, RuntimeError):
    """No job has answered in time; the message names likely causes."""


def inspect_user(
    config: Mapping[str, str], control_topic: str, inspections_topic: str, user_id: str, timeout_s: float
) -> dict[str, Any]:
    """The user's state in the job's own format; an unknown user has one, too (see ``is_known``).

    Raises:
        TopicError: Kafka does not answer, or a topic is missing.
        NoAnswerError: the job has not answered after ``timeout_s``.
    """
    key = user_id.encode()
    with existing_topic(config, inspections_topic, f"inspections topic {inspections_topic!r}", last=0) as reader:
        send_control_record(config, control_topic, key, orjson.dumps({"inspect": user_id}))
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            for message in reader.poll(0.1):
                # The answer to another client's request about the same user will do, too.
                if message.key() == key and (state := _state(message.value())) is not None:
                    return state
    raise NoAnswerError(
        f"no answer on topic {inspections_topic!r} within {timeout_s:g} s: is the job running, with --control_topic="
        f"{control_topic} and --inspections_topic={inspections_topic}?"
    )


def _state(value: bytes | None) -> dict[str, Any] | None:
    try:
        document = exact_json.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("user_id"), str) else None


def is_known(state: Mapping[str, Any]) -> bool:
    """Whether the job holds anything of the user. Rule state and deliveries outlive the user's state."""
    rule_state = state.get("ruleState") or {}
    return any(state.get(name) for name in ("found", "parked", "deliveries", "left_out")) or any(rule_state.values())


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a state as a table; without ``headings`` the rows are names and values."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def headline(state: Mapping[str, Any], now_ms: int) -> list[str]:
    """The lines above the tables: when the user was last seen, what waits, what is missing."""
    lines = [
        f"last seen {moment(state['last_seen'], now_ms)}"
        if state["found"]
        else "no profile, visit or history: not seen within --state_ttl_seconds, or forgotten"
    ]
    if state["parked"]:
        lines.append(f"events that wait for the user API: {state['parked']:,}")
    if state.get("left_out"):
        lines.append(f"left out, as Kafka would not take it: {', '.join(state['left_out'])}")
    return lines


def sections(state: Mapping[str, Any], now_ms: int, history_rows: int) -> list[Section]:
    """The parts of a state that are not empty. The history shows its newest rows, the newest first."""
    tables = []
    if state["userProfile"] is not None:
        tables.append(Section(f"profile ({state['enrichment']})", (), _fields(state["userProfile"])))
    if state["currentVisit"] is not None:
        visit = state["currentVisit"]
        start_time = moment(visit["start_time"], now_ms)
        tables.append(Section("current visit", (), _fields(visit | {"start_time": start_time})))
    if state["eventHistory"]:
        history = state["eventHistory"]
        shown = [history_row(row) for row in reversed(history[-history_rows:])]
        newest = f"newest {len(shown):,} of " if len(shown) < len(history) else ""
        tables.append(Section(f"history ({newest}{len(history):,} events)", ("time", "event", "id", "fields"), shown))
    return [
        *tables,
        *_rule_state_sections(state["ruleState"] or {}, now_ms),
        *_delivery_sections(state["deliveries"] or (), now_ms),
    ]


def _rule_state_sections(rule_state: Mapping[str, Any], now_ms: int) -> Iterator[Section]:
    """A table for each part of the rule state that is not empty."""

    def at(time_ms: int) -> str:
        return moment(time_ms, now_ms)

    tables: list[tuple[str, str, tuple[str, ...], Callable[[Any], list[str]]]] = [
        ("cooldowns", "cooldowns", ("rule", "key", "fired"), lambda entry: [entry["key"] or "", at(entry["fired_at"])]),
        (
            "caps",
            "caps",
            ("rule", "firings", "latest"),
            lambda entry: [f"{len(entry['fired_at']):,}", at(entry["fired_at"][-1])],
        ),
        (
            "sequences",
            "open sequences",
            ("rule", "begun by", "begun", "ends"),
            lambda entry: [entry["event_id"], at(entry["begun_at"]), at(entry["ends_at"])],
        ),
        (
            "held",
            "held by quiet hours",
            ("rule", "action", "event", "until"),
            lambda entry: [entry["action"], entry["event_id"], at(entry["until"])],
        ),
        (
            "pending",
            "waits for its group",
            ("rule", "group", "action", "event", "picked"),
            lambda entry: [entry["group"], entry["action"], entry["event_id"], at(entry["picked_at"])],
        ),
        (
            "groups",
            "groups",
            ("group", "firings", "latest"),
            lambda entry: [f"{len(entry['fired_at']):,}", at(entry["fired_at"][-1])],
        ),
        (
            "suppressed",
            "suppressed",
            ("group", "until"),
            lambda entry: ["for good" if entry["until"] is None else at(entry["until"])],
        ),
    ]
    for name, title, headings, cells in tables:
        if rule_state.get(name):
            first = headings[0]
            yield Section(title, headings, [[entry[first], *cells(entry)] for entry in rule_state[name]])


def _delivery_sections(deliveries: Sequence[Mapping[str, Any]], now_ms: int) -> Iterator[Section]:
    if deliveries:
        headings = ("rule", "destination", "event", "due", "attempts", "last", "action id")
        names = ("rule", "destination", "event_id", "due", "attempts", "last", "action_id")
        rows = (
            dict(delivery) | {"due": moment(delivery["due"], now_ms), "last": delivery["last"] or ""}
            for delivery in deliveries
        )
        yield Section("webhooks that wait", headings, [[str(row[name]) for name in names] for row in rows])


def moment(at_ms: int, now_ms: int) -> str:
    """A time and its distance from now, as "… (3 min ago)"; a time beyond the calendar in ms."""
    try:
        shown = rfc_3339(at_ms)
    except OverflowError:  # from a foreign clock: the user API's, or a record's
        return f"{at_ms} ms"
    return f"{shown} ({distance(at_ms, now_ms)})"


def distance(at_ms: int, now_ms: int) -> str:
    """How far a time is from now, as "3 min ago" or "in 3 min"."""
    seconds = abs(now_ms - at_ms) // 1000
    for unit, of_unit in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * of_unit:
            length = f"{seconds // of_unit:,} {unit}"
            break
    else:
        length = f"{seconds} s"
    return f"{length} ago" if at_ms <= now_ms else f"in {length}"


def _fields(document: Mapping[str, Any]) -> list[list[str]]:
    return [[name, _shown(value)] for name, value in document.items()]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else exact_json.dumps(value).decode()


def history_row(row: Mapping[str, Any]) -> list[str]:
    """Time, name, id and other fields of a row of a history."""
    named = {"timestamp", "event_name", "event_id"}
    others = "  ".join(f"{name}={_shown(value)}" for name, value in row.items() if name not in named)
    return [rfc_3339(row["timestamp"]), row["event_name"], row["event_id"], others]
