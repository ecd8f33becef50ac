"""Numbered rule sets and their records in the rules topic.

A set with a higher number replaces one with a lower number. Set 0 is the set that a job was launched with; sets from 1
are published. A set's record is a control record, ``{"rules": {…}}``, and contains everything that a worker needs.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, ValidationError

from transforms.domain.base import exact_json
from transforms.domain.base.model_errors import allowed
from transforms.domain.base.models import StrictModel, repeated
from transforms.domain.rules.groups import groups_of, in_groups
from transforms.domain.rules.model import Group, Groups, Rule, RuleError

RECORD_VERSION: Final = 1
# Kafka's default limit of a message is 1 MB, with its framing.
MAX_RECORD_BYTES: Final = 900_000
MAX_NUMBER: Final = 2**53 - 1
# Publishing counts by one. A number far beyond the last one would leave none for the sets that follow.
MAX_JUMP: Final = 1_000_000

# Shortens values of any length and depth in messages.
_shortener = reprlib.Repr()
_shortener.maxstring = 100


class _Content(StrictModel):
    version: Literal[1]
    number: int = Field(ge=1, le=MAX_NUMBER)
    published: int = Field(ge=0, le=MAX_NUMBER)
    by: Annotated[str, Field(max_length=200)]
    note: Annotated[str, Field(max_length=1000)] = ""
    rules: tuple[Rule, ...] = Field(min_length=1, strict=False)
    groups: Groups = Field(default_factory=dict)


class _Record(StrictModel):
    rules: _Content


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An audit record: a user shard, one of ``shards``, has made a rule set live."""

    number: int
    shard: int
    shards: int
    at_ms: int

    @property
    def key(self) -> bytes:
        """The key of the audit record, so that the records of a shard keep their order."""
        return b"rules-%d" % self.shard

    def to_json(self) -> bytes:
        """Encode as JSON."""
        return orjson.dumps(
            {"audit": "rules", "number": self.number, "shard": self.shard, "shards": self.shards, "time": self.at_ms}
        )

    @classmethod
    def of_json(cls, value: bytes) -> Acknowledgement | None:
        """Decode an audit record, None if it is of another kind."""
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(document, dict) or document.get("audit") != "rules":
            return None
        numbers: list[Any] = list(map(document.get, ("number", "shard", "shards", "time")))
        return cls(*numbers) if all(isinstance(number, int) for number in numbers) else None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules that are live together.

    Attributes:
        number: the set's number.
        rules: its rules; their names are unique.
        published_ms: when it was published, ms since the epoch.
        by: who published it.
        note: why, for people.
        digest: SHA-256 of the rules (hex); equal rules have equal digests.
    """

    number: int
    rules: tuple[Rule, ...]
    published_ms: int = 0
    by: str = ""
    note: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        rules, groups = [_document(rule) for rule in self.rules], _group_documents(self.rules)
        documents = exact_json.dumps([*rules, groups] if groups else rules, orjson.OPT_SORT_KEYS)
        object.__setattr__(self, "digest", hashlib.sha256(documents).hexdigest())

    @property
    def key(self) -> bytes:
        """The key of the record, ``set-<number>``."""
        return b"set-%d" % self.number

    @property
    def versions(self) -> dict[str, int]:
        """The version of each rule by name."""
        return {rule.name: rule.version for rule in self.rules}


def encode_rule_set(rule_set: RuleSet) -> bytes:
    """Encode the value of a set's record as JSON.

    Raises:
        RuleError: the record is too large, or ``decode_rule_set`` would refuse it.
    """
    value = exact_json.dumps(
        {
            "rules": {
                "version": RECORD_VERSION,
                "number": rule_set.number,
                "published": rule_set.published_ms,
                "by": rule_set.by,
                "note": rule_set.note,
                "rules": [_document(rule) for rule in rule_set.rules],
                **({"groups": groups} if (groups := _group_documents(rule_set.rules)) else {}),
            }
        }
    )
    decode_rule_set(value)
    return value


def decode_rule_set(value: bytes) -> RuleSet:
    """Decode the value of a set's record. It does not compile the Lua, ``FilterSet`` does.

    Raises:
        RuleError: the value is not a valid record; the message names the field, the value and what is allowed.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise RuleError(f"rule set is {len(value)} bytes, allowed are {MAX_RECORD_BYTES}: use fewer or shorter rules")
    try:
        document = exact_json.loads(value)
        if exact_json.may_have_long_integers(value):
            document = json.loads(value)  # pydantic would take a LongInteger for a float
    except ValueError as error:
        raise RuleError(f"rule set is not JSON: {error}") from None
    except RecursionError:
        raise RuleError("rule set: nested too deeply") from None
    _check_version(document)
    try:
        content = _Record.model_validate(document).rules
    except ValidationError as error:
        raise RuleError(_first_error(error)) from None
    except RecursionError:
        raise RuleError("rule set: nested too deeply") from None
    name = repeated(rule.name for rule in content.rules)
    if name is not None:
        raise RuleError(f"rule set: rule name {name!r} is used twice; names are unique")
    try:
        rules = in_groups(content.rules, content.groups)
    except RuleError as error:
        raise RuleError(f"rule set: {error}") from None
    try:
        return RuleSet(content.number, rules, content.published, content.by, content.note)
    except (TypeError, ValueError, RecursionError) as error:  # a value of a body that JSON can hold, and nobody writes
        raise RuleError(f"rule set: its rules cannot be written as JSON: {error}") from None


