-- Gives two of Lua's operators to the library: `..` copies any amount of text and keeps 14 digits of a number, and `#`
-- of a table with holes depends on LuaJIT's layout. Trusted code. Returns a function of a source that compiles, and
-- whether its `#` is to be replaced, too; it returns the source with
--   a .. b  as  a ..CONCAT.. b, which runs as a .. (CONCAT .. b): twice the metamethod __concat of CONCAT
--   #a      as  LENGTH^a: ^ is the one operator that binds as tightly as # and that has a metamethod
-- Names and lines stay as they are.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub
local concat = table.concat

local function end_of_number(source, at)
  local exponent = find(source, "^0[xX]", at) and "[pP]" or "[eE]"
  local after = at + 1
  while find(source, "^[%w_.\128-\255]", after) or find(source, "^" .. exponent .. "[+-]", after - 1) do
    after = after + 1
  end
  return after
end

local function end_of_text(source, at)
  local quote = sub(source, at, at)
  local stop = "[\\" .. quote .. "]"
  at = find(source, stop, at + 1)
  while at and byte(source, at) == 92 do -- a backslash
    at = find(source, stop, at + 2)
  end
  return (at or #source) + 1
end

-- Of a comment or text in long brackets that begin here; nil if none begin.
local function end_of_brackets(source, at)
  local level = match(source, "^%[(=*)%[", at)
  if not level then
    return nil
  end
  local _, stop = find(source, "]" .. level .. "]", at, true)
  return (stop or #source) + 1
end

return function(source, replaces_length)
  local parts, from, at = {}, 1, 1
  local function replace(first, text, after)
    parts[#parts + 1] = sub(source, from, first - 1)
    parts[#parts + 1] = text
    from = after
  end
  while true do
    at = find(source, "[%w_\128-\255%-'\"%[.#]", at)
    if not at then
      break
    end
    local c = sub(source, at, at)
    if find(source, "^%.?%d", at) then
      at = end_of_number(source, at)
    elseif find(c, "[%w_\128-\255]") then
      at = match(source, "^[%w_\128-\255]+()", at)
    elseif c == "'" or c == '"' then
      at = end_of_text(source, at)
    elseif c == "[" then
      at = end_of_brackets(source, at) or at + 1
    elseif find(source, "^%-%-", at) then
      at = end_of_brackets(source, at + 2) or find(source, "[\r\n]", at) or #source + 1
    elseif find(source, "^%.%.%.", at) then
      at = at + 3
    elseif find(source, "^%.%.", at) then
      replace(at, " ..CONCAT_.. ", at + 2)
      at = at + 2
    elseif c == "#" and replaces_length then
      replace(at, " LENGTH_^", at + 1)
      at = at + 1
    else
      at = at + 1
    end
  end
  parts[#parts + 1] = sub(source, from)
  return concat(parts)
end
