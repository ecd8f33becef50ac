"""docs/webhooks.md matches the code."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.jobs import ROOT
from transforms.adapters.webhook_sender import lanes, send_pool
from transforms.adapters.webhook_sender import sender as attempts
from transforms.domain.users import fetched_user as profiles
from transforms.domain.webhooks.destinations import Destination, load_destinations
from transforms.domain.webhooks.results import Outcome
from transforms.domain.webhooks.signatures import parse_keys, signature_headers
from transforms.domain.webhooks.url_policy import EgressPolicy

TEXT = (ROOT / "docs/webhooks.md").read_text("utf-8")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(text)


def test_the_example_verifies_what_is_sent_and_nothing_else() -> None:
    example: dict[str, Any] = {}
    exec(block("python"), example)  # noqa: S102 - that it runs is the point
    now_s = int(time.time())
    headers = signature_headers(parse_keys("whsec_" + "A" * 40 + f" {SECRET}"), "w1", now_s, b"{}")
    example["verify"](SECRET, headers, b"{}")
    old = signature_headers(parse_keys(SECRET), "w1", now_s - 301, b"{}")
    for given, body in ((headers, b"{ }"), (headers | {"webhook-id": "w2"}, b"{}"), (old, b"{}")):
        with pytest.raises(ValueError, match=r"fits|too old"):
            example["verify"](SECRET, given, body)


def test_the_example_of_a_destination_has_every_field_and_the_table_too(tmp_path: Path) -> None:
    path = tmp_path / "destinations.yaml"
    path.write_text(block("yaml"))
    (crm,) = load_destinations(path, EgressPolicy())
    assert crm.model_fields_set == set(Destination.model_fields)
    assert crm.retry == Destination(name="a", url="", secrets=("env:A",)).retry
    table = TEXT.partition("| field | default | |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(Destination.model_fields)


def test_every_kind_of_error_and_outcome_is_named() -> None:
    section = TEXT.partition("### What is recorded of an attempt\n")[2]
    outcomes, _, kinds = section.partition("The kinds:")
    assert set(re.findall(r"`([a-z_]+)`", outcomes)) == {outcome.value for outcome in Outcome}
    assert set(re.findall(r"`([a-z_]+)`", kinds)) == {
        *(profiles.TIMEOUT, profiles.CONNECTION, profiles.STATUS, profiles.BAD_ANSWER),
        *(profiles.BREAKER_OPEN, profiles.OTHER),
        *(
            attempts.REDIRECT,
            attempts.BLOCKED,
            attempts.UNSIGNED,
            attempts.UNAUTHORIZED,
            lanes.PAUSED,
            send_pool.NO_DESTINATION,
        ),
    }
