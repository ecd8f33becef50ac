-- bucket(id, salt): a number from 0 up to 100, two decimals, the same everywhere and for ever: the first four bytes of the
-- SHA-256 of salt, a zero byte and id, as a share of 2^32. Trusted code. Called with the budget and the texts of values.

local budget, texts = ...
local spend, pause, resume, text_of = budget.spend, budget.pause, budget.resume, texts.text_of
local band, bnot, bxor, ror, rshift, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit
local error, find, byte, char, rep, floor = error, string.find, string.byte, string.char, string.rep, math.floor

local MOST_BYTES = 1000
local BLOCK_WORK = 2 ^ 16 -- what a block costs (20 µs), in bytes that library functions touch

-- The first 32 bits of the fractional parts of the roots of the first primes, square for the state, cube for the rounds.
local START, ROUNDS = {}, {}
local function fraction(root)
  return tobit((root - floor(root)) * 2 ^ 32)
end
local candidate, found = 2, 0
while found < 64 do
  local is_prime = true
  for divisor = 2, candidate - 1 do
    is_prime = is_prime and candidate % divisor ~= 0
  end
  if is_prime then
    found = found + 1
    ROUNDS[found] = fraction(floor(candidate ^ (1 / 3) * 2 ^ 32) / 2 ^ 32)
    if found <= 8 then
      START[found] = fraction(floor(candidate ^ 0.5 * 2 ^ 32) / 2 ^ 32)
    end
  end
  candidate = candidate + 1
end

local words = {}

-- The first word of the SHA-256 of a text.
local function first_word(text)
  local bits = #text * 8
  local padded = text .. "\128" .. rep("\0", (55 - #text) % 64 + 4)
    .. char(band(rshift(bits, 24), 255), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255))
  local h1, h2, h3, h4, h5, h6, h7, h8 =
    START[1], START[2], START[3], START[4], START[5], START[6], START[7], START[8]
  for block = 1, #padded, 64 do
    for i = 1, 16 do
      local one, two, three, four = byte(padded, block + i * 4 - 4, block + i * 4 - 1)
      words[i] = tobit(one * 16777216 + two * 65536 + three * 256 + four)
    end
    for i = 17, 64 do
      local early, late = words[i - 15], words[i - 2]
      words[i] = tobit(
        words[i - 16] + bxor(ror(early, 7), ror(early, 18), rshift(early, 3))
          + words[i - 7] + bxor(ror(late, 17), ror(late, 19), rshift(late, 10))
      )
    end
    local a, b, c, d, e, f, g, h = h1, h2, h3, h4, h5, h6, h7, h8
    for i = 1, 64 do
      local step = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + ROUNDS[i] + words[i]
      local mix = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + step), c, b, a, tobit(step + mix)
    end
    h1, h2, h3, h4 = tobit(h1 + a), tobit(h2 + b), tobit(h3 + c), tobit(h4 + d)
    h5, h6, h7, h8 = tobit(h5 + e), tobit(h6 + f), tobit(h7 + g), tobit(h8 + h)
  end
  return h1 % 2 ^ 32
end

return function(id, salt)
  if id == nil or salt == nil then
    error("bucket: needs an id and a salt, as in bucket(event.user_id, \"offer\")", 2)
  end
  id, salt = text_of(id, "bucket"), text_of(salt, "bucket")
  if salt == "" or find(salt, "\0", 1, true) then
    error("bucket: an empty salt, or one with a zero byte: allowed is other text, such as the name of the experiment", 2)
  elseif #id + #salt > MOST_BYTES then
    error("bucket: " .. #id + #salt .. " bytes in id and salt, allowed are " .. MOST_BYTES, 2)
  end
  spend((#id + #salt + 73) / 64 * BLOCK_WORK)
  pause() -- a block is some thousand instructions, and their work is known
  local word = first_word(salt .. "\0" .. id)
  resume()
  return floor(word * 10000 / 2 ^ 32) / 100
end
