"""Lua that a rule's author might send to break out, run for ever, fill the memory or spoil other rules, by kind.

Every script of ``HOSTILE`` ends in an error of its own rule. ``HARMLESS`` are attempts that achieve nothing.
"""

from __future__ import annotations

from typing import Final

_LONG = "local s = 'a' for i = 1, 21 do s = s .. s end "  # 2 MB

_ENDLESS = {
    "endless loop": "while true do end",
    "endless repeat": "repeat until false",
    "endless for": "for i = 1, 1e300 do end",
    "endless goto": "::again:: goto again",
    "endless tail calls": "local function f() return f() end return f()",
    "endless recursion": "local function f() return 1 + f() end return f()",
    "endless recursion of two": "local g local function f() return 1 + g() end g = function() return 1 + f() end f()",
    "endless loop over pairs": "while true do for name in pairs(event) do local x = name end end",
    "endless loop over history": "while true do for _, past in ipairs(history) do local x = past.event_id end end",
    "endless loop of calls": "while true do tostring(1) end",
    "endless loop of errors without pcall": "while true do pcall(error) end",
    "endless loop with xpcall": "while true do xpcall(error, error) end",
    "endless loop in a coroutine": "return coroutine.wrap(function() while true do end end)()",
    "endless iterator": "for x in function() return 1 end do end",
    "endless recursion in sort": "local t = {2, 1} local function f() table.sort(t, f) return true end f()",
    "endless comparison": "local t = {} for i = 1, 99 do t[i] = i end table.sort(t, function() while true do end end)",
    "endless recursion in gsub": "local function f(s) return (s:gsub('.', f)) end return f('xx')",
    "endless replacement": "return (('x'):gsub('.', function() while true do end end))",
    "endless gmatch": "while true do for x in ('abc'):gmatch('.') do end end",
}

_LONG_CALLS = {
    "backtracking pattern": "return ('a'):rep(60000):match('.-.-.-b')",
    "backtracking pattern in find": "return ('a'):rep(2000):find('a*a*a*b')",
    "backtracking pattern of options": "return ('a'):rep(40):match(('a?'):rep(40) .. ('a'):rep(40))",
    "backtracking pattern, anchored": "return ('a'):rep(500):match('^(.*)(.*)(.*)(.*)b')",
    "backtracking pattern of balances": "return ('('):rep(60000):match('%b()%b()%b()')",
    "backtracking pattern of references": "return ('a'):rep(3000):match('(.*)%1b')",
    "one quantifier in a loop": "local s = ('a'):rep(900) while true do s:match('.-b') end",
    "one quantifier in gsub, in a loop": "local s = ('a'):rep(900) while true do s:gsub('.-b', '') end",
    "one quantifier in gmatch, in a loop": "local s = ('a'):rep(900) while true do for x in s:gmatch('.-b') do end end",
    "one quantifier on a megabyte": _LONG + "return s:match('.-b')",
    "long set in a loop": "local s = ('a'):rep(9000) while true do s:match('[' .. ('bcdefghi'):rep(100) .. ']') end",
    "pattern of a megabyte": _LONG + "return ('a'):match(s)",
    "unfinished pattern": "return ('a'):match('%')",
    "unfinished set": "return ('a'):match('[a')",
    "long search": _LONG + "return s:find(s:sub(1, 1000000) .. 'b', 1, true)",
    "search in a loop": _LONG + "while true do s:find('b', 1, true) end",
    "much upper": _LONG + "while true do s:upper() end",
    "much lower": _LONG + "while true do s:lower() end",
    "much reverse": _LONG + "while true do s:reverse() end",
    "much sub": _LONG + "while true do s:sub(2) end",
    "much format": _LONG + "while true do ('%s'):format(s) end",
    "much tonumber": "local s = '1' for i = 1, 21 do s = s .. s end while true do tonumber(s) end",
    "much compare": _LONG + "local a, b = s..'a', s..'b' while true do local x = a < b end",
    "much concatenation": _LONG + "while true do local x = s .. 'b' end",
    "sort of long texts": _LONG + "local a, b = s .. 'a', s .. 'b' local t = {} "
    "for i = 1, 9999 do t[i] = i % 2 == 0 and a or b end table.sort(t)",
    "sort of much": "local t = {} for i = 1, 10001 do t[i] = -i end table.sort(t)",
    "sort in a loop": "local t = {} while true do for i = 1, 9999 do t[i] = -i end table.sort(t) end",
    "sort that lies": "local t = {} for i = 1, 999 do t[i] = i end table.sort(t, function() return true end)",
    "insert far below": "table.insert({}, -1000000000, 1)",
    "insert at no position": "table.insert({}, 0/0, 1)",
    "insert at the front, for ever": "local t = {} while true do table.insert(t, 1, 1) end",
    "remove far below": "table.remove({1, 2}, -1000000000)",
    "remove in a loop": "local t = {} for i = 1, 9999 do t[i] = i end "
    "while true do table.insert(t, table.remove(t, 1)) end",
    "concat of a range": "return table.concat({}, 'x', -1000000000, 1000000000)",
    "concat in a loop": "local t = {} for i = 1, 9999 do t[i] = 'x' end while true do table.concat(t, ',') end",
    "next over a hole": "local t = {} for i = 1, 99999 do t['k' .. i] = 1 end "
    "for i = 1, 99999 do t['k' .. i] = nil end while true do next(t) end",
    "select in a loop": "local s = ('a'):rep(7000) while true do select('#', s:byte(1, -1)) end",
}

