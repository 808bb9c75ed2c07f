-- Runs the long tests, one after the other, each in a process and a private network namespace of its own, and prints
-- their figures.
--   lua5.4 spec/soak/run.lua [NAME...]
-- NAME is that of a file in this folder, without its ".lua"; without one all run.
-- Environment: NFQUEUE_BUILD (default build), SOAK_SCALE (default 1; 0.01 makes them a hundred times shorter).
--
-- A soak is a Lua file. It does its work as it runs, or returns a function that does it; either way it is given what
-- support/soak.lua returns, to tell figures and to check them. What raises has failed, as has what ends with another
-- status than 0. `soak.skip(why)` ends it: it could not run here.

local SKIPPED = 77

local build = os.getenv("NFQUEUE_BUILD") or "build"
local interpreter = arg[-1]

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Within the namespace: one soak.
if arg[1] == "--inside" then
  package.path = "lua/?.lua;lua/?/init.lua;spec/?.lua;;" .. package.path
  package.cpath = build .. "/lib/?.so;" .. package.cpath
  local soak = require("support.soak")
  local net = require("support.net")
  local done, message = xpcall(function()
    local body = assert(loadfile(arg[2], "t"))(soak)
    if body then
      body(soak)
    end
  end, function(reason)
    return soak.is_skip(reason) and reason or debug.traceback(reason, 2)
  end)
  local cleaned, trouble = pcall(net.cleanup)
  if done and not cleaned then
    done, message = false, trouble
  end
  soak.print_figures()
  if soak.is_skip(message) then
    print("  not run: " .. message.why)
    os.exit(SKIPPED, true)
  elseif not done then
    print("  FAILED: " .. tostring(message))
  end
  os.exit(done, true)
end

local function names_of(list)
  if #list > 0 then
    return list
  end
  local names = {}
  local pipe = assert(io.popen("ls spec/soak", "r"))
  for file in pipe:lines() do
    local name = file:match("^(.+)%.lua$")
    if name and name ~= "run" then
      names[#names + 1] = name
    end
  end
  pipe:close()
  return names
end

local function seconds()
  local file = assert(io.open("/proc/uptime"))
  local value = file:read("n")
  file:close()
  return value
end

local summary, failed = {}, 0
for _, name in ipairs(names_of({ table.unpack(arg) })) do
  local path = ("spec/soak/%s.lua"):format(name)
  print("== " .. name)
  io.stdout:flush()
  local start = seconds()
  local word
  if not io.open(path) then
    word = "FAILED: there is no " .. path
  else
    local done, how, status = os.execute(("%s/bin/nfqueue lab --hook none -- %s spec/soak/run.lua --inside %s")
      :format(build, interpreter, quote(path)))
    word = done and "passed" or how == "exit" and status == SKIPPED and "not run"
      or ("FAILED (%s %d)"):format(how, status)
  end
  if word:find("^FAILED") then
    failed = failed + 1
  end
  summary[#summary + 1] = ("%-24s %8.1f s  %s"):format(name, seconds() - start, word)
end
print("== summary, scale " .. (os.getenv("SOAK_SCALE") or "1"))
print(table.concat(summary, "\n"))
os.exit(failed == 0 and #summary > 0)
