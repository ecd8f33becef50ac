"""No wording of pydantic reaches a person."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, create_model

from transforms.domain.base.model_errors import allowed
from transforms.domain.base.models import StrictModel

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
