-- Tables in an order of their own: LuaJIT's own order differs from process to process, as it hashes text with a seed,
-- and tables by address. Trusted code. Called with the budget; returns length, next, pairs, forget and state.
--
-- The order: the items 1 to n of a list, then the other keys: numbers from low to high, text by its bytes, false, true,
-- and last a table or function. Two keys of this last kind have no order that would be the same everywhere.

local budget = ...
local spend, calling_back = budget.spend, budget.calling_back
local error, next, sort, type = error, next, table.sort, type

local SORTED_AT_ONCE = 100 -- keys that sort() takes without a function of Lua's, in which no hook fires
local BYTES_AT_ONCE = 2 ^ 15

local RANKS = { number = 1, string = 2, boolean = 3 }

local function is_before(a, b)
  local rank, other = RANKS[type(a)] or 4, RANKS[type(b)] or 4
  if rank ~= other then
    return rank < other
  end
  return rank < 3 and a < b or rank == 3 and not a and b
end

local function numbers_in_order(a, b)
  return a < b
end

local function texts_in_order(a, b)
  spend(#a)
  return a < b
end

local function append_sorted(keys, count, sorted, bytes, in_order)
  local added = #sorted
  if added <= SORTED_AT_ONCE and bytes <= BYTES_AT_ONCE then
    sort(sorted)
  else
    calling_back("pairs", sort, sorted, in_order)
  end
  for i = 1, added do
    keys[count + i] = sorted[i]
  end
  return count + added
end

-- The keys of a table in their order, and how many there are. An error is at this level.
local function keys_of(value, level)
  local keys, listed = {}, 0
  while value[listed + 1] ~= nil do
    listed = listed + 1
    keys[listed] = listed
  end
  local numbers, texts, bytes = {}, {}, 0
  local has_false, has_true, other
  for key in next, value do
    local kind = type(key)
    if kind == "number" then
      if not (key >= 1 and key <= listed and key % 1 == 0) then
        numbers[#numbers + 1] = key
      end
    elseif kind == "string" then
      texts[#texts + 1] = key
      bytes = bytes + #key
    elseif key == true then
      has_true = true
    elseif key == false then
      has_false = true
    elseif other ~= nil then
      error("a table with several keys that are tables or functions: they have no order", level)
    else
      other = key
    end
  end
  local count = listed
  if numbers[1] ~= nil then
    count = append_sorted(keys, count, numbers, 0, numbers_in_order)
  end
  if texts[1] ~= nil then
    count = append_sorted(keys, count, texts, bytes, texts_in_order)
  end
  if has_false then
    count = count + 1
    keys[count] = false
  end
  if has_true then
    count = count + 1
    keys[count] = true
  end
  if other ~= nil then
    count = count + 1
    keys[count] = other
  end
  return keys, count
end

local function checked(value, name)
  if type(value) ~= "table" then
    error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(value) .. ")", 3)
  end
end

-- A walk sees the keys that are there when it begins, with the values that they have when it comes to them.
local function ordered_pairs(value)
  checked(value, "pairs")
  local keys, count = keys_of(value, 3)
  local at = 0
  return function()
    while at < count do
      at = at + 1
      local key = keys[at]
      local inner = value[key]
      if inner ~= nil then
        return key, inner
      end
    end
    return nil
  end
end

-- The walk that next() was called for last. A program's own tables are its own, and the inputs change between events:
-- evaluate() makes it forget the walk if there was one.
local state = { walked = false }
local walked, walk_keys, walk_count, walk_at

local function forget()
  walked, walk_keys, state.walked = nil, nil, false
end

local function begin_walk(value, key)
  state.walked = true
  walked = nil -- until the rest is there: a limit may end the program anywhere
  walk_keys, walk_count = keys_of(value, 4)
  walk_at = 0
  walked = value
  if key == nil then
    return
  end
  local after = walk_count + 1
  for i = 1, walk_count do
    if walk_keys[i] == key then
      walk_at = i
      return
    elseif i < after and is_before(key, walk_keys[i]) then
      after = i
    end
  end
  if type(key) ~= "number" then
    error("invalid key to 'next'", 3) -- the level of next()'s caller
  end
  walk_at = after - 1 -- an item that the program took out of its list since
end

local function ordered_next(value, key)
  checked(value, "next")
  if key == nil then
    local first = value[1]
    if first ~= nil then
      return 1, first -- of a list, without a look at the rest
    elseif next(value) == nil then
      return nil
    end
    begin_walk(value)
  elseif not (walked == value and walk_keys[walk_at] == key) then
    if type(key) == "number" and key >= 1 and key % 1 == 0 and value[key + 1] ~= nil then
      return key + 1, value[key + 1]
    end
    begin_walk(value, key)
  end
  while walk_at < walk_count do
    walk_at = walk_at + 1
    local found = walk_keys[walk_at]
    if value[found] ~= nil then
      return found, value[found]
    end
  end
  return nil
end

-- What # is of a table. LuaJIT's own result depends on how it laid out the table, if there are holes in its list.
local function length(value)
  if value[1] == nil then
    return 0
  end
  local low, high = 1, 2
  while value[high] ~= nil do
    low, high = high, high * 2
  end
  while high - low > 1 do
    local middle = (low + high - (low + high) % 2) / 2
    if value[middle] == nil then
      high = middle
    else
      low = middle
    end
  end
  return low
end

return { length = length, next = ordered_next, pairs = ordered_pairs, forget = forget, state = state }
