-- Nanoseconds per operation on a packet, beside string.unpack on a Lua string and scapy, all in one run.
--   lua5.4 spec/bench/packet.lua
-- Environment: NFQUEUE_BUILD (default build), NFQUEUE_BENCH_REPEATS (default 400 batches).
--
-- Each operation meets fresh packets, a batch at a time, and what the loop around it costs is taken off; operations
-- take turns, and the median is told. The packets are made by nfqueue.packet: a header of one keeps it alive, which
-- one of a queue need not, and modify makes its second buffer, which one of a queue has.

package.path = "lua/?.lua;lua/?/init.lua;spec/?.lua;" .. package.path
package.cpath = (os.getenv("NFQUEUE_BUILD") or "build") .. "/lib/?.so;" .. package.cpath

local nfqueue = require("nfqueue")

local BATCH = 512
local REPEATS = tonumber(os.getenv("NFQUEUE_BENCH_REPEATS")) or 400

local SEGMENT = nfqueue.build({
  ip = { src = "192.0.2.1", dst = "198.51.100.2" },
  tcp = { sport = 40000, dport = 443, seq = 1, ack_seq = 1, flags = "PA", window = 512 },
  payload = ("0123456789abcdef"):rep(4),
})
local CHANGED = SEGMENT:sub(1, 40) .. ("fedcba9876543210"):rep(4)
local BYTES = ("fedcba9876543210"):rep(4)

local blocked = { [25] = true, [135] = true }

-- What has met its TCP header before: the header.
local function read_header(pkt)
  local tcp = pkt.tcp
  return tcp.dport and tcp
end

local OPERATIONS = { -- name, what is done with each packet; `prepare` goes before, untimed
  { "first pkt.tcp.dport", function(pkt) return pkt.tcp.dport end },
  { "pkt.tcp.dport, then pkt.tcp.sport", function(pkt) return pkt.tcp.dport, pkt.tcp.sport end },
  { "tcp.sport of a header at hand", function(_, tcp) return tcp.sport end, prepare = read_header },
  { "protocol, addresses, ports, and a look-up", function(pkt)
    local ip, tcp = pkt.ip, pkt.tcp
    return ip.protocol == 6 and ip.src ~= ip.dst and tcp.sport ~= 0 and not blocked[tcp.dport]
  end },
  { "pkt:u16(22)", function(pkt) return pkt:u16(22) end },
  { "pkt.payload, 64 bytes", function(pkt) return pkt.payload end },
  { "pkt.tuple", function(pkt) return pkt.tuple end },
  { "tcp.dport = 8443", function(_, tcp) tcp.dport = 8443 end, prepare = read_header },
  { "pkt:u8(60, 1)", function(pkt) pkt:u8(60, 1) end },
  { "pkt.payload = 64 bytes", function(pkt) pkt.payload = BYTES end },
  { "pkt:accept()", function(pkt) pkt:accept() end },
  { "pkt:modify(104 bytes)", function(pkt) pkt:modify(CHANGED) end },
  { "string.unpack of a port", function(_, _, bytes) return (string.unpack(">I2", bytes, 23)) end },
  { "string.unpack of protocol, addresses, ports, and a look-up", function(_, _, bytes)
    local protocol, _, source, target, sport, dport = string.unpack(">BI2I4I4I2I2", bytes, 10)
    return protocol == 6 and source ~= target and sport ~= 0 and not blocked[dport]
  end },
}

local clock = os.clock

local function batch(prepare)
  local packets, extra = {}, {}
  for i = 1, BATCH do
    packets[i] = nfqueue.packet(SEGMENT)
    extra[i] = prepare and prepare(packets[i]) or false
  end
  return packets, extra
end

local function time(operation, prepare)
  local packets, extra = batch(prepare)
  local start = clock()
  for i = 1, BATCH do
    operation(packets[i], extra[i], SEGMENT)
  end
  return (clock() - start) * 1e9 / BATCH
end

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local SCAPY = [[
import time
from scapy.all import IP, TCP, raw
data = bytes.fromhex("%s")
def spend(n, f):
    begin = time.process_time()
    for _ in range(n):
        f()
    return (time.process_time() - begin) / n * 1e9
def edit():
    p = IP(data)
    p[TCP].dport = 8443
    del p[IP].chksum, p[TCP].chksum
    return raw(p)
print(spend(1000, lambda: IP(data)[TCP].dport), spend(500, edit))
]]

local function scapy()
  local hex = SEGMENT:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(SCAPY:format(hex))
  file:close()
  local pipe = assert(io.popen("python3 " .. path .. " 2>/dev/null"))
  local read, edit = pipe:read("n", "n")
  pipe:close()
  os.remove(path)
  return read, edit
end

local samples, nothing = {}, {}
for i = 1, REPEATS do
  nothing[i] = time(function() end)
  for number, operation in ipairs(OPERATIONS) do
    samples[number] = samples[number] or {}
    samples[number][i] = time(operation[2], operation.prepare)
  end
end
local floor = median(nothing)
print(("ns per operation: median of %d batches of %d packets, the loop's %.0f taken off"):format(REPEATS, BATCH, floor))
for number, operation in ipairs(OPERATIONS) do
  print(("  %-58s %8.0f"):format(operation[1], median(samples[number]) - floor))
end
local read, edit = scapy()
if read then
  print(("  %-58s %8.0f"):format("scapy: IP(data)[TCP].dport", read))
  print(("  %-58s %8.0f"):format("scapy: a port assigned, checksums anew, bytes", edit))
else
  print("  scapy is not installed (Debian: python3-scapy)")
end
