-- Days and local time, by arithmetic. Trusted code. Called with the texts of values; returns days_between and local_time.

local texts = ...
local shown = texts.shown
local error, floor, format, match = error, math.floor, string.format, string.match
local setmetatable, sub, tonumber, type = setmetatable, string.sub, tonumber, type

local DAY_MS = 86400000
local LENGTHS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- Days from 1970-01-01 to a date; after Howard Hinnant's days_from_civil.
local function days_of(year, month, day)
  local y = month <= 2 and year - 1 or year
  local era = floor(y / 400)
  local year_of_era = y - era * 400
  local day_of_year = floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5) + day - 1
  return era * 146097 + year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100) + day_of_year - 719468
end

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

-- Milliseconds of 2024-05-31, or of 2024-05-31T10:00:00.000+02:00; nil for any other text.
local function ms_of_text(text)
  if #text > 40 then
    return nil
  end
  local year, month, day, rest = match(text, "^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$")
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  if not day or month < 1 or month > 12 or day < 1 then
    return nil
  elseif day > LENGTHS[month] + (month == 2 and is_leap(year) and 1 or 0) then
    return nil
  end
  local days_ms = days_of(year, month, day) * DAY_MS
  if rest == "" then
    return days_ms
  end
  local hour, minute, second, more = match(rest, "^[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if not second or hour > 23 or minute > 59 or second > 60 then
    return nil
  end
  local fraction, zone = match(more, "^(%.%d+)(.*)$")
  fraction, zone = tonumber(fraction or 0), zone or more
  local sign, ahead_hours, ahead_minutes = match(zone, "^([+-])(%d%d):(%d%d)$")
  if not sign and zone ~= "" and zone ~= "Z" and zone ~= "z" then
    return nil
  end
  local ahead = sign and (tonumber(ahead_hours) * 60 + tonumber(ahead_minutes)) * (sign == "-" and -1 or 1) or 0
  return days_ms + ((hour * 60 + minute - ahead) * 60 + second + fraction) * 1000
end

local function ms_of(value, place)
  local ms
  if type(value) == "number" then
    ms = value
  elseif type(value) == "string" then
    ms = ms_of_text(value)
  end
  if not ms or not (ms > -2 ^ 53 and ms < 2 ^ 53) then
    local named = type(value) == "string" and "'" .. sub(value, 1, 40) .. "'" or shown(value)
    error("days_between: " .. place .. " is " .. named .. ": allowed are ms since 1970, and text like 2024-05-31 or 2024-05-31T10:00:00Z", 3)
  end
  return ms
end

-- The whole days from one time to another; negative if the second is earlier.
local function days_between(from, to)
  local days = (ms_of(to, "the second time") - ms_of(from, "the first time")) / DAY_MS
  return days < 0 and -floor(-days) + 0 or floor(days)
end

local FIELDS = {
  __index = function(_, name)
    if type(name) == "string" then
      error("local_time has no " .. sub(name, 1, 40) .. ": allowed are date, day_of_month, hour, minute, weekday", 2)
    end
  end,
  __metatable = false,
}

-- The fields of a local time, given as the milliseconds that a clock in UTC would show then.
local function local_time(wall_ms)
  local days = floor(wall_ms / DAY_MS)
  local minutes = floor((wall_ms - days * DAY_MS) / 60000)
  -- Hinnant's civil_from_days.
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local day_of_era = shifted - era * 146097
  local year_of_era = floor(
    (day_of_era - floor(day_of_era / 1460) + floor(day_of_era / 36524) - floor(day_of_era / 146096)) / 365
  )
  local day_of_year = day_of_era - (365 * year_of_era + floor(year_of_era / 4) - floor(year_of_era / 100))
  local shifted_month = floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - floor((153 * shifted_month + 2) / 5) + 1
  local month = shifted_month < 10 and shifted_month + 3 or shifted_month - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  return setmetatable({
    hour = floor(minutes / 60),
    minute = minutes % 60,
    weekday = (days + 3) % 7 + 1, -- 1970-01-01 was a Thursday
    date = format("%04d-%02d-%02d", year, month, day),
    day_of_month = day,
  }, FIELDS)
end

return { days_between = days_between, local_time = local_time }
