-- Address and name sets of a million entries: seconds to load, memory, nanoseconds a search.
--   lua5.4 spec/bench/sets.lua          (make bench-tables)
-- Environment: NFQUEUE_BUILD (default build), NFQUEUE_BENCH_ENTRIES (default 1,000,000).
--
-- Each set is loaded and searched in a process of its own, so that its memory can be told: what the process has when
-- the set is there, less what it had before, and the most it had while reading. Searched are addresses and names made
-- beforehand, half of them in the set: 1,000 different ones (what a busy network sees), and 65,000, at random. The call
-- from Lua and the loop around it are in the figures, and so is fetching the word from memory, where a handler's is at
-- hand: what an empty set takes for the same 65,000 says how much that is.

local build = os.getenv("NFQUEUE_BUILD") or "build"
package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
package.cpath = build .. "/lib/?.so;" .. package.cpath

local nfqueue = require("nfqueue")

local ENTRIES = tonumber(os.getenv("NFQUEUE_BENCH_ENTRIES")) or 1000000
local DIFFERENT = { 1000, 65000 }
local SEARCHES = 260000 -- in a run

local random = math.random

local function ip4()
  return ("%d.%d.%d.%d"):format(random(1, 223), random(0, 255), random(0, 255), random(0, 255))
end

local function ip4_prefix()
  -- As in the tables of the internet: mostly /24, some shorter.
  local length = random() < 0.6 and 24 or random(16, 24)
  local bits = random(0x01000000, 0xdfffffff) & (0xffffffff << (32 - length))
  return ("%d.%d.%d.%d/%d"):format(bits >> 24, bits >> 16 & 255, bits >> 8 & 255, bits & 255, length)
end

local function ip6()
  return ("2%03x:%x:%x:%x::%x"):format(random(0, 0xfff), random(0, 0xffff), random(0, 0xffff),
    random(0, 0xffff), random(1, 0xffff))
end

local function ip6_prefix()
  if random() < 0.5 then
    return ("2%03x:%x:%x::/48"):format(random(0, 0xfff), random(0, 0xffff), random(1, 0xffff))
  end
  return ("2%03x:%x::/32"):format(random(0, 0xfff), random(1, 0xffff))
end

local function ip6_host()
  return ("2%03x:%x:%x:%x:%x:%x:%x:%x"):format(random(0, 0xfff), random(1, 0xffff), random(1, 0xffff),
    random(1, 0xffff), random(1, 0xffff), random(1, 0xffff), random(1, 0xffff), random(1, 0xffff))
end

local LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
local TOPS = { "com", "net", "org", "de", "co.uk", "io", "ru", "info" }

local function word(least, most)
  local letters = {}
  for i = 1, random(least, most) do
    local at = random(#LETTERS)
    letters[i] = LETTERS:sub(at, at)
  end
  return table.concat(letters)
end

local function domain()
  local name = word(4, 14) .. "." .. TOPS[random(#TOPS)]
  return random() < 0.4 and word(2, 8) .. "." .. name or name
end

local function with_value(make)
  return function()
    return ("%s AS%d"):format(make(), random(1, 65000))
  end
end

local ROWS = {
  { name = "IPv4 prefixes", line = ip4_prefix, other = ip4, method = "find",
    hit = function(line) return line:match("^[^/]+") end },
  { name = "IPv4, 65,000 values", line = with_value(ip4_prefix), other = ip4, method = "find",
    hit = function(line) return line:match("^[^/]+") end },
  { name = "IPv4 addresses", line = ip4, other = ip4, method = "find", hit = function(line) return line end },
  { name = "IPv6 prefixes", line = ip6_prefix, other = ip6, method = "find",
    hit = function(line) return (line:gsub("::/.*", "::1")) end },
  { name = "IPv6 addresses", line = ip6_host, other = ip6, method = "find", hit = function(line) return line end },
  { name = "names", line = domain, other = domain, method = "has",
    hit = function(line) return "www." .. line end },
  { name = "hosts file", line = function() return "0.0.0.0 " .. domain() end, other = domain, method = "has",
    hit = function(line) return line:sub(9) end },
}

--- Kilobytes in use now, and at most so far.
local function memory()
  local file = assert(io.open("/proc/self/status"))
  local text = file:read("a")
  file:close()
  return tonumber(text:match("VmRSS:%s*(%d+)")), tonumber(text:match("VmHWM:%s*(%d+)"))
end

local function lines_of(path)
  local list = {}
  for line in io.lines(path) do
    list[#list + 1] = line
  end
  return list
end

--- Nanoseconds for each of the first `different` words, over and over, the least of ten runs (the machine has other
-- things to do, too), and the share that was found.
local function search(set, method, words, different)
  local find = set[method]
  local least, found = math.huge
  for _ = 1, 10 do
    local start = os.clock()
    found = 0
    for _ = 1, SEARCHES // different do
      for i = 1, different do
        if find(set, words[i]) then
          found = found + 1
        end
      end
    end
    least = math.min(least, os.clock() - start)
  end
  local searches = SEARCHES // different * different
  return least / searches * 1e9, found / searches
end

--- Writes the list, and what to search for in random order.
local function generate(row, list, searched)
  local file = assert(io.open(list, "w"))
  local words = {}
  math.randomseed(5)
  for i = 1, ENTRIES do
    local line = row.line()
    file:write(line, "\n")
    if i % math.max(1, ENTRIES // (DIFFERENT[2] // 2)) == 0 then
      words[#words + 1] = row.hit(line)
      words[#words + 1] = row.other()
    end
  end
  file:close()
  for i = #words, 2, -1 do
    local k = random(i)
    words[i], words[k] = words[k], words[i]
  end
  file = assert(io.open(searched, "w"))
  file:write(table.concat(words, "\n"), "\n")
  file:close()
end

local function measure(row, list, searched)
  local words = lines_of(searched)
  local set = row.method == "find" and nfqueue.cidrset() or nfqueue.domainset()
  collectgarbage()
  local before = memory()
  local start = os.clock()
  local count = assert(set:load(list))
  local seconds = os.clock() - start
  local after, most = memory()
  local few = search(set, row.method, words, math.min(#words, DIFFERENT[1]))
  local many, share = search(set, row.method, words, math.min(#words, DIFFERENT[2]))
  local empty = row.method == "find" and nfqueue.cidrset() or nfqueue.domainset()
  local floor = search(empty, row.method, words, math.min(#words, DIFFERENT[2]))
  print(("%-20s %9d %8.2f %8.1f %11.1f %8.0f %8.0f %8.0f %8.0f %%"):format(row.name, count, seconds,
    (after - before) / 1024, (most - before) / 1024, few, many, floor, share * 100))
end

if arg[1] then
  measure(ROWS[tonumber(arg[1])], arg[2], arg[3])
  os.exit(true)
end
print(("%d lines each; nanoseconds a search, among so many different ones"):format(ENTRIES))
print(("%-20s %9s %8s %8s %11s %8d %8d %8s %10s"):format("", "entries", "load, s", "MB", "MB reading", DIFFERENT[1],
  DIFFERENT[2], "empty", "found"))
local list, searched = os.tmpname(), os.tmpname()
local fine = true
for i, row in ipairs(ROWS) do
  generate(row, list, searched)
  fine = os.execute(("%s %s %d %s %s"):format(arg[-1], arg[0], i, list, searched)) and fine
end
os.remove(list)
os.remove(searched)
os.exit(fine)
