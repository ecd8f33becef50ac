"""Random edits of valid texts and documents, as mistakes, broken tools and attackers make them."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

SURROGATE = "\ud800"
HOSTILE_TEXTS = (
    "", " ", "\0", SURROGATE, "\udfff\ud800", "a" * 5000, "é", "\u202e", "\x1b[2J", "\n", "${", "${event.x}", "${no.x}",
    "${event." + "a." * 30 + "b}", "Europe/Berlin", "../../etc/passwd", "no/zone", "1d", "99999999d", "0s", "24:00",
    "http://[::1", "return", "(" * 250, "{" * 250, "[" * 5000, "null", "true", "1e999", "\ufeff", "-- ", "--[[", "]]",
)  # fmt: skip
HOSTILE_NUMBERS = (
    0, -1, 1, 2**31, 2**53, 2**53 - 1, 2**63, 2**64, -(2**64), 10**40, 10**400, 1e300, -0.0, 0.5, 1.0, float("nan"),
    float("inf"),
)  # fmt: skip
LUA_TOKENS = (
    "return", "end", "(", ")", "{", "}", "[", "]", "[[", "]]", "--[[", "--", "\n", "function()", "function(...)", "...",
    "local x =", "local", "goto x", "::x::", "break", "while true do end", "repeat until false",
    "for i = 1, 1e9 do end",
    "and", "or", "not", "nil", "true", "==", "~=", "=", "..", "#", "%", "^", "0x", "0x1p99999", "1e999", "1..2", "'",
    '"', '"\\xff"', '"\\ud800"', '"\\', "\0", "\xff", SURROGATE, "é", "\ufeff", "event", "event.a", "history", "user",
    "string.rep('x', 1e9)", "error()", "error({})", "error(string.char(255))", "_G", "setmetatable({}, {})", ";", ",",
    "a.b.c.d", "x:y()", "((((((((", "))))))))", "}{", "event.a) or (event.b", "end end end",
)  # fmt: skip
YAML_TOKENS = (
    "&a ", "*a", "!!python/object:os.system ", "!x ", "\t", "? ", "- ", "{", "}", "[", "]", ": ", "|", ">", "|+2\n",
    "#", "---\n", "...\n", "<<: ", "\0", "\x85", "\ufeff", "%YAML 9\n", "'", '"', '"\\ud800"', '"\\x00"', "~", "null",
    "1" * 5000, "0x10", "0o7", ".inf", ".nan", "1e999", "2001-01-01", "yes", "@", "`", "é", "\u2028", "{" * 3000,
    "- " * 200, "\n", "  ", "tests:\n", "name: x\n", "version: 1\n", "filter: |\n",
)  # fmt: skip


def edited_text(text: str, tokens: tuple[str, ...], rng: random.Random) -> str:
    """The text with a few of its words removed, doubled, moved, or replaced by tokens."""
    words = re.findall(r"\w+|\s+|[^\w\s]", text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(words) + 1)
        match rng.randrange(6):
            case 0:
                words[at : at + rng.randint(1, 6)] = []
            case 1:
                words[at:at] = words[at : at + rng.randint(1, 6)]
            case 2:
                words[at:at] = [rng.choice(tokens)]
            case 3:
                words[at : at + 1] = [rng.choice(tokens)]
            case 4:
                words[at:at] = [rng.choice(tokens)] * rng.choice((2, 60, 210, 3000))
            case _:
                other = rng.randrange(len(words) + 1)
                words[at : at + 1], words[other : other + 1] = words[other : other + 1], words[at : at + 1]
    return "".join(words)


def edited_bytes(value: bytes, rng: random.Random) -> bytes:
    """The bytes with a few of them changed, removed, doubled or inserted."""
    edited = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(edited) + 1)
        match rng.randrange(5):
            case 0:
                edited[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del edited[at : at + rng.choice((1, 1, 10, 1000))]
            case 2:
                edited[at:at] = edited[at : at + rng.randint(1, 200)]
            case 3:
                edited[at:at] = rng.choice(
                    (b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b'"', b"{", b"[" * 2000)
                )
            case _:
                edited[at:] = b""
    return bytes(edited)


def edited_json(document: Any, rng: random.Random) -> bytes:
    """The JSON document with some values replaced, removed, renamed, moved or doubled, as bytes."""
    root = [copy.deepcopy(document)]
    for _ in range(rng.randint(1, 3)):
        places = list(_places(root))
        container, key = rng.choice(places)
        match rng.randrange(7):
            case 0 | 1 | 2:
                container[key] = hostile_value(rng)
            case 3:
                if container is not root:
                    del container[key]
            case 4:
                if isinstance(container, dict):
                    container[rng.choice((*HOSTILE_TEXTS, "filter", "name", "time", "x"))] = container.pop(key)
            case 5:
                other, other_key = rng.choice(places)
                container[key] = copy.deepcopy(other[other_key])
            case _:
                if isinstance(container, list) and container is not root:
                    container *= rng.choice((2, 50))
                elif isinstance(container, dict):
                    container[rng.choice(HOSTILE_TEXTS)] = hostile_value(rng)
    text = json_text(root[0], ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.1 and isinstance(root[0], dict) and root[0]:  # a name that stands twice
        name = rng.choice(list(root[0]))
        text = text[:-1] + f", {json_text(name)}: {json_text(hostile_value(rng))}}}"
    return text.encode("utf-8", "surrogatepass")


def hostile_value(rng: random.Random) -> Any:
    """A JSON value that nobody expects."""
    match rng.randrange(8):
        case 0 | 1 | 2:
            return rng.choice(HOSTILE_TEXTS)
        case 3 | 4:
            return rng.choice(HOSTILE_NUMBERS)
        case 5:
            return rng.choice((None, True, False, [], {}, [None], {"": None}))
        case 6:
            return f"deep {rng.choice('[{')} {rng.choice((3, 30, 150, 900, 5000))}"
        case _:
            return rng.choice(([0] * 3000, {str(number): number for number in range(2000)}, "x" * 70_000))


def json_text(value: Any, ensure_ascii: bool = True) -> str:
    """The value as JSON; texts of ``hostile_value`` that stand for deep nesting become that."""
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    return re.sub(r'"deep ([\[{]) (\d+)"', lambda deep: _nested(deep[1], int(deep[2])), text)


def _nested(bracket: str, depth: int) -> str:
    opening, closing = ("[", "]") if bracket == "[" else ('{"a":', "}")
    return opening * depth + "1" + closing * depth


def _places(container: Any) -> Any:
    """Every place of a value, outer ones first: container and key."""
    items = list(container.items() if isinstance(container, dict) else enumerate(container))
    for key, value in items[:100]:
        yield container, key
        if isinstance(value, dict | list):
            yield from _places(value)
