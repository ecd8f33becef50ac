-- Runs rules' Lua where it can reach nothing but its inputs. Trusted code: it alone sees the real globals.
-- Called with what the other files return; returns compile, expect_values and evaluate, described where they are.

local budget, order, texts, library, study, rewrite, calendar, past = ...
local base, protected, read_only, only = library.base, library.protected, library.read_only, library.only
local begin, spent, used = budget.begin, budget.spent, budget.state
local sethook, collectgarbage = debug.sethook, collectgarbage
local loadstring, setfenv, setmetatable, pcall, error = loadstring, setfenv, setmetatable, pcall, error
local tostring, type, next, ipairs = tostring, type, next, ipairs
local walk = order.state
local next_in_order, pairs_in_order, number_text = order.next, order.pairs, texts.number_text
local concat, sort = table.concat, table.sort
local plain = library.plain
local byte, find, format, gsub = plain.byte, plain.find, plain.format, plain.gsub
local match, sub = plain.match, plain.sub

local GARBAGE_KB = 2048 -- that a program may leave behind for the next
local LIGHT_LOAD = 10 -- checks, up to which a program is cheap
local MESSAGE_BYTES = 500
local VALUE_BYTES = 200
local EXACT = texts.EXACT

local KNOWN = { event = true, user = true, visit = true, history = true, enrichment = true }
KNOWN.local_time, KNOWN.history_since = true, true
-- Names that earlier releases did not define. A program that assigns to a global of such a name keeps its own.
local LATER = { "begun", "bucket", "count", "days_between", "distinct", "history_since", "last", "local_time" }

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

-- A program that assigns to no global and no table field cannot change what others see: all such programs share the
-- event's tables and one environment. Every other program gets copies, and a fresh environment a call.

-- What the clocks of the event showed, the local times made of them, and the place of the program's.
local clocks, local_times, clock

local function built_local_time()
  local made = local_times[clock] or calendar.local_time(clocks[clock])
  local_times[clock] = made
  return made
end

local NEEDS_HISTORY, seen = past.NEEDS_HISTORY, past.state
local shared_rows

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
  local columns = seen.columns
  if not columns then
    error(NEEDS_HISTORY, 0)
  end
  -- The sandbox builds the rows, not the program: they do not count against its instructions.
  return rows_of(columns.timestamps, columns.ids, columns.names, columns.extras)
end

local shared = setmetatable(copy_of(base), {
  __index = function(_, name)
    if name == "history" then
      shared_rows = shared_rows or built_rows()
      return shared_rows
    end
    return name == "local_time" and built_local_time() or name == "history_since" and past.since() or nil
  end,
  __metatable = false,
})
-- copy_of() took what is frozen for empty tables.
for _, name in ipairs({ "math", "string", "table", "CONCAT_", "LENGTH_" }) do
  shared[name] = base[name]
end

-- For programs that may assign: a proxy a name, for the life of the runtime; only the table behind it is swapped.
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

local guarded = only(
  { "bucket", "count", "days_between", "distinct", "last", "error", "ipairs", "select", "tonumber", "tostring", "type", "math", "string", "table", "CONCAT_", "LENGTH_" },
  base
)
guarded.event, guarded.user, guarded.visit = proxies.event, proxies.user, proxies.visit
guarded.next = function(value, key) return next_in_order(unwrapped(value), key) end
guarded.pairs = function(value) return pairs_in_order(unwrapped(value)) end
local guarded_meta = { __index = guarded, __metatable = false }

