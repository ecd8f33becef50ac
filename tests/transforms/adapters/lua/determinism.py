"""Lua whose result could differ between processes, and what it has to be."""

from __future__ import annotations

from typing import Any, Final

from transforms.domain.rules.engine import Columns

NAMES: Final = [f"{letter}{number}" for letter in "qwertyuiop" for number in (10, 9, 1)]
EVENT: Final[dict[str, Any]] = {
    "event_id": "e",
    "parameters": {name: number for number, name in enumerate(NAMES)},
    "nested": {"b": {"y": 1, "x": 2}, "a": [3, 1, 2], "É": True, "": 0},
    "holes": [1, None, 3, None, 5],
    "order": 2**53 - 1,
}
USER: Final[dict[str, Any]] = {name: number for number, name in enumerate(reversed(NAMES))}
HISTORY: Final = Columns([1, 2], ["e1", "e2"], ["n", "n"], [{"z": 1, "a": 2, "m": 3}, {}])

_KEYS = "local function keys(t) local r = '' for k in pairs(t) do r = r .. tostring(k) .. ' ' end return r end "
_NEXT = "local function keys(t) local r = '' for k in next, t do r = r .. tostring(k) .. ' ' end return r end "
_STEPS = (
    "local function keys(t) local r, k = '', next(t) "
    "while k ~= nil do r = r .. tostring(k) .. ' ' k = next(t, k) end return r end "
)
_MIXED = "{b = 1, a = 2, [true] = 3, [false] = 4, [2.5] = 5, [-1] = 6, [10] = 7, [4] = 8, B = 9, [''] = 10, 11, 12}"
_MIXED_KEYS = "1 2 -1 2.5 4 10  B a b false true "
_SORTED = " ".join(sorted(NAMES)) + " "
_MANY = "local t = {} for i = 1, 150 do t['k' .. (i * 7919 % 1000)] = i end "
_MANY_KEYS = " ".join(sorted(f"k{i * 7919 % 1000}" for i in range(1, 151))) + " "

