"""What a running job knows of a user: asked for on the control topic, answered on the inspections topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.kafka.topics import TopicError, TopicWriter, reading, saying
from transforms.domain.base.calendar import rfc_3339


class NoAnswerError(RuntimeError):
    """No job has answered in time; the message says what may be the matter."""


def inspect_user(
    config: Mapping[str, str], control_topic: str, inspections_topic: str, user_id: str, timeout_s: float
) -> dict[str, Any]:
    """The user's state as the job shows it (``{"inspect": user_id}``); of an unknown user nothing but that.

    Raises:
        TopicError: Kafka does not answer or a topic is missing.
        NoAnswerError: the job has not answered after ``timeout_s``.
    """
    key = user_id.encode()
    with saying(f"inspections topic {inspections_topic!r}"), reading(config, inspections_topic, last=0) as reader:
        if not reader.partitions:
            raise TopicError(f"inspections topic {inspections_topic!r} does not exist")
        _ask(config, control_topic, key, user_id)
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            for message in reader.poll(0.1):
                # Others may ask at the same time: an answer about the same user is as good.
                if message.key() == key and (state := _state(message.value())) is not None:
                    return state
    raise NoAnswerError(
        f"no answer on topic {inspections_topic!r} within {timeout_s:g} s: is the job running, with --control_topic="
        f"{control_topic} and --inspections_topic={inspections_topic}?"
    )


def _ask(config: Mapping[str, str], control_topic: str, key: bytes, user_id: str) -> None:
    failed: list[str] = []
    what = f"control topic {control_topic!r}"
    with saying(what):
        writer = TopicWriter(config)
        if control_topic not in writer.topics():
            raise TopicError(f"{what} does not exist")
        record = orjson.dumps({"inspect": user_id})
        writer.write(control_topic, key, record, told=lambda error: failed.append(error) if error else None)
        if writer.flush():
            failed.append("no answer")
    if failed:
        raise TopicError(f"{what}: {failed[0]}")


def _state(value: bytes | None) -> dict[str, Any] | None:
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and isinstance(document.get("user_id"), str) else None


def is_known(state: Mapping[str, Any]) -> bool:
    """Whether the job holds anything of the user: rules and webhooks remember longer than the state does."""
    remembered = state.get("ruleState") or {}
    return bool(
        state.get("found")
        or state.get("parked")
        or state.get("deliveries")
        or state.get("left_out")
        or any(remembered.values())
    )


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a state as a table; without ``headings`` its rows are names and values."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def headline(state: Mapping[str, Any], now_ms: int) -> list[str]:
    """What there is to say of the user in sentences."""
    said = [
        f"last seen {moment(state['last_seen'], now_ms)}"
        if state["found"]
        else "no profile, visit or history: not seen within --state_ttl_seconds, or forgotten"
    ]
    if state["parked"]:
        said.append(f"events that wait for the user API: {state['parked']:,}")
    if state.get("left_out"):
        said.append(f"left out, as Kafka would not take it: {', '.join(state['left_out'])}")
    return said


def sections(state: Mapping[str, Any], now_ms: int, history_rows: int) -> list[Section]:
    """The parts of a state that are there; of the history the newest rows, newest first."""
    found = []
    if state["userProfile"] is not None:
        found.append(Section(f"profile ({state['enrichment']})", (), _fields(state["userProfile"])))
    if state["currentVisit"] is not None:
        visit = state["currentVisit"]
        found.append(Section("current visit", (), _fields(visit | {"start_time": moment(visit["start_time"], now_ms)})))
    if state["eventHistory"]:
        history = state["eventHistory"]
        shown = [_row(row) for row in reversed(history[-history_rows:])]
        newest = f"newest {len(shown):,} of " if len(shown) < len(history) else ""
        found.append(Section(f"history ({newest}{len(history):,} events)", ("time", "event", "id", "fields"), shown))
    return [*found, *_remembered(state["ruleState"] or {}, now_ms), *_waiting(state["deliveries"] or (), now_ms)]


def _remembered(rules: Mapping[str, Any], now_ms: int) -> Iterator[Section]:
    """What rules remember; nothing of what they do not."""

    def at(time_ms: int) -> str:
        return moment(time_ms, now_ms)

    tables: list[tuple[str, str, tuple[str, ...], Callable[[Any], list[str]]]] = [
        ("cooldowns", "cooldowns", ("rule", "key", "fired"), lambda one: [one["key"] or "", at(one["fired_at"])]),
        (
            "caps",
            "caps",
            ("rule", "firings", "latest"),
            lambda one: [f"{len(one['fired_at']):,}", at(one["fired_at"][-1])],
        ),
        (
            "sequences",
            "open sequences",
            ("rule", "begun by", "begun", "ends"),
            lambda one: [one["event_id"], at(one["begun_at"]), at(one["ends_at"])],
        ),
        (
            "held",
            "held by quiet hours",
            ("rule", "action", "event", "until"),
            lambda one: [one["action"], one["event_id"], at(one["until"])],
        ),
    ]
    for name, title, headings, cells in tables:
        if rules.get(name):
            yield Section(title, headings, [[one["rule"], *cells(one)] for one in rules[name]])


def _waiting(deliveries: Sequence[Mapping[str, Any]], now_ms: int) -> Iterator[Section]:
    if deliveries:
        headings = ("rule", "destination", "event", "due", "attempts", "last", "action id")
        names = ("rule", "destination", "event_id", "due", "attempts", "last", "action_id")
        shown = (dict(one) | {"due": moment(one["due"], now_ms), "last": one["last"] or ""} for one in deliveries)
        yield Section("webhooks that wait", headings, [[str(one[name]) for name in names] for one in shown])


def moment(at_ms: int, now_ms: int) -> str:
    """A time, and how far from now it is."""
    seconds = abs(now_ms - at_ms) // 1000
    for unit, of_unit in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * of_unit:
            far = f"{seconds // of_unit:,} {unit}"
            break
    else:
        far = f"{seconds} s"
    try:
        shown = rfc_3339(at_ms)
    except OverflowError:  # others' clocks: the user API's, a record's
        return f"{at_ms} ms"
    return f"{shown} ({f'{far} ago' if at_ms <= now_ms else f'in {far}'})"


def _fields(document: Mapping[str, Any]) -> list[list[str]]:
    return [[name, _shown(value)] for name, value in document.items()]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _row(row: Mapping[str, Any]) -> list[str]:
    named = {"timestamp", "event_name", "event_id"}
    others = "  ".join(f"{name}={_shown(value)}" for name, value in row.items() if name not in named)
    return [rfc_3339(row["timestamp"]), row["event_name"], row["event_id"], others]
