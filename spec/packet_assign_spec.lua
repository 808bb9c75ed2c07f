-- Fields assigned: one assignment each, and what leaves is a correct packet, held against an independent checksum.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local right = datagram.right
local ip4, ip6 = datagram.ip4, datagram.ip6
local tcp, udp, icmp, icmp6, raw = datagram.tcp, datagram.udp, datagram.icmp, datagram.icmp6, datagram.raw
local HOP = { chain = { { 0, "\0\5\2\0\0\1\0" } } }

-- Bytes with those at a 0-based offset replaced.
local function with(bytes, offset, replacement)
  return bytes:sub(1, offset) .. replacement .. bytes:sub(offset + #replacement + 1)
end

-- The same bytes with lengths and checksums completed, by modify: packet_edit_spec holds that against its own sums.
local function completed(bytes)
  local pkt = nfqueue.packet(bytes)
  pkt:modify(bytes)
  return pkt.sent
end

local TCP4, TCP6 = right(ip4(tcp("payload"))), right(ip6(tcp("payload"), HOP))
local UDP4, UDP6 = right(ip4(udp("payload"))), right(ip6(udp("payload"), HOP))
local ICMP4, ICMP6 = right(ip4(icmp("payload"))), right(ip6(icmp6("payload"), HOP))

-- name, packet, header, field, value, offset of the bytes it is, these bytes
local ASSIGNMENTS = {
  { "IPv4 source", UDP4, "ip", "src", "203.0.113.9", 12, "\203\0\113\9" },
  { "IPv4 destination", TCP4, "ip4", "dst", "203.0.113.9", 16, "\203\0\113\9" },
  { "IPv4 source as bytes", TCP4, "ip", "src_bytes", "\203\0\113\9", 12, "\203\0\113\9" },
  { "IPv4 destination as bytes", TCP4, "ip", "dst_bytes", "\203\0\113\9", 16, "\203\0\113\9" },
  { "IPv4 TTL", TCP4, "ip", "ttl", 1, 8, "\1" },
  { "IPv4 TOS", TCP4, "ip", "tos", 0xb8, 1, "\xb8" },
  { "IPv4 identification", TCP4, "ip", "id", 0xbeef, 4, "\xbe\xef" },
  { "IPv6 source", UDP6, "ip", "src", "2001:db8::9", 8, datagram.SOURCE6:sub(1, 15) .. "\9" },
  { "IPv6 destination", TCP6, "ip6", "dst", "2001:db8::9", 24, datagram.SOURCE6:sub(1, 15) .. "\9" },
  { "IPv6 source as bytes", ICMP6, "ip", "src_bytes", datagram.FINAL6, 8, datagram.FINAL6 },
  { "IPv6 destination as bytes", TCP6, "ip", "dst_bytes", datagram.FINAL6, 24, datagram.FINAL6 },
  { "IPv6 hop limit", TCP6, "ip", "ttl", 255, 7, "\255" },
  { "IPv6 traffic class", TCP6, "ip", "tos", 0xb8, 0, "\x6b\x80" },
  { "UDP source port", UDP4, "udp", "sport", 1, 20, "\0\1" },
  { "UDP destination port, IPv6", UDP6, "udp", "dport", 65535, 50, "\xff\xff" },
  { "TCP source port", TCP4, "tcp", "sport", 1, 20, "\0\1" },
  { "TCP destination port, IPv6", TCP6, "tcp", "dport", 8080, 50, "\x1f\x90" },
  { "TCP sequence number", TCP4, "tcp", "seq", 0xfffffffe, 24, "\xff\xff\xff\xfe" },
  { "TCP acknowledgement number", TCP6, "tcp", "ack_seq", 0x80000001, 56, "\x80\0\0\1" },
  { "TCP flags", TCP4, "tcp", "flags", "CEUAPRSF", 33, "\xff" },
  { "no TCP flags", TCP4, "tcp", "flags", "", 33, "\0" },
  { "TCP FIN set", TCP4, "tcp", "fin", true, 33, "\x19" },
  { "TCP PSH cleared", TCP4, "tcp", "psh", false, 33, "\x10" },
  { "TCP CWR set, IPv6", TCP6, "tcp", "cwr", true, 61, "\x98" },
  { "TCP window", TCP4, "tcp", "window", 0, 34, "\0\0" },
  { "TCP urgent pointer", TCP6, "tcp", "urg_ptr", 7, 66, "\0\7" },
  { "ICMP type", ICMP4, "icmp", "type", 13, 20, "\13" },
  { "ICMP code", ICMP4, "icmp", "code", 2, 21, "\2" },
  { "ICMP identifier", ICMP4, "icmp", "id", 0xffff, 24, "\xff\xff" },
  { "ICMPv6 sequence number", ICMP6, "icmp", "seq", 77, 54, "\0\77" },
  { "ICMPv6 type", ICMP6, "icmp", "type", 1, 48, "\1" },
}

describe("a field assigned", function()
  for _, it_is in ipairs(ASSIGNMENTS) do
    local name, bytes, header, field, value, offset, written = table.unpack(it_is)
    it("is sent right: " .. name, function()
      local pkt = nfqueue.packet(bytes)
      local before = pkt.tuple
      pkt[header][field] = value
      local reads = field == "flags" and value:reverse() or value -- in the order of their bits
      assert.are.equal(reads, pkt[header][field])
      assert.are.equal(written, pkt:bytes(offset, #written))
      assert.are.equal(before, pkt.tuple)
      pkt:accept()
      assert.are.equal(completed(with(bytes, offset, written)), pkt.sent)
      assert.are_not.equal(bytes, pkt.sent)
    end)

    it("is refused after the verdict: " .. name, function()
      local pkt = nfqueue.packet(bytes)
      local held = pkt[header]
      pkt:accept()
      assert.are.equal("packet already has a verdict", unit.message(function() held[field] = value end))
      assert.are.equal(bytes, pkt.sent)
    end)
  end

  it("and another are sent right together", function()
    local pkt = nfqueue.packet(TCP6)
    local segment = pkt.tcp
    segment.seq, segment.ack_seq, segment.rst, pkt.ip.dst = 1, 2, true, "::1"
    pkt:u16(segment.offset, 99)
    pkt:accept()
    local expected = with(with(TCP6, 24, ("\0"):rep(15) .. "\1"), 48, "\0\99")
    expected = with(with(expected, 52, "\0\0\0\1\0\0\0\2"), 61, "\x1c")
    assert.are.equal(completed(expected), pkt.sent)
  end)

  it("goes as it is with fixup = false", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.udp.dport = 5353
    pkt:accept({ fixup = false })
    assert.are.equal(with(UDP4, 22, "\x14\xe9"), pkt.sent)
  end)

  local READ_ONLY = { -- header, field, why
    { TCP4, "ip", "version", "it decides the layout of the packet" },
    { TCP4, "ip", "length", "it decides the layout of the packet" },
    { TCP4, "ip", "protocol", "it decides the layout of the packet" },
    { TCP4, "ip", "df", "it decides the layout of the packet" },
    { TCP4, "ip", "mf", "it decides the layout of the packet" },
    { TCP4, "ip", "frag_offset", "it decides the layout of the packet" },
    { TCP4, "ip", "offset", "it is where the header begins" },
    { TCP6, "ip", "checksum", "IPv6 has none" },
    { TCP6, "ip", "id", "of IPv6 it is in the fragment header, and extension headers must stay" },
    { TCP4, "tcp", "offset", "it is where the header begins" },
    { TCP4, "tcp", "option", "it is a method" },
    { TCP4, "tcp", "set_option", "it is a method" },
    { UDP4, "udp", "length", "it is completed when the packet leaves" },
    { UDP4, "udp", "offset", "it is where the header begins" },
    { ICMP4, "icmp", "offset", "it is where the header begins" },
    { ip4 and right(ip4(raw(1, "\8\0\0\0"))), "icmp", "id", "the message of 4 bytes has none" },
  }
  for _, case in ipairs(READ_ONLY) do
    local bytes, header, field, why = table.unpack(case)
    it(("is refused: %s.%s"):format(header, field), function()
      local pkt = nfqueue.packet(bytes)
      assert.are.equal(("%s field '%s' is read-only: %s"):format(header, field, why),
        unit.message(function() pkt[header][field] = 1 end))
      assert.are.equal(bytes, pkt:bytes())
    end)
  end

  local WRONG = { -- header, field, value, what is expected, what it got
    { UDP4, "udp", "dport", 65536, "integer from 0 to 65535", "65536" },
    { UDP4, "udp", "dport", -1, "integer from 0 to 65535", "-1" },
    { UDP4, "udp", "sport", "53", "integer from 0 to 65535", "'53'" },
    { UDP4, "udp", "checksum", 1.5, "integer from 0 to 65535", "1.5" },
    { TCP4, "tcp", "seq", 1 << 32, "integer from 0 to 4294967295", "4294967296" },
    { TCP4, "tcp", "flags", "SX", "letters of FSRPAUEC", "'SX'" },
    { TCP4, "tcp", "flags", "S\0bogus", "letters of FSRPAUEC", "'S'" }, -- printed up to the zero
    { TCP4, "tcp", "flags", 2, "string", "2" },
    { TCP4, "tcp", "syn", 1, "boolean", "1" },
    { TCP4, "tcp", "mss", 65536, "integer from 0 to 65535", "65536" },
    { TCP4, "ip", "ttl", 256, "integer from 0 to 255", "256" },
    { TCP4, "ip", "src", "192.0.2", "IPv4 address like '192.0.2.1'", "'192.0.2'" },
    { TCP4, "ip", "src", "::1", "IPv4 address like '192.0.2.1'", "'::1'" },
    { TCP4, "ip", "dst", "10.0.0.1\0", "IPv4 address like '192.0.2.1'", "'10.0.0.1'" },
    { TCP6, "ip", "dst", "192.0.2.1", "IPv6 address like '2001:db8::1'", "'192.0.2.1'" },
    { TCP6, "ip", "dst_bytes", "abcd", "16 bytes of an IPv6 address", "'abcd'" },
    { TCP4, "ip", "src_bytes", "abc", "4 bytes of an IPv4 address", "'abc'" },
    { ICMP4, "icmp", "type", 256, "integer from 0 to 255", "256" },
  }
  for _, case in ipairs(WRONG) do
    local bytes, header, field, value, expected, got = table.unpack(case)
    it(("is refused: %s.%s = %s"):format(header, field, (tostring(value):gsub("%c", "?"))), function()
      local pkt = nfqueue.packet(bytes)
      assert.are.equal(("bad argument '%s' to '%s' (%s expected, got %s)"):format(field, header, expected, got),
        unit.message(function() pkt[header][field] = value end))
      assert.are.equal(bytes, pkt:bytes())
    end)
  end

  it("is refused where no field has the name", function()
    assert.are.equal("icmp has no field 'tpye' (did you mean 'type'?)",
      unit.message(function() nfqueue.packet(ICMP4).icmp.tpye = 1 end))
  end)

  it("is refused in a truncated packet", function()
    local pkt = nfqueue.packet(TCP4, { length = 1500 })
    assert.are.equal("cannot edit this packet: the kernel copied only part of it (raise copy_range)",
      unit.message(function() pkt.tcp.dport = 1 end))
    assert.are.equal("cannot edit this packet: the kernel copied only part of it (raise copy_range)",
      unit.message(function() pkt.payload = "x" end))
    assert.are.equal("cannot edit this packet: the kernel copied only part of it (raise copy_range)",
      unit.message(function() pkt.tcp.mss = 1400 end))
  end)
end)

describe("a checksum assigned", function()
  local CASES = { -- name, packet, header, its offset
    { "IPv4", UDP4, "ip", 10 }, { "UDP", UDP4, "udp", 26 }, { "UDP over IPv6", UDP6, "udp", 54 },
    { "TCP", TCP4, "tcp", 36 }, { "TCP over IPv6", TCP6, "tcp", 64 }, { "ICMP", ICMP4, "icmp", 22 },
    { "ICMPv6", ICMP6, "icmp", 50 },
  }
  for _, case in ipairs(CASES) do
    local name, bytes, header, offset = table.unpack(case)
    it("is sent as assigned, all else completed: " .. name, function()
      local pkt = nfqueue.packet(bytes)
      pkt[header].checksum = 0x1234
      pkt.ip.ttl = 9
      assert.are.equal(0x1234, pkt[header].checksum)
      pkt:accept()
      local ttl_at = pkt.ip.version == 4 and 8 or 7
      assert.are.equal(with(completed(with(bytes, ttl_at, "\9")), offset, "\x12\x34"), pkt.sent)
    end)
  end

  it("may be 0, also in UDP", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.udp.checksum = 0
    pkt:accept()
    assert.are.equal(with(UDP4, 26, "\0\0"), pkt.sent)
  end)

  it("stays when the payload gets another length, and not when all is replaced", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.udp.checksum = 0x1234
    pkt.payload = "much longer than it was"
    pkt:accept()
    assert.are.equal(with(right(ip4(udp("much longer than it was"))), 26, "\x12\x34"), pkt.sent)
    pkt = nfqueue.packet(UDP4)
    pkt.udp.checksum = 0x1234
    pkt:modify(UDP4)
    assert.are.equal(UDP4, pkt.sent)
  end)

  it("stays beside one that is not", function()
    local pkt = nfqueue.packet(TCP4)
    pkt.ip.checksum = 0xdead
    pkt.tcp.dport = 81
    pkt:accept()
    assert.are.equal(with(completed(with(TCP4, 22, "\0\81")), 10, "\xde\xad"), pkt.sent)
  end)
end)

describe("pkt.payload assigned", function()
  local SIZES = { 0, 1, 6, 7, 8, 1400, 65000 }
  local KINDS = {
    { "UDP", ip4, udp }, { "ICMP", ip4, icmp }, { "UDP over IPv6", ip6, udp }, { "ICMPv6", ip6, icmp6 },
    { "UDP behind IPv4 options", ip4, udp, { options = "\7\3\4\0" } },
    { "UDP behind IPv6 options", ip6, udp, HOP }, { "ICMPv6 behind IPv6 options", ip6, icmp6, HOP },
    { "another protocol", ip4, function(payload) return raw(47, payload) end },
    { "another protocol over IPv6", ip6, function(payload) return raw(59, payload) end },
  }
  for _, kind in ipairs(KINDS) do
    local name, build, transport, changes = table.unpack(kind)
    for _, size in ipairs(SIZES) do
      it(("of %d bytes for 7 is sent right: %s"):format(size, name), function()
        local payload = ("\xa5\x17\x00\xff"):rep(size // 4 + 1):sub(1, size)
        local pkt = nfqueue.packet(right(build(transport("payload"), changes)))
        pkt.payload = payload
        local expected = right(build(transport(payload), changes))
        assert.are.equal(payload, pkt.payload)
        assert.are.same({ #expected, #expected }, { #pkt, pkt.ip.length })
        pkt:accept()
        assert.are.equal(expected, pkt.sent)
      end)
    end
  end

  it("may be assigned again, and headers beside it", function()
    local pkt = nfqueue.packet(UDP4)
    local header = pkt.udp
    pkt.payload = ("x"):rep(3000)
    header.dport = 5353
    pkt.payload = ""
    pkt.payload = "the last"
    pkt.ip.ttl = 3
    assert.are.same({ 5353, 16, "the last" }, { header.dport, header.length, pkt.payload })
    pkt:accept()
    assert.are.equal(completed(with(with(right(ip4(udp("the last"))), 22, "\x14\xe9"), 8, "\3")), pkt.sent)
  end)

  it("of the same length is an edit in place, for TCP too", function()
    for _, bytes in ipairs({ TCP4, TCP6 }) do
      local pkt = nfqueue.packet(bytes)
      pkt.payload = "changed"
      pkt:accept()
      assert.are.equal(completed(with(bytes, #bytes - 7, "changed")), pkt.sent)
    end
  end)

  it("leaves the padding of the link layer out", function()
    local pkt = nfqueue.packet(UDP4 .. ("\0"):rep(9))
    pkt.payload = "shorter"
    assert.are.equal("shorter", pkt.payload)
    pkt.payload = "a longer one"
    assert.are.equal("a longer one", pkt.payload)
    pkt:accept()
    assert.are.equal(right(ip4(udp("a longer one"))), pkt.sent)
  end)

  it("of bytes that are no IP replaces all", function()
    local pkt = nfqueue.packet(("\xff"):rep(30))
    pkt.payload = "frame"
    pkt:accept()
    assert.are.equal("frame", pkt.sent)
  end)

  local LENGTH = "a TCP payload of another length breaks the sequence numbers of the connection "
    .. "(see nfqueue.rewrite)"
  local FIRST = right(ip4(raw(17, "\1\2\3\4\0\8\5\6abcdefgh"), { fragment = 0x2000 }))
  local LATER = right(ip4(raw(17, "abcdefgh"), { fragment = 0x2003 }))
  local REFUSED = { -- name, packet, payload, reason
    { "TCP, longer", TCP4, "longer than it was", LENGTH }, { "TCP, shorter", TCP6, "x", LENGTH },
    { "TCP, empty", TCP4, "", LENGTH },
    { "a first fragment", FIRST, "x", "it is a fragment: its length decides where the others go" },
    { "a later fragment", LATER, "x", "it is a fragment: its length decides where the others go" },
    { "a later fragment, same length", LATER, "ABCDEFGH",
      "it is a later fragment: the checksum over it lies in the first" },
    { "more than fits", UDP4, ("x"):rep(65504), "the new content is longer than 65531 bytes" },
    { "nothing left", ("\xff"):rep(30), "", "the new content is empty" },
    { "a header cut short", right(ip4(raw(17, "abcd"))), "longer", "its UDP header is cut short" },
    { "IPv4 options beyond the end", with(UDP4, 0, "\x4f"), "x", "its headers reach beyond its end" },
  }
  for _, case in ipairs(REFUSED) do
    local name, bytes, payload, reason = table.unpack(case)
    it("is refused: " .. name, function()
      local pkt = nfqueue.packet(bytes)
      assert.are.equal("cannot edit this packet: " .. reason, unit.message(function() pkt.payload = payload end))
      assert.are.equal(bytes, pkt:bytes())
      pkt:accept()
      assert.are.equal(bytes, pkt.sent)
    end)
  end

  it("is refused for what is no string", function()
    for _, value in ipairs({ 7, true, {} }) do
      assert.matches("^bad argument 'payload' to 'packet' %(string expected, got ",
        unit.message(function() nfqueue.packet(UDP4).payload = value end))
    end
    assert.are.equal("bad argument 'payload' to 'packet' (string expected, got nothing)",
      unit.message(function() nfqueue.packet(UDP4).payload = nil end))
  end)

  it("that the handler's error takes back leaves the kernel's own copy", function()
    local path = unit.file([[return function(pkt) pkt.payload = ("x"):rep(2000); error("after it") end]])
    local handler = assert(nfqueue.load(path, nil, { on_error = "accept" }))
    local pkt = nfqueue.packet(UDP4)
    assert.are.equal("accept", (handler(pkt)))
    assert.are.equal(UDP4, pkt.sent)
    unit.cleanup()
  end)
end)

describe("tcp:set_option", function()
  local MSS, SCALE, SACK_OK, STAMPS = "\2\4\5\xb4", "\3\3\7", "\4\2", "\8\10abcdefgh"
  local function segment(options, payload)
    return right(ip4(tcp(payload or "payload", options .. ("\0"):rep(-#options % 4))))
  end

  local CASES = { -- name, options before, kind, value, options after
    { "adds the first", "", 2, "\5\xb4", MSS },
    { "adds behind the others", MSS .. SACK_OK .. SCALE, 8, "abcdefgh", MSS .. SACK_OK .. SCALE .. STAMPS },
    { "replaces in its place", MSS .. "\1" .. SCALE, 2, "\1\2", "\2\4\1\2\1" .. SCALE },
    { "replaces by a longer one", "\1\1" .. STAMPS .. SCALE, 8, "0123456789", "\1\1\8\12" .. "0123456789" .. SCALE },
    { "replaces by a shorter one", MSS .. STAMPS, 8, "", MSS .. "\8\2" },
    { "takes away", MSS .. "\1" .. SCALE, 2, nil, "\1" .. SCALE },
    { "takes away the last", MSS, 2, nil, "" },
    { "takes away what is not there", MSS, 8, nil, MSS },
    { "takes away every one of a kind", MSS .. MSS .. SACK_OK, 2, nil, SACK_OK },
    { "leaves out padding where room is short", "\1\1\1\1" .. STAMPS .. STAMPS, 254, ("x"):rep(18),
      STAMPS .. STAMPS .. "\xfe\20" .. ("x"):rep(18) },
    { "fills all 40 bytes", "", 254, ("x"):rep(38), "\xfe\40" .. ("x"):rep(38) },
    { "forgets what is behind the end of the list", SACK_OK .. "\0\0" .. MSS, 3, "\7", SACK_OK .. SCALE },
  }
  for _, case in ipairs(CASES) do
    local name, before, kind, value, after = table.unpack(case, 1, 5)
    it(name, function()
      local pkt = nfqueue.packet(segment(before))
      pkt.tcp:set_option(kind, value)
      assert.are.equal(value, pkt.tcp:option(kind))
      assert.are.equal("payload", pkt.payload)
      pkt:accept()
      assert.are.equal(segment(after), pkt.sent)
    end)
  end

  it("works over IPv6, and behind a payload that was assigned", function()
    local pkt = nfqueue.packet(right(ip6(tcp("payload"), HOP)))
    pkt.payload = "PAYLOAD"
    pkt.tcp:set_option(2, "\5\xb4")
    pkt.tcp.dport = 443
    pkt:accept()
    local expected = right(ip6(tcp("PAYLOAD", MSS), HOP))
    assert.are.equal(completed(with(expected, 50, "\1\xbb")), pkt.sent)
  end)

  it("is mss's way too", function()
    local pkt = nfqueue.packet(segment(MSS .. SACK_OK .. "\1\1", ""))
    pkt.tcp.mss = 1300
    assert.are.equal(1300, pkt.tcp.mss)
    pkt:accept()
    assert.are.equal(segment("\2\4\5\x14" .. SACK_OK .. "\1\1", ""), pkt.sent)
    pkt = nfqueue.packet(segment(SACK_OK .. "\1\1"))
    pkt.tcp.mss = 1460
    pkt:accept()
    assert.are.equal(segment(SACK_OK .. "\1\1" .. MSS), pkt.sent)
    pkt = nfqueue.packet(segment(MSS))
    pkt.tcp.mss = nil
    pkt:accept()
    assert.are.equal(segment(""), pkt.sent)
  end)

  it("is refused where it cannot come out right", function()
    local ROOM = "a TCP header has room for 40 bytes of options, and these would be more"
    for _, case in ipairs({
      { segment(STAMPS .. STAMPS .. STAMPS), 254, ("x"):rep(9), ROOM },
      { segment("\3\0\2\2"), 2, "\5\xb4", "its TCP options are malformed" },
      { right(ip4(raw(6, segment(""):sub(21)), { fragment = 0x2000 })), 2, "\5\xb4",
        "it is a fragment: its length decides where the others go" },
      { right(ip4(tcp(("x"):rep(65490)))), 2, "\5\xb4", "the new content is longer than 65531 bytes" },
    }) do
      local bytes, kind, value, reason = table.unpack(case)
      local pkt = nfqueue.packet(bytes)
      assert.are.equal("cannot edit this packet: " .. reason,
        unit.message(function() pkt.tcp:set_option(kind, value) end))
      assert.are.equal(bytes, pkt:bytes())
    end
  end)

  it("refuses wrong arguments, naming them", function()
    local header = nfqueue.packet(TCP4).tcp
    for message, call in pairs({
      ["bad argument 'kind' to 'set_option' (integer from 2 to 255 expected, got 1)"] = { 1, "" },
      ["bad argument 'kind' to 'set_option' (integer from 2 to 255 expected, got nothing)"] = {},
      ["bad argument 'value' to 'set_option' (string or nil expected, got nothing)"] = { 2 },
      ["bad argument 'value' to 'set_option' (string expected, got 1400)"] = { 2, 1400 },
      ["bad argument 'value' to 'set_option' (at most 38 bytes expected, got '" .. ("x"):rep(39) .. "')"] =
        { 2, ("x"):rep(39) },
    }) do
      assert.are.equal(message, unit.message(header.set_option, header, table.unpack(call)))
    end
    assert.matches("bad argument 'self' to 'set_option' (tcp header expected, got table)",
      unit.message(header.set_option, {}, 2, ""), 1, true)
  end)
end)

describe("pkt.tuple", function()
  it("names both ends", function()
    for expected, bytes in pairs({
      ["tcp 192.0.2.1:40000 > 198.51.100.2:80"] = TCP4, ["udp [2001:db8::1]:40000 > [2001:db8::2]:53"] = UDP6,
      ["icmp 192.0.2.1:1 > 198.51.100.2:1"] = ICMP4, ["icmp6 [2001:db8::1]:1 > [2001:db8::2]:1"] = ICMP6,
      ["icmp 192.0.2.1 > 198.51.100.2"] = right(ip4(raw(1, "\3\1\0\0\0\0\0\0"))),
      ["47 192.0.2.1 > 198.51.100.2"] = right(ip4(raw(47, "opaque"))),
      ["132 192.0.2.1:1 > 198.51.100.2:2"] = right(ip4(raw(132, "\0\1\0\2\0\0\0\0\0\0\0\0"))),
    }) do
      assert.are.equal(expected, nfqueue.packet(bytes).tuple)
    end
  end)

  it("is nil for what has none", function()
    for _, bytes in ipairs({ "", ("\xff"):rep(40), right(ip4(raw(17, "abcdefgh"), { fragment = 3 })),
      right(ip4(raw(17, "\1\2\3"))), with(UDP4, 0, "\x4f") }) do
      assert.is_nil(nfqueue.packet(bytes).tuple)
    end
  end)

  it("cannot be assigned", function()
    assert.are.equal("packet field 'tuple' is read-only",
      unit.message(function() nfqueue.packet(UDP4).tuple = "x" end))
  end)
end)

describe("SCTP's checksum", function()
  it("is completed as a CRC32c", function()
    -- An INIT of RFC 9260 section 3.3.2, its checksum by an independent implementation.
    local CRC = function(bytes)
      local crc = 0xffffffff
      for i = 1, #bytes do
        crc = crc ~ bytes:byte(i)
        for _ = 1, 8 do
          crc = crc & 1 == 1 and (crc >> 1 ~ 0x82f63b78) or crc >> 1
        end
      end
      return ~crc & 0xffffffff
    end
    assert.are.equal(0xe3069283, CRC("123456789")) -- the check value of CRC-32C
    local head, chunk = "\x80\1\0\7\0\0\0\1", "\1\0\0\20\0\0\0\9\0\1\0\0\0\10\0\10\0\0\0\3"
    local function packet(tag)
      local front = head:sub(1, 4) .. tag
      return right(ip4(raw(132, front .. string.pack("<I4", CRC(front .. "\0\0\0\0" .. chunk)) .. chunk)))
    end
    local pkt = nfqueue.packet(packet("\0\0\0\1"))
    pkt:u8(27, 2)
    pkt:accept()
    assert.are.equal(packet("\0\0\0\2"), pkt.sent)
  end)
end)