# Each is the value of a cooldown's key, so it ends as text.
CASES: Final[dict[str, tuple[str, str]]] = {
    "pairs of an object": (_KEYS + "return keys(event.parameters)", _SORTED),
    "next of an object": (_NEXT + "return keys(event.parameters)", _SORTED),
    "steps through an object": (_STEPS + "return keys(event.parameters)", _SORTED),
    "pairs of the profile": (_KEYS + "return keys(user)", _SORTED),
    "next of the profile": (_STEPS + "return keys(user)", _SORTED),
    "pairs of the profile's proxy": (_KEYS + "x = 1 return keys(user)", _SORTED),
    "next of the profile's proxy": (_NEXT + "x = 1 return keys(user)", _SORTED),
    "first of an object": ("return (next(event.parameters))", sorted(NAMES)[0]),
    "first of an object, in an expression": ("next(event.parameters)", sorted(NAMES)[0]),
    "first that a loop finds": ("for k, v in pairs(event.parameters) do if v > 3 then return k end end", "e1"),
    "pairs of a nested object": (_KEYS + "return keys(event.nested) .. keys(event.nested.b)", " a b É x y "),
    "pairs of a row": (_KEYS + "return keys(history[1])", "a event_id event_name m timestamp z "),
    "pairs of a list with holes": (_KEYS + "return keys(event.holes)", "1 3 5 "),
    "pairs of mixed keys": (f"{_KEYS}return keys({_MIXED})", _MIXED_KEYS),
    "next of mixed keys": (f"{_NEXT}return keys({_MIXED})", _MIXED_KEYS),
    "steps through mixed keys": (f"{_STEPS}return keys({_MIXED})", _MIXED_KEYS),
    "pairs of a table made here": (f"{_KEYS}{_MANY}return #keys(t) .. keys(t):sub(1, 190)", f"731{_MANY_KEYS[:190]}"),
    "pairs of text of many lengths": (
        _KEYS + "local t = {} for i = 1, 20 do t[('x'):rep(21 - i)] = 1 end return #keys(t) .. next(t)",
        "230x",
    ),
    "one table among the keys": (_KEYS + "return keys({[{}] = 1, z = 2, [9] = 3})", "9 z table "),
    "fields added while pairs runs": (
        "local t, n = {a = 1, b = 2}, '' for k in pairs(t) do n = n .. k t['x' .. k] = 1 end return n",
        "ab",
    ),
    "fields removed while pairs runs": (
        "local t = {a = 1, b = 2, c = 3} local n = '' for k in pairs(t) do n = n .. k t.b = nil end return n",
        "ac",
    ),
    "fields removed while next runs": (
        "local t, n = {a = 1, b = 2, c = 3, 4, 5}, '' for k in next, t do n = n .. k t[k] = nil end return n",
        "12abc",
    ),
    "two loops in each other": (
        "local a, n = {x = 1, y = 2}, '' for k in next, a do for l in next, a do n = n .. k .. l end end return n",
        "xxxyyxyy",
    ),
    "length of mixed keys": (
        "local t = {} for i = 1, 9 do t['k' .. i] = i end "
        "for _, i in ipairs({1, 2, 4, 8, 9}) do t[i] = i end return #t",
        "9",
    ),
    "length of a constructor": ("#{n = 1, m = 2, o = 3, [1] = 1, [2] = 1, [4] = 1}", "4"),
    "insert with mixed keys": (
        "local t = {a = 1, b = 2, c = 3} t[1] = 1 t[2] = 1 t[4] = 1 "
        "table.insert(t, 5) return tostring(t[3]) .. tostring(t[5])",
        "nil5",
    ),
    "address of a table": ("tostring({}) .. ('%s'):format(event.nested)", "tabletable"),
    "address of a function": ("tostring(next) .. ('%s'):format(tostring)", "functionfunction"),
    "address in gsub": ("(('x'):gsub('x', function() return tostring(event) end))", "table"),
    "sort that lies": (
        "local t = {} for i = 1, 20 do t[i] = i * 7 % 20 end table.sort(t, function(a, b) return a % 3 < b % 3 end) "
        "return table.concat(t, ' ')",
        "0 18 9 3 15 12 6 19 4 13 10 16 1 7 5 14 2 11 17 8",
    ),
    "sort with nan": (
        "local t = {3, 0/0, 1, 2} table.sort(t) local r = '' for i = 1, 4 do r = r .. t[i] .. ' ' end return r",
        "1 2 nan 3 ",
    ),
    "nan": ("tostring(0/0) .. tostring(-(0/0)) .. ('%g %f'):format(0/0, -(0/0))", "nannannan nan"),
    "infinity": ("tostring(1/0) .. tostring(-1/0)", "inf-inf"),
    "zeros": ("tostring(-0) .. tostring(0 * -1) .. (-0) .. table.concat({-0})", "0000"),
    "minus zero": ("-0", "0"),
    "a large order number": ("event.order", "9007199254740991"),
    "its text": ("tostring(event.order)", "9007199254740991"),
    "its text in text": ("'o' .. event.order .. '/' .. event.order - 1", "o9007199254740991/9007199254740990"),
    "its formatted text": (
        "('%s %d %i'):format(event.order, event.order, -event.order)",
        "9007199254740991 9007199254740991 -9007199254740991",
    ),
    "its text in a list": ("table.concat({event.order, 1}, ' ')", "9007199254740991 1"),
    "its text in gsub": ("(('a b'):gsub('%a', {a = event.order, b = 1}))", "9007199254740991 1"),
    "its length": ("string.len(event.order) .. string.sub(event.order, -3)", "16991"),
    "fractions": ("tostring(0.1) .. ' ' .. 0.1 + 0.2 .. ' ' .. 1/3", "0.1 0.30000000000000004 0.3333333333333333"),
    "a key that is a fraction": ("0.1 + 0.2", "0.30000000000000004"),
    "an exponent": ("1e15 .. ' ' .. 1e-7 .. ' ' .. 2^40", "1000000000000000 1e-07 1099511627776"),
}
