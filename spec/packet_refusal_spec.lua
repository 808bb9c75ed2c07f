-- Edits that cannot come out right: each refused with its reason, and nothing changed by it.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local right = datagram.right
local tcp, udp, raw = datagram.tcp, datagram.udp, datagram.raw
local ip4, ip6 = datagram.ip4, datagram.ip6

local UDP4, TCP4 = right(ip4(udp("question"))), right(ip4(tcp("question")))
local UDP6, TCP6 = right(ip6(udp("question"))), right(ip6(tcp("question")))
local NOP, END = { options = "\1\1\1\1" }, { options = "\0\0\0\0" }
local FRAGMENT4 = right(ip4(raw(17, "abcdefgh"), { fragment = 0x2003 }))
local HOP, OTHER_HOP = { chain = { { 0, "\0\5\2\0\0\1\0" } } }, { chain = { { 0, "\0\5\2\0\1\1\0" } } }
local TWO = { chain = { { 0, "\0\5\2\0\0\1\0" }, { 60, "\0\1\4\0\0\0\0" } } }
local function fragment6(bits)
  return right(ip6(raw(17, "abcdefgh"), { chain = { { 44, "\0" .. bits .. "\0\0\0\1" } } }))
end

local VERSION = "the IP version must stay"
local HEADER_LENGTH = "the IPv4 header length must stay"
local FRAGMENT_BITS = "the IPv4 fragment bits must stay"
local OPTIONS = "the IPv4 options must stay"
local EXTENSIONS = "the IPv6 extension headers must stay"
local LATER = "it is a later fragment: the checksum over it lies in the first"
local FRAGMENT_LENGTH = "it is a fragment: its length decides where the others go"
local TCP_LENGTH = "a TCP payload of another length breaks the sequence numbers of the connection "
  .. "(see nfqueue.rewrite)"
local TCP_HEADER = "the TCP header length must stay: it decides the length of the payload"
local NOT_IP = "it is neither IPv4 nor IPv6, or shorter than its IP header"
local CUT = "its headers reach beyond its end"
local TRUNCATED = "the kernel copied only part of it (raise copy_range)"
local EMPTY, LONG = "the new content is empty", "the new content is longer than 65531 bytes"

