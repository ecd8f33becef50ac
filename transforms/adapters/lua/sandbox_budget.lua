-- How long a program may run: CPU time of its thread, checked by a count hook and by library functions. Trusted code.
-- Returns a table with what is described below.

jit.off() -- compiled code runs no count hooks, so a loop would never stop

local ffi = require("ffi")
local tonumber, error, sethook = tonumber, error, debug.sethook

local HOOK_EVERY = 200 -- instructions
local HOOK_CLOSELY = 5
local CPU_SECONDS = 0.05
local WORK_BETWEEN_CHECKS = 2 ^ 15 -- about bytes touched by library functions, inside which no hook fires
local NESTED_CALLBACKS = 10 -- each takes some 10 KB of the C stack, whose end is the end of the process

ffi.cdef("typedef struct { long seconds, nanoseconds; } sandbox_time; int clock_gettime(int, sandbox_time *);")
local clock_gettime, time = ffi.C.clock_gettime, ffi.new("sandbox_time")
local WALL, THREAD_CPU = 1, 3
if ffi.os == "OSX" then
  WALL, THREAD_CPU = 6, 16
end

local function seconds_of(clock)
  clock_gettime(clock, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

local OVER_BUDGET = {} -- an error value that no program can make
local wall_end, cpu_end -- nil until the first check of a program: most end before it
local work = 0 -- since the last check that spend() made
local state = { load = 0 } -- about how many checks the program has had

local is_used, is_checking = false, false

local function check()
  -- The hook also fires inside this function when spend() has called it, and would put the time of one clock where the
  -- other one's is read: the limit would be hours away.
  if is_checking then
    return
  end
  is_used, is_checking = true, true
  state.load = state.load + 1
  local wall = seconds_of(WALL)
  if wall_end and wall < wall_end then
    is_checking = false
    return -- a thread uses no more CPU time than time passes, and the wall clock is much cheaper to read
  end
  local cpu = seconds_of(THREAD_CPU)
  cpu_end = cpu_end or cpu + CPU_SECONDS
  wall_end = wall + cpu_end - cpu
  is_checking = false
  if cpu >= cpu_end then
    error(OVER_BUDGET, 0)
  end
end

local function spend(steps)
  work = work + steps
  if work > WORK_BETWEEN_CHECKS then
    state.load = state.load + work / WORK_BETWEEN_CHECKS
    work = 0
    check()
  end
end

-- The CPU time of a program that ended, in seconds; it may have used up more than it may, as its last call ended too late
-- for a check. Only for programs that had a check: those of a small load are far from their limit.
local function spent()
  return seconds_of(THREAD_CPU) - cpu_end + CPU_SECONDS
end

-- Calls a library function that calls back.
local nested = 0
local function calling_back(name, f, ...)
  if nested >= NESTED_CALLBACKS then
    error(name .. ": nested deeper than " .. NESTED_CALLBACKS, 3)
  end
  is_used, nested = true, nested + 1
  local first, second = f(...)
  nested = nested - 1 -- not after an error, but an error ends the program
  return first, second
end

-- Between these two no hook fires: for work that is short, bounded and spent beforehand, as the hook's count starts anew.
local hook_every = HOOK_EVERY
local function pause()
  sethook()
end

local function resume()
  sethook(check, "", hook_every)
end

-- Starts the budget of the next program. Its CPU time counts from the first check, a few hundred instructions later.
local function begin()
  if is_used then -- most programs end before their first check
    wall_end, cpu_end, work, nested, is_used, is_checking, state.load = nil, nil, 0, 0, false, false, 0
  end
  hook_every = HOOK_EVERY
  sethook(check, "", HOOK_EVERY)
end

-- From now on, each instruction of this program may take long: it compares long texts, or makes numbers of them.
local function watch()
  hook_every = HOOK_CLOSELY
  sethook(check, "", HOOK_CLOSELY)
end

return {
  begin = begin,
  watch = watch,
  check = check,
  spend = spend,
  spent = spent,
  pause = pause,
  resume = resume,
  state = state,
  calling_back = calling_back,
  OVER_BUDGET = OVER_BUDGET,
  CPU_SECONDS = CPU_SECONDS,
}