local NAMES = {}
for name in next, guarded do
  NAMES[#NAMES + 1] = name
end

-- The metatable of the environments of a program that assigns to these globals.
local function meta_of(assigns)
  local names
  for _, name in ipairs(LATER) do
    if assigns[name] then
      names = names or only(NAMES, guarded)
      names[name] = nil
    end
  end
  return names and { __index = names, __metatable = false } or guarded_meta
end

local programs = {}

-- Whether a source is one expression, or else a body with return, is told by brackets around it. The chunk that runs has
-- none: with them, an error would be on the closing bracket's line, and `a) or (b` would compile. Returns the chunk or
-- nil, a message, and whether it is an expression.
local function load_source(source, name)
  local bracketed, message = loadstring("return (" .. source .. "\n)", name)
  if bracketed then
    local chunk, bare_message = loadstring("local result = " .. source .. "\nreturn result", name)
    return chunk, bare_message, true
  end
  local body, body_message = loadstring(source, name)
  -- The message about the form that the author wrote is the one that helps.
  return body, find(source, "return", 1, true) and body_message or message, false
end

-- compile(source, name, wants_value, clock): adds a program; clock is the place of its local time. Returns nil, or why the source does not compile; whether it is one
-- expression; the global names that it reads and nobody defines, separated by spaces; and what it reads of event, user
-- and visit, separated by zero bytes: a table's name for all of the table, table, byte 1 and field for one field.
local function compile(source, name, wants_value, place)
  if find(source, "\27", 1, true) then
    return "an escape character: allowed is Lua source, not bytecode", false, "", ""
  end
  local reserved = match(source, "CONCAT_") or match(source, "LENGTH_")
  if reserved then
    return reserved .. " is a name of the sandbox's own: allowed are other names", false, "", ""
  end
  local chunk, message, is_expression = load_source(source, "=" .. name)
  if not chunk then
    return message, false, "", ""
  end
  local found = study(chunk)
  for _, name in ipairs(LATER) do
    found.reads[name] = found.reads[name] and not found.assigns[name] or nil
  end
  if found.cdata then
    return "a number like 1LL or 2i: allowed are plain numbers", false, "", ""
  end
  -- A table that a program made itself may have holes.
  local replaces_length = found.has_length and (not found.pure or found.has_fields)
  if found.concatenates or replaces_length then
    chunk, message = load_source(rewrite(source, replaces_length), "=" .. name)
    if not chunk then
      return message, false, "", ""
    end
  end
  local program = { chunk = chunk, reads = found.reads, wants_value = wants_value, clock = place + 1 }
  -- The functions of table change the tables that they get.
  program.shares = found.pure and not found.reads.table
  if program.shares then
    setfenv(chunk, shared)
  else
    program.meta = meta_of(found.assigns)
  end
  programs[#programs + 1] = program
  return nil, is_expression, unknown_names(found), concat(found.fields, "\0")
end

-- expect_values(numbers, names, wholes): says what the values are that evaluate gets. First come the values of single
-- fields: numbers has the table of each (event 1, user 2, visit 3, enrichment 4), names its name. Then come whole tables, by number in
-- wholes. Many small calls from Python cost more than one with many values.
local numbers, names, wholes = {}, {}, {}
local inputs = { {}, {}, {} }

local function expect_values(...)
  numbers, names, wholes = ...
end

-- Fills the tables of the inputs. They are the same for every event: each sets every field, if only to nil.
local function fill_inputs(values)
  local fields = #names
  for i = 1, fields do
    inputs[numbers[i]][names[i]] = values[i]
  end
  for i = 1, #wholes do
    inputs[wholes[i]] = values[fields + i]
  end
  return inputs[1], inputs[2], inputs[3]
end

local function prepare(program, event, user, visit)
  local reads = program.reads
  behind.event.__index = reads.event and copy_of(event) or {}
  behind.user.__index = reads.user and copy_of(user) or {}
  behind.visit.__index = reads.visit and copy_of(visit) or {}
  local environment = setmetatable({}, program.meta)
  if reads.history then
    environment.history = built_rows()
  end
  if reads.local_time then
    environment.local_time = calendar.local_time(clocks[clock]) -- its own: it may change it
  end
  if reads.begun then
    environment.begun = copy_of(shared.begun)
  end
  if reads.history_since then
    environment.history_since = past.since()
  end
  setfenv(program.chunk, environment)
end

local function call(program, event, user, visit)
  if not program.shares then
    prepare(program, event, user, visit)
  end
  begin()
  local result = program.chunk()
  sethook()
  return result
end

local function run(...)
  local ok, result = pcall(call, ...)
  if not ok then
    sethook() -- otherwise call() has done it
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
  if kind == "number" and not (value >= -EXACT and value <= EXACT) then
    local shown = value == value and "2^53 or more" or "nan"
    return nil, shown .. " as value: allowed are exact numbers, keep large ids as text"
  end
  local text = kind == "number" and number_text(value, 0) or tostring(value)
  if #text > VALUE_BYTES then
    return nil, "a value of " .. #text .. " bytes: allowed are " .. VALUE_BYTES
  end
  return sub(kind, 1, 1) .. ":" .. gsub(text, "[^\33-\36\38-\126]", function(c) return format("%%%02X", byte(c)) end)
end

-- What a program that ran came to: a kind of outcome and its text (printable, so without zero bytes), or nil for a
-- condition that is false. The kinds are those of OutcomeKind in transforms/domain/rules/engine.py.
local function outcome(program, ok, result)
  if ok and program.wants_value then
    local key, problem = key_of(result)
    return key and "value" or "error", key or problem
  elseif ok then
    return result and "allowed" or nil, ""
  elseif result == NEEDS_HISTORY then
    return "needs_history", ""
  elseif result == budget.OVER_BUDGET then
    return "limit", "over budget: more than " .. budget.CPU_SECONDS * 1000 .. " ms of CPU"
  elseif result == "not enough memory" then
    return "limit", "over budget: more than 16 MB of memory"
  elseif type(result) ~= "string" then
    return "error", "error value of type " .. type(result)
  end
  return "error", printable(gsub(sub(result, 1, MESSAGE_BYTES), "^sandbox:%d+: ", ""), MESSAGE_BYTES)
end

-- The same for a program whose time counts, and its milliseconds.
local function measured_outcome(program, ok, result)
  local seconds = spent()
  if seconds >= budget.CPU_SECONDS then
    ok, result = false, budget.OVER_BUDGET
  end
  local kind, text = outcome(program, ok, result)
  return kind or "not_allowed", text, format("%.3f", seconds * 1000)
end

-- evaluate(mask, history, clocks, begun, ...): runs the programs that mask has a 1 for; without mask, every program that wants no value.
-- History has the columns timestamps, ids, names and extras; clocks and begun are those of set_inputs in engine.py. The rest are the values that expect_values announced.
-- Returns nil if every program that ran is a cheap condition that is false, as for most events. Otherwise a text with
-- number, kind, text and milliseconds (empty if cheap) of each outcome, separated by zero bytes.
local function evaluate(mask, history, event_clocks, begun, ...)
  local event, user, visit = fill_inputs({ ... })
  seen.columns, clocks = history, event_clocks
  shared_rows = nil
  if clocks then
    local_times, seen.at = {}, clocks[1]
  end
  if walk.walked then
    order.forget()
  end
  shared.event, shared.user, shared.visit, shared.begun = event, user, visit, begun
  shared.enrichment, guarded.enrichment = inputs[4], inputs[4] -- a text, so there is nothing to protect
  local packed
  local kept_kb = collectgarbage("count") + GARBAGE_KB
  for i = 1, #programs do
    local program, is_selected = programs[i], nil
    if mask then
      is_selected = byte(mask, i) == 49
    else
      is_selected = not program.wants_value
    end
    if is_selected then
      clock = program.clock
      -- Protected twice: the hook of a program that failed can still fire before run() takes it away.
      local ran, ok, result = pcall(run, program, event, user, visit)
      if not (ran and ok) then
        sethook()
      end
      if collectgarbage("count") > kept_kb then
        order.forget()
        collectgarbage() -- or the memory that one program leaves behind would be missing for the next, and here
      end
      if not ran then
        ok, result = false, ok
      end
      local kind, text, milliseconds
      if used.load > LIGHT_LOAD then
        kind, text, milliseconds = measured_outcome(program, ok, result)
      else
        kind, text = outcome(program, ok, result)
      end
      if kind then
        packed = packed or {}
        local at = #packed
        packed[at + 1], packed[at + 2], packed[at + 3], packed[at + 4] = i, kind, text, milliseconds or ""
      end
    end
  end
  return packed and concat(packed, "\0")
end

return compile, expect_values, evaluate
