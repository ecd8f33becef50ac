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
    "endless buckets": "while true do bucket('u', 's') end",
    "endless days": "while true do days_between('2024-01-01', event.timestamp) end",
    "endless local time": "while true do local x = local_time.hour end",
    "endless counts": "while true do count{event='x', within='10m'} end",
    "endless last": "while true do last{} end",
    "endless distinct": "while true do distinct{of='event_name'} end",
    "endless where": "return count{where=function() while true do end end}",
    "endless recursion in where": "local f f = function() return count{where=f} > 0 end return f()",
    "endless options": "local t = setmetatable({}, {}) return count(t)",
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

_LIST = "local t = {} for i = 1, 9999 do t[i] = i end "

# Each holds, or held, a worker inside a function of C or one instruction.
_LONG_STEPS = {
    "balance that hides quantifiers": "return ('['):rep(30000):match('%b[x.-.-.-.-b')",
    "balance that hides quantifiers in find": "return (('[a'):rep(20000) .. 'x'):find('%b[x.-.-.-b')",
    "set that hides a balance": "return ('a'):rep(30000):match('[%b].-.-b')",
    "set that begins with a bracket": "return ('a'):rep(30000):match('[]a].-.-b')",
    "set that begins with a caret and a bracket": "return ('a'):rep(30000):match('[^]b].-.-b')",
    "set with an escaped bracket": "return ('a'):rep(30000):match('[%]a]-.-.-b')",
    "frontier and quantifiers": "return ('a '):rep(20000):match('%f[%a].-.-.-b')",
    "backtracking from an offset": "return ('a'):rep(30000):match('.-.-b', -29999)",
    "backtracking in gsub": "return ('a'):rep(30000):gsub('.-.-b', '')",
    "backtracking in gmatch": "for x in ('a'):rep(30000):gmatch('.-.-b') do end",
    "backtracking by captures": "return ('a'):rep(30000):match('(.-)(.-)(.-)b')",
    "backtracking of a number": "local n = 123456789 while true do (n .. n):rep(500):match('.-x') end",
    "many captures": "return ('a'):rep(40):match(('(a)'):rep(40))",
    "one match at its limit, in a loop": "local s = ('a'):rep(2000) while true do s:match('.-b') end",
    "one anchored match at its limit, in a loop": "local s = ('a'):rep(1600) while true do s:match('^.-.-b') end",
    "gsub of every character, in a loop": "local s = ('a'):rep(3000) while true do s:gsub('.', '%0%0') end",
    "gsub by a table, in a loop": (
        "local s, t = ('a'):rep(3000), {a = ('b'):rep(30000)} while true do s:gsub('.', t) end"
    ),
    "gsub by a long text": "return ('a'):rep(3000):gsub('.', ('b'):rep(30000))",
    "gsub by many captures": "return ('a'):rep(600):gsub('.+', ('%0'):rep(20000) .. ('%0'):rep(20000))",
    "gsub by functions, nested": (
        "local function f(s, n) return n == 0 and s or s:gsub('.', function(c) return f(c .. c, n - 1) end) "
        "end return f('a', 30)"
    ),
    "find of a text in a text, in a loop": (
        "local s, p = ('a'):rep(4000), ('a'):rep(3999) .. 'b' while true do s:find(p, 1, true) end"
    ),
    "find without magic, in a loop": "local s, p = ('ab'):rep(20000), 'ac' while true do s:find(p) end",
    "find of two bytes in megabytes": _LONG + "while true do s:find('ab', 1, true) end",
    "much byte": "local s = ('a'):rep(7000) while true do local x = s:byte(1, -1) end",
    "much byte and char": "local s = ('a'):rep(7000) while true do s = string.char(s:byte(1, -1)) end",
    "many values of byte": _LONG + "return s:byte(1, -1)",
    "values in values": "local function f(...) return f(1, ...) end return f()",
    "values doubled": (
        "local function f(...) return ..., ... end local function g(...) return g(f(...)) end return g(1, 2)"
    ),
    "select of many": (
        "local function f(...) while true do local x = select(-1, ...) end end f(('a'):rep(7000):byte(1, -1))"
    ),
    "a table of many values": (
        "local function f(...) while true do local x = {...} end end f(('a'):rep(7000):byte(1, -1))"
    ),
    "a long constructor, in a loop": "while true do local x = {" + "1," * 5000 + "} end",
    "a long constructor of fields": "while true do local x = {" + "".join(f"a{n}=1," for n in range(3000)) + "} end",
    "much concat of long texts": (
        "local t = {} for i = 1, 50 do t[i] = ('x'):rep(30000) end while true do table.concat(t) end"
    ),
    "concat of a range beyond the list": "return table.concat({'a'}, 'x', 1, 9000)",
    "concat of not a number": "return table.concat({}, 'x', 0/0, 1)",
    "concat of a list that grew": "local t = {} while true do t[#t + 1] = 'x' table.concat(t, ',') end",
    "concat of long separators": _LIST + "return #table.concat(t, ('x'):rep(30000))",
    "operators in a chain": (
        "local s = ('x'):rep(30000) while true do local x = s .. s .. s .. s .. s .. s .. s .. s end"
    ),
    "numbers into text": "while true do local x = 1/3 .. 2/3 .. 1/7 end",
    "insert in the middle": _LIST + "while true do table.insert(t, 5000, 1) table.remove(t, 5000) end",
    "insert into a list with a far item": "local t = {1, 2} t[2^40] = 1 while true do table.insert(t, 1, 1) end",
    "remove at a fraction": "table.remove({1, 2}, 2.999999) table.remove({1, 2}, 3.5)",
    "sort by concatenation": _LIST + "table.sort(t, function(a, b) return a .. 'x' < b .. 'x' end)",
    "sort of equals": "local t = {} for i = 1, 9999 do t[i] = 1 end while true do table.sort(t) end",
    "sort of descending, in a loop": "while true do local t = {} for i = 1, 9999 do t[i] = -i end table.sort(t) end",
    "sort of mixed": "local t = {} for i = 1, 9999 do t[i] = i % 2 == 0 and i or 'x' end table.sort(t)",
    "sort by a function that sorts": (
        _LIST
        + (
            "table.sort(t, function(a, b) table.sort({3, 2, 1}) return a > b end) while true do "
            "table.sort(t, function(a, b) return a > b end) end"
        )
    ),
    "sort killer": (
        "local t = {} for i = 1, 9998 do t[i] = (i * 7919) % 9998 end while true do table.sort(t, "
        "function(a, b) return a * 31 % 97 < b * 31 % 97 end) end"
    ),
    "pairs of much": "local t = {} for i = 1, 60000 do t['k' .. i] = i end while true do for k in pairs(t) do end end",
    "pairs of much, first only": "local t = {} for i = 1, 9999 do t['k' .. i] = i end while true do pairs(t) end",
    "next of much, first only": "local t = {} for i = 1, 9999 do t['k' .. i] = i end while true do next(t) end",
    "next by random steps": (
        "local t = {} for i = 1, 9999 do t['k' .. i] = i end while true do for i = 1, 9999 do next(t, 'k' .. i) end end"
    ),
    "pairs of long keys": (
        "local t, s = {}, ('x'):rep(30000) for i = 1, 99 do t[s .. i] = i end while true do pairs(t) end"
    ),
    "pairs of longer keys": _LONG + "local t = {} for i = 1, 4 do t[s .. i] = i end while true do pairs(t) end",
    "pairs of numbers": "local t = {} for i = 1, 60000 do t[-i * 1.5] = i end while true do pairs(t) end",
    "pairs of holes": (
        "local t = {} for i = 1, 99999 do t['k' .. i] = 1 end for i = 1, 99999 do t['k' .. i] = nil end "
        "while true do pairs(t) end"
    ),
    "pairs in pairs": (
        "local t = {} for i = 1, 300 do t['k' .. i] = i end for a in pairs(t) do for b in pairs(t) do for c "
        "in pairs(t) do end end end"
    ),
    "pairs of several tables as keys": "return pairs({[{}] = 1, [{}] = 2, [{}] = 3})",
    "length of a far list": "local t = {} for i = 0, 50 do t[2^i] = 1 end while true do local x = #t end",
    "ipairs of much": _LIST + "while true do for _, x in ipairs(t) do end end",
    "much format of numbers": (
        "while true do ('%99.99f %99.99f %99.99f %99.99f'):format(1e300, 1e300, 1e300, 1e300) end"
    ),
    "much format of text": "local s = ('x'):rep(30000) while true do ('%s%s%s%s'):format(s, s, s, s) end",
    "format of a long pattern": "local s = ('%%'):rep(20000) while true do s:format() end",
    "format of many directives": "return ('%s'):rep(9000):format()",
    "format quoted": "local s = ('\\0'):rep(30000) while true do ('%q'):format(s) end",
    "format too long": "local s = ('x'):rep(30000) return (('%s'):rep(200)):format(" + ",".join(["s"] * 200) + ")",
    "much tostring": "while true do tostring(1/3) end",
    "tonumber of radix": "local s = ('1'):rep(30000) while true do tonumber(s, 2) end",
    "tonumber of a fraction": "local s = '0.' .. ('1'):rep(30000) while true do tonumber(s) end",
    "arithmetic on long text": "local s = ('1'):rep(30000) while true do local x = s + 1 end",
    "arithmetic on longer text": (
        "local s = '1' for i = 1, 21 do s = s .. '0' .. s end while true do local x = s * 1 end"
    ),
    "arithmetic in a loop of text": (
        "local s = ' ' for i = 1, 21 do s = s .. s end s = s .. '1' while true do local x = -s end"
    ),
    "for from long text": "local s = ('1'):rep(30000) while true do for i = s, 1 do end end",
    "compare of long texts": (
        "local s = ('x'):rep(30000) for i = 1, 6 do s = s .. s end local a, b = s .. 'a', s .. 'b' while a < b do end"
    ),
    "compare of long texts, all ways": (
        _LONG
        + ("local a, b = s .. 'a', s .. 'b' while true do local x = a < b, a <= b, a > b, a >= b, b < a, b <= a end")
    ),
    "compare of texts made otherwise": (
        "local s = ('x'):rep(30000) local a, b = (s:gsub('x', ('y'):rep(60))) .. 'a', (s:gsub('x', "
        "('y'):rep(60))) .. 'b' while true do local x = a < b end"
    ),
    "upper and lower": "local s = ('x'):rep(30000) while true do s = s:upper():lower():reverse():sub(1, -1) end",
    "rep in a loop": "while true do ('x'):rep(30000) end",
    "rep of fractions": "return ('x'):rep(32767.9999) .. ('x'):rep(1e6)",
    "rep of a text that is a number": "return ('x'):rep('1e6')",
    "recursion in gsub with errors": "local function f() ('x'):gsub('.', f) end f()",
    "recursion in a comparison": "local function f(a, b) table.sort({2, 1}, f) return true end table.sort({2, 1}, f)",
    "deep recursion in a loop": (
        "local function f(n) if n > 0 then return 1 + f(n - 1) end return 0 end while true do f(9000) end"
    ),
    "deep recursion of many values": (
        "local function f(n, ...) if n > 0 then return f(n - 1, n, ...) end return select('#', ...) end "
        "while true do f(200) end"
    ),
    "power and modulo": "local x = 3 while true do x = (x ^ 1.5) % 1e15 end",
    "math in a loop": "while true do math.fmod(1e308, 1e-300) end",
    "math of many values": "local s = ('a'):rep(7000) while true do math.max(s:byte(1, -1)) end",
    "garbage in a loop": "while true do local x = {{}, {}, {}, {}, {}, {}, {}, {}, {}} end",
    "garbage of closures": "while true do local x = function() return x end end",
    "much garbage, then an end": "local t = {} for i = 1, 90000 do t[i] = {i} end error('x')",
    "memory of texts": "local t = {} for i = 1, 1e6 do t[i] = ('x'):rep(30000) .. i end",
    "memory by gsub": "local s = ('x'):rep(30000) return s:gsub('x', ('y'):rep(1000))",
    "memory by format": "local t = {} for i = 1, 1e6 do t[i] = ('%99d'):format(i) end",
    "memory by concat": "local t = {} for i = 1, 999 do t[i] = ('x'):rep(30000) end return table.concat(t)",
    "memory by char": "local t = {} for i = 1, 1e6 do t[i] = string.char(('x'):rep(7000):byte(1, -1)) .. i end",
    "a limit, swallowed by gsub": "while true do ('x'):gsub('x', function() while true do end end) end",
    "a limit, swallowed by sort": "while true do table.sort({1, 2, 3}, function() while true do end end) end",
    "error by every function": "return event.nothing .. ('x'):rep(2)",
    "length of nothing": "local t = {} t[1] = 1 return #event.nothing",
    "a name of the sandbox's library": "return concatenation .. lengths",
    "patterns of zeros": "local s = ('\\0'):rep(9000) while true do s:match('%z-%z-b') end",
    "history in a loop": "while true do for i = 1, #history do local x = history[i].event_name .. i end end",
    "walk over history": "while true do for k, v in pairs(history) do for a, b in pairs(v) do end end end",
    "walk over the event": "while true do for k, v in pairs(event) do local x = k .. tostring(v) end end",
    "walk over the profile by next": "while true do local k = next(user) end",
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

HOSTILE: Final[dict[str, str]] = {
    **_ENDLESS,
    **_LONG_CALLS,
    **_LONG_STEPS,
    **_MEMORY,
    **_WAYS_OUT,
    **_SPOILING,
    **_ERRORS,
}

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
