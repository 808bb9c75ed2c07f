--- One packet of each kind a handler may meet, for `nfqueue check`: each of a connection of its own, since what a
-- handler knows of connections, or says of the rest of one, must not keep it from another kind.

local core = require("nfqueue.core")

local samples = {}

local build = core.build

-- RFC 5737 and RFC 3849: addresses of examples.
local function ip4(more)
  more = more or {}
  more.src, more.dst = "192.0.2.1", "198.51.100.2"
  return more
end

local function ip6(more)
  more = more or {}
  more.src, more.dst = "2001:db8::1", "2001:db8::2"
  return more
end

local SYN = { dport = 80, seq = 1, flags = "S", mss = 1460 }
local DATA = { dport = 80, seq = 1, ack_seq = 1 }
local REQUEST = "GET / HTTP/1.1\r\n\r\n"
local PING = ("x"):rep(16)

--- All samples.
-- @treturn {table,...} each `name`, `bytes`, and `meta` where it matters
function samples.all()
  local last = 40000
  local function own(key, header)
    last = last + 1
    local copy = { [key] = last }
    for name, value in pairs(header) do
      copy[name] = value
    end
    return copy
  end
  local function udp()
    return own("sport", { dport = 53 })
  end
  local function echo(kind)
    return own("id", { type = kind, seq = 1 })
  end
  local function question(ip)
    return build({ ip = ip, udp = udp(), payload = "question" })
  end
  local whole = build({ ip = ip4(), udp = udp(), payload = ("x"):rep(1000) })
  local pieces4 = build({ ip = ip4({ id = 1 }), udp = udp(), payload = ("x"):rep(1000), mtu = 576 })
  local pieces6 = build({ ip = ip6({ id = 1 }), udp = udp(), payload = ("x"):rep(2000), mtu = 1280 })
  return {
    { name = "IPv4 TCP SYN", bytes = build({ ip = ip4(), tcp = own("sport", SYN) }) },
    { name = "IPv4 TCP data", bytes = build({ ip = ip4(), tcp = own("sport", DATA), payload = REQUEST }) },
    { name = "IPv4 UDP", bytes = question(ip4()) },
    { name = "IPv4 UDP, empty", bytes = build({ ip = ip4(), udp = udp() }) },
    { name = "IPv4 ICMP echo request", bytes = build({ ip = ip4(), icmp = echo(8), payload = PING }) },
    { name = "IPv4 ICMP unreachable", bytes = build({ reply = question(ip4()), icmp = { type = 3, code = 3 } }) },
    { name = "IPv4 GRE", bytes = build({ ip = ip4({ protocol = 47 }), payload = "\0\0\x86\xdd" .. question(ip6()) }) },
    { name = "IPv4 first fragment", bytes = pieces4[1] },
    { name = "IPv4 later fragment", bytes = pieces4[2] },
    { name = "IPv6 TCP SYN", bytes = build({ ip = ip6(), tcp = own("sport", SYN) }) },
    { name = "IPv6 UDP", bytes = question(ip6()) },
    { name = "IPv6 ICMPv6 echo request", bytes = build({ ip = ip6(), icmp = echo(128), payload = PING }) },
    { name = "IPv6 ICMPv6 unreachable", bytes = build({ reply = question(ip6()), icmp = { type = 1, code = 4 } }) },
    { name = "IPv6 hop-by-hop and UDP", bytes = build({
      ip = ip6({ extensions = { { hop_by_hop = { [5] = "\0\0" } } } }), udp = udp(), payload = "question",
    }) },
    { name = "IPv6 first fragment", bytes = pieces6[1] },
    { name = "IPv6 later fragment", bytes = pieces6[2] },
    { name = "truncated by copy_range", bytes = whole:sub(1, 64), meta = { length = #whole } },
    { name = "metadata only", bytes = "", meta = { length = #whole } },
    { name = "garbage", bytes = ("\xff"):rep(7) },
  }
end

return samples
