-- What rules ask of the history: count, last, distinct and history_since. Trusted code. Called with the budget and the
-- texts of values. Returns the functions, since, NEEDS_HISTORY (the error that has a program run again once the history is
-- there) and state: the columns of the history (nil: not there) and the time of the event.

local budget, texts = ...
local NEEDS_HISTORY = {} -- an error value
local spend, pause, resume, shown = budget.spend, budget.pause, budget.resume, texts.shown
local error, next, sort, tonumber, type = error, next, table.sort, tonumber, type
local find, gmatch, match, sub = string.find, string.gmatch, string.match, string.sub

local ROW_WORK = 160 -- what a look at a row costs, in bytes that library functions touch
local UNITS = { s = 1000, m = 60000, h = 3600000, d = 86400000, w = 604800000 }
local KNOWN = { event = true, within = true, where = true }
local EXAMPLE = 'as in count{event="view", within="10m"}'

local state = {}

local function columns()
  return state.columns or error(NEEDS_HISTORY, 0)
end

local function named(value)
  return type(value) == "string" and "'" .. sub(value, 1, 40) .. "'" or shown(value)
end

local function wrong(name, option, value, allowed, level)
  error(name .. ": " .. option .. " is " .. named(value) .. ": allowed " .. allowed, level)
end

local function since_of(within, name)
  local ms = within
  if type(within) == "string" then
    local count, unit = match(within, "^([1-9]%d?%d?%d?%d?%d?%d?%d?)([smhdw])$")
    ms = count and tonumber(count) * UNITS[unit]
  end
  if type(ms) ~= "number" or not (ms > 0 and ms < 2 ^ 53) then
    wrong(name, "within", within, "are ms and a duration like 10m", 5)
  end
  return state.at - ms
end

local function check_options(options, name, more)
  if type(options) ~= "table" then
    error(name .. ": a " .. type(options) .. " where options are needed, " .. EXAMPLE, 3)
  end
  local unknown
  for key in next, options do
    if not KNOWN[key] and key ~= more then
      unknown = unknown or {}
      unknown[#unknown + 1] = named(key)
    end
  end
  if unknown then
    sort(unknown)
    local allowed = "event, within, where" .. (more and ", " .. more or "")
    error(name .. ": unknown " .. unknown[1] .. ": allowed are " .. allowed .. ", " .. EXAMPLE, 3)
  elseif options.event ~= nil and type(options.event) ~= "string" then
    wrong(name, "event", options.event, "is the name of an event", 4)
  elseif options.where ~= nil and type(options.where) ~= "function" then
    wrong(name, "where", options.where, "is a function of a row, as in function(e) return e.timestamp > 0 end", 4)
  end
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

-- A row of the program's own. Like event it always has parameters.
local function row_of(past, at)
  local row = past.extras and copy_of(past.extras[at]) or {}
  row.parameters = row.parameters or {}
  row.timestamp, row.event_id, row.event_name = past.timestamps[at], past.ids[at], past.names[at]
  return row
end

-- Calls visit with the place of each row that the options choose, newest first, until it returns true. Returns how many
-- it chose.
local function choose(options, name, visit)
  local event, where, past = options.event, options.where, columns()
  local times, names = past.timestamps, past.names
  local rows, chosen, since, until_ms = #times, 0, nil, nil
  if options.within ~= nil then
    since, until_ms = since_of(options.within, name), state.at
  end
  spend((rows + 10) * ROW_WORK)
  if not where then
    pause() -- the work is known
  end
  for at = rows, 1, -1 do
    local time = times[at]
    if since and time <= since then
      break
    elseif (not event or names[at] == event) and not (since and time > until_ms) then
      local is_chosen = true
      if where then
        is_chosen = where(row_of(past, at))
      end
      if is_chosen then
        chosen = chosen + 1
        if visit and visit(past, at) then
          break
        end
      end
    end
  end
  if not where then
    resume()
  end
  return chosen
end

local function count(options)
  check_options(options, "count")
  local chosen = choose(options, "count") -- no tail call, which would be no level of an error
  return chosen
end

local function last(options)
  local row
  check_options(options, "last")
  choose(options, "last", function(past, at)
    row = row_of(past, at)
    return true
  end)
  return row
end

-- The value of a field of a row: of the name as a whole, else of a path into objects.
local function field_of(fields, path, steps)
  local value = fields[path]
  if value ~= nil or not steps then
    return value
  end
  value = fields
  for i = 1, #steps do
    if type(value) ~= "table" then
      return nil
    end
    value = value[steps[i]]
  end
  return value
end

local COLUMNS = { timestamp = "timestamps", event_id = "ids", event_name = "names" }

local function distinct(options)
  check_options(options, "distinct", "of")
  local path, steps = options.of, nil
  if type(path) ~= "string" then
    error("distinct: of is " .. named(path) .. ': allowed is a field of rows, as in distinct{of="parameters.sku"}', 2)
  end
  if find(path, ".", 1, true) then
    steps = {}
    for step in gmatch(path, "[^.]+") do
      steps[#steps + 1] = step
    end
  end
  local seen, number, object = {}, 0, false
  choose(options, "distinct", function(past, at)
    local value
    if COLUMNS[path] then
      value = past[COLUMNS[path]][at]
    elseif past.extras then
      value = field_of(past.extras[at], path, steps)
    end
    if type(value) == "table" then
      object = true
      return true
    elseif value ~= nil and not seen[value] then
      seen[value] = true
      number = number + 1
    end
  end)
  if object then
    error("distinct: of is " .. named(path) .. ", an object or a list: allowed are fields with text, numbers, true or false", 2)
  end
  return number
end

-- The time of the oldest row; without rows, of the event: nothing before it can be seen.
local function since()
  return columns().timestamps[1] or state.at
end

return { NEEDS_HISTORY = NEEDS_HISTORY, state = state, count = count, last = last, distinct = distinct, since = since }
