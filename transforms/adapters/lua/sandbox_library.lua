-- The part of Lua's library that programs may use, cut down to what ends soon and changes nothing. Trusted code.
-- Called with the budget, the order of tables, the texts of values, bucket, days_between and
-- the functions of the past. Returns base (names and what they are), protected
-- (tables that are read-only), read_only (for their __newindex), only (some names of a table) and plain (functions of
-- string as they were: they spend no budget).

local budget, order, texts, bucket, days_between, past = ...
local spend, calling_back = budget.spend, budget.calling_back
local number_text, text_of, bounded, formatted = texts.number_text, texts.text_of, texts.bounded, texts.formatted
local setmetatable, getmetatable, error, select, unpack = setmetatable, getmetatable, error, select, unpack
local tonumber, type, next, ipairs = tonumber, type, next, ipairs
local concat, sort, length = table.concat, table.sort, order.length
local byte, find, format, gmatch, gsub = string.byte, string.find, string.format, string.gmatch, string.gsub
local lower, match, rep, reverse = string.lower, string.match, string.rep, string.reverse
local sub, upper = string.sub, string.upper

local FIND_WORK = 2 ^ 24 -- steps of one plain search
local PATTERN_WORK = 2 ^ 24 -- steps of one match, at worst
local PATTERN_BYTES = 1000
local REP_BYTES = 2 ^ 16
local TABLE_ITEMS = 10000 -- that one call of a function of table takes

