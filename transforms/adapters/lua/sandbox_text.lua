-- Texts that programs make: exact and bounded. Trusted code. Called with the budget and the order of tables. Returns
-- number_text, text_of, bounded, formatted, shown, the operators concatenation and lengths, and EXACT.

local budget, order = ...
local spend, watch, length = budget.spend, budget.watch, order.length
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type
local find, format = string.find, string.format

local TEXT_BYTES = 2 ^ 22 -- of a text that a program makes
local LONG_TEXT = 2 ^ 18
local EXACT = 2 ^ 53 - 1 -- up to here a double is the whole number that was written: 2^53 may have been 2^53 + 1
local INEXACT = "a whole number of 2^53 or more is rounded, so it has no text: keep large ids as text"

-- The shortest text that is this number when it is read again. LuaJIT's own has 14 digits.
local function number_text(value, level)
  if value % 1 == 0 then
    if value < -EXACT or value > EXACT then
      error(INEXACT, level)
    end
    return format("%d", value)
  end
  local text = tostring(value)
  for digits = 15, 17 do
    if tonumber(text) == value or value ~= value then
      break
    end
    text = format("%." .. digits .. "g", value)
  end
  return text
end

local function text_of(value, name)
  if type(value) == "number" then
    return number_text(value, 3)
  elseif type(value) ~= "string" then
    error(name .. ": a " .. type(value) .. " where text is needed", 3)
  end
  return value
end

local function bounded(bytes, name, level)
  if bytes > TEXT_BYTES then
    error(name .. ": a text of " .. bytes .. " bytes, allowed are " .. TEXT_BYTES, level + 1)
  elseif bytes > LONG_TEXT then
    watch() -- the comparison of two texts is one instruction
  end
  spend(bytes)
end

-- A value as format() may see it.
local function formatted(directive, value)
  local kind = type(value)
  if directive == "p" or directive == "P" then
    error("format: %p is not available", 3)
  elseif kind == "table" or kind == "function" then
    return kind -- its address is nobody's business, and differs from run to run
  elseif directive == "s" or directive == "q" then
    return kind == "number" and number_text(value, 4) or value
  elseif find(directive, "[diucxXo]") then
    local number = tonumber(value)
    if number and not (number >= -EXACT and number <= EXACT) then
      error("format: %" .. directive .. " of " .. (number == number and "2^53 or more: it is rounded" or "nan"), 3)
    end
  end
  return value
end

local function shown_value(value)
  local kind = type(value)
  if kind == "number" then
    return number_text(value, 2)
  elseif kind == "string" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return kind
end

-- What sandbox_rewrite.lua puts in place of operators. `a .. CONCAT_ .. b` runs from the right: CONCAT_ keeps the text of
-- b, and stands for it until it meets a. No program can name them.
local function joinable(value)
  if type(value) == "number" then
    return number_text(value, 3)
  elseif type(value) ~= "string" then
    error("attempt to concatenate a " .. type(value) .. " value", 3)
  end
  return value
end

local kept, concatenation
concatenation = setmetatable({}, {
  __concat = function(left, right)
    if left == concatenation then
      kept = joinable(right)
      return concatenation
    end
    left = joinable(left)
    bounded(#left + #kept, "..", 2)
    return left .. kept
  end,
})
local lengths = setmetatable({}, {
  __pow = function(_, value)
    if type(value) == "table" then
      return length(value)
    elseif type(value) == "string" then
      return #value
    end
    error("attempt to get length of a " .. type(value) .. " value", 2)
  end,
})

return {
  number_text = number_text,
  text_of = text_of,
  bounded = bounded,
  formatted = formatted,
  shown = shown_value,
  concatenation = concatenation,
  lengths = lengths,
  EXACT = EXACT,
}
