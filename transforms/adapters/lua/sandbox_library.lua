-- The part of Lua's library that programs may use, cut down to what ends soon and changes nothing. Trusted code.
-- Called with the budget. Returns base (names and what they are), protected (tables that are read-only), read_only (for
-- their __newindex), only (some names of a table) and plain (functions of string as they were: they spend no budget).

local budget = ...
local spend, calling_back = budget.spend, budget.calling_back
local setmetatable, getmetatable, error, select, unpack = setmetatable, getmetatable, error, select, unpack
local tostring, tonumber, type, next, pairs, ipairs = tostring, tonumber, type, next, pairs, ipairs
local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local lower, match, rep, reverse = string.lower, string.match, string.rep, string.reverse
local sub, upper = string.sub, string.upper

local FIND_WORK = 2 ^ 24 -- steps of one plain search
local PATTERN_WORK = 2 ^ 24 -- steps of one match, at worst
local PATTERN_BYTES = 1000
local REP_BYTES = 2 ^ 16
local TABLE_ITEMS = 10000 -- that one call of a function of table takes

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

local plain = { byte = byte, find = find, format = format, gsub = gsub, sub = sub }

return { base = base, protected = protected, read_only = read_only, only = only, plain = plain }