_MEMORY = {
    "doubled text": "local s = 'x' while true do s = s .. s end",
    "growing text": "local s = '' while true do s = s .. 'xxxxxxxxxxxxxxxx' end",
    "growing table": "local t, i = {}, 1 while true do t[i] = {i} i = i + 1 end",
    "growing keys": "local t, i = {}, 1 while true do t['k' .. i] = i i = i + 1 end",
    "growing global": "t = {} while true do t[#t + 1] = ('x'):upper() .. #t end",
    "growing closures": "local f for i = 1, 1e9 do local g = f f = function() return g end end",
    "nested tables": "local t = {} while true do t = {t} end",
    "rep of a gigabyte": "return ('x'):rep(1e9)",
    "rep of nothing": "return (''):rep(1e18)",
    "rep of infinity": "return ('x'):rep(1/0)",
    "rep of no number": "return ('x'):rep(0/0)",
    "rep, then doubled": "local s = ('x'):rep(60000) for i = 1, 20 do s = s .. s end",
    "wide format": "return ('%99999999d'):format(1)",
    "gsub that grows": "local s = 'x' while true do s = s:gsub('x', 'xxxxxxxxxxxxxxxx', 9999) end",
    "concat of long texts": _LONG + "local t = {} for i = 1, 1000 do t[i] = s end return #table.concat(t)",
    "many bytes": "local s = 'A' for i = 1, 22 do s = s .. s end return select('#', s:byte(1, -1)) > 0",
    "many values": "local t = {} for i = 1, 1e6 do t[i] = i end return select('#', unpack(t))",
}

_WAYS_OUT = {
    "os": "return os.execute('true')",
    "os clock": "return os.time()",
    "io": "return io.open('/etc/passwd')",
    "require": "return require('os')",
    "package": "return package.loaded.os",
    "ffi": "return require('ffi').C.system('true')",
    "ffi by name": "return ffi.C.system('true')",
    "jit": "return jit.on()",
    "jit util": "return jit.util.funck(error, 0)",
    "bit": "return bit.band(1, 2)",
    "debug": "return debug.getregistry()",
    "debug hook": "debug.sethook()",
    "load": "return load('return 1')()",
    "loadstring": "return loadstring('return 1')()",
    "bytecode": "return loadstring(string.dump(error))()",
    "dump": "return string.dump(function() end)",
    "dump of a text's method": "return (('').dump)(error)",
    "dofile": "return dofile('/etc/passwd')",
    "getfenv": "return getfenv(0)",
    "setfenv": "return setfenv(1, {})",
    "globals": "return _G.os",
    "getmetatable": "return getmetatable('').__index",
    "setmetatable": "return setmetatable({}, {__gc = error})",
    "finalizer": "local p = newproxy(true) getmetatable(p).__gc = function() while true do end end",
    "rawset": "return rawset(event, 'x', 1)",
    "rawget": "return rawget(event, 'x')",
    "collectgarbage": "return collectgarbage('stop')",
    "coroutine": "return coroutine.create(function() end)",
    "python": "return python.eval('1')",
    "python builtins": "return python.builtins.getattr(python, 'eval')",
    "python's iterator": "for x in python.iter(event) do end",
    "event's class": "return event.__class__.__mro__",
    "event's globals": "return event.parameters.__globals__.x",
    "text's class": "return ('x').__class__.x",
    "item of the profile": "return user.__getitem__('country')",
    "print": "print('x')",
    "random": "return math.random()",
    "address of a table": "return ('%p'):format({})",
}

