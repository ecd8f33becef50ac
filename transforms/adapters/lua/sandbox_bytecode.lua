-- What a chunk does, read from its bytecode. Trusted code.
-- Returns study(chunk): a table with reads and assigns (sets of global names), fields (what it reads of its inputs:
-- "event" is all of it, "event\1name" a field), pure (it assigns to no global and to no field of a table), cdata (it
-- has literals like 1LL), concatenates, has_length (it asks for one) and has_fields (in its table constructors).

local util, band, rshift = require("jit.util"), bit.band, bit.rshift
local type, find, gsub = type, string.find, string.gsub

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
local CONCATENATION = opcode(function(a, b) return a .. b end, 3)
local LENGTH = opcode(function(t) return #t end, 1)
local TABLE_WITH_FIELDS = opcode(function() return { 1 } end, 1)
local INPUTS = { event = true, user = true, visit = true, enrichment = true }

-- Whether a name can go to Python: UTF-8 without the bytes that separate names.
local function is_text(name)
  local rest = gsub(name, "[\2-\127]+", "")
  rest = gsub(rest, "[\194-\223][\128-\191]", "")
  if find(rest, "\237[\160-\191]") then
    return false -- half a surrogate pair
  end
  rest = gsub(rest, "[\224-\239][\128-\191][\128-\191]", "")
  return gsub(rest, "[\240-\244][\128-\191][\128-\191][\128-\191]", "") == ""
end

-- If the next instruction reads a named field of the table that this one has put into a register, and overwrites the
-- register, the program reads only that field of the table here. Returns its name, if that is a text.
local function field_read(proto, at, instruction)
  local following = util.funcbc(proto, at + 1)
  local register = band(rshift(instruction, 8), 0xff)
  if
    following
    and band(following, 0xff) == GET_FIELD
    and band(rshift(following, 8), 0xff) == register
    and band(rshift(following, 24), 0xff) == register
  then
    local name = util.funck(proto, -1 - band(rshift(following, 16), 0xff))
    return is_text(name) and name or nil
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
      if INPUTS[name] then
        local field = field_read(proto, at, instruction)
        found.fields[#found.fields + 1] = field and name .. "\1" .. field or name
      end
    elseif op == SET_GLOBAL then
      found.assigns[util.funck(proto, -1 - rshift(instruction, 16))] = true
      found.pure = false
    elseif SETS_FIELD[op] then
      found.pure = false
    elseif op == CONCATENATION then
      found.concatenates = true
    elseif op == LENGTH then
      found.has_length = true
    elseif op == TABLE_WITH_FIELDS then
      found.has_fields = true
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

return function(chunk)
  return study(chunk, { reads = {}, assigns = {}, fields = {}, pure = true })
end
