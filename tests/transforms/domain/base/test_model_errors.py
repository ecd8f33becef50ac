"""No wording of pydantic reaches a person."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, create_model

from tests.builders import read_rule_files
from transforms.domain.base.model_errors import allowed
from transforms.domain.base.models import StrictModel
from transforms.domain.rules.schema import rule_schema_json

PYDANTIC = re.compile(r"Input|should|valid|Value error|Extra|permitted|pydantic", re.IGNORECASE)


class Inner(StrictModel):
    type: Literal["a"]


class Other(StrictModel):
    type: Literal["b"]


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (str, 5, "allowed is text"),
        (int, "x", "allowed is a whole number"),
        (int, 1.5, "allowed is a whole number"),
        (float, "x", "allowed is a number"),
        (bool, 1, "allowed is true or false"),
        (list[str], "x", "allowed is a list"),
        (tuple[str, ...], "x", "allowed is a list"),
        (dict[str, Any], [], "allowed is a mapping"),
        (Inner, [], "allowed is a mapping"),
        (Literal["x", "y"], "z", "allowed is 'x' or 'y'"),
        (Annotated[int, Field(ge=1)], 0, "allowed is 1 or more"),
        (Annotated[int, Field(le=1)], 2, "allowed is 1 or less"),
        (Annotated[float, Field(gt=0)], 0.0, "allowed is more than 0.0"),
        (Annotated[float, Field(lt=0)], 0.0, "allowed is less than 0.0"),
        (Annotated[float, Field(allow_inf_nan=False)], float("inf"), "allowed is a finite number"),
        (Annotated[str, Field(min_length=1)], "", "allowed is 1 character or more"),
        (Annotated[str, Field(min_length=2)], "", "allowed is 2 characters or more"),
        (Annotated[str, Field(max_length=1)], "xx", "allowed is 1 character or less"),
        (Annotated[list[str], Field(min_length=1)], [], "allowed is 1 item or more"),
        (Annotated[str, Field(pattern="^x$")], "y", "allowed is text of the form ^x$"),
        (Annotated[Inner | Other, Field(discriminator="type")], {"type": "c"}, "allowed is 'a', 'b'"),
        (Annotated[Inner | Other, Field(discriminator="type")], {}, "allowed is a mapping with 'type'"),
        (complex, "x", "allowed is something else"),
    ],
)
def test_what_is_allowed_is_in_our_words(kind: Any, value: Any, message: str) -> None:
    model = create_model("Model", __base__=StrictModel, value=(kind, ...))
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"value": value})
    text = allowed(caught.value.errors()[0])
    assert text == message
    assert not PYDANTIC.search(text)


def test_every_pattern_of_a_rule_has_words() -> None:
    patterns = set(map(json.loads, re.findall(r'"pattern": (".*")', rule_schema_json())))
    assert len(patterns) >= 5
    # A duration and the name of a file have messages of their own.
    for pattern in patterns - {r"^[1-9][0-9]{0,7}[smhdw]$", r"^[A-Za-z0-9_-][A-Za-z0-9._-]*\.lua$"}:
        model = create_model("Model", __base__=StrictModel, value=(Annotated[str, Field(pattern=pattern)], ...))
        with pytest.raises(ValidationError) as caught:
            model.model_validate({"value": "#"})
        assert "of the form" not in allowed(caught.value.errors()[0])


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("match: 5", "sequence.match is 5: allowed is text"),
        ("match: {begun: a}", "sequence.match.followed is missing"),
        (
            "match: {begun: a, followed: 'a['}",
            "sequence.match.followed is 'a[': allowed is a name, or a path like parameters.items[].sku",
        ),
        (
            "match: {begun: 'a[]', followed: a}",
            "sequence.match.begun is 'a[]': allowed is a name, or a path like parameters.cart_id",
        ),
    ],
)
def test_errors_of_either_form_of_match_name_what_is_written(tmp_path: Path, sequence: str, message: str) -> None:
    text = (
        "name: r\nversion: 1\nfilter: event.a\nactions: [{type: debug}]\nsequence: {followed_by: event.b, within: 1h, "
    )
    (tmp_path / "r.yaml").write_text(f"{text}{sequence}}}\n")
    assert [problem.detail for problem in read_rule_files(tmp_path).problems] == [message]


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        (
            "sequence: {steps: [{folowed_by: a, followed_by: b, within: 1h}, {followed_by: b, within: 1h}]}",
            "followed_by",
        ),
        ("sequence: {followed_by: b, within: 1h, match: {begun: a, followed: b, folowed: c}}", "followed"),
        ("active: {form: '08:00', days: [mon]}", "from"),
        ("quiet_hours: {start: '08:00', end: '09:00', strat: 1}", "start"),
        ("cooldown: {time: 1d, kee: a}", "key"),
        ("cooldwn: 1d", "cooldown"),
    ],
)
def test_a_field_that_is_misspelt_at_any_place_gets_a_hint(tmp_path: Path, field: str, hint: str) -> None:
    text = "name: r\nversion: 1\nfilter: event.a\nactions: [{type: debug}]\n"
    (tmp_path / "r.yaml").write_text(f"{text}{field}\n")
    (problem,) = read_rule_files(tmp_path).problems
    assert problem.detail.endswith(f": no such field; did you mean {hint!r}?")


def test_a_list_that_is_too_short_is_named_unless_an_item_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = "name: r\nversion: 1\nfilter: event.a\nactions: [{type: debug}]\nsequence: {steps: [STEP]}\n"
    step = "{followed_by: event.b, within: 1h}"
    for steps, message in (
        (step, "sequence.steps is [{'followed_by': 'event.b', 'within': '1h'}]: allowed is 2 items or more"),
        (f"5, {step}", "sequence.steps.0 is 5: allowed is a mapping"),
    ):
        path.write_text(text.replace("STEP", steps))
        assert [problem.detail for problem in read_rule_files(path).problems] == [message]