_SPOILING = {
    "write to event": "event.user_id = 'somebody'",
    "write to user": "user.country = 'US'",
    "write to visit": "visit.page_count = 99",
    "write to string": "string.upper = nil",
    "write to math": "math.pi = 3",
    "write to table": "table.sort = nil",
    "write to text": "('x').y = 1",
    "write to text's methods": "('x').upper = error",
    "function into event": "function event.f() end",
    "assign through next": "next(event, 'no such key')",
    "insert into event": "table.insert(event, 1)",
}

_ERRORS = {
    "nil index": "return event.nothing.more",
    "call of nothing": "return event.nothing()",
    "arithmetic on text": "return event.event_name + 1",
    "error of a table": "error({})",
    "error of the event": "error(event)",
    "error of nothing": "error()",
    "error of a function": "error(error)",
    "error of zero bytes": "error('a\\0b\\0c')",
    "error that is no UTF-8": "error('\\255\\254')",
    "error with escapes": "error('\\27[31mred\\n')",
    "error of a megabyte": "local s = 'x' for i = 1, 20 do s = s .. s end error(s)",
    "error at a level": "error('x', 99)",
    "text of a megabyte as a name": "local s = 'x' for i = 1, 20 do s = s .. s end event[s] = 1",
    "a number for a table": "return #5",
    "overflow, then error": "local function f() return 1 + f() end local ok = f() error('x')",
}

HOSTILE: Final[dict[str, str]] = {**_ENDLESS, **_LONG_CALLS, **_MEMORY, **_WAYS_OUT, **_SPOILING, **_ERRORS}

# Each changes what it can reach; the expression beside it is true where another filter sees that, and must not be.
HARMLESS: Final[dict[str, tuple[str, str]]] = {
    "a global": ("x = 1 return false", "x ~= nil"),
    "a field": (
        "event.parameters.utm_source = 'changed' return false",
        "event.parameters.utm_source == 'changed'",
    ),
    "a field by insert": ("table.insert(event.parameters.list, 9) return false", "event.parameters.list[4] == 9"),
    "a field by sort": ("table.sort(user.tags, function(a, b) return a > b end) return false", "user.tags[1] ~= 'a'"),
    "a field by remove": ("local r = table.remove r(user.tags) return false", "#user.tags ~= 2"),
    "a field by an alias": ("local p = event.parameters p.y = 1 return false", "event.parameters.y"),
    "a field by a closure": (
        "local function f(t) t.y = 1 end f(event.parameters) return false",
        "event.parameters.y",
    ),
    "a field by a closure in an expression": (
        "(function(t) t.y = 1 return false end)(event.parameters)",
        "event.parameters.y",
    ),
    "a field by gsub": (
        "('x'):gsub('.', function() event.parameters.y = 1 end) return false",
        "event.parameters.y",
    ),
    "an item": ("event.parameters.list[1] = 9 return false", "event.parameters.list[1] == 9"),
    "an item of the profile": ("user.tags[1] = 'z' return false", "user.tags[1] == 'z'"),
    "fields found by pairs": (
        "for _, v in pairs(event) do if type(v) == 'table' then v.y = 1 end end return false",
        "event.parameters.y",
    ),
    "fields found by next": (
        "local _, v = next(user) if type(v) == 'table' then v[1] = 'z' end return false",
        "user.tags[1] == 'z'",
    ),
    "a row": ("history[1].event_name = 'changed' return false", "history[1].event_name == 'changed'"),
    "no row": ("history[1] = nil return false", "history[1] == nil"),
    "rows": ("table.remove(history, 1) return false", "#history ~= 2"),
    "a row's field": ("history[2].parameters.a = 2 return false", "history[2].parameters.a == 2"),
    "libraries": (
        "string = nil math = nil event = nil table = nil return false",
        "string == nil or math == nil or event == nil or table == nil",
    ),
    "functions": ("next = error pairs = error return false", "not next or not pairs or pcall"),
}
