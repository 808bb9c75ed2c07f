-- Writes down how nfqueue reads the checked-in captures: a packet a line, its fields in order. What it writes is
-- right where compare_spec.lua finds scapy and tshark agreeing; look at what changed before checking it in.
--   lua5.4 spec/compare/write_expected.lua spec/captures     (LUA_PATH and LUA_CPATH as in the Makefile)

local captures = require("compare.captures")
local compare = require("compare.compare")
local reading = require("compare.reading")

local folder = arg[1]
local path = os.tmpname()
compare.gather({ folder .. "/ip4.pcap", folder .. "/ip6.pcap", folder .. "/links.pcapng" }, path)
local file = assert(io.open(folder .. "/expected.txt", "w"))
for _, bytes, wire in captures.packets(path) do
  local parts = {}
  for key, value in pairs(reading.of(bytes, wire)) do
    parts[#parts + 1] = key .. "=" .. value
  end
  table.sort(parts)
  file:write(table.concat(parts, " "), "\n")
end
file:close()
os.remove(path)
