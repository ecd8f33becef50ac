from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.domain.base import exact_json
from transforms.domain.base.exact_json import LongInteger

LONG = [
    "18446744073709551616",
    "-9223372036854775809",
    "9" * 20,
    "-" + "1" * 19,
    "7" * 308,
    "9" * 309,
    "-" + "8" * 5000,
]
WITHIN = ["18446744073709551615", "-9223372036854775808", "9223372036854775808", "-0", "0"]


@pytest.mark.parametrize("digits", LONG + WITHIN, ids=lambda digits: digits[:22])
@pytest.mark.parametrize("frame", ["[%s]", '{"a":%s}', '{"a": [1,\n%s ,2], "b":{}}', "%s", ' {"x":"1","y":[[%s]]}'])
def test_an_integer_is_written_with_the_digits_that_were_read(digits: str, frame: str) -> None:
    written = exact_json.dumps(exact_json.loads((frame % digits).encode()))
    assert written.decode() == re.sub(r"\s", "", frame) % digits.replace("-0", "0")


def test_a_long_integer_is_found_at_every_place() -> None:
    for digits in LONG[:4]:
        for before in range(60):
            value = b'{"%s":%s}' % (b"x" * before, digits.encode())
            assert exact_json.dumps(exact_json.loads(value)) == value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.1", "0.1"),
        ("0.10000000000000000555111512312578270211815834045410156250", "0.1"),
        ("-0.0", "-0.0"),
        ("5.0", "5.0"),
        ("1E5", "100000.0"),
        ("12345678901234567890123.5", "1.2345678901234568e+22"),
        ("12345678901234567890123e0", "1.2345678901234568e+22"),
        ("5e-324", "5e-324"),
        ("1e-400", "0.0"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
    ],
)
def test_a_float_is_written_in_its_shortest_form_that_reads_back_the_same(text: str, written: str) -> None:
    document = exact_json.loads(f"[{text}]".encode())
    assert exact_json.dumps(document).decode() == f"[{written}]"
    assert json.loads(written) == float(text)


LONG_ONE = "9" * 25


@pytest.mark.parametrize(
    "text",
    [
        "1e400",
        f"-{LONG_ONE}e400",
        f'{LONG_ONE},"\\ud800"',
        f"{LONG_ONE},NaN",
        f"0{LONG_ONE}",
        f"{LONG_ONE}.",
        f"+{LONG_ONE}",
        f"{LONG_ONE},",
        f'{LONG_ONE},"\n"',
        f"{LONG_ONE}]",
        f"{LONG_ONE}{'[' * 2000}",
        "[" * 1000 + "9" * 400 + "]" * 1000,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_json_is_refused_beside_a_long_integer_too(text: str) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(f"[{text}]".encode())


def test_a_document_of_a_thousand_levels_is_read_as_orjson_reads_it() -> None:
    value = b"[" * 1010 + LONG_ONE.encode() + b"]" * 1010
    found = exact_json.loads(value)
    while isinstance(found, list):
        (found,) = found
    assert found == 1e25


def test_bad_utf8_is_refused_beside_a_long_integer_too() -> None:
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(b'[%s,"\xff"]' % LONG_ONE.encode())


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(10**25, 10**330)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.from_regex(r"[0-9]{18,25}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab1-\\"é', max_size=22), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(JSON), st.booleans(), st.sampled_from([None, 0, 2]))
def test_any_document_reads_back_as_it_was(document: Any, is_ascii: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=is_ascii, indent=indent)
    assert json.loads(exact_json.dumps(exact_json.loads(text.encode()))) == document
    assert json.loads(exact_json.dumps(document)) == document


@given(st.lists(JSON))
def test_a_document_goes_through_messagepack(document: Any) -> None:
    read = exact_json.loads(json.dumps(document).encode())
    packed = msgspec.msgpack.encode(read, enc_hook=exact_json.to_msgpack)
    assert exact_json.dumps(msgspec.msgpack.decode(packed, ext_hook=exact_json.of_msgpack)) == exact_json.dumps(read)


def test_an_extension_of_a_newer_release_is_refused() -> None:
    packed = msgspec.msgpack.encode(msgspec.msgpack.Ext(9, b"1"))
    with pytest.raises(ValueError, match="MessagePack extension 9: this worker reads 1"):
        msgspec.msgpack.decode(packed, ext_hook=exact_json.of_msgpack)


def test_a_long_integer_is_a_number_and_shows_its_digits() -> None:
    assert LongInteger("18446744073709551617") == 2.0**64
    assert LongInteger("9" * 400) > 1e308
    assert f"{LongInteger(LONG_ONE)} {LongInteger('9' * 400)}" == f"{LONG_ONE} {'9' * 40}…"


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        exact_json.dumps([object()])