-- Backtracking tries, for each thing that repeats or branches, every length of the text.
local function pattern_cost(text, pattern, anchors)
  local varying, at, set = anchors and byte(pattern) == 94 and 0 or 1, 1, false
  while at <= #pattern do
    local c = byte(pattern, at)
    if c == 37 then -- % escapes; a balance, frontier or back reference looks at more than one character
      local escaped = byte(pattern, at + 1) or 0
      if not set and (escaped == 98 or (escaped >= 48 and escaped <= 57)) then
        varying = varying + 1
      end
      at = at + (escaped == 98 and not set and 3 or 1) -- the two characters of a balance are only themselves
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
  byte = function(text, first, last)
    if type(text) ~= "string" then
      text = text_of(text, "byte")
    end
    if last then
      spend(#text * 16)
    end
    return byte(text, first, last)
  end,
  char = string.char,
  len = function(text) return #text_of(text, "len") end,
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
    local bytes, used = #pattern, 0
    local _, at, directive = find(pattern, "%%[-+ #0-9.]*(.?)")
    while at do
      if directive ~= "%" then
        used = used + 1
        bytes = bytes + 400 -- the most that a number takes
        if used <= count then
          local value = formatted(directive, values[used])
          values[used] = value
          bytes = type(value) == "string" and bytes + #value or bytes
        end
      end
      _, at, directive = find(pattern, "%%[-+ #0-9.]*(.?)", at + 1)
    end
    bounded(bytes, "format", 2)
    return format(pattern, unpack(values, 1, count))
  end,
  find = function(text, pattern, init, plain)
    if plain then
      text, pattern = text_of(text, "find"), text_of(pattern, "find")
      if #text * #pattern > FIND_WORK then
        error("find: " .. #text .. " times " .. #pattern .. " bytes, allowed is a product of " .. FIND_WORK, 2)
      end
      spend(#text + #text * #pattern / 8)
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
    local kind, given = type(replacement), replacement
    if kind == "table" or kind == "function" then
      replacement = function(...)
        local value
        if kind == "table" then
          value = given[...]
        else
          value = given(...)
        end
        if type(value) == "number" then
          return number_text(value, 0)
        elseif type(value) == "string" then
          spend(#value)
        end
        return value
      end
      local result, replaced = calling_back("gsub", gsub, text, pattern, replacement, count)
      bounded(#result, "gsub", 2)
      return result, replaced
    end
    replacement = text_of(replacement, "gsub")
    spend(#text * #replacement)
    local result, replaced = gsub(text, pattern, replacement, count)
    bounded(#result, "gsub", 2)
    return result, replaced
  end,
})

-- Tables that table's functions would reach past the protection of.
local protected = {}

-- The list itself, and how many items it has.
local function items(value, name)
  if type(value) ~= "table" then
    error(name .. ": a " .. type(value) .. " where a table is needed", 3)
  elseif protected[value] then
    error(name .. ": what a rule is given is read-only", 3)
  end
  local count = length(value)
  if count > TABLE_ITEMS then
    error(name .. ": " .. count .. " items, allowed are " .. TABLE_ITEMS, 3)
  end
  return value, count
end

local function position(name, at, last)
  at = tonumber(at)
  if not at or not (at >= 1 and at < last + 1) then
    error(name .. ": allowed are positions from 1 to " .. last, 3)
  end
  return at - at % 1
end

local function in_order(a, b)
  return a < b
end

-- In Lua, so that the hook fires, and none asks LuaJIT how long a table is.
local tables = {
  concat = function(list, separator, first, last)
    local count
    list, count = items(list, "concat")
    separator, first, last = separator == nil and "" or text_of(separator, "concat"), first or 1, last or count
    if not (tonumber(first) and tonumber(last) and last - first < TABLE_ITEMS) then
      error("concat: allowed are " .. TABLE_ITEMS .. " items", 2)
    end
    local texts, used, bytes = {}, 0, 0
    for i = first, last do
      local value = list[i]
      if type(value) == "number" then
        value = number_text(value, 3)
      elseif type(value) ~= "string" then
        error("concat: a " .. type(value) .. " at place " .. i .. " where text or a number is needed", 2)
      end
      used = used + 1
      texts[used] = value
      bytes = bytes + #value + #separator
    end
    bounded(bytes, "concat", 2)
    return concat(texts, separator)
  end,
  insert = function(list, ...)
    local count
    list, count = items(list, "insert")
    local at, value = count + 1, (...)
    if select("#", ...) == 2 then
      at, value = ...
      at = position("insert", at, count + 1)
      for i = count, at, -1 do
        list[i + 1] = list[i]
      end
    elseif select("#", ...) ~= 1 then
      error("insert: allowed are a list, a position or none, and a value", 2)
    end
    list[at] = value
  end,
  remove = function(list, at)
    local count
    list, count = items(list, "remove")
    if at == nil and count == 0 then
      return nil
    end
    at = at == nil and count or position("remove", at, count)
    local value = list[at]
    for i = at, count do
      list[i] = list[i + 1]
    end
    return value
  end,
  -- Always by a Lua function: in sort's own comparisons no hook fires.
  sort = function(list, before)
    local count
    list, count = items(list, "sort")
    local sorted = {}
    for i = 1, count do
      sorted[i] = list[i]
    end
    calling_back("sort", sort, sorted, before or in_order)
    for i = 1, count do
      list[i] = sorted[i]
    end
  end,
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

local base = {
  bucket = bucket,
  count = past.count,
  days_between = days_between,
  distinct = past.distinct,
  error = error,
  ipairs = ipairs,
  last = past.last,
  next = order.next,
  pairs = order.pairs,
  select = select,
  tonumber = function(value, radix)
    if type(value) == "string" then
      spend(#value)
    elseif radix and type(value) == "number" then
      value = number_text(value, 3)
    end
    return tonumber(value, radix)
  end,
  tostring = texts.shown,
  type = type,
  CONCAT_ = texts.concatenation,
  LENGTH_ = texts.lengths,
  math = frozen(only({ "abs", "ceil", "floor", "fmod", "huge", "max", "min", "modf", "pi", "pow", "sqrt" }, math)),
  string = frozen(string),
  table = frozen(tables),
}
getmetatable("").__metatable = false

local plain = { byte = byte, find = find, format = format, gsub = gsub, match = match, sub = sub }

return { base = base, protected = protected, read_only = read_only, only = only, plain = plain }
