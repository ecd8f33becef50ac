"""Java finds the user and so the shard of a record that Python then reads: the same user, or it is a dead letter.

``UsersOfRecords`` (a test class of the connectors) prints what Java sees.
"""

from __future__ import annotations

import base64
import random
import shutil
import struct
import subprocess
from pathlib import Path

import orjson
import pytest

from runners.flink import artifacts
from tests.builders import NOW_MS
from transforms.domain.base import exact_json
from transforms.domain.events.dead_letter import DUPLICATE_USER_ID, RejectedError
from transforms.domain.events.event import EventLimits, parse_event
from transforms.domain.events.micro_batch import control_keys, key_of, user_bytes
from transforms.domain.events.record import Record

pytestmark = pytest.mark.slow

HARNESS = Path("runners/flink/connectors/src/test/java/eventtrigger/flink/UsersOfRecords.java").resolve()
SHARDS = 64
REQUIRED = ('"event_id":"e"', '"event_name":"n"', f'"timestamp":{NOW_MS}')


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that says what Java sees."""
    classes = tmp_path_factory.mktemp("classes")
    jars = ":".join(map(str, artifacts.connectors()))
    java = Path(artifacts.java())
    compiler = java.with_name("javac") if java.with_name("javac").exists() else shutil.which("javac")
    subprocess.run([str(compiler), "-cp", jars, "-d", str(classes), str(HARNESS)], check=True, capture_output=True)
    return [str(java), "-cp", f"{classes}:{jars}", "eventtrigger.flink.UsersOfRecords"]


def seen_by_java(harness: list[str], values: list[bytes]) -> list[tuple[bytes, bytes | None]]:
    """The users of values as events and as control records; None for every shard."""
    given = struct.pack(">i", len(values)) + b"".join(struct.pack(">i", len(value)) + value for value in values)
    lines = subprocess.run(harness, input=given, check=True, capture_output=True).stdout.decode().splitlines()
    assert len(lines) == len(values)
    pairs = [line.split(" ") for line in lines]
    return [
        (base64.b64decode(event), None if control == "*" else base64.b64decode(control)) for event, control in pairs
    ]


def seen_by_python(value: bytes, user_key: str = "field", key: bytes | None = None) -> bytes | RejectedError:
    record = Record(0, 0, NOW_MS, key, value)
    try:
        return parse_event(record, NOW_MS, EventLimits(1_000_000, user_key)).user_id.encode()
    except RejectedError as rejection:
        return rejection


def disagreements(harness: list[str], values: list[bytes]) -> tuple[list[bytes], int, int]:
    """The values in which the readers see different users, and how many events and control records Python accepts."""
    different, events, controls = [], 0, 0
    for value, (of_event, of_control) in zip(values, seen_by_java(harness, values), strict=True):
        seen, record = seen_by_python(value), Record(0, 0, NOW_MS, None, value)
        if isinstance(seen, bytes):
            events += 1
            if not seen == of_event == user_bytes(record, "field"):
                different.append(value)
        if is_json(value):
            controls += 1
            shards = [key_of(of_control, SHARDS)] if of_control is not None else control_keys(for_all(), SHARDS)
            if control_keys(record, SHARDS) != shards:
                different.append(value)
    return different, events, controls


def for_all() -> Record:
    return Record(0, 0, NOW_MS, None, b'{"rules":[]}')


def is_json(value: bytes) -> bool:
    try:
        exact_json.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def event(*fields: str, order: random.Random | None = None) -> bytes:
    """An event with the required fields but the user."""
    named = [*fields, *REQUIRED]
    if order is not None:
        order.shuffle(named)
    return ("{" + ",".join(named) + "}").encode()


ANN = '"user_id":"ann"'
ESCAPED = r'"user\u005fid":"bob"'
LONG = "9" * 5000
ODD_EVENTS = {
    "plain": event(ANN),
    "escaped name": event(ESCAPED),
    "all of the name escaped": event(r'"\u0075\u0073\u0065\u0072\u005F\u0069\u0064":"ann"'),
    "escaped user": event(r'"user_id":"\u0061\u00fc\ud83d\ude00\u0000"'),
    "the name within a text": event(ANN, r'"note":"\"user_id\":\"bob\""'),
    "another user in a field": event('"parameters":{"user_id":"bob"}', ANN),
    "two other users in a field": event('"parameters":{"user_id":"bob","user_id":"eve"}', ANN),
    "other users in a list": event('"list":[{"user_id":"bob"},{"user\\u005fid":"eve"}]', ANN),
    "a dropped field with another user": event('"x":{"user_id":"bob"},"x":1', ANN),
    "other fields twice": event(ANN, '"event_id":"e0"', '"domain":"a"', '"domain":"b"'),
    "names that are nearly the user's": event(
        '"User_id":"bob","user_id ":"eve","\\u0000user_id":"x","use\u0433_id":"y"', ANN
    ),
    "long whole number": event(f'"n":{LONG}', ANN),
    "long fraction": event(f'"n":0.{LONG}', ANN),
    "long text and name": event(f'"{LONG}":"{LONG}"', ANN),
    "numbers": event('"n":[-0,0.0,-0.0,1E5,1e+5,1e-400,0e999999999,18446744073709551616,-9223372036854775809]', ANN),
    "deep": event(f'"d":{"[" * 90}{"]" * 90}', ANN),
    "deep and dropped": event(f'"d":{"[" * 900}{"]" * 900},"d":1', ANN),
    "deep and dropped beside a long number": event(f'"d":{"[" * 1000}{"]" * 1000},"d":{"9" * 30}', ANN),
    "whitespace": b" \t\r\n" + event(f"\t{ANN}\r\n ").replace(b":", b" : ") + b" \n",
    "all control characters escaped": event(ANN, r'"c":"\b\f\n\r\t\/\\\"\u001f"'),
    "delete and line separators": event(ANN, '"c":"\x7f\u2028\u2029\ufeff\uffff"'),
}
# Python makes letters of them. What Java sees does not matter.
LETTERS = {
    "a byte order mark": b"\xef\xbb\xbf" + event(ANN),
    "UTF-16": event(ANN).decode().encode("utf-16"),
    "UTF-16 without mark": event(ANN).decode().encode("utf-16-le"),
    "UTF-32": event(ANN).decode().encode("utf-32"),
    "UTF-32 without mark": event(ANN).decode().encode("utf-32-be"),
    "overlong UTF-8": event(ANN, '"c":"?"').replace(b"?", b"\xc0\x80"),
    "surrogate in UTF-8": event(ANN).replace(b"ann", b"\xed\xa0\x80"),
    "lone surrogate": event(r'"user_id":"\ud800"'),
    "reversed surrogates": event(r'"user_id":"\udc00\ud800"'),
    "latin-1": event('"user_id":"ü"').decode().encode("latin-1"),
    "comment": event(ANN).replace(b",", b",/* */", 1),
    "single quotes": event("'user_id':'ann'"),
    "name without quotes": event('user_id:"ann"'),
    "comma at the end": event(ANN)[:-1] + b",}",
    "leading zero": event(ANN, '"n":01'),
    "plus": event(ANN, '"n":+1'),
    "point": event(ANN, '"n":1.'),
    "hexadecimal": event(ANN, '"n":0x1'),
    "NaN": event(ANN, '"n":NaN'),
    "Infinity": event(ANN, '"n":-Infinity'),
    "control character": event('"user_id":"a\nb"'),
    "garbage behind": event(ANN) + b" x",
    "another object behind": event(ANN) + event('"user_id":"bob"'),
    "NUL behind": event(ANN) + b"\0",
    "form feed before": b"\f" + event(ANN),
    "cut off": event(ANN)[:-1],
    "empty": b"",
    "blank": b" ",
    "no user": event(),
    "a user that is no text": event('"user_id":7'),
    "empty user": event('"user_id":""'),
    "deeper than allowed": event(f'"d":{"[" * 1000}{"]" * 1000}', ANN),
    "beyond every limit": event(f'"d":{"[" * 9000}{"]" * 9000}', ANN),
}
TWICE = {
    "plain": event(ANN, '"user_id":"bob"'),
    "the same user": event(ANN, '"user_id":"ann"'),
    "second escaped": event(ANN, ESCAPED),
    "first escaped": event(ESCAPED, ANN),
    "both escaped": event(ESCAPED, r'"\u0075ser_id":"ann"'),
    "three": event(ANN, '"user_id":"bob"', '"user_id":"eve"'),
    "first is no text": event('"user_id":{"user_id":"bob"}', ANN),
    "first is null": event('"user_id":null', ANN),
    "and one in a field": event('"p":{"user_id":"eve"}', '"user_id":"bob"', ANN),
    "and one in a text": event('"p":"user_id"', '"user_id":"bob"', ANN),
    "and a long number": event(f'"n":{LONG}', '"user_id":"bob"', ANN),
}


@pytest.mark.parametrize("value", ODD_EVENTS.values(), ids=ODD_EVENTS.keys())
def test_python_accepts_what_is_json(value: bytes) -> None:
    assert seen_by_python(value) in (b"ann", b"bob", "aü😀\0".encode())


@pytest.mark.parametrize("value", LETTERS.values(), ids=LETTERS.keys())
def test_python_makes_a_letter_of_what_is_not(value: bytes) -> None:
    assert isinstance(seen_by_python(value), RejectedError)


@pytest.mark.parametrize("value", TWICE.values(), ids=TWICE.keys())
@pytest.mark.parametrize(("user_key", "key"), [("field", None), ("record", b"ann"), ("record", b"bob")])
def test_a_user_id_that_stands_twice_is_a_letter_in_both_keyings(value: bytes, user_key: str, key: bytes) -> None:
    seen = seen_by_python(value, user_key, key)
    assert isinstance(seen, RejectedError)
    assert (seen.reason, seen.detail) == (DUPLICATE_USER_ID, "user_id stands twice in the object, allowed is once")


def test_java_and_python_see_the_same_user_in_odd_records(harness: list[str]) -> None:
    events = [*ODD_EVENTS.values(), *LETTERS.values(), *TWICE.values()]
    controls = [
        value.replace(b"user_id", name).replace(b"user\\u005fid", other)
        for value in events
        for name, other in ((b"forget", b"forge\\u0074"), (b"inspect", b"forget"), (b"rules", b"redrive"))
    ]
    assert disagreements(harness, controls)[0] == []
    assert disagreements(harness, events)[:2] == ([], len(ODD_EVENTS))


NAMES: tuple[str, ...] = (
    *(('"user_id"',) * 6),
    r'"user\u005fid"',
    r'"use\u0072_id"',
    '"User_id"',
    '"a"',
    '"parameters"',
    '"ü"',
)
NAMES += ('"forget"', r'"\u0066orget"', '"inspect"', '"redrive"', '"rules"', '"destination"')
VALUES: tuple[str, ...] = (
    '"ann"',
    '"bob"',
    '"b\\u00f6b"',
    '"😀"',
    r'"\ud83d\ude00"',
    r'"\ud83d"',
    '""',
    "null",
    "true",
    "7",
    "-0",
    "[]",
)
VALUES += ("1e5", "1E400", "-1.5e-7", "123456789012345678901", f"{LONG}", f"1.{LONG}e-5", "{}", "NaN", "01")
MARKS: tuple[bytes, ...] = (
    b"\xef\xbb\xbf",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\\",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"/",
)
MARKS += (b"\\u0000", b"\xed\xa0\x80", b"\xc0\xaf", b"user_id", b'"user_id":"eve",', b"//\n", b"1", b"-", b"e", b".")


def random_value(chance: random.Random, depth: int = 0) -> str:
    kind = chance.random()
    if depth > 3 or kind < 0.6:
        return chance.choice(VALUES)
    if kind < 0.65:
        levels = chance.choice((5, 98, 150, 1015, 1030))
        return "[" * levels + random_value(chance, 4) + "]" * levels
    inner = [random_value(chance, depth + 1) for _ in range(chance.randrange(3))]
    if kind < 0.8:
        return f"[{','.join(inner)}]"
    return "{" + ",".join(f"{chance.choice(NAMES)}:{value}" for value in inner) + "}"


def random_record(chance: random.Random) -> bytes:
    fields = [f"{chance.choice(NAMES)}:{random_value(chance)}" for _ in range(chance.randrange(1, 4))]
    if chance.random() < 0.7:
        fields.append('"user_id":"ann"')
    is_event = chance.random() < 0.7
    value = event(*fields, order=chance) if is_event else ("{" + ",".join(fields) + "}").encode()
    for _ in range(chance.choice((0, 0, 0, 1, 1, 3))):
        at = chance.choice((0, len(value), chance.randrange(len(value) + 1)))
        cut = at + chance.choice((0, 0, 1, 4))
        value = value[:at] + chance.choice(MARKS) + value[cut:]
    encoding = chance.choice(("utf-8",) * 20 + ("utf-16", "utf-16-be", "utf-32", "utf-32-le"))
    return value if encoding == "utf-8" else value.decode("utf-8", "replace").encode(encoding)


def test_java_and_python_see_the_same_user_in_random_records(harness: list[str]) -> None:
    chance = random.Random(19)
    values = [random_record(chance) for _ in range(20_000)]
    different, events, controls = disagreements(harness, values)
    assert different == []
    assert events > 500
    assert controls > 5000
