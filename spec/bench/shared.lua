-- Shared stores and buckets: nanoseconds a call from Lua, and with other threads at the same key.
--   lua5.4 spec/bench/shared.lua        (make bench-tables)
-- Environment: NFQUEUE_BUILD (default build).

local build = os.getenv("NFQUEUE_BUILD") or "build"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local nfqueue = require("nfqueue")

local CALLS = 200000
local RUNS = 15
local SOURCES = 1000

local store = nfqueue.shared("bench")
local bucket = nfqueue.bucket("bench", { rate = 1e9, burst = 1e9 })
local sources = {}
for i = 1, SOURCES do
  sources[i] = ("10.0.%d.%d"):format(i // 256, i % 256)
  store:set(sources[i], i)
end
store:set("text", "a short string")
store:set("long text", ("x"):rep(1000))
store:set("with ttl", 1, 1000)

local function each(call)
  return function()
    for i = 1, CALLS do
      call(sources[i % SOURCES + 1])
    end
  end
end

local function same(key, call)
  return function()
    for _ = 1, CALLS do
      call(key)
    end
  end
end

local next_key = 0

local ROWS = {
  { "an empty call", same("10.0.0.1", function() end) },
  { "get, integer", same("10.0.0.1", function(key) return store:get(key) end) },
  { "get, short string", same("text", function(key) return store:get(key) end) },
  { "get, 1,000 bytes", same("long text", function(key) return store:get(key) end) },
  { "get, with a time to live", same("with ttl", function(key) return store:get(key) end) },
  { "get, 1,000 keys", each(function(key) return store:get(key) end) },
  { "get, no such key", same("nothing", function(key) return store:get(key) end) },
  { "incr, the same key", same("count", function(key) return store:incr(key) end) },
  { "incr, 1,000 keys", each(function(key) return store:incr(key) end) },
  { "set, the same key", same("10.0.0.1", function(key) return store:set(key, 1) end) },
  { "set, a new key, store full", same("", function()
    next_key = next_key + 1
    return store:set(("source %d"):format(next_key), 1)
  end), before = function()
    while store:stats().evicted == 0 do
      for _ = 1, 1000 do
        next_key = next_key + 1
        store:set(("source %d"):format(next_key), 1)
      end
    end
  end },
  { "take, the same key", same("10.0.0.1", function(key) return bucket:take(key) end) },
  { "take, 1,000 keys", each(function(key) return bucket:take(key) end) },
}

print(("nanoseconds a call from Lua, least and median of %d runs of %d; the loop is in it"):format(RUNS, CALLS))
for _, row in ipairs(ROWS) do
  local times = {}
  if row.before then
    row.before()
  end
  for i = 1, RUNS do
    local start = os.clock()
    row[2]()
    times[i] = (os.clock() - start) / CALLS * 1e9
  end
  table.sort(times)
  print(("%-32s %6.0f %6.0f"):format(row[1], times[1], times[(RUNS + 1) // 2]))
end
print()
os.exit(os.execute(build .. "/threads contend"))