def shards_behind(number: int, acknowledged: Iterable[Acknowledgement]) -> tuple[list[int], int]:
    """Find the shards in which a rule set is not live yet.

    Args:
        number: the set's number.
        acknowledged: acknowledgements, those of each shard in their order.

    Returns:
        The shards whose last acknowledgement is missing or of a lower set, and the number of shards according to the
        latest acknowledgement (0 without any).
    """
    last: dict[int, Acknowledgement] = {}
    newest: Acknowledgement | None = None
    for acknowledgement in acknowledged:
        last[acknowledgement.shard] = acknowledgement
        newest = acknowledgement if newest is None or acknowledgement.at_ms >= newest.at_ms else newest
    shards = 0 if newest is None else newest.shards
    live = {ack.shard for ack in last.values() if ack.number >= number and ack.shards == shards}
    return [shard for shard in range(shards) if shard not in live], shards


def check_number(number: int, highest: int) -> None:
    """Check the number of a set that follows sets up to ``highest``.

    Raises:
        RuleError: it is far beyond them.
    """
    if number > highest + MAX_JUMP:
        raise RuleError(
            f"rule set: number is {number}, allowed are up to {highest + MAX_JUMP}, {MAX_JUMP:,} beyond the last one"
        )


def number_of_key(key: bytes | None) -> int | None:
    """Return the set's number in a record's key, None if the key is of another kind."""
    match = re.fullmatch(rb"set-([0-9]{1,16})", key or b"")
    return int(match[1]) if match else None


def _document(model: Rule | Group) -> dict[str, Any]:
    # Without defaults, so that a release without some field can read every set that does not use that field.
    return model.model_dump(mode="json", exclude_defaults=True)


def _group_documents(rules: Iterable[Rule]) -> dict[str, Any]:
    return {name: _document(group) for name, group in groups_of(rules).items()}


def _check_version(document: Any) -> None:
    content = document.get("rules") if isinstance(document, dict) else None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > RECORD_VERSION:
        raise RuleError(f"rule set: version is {version}, this release reads {RECORD_VERSION}; use the newer release")


def _first_error(error: ValidationError) -> str:
    details = error.errors(include_url=False)[0]
    location = details["loc"]
    inside = location[1:] if location[:1] == ("rules",) else location
    name = ".".join(str(part) for part in inside) or "rules"
    if details["type"] == "missing":
        return f"rule set: {name} is missing"
    return f"rule set: {name} is {_shortener.repr(details['input'])}: {allowed(details)}"


class StoredRules:
    """The rule set of a shard: its number, the value of its record, and a digest of that value (16 bytes)."""

    __slots__ = ("digest", "number", "record")

    def __init__(self, number: int, record: bytes) -> None:
        self.number = number
        self.record = record
        self.digest = hashlib.blake2b(record, digest_size=16).digest()
