--- One packet of each kind a handler may meet, for `nfqueue check`.

local core = require("nfqueue.core")

local samples = {}

local IP4_SOURCE, IP4_TARGET = "\192\0\2\1", "\198\51\100\2" -- RFC 5737
local IP6_PREFIX = "\x20\x01\x0d\xb8" .. ("\0"):rep(11) -- RFC 3849

local function ip4(protocol, payload, fragment)
  return string.pack(">BBI2I2I2BBI2", 0x45, 0, 20 + #payload, 1, fragment or 0, 64, protocol, 0)
    .. IP4_SOURCE .. IP4_TARGET .. payload
end

local function ip6(next_header, payload)
  return string.pack(">I4I2BB", 0x60000000, #payload, next_header, 64)
    .. IP6_PREFIX .. "\1" .. IP6_PREFIX .. "\2" .. payload
end

local function tcp(flags, payload)
  return string.pack(">I2I2I4I4BBI2I2I2", 40000, 80, 1, 0, 0x50, flags, 64240, 0, 0) .. payload
end

local function udp(payload)
  return string.pack(">I2I2I2I2", 40000, 53, 8 + #payload, 0) .. payload
end

local function echo(kind)
  return string.pack(">BBI2I2I2", kind, 0, 0, 1, 1) .. ("x"):rep(16)
end

--- The same bytes with lengths and checksums filled in.
local function complete(bytes)
  local packet = core.packet(bytes)
  packet:modify(bytes)
  return packet.sent
end

local SYN, ACK_PSH = 0x02, 0x18

--- All samples.
-- @treturn {table,...} each `name`, `bytes`, and `meta` where it matters
function samples.all()
  local whole = complete(ip4(17, udp(("x"):rep(1000))))
  return {
    { name = "IPv4 TCP SYN", bytes = complete(ip4(6, tcp(SYN, ""))) },
    { name = "IPv4 TCP data", bytes = complete(ip4(6, tcp(ACK_PSH, "GET / HTTP/1.1\r\n\r\n"))) },
    { name = "IPv4 UDP", bytes = complete(ip4(17, udp("question"))) },
    { name = "IPv4 UDP, empty", bytes = complete(ip4(17, udp(""))) },
    { name = "IPv4 ICMP echo request", bytes = complete(ip4(1, echo(8))) },
    { name = "IPv4 GRE", bytes = complete(ip4(47, ("\0"):rep(8))) },
    { name = "IPv4 first fragment", bytes = complete(ip4(17, udp(("x"):rep(16)), 0x2000)) },
    { name = "IPv4 later fragment", bytes = complete(ip4(17, ("x"):rep(24), 3)) },
    { name = "IPv6 TCP SYN", bytes = complete(ip6(6, tcp(SYN, ""))) },
    { name = "IPv6 UDP", bytes = complete(ip6(17, udp("question"))) },
    { name = "IPv6 ICMPv6 echo request", bytes = complete(ip6(58, echo(128))) },
    { name = "IPv6 hop-by-hop and UDP", bytes = complete(ip6(0, "\17\0\5\2\0\0\1\0" .. udp("question"))) },
    { name = "truncated by copy_range", bytes = whole:sub(1, 64), meta = { length = #whole } },
    { name = "metadata only", bytes = "", meta = { length = #whole } },
    { name = "garbage", bytes = ("\xff"):rep(7) },
  }
end

return samples
