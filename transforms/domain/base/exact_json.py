"""JSON in which integers stay as they are, however long.

orjson reads an integer beyond 64 bits as a float and refuses to write one. Here it is a ``LongInteger``, which is
written with the digits that were read. Everything else is orjson's: also floats, which it writes in the shortest form
that reads back the same.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec
import orjson

# An integer beyond 64 bits has at least this many digits. It may be part of a text or a float.
_LONG: Final = re.compile(rb"(?:^|[:,\[\s])(?:-[0-9]{19}|[0-9]{20})")
_MANY_DIGITS: Final = re.compile(rb"([0-9]{18})[0-9]+")
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN: Final = b"0" * 19
_EXTENSION: Final = 1
_SHOWN_DIGITS: Final = 40


class LongInteger(float):
    """An integer beyond 64 bits: its digits, and the nearest float (beyond 1.8e308 infinity) for who needs a number."""

    __slots__ = ("digits",)

    digits: str

    def __new__(cls, digits: str) -> LongInteger:
        """Make one of its decimal digits, with a sign if it is negative."""
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    def __repr__(self) -> str:
        """The digits, the first ones of very many."""
        return self.digits if len(self.digits) <= _SHOWN_DIGITS else f"{self.digits[:_SHOWN_DIGITS]}…"

    __str__ = __repr__


def loads(value: bytes) -> Any:
    """Decode JSON.

    Raises:
        orjson.JSONDecodeError: it is not JSON, or has a float beyond 1.8e308.
    """
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        # orjson takes an integer of more than 308 digits for infinity.
        if _LONG.search(value) is None:
            raise
        return _with_long_integers(value)
    return _with_long_integers(value) if may_have_long_integers(value) else document


def may_have_long_integers(value: bytes) -> bool:
    """Whether JSON may have an integer beyond 64 bits: almost always False if it has none."""
    # Of 19 digits in a row every sixth byte has three in a row: that is found in a fraction of the time.
    if value[::6].translate(_DIGITS).find(b"000") < 0 or value.translate(_DIGITS).find(_NINETEEN) < 0:
        return False
    return _LONG.search(value) is not None


def dumps(value: Any, option: int | None = None) -> bytes:
    """Encode as JSON; ``option`` as in ``orjson.dumps``."""
    try:
        return orjson.dumps(value, _fragment, option)
    except TypeError:
        # An integer of ours, such as one in a rule's body.
        return orjson.dumps(_without_long_ints(value), _fragment, option)


def _with_long_integers(value: bytes) -> Any:
    # orjson checks everything but the digits that are left out, Python's reader those.
    orjson.loads(_MANY_DIGITS.sub(rb"\1", value))
    try:
        return _decoder.decode(value.decode())
    except ValueError as error:
        raise orjson.JSONDecodeError(f"{error}", "", 0) from None
    except RecursionError:
        # Python's reader gives up some levels before orjson. No such document is an event.
        return orjson.loads(value)


def _integer(digits: str) -> int | LongInteger:
    if len(digits) <= 20 and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    return LongInteger(digits)


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("number is infinity when parsed as double")
    return number


_decoder: Final = json.JSONDecoder(parse_int=_integer, parse_float=_float)


def _fragment(value: Any) -> orjson.Fragment:
    if type(value) is LongInteger:
        return orjson.Fragment(value.digits)
    raise TypeError


def _without_long_ints(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        return LongInteger(str(value))
    if isinstance(value, dict):
        return {name: _without_long_ints(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_long_ints(inner) for inner in value]
    return value


def to_msgpack(value: Any) -> msgspec.msgpack.Ext:
    """Hook of MessagePack encoders (``enc_hook``) for values that come from JSON."""
    if type(value) is LongInteger:
        return msgspec.msgpack.Ext(_EXTENSION, value.digits.encode())
    raise NotImplementedError(f"{type(value).__name__} does not come from JSON")


def of_msgpack(code: int, digits: memoryview) -> LongInteger:
    """Hook of MessagePack decoders (``ext_hook``) for what ``to_msgpack`` made.

    Raises:
        ValueError: the extension is of a newer release.
    """
    if code != _EXTENSION:
        raise ValueError(
            f"MessagePack extension {code}: this worker reads {_EXTENSION}; the state is of a newer release"
        )
    return LongInteger(bytes(digits).decode())
