from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from runners.flink import logs
from runners.flink.redaction import HIDDEN


def written(*arguments: Any, show_users: bool = False, level: int = logging.INFO, **extra: Any) -> dict[str, Any]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter({"job": "nightly", "worker": "1-1"}, show_users=show_users))
    logger = logging.Logger("event_trigger")
    logger.addHandler(handler)
    logger.log(level, *arguments, extra=extra or None)
    (line,) = stream.getvalue().splitlines()
    return dict(json.loads(line))


def test_a_record_is_a_json_object_with_its_job_and_its_extras() -> None:
    record = written("dead letter %s", 7, level=logging.WARNING, rule="welcome", action_id="ab12", times=3)
    assert record.pop("time").endswith("Z")
    assert record == {
        "event": "dead letter 7",
        "level": "warning",
        "logger": "event_trigger",
        "job": "nightly",
        "worker": "1-1",
        "rule": "welcome",
        "action_id": "ab12",
        "times": 3,
    }


def test_fields_that_are_set_later_are_part_of_later_records() -> None:
    fields: dict[str, Any] = {"worker": "1-1"}
    written_by = logs.formatter(fields)
    record = logging.LogRecord("x", logging.INFO, "", 0, "hello", (), None)
    assert "job" not in json.loads(written_by.format(record))
    fields["job"] = "nightly"
    assert json.loads(written_by.format(record))["job"] == "nightly"


def test_users_are_hashes_unless_ids_are_switched_on() -> None:
    record = written("user forgotten", user_id="alice", user_hash="ab12")
    assert record["user_hash"] == "ab12"
    assert "alice" not in json.dumps(record)
    both = written("user forgotten", show_users=True, user_id="alice", user_hash="ab12")
    assert (both["user_id"], both["user_hash"]) == ("alice", "ab12")


SECRET = "s3cr3t-Value_1"


@pytest.mark.parametrize(
    "extra",
    [
        {"reason": {"Authorization": SECRET, "X-Source": "us"}},
        {"reason": [f"sasl.jaas.config=Login required password={SECRET}"]},
        {"reason": {f"Bearer {SECRET}": 1}},
        {"of": f"https://ann:{SECRET}@api/"},
    ],
)
def test_secrets_inside_fields_are_hidden(extra: dict[str, Any]) -> None:
    line = json.dumps(written("x", **extra))
    assert HIDDEN in line
    assert SECRET not in line


def test_only_fields_of_the_list_are_logged() -> None:
    record = written("x", rule="welcome", headers="h", body="b", user={"name": "Alice"}, event_name="n", profile="p")
    assert set(record) == {"event", "level", "logger", "time", "job", "worker", "rule"}


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "arguments", [("%d", SECRET), ("%s and %s", SECRET), ("%s", Hostile()), ("%(name)s", {"x": SECRET})]
)
def test_arguments_that_do_not_fit_are_not_written_anywhere(
    arguments: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    record = written(*arguments)
    assert record["event"] == f"{arguments[0]} [with arguments that do not fit]"
    assert SECRET not in json.dumps(record)
    assert capsys.readouterr().err == ""


def test_a_value_without_text_does_not_end_the_log() -> None:
    assert written("x", reason=Hostile())["reason"] == "[Hostile without text: RuntimeError]"


def test_exceptions_are_logged_without_their_secrets() -> None:
    try:
        raise ValueError("refused: Bearer abc.def")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "call failed", (), None)
        record.exc_info = sys.exc_info()
    line = json.loads(logs.formatter({}).format(record))
    assert line["exception"].endswith("ValueError: refused: Bearer [hidden]")


def test_a_handler_that_reads_records_gets_formatted_records() -> None:
    class Looks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    seen: list[logging.LogRecord] = []
    handler = Looks()
    logs.format_before(handler, logs.formatter({"job": "nightly"}))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    try:
        raise ValueError("password=abc")
    except ValueError:
        logger.exception("100%% %s", "bad")

    (record,) = seen
    assert record.exc_info is None
    line = json.loads(record.getMessage())
    assert (line["event"], line["job"]) == ("100% bad", "nightly")
    assert "password=[hidden]" in line["exception"]
