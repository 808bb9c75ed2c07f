-- Makes the checked-in captures: a packet of every kind of header that nfqueue reads, right ones and hostile ones.
--   lua5.4 spec/compare/make_captures.lua FOLDER      (LUA_PATH has spec/?.lua)
-- spec/compare_spec.lua runs it too and sees that spec/captures holds what it makes.

local checksum = require("support.checksum")
local datagram = require("support.datagram")

local make_captures = {}

local tcp, udp, icmp, icmp6, raw = datagram.tcp, datagram.udp, datagram.icmp, datagram.icmp6, datagram.raw

local function ip4(transport, changes)
  return datagram.right(datagram.ip4(transport, changes))
end

local function ip6(transport, changes)
  return datagram.right(datagram.ip6(transport, changes))
end

-- ICMP of any type, with its checksum: `rest` follows type and code's checksum.
local function message(protocol, kind, code, rest)
  return {
    protocol = protocol,
    render = function(pseudo)
      local head = string.char(kind, code)
      local front = protocol == 58 and pseudo and pseudo(58, 4 + #rest) or ""
      local sum = checksum.of(front .. head .. "\0\0" .. rest)
      return head .. string.pack(">I2", sum) .. rest
    end,
  }
end

-- `bytes` with others at a 0-based offset.
local function patched(bytes, offset, replacement)
  return bytes:sub(1, offset) .. replacement .. bytes:sub(offset + #replacement + 1)
end

local HOP = { 0, "\0\5\2\0\0\1\0" } -- router alert
local DESTINATION = { 60, "\1\1\12" .. ("\0"):rep(12) }
local AH = { 51, "\4\0\0" .. ("\7"):rep(20) }
local ESP = "\0\0\1\0\0\0\0\1" .. ("\xe5"):rep(32)
local GRE = "\0\0\8\0" .. ip4(udp("in a tunnel"))
local SCTP = "\x9c\x40\x0b\x59\0\0\0\1\0\0\0\0\1\0\0\20" .. ("\3"):rep(16)
local OTHER6 = ("\x20\x03"):rep(8)

local function fragment(offset_and_more)
  return { 44, "\0" .. string.pack(">I2", offset_and_more) .. "\xde\xad\xbe\xef" }
end

local function routing(kind, left, ...)
  local addresses = table.concat({ ... })
  return { 43, string.pack(">BBBI4", #addresses // 8, kind, left, 0) .. addresses }
end

local SYN = "\2\4\5\xb4\4\2\8\10\0\1\2\3\0\0\0\0\1\3\3\7"
local SACKS = "\1\1\8\10\0\1\2\3\9\8\7\6\1\1\5\18" .. ("\0\0\1\0\0\0\2\0"):rep(2)
local UNKNOWN = "\xfe\6\xf9\x89ab\x4d\3x\2\4\2\x18\2\4\1\0\0\0\0\0" -- 254, 77, MSS twice, end of list

local ORIGINAL4 = ip4(udp("a datagram that came too far"))
local ORIGINAL6 = ip6(tcp("a segment that was too big"))
local LONG4, LONG6 = ip4(udp(("long"):rep(40))), ip6(udp(("long"):rep(40)))
-- RFC 4884: an extension header, one MPLS label stack object; the checksum is theirs.
local EXTENSION = "\x20\0\0\0\0\8\1\1\0\x01\x01\xff"
EXTENSION = patched(EXTENSION, 2, string.pack(">I2", checksum.of(EXTENSION)))

local function filled(bytes, size)
  return bytes .. ("\0"):rep(size - #bytes)
end

local IP4 = {
  ip4(udp("odd")),
  ip4(udp("")),
  patched(ip4(udp("no checksum")), 26, "\0\0"),
  ip4(udp("behind options"), { options = "\x94\4\0\0\7\7\4\0\0\0\0\0" }), -- router alert, record route
  ip4(udp("DF"), { fragment = 0x4000 }),
  ip4(udp(("first"):rep(8)), { fragment = 0x2000 }),
  ip4(raw(17, ("later"):rep(8)), { fragment = 0x2006 }),
  ip4(raw(6, "the last"), { fragment = 0x000c }),
  ip4(raw(17, "far"), { fragment = 0x1ffe }),
  ip4(tcp("GET / HTTP/1.1\r\n")),
  ip4(tcp("", SYN)),
  ip4(tcp("acknowledges", SACKS)),
  ip4(tcp("unknown", UNKNOWN)),
  ip4(tcp("x", ("\1"):rep(40)), { options = ("\1"):rep(40) }),
  patched(ip4(tcp("every flag and an urgent pointer")), 33, "\xff\1\0\0\0\0\7"),
  filled(ip4(tcp("")), 46), -- padding of Ethernet
  filled(ip4(udp("padded")), 46),
  patched(ip4(udp("data and more")), 24, "\0\x0c"), -- UDP claims 4 bytes of data
  patched(ip4(udp("data")), 24, "\0\0"),
  patched(ip4(udp("data")), 24, "\0\5"),
  patched(ip4(udp("data")), 24, "\0\xff"),
  ip4(icmp("ping")),
  ip4(message(1, 0, 0, "\0\7\0\9pong")),
  ip4(message(1, 13, 0, "\0\7\0\9" .. ("\0\0\1\0"):rep(3))),
  ip4(message(1, 17, 0, "\0\7\0\9\xff\xff\xff\0")),
  ip4(message(1, 9, 0, "\1\2\0\x1e" .. datagram.SOURCE4 .. "\0\0\0\0")),
  ip4(message(1, 3, 4, "\0\0\5\xdc" .. ORIGINAL4:sub(1, 28))), -- eight bytes of the transport
  ip4(message(1, 3, 1, "\0\0\0\0" .. ORIGINAL4)),
  ip4(message(1, 4, 0, "\0\0\0\0" .. ORIGINAL4)),
  ip4(message(1, 5, 1, datagram.TARGET4 .. ORIGINAL4:sub(1, 28))),
  ip4(message(1, 12, 0, "\9\0\0\0" .. ORIGINAL4:sub(1, 28))),
  ip4(message(1, 11, 0, "\0\32\0\0" .. filled(ORIGINAL4, 128) .. EXTENSION)),
  ip4(message(1, 11, 0, "\0\0\0\0" .. filled(ORIGINAL4, 128) .. EXTENSION)), -- older than the length field
  ip4(message(1, 11, 0, "\0\34\0\0" .. LONG4:sub(1, 136) .. EXTENSION)),
  ip4(message(1, 11, 0, "\0\0\0\0")),
  ip4(raw(50, ESP)),
  ip4(raw(47, GRE)),
  ip4(raw(132, SCTP)),
  ip4(raw(4, ORIGINAL4)),
  ip4(raw(41, ORIGINAL6)),
  ip4(tcp("authenticated"), { ah = true }),
  ip4(raw(2, "\x16\0\x09\x04\xe0\0\0\xfb"), { options = "\x94\4\0\0", ttl = 1 }),
  patched(ip4(tcp("segments to be cut by the card")), 2, "\0\0"),
}
for _, size in ipairs({ 20, 23, 27, 28 }) do
  IP4[#IP4 + 1] = ip4(udp("cut")):sub(1, size)
end
for _, size in ipairs({ 33, 40, 47 }) do
  IP4[#IP4 + 1] = ip4(tcp("cut", SYN)):sub(1, size)
end
IP4[#IP4 + 1] = ip4(udp(""), { options = ("\1"):rep(8) }):sub(1, 24)

local IP6 = {
  ip6(udp("odd")),
  ip6(tcp("", SYN)),
  patched(ip6(tcp("flow and class", SACKS)), 0, "\x6b\x8f\xed\xcb"),
  ip6(udp("hop by hop"), { chain = { HOP } }),
  ip6(tcp("all"), { chain = { HOP, DESTINATION, routing(2, 0, datagram.FINAL6), fragment(0), AH, DESTINATION } }),
  ip6(udp("on its way"), { chain = { routing(0, 1, OTHER6, datagram.FINAL6) }, final = datagram.FINAL6 }),
  ip6(udp("home address"), { chain = { routing(2, 1, datagram.FINAL6) }, final = datagram.FINAL6 }),
  ip6(udp("segments"), { chain = { routing(4, 1, datagram.FINAL6, OTHER6) }, final = datagram.FINAL6 }),
  ip6(udp(("first"):rep(8)), { chain = { HOP, fragment(1) } }),
  ip6(raw(17, ("later"):rep(8)), { chain = { HOP, fragment(48 | 1) } }),
  ip6(raw(6, "the last"), { chain = { fragment(88) } }),
  ip6(raw(60, "\17" .. DESTINATION[2] .. udp("no header").render()), { chain = { fragment(96) } }),
  ip6(icmp6("ping")),
  ip6(message(58, 129, 0, "\0\7\0\9pong"), { chain = { DESTINATION } }),
  ip6(message(58, 135, 0, "\0\0\0\0" .. datagram.TARGET6 .. "\1\1\2\0\0\0\0\1"), { hops = 255 }),
  ip6(message(58, 143, 0, "\0\0\0\1\4\0\0\0" .. "\xff\2" .. ("\0"):rep(13) .. "\x16"), { chain = { HOP }, hops = 1 }),
  ip6(message(58, 1, 4, "\0\0\0\0" .. ORIGINAL6)),
  ip6(message(58, 2, 0, "\0\0\5\0" .. ORIGINAL6)),
  ip6(message(58, 3, 0, "\0\0\0\0" .. ORIGINAL6:sub(1, 48)), { chain = { HOP } }),
  ip6(message(58, 4, 1, "\0\0\0\6" .. ORIGINAL6)),
  ip6(message(58, 3, 0, "\16\0\0\0" .. filled(ORIGINAL6, 128) .. EXTENSION)),
  ip6(message(58, 1, 0, "\17\0\0\0" .. LONG6:sub(1, 136) .. EXTENSION)),
  ip6(raw(50, ESP), { chain = { HOP } }),
  ip6(raw(47, GRE)),
  ip6(raw(132, SCTP), { chain = { DESTINATION } }),
  ip6(raw(41, ORIGINAL6)),
  ip6(raw(59, "")),
  ip6(raw(135, "\59\1\5\0\0\0\0\0\0\1\0\0\0\0\0\0")),
  filled(ip6(udp("")), 60),
  patched(ip6(tcp("nothing follows")), 4, "\0\0"),
  patched(ip6(tcp("less than its chain"), { chain = { DESTINATION, DESTINATION } }), 4, "\0\24"),
}
for _, size in ipairs({ 40, 44, 47, 48, 55 }) do
  IP6[#IP6 + 1] = ip6(udp("cut"), { chain = { HOP } }):sub(1, size)
end

local UDP4, UDP6 = ip4(udp("four")), ip6(udp("six"))
local MACS = "\2\0\0\0\0\2\2\0\0\0\0\1"
local LINKS = { -- link type, frame
  { 1, MACS .. "\8\0" .. UDP4 },
  { 1, MACS .. "\x81\0\0\5\x86\xdd" .. UDP6 },
  { 1, MACS .. "\x88\xa8\0\7\x81\0\0\5\8\0" .. UDP4 },
  { 1, MACS .. "\x88\x64\x11\0\0\1\0\x2e\0\x21" .. UDP4 },
  { 1, MACS .. string.pack(">I2", 8 + #UDP4) .. "\xaa\xaa\3\0\0\0\8\0" .. UDP4 },
  { 1, MACS .. "\8\6" .. ("\0"):rep(28) }, -- ARP: no IP packet
  { 113, "\0\0\0\1\0\6\2\0\0\0\0\1\0\0\x86\xdd" .. UDP6 },
  { 276, "\x86\xdd\0\0\0\0\0\1\0\1\0\6\2\0\0\0\0\1\0\0" .. UDP6 },
  { 0, "\2\0\0\0" .. UDP4 },
  { 0, "\0\0\0\30" .. UDP6 },
  { 108, "\0\0\0\24" .. UDP6 },
  { 9, "\xff\3\0\x21" .. UDP4 },
  { 9, "\x57" .. UDP6 },
  { 104, "\x0f\0\8\0" .. UDP4 },
  { 101, UDP4 },
  { 229, UDP6 },
  { 147, UDP6 }, -- a private link type: not known
}

local function pcap(packets, link, front)
  local parts = { string.pack("<I4I2I2i4I4I4I4", 0xa1b2c3d4, 2, 4, 0, 0, 65535, link) }
  for i, bytes in ipairs(packets) do
    parts[#parts + 1] = string.pack("<I4I4I4I4", i, 0, #front + #bytes, #front + #bytes) .. front .. bytes
  end
  return table.concat(parts)
end

local function block(kind, body)
  body = body .. ("\0"):rep(-#body % 4)
  return string.pack("<I4I4", kind, #body + 12) .. body .. string.pack("<I4", #body + 12)
end

local function pcapng(frames)
  local parts = { block(0x0a0d0d0a, string.pack("<I4I2I2i8", 0x1a2b3c4d, 1, 0, -1)) }
  local known, count = {}, 0
  for _, frame in ipairs(frames) do
    local link, bytes = frame[1], frame[2]
    if not known[link] then
      parts[#parts + 1] = block(1, string.pack("<I2I2I4", link, 0, 0))
      known[link], count = count, count + 1
    end
    parts[#parts + 1] = block(6, string.pack("<I4I4I4I4I4", known[link], 0, 0, #bytes, #bytes) .. bytes)
  end
  return table.concat(parts)
end

--- The captures by file name.
function make_captures.all()
  return {
    ["ip4.pcap"] = pcap(IP4, 1, MACS .. "\8\0"),
    ["ip6.pcap"] = pcap(IP6, 1, MACS .. "\x86\xdd"),
    ["links.pcapng"] = pcapng(LINKS),
  }
end

if arg and arg[0]:find("make_captures%.lua$") then
  for name, bytes in pairs(make_captures.all()) do
    local file = assert(io.open(arg[1] .. "/" .. name, "wb"))
    file:write(bytes)
    file:close()
  end
end

return make_captures
