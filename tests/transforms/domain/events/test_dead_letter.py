"""Dead letters as JSON, and their description in docs/dead-letters.md."""

from __future__ import annotations

import base64
import dataclasses
import re

import orjson
import pytest
from msgspec.structs import replace

from tests.integration.jobs import ROOT
from transforms.domain.events import dead_letter as dead_letters
from transforms.domain.events.dead_letter import MAX_KEY_BYTES, MAX_VALUE_BYTES, STAGES, DeadLetter, LostAction
from transforms.domain.webhooks.delivery_queue import MAX_BODY_BYTES

LETTER = DeadLetter("key_mismatch", "why", "events", 3, 7, 1_704_067_200_000, b"\xff", b'{"a": 1}')
ACTION = LostAction("0" * 32, 2, "webhook", "crm", "u", "e", b"\x00body", 5, 3, 400)
LOST = DeadLetter("undelivered", "after 3 attempts", "", -1, -1, 9, b"u", b"", "r", ACTION)


@pytest.mark.parametrize("letter", [LETTER, LOST])
def test_a_letter_is_read_as_it_was_written(letter: DeadLetter) -> None:
    assert DeadLetter.of_json(letter.to_json()) == letter == letter.fitting()


def test_a_letter_of_the_longest_record_is_truncated_to_fit_into_a_record_and_says_so() -> None:
    mb = 1 << 20
    action = dataclasses.replace(ACTION, body=b"b" * mb)
    cut = replace(LOST, detail="ä" * mb, key=b"k" * mb, value=b"v" * mb, action=action).fitting()
    written = cut.to_json()
    assert len(written) + len(cut.key or b"") < 1_000_000
    shown = orjson.loads(written)
    assert shown["cut"] is True
    assert (shown["detail"][:1], shown["detail"][-1]) == ("ä", "…")
    for text, byte in ((shown["key"], b"k"), (shown["value"], b"v"), (shown["action"]["body"], b"b")):
        kept = base64.b64decode(text)
        assert kept == byte * len(kept)
        assert len(kept) >= 32 * 1024
    assert DeadLetter.of_json(written) == cut


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_letter_at_its_limit_is_not_truncated(part: str) -> None:
    limit = {"key": MAX_KEY_BYTES, "value": MAX_VALUE_BYTES}[part]
    whole = replace(LETTER, **{part: b"x" * limit})  # type: ignore[arg-type]
    assert whole.fitting() == whole
    longer = replace(LETTER, **{part: b"x" * (limit + 1)})  # type: ignore[arg-type]
    assert longer.fitting() == replace(whole, cut=True)


def test_a_webhook_s_largest_body_is_not_truncated_in_its_letter() -> None:
    assert MAX_BODY_BYTES <= MAX_VALUE_BYTES


def test_letters_of_an_earlier_and_of_a_later_release_are_read() -> None:
    document = orjson.loads(LETTER.to_json())
    del document["stage"]
    assert DeadLetter.of_json(orjson.dumps(document)).stage == "input"
    later = DeadLetter.of_json(orjson.dumps(document | {"reason": "new", "stage": "new", "more": 1}))
    assert (later.reason, later.stage) == ("new", "unknown")


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b"\xff", b"[" * 5000, orjson.dumps({"reason": 1})])
def test_bytes_that_are_not_a_letter_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="no dead letter: "):
        DeadLetter.of_json(value)


PAGE = (ROOT / "docs/dead-letters.md").read_text("utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def reasons() -> set[str]:
    """Every reason of the module, read from its source instead of ``STAGES``."""
    source = (ROOT / "transforms/domain/events/dead_letter.py").read_text("utf-8")
    constants = re.findall(r'^([A-Z_]+) = "([a-z_]+)"', source, re.MULTILINE)
    stages = {"INPUT", "RULE", "DELIVERY", "CONTROL", "UNKNOWN"}
    return {value for name, value in constants if name not in stages}


def test_every_reason_has_a_stage() -> None:
    assert set(STAGES) == reasons()
    assert set(STAGES.values()) == {"input", "rule", "delivery", "control"}
    assert {getattr(dead_letters, reason.upper()) for reason in STAGES} == set(STAGES)


def test_the_page_has_every_reason_at_its_stage() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z]+) \|", section("Reasons"), re.MULTILINE)
    assert dict(rows) == STAGES
    assert len(rows) == len(STAGES)


def test_the_page_has_every_field() -> None:
    shown = orjson.loads(replace(LOST, signature="v1,x").to_json())
    fields = re.findall(r"^\| `([a-z_.]+)` \|", section("The record"), re.MULTILINE)
    assert fields == [name for name in shown if name != "action"] + [f"action.{name}" for name in shown["action"]]
    assert base64.b64decode(shown["action"]["body"]) == ACTION.body


def test_redrive_commands_of_the_docs_name_reasons_that_can_be_redriven() -> None:
    named = [
        reason
        for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        for line in page.read_text().splitlines()
        if "dead-letters" in line or "--reason=" in line
        for reason in re.findall(r"--reason=([a-z_]+)", line)
    ]
    assert {"undelivered", "destination_disabled"} <= set(named) <= STAGES.keys() - dead_letters.FAILS_AGAIN
    # The webhook that got the 410 is lettered undelivered, those behind it destination_disabled.
    gone = (ROOT / "docs" / "delivery.md").read_text().split("destinations enable crm", 1)[1].split("```", 1)[0]
    assert re.findall("--reason=([a-z_]+)", gone) == ["destination_disabled", "undelivered"]
