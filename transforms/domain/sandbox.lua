-- Runs rules' Lua where it can reach nothing but what it is given. Trusted code: it alone sees the real globals.
-- Returns compile and evaluate, described where they are.

jit.off() -- compiled code runs no count hooks, so a loop would never stop

local util, ffi, band, rshift = require("jit.util"), require("ffi"), bit.band, bit.rshift
local sethook, collectgarbage = debug.sethook, collectgarbage
local loadstring, setfenv, setmetatable, pcall, error = loadstring, setfenv, setmetatable, pcall, error
local tostring, tonumber, type, next, pairs, ipairs = tostring, tonumber, type, next, pairs, ipairs
local select, unpack = select, unpack
local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local lower, match, rep, reverse = string.lower, string.match, string.rep, string.reverse
local sub, upper = string.sub, string.upper

-- Limits ---------------------------------------------------------------------------------------------------------------

local CPU_SECONDS = 0.05
local HOOK_EVERY = 200 -- instructions
local WORK_BETWEEN_CHECKS = 2 ^ 15 -- about bytes touched by library functions, inside which no hook fires
local FIND_WORK = 2 ^ 24 -- steps of one plain search
local PATTERN_WORK = 2 ^ 24 -- steps of one match, at worst
local PATTERN_BYTES = 1000
local REP_BYTES = 2 ^ 16
local TABLE_ITEMS = 10000 -- that one call of concat or sort takes
local NESTED_CALLBACKS = 10 -- each takes some 10 KB of the C stack, whose end is the end of the process
local GARBAGE_KB = 2048 -- that a filter may leave to the next
local MESSAGE_BYTES = 500
local VALUE_BYTES = 200

ffi.cdef("typedef struct { long seconds, nanoseconds; } sandbox_time; int clock_gettime(int, sandbox_time *);")
local clock_gettime, time = ffi.C.clock_gettime, ffi.new("sandbox_time")
local WALL, THREAD_CPU = 1, 3
if ffi.os == "OSX" then
  WALL, THREAD_CPU = 6, 16
end

