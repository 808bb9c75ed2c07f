-- modify and edits in place: what leaves is complete and correct, held against an independent checksum.

local nfqueue = require("nfqueue")
require("nfqueue.busted")
local checksum = require("support.checksum")
local datagram = require("support.datagram")

local right = datagram.right
local tcp, udp, icmp, icmp6, raw = datagram.tcp, datagram.udp, datagram.icmp, datagram.icmp6, datagram.raw

-- IPv6 extension headers, without their first byte.
local HOP = { 0, "\0\5\2\0\0\1\0" }
local DESTINATION = { 60, "\1" .. "\1\12" .. ("\0"):rep(12) }
local AH = { 51, "\4\0\0" .. ("\7"):rep(20) } -- 24 bytes: (4 + 2) * 4
local WHOLE_FRAGMENT = { 44, "\0\0\0\0\0\0\1" } -- RFC 6946: an atomic fragment
local OTHER6 = ("\x20\x03"):rep(8)
local FINAL6 = datagram.FINAL6

-- A routing header: length in units of 8, type, segments left, reserved or flags, addresses.
local function routing(kind, left, ...)
  local addresses = table.concat({ ... })
  return { 43, string.pack(">BBBI4", #addresses // 8, kind, left, 0) .. addresses }
end

local ROUTES = { -- name, header, the address that the checksum is over
  { "type 0 on its way", routing(0, 2, OTHER6, FINAL6), FINAL6 },
  { "type 0 at its end", routing(0, 0, OTHER6, FINAL6) },
  { "type 2 on its way", routing(2, 1, FINAL6), FINAL6 },
  { "type 2 at its end", routing(2, 0, FINAL6) },
  { "segments on their way", routing(4, 1, FINAL6, OTHER6), FINAL6 },
  { "segments at their end", routing(4, 0, FINAL6, OTHER6) },
  { "unknown type", routing(253, 1, FINAL6) },
}

local CASES = {}
local function case(name, build, transport, changes)
  CASES[#CASES + 1] = { name = name, build = build, transport = transport, changes = changes }
end

for _, size in ipairs({ 0, 1, 2, 3, 15, 16, 17, 1000, 1399 }) do
  local payload = ("\xa5\x17\x00\xff"):rep(size // 4 + 1):sub(1, size)
  for name, transport in pairs({
    TCP = tcp(payload), ["TCP with options"] = tcp(payload, "\2\4\5\xb4"), UDP = udp(payload),
  }) do
    case(("IPv4 %s, %d bytes"):format(name, size), datagram.ip4, transport)
    case(("IPv6 %s, %d bytes"):format(name, size), datagram.ip6, transport)
  end
  case(("IPv4 ICMP, %d bytes"):format(size), datagram.ip4, icmp(payload))
  case(("IPv6 ICMPv6, %d bytes"):format(size), datagram.ip6, icmp6(payload))
end
for _, size in ipairs({ 4, 40 }) do
  case(("IPv4 options of %d bytes"):format(size), datagram.ip4, tcp("odd"), { options = ("\1"):rep(size) })
end
case("IPv4 with 65531 bytes", datagram.ip4, udp(("\xff\xfe"):rep(32751) .. "x"))
case("IPv6 with 65531 bytes", datagram.ip6, udp(("\xff\xfe"):rep(32741) .. "x"))
case("IPv4 with a transport of its own", datagram.ip4, raw(47, "\0\0\8\0abc"))
case("IPv4 without a transport", datagram.ip4, raw(59, ""))
case("IPv4 carrying ICMPv6", datagram.ip4, raw(58, "\128\0\1\2abcd"))
case("IPv6 carrying ICMP", datagram.ip6, raw(1, "\8\0\1\2abcd"))
case("IPv4 authentication header and TCP", datagram.ip4, tcp("odd"), { ah = true })
case("IPv4, DF", datagram.ip4, udp("odd"), { fragment = 0x4000 })
case("IPv4, first fragment", datagram.ip4, raw(17, "\1\2\3\4\0\8\5\6abcdefgh"), { fragment = 0x2000 })
case("IPv4, later fragment", datagram.ip4, raw(6, "abcd"), { fragment = 0x0003 })
case("IPv6 hop-by-hop", datagram.ip6, tcp("odd"), { chain = { HOP } })
case("IPv6 all extension headers", datagram.ip6, udp("odd"), { chain = { HOP, DESTINATION, WHOLE_FRAGMENT, AH } })
case("IPv6 AH and ICMPv6", datagram.ip6, icmp6("odd"), { chain = { AH } })
case("IPv6 first fragment", datagram.ip6, raw(17, "\1\2\3\4\0\8\5\6ab"), { chain = { { 44, "\0\0\1\0\0\0\1" } } })
case("IPv6 later fragment", datagram.ip6, raw(17, "abcd"), { chain = { { 44, "\0\0\8\0\0\0\1" } } })
case("IPv6 fragment headers, the first with more to come", datagram.ip6, raw(17, "\1\2\3\4\0\8\5\6ab"),
  { chain = { { 44, "\0\0\1\0\0\0\1" }, { 44, "\0\0\0\0\0\0\1" } } })
-- The home address of a mobile node stands for the source: RFC 6275 section 11.3.1.
local HOME = { 60, "\2\1\2\0\0\201\16" .. datagram.FINAL6 }
case("IPv6 home address", datagram.ip6, tcp("odd"), { chain = { HOME }, origin = datagram.FINAL6 })
case("IPv6 home address of another length", datagram.ip6, tcp("odd"),
  { chain = { { 60, "\2\1\2\0\0\201\15" .. datagram.FINAL6 } } })
case("IPv6 home address that reaches beyond its header", datagram.ip6, tcp("odd"),
  { chain = { { 60, "\1\1\2\0\0\201\16" .. datagram.FINAL6:sub(1, 8) } } })
-- IPv4 source routes: the pointer counts from 1, and behind the length it says that the last stop is reached.
local STOPS = "\192\0\2\9\198\51\100\9"
for name, kind in pairs({ loose = "\131", strict = "\137" }) do
  case(("IPv4 %s source route, on its way"):format(name), datagram.ip4, udp("odd"),
    { options = "\1" .. kind .. "\11\8" .. STOPS, final = STOPS:sub(5) })
  case(("IPv4 %s source route, at its end"):format(name), datagram.ip4, udp("odd"),
    { options = "\1" .. kind .. "\11\12" .. STOPS })
end
case("IPv4 recorded route", datagram.ip4, udp("odd"), { options = "\1\7\11\8" .. STOPS })
case("IPv4 source route behind the end of the options", datagram.ip4, udp("odd"),
  { options = "\0\131\11\8" .. STOPS })
case("IPv6 mobility header", datagram.ip6, raw(135, "\59\0\1\0\0\0\0\0"), { chain = { HOP } })
case("IPv6 ESP", datagram.ip6, raw(50, "opaque"), { chain = { HOP } })
for _, route in ipairs(ROUTES) do
  for name, transport in pairs({ TCP = tcp("odd"), UDP = udp("even"), ICMPv6 = icmp6("odd") }) do
    case(("IPv6 routing header, %s, %s"):format(route[1], name), datagram.ip6, transport,
      { chain = { HOP, route[2], DESTINATION }, final = route[3] })
  end
end

describe("packet:modify", function()
  for _, it_is in ipairs(CASES) do
    it("completes " .. it_is.name, function()
      local wrong, correct = it_is.build(it_is.transport, it_is.changes)
      local pkt = assert.modifies(function(pkt) pkt:modify(wrong) end, correct, correct)
      assert.are.equal(correct, pkt.sent)
      assert.are.equal(correct, pkt:bytes())
      assert.are.same({ "modify", #correct }, { pkt.verdict, #pkt })
    end)
  end

  it("leaves the padding of the link layer out", function()
    for _, transport in ipairs({ udp("odd"), tcp("odd"), icmp6("odd") }) do
      local build = transport.protocol == 58 and datagram.ip6 or datagram.ip4
      local _, correct = build(transport)
      local pkt = nfqueue.packet(correct .. ("\0"):rep(7))
      pkt:modify(pkt:bytes())
      assert.are.equal(correct, pkt.sent)
    end
  end)

  it("sends a UDP checksum of 0 as 0xffff", function()
    for _, family in ipairs({ { datagram.ip4, 20 }, { datagram.ip6, 40 } }) do
      local build, start = table.unpack(family)
      local sum = string.unpack(">I2", right(build(udp("\0\0"))), start + 7)
      local transport = udp(string.pack(">I2", sum)) -- its own complement: now the sum is 0
      local wrong, correct = build(transport)
      assert.are.equal(0xffff, (string.unpack(">I2", correct, start + 7)))
      local pkt = nfqueue.packet(correct)
      pkt:modify(wrong)
      assert.are.equal(0xffff, pkt:u16(start + 6))
    end
  end)

  it("lets what is no TCP grow and shrink", function()
    for _, family in ipairs({ { datagram.ip4, udp }, { datagram.ip4, icmp }, { datagram.ip6, udp },
      { datagram.ip6, icmp6 } }) do
      local build, transport = table.unpack(family)
      for _, payload in ipairs({ "", "x", ("long"):rep(5000) }) do
        local pkt = nfqueue.packet(right(build(transport("question"))))
        local wrong, correct = build(transport(payload))
        pkt:modify(wrong)
        assert.are.equal(correct, pkt.sent)
        assert.are.same({ #correct, #correct }, { #pkt, pkt.length })
      end
    end
  end)

  it("lets TCP change its options while its payload keeps its length", function()
    local pkt = nfqueue.packet(right(datagram.ip4(tcp("four"))))
    local wrong, correct = datagram.ip4(tcp("FIVE", "\1\1\1\0"))
    pkt:modify(wrong)
    assert.are.equal(correct, pkt.sent)
  end)

  it("counts no padding of the link layer as payload", function()
    local pkt = nfqueue.packet(right(datagram.ip4(tcp("four"))) .. "\0\0")
    local wrong, correct = datagram.ip4(tcp("FIVE"))
    pkt:modify(wrong)
    assert.are.equal(correct, pkt.sent)
  end)

  it("sends everything as it is with fixup=false", function()
    for _, bytes in ipairs({ datagram.ip4(tcp("other length")), "x", "\x4f", "\x60", ("\xff"):rep(65531) }) do
      local pkt = nfqueue.packet(right(datagram.ip4(tcp("payload"))))
      pkt:modify(bytes, { fixup = false })
      assert.are.equal(bytes, pkt.sent)
    end
  end)

  it("takes any bytes for a packet that is not IP", function()
    local pkt = nfqueue.packet("\0\1\8\0", { family = "arp" })
    pkt:modify("\0\1\8\0\6\4")
    assert.are.equal("\0\1\8\0\6\4", pkt.sent)
  end)
end)

describe("an edit in place", function()
  local PAYLOAD, EDITED = "question", "answered"
  local EDITS = {
    { "IPv4 UDP", datagram.ip4, udp }, { "IPv4 TCP", datagram.ip4, tcp }, { "IPv4 ICMP", datagram.ip4, icmp },
    { "IPv6 UDP", datagram.ip6, udp }, { "IPv6 TCP", datagram.ip6, tcp }, { "IPv6 ICMPv6", datagram.ip6, icmp6 },
  }
  for _, edit in ipairs(EDITS) do
    local name, build, transport = table.unpack(edit)
    local before, after = right(build(transport(PAYLOAD))), right(build(transport(EDITED)))
    local at = before:find(PAYLOAD, 1, true) - 1

    it(name .. " is completed whichever way the packet leaves", function()
      for _, verb in ipairs({ { "accept" }, { "again" }, { "requeue", 3 }, { "accept", { mark = 1 } } }) do
        local pkt = nfqueue.packet(before)
        pkt:patch(at, EDITED)
        assert.are.equal(before:sub(1, at) .. EDITED, pkt:bytes())
        pkt[verb[1]](pkt, verb[2])
        assert.are.equal(after, pkt.sent)
      end
    end)

    it(name .. " is completed when the handler decides nothing", function()
      assert.modifies(function(pkt) pkt:patch(at, EDITED) end, before, after)
    end)

    it(name .. " is not carried by drop, and is left verbatim by fixup=false", function()
      local pkt = nfqueue.packet(before)
      pkt:patch(at, EDITED)
      pkt:drop()
      assert.is_nil(pkt.sent)
      pkt = nfqueue.packet(before)
      pkt:patch(at, EDITED)
      pkt:accept({ fixup = false })
      assert.are.equal(before:sub(1, at) .. EDITED, pkt.sent)
    end)
  end

  it("of header fields is completed, by each writer", function()
    local _, expected = datagram.ip4(udp("question"), { ttl = 1 })
    local pkt = nfqueue.packet(right(datagram.ip4(udp("question"))))
    pkt:u8(8, 1)
    pkt:accept()
    assert.are.equal(expected, pkt.sent)
    local moved = right(datagram.ip4(udp("question"))):gsub("^(" .. ("."):rep(12) .. ")....", "%1\10\0\0\1")
    local pseudo = checksum.pseudo4("\10\0\0\1", datagram.TARGET4)(17, 16)
    pkt = nfqueue.packet(right(datagram.ip4(udp("question"))))
    pkt:u32(12, 0x0a000001)
    pkt:u16(28, 0x5155)
    pkt:u24(30, 0x455354)
    pkt:accept()
    local sent = pkt.sent
    assert.are.equal(0, checksum.of(sent:sub(1, 20)))
    assert.are.equal(0, checksum.of(pseudo .. sent:sub(21)))
    assert.are.equal(moved:sub(13, 20) .. "QUEST", sent:sub(13, 20) .. sent:sub(29, 33))
  end)

  it("leaves the padding of the link layer behind", function()
    local _, expected = datagram.ip4(udp("question"), { ttl = 1 })
    local pkt = nfqueue.packet(right(datagram.ip4(udp("question"))) .. ("\0"):rep(10))
    pkt:u8(8, 1)
    pkt:u16(2, 9999)
    pkt:accept()
    assert.are.equal(expected, pkt.sent)
  end)

  it("of the IPv4 header of a fragment is completed", function()
    local transport, changes = raw(17, "abcdefgh"), { fragment = 0x2003, ttl = 9 }
    local _, expected = datagram.ip4(transport, changes)
    local pkt = nfqueue.packet(right(datagram.ip4(transport, { fragment = 0x2003 })))
    pkt:u8(8, 9)
    pkt:accept()
    assert.are.equal(expected, pkt.sent)
  end)

  it("that puts back the same bytes is correct too, and an unedited packet is left alone", function()
    local wrong, correct = datagram.ip4(udp("question"))
    local pkt = nfqueue.packet(wrong)
    pkt:accept()
    assert.are.equal(wrong, pkt.sent)
    pkt = nfqueue.packet(correct)
    pkt:patch(0, correct)
    pkt:accept()
    assert.are.equal(correct, pkt.sent)
  end)
end)
