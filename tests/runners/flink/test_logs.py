from __future__ import annotations

import hashlib
import io
import json
import logging
import sys
from typing import Any

import pytest

from runners.flink import logs

SHA_OF_ALICE = hashlib.sha256(b"alice").hexdigest()


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
    record = written("user forgotten", user_id="alice")
    assert record["user_sha256"] == SHA_OF_ALICE
    assert "alice" not in json.dumps(record)
    assert written("user forgotten", show_users=True, user_id="alice")["user_id"] == "alice"


SECRET = "s3cr3t-Value_1"


@pytest.mark.parametrize(
    "extra",
    [
        {"signing_secret": SECRET},
        {"headers": {"Authorization": SECRET, "X-Source": "us"}},
        {"properties": [f"sasl.jaas.config=Login required password={SECRET}"]},
        {"api_key": SECRET},
        {"token": 12345678},
    ],
)
def test_values_whose_name_says_secret_are_hidden(extra: dict[str, Any]) -> None:
    line = json.dumps(written("x", **extra))
    assert logs.HIDDEN in line
    assert SECRET not in line
    assert "12345678" not in line


@pytest.mark.parametrize(
    "text",
    [
        "signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw.",
        "signature v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=",
        "Authorization: Bearer whateverItIs.123",
        "GET https://user:passw0rd@host/path failed",
        "using AKIAIOSFODNN7EXAMPLE today",
        "password='a b c d' and more",
        '{"client_secret": "abcdef", "n": 1}',
        "url?x=1&api_key=abcdef&y=2",
        "sasl.password=abcdef,sasl.mechanism=PLAIN",
    ],
)
def test_secrets_inside_texts_are_hidden(text: str) -> None:
    line = logs.without_secrets(text)
    assert logs.HIDDEN in line
    parts = ("MfKQ9r8", "K5oZfzN95", "aaaaaaa", "whateverItIs", "passw0rd", "AKIAIOS", "a b c d", "abcdef")
    assert not any(part in line for part in parts)


@pytest.mark.parametrize(
    "text",
    [
        "job 0123 is running: http://127.0.0.1:8081/#/job/0123/overview",
        "Beam imported in 1.4 s, connected in 0.2 s",
        "rule 'tokens_spent' version 3 is live",
        "see https://hooks.example.com/@us/x",
    ],
)
def test_texts_without_secrets_stay(text: str) -> None:
    assert logs.without_secrets(text) == text


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("env:API_TOKEN: no such environment variable", "env:API_TOKEN: no such environment variable"),
        ("allowed: aws-secret:NAME#JSON-KEY (the key)", "allowed: aws-secret:NAME#JSON-KEY (the key)"),
        ("API_TOKEN: hush", "API_TOKEN: [hidden]"),
        ("my.api-token=hush", "my.api-token=[hidden]"),
    ],
)
def test_a_reference_to_a_secret_is_none(text: str, shown: str) -> None:
    assert logs.without_secrets(text) == shown
