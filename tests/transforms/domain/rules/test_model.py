from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.builders import rule
from transforms.domain.base.durations import Duration
from transforms.domain.rules.model import Active, Cap, Cooldown, QuietHours, Rule, TimeZone
from transforms.domain.rules.sequence_model import Sequence

MINUTE = 60_000
STEP = {"followed_by": "true", "within": "1h"}
DAY = 24 * 60 * MINUTE


FULL: dict[str, Any] = {
    "cooldown": {"time": "1d", "key": "event.parameters.sku"},
    "cap": {"count": 3, "per": "week"},
    "quiet_hours": {"start": "22:00", "end": "08:00"},
    "time_zone": {"profile_field": "tz", "default": "Europe/Berlin"},
    "sequence": {"not_followed_by": "event.event_name == 'checkout'", "within": "30m", "match": "parameters.cart_id"},
    "on_missing_profile": "run",
    "active": {"days": ["mon", "sun"], "from": "09:00", "to": "24:00"},
}


def test_a_rule_waits_for_the_profile_unless_it_says_otherwise() -> None:
    assert rule().on_missing_profile == "wait"
    assert rule(on_missing_profile="skip").on_missing_profile == "skip"


def test_optional_fields_are_read() -> None:
    full = rule(**FULL)
    assert full.cooldown == Cooldown(time=Duration(DAY), key="event.parameters.sku")
    assert full.cap == Cap(count=3, per="week")
    assert full.quiet_hours == QuietHours(start="22:00", end="08:00")
    assert full.time_zone == TimeZone(profile_field="tz", default="Europe/Berlin")
    assert full.sequence == Sequence(
        not_followed_by="event.event_name == 'checkout'", within=Duration(30 * MINUTE), match="parameters.cart_id"
    )
    assert full.active == Active.model_validate(FULL["active"], strict=False)
    assert rule(cooldown="2h").cooldown == Cooldown(time=Duration(120 * MINUTE))


def test_a_rule_is_the_same_after_encoding_and_decoding() -> None:
    full = rule(**FULL)
    assert Rule.model_validate_json(full.model_dump_json()) == full


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cooldown": {"key": "event.a"}}, "cooldown.time\n  Field required"),
        ({"cooldown": 5}, "cooldown\n"),
        ({"cap": {"count": 1}}, "needs either window .rolling. or per"),
        ({"cap": {"count": 1, "window": "1d", "per": "day"}}, "needs either window"),
        ({"cap": {"count": 0, "per": "day"}}, "greater than or equal to 1"),
        ({"cap": {"count": 1, "per": "year"}}, "'day', 'week' or 'month'"),
        ({"quiet_hours": {"start": "22:00", "end": "22:00"}}, "same time of day"),
        ({"quiet_hours": {"start": "24:00", "end": "08:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "8:00", "end": "09:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "00:00", "end": "24:00"}}, "all hours of all days are quiet"),
        ({"quiet_hours": {"start": "22:00", "end": "08:00", "mode": "defer"}}, "'hold' or 'drop'"),
        ({"quiet_hours": {"start": "22:00", "end": "08:00", "days": []}}, "quiet_hours.days"),
        ({"active": {}}, "it leaves out no time"),
        ({"active": {"days": ["mon", "tue", "mon"]}}, "mon is there twice"),
        ({"active": {"days": ["monday"]}}, "'mon', 'tue'"),
        ({"active": {"from": "09:00", "to": "09:00"}}, "same time of day"),
        ({"active": {"from": "9:00"}}, "active.from"),
        ({"active": {"start": "09:00"}}, "active.start"),
        ({"time_zone": {"default": "Mars/Olympus"}}, "no such time zone"),
        ({"time_zone": {"default": "../../etc/passwd"}}, "no such time zone"),
        ({"sequence": {"within": "1h"}}, "needs either followed_by or not_followed_by, or steps"),
        ({"sequence": {"steps": [STEP]}}, "sequence.steps"),
        ({"actions": [{"type": "kafka", "body": {"a": "${begun.x}"}}]}, "the rule has no sequence"),
        ({"sequence": {"steps": [STEP, {"within": "1h"}]}}, "needs either followed_by or not_followed_by"),
        ({"sequence": {"steps": [{"not_followed_by": "true", "within": "1h"}, STEP]}}, "only the last step"),
        ({"sequence": {"steps": [STEP, STEP], "within": "1h"}}, "steps stands alone"),
        ({"sequence": {"steps": [STEP, STEP], "followed_by": "true"}}, "steps stands alone"),
        ({"sequence": {"steps": [STEP] * 9}}, "at most 8 items"),
        ({"sequence": STEP | {"match": {"begun": "a[].b", "followed": "c"}}}, "sequence.match.Match.begun"),
        ({"sequence": STEP | {"match": "a[].b"}}, "sequence.match"),
        ({"sequence": {"followed_by": "true", "not_followed_by": "true", "within": "1h"}}, "needs either"),
        ({"sequence": {"followed_by": "true"}}, "needs within"),
        ({"sequence": {"followed_by": "true", "within": "1h", "match": "a..b"}}, "sequence.match"),
    ],
)
def test_a_bad_field_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rule(**fields)
