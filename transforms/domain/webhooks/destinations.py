"""Destinations of webhooks: the models of the destinations file, and its reader.

Every problem of a file is reported with file, line and field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from transforms.domain.base.checked_documents import Problem, documents, validated
from transforms.domain.base.durations import Duration
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.base.models import StrictModel, repeated
from transforms.domain.base.secret_references import ALLOWED, REFERENCE, is_reference
from transforms.domain.rules.model import Name
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.domain.webhooks.url_policy import BlockedError, EgressPolicy, parse_target

MAX_TIMEOUT: Final = Duration.parse("1m")

# Headers that the sender sets, or that would change the meaning of the request.
_RESERVED: Final = re.compile(
    r"webhook-.*|host|content-.*|transfer-encoding|connection|keep-alive|proxy-.*|te|trailer|upgrade|expect|accept-encoding|user-agent"
)
_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_MAX_VALUE: Final = 4096


class DestinationError(EventTriggerError, ValueError):
    """A destinations file that cannot be used; the message names the file, line, field and what is allowed."""


def _reference(text: str) -> str:
    if not is_reference(text):
        raise ValueError(f"a reference to a secret, never the secret itself; allowed: {ALLOWED}")
    return text


Reference = Annotated[
    str, AfterValidator(_reference), WithJsonSchema({"type": "string", "pattern": f"^({REFERENCE})$"})
]


class SecretValue(StrictModel):
    """A header value that is stored as a secret."""

    secret: Reference


def is_header_value(text: str) -> bool:
    """Whether a header can have this value: visible ASCII, spaces only inside, at most 4,096 characters."""
    return len(text) <= _MAX_VALUE and _VALUE.fullmatch(text) is not None


def _header_value(text: str) -> str:
    if not is_header_value(text):
        raise ValueError(f"not visible ASCII with spaces only inside, or over {_MAX_VALUE} characters")
    return text


def _header_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        raise ValueError("a header's name is 1 to 64 letters, digits and -")
    if _RESERVED.fullmatch(name.lower()):
        raise ValueError("a header that is set for every webhook or would change the request")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[
    Annotated[str, AfterValidator(_header_value), Tag("text")] | Annotated[SecretValue, Tag("reference")],
    Discriminator(lambda value: "reference" if isinstance(value, dict | SecretValue) else "text"),
]


class OAuth2(StrictModel):
    """How a destination's bearer token is requested: client credentials of RFC 6749, section 4.4."""

    token_url: str = Field(description="https://host[:port][/path][?query] of the authorization server", repr=False)
    client_id: HeaderValue = Field(description="text, or {secret: reference}")
    client_secret: Reference = Field(description="a reference to the client's secret")
    scope: Annotated[str, AfterValidator(_header_value)] | None = Field(default=None, description="scopes, by spaces")


class Destination(StrictModel):
    """One destination: where its webhooks go, how and how often. ``url_policy`` decides whether the URL is allowed."""

    name: Name = Field(description="unique among the destinations; what rules say")
    url: str = Field(description="https://host[:port][/path][?query]", repr=False)
    secrets: tuple[Reference, ...] = Field(
        min_length=1, max_length=5, strict=False, description="references to signing secrets (whsec_…); each one signs"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default={}, max_length=20, description="fixed ones; a value may be {secret: reference}"
    )
    oauth2: OAuth2 | None = Field(
        default=None, description="sends Authorization: Bearer with a token of client credentials"
    )
    timeout: Duration = Field(default=Duration.parse("10s"), description="of one attempt, whole; at most 1m")
    rate: float | None = Field(default=None, gt=0, le=10_000, description="attempts a second; default: no limit")
    max_in_flight: int = Field(default=8, ge=1, le=256, description="attempts at the same time in one process")
    retry: RetrySchedule = Field(default=RetrySchedule(), description="of what fails for now")

    @model_validator(mode="after")
    def _is_consistent(self) -> Destination:
        if self.timeout.ms > MAX_TIMEOUT.ms:
            raise ValueError(f"timeout is {self.timeout}, allowed are up to {MAX_TIMEOUT}")
        name = repeated(name.lower() for name in self.headers)
        if name is not None:
            raise ValueError(f"header {name!r} is given twice; case makes no difference")
        if self.oauth2 is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("oauth2 sets the header Authorization, which headers has, too")
        return self


# Errors do not show values of the other fields: they are secret, or may hold a secret by mistake.
_SHOWN: Final = frozenset(Destination.model_fields) - {"url", "secrets", "headers", "oauth2"}


def load_destinations(path: Path, policy: EgressPolicy) -> tuple[Destination, ...]:
    """Read the destinations of a YAML file, in its order.

    Raises:
        DestinationError: the file has problems; the message has one a line.
    """
    destinations, problems = read_destinations(path, policy)
    if problems:
        raise DestinationError("\n".join(map(str, problems)))
    return destinations


def read_destinations(path: Path, policy: EgressPolicy) -> tuple[tuple[Destination, ...], list[Problem]]:
    """Read a destinations file and return its valid destinations and all problems."""
    problems: list[Problem] = []
    all_documents = list(documents(path, problems))
    if problems:
        return (), problems
    if len(all_documents) != 1:
        detail = f"{len(all_documents)} documents, allowed is one with a list of destinations"
        return (), [Problem(path, None, detail)]
    document, value = all_documents[0], all_documents[0].value
    if not isinstance(value, dict) or list(value) != ["destinations"] or not isinstance(value["destinations"], list):
        return (), [Problem(path, document.line, "a destinations file is one field, destinations, with a list")]
    destinations: dict[str, Destination] = {}
    for number, item in enumerate(value["destinations"]):
        at = ("destinations", number)
        destination = validated(Destination, path, document, item, problems, at, shown=_SHOWN)
        if destination is None:
            continue
        errors = list(_errors(destination, destinations, policy))
        for field_name, error in errors:
            line = document.line_of((*at, field_name))
            problems.append(Problem(path, line, f"destinations.{number}.{field_name}: {error}"))
        if not errors:
            destinations[destination.name] = destination
    return tuple(destinations.values()), problems


def _errors(destination: Destination, others: Collection[str], policy: EgressPolicy) -> Iterator[tuple[str, str]]:
    """Yield field and message of each error that the model itself cannot find."""
    if destination.name in others:
        yield "name", f"{destination.name!r} is taken; names are unique"
    try:
        parse_target(destination.url, policy)
    except BlockedError as error:
        yield "url", str(error)
    try:
        if destination.oauth2 is not None:
            parse_target(destination.oauth2.token_url, policy)
    except BlockedError as error:
        yield "oauth2", f"token_url: {error}"
