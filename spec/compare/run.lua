-- make compare: every field that nfqueue reads, in every capture of Debian source packages, against scapy and tshark.
--   lua5.4 spec/compare/run.lua FOLDER PACKAGE...
-- FOLDER/PACKAGE holds the captures (fetch.sh). Exits 1 for a difference that no rule explains, for a rule that
-- explains nothing, and where captures or peers are missing.

local compare = require("compare.compare")
local rules = require("compare.rules")

local folder = arg[1]
local packages = table.move(arg, 2, #arg, 2, { "own" }) -- own: those checked in

local peers, missing = compare.peers()
if #missing > 0 then
  io.stderr:write("not installed: ", table.concat(missing, ", "), "\n")
  os.exit(1)
end

local function find(path)
  local list = {}
  local pipe = assert(io.popen("find '" .. path .. "' -type f -not -name '.*' -not -name '*.txt' | LC_ALL=C sort", "r"))
  for line in pipe:lines() do
    list[#list + 1] = line
  end
  pipe:close()
  return list
end

local function print_case(case)
  print(("  %s, packet %d: %s: nfqueue %s, %s %s"):format(case.origin.file, case.origin.number, case.field,
    case.ours or "nil", case.peer, case.theirs or "nil"))
end

local HEADING = "%-12s %8s %10s %10s %10s %10s %10s %12s"
local LINE = "%-12s %8d %10d %10d %10d %10d %10d %12d"
local KEYS = { "files", "records", "packets", "fields", "differing", "explained", "unexplained" }

local sum, uses, unexplained = {}, {}, {}
print(HEADING:format("captures of", table.unpack(KEYS)))
for _, package in ipairs(packages) do
  local path = folder .. "/" .. package .. ".pcap"
  local place = package == "own" and "spec/captures" or folder .. "/" .. package
  local origins, counts = compare.gather(find(place), path)
  local result = compare.run(path, origins, peers, rules, folder .. "/tshark")
  local row = {}
  for i, key in ipairs(KEYS) do
    local value = counts[key] or result[key]
    row[i] = type(value) == "table" and #value or value
    sum[i] = (sum[i] or 0) + row[i]
  end
  print(LINE:format(package, table.unpack(row)))
  for rule, count in pairs(result.rules) do
    uses[rule] = (uses[rule] or 0) + count
  end
  table.move(result.unexplained, 1, #result.unexplained, #unexplained + 1, unexplained)
  os.remove(path)
end
print(LINE:format("all", table.unpack(sum)))
print("records: frames of the files; packets: those with an IP packet behind raw, Ethernet, cooked, loopback or PPP")
print("headers; fields: one of nfqueue and one of a peer held against each other")
print("peers: " .. compare.versions())

print("\nexplained:")
local useless = {}
for _, rule in ipairs(rules) do
  print(("%7d  %s: %s"):format(uses[rule] or 0, rule.peer or "both", rule.reason))
  if not uses[rule] then
    useless[#useless + 1] = rule
  end
end
if #unexplained > 0 then
  print("\nunexplained:")
  for i = 1, math.min(#unexplained, 100) do
    print_case(unexplained[i])
  end
  if #unexplained > 100 then
    print(("  and %d more"):format(#unexplained - 100))
  end
end
for _, rule in ipairs(useless) do
  print("a rule explains nothing: " .. rule.reason)
end
os.exit(#unexplained == 0 and #useless == 0 and sum[3] > 0)