local function seconds_of(clock)
  clock_gettime(clock, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

local OVER_BUDGET = {} -- as an error value nobody else can make
local wall_end, cpu_end -- nil until the first check of a filter: most are done before
local work = 0

local function check()
  local wall = seconds_of(WALL)
  if wall_end and wall < wall_end then
    return -- a thread's CPU time cannot be over where the wall clock is not, and that is much cheaper to read
  end
  local cpu = seconds_of(THREAD_CPU)
  cpu_end = cpu_end or cpu + CPU_SECONDS
  if cpu >= cpu_end then
    error(OVER_BUDGET, 0)
  end
  wall_end = wall + cpu_end - cpu
end

local function spend(steps)
  work = work + steps
  if work > WORK_BETWEEN_CHECKS then
    work = 0
    check()
  end
end

-- Calls a library function that calls back.
local nested = 0
local function calling_back(name, f, ...)
  if nested >= NESTED_CALLBACKS then
    error(name .. ": nested deeper than " .. NESTED_CALLBACKS, 3)
  end
  nested = nested + 1
  local first, second = f(...)
  nested = nested - 1 -- not after an error, but no filter outlives one
  return first, second
end

-- What filters find ----------------------------------------------------------------------------------------------------

local function text_of(value, name)
  if type(value) == "number" then
    return tostring(value)
  elseif type(value) ~= "string" then
    error(name .. ": a " .. type(value) .. " where text is needed", 3)
  end
  return value
end

-- Backtracking tries, for each thing that repeats or branches, every length of the text.
local function pattern_cost(text, pattern, anchors)
  local varying, at, set = anchors and byte(pattern) == 94 and 0 or 1, 1, false
  while at <= #pattern do
    local c = byte(pattern, at)
    if c == 37 then -- % escapes; a balance, frontier or back reference looks at more than one character
      local escaped = byte(pattern, at + 1) or 0
      if escaped == 98 or (escaped >= 48 and escaped <= 57) then
        varying = varying + 1
      end
      at = at + 1
    elseif set then
      set = c ~= 93
    elseif c == 91 then
      set = true
      at = at + (byte(pattern, at + 1) == 94 and 1 or 0)
      at = at + (byte(pattern, at + 1) == 93 and 1 or 0)
    elseif c == 42 or c == 43 or c == 45 or c == 63 then -- * + - ?
      varying = varying + 1
    end
    at = at + 1
  end
  return (#text + 2) ^ varying * (#pattern + 1)
end

local function checked_pattern(name, text, pattern, anchors)
  text, pattern = text_of(text, name), text_of(pattern, name)
  if #pattern > PATTERN_BYTES then
    error(name .. ": a pattern of " .. #pattern .. " bytes, allowed are " .. PATTERN_BYTES, 3)
  end
  local cost = pattern_cost(text, pattern, anchors)
  if not (cost <= PATTERN_WORK) then
    local shown = "'" .. sub(pattern, 1, 50) .. "' on " .. #text .. " bytes of text"
    error(name .. ": " .. shown .. " may take too long: begin it with ^, use fewer of * + - ?, or less text", 3)
  end
  spend(cost / 8)
  return text, pattern
end

local function library(functions)
  for name in next, string do
    string[name] = nil
  end
  for name, call in next, functions do
    string[name] = call
  end
end

-- Methods of strings are reached through every string value, so the string table itself is what is replaced.
library({
  byte = byte,
  char = string.char,
  len = string.len,
  lower = function(text) text = text_of(text, "lower") spend(#text) return lower(text) end,
  upper = function(text) text = text_of(text, "upper") spend(#text) return upper(text) end,
  reverse = function(text) text = text_of(text, "reverse") spend(#text) return reverse(text) end,
  sub = function(text, first, last) text = text_of(text, "sub") spend(#text) return sub(text, first, last) end,
  rep = function(text, count)
    text, count = text_of(text, "rep"), tonumber(count)
    if not count or not ((#text + 1) * count <= REP_BYTES) then
      error("rep: allowed are " .. REP_BYTES .. " bytes", 2)
    end
    spend(#text * count)
    return rep(text, count)
  end,
  format = function(pattern, ...)
    pattern = text_of(pattern, "format")
    local count, values = select("#", ...), { ... }
    for i = 1, count do
      local kind = type(values[i])
      if kind == "table" or kind == "function" then
        values[i] = kind -- its address is nobody's business, and differs from run to run
      elseif kind == "string" then
        spend(#values[i])
      end
    end
    if find(pattern, "%%[-+ #0-9.]*[pP]") then
      error("format: %p is not available", 2)
    end
    spend(#pattern)
    return format(pattern, unpack(values, 1, count))
  end,
  find = function(text, pattern, init, plain)
    if plain then
      text, pattern = text_of(text, "find"), text_of(pattern, "find")
      if #text * #pattern > FIND_WORK then
        error("find: " .. #text .. " times " .. #pattern .. " bytes, allowed is a product of " .. FIND_WORK, 2)
      end
      spend(#text)
      return find(text, pattern, init, true)
    end
    text, pattern = checked_pattern("find", text, pattern, true)
    return find(text, pattern, init)
  end,
  match = function(text, pattern, init)
    text, pattern = checked_pattern("match", text, pattern, true)
    return match(text, pattern, init)
  end,
  gmatch = function(text, pattern)
    text, pattern = checked_pattern("gmatch", text, pattern, false)
    local cost, step = pattern_cost(text, pattern, false) / 8, gmatch(text, pattern)
    return function()
      spend(cost)
      return step()
    end
  end,
  gsub = function(text, pattern, replacement, count)
    text, pattern = checked_pattern("gsub", text, pattern, true)
    if type(replacement) == "string" then
      spend(#text * #replacement)
    end
    if type(replacement) == "function" then
      return calling_back("gsub", gsub, text, pattern, replacement, count)
    end
    return gsub(text, pattern, replacement, count)
  end,
})

-- Tables that table's functions would reach past the protection of.
local protected = {}

local function items(value, name)
  if type(value) ~= "table" then
    error(name .. ": a " .. type(value) .. " where a table is needed", 3)
  elseif protected[value] then
    error(name .. ": what a rule is given is read-only", 3)
  elseif #value > TABLE_ITEMS then
    error(name .. ": " .. #value .. " items, allowed are " .. TABLE_ITEMS, 3)
  end
  spend(#value * 16)
  return value
end

-- Moves everything from there to the end, without a hook: from minus a billion, say.
local function position(name, at, last)
  at = tonumber(at)
  if not at or not (at >= 1 and at <= last) then
    error(name .. ": allowed are positions from 1 to " .. last, 3)
  end
  return at
end

local function in_order(a, b)
  return a < b
end

local tables = {
  concat = function(list, separator, first, last)
    list = items(list, "concat")
    if (last or 0) - (first or 1) > TABLE_ITEMS then
      error("concat: allowed are " .. TABLE_ITEMS .. " items", 2)
    end
    return concat(list, separator, first, last)
  end,
  insert = function(list, ...)
    list = items(list, "insert")
    if select("#", ...) == 2 then
      local at, value = ...
      return insert(list, position("insert", at, #list + 1), value)
    end
    return insert(list, (...))
  end,
  remove = function(list, at)
    list = items(list, "remove")
    if at == nil then
      return remove(list)
    end
    return remove(list, position("remove", at, #list + 1))
  end,
  -- Always by a Lua function: in sort's own comparisons no hook fires.
  sort = function(list, before) return calling_back("sort", sort, items(list, "sort"), before or in_order) end,
}

local function read_only(_, name)
  error("assignment to '" .. (type(name) == "string" and name or type(name)) .. "': what a rule is given is read-only", 2)
end

local function frozen(functions)
  local proxy = setmetatable({}, { __index = functions, __newindex = read_only, __metatable = false })
  protected[proxy] = true
  return proxy
end

local function only(names, from)
  local copy = {}
  for _, name in ipairs(names) do
    copy[name] = from[name]
  end
  return copy
end

local function shown_value(value)
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return kind
end

local base = {
  error = error,
  ipairs = ipairs,
  next = next,
  pairs = pairs,
  select = select,
  tonumber = function(value, radix)
    if type(value) == "string" then
      spend(#value)
    end
    return tonumber(value, radix)
  end,
  tostring = shown_value,
  type = type,
  math = frozen(only({ "abs", "ceil", "floor", "fmod", "huge", "max", "min", "modf", "pi", "pow", "sqrt" }, math)),
  string = frozen(string),
  table = frozen(tables),
}
getmetatable("").__metatable = false

-- What a chunk does, read from its bytecode ------------------------------------------------------------------------------
-- A filter that assigns to no global and no table field cannot change what others see: it gets the event's tables
-- themselves and one environment for all. Every other filter gets copies, and a fresh environment a call.

local function opcode(sample, at)
  return band(util.funcbc(sample, at), 0xff)
end

local GET_GLOBAL = opcode(function() return x end, 1)
local SET_GLOBAL = opcode(function(v) x = v end, 1)
local SETS_FIELD = {
  [opcode(function(t, k, v) t[k] = v end, 1)] = true,
  [opcode(function(t, k, v) t.x = v end, 1)] = true,
  [opcode(function(t, k, v) t[1] = v end, 1)] = true,
  [opcode(function(...) return { ... } end, 3)] = true,
}

local GET_FIELD = opcode(function(t) return t.x end, 1)
local GIVEN = { event = true, user = true, visit = true }

-- Whether the next instruction reads a named field of what this one has put into a register, and overwrites it: then
-- that field is all that is wanted of the table. Returns its name.
local function field_read(proto, at, instruction)
  local following = util.funcbc(proto, at + 1)
  local register = band(rshift(instruction, 8), 0xff)
  if
    following
    and band(following, 0xff) == GET_FIELD
    and band(rshift(following, 8), 0xff) == register
    and band(rshift(following, 24), 0xff) == register
  then
    return util.funck(proto, -1 - band(rshift(following, 16), 0xff))
  end
  return nil
end

local function study(proto, found)
  local at = 1
  local instruction = util.funcbc(proto, at)
  while instruction do
    local op = band(instruction, 0xff)
    if op == GET_GLOBAL then
      local name = util.funck(proto, -1 - rshift(instruction, 16))
      found.reads[name] = true
      if GIVEN[name] then
        local field = field_read(proto, at, instruction)
        found.fields[#found.fields + 1] = field and name .. "\1" .. field or name
      end
    elseif op == SET_GLOBAL then
      found.assigns[util.funck(proto, -1 - rshift(instruction, 16))] = true
      found.pure = false
    elseif SETS_FIELD[op] then
      found.pure = false
    end
    at = at + 1
    instruction = util.funcbc(proto, at)
  end
  at = -1
  local constant = util.funck(proto, at)
  while constant ~= nil do
    if type(constant) == "proto" then
      study(constant, found)
    elseif type(constant) == "cdata" then
      found.cdata = true
    end
    at = at - 1
    constant = util.funck(proto, at)
  end
  return found
end

local KNOWN = { event = true, user = true, visit = true, history = true }

local function unknown_names(found)
  local names = {}
  for name in next, found.reads do
    if not KNOWN[name] and base[name] == nil and not found.assigns[name] then
      names[#names + 1] = name
    end
  end
  sort(names)
  return concat(names, " ")
end

-- Environments -----------------------------------------------------------------------------------------------------------

local NEEDS_HISTORY = {} -- an error value: the filter is run again when the history is there
local history_columns, shared_rows

local function copy_of(value)
  if type(value) ~= "table" then
    return value
  end
  local copy = {}
  for key, inner in next, value do
    copy[key] = copy_of(inner)
  end
  return copy
end

local function rows_of(timestamps, ids, names, extras)
  local rows = {}
  for i = 1, #ids do
    local row = extras and copy_of(extras[i]) or {}
    row.timestamp, row.event_id, row.event_name = timestamps[i], ids[i], names[i]
    rows[i] = row
  end
  return rows
end

local function built_rows()
  if not history_columns then
    error(NEEDS_HISTORY, 0)
  end
  -- Many rows are the sandbox's work, not the filter's: they do not count against its instructions.
  return rows_of(history_columns.timestamps, history_columns.ids, history_columns.names, history_columns.extras)
end

local shared = setmetatable(copy_of(base), {
  __index = function(_, name)
    if name ~= "history" then
      return nil
    end
    shared_rows = shared_rows or built_rows()
    return shared_rows
  end,
  __metatable = false,
})
-- copy_of() took the frozen libraries for empty tables.
shared.math, shared.string, shared.table = base.math, base.string, base.table

-- For filters that may assign: a proxy a name, for the life of the runtime; only the table behind it is swapped.
local behind, proxies, behind_proxy = {}, {}, {}
for _, name in ipairs({ "event", "user", "visit" }) do
  behind[name] = { __newindex = read_only, __metatable = false }
  proxies[name] = setmetatable({}, behind[name])
  behind_proxy[proxies[name]] = behind[name]
  protected[proxies[name]] = true
end

local function unwrapped(value)
  local meta = behind_proxy[value]
  return meta and meta.__index or value
end

local guarded = only({ "error", "ipairs", "select", "tonumber", "tostring", "type", "math", "string", "table" }, base)
guarded.event, guarded.user, guarded.visit = proxies.event, proxies.user, proxies.visit
guarded.next = function(value, key) return next(unwrapped(value), key) end
guarded.pairs = function(value)
  local source = unwrapped(value)
  -- A closure, as `next, source` would hand out the table behind the proxy.
  return function(_, key) return next(source, key) end
end
local guarded_meta = { __index = guarded, __metatable = false }

local programs = {}

-- compile(source, name, wants_value): adds a program; returns nil, or why not; the names that it reads and that nobody
-- defines, apart by spaces; and what it reads of event, user and visit, apart by zero bytes: a table's name is all of it,
-- with a byte 1 and a field's name that field.
local function compile(source, name, wants_value)
  if find(source, "\27", 1, true) then
    return "an escape character: allowed is Lua source, not bytecode", "", ""
  end
  local chunk, message = loadstring("return (" .. source .. "\n)", "=" .. name)
  if chunk then
    -- It is one expression. Not run as it was checked: an error would be on the closing bracket's line.
    chunk = loadstring("local result = " .. source .. "\nreturn result", "=" .. name)
  else
    local body, body_message = loadstring(source, "=" .. name)
    if not body then
      -- The message of the form that the author wrote is the one that helps.
      return find(source, "return", 1, true) and body_message or message, "", ""
    end
    chunk = body
  end
  local found = study(chunk, { reads = {}, fields = {}, assigns = {}, pure = true })
  if found.cdata then
    return "a number like 1LL or 2i: allowed are plain numbers", "", ""
  end
  local program = { chunk = chunk, reads = found.reads, wants_value = wants_value }
  -- table's functions change the tables they are given.
  program.shares = found.pure and not found.reads.table
  if program.shares then
    setfenv(chunk, shared)
  end
  programs[#programs + 1] = program
  return nil, unknown_names(found), concat(found.fields, "\0")
end

local function prepare(program, event, user, visit)
  local reads = program.reads
  behind.event.__index = reads.event and copy_of(event) or {}
  behind.user.__index = reads.user and copy_of(user) or {}
  behind.visit.__index = reads.visit and copy_of(visit) or {}
  local environment = setmetatable({}, guarded_meta)
  if reads.history then
    environment.history = built_rows()
  end
  setfenv(program.chunk, environment)
end

local function call(program, event, user, visit)
  if not program.shares then
    prepare(program, event, user, visit)
  end
  wall_end, cpu_end, work, nested = nil, nil, 0, 0
  sethook(check, "", HOOK_EVERY)
  local result = program.chunk()
  sethook()
  return result
end

local function run(...)
  local ok, result = pcall(call, ...)
  sethook()
  return ok, result
end

local function printable(text, bytes)
  return (gsub(sub(text, 1, bytes), "[^\32-\126]", "?"))
end

local function key_of(value)
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    return nil, "a " .. kind .. " as value: allowed are text, numbers, true and false"
  end
  local text = tostring(value)
  if #text > VALUE_BYTES then
    return nil, "a value of " .. #text .. " bytes: allowed are " .. VALUE_BYTES
  end
  return sub(kind, 1, 1) .. ":" .. gsub(text, "[^\33-\36\38-\126]", function(c) return format("%%%02X", byte(c)) end)
end

local function outcome(program, ok, result)
  if ok and program.wants_value then
    local key, problem = key_of(result)
    return key and "V" or "E", key or problem
  elseif ok then
    return result and "1" or "0"
  elseif result == NEEDS_HISTORY then
    return "H"
  elseif result == OVER_BUDGET then
    return "L", "over budget: more than " .. CPU_SECONDS * 1000 .. " ms of CPU"
  elseif result == "not enough memory" then
    return "L", "over budget: more than 16 MB of memory"
  elseif type(result) ~= "string" then
    return "E", "error value of type " .. type(result)
  end
  return "E", printable(gsub(sub(result, 1, MESSAGE_BYTES), "^sandbox:%d+: ", ""), MESSAGE_BYTES)
end

-- evaluate(mask, event, user, visit, timestamps, ids, names, extras): a mark a program and, joined with zero bytes, the
-- texts of those marked E, L and V. Without mask every program runs, otherwise those with a 1; without ids no history.
-- Marks: 1 allows, 0 does not, V has a value, E error, L limit, H asks for the history, - has not run.
local function evaluate(mask, event, user, visit, timestamps, ids, names, extras)
  history_columns = ids and { timestamps = timestamps, ids = ids, names = names, extras = extras }
  shared_rows = nil
  shared.event, shared.user, shared.visit = event, user, visit
  local marks, texts = {}, {}
  local kept_kb = collectgarbage("count") + GARBAGE_KB
  for i = 1, #programs do
    if mask and byte(mask, i) ~= 49 then
      marks[i] = "-"
    else
      -- Protected twice: a failed filter's hook can still fire before run() takes it away.
      local ran, ok, result = pcall(run, programs[i], event, user, visit)
      sethook()
      if collectgarbage("count") > kept_kb then
        collectgarbage() -- what one leaves behind must not be missing to the next, nor here
      end
      if not ran then
        ok, result = false, ok
      end
      local mark, text = outcome(programs[i], ok, result)
      marks[i], texts[#texts + 1] = mark, text
    end
  end
  return concat(marks), concat(texts, "\0")
end

return compile, evaluate
