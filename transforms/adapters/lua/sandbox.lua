-- Runs rules' Lua where it can reach nothing but what it is given. Trusted code: it alone sees the real globals.
-- Called with the budget, the library and study; returns compile, expect and evaluate, described where they are.

local budget, library, study = ...
local base, protected, read_only, only = library.base, library.protected, library.read_only, library.only
local begin, check = budget.begin, budget.check
local sethook, collectgarbage = debug.sethook, collectgarbage
local loadstring, setfenv, setmetatable, pcall, error = loadstring, setfenv, setmetatable, pcall, error
local tostring, type, next, ipairs = tostring, type, next, ipairs
local concat, sort = table.concat, table.sort
local plain = library.plain
local byte, find, format, gsub, sub = plain.byte, plain.find, plain.format, plain.gsub, plain.sub

local HOOK_EVERY = 200 -- instructions
local GARBAGE_KB = 2048 -- that a filter may leave to the next
local MESSAGE_BYTES = 500
local VALUE_BYTES = 200

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

-- A filter that assigns to no global and no table field cannot change what others see: it gets the event's tables
-- themselves and one environment for all. Every other filter gets copies, and a fresh environment a call.

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
  local found = study(chunk)
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

-- expect(numbers, names, wholes): evaluate is given values, first those of fields (of event 1, user 2, visit 3, by number
-- and name), then whole tables, by number. Many small calls from Python cost more than one with many values.
local numbers, names, wholes = {}, {}, {}
local given = { {}, {}, {} }

local function expect(...)
  numbers, names, wholes = ...
end

-- The tables that are filled field by field stay: each of their fields is set by each event, if only to nil.
local function take(values)
  local fields = #names
  for i = 1, fields do
    given[numbers[i]][names[i]] = values[i]
  end
  for i = 1, #wholes do
    given[wholes[i]] = values[fields + i]
  end
  return given[1], given[2], given[3]
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
  begin()
  sethook(check, "", HOOK_EVERY)
  local result = program.chunk()
  sethook()
  return result
end

local function run(...)
  local ok, result = pcall(call, ...)
  if not ok then
    sethook() -- otherwise call() has
  end
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
  elseif result == budget.OVER_BUDGET then
    return "L", "over budget: more than " .. budget.CPU_SECONDS * 1000 .. " ms of CPU"
  elseif result == "not enough memory" then
    return "L", "over budget: more than 16 MB of memory"
  elseif type(result) ~= "string" then
    return "E", "error value of type " .. type(result)
  end
  return "E", printable(gsub(sub(result, 1, MESSAGE_BYTES), "^sandbox:%d+: ", ""), MESSAGE_BYTES)
end

-- evaluate(mask, history, ...): a mark a program and, joined with zero bytes, the texts of those marked E, L and V. Without
-- mask every program runs, otherwise those with a 1. History has timestamps, ids, names and extras, a column each. The rest
-- are values as expect says.
-- Marks: 1 allows, 0 does not, V has a value, E error, L limit, H asks for the history, - has not run.
local function evaluate(mask, history, ...)
  local event, user, visit = take({ ... })
  history_columns = history
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
      if not (ran and ok) then
        sethook()
      end
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

return compile, expect, evaluate
