-- Runs the specs, each file in a process of its own: those in spec/ as they are, those of spec/kernel/ in a network
-- namespace of their own. (One process for all would have each spec of the collector walk what all others left.)
-- In an emulated machine (spec/guest/run) those of spec/kernel/ and spec/guest/.
--   lua5.4 spec/run.lua [FILE...]
-- Environment: NFQUEUE_BUILD (default build), NFQUEUE_SANITIZE=address or thread for a build with that sanitizer,
-- NFQUEUE_GUEST=1 in the emulated machine.

local build = os.getenv("NFQUEUE_BUILD") or "build"
-- Their run-time libraries.
local SANITIZERS = { address = { "libasan.so", "libubsan.so" }, thread = { "libtsan.so" } }
local sanitize = os.getenv("NFQUEUE_SANITIZE")
local guest = os.getenv("NFQUEUE_GUEST") == "1"
local SECONDS = (sanitize or guest) and 600 or 180 -- for one file; a hang is a failure

local function capture(command)
  local pipe = assert(io.popen(command, "r"))
  local output = pipe:read("a")
  return output:gsub("%s+$", ""), pipe:close() == true
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function find_specs(folder)
  local list = {}
  for path in capture("ls " .. folder .. "/*_spec.lua 2>/dev/null"):gmatch("%S+") do
    list[#list + 1] = path
  end
  return list
end

local busted = capture("command -v busted")
if busted == "" then
  io.stderr:write("busted is not installed (Debian: lua-busted)\n")
  os.exit(1)
end
local interpreter = capture("command -v lua5.4")
local environment = {
  LUA_PATH = "lua/?.lua;lua/?/init.lua;spec/?.lua;;",
  LUA_CPATH = build .. "/lib/?.so;;",
  NFQUEUE_BUILD = build,
  NFQUEUE_PRELOAD = "",
  NFQUEUE_RUNTIME_DIR = capture("mktemp -d"), -- others run on this machine
}
if sanitize then
  -- The interpreter knows nothing of the sanitizer, so its runtime goes first.
  local libraries = {}
  for _, name in ipairs(SANITIZERS[sanitize] or error("NFQUEUE_SANITIZE: address or thread, not " .. sanitize)) do
    libraries[#libraries + 1] = capture("cc -print-file-name=" .. name)
  end
  environment.NFQUEUE_PRELOAD = table.concat(libraries, ":")
  environment.LD_PRELOAD = environment.NFQUEUE_PRELOAD
  environment.UBSAN_OPTIONS = "print_stacktrace=1"
end

local assignments = {}
for name, value in pairs(environment) do
  assignments[#assignments + 1] = name .. "=" .. quote(value)
end
local run_busted = ("env %s timeout -k 5 %d %s %s --helper=spec/support/setup.lua -o plainTerminal ")
  :format(table.concat(assignments, " "), SECONDS, interpreter, busted)
local in_namespace = build .. "/bin/nfqueue lab --hook none -- "

local passed, failed, skipped = 0, 0, 0
local pending_names, second_tries = {}, {}

-- Prints what busted prints, and reads its summary line: numbers, and the names of what is pending. A run
-- without a summary has died.
local function run_once(label, command)
  io.write("== ", label, "\n")
  local pipe = assert(io.popen(command .. " 2>&1", "r"))
  local result, pending_follows = { passed = 0, failed = 0, skipped = 0, pending = {} }, false
  local summary = false
  for line in pipe:lines() do
    print(line)
    if pending_follows then
      table.insert(result.pending, line)
    end
    pending_follows = line:find("^Pending") ~= nil
    local ok, bad, errors, pending =
      line:match("^(%d+) success%S* / (%d+) failure%S* / (%d+) error%S* / (%d+) pending")
    if ok then
      summary = true
      result.passed = result.passed + ok
      result.failed = result.failed + bad + errors
      result.skipped = result.skipped + pending
    end
  end
  local _, how, status = pipe:close()
  if not summary then
    result.failed = result.failed + 1
    print(("%s ended without a result (%s %s)"):format(label, how, status))
  elseif status ~= 0 and result.failed == 0 then
    result.failed = 1
    print(("%s ended with status %s after its specs"):format(label, status))
  end
  return result
end

-- An emulated machine can stall for seconds, so there a file gets a second try; the last lines tell which.
local function run(label, command)
  local result = run_once(label, command)
  if guest and result.failed > 0 then
    second_tries[#second_tries + 1] = label
    result = run_once(label .. ", second try", command)
  end
  passed = passed + result.passed
  failed = failed + result.failed
  skipped = skipped + result.skipped
  table.move(result.pending, 1, #result.pending, #pending_names + 1, pending_names)
end

local files = { table.unpack(arg) }
if #files == 0 then
  for _, folder in ipairs(guest and { "spec/kernel", "spec/guest" } or { "spec", "spec/kernel" }) do
    table.move(find_specs(folder), 1, 1000, #files + 1, files)
  end
end
local unit, kernel = {}, {}
for _, path in ipairs(files) do
  table.insert((path:find("/kernel/", 1, true) or path:find("/guest/", 1, true)) and kernel or unit, path)
end

for _, path in ipairs(unit) do
  run(path, run_busted .. path)
end
if #kernel > 0 then
  local why, possible = capture(in_namespace .. "true 2>&1")
  if possible then
    for _, path in ipairs(kernel) do
      run(path, in_namespace .. run_busted .. path)
    end
  else
    skipped = skipped + #kernel
    print(("pending: %d files of spec/kernel need a network namespace: %s"):format(#kernel, why))
  end
end
os.execute("rm -r " .. quote(environment.NFQUEUE_RUNTIME_DIR))
if #second_tries > 0 then
  print("tried twice: " .. table.concat(second_tries, "; "))
end
if #pending_names > 0 then
  print("pending: " .. table.concat(pending_names, "; "))
end
print(("%d passed, %d failed, %d skipped"):format(passed, failed, skipped))
os.exit(failed == 0 and passed > 0)