-- Bytes with one at a 0-based offset replaced.
local function with(bytes, offset, replacement)
  return bytes:sub(1, offset) .. replacement .. bytes:sub(offset + #replacement + 1)
end

local REPLACEMENTS = { -- name, before, after, reason
  { "IPv4 to IPv6", UDP4, UDP6, VERSION },
  { "IPv6 to IPv4", UDP6, UDP4, VERSION },
  { "IPv4 options added", UDP4, right(ip4(udp("question"), NOP)), HEADER_LENGTH },
  { "IPv4 options removed", right(ip4(udp("question"), NOP)), UDP4, HEADER_LENGTH },
  { "IPv4 options changed", right(ip4(udp("question"), NOP)), right(ip4(udp("question"), END)), OPTIONS },
  { "DF set", UDP4, right(ip4(udp("question"), { fragment = 0x4000 })), FRAGMENT_BITS },
  { "DF cleared", right(ip4(udp("question"), { fragment = 0x4000 })), UDP4, FRAGMENT_BITS },
  { "MF set", UDP4, right(ip4(udp("question"), { fragment = 0x2000 })), FRAGMENT_BITS },
  { "the reserved bit set", UDP4, right(ip4(udp("question"), { fragment = 0x8000 })), FRAGMENT_BITS },
  { "IPv4 fragment offset changed", FRAGMENT4, with(FRAGMENT4, 7, "\4"), FRAGMENT_BITS },
  { "IPv4 fragment's payload changed", FRAGMENT4, with(FRAGMENT4, 27, "X"), LATER },
  { "IPv4 fragment's payload longer", FRAGMENT4, FRAGMENT4 .. "x", FRAGMENT_LENGTH },
  { "IPv6 extension header added", UDP6, right(ip6(udp("question"), HOP)), EXTENSIONS },
  { "IPv6 extension header removed", right(ip6(udp("question"), HOP)), UDP6, EXTENSIONS },
  { "IPv6 extension header behind another", right(ip6(udp("question"), HOP)), right(ip6(udp("question"), TWO)),
    EXTENSIONS },
  { "IPv6 extension header changed", right(ip6(udp("question"), HOP)), right(ip6(udp("question"), OTHER_HOP)),
    EXTENSIONS },
  { "hop-by-hop turned into destination options", right(ip6(udp("question"), HOP)),
    with(right(ip6(udp("question"), HOP)), 6, "\60"), EXTENSIONS },
  { "IPv6 transport changed", UDP6, TCP6, EXTENSIONS },
  { "IPv6 fragment offset changed", fragment6("\0\8"), fragment6("\0\16"), EXTENSIONS },
  { "IPv6 fragment's payload changed", fragment6("\0\9"), with(fragment6("\0\9"), 50, "X"), LATER },
  { "TCP payload longer", TCP4, right(ip4(tcp("question!"))), TCP_LENGTH },
  { "TCP payload shorter", TCP4, right(ip4(tcp(""))), TCP_LENGTH },
  { "TCP payload longer, IPv6", TCP6, right(ip6(tcp("question!"))), TCP_LENGTH },
  { "TCP payload turned into options", TCP4, with(TCP4, 32, "\x60"), TCP_LENGTH },
  { "bytes that are no IP", UDP4, "question", NOT_IP },
  { "IPv4 header cut short", UDP4, UDP4:sub(1, 19), NOT_IP },
  { "IPv6 header cut short", UDP6, UDP6:sub(1, 39), NOT_IP },
  { "IPv4 options cut short", UDP4, "\x4f" .. UDP4:sub(2, 28), CUT },
  { "IPv4 header length below 20", UDP4, "\x44" .. UDP4:sub(2), CUT },
  { "IPv6 extension header cut short", right(ip6(udp(""), HOP)), right(ip6(udp(""), HOP)):sub(1, 47), CUT },
  { "IPv6 extension header beyond the end", right(ip6(udp(""), HOP)), with(right(ip6(udp(""), HOP)), 41, "\9"), CUT },
  { "TCP header cut short", TCP4, TCP4:sub(1, 39), "its TCP header is cut short" },
  { "TCP data offset below 5", TCP4, with(TCP4, 32, "\x40"), "its TCP data offset points outside the packet" },
  { "TCP data offset beyond the end", TCP4, with(TCP4, 32, "\xf0"), "its TCP data offset points outside the packet" },
  { "UDP header cut short", UDP4, UDP4:sub(1, 27), "its UDP header is cut short" },
  { "ICMP header cut short", UDP4, right(ip4(raw(1, "\8\0\0"))), "its ICMP header is cut short" },
  { "ICMPv6 header cut short", right(ip6(raw(58, "\8\0\0\0"))), right(ip6(raw(58, "\8\0\0"))),
    "its ICMP header is cut short" },
}

-- The packet is as if nothing had happened: readable, undecided, and it can still leave.
local function assert_unchanged(pkt, bytes)
  assert.are.same({ #bytes, 77, 88 }, { #pkt, pkt.mark, pkt.priority })
  assert.are.equal(bytes, pkt:bytes())
  assert.is_nil(pkt.verdict)
  assert.is_nil(pkt.sent)
  pkt:accept()
  assert.are.same({ "accept", bytes }, { pkt.verdict, pkt.sent })
end

local function make(bytes, length)
  return nfqueue.packet(bytes, { mark = 77, priority = 88, length = length })
end

describe("packet:modify refuses", function()
  for _, case in ipairs(REPLACEMENTS) do
    local name, before, after, reason = table.unpack(case)
    it(name, function()
      local pkt = make(before)
      assert.are.equal("cannot edit this packet: " .. reason,
        unit.message(pkt.modify, pkt, after, { mark = 1, priority = 2 }))
      assert_unchanged(pkt, before)
    end)
  end

  it("sizes that no verdict holds, with and without fixup", function()
    for _, case in ipairs({ { "", EMPTY }, { UDP4 .. ("x"):rep(65532 - #UDP4), LONG },
      { UDP4 .. ("x"):rep(70000 - #UDP4), LONG } }) do
      for _, options in ipairs({ { fixup = true }, { fixup = false } }) do
        local pkt = make(UDP4)
        assert.are.equal("cannot edit this packet: " .. case[2], unit.message(pkt.modify, pkt, case[1], options))
        assert_unchanged(pkt, UDP4)
      end
    end
  end)

  it("truncated packets, with and without fixup", function()
    for _, bytes in ipairs({ "", UDP4:sub(1, 30) }) do
      for _, options in ipairs({ { fixup = true }, { fixup = false } }) do
        local pkt = make(bytes, #UDP4)
        assert.are.equal("cannot edit this packet: " .. TRUNCATED, unit.message(pkt.modify, pkt, UDP4, options))
        assert.is_nil(pkt.verdict)
        pkt:drop()
        assert.are.equal("drop", pkt.verdict)
      end
    end
  end)

  it("and earlier edits in place stay", function()
    local pkt = nfqueue.packet(UDP4)
    pkt:patch(28, "Q")
    assert.are.equal("cannot edit this packet: " .. EMPTY, unit.message(pkt.modify, pkt, ""))
    pkt:accept()
    assert.are.equal(right(ip4(udp("Question"))), pkt.sent)
  end)
end)

local PATCHES = { -- name, packet, offset, bytes, reason
  { "the IPv4 header length", UDP4, 0, "\x46", "the IPv4 version and header length must stay" },
  { "the IPv4 version", UDP4, 0, "\x65", "the IPv4 version and header length must stay" },
  { "DF", UDP4, 6, "\x40", FRAGMENT_BITS },
  { "the IPv4 fragment offset", UDP4, 7, "\1", FRAGMENT_BITS },
  { "IPv4 options", right(ip4(udp("question"), NOP)), 23, "\0", OPTIONS },
  { "a fragment's payload", FRAGMENT4, 27, "X", LATER },
  { "the IPv6 version", UDP6, 0, "\x40", "the IPv6 version must stay" },
  { "the first next-header number", UDP6, 6, "\6", EXTENSIONS },
  { "an IPv6 extension header", right(ip6(udp("question"), HOP)), 47, "\1", EXTENSIONS },
  { "an IPv6 fragment's payload", fragment6("\0\9"), 55, "X", LATER },
  { "the TCP data offset", TCP4, 32, "\x60", TCP_HEADER },
  { "the TCP data offset, IPv6", TCP6, 52, "\x60", TCP_HEADER },
  { "several things, one of them wrong", UDP4, 1, UDP4:sub(2, 6) .. "\x20" .. UDP4:sub(8), FRAGMENT_BITS },
}

describe("packet:patch refuses to change", function()
  for _, case in ipairs(PATCHES) do
    local name, bytes, offset, patch, reason = table.unpack(case)
    it(name, function()
      local pkt = make(bytes)
      assert.are.equal("cannot edit this packet: " .. reason, unit.message(pkt.patch, pkt, offset, patch))
      if #patch == 1 then
        assert.are.equal("cannot edit this packet: " .. reason, unit.message(pkt.u8, pkt, offset, patch:byte()))
      end
      assert_unchanged(pkt, bytes)
    end)
  end

  it("what would not be there to complete", function()
    local cut = UDP4:sub(1, 24) -- a UDP header of 4 bytes, as on the wire
    local pkt = make(cut)
    pkt:u8(8, 1)
    assert.are.equal("cannot edit this packet: its UDP header is cut short", unit.message(pkt.accept, pkt))
    assert.are.equal("cannot edit this packet: its UDP header is cut short",
      unit.message(pkt.requeue, pkt, 1, { mark = 1 }))
    assert.are.same({ 77, 88 }, { pkt.mark, pkt.priority })
    assert.is_nil(pkt.verdict)
    pkt:accept({ fixup = false })
    assert.are.equal(with(cut, 8, "\1"), pkt.sent)
  end)

  it("but takes bytes that stay as they are", function()
    for _, bytes in ipairs({ UDP4, UDP6, FRAGMENT4, right(ip4(udp("question"), NOP)), right(ip6(tcp("x"), TWO)) }) do
      local pkt = make(bytes)
      pkt:patch(0, bytes)
      pkt:accept()
      assert.are.equal(bytes, pkt.sent)
    end
  end)

  it("but takes an IPv6 traffic class", function()
    local pkt = make(UDP6)
    pkt:u8(0, 0x6f)
    pkt:accept()
    assert.are.equal(with(UDP6, 0, "\x6f"), pkt.sent)
  end)
end)
