-- Runs rule filters where they can reach nothing but what they are given. Trusted code: it alone sees the real globals.
-- Returns compile(source, name) and evaluate(event, user, visit, timestamps, ids, names, extras).

jit.off() -- compiled code runs no count hooks, so a loop would never stop

local sethook, clock = debug.sethook, os.clock
local loadstring, setfenv, pcall, error, tostring, type, next = loadstring, setfenv, pcall, error, tostring, type, next
local concat, find, gsub, sub = table.concat, string.find, string.gsub, string.sub
local collectgarbage = collectgarbage

local HOOK_EVERY = 200 -- instructions
local CPU_SECONDS = 0.05
local FIND_WORK = 2 ^ 24 -- text bytes times needle bytes: one call of find can compare that many, and no hook fires in it
local MESSAGE_BYTES = 500

-- Methods of strings are reached through every string value, so the string table itself is cut down. What is missing
-- (patterns, rep, dump) can run for ever or fill the memory inside one call, where no hook fires.
local allowed_string = { byte = true, char = true, len = true, lower = true, reverse = true, sub = true, upper = true }
for name in next, string do
  if not allowed_string[name] then
    string[name] = nil
  end
end
string.find = function(text, needle, init)
  if #text * #needle > FIND_WORK then
    error("find: " .. #text .. " bytes of text times " .. #needle .. " to find, allowed is a product of " .. FIND_WORK, 2)
  end
  return find(text, needle, init or 1, true)
end

local function read_only(_, name)
  error("assignment to '" .. tostring(name) .. "': what a rule is given is read-only", 2)
end

local function frozen(names, from)
  local copy = {}
  for _, name in ipairs(names) do
    copy[name] = from[name]
  end
  return setmetatable({}, { __index = copy, __newindex = read_only, __metatable = false })
end

-- One proxy a name for the life of the runtime; evaluate() only swaps the table behind it.
local behind = {}
local proxies = {}
for _, name in ipairs({ "event", "user", "visit" }) do
  local meta = { __newindex = read_only, __metatable = false }
  behind[name] = meta
  proxies[name] = setmetatable({}, meta)
end
local unwrap = {}
for name, proxy in next, proxies do
  unwrap[proxy] = behind[name]
end

local function unwrapped(value)
  local meta = unwrap[value]
  return meta and meta.__index or value
end

local function pairs_of(value)
  local source = unwrapped(value)
  -- A closure, as `next, source` would hand out the table behind the proxy.
  return function(_, key) return next(source, key) end
end

local setmetatable = setmetatable
local base = {
  event = proxies.event,
  user = proxies.user,
  visit = proxies.visit,
  error = error,
  ipairs = ipairs,
  next = function(value, key) return next(unwrapped(value), key) end,
  pairs = pairs_of,
  select = select,
  tonumber = tonumber,
  tostring = tostring,
  type = type,
  math = frozen({ "abs", "ceil", "floor", "fmod", "huge", "max", "min", "modf", "pi", "pow", "sqrt" }, math),
  string = setmetatable({}, { __index = string, __newindex = read_only, __metatable = false }),
}
local string_meta = getmetatable("")
string_meta.__metatable = false

local filters = {}
local deadline
local function over_budget()
  if clock() > deadline then
    sethook()
    error("over budget: more than " .. CPU_SECONDS * 1000 .. " ms of CPU", 0)
  end
end

local function compile(source, name)
  if find(source, "\27", 1, true) then
    return "an escape character: allowed is Lua source, not bytecode"
  end
  local chunk, message = loadstring("return (" .. source .. "\n)", "=" .. name)
  if not chunk then
    local body, body_message = loadstring(source, "=" .. name)
    if not body then
      -- The message of the form that the author wrote is the one that helps.
      return find(source, "return", 1, true) and body_message or message
    end
    chunk = body
  end
  filters[#filters + 1] = chunk
  return nil
end

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

-- The proxies protect the top level only, so tables further down are copied for each filter, where there are any.
local function own(source)
  for _, value in next, source do
    if type(value) == "table" then
      return copy_of(source)
    end
  end
  return source
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

local environment_meta = { __index = base, __metatable = false }

local function run(filter, event, user, visit, timestamps, ids, names, extras)
  behind.event.__index, behind.user.__index, behind.visit.__index = own(event), own(user), own(visit)
  local environment = setmetatable({}, environment_meta)
  if ids then
    -- Rows are built anew for each filter, so that none sees another's changes.
    environment.history = rows_of(timestamps, ids, names, extras)
  end
  setfenv(filter, environment)
  deadline = clock() + CPU_SECONDS
  sethook(over_budget, "", HOOK_EVERY)
  return filter()
end

local function shown(failure)
  if type(failure) ~= "string" then
    return "error value of type " .. type(failure)
  end
  -- Messages are joined with zero bytes and must be UTF-8: a filter's own error() value may be neither.
  return (gsub(sub(failure, 1, MESSAGE_BYTES), "[^\32-\126]", "?"))
end

-- One character a filter: '1' allows, '0' does not, 'E' an error; the errors' messages follow, joined with zero bytes.
local function evaluate(...)
  local marks, messages = {}, {}
  for i = 1, #filters do
    local ok, result = pcall(run, filters[i], ...)
    sethook()
    if not ok and result == "not enough memory" then
      -- What earlier filters left behind counts too: only a filter that fails after a collection is to blame.
      collectgarbage()
      ok, result = pcall(run, filters[i], ...)
      sethook()
      if not ok then
        collectgarbage()
      end
    end
    if ok then
      marks[i] = result and "1" or "0"
    else
      marks[i] = "E"
      messages[#messages + 1] = shown(result)
    end
  end
  return concat(marks), concat(messages, "\0")
end

return compile, evaluate
