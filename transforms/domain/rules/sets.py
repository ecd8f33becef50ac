"""Numbered rule sets: the record that the rules topic holds of each, and the order they apply in.

A set with a higher number replaces one with a lower. Set 0 is what a job was launched with from files; sets from 1 are
published. The record is a control record, ``{"rules": {…}}``, with everything inlined that a worker needs.
"""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, ValidationError

from transforms.domain.base.models import StrictModel
from transforms.domain.rules.model import Rule, RuleError

RECORD_VERSION: Final = 1
# Kafka takes messages of up to a megabyte unless told otherwise, what it puts around them included.
MAX_RECORD_BYTES: Final = 900_000
MAX_NUMBER: Final = 2**53 - 1

# Of any value, however long or deep.
_shown = reprlib.Repr()
_shown.maxstring = 100


class _Content(StrictModel):
    version: Literal[1]
    number: int = Field(ge=1, le=MAX_NUMBER)
    published: int = Field(ge=0, le=MAX_NUMBER)
    by: Annotated[str, Field(max_length=200)]
    note: Annotated[str, Field(max_length=1000)] = ""
    rules: tuple[Rule, ...] = Field(min_length=1, strict=False)


class _Record(StrictModel):
    rules: _Content


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """That a user shard, one of ``shards``, has made a set live; an audit record."""

    number: int
    shard: int
    shards: int
    at_ms: int

    @property
    def key(self) -> bytes:
        """The key of the audit record: those of a shard keep their order."""
        return b"rules-%d" % self.shard

    def to_json(self) -> bytes:
        """The audit record."""
        return orjson.dumps(
            {
                "audit": "rules",
                "number": self.number,
                "shard": self.shard,
                "shards": self.shards,
                "time": self.at_ms,
            }
        )

    @classmethod
    def of_json(cls, value: bytes) -> Acknowledgement | None:
        """Read an audit record; None if it is of something else."""
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(document, dict) or document.get("audit") != "rules":
            return None
        numbers = [one for one in map(document.get, ("number", "shard", "shards", "time")) if isinstance(one, int)]
        return cls(*numbers) if len(numbers) == 4 else None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules that are live together: ``published_ms`` since the epoch, ``by`` whom; ``digest`` tells rules apart."""

    number: int
    rules: tuple[Rule, ...]
    published_ms: int = 0
    by: str = ""
    note: str = ""
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        documents = orjson.dumps([_document(rule) for rule in self.rules], option=orjson.OPT_SORT_KEYS)
        object.__setattr__(self, "digest", hashlib.sha256(documents).hexdigest())

    @property
    def key(self) -> bytes:
        """The key of the set's record, ``set-<number>``."""
        return b"set-%d" % self.number

    @property
    def versions(self) -> dict[str, int]:
        """Version of each rule, by name."""
        return {rule.name: rule.version for rule in self.rules}


def encode_rule_set(rule_set: RuleSet) -> bytes:
    """The value of a set's record, JSON.

    Raises:
        RuleError: it is larger than a record may be, or no set that ``decode_rule_set`` would take.
    """
    value = orjson.dumps(
        {
            "rules": {
                "version": RECORD_VERSION,
                "number": rule_set.number,
                "published": rule_set.published_ms,
                "by": rule_set.by,
                "note": rule_set.note,
                "rules": [_document(rule) for rule in rule_set.rules],
            }
        }
    )
    decode_rule_set(value)
    return value


def decode_rule_set(value: bytes) -> RuleSet:
    """Read a set's record. Its Lua is compiled by whoever uses it (``filters.FilterSet``).

    Raises:
        RuleError: it is no such record; the message names the field, the value and what is allowed.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise RuleError(f"rule set is {len(value)} bytes, allowed are {MAX_RECORD_BYTES}: use fewer or shorter rules")
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RuleError(f"rule set is not JSON: {error}") from None
    _check_version(document)
    try:
        content = _Record.model_validate(document).rules
    except ValidationError as error:
        raise RuleError(_first(error)) from None
    repeated = _repeated([rule.name for rule in content.rules])
    if repeated is not None:
        raise RuleError(f"rule set: rule name {repeated!r} is used twice; names are unique")
    return RuleSet(content.number, content.rules, content.published, content.by, content.note)


def shards_behind(number: int, acknowledged: Iterable[Acknowledgement]) -> tuple[list[int], int]:
    """The shards whose last acknowledgement is of a lower set or missing, and how many shards there are, 0 if unknown.

    ``acknowledged`` in the order of each shard; how many there are is what the latest of all says.
    """
    last: dict[int, Acknowledgement] = {}
    newest: Acknowledgement | None = None
    for one in acknowledged:
        last[one.shard] = one
        newest = one if newest is None or one.at_ms >= newest.at_ms else newest
    shards = 0 if newest is None else newest.shards
    live = {shard for shard, one in last.items() if one.number >= number and one.shards == shards}
    return [shard for shard in range(shards) if shard not in live], shards


def number_of_key(key: bytes | None) -> int | None:
    """The number in a record's key, None if it is no key of a set."""
    found = re.fullmatch(rb"set-([0-9]{1,16})", key or b"")
    return int(found[1]) if found else None


def _document(rule: Rule) -> dict[str, Any]:
    # Without defaults: a release that does not know a field can read every set that does not use it.
    document: dict[str, Any] = rule.model_dump(mode="json", exclude_defaults=True)
    return document


def _check_version(document: Any) -> None:
    content = document.get("rules") if isinstance(document, dict) else None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > RECORD_VERSION:
        raise RuleError(f"rule set: version is {version}, this release reads {RECORD_VERSION}; use the newer release")


def _first(error: ValidationError) -> str:
    one = error.errors(include_url=False)[0]
    inside = one["loc"][1:] if one["loc"][:1] == ("rules",) else one["loc"]
    name = ".".join(str(part) for part in inside) or "rules"
    message = str(one["msg"]).removeprefix("Value error, ")
    if one["type"] == "missing":
        return f"rule set: {name} is missing"
    return f"rule set: {name} is {_shown.repr(one['input'])}: {message}"


def _repeated(names: list[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


class StoredRules:
    """The rule set that a shard keeps: its number, the bytes of its record and what tells those from others."""

    __slots__ = ("digest", "number", "record")

    def __init__(self, number: int, record: bytes) -> None:
        self.number = number
        self.record = record
        self.digest = hashlib.blake2b(record, digest_size=16).digest()
