-- pkt:reject without a kernel: which answer a packet gets, to the byte, and which get none.

local checksum = require("support.checksum")
local datagram = require("support.datagram")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local right = datagram.right

after_each(unit.cleanup)

local function reject(bytes, kind, meta)
  local pkt = nfqueue.packet(bytes, meta)
  pkt:reject(kind)
  assert.are.equal("reject", pkt.verdict)
  assert.is_nil(pkt.sent)
  return pkt.answer, pkt
end

-- The sums of a whole IPv4 or IPv6 packet without options: all of them must come out as 0.
local function assert_sums(bytes)
  if bytes:byte() >> 4 == 4 then
    assert.are.equal(0, checksum.of(bytes:sub(1, 20)))
    local body, protocol = bytes:sub(21), bytes:byte(10)
    assert.are.equal(#bytes, (string.unpack(">I2", bytes, 3)))
    local front = protocol == 1 and "" or checksum.pseudo4(bytes:sub(13, 16), bytes:sub(17, 20))(protocol, #body)
    assert.are.equal(0, checksum.of(front .. body))
  else
    local body = bytes:sub(41)
    assert.are.equal(#body, (string.unpack(">I2", bytes, 5)))
    assert.are.equal(0, checksum.of(checksum.pseudo6(bytes:sub(9, 24), bytes:sub(25, 40))(bytes:byte(7), #body)
      .. body))
  end
end

local TCP4, TCP6 = right(datagram.ip4(datagram.tcp("hello"))), right(datagram.ip6(datagram.tcp("hello")))
local UDP4, UDP6 = right(datagram.ip4(datagram.udp("hello"))), right(datagram.ip6(datagram.udp("hello")))
local ICMP4, ICMP6 = right(datagram.ip4(datagram.icmp("hello"))), right(datagram.ip6(datagram.icmp6("hello")))
local GRE4, GRE6 = right(datagram.ip4(datagram.raw(47, ("\0"):rep(8)))),
  right(datagram.ip6(datagram.raw(47, ("\0"):rep(8))))

it("pkt:reject answers a packet that was held", function()
  local handler = assert(nfqueue.load(unit.file("return function(pkt) pkt:hold() end")))
  local pkt = nfqueue.packet(right(datagram.ip4(datagram.udp("late"))))
  assert.are.equal("hold", handler(pkt))
  assert.is_nil(pkt.answer)
  pkt:reject()
  assert.are.equal("reject", pkt.verdict)
  assert.are.equal((reject(pkt:bytes())), pkt.answer)
end)

describe("pkt:reject answers", function()
  -- Type and code of each kind: RFC 792 and RFC 1812, RFC 4443.
  local ERRORS = {
    { "icmp-port", { 3, 3 }, { 1, 4 } },
    { "icmp-host", { 3, 1 }, { 1, 3 } },
    { "icmp-net", { 3, 0 }, { 1, 0 } },
    { "icmp-admin", { 3, 13 }, { 1, 1 } },
  }
  local SUBJECTS = {
    { "IPv4 TCP", TCP4 }, { "IPv4 UDP", UDP4 }, { "IPv4 ICMP echo", ICMP4 }, { "IPv4 GRE", GRE4 },
    { "IPv6 TCP", TCP6 }, { "IPv6 UDP", UDP6 }, { "IPv6 ICMP echo", ICMP6 }, { "IPv6 GRE", GRE6 },
  }
  for _, kind in ipairs(ERRORS) do
    for _, subject in ipairs(SUBJECTS) do
      it(subject[1] .. " with " .. kind[1], function()
        local bytes = subject[2]
        local answer = assert(reject(bytes, kind[1]))
        local pkt = nfqueue.packet(answer)
        local expected = pkt.ip.version == 4 and kind[2] or kind[3]
        assert.are.same(expected, { pkt.icmp.type, pkt.icmp.code })
        assert.are.same({ nfqueue.packet(bytes).ip.dst, nfqueue.packet(bytes).ip.src, 64 },
          { pkt.ip.src, pkt.ip.dst, pkt.ip.ttl })
        assert.are.equal(bytes, pkt.payload)
        assert_sums(answer)
      end)
    end
  end

  it("with an ICMP port unreachable what is not TCP", function()
    for _, subject in ipairs(SUBJECTS) do
      if not subject[1]:find("TCP") then
        assert.are.equal(reject(subject[2], "icmp-port"), (reject(subject[2])), subject[1])
      end
    end
  end)

  it("with an error of at most 576 bytes, 1280 for IPv6", function()
    local answer = reject(right(datagram.ip4(datagram.udp(("x"):rep(3000)))))
    assert.are.equal(576, #answer)
    assert_sums(answer)
    answer = reject(right(datagram.ip6(datagram.udp(("x"):rep(3000)))))
    assert.are.equal(1280, #answer)
    assert_sums(answer)
  end)

  it("with precedence \"internetwork control\" and the packet's type of service", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.ip.tos = 0x3f
    pkt:accept()
    assert.are.equal(0xdc, nfqueue.packet((reject(pkt.sent))).ip.tos)
  end)

  -- RFC 9293 section 3.10.7.1. The segment of datagram.tcp has sequence number 7 and acknowledges 9.
  local RESETS = {
    { "data with ACK", 0x18, "hello", { flags = "R", seq = 9, ack_seq = 0 } },
    { "SYN", 0x02, "", { flags = "RA", seq = 0, ack_seq = 8 } },
    { "SYN with data", 0x02, "hello", { flags = "RA", seq = 0, ack_seq = 13 } },
    { "FIN and ACK", 0x11, "", { flags = "R", seq = 9, ack_seq = 0 } },
    { "nothing at all", 0, "abc", { flags = "RA", seq = 0, ack_seq = 10 } },
  }
  for _, family in ipairs({ "ip4", "ip6" }) do
    for _, case in ipairs(RESETS) do
      it(("with a reset a TCP segment of %s: %s"):format(family, case[1]), function()
        local pkt = nfqueue.packet(right(datagram[family](datagram.tcp(case[3]))))
        pkt:u8(pkt.tcp.offset + 13, case[2])
        pkt:accept()
        for _, kind in ipairs({ "tcp-reset", false }) do
          local answer = reject(pkt.sent, kind or nil)
          local reset = nfqueue.packet(answer)
          assert.are.same(case[4], { flags = reset.tcp.flags, seq = reset.tcp.seq, ack_seq = reset.tcp.ack_seq })
          assert.are.same({ 80, 40000, 0, "" }, { reset.tcp.sport, reset.tcp.dport, reset.tcp.window, reset.payload })
          assert.are.same({ pkt.ip.dst, pkt.ip.src }, { reset.ip.src, reset.ip.dst })
          assert_sums(answer)
        end
      end)
    end
  end

  it("the packet as it is, edits included", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.ip.src = "192.0.2.77"
    pkt:reject()
    assert.are.equal("192.0.2.77", nfqueue.packet(pkt.answer).ip.dst)
  end)

  it("a packet of which not all was copied", function()
    local answer = reject(UDP4:sub(1, 28), nil, { length = #UDP4 })
    assert.are.equal(UDP4:sub(1, 28), nfqueue.packet(answer).payload)
  end)

  it("a first fragment with an error", function()
    local first = right(datagram.ip4(datagram.udp(("x"):rep(8)), { fragment = 0x2000 }))
    assert.are.equal(first, nfqueue.packet((reject(first))).payload)
  end)

  it("padded bytes without their padding", function()
    assert.are.equal(UDP4, nfqueue.packet((reject(UDP4 .. ("\0"):rep(9)))).payload)
  end)

  it("what a UDP checksum of 0 does not protect", function()
    local pkt = nfqueue.packet(UDP4)
    pkt.udp.checksum = 0
    pkt:accept()
    assert.is_string((reject(pkt.sent)))
  end)

  it("what has its checksum from the pseudo header only, as local packets", function()
    for _, bytes in ipairs({ TCP4, UDP4, TCP6, UDP6 }) do
      local pkt = nfqueue.packet(bytes)
      local at = pkt.tcp and pkt.tcp.offset + 16 or pkt.udp.offset + 6
      local from = pkt.ip.version == 4 and checksum.pseudo4(bytes:sub(13, 16), bytes:sub(17, 20))
        or checksum.pseudo6(bytes:sub(9, 24), bytes:sub(25, 40))
      local body = pkt.ip.version == 4 and 20 or 40
      local partial = ~checksum.of(from(pkt.ip.protocol, #bytes - body)) & 0xffff
      assert.is_string((reject(bytes:sub(1, at) .. string.pack(">I2", partial) .. bytes:sub(at + 3))))
    end
  end)
end)

describe("pkt:reject only drops", function()
  local function with(bytes, offset, patch)
    local pkt = nfqueue.packet(bytes)
    pkt:patch(offset, patch)
    pkt:accept()
    return pkt.sent
  end
  local ANY6 = "\xff\x02" .. ("\0"):rep(13) .. "\1"
  local CASES = {
    { "a reset", with(TCP4, 33, "\4") },
    { "an IPv6 reset", with(TCP6, 53, "\4") },
    { "an ICMP error", assert((reject(UDP4))) },
    { "an ICMPv6 error", assert((reject(UDP6))) },
    { "an ICMP redirect", with(ICMP4, 20, "\5") },
    { "an ICMPv6 redirect", with(ICMP6, 40, "\137") },
    { "ICMP of an unknown type", with(ICMP4, 20, "\200") },
    { "ICMPv6 of an unknown error type", with(ICMP6, 40, "\100") },
    { "a later fragment", right(datagram.ip4(datagram.raw(17, ("x"):rep(8)), { fragment = 3 })) },
    { "a later fragment of TCP", right(datagram.ip4(datagram.raw(6, ("x"):rep(24)), { fragment = 3 })) },
    { "an IPv6 later fragment",
      right(datagram.ip6(datagram.raw(17, ("x"):rep(8)), { chain = { { 44, "\0\0\8\0\0\0\1" } } })) },
    { "what went to a group", with(UDP4, 16, "\224\0\0\1") },
    { "what went to everybody", with(UDP4, 16, "\255\255\255\255") },
    { "TCP to a group", with(TCP4, 16, "\239\1\2\3") },
    { "what went to an IPv6 group", with(UDP6, 24, ANY6) },
    { "TCP to an IPv6 group", with(TCP6, 24, ANY6) },
    { "what came from a group", with(UDP4, 12, "\224\0\0\1") },
    { "what came from nobody", with(UDP4, 12, "\0\0\0\0") },
    { "what came from the unspecified address", with(UDP6, 8, ("\0"):rep(16)) },
    { "IPv4 TCP with a wrong checksum", TCP4:sub(1, -2) .. "O" },
    { "IPv4 UDP with a wrong checksum", UDP4:sub(1, -2) .. "O" },
    { "IPv4 ICMP with a wrong checksum", ICMP4:sub(1, -2) .. "O" },
    { "IPv6 TCP with a wrong checksum", TCP6:sub(1, -2) .. "O" },
    { "IPv6 UDP with a wrong checksum", UDP6:sub(1, -2) .. "O" },
    { "ICMPv6 with a wrong checksum", ICMP6:sub(1, -2) .. "O" },
    { "a cut TCP header", right(datagram.ip4(datagram.raw(6, ("\0"):rep(19)))) },
    { "ARP", "\0\1\8\0\6\4\0\1" .. ("\0"):rep(20) },
    { "nothing", "" },
  }
  for _, case in ipairs(CASES) do
    it(case[1], function()
      assert.is_nil((reject(case[2])))
    end)
  end
end)

describe("pkt:reject", function()
  it("is the handler's last word, by verb and by name", function()
    local BODIES = { "pkt:reject()", "pkt:reject('icmp-admin')", "return 'reject'", "return 'reject', 'icmp-admin'",
      "return 'reject', nil" }
    for _, body in ipairs(BODIES) do
      local handler = assert(nfqueue.load(unit.file("return function(pkt) " .. body .. " end")))
      local pkt = nfqueue.packet(UDP4)
      assert.are.equal("reject", (handler(pkt)))
      assert.are.equal(body:find("admin") and 13 or 3, nfqueue.packet(pkt.answer).icmp.code)
      assert.are.equal("packet already has a verdict", unit.message(pkt.reject, pkt))
      assert.are.same({}, handler.sent)
    end
  end)

  it("refuses kinds that are none, and a reset of what is not TCP", function()
    local KINDS = "\"tcp-reset\", \"icmp-port\", \"icmp-host\", \"icmp-net\" or \"icmp-admin\" expected, got "
    local CASES = {
      { { "icmp" }, "bad argument 'kind' to 'reject' (" .. KINDS .. "'icmp')" },
      { { "tcp-reset\0" }, "bad argument 'kind' to 'reject' (" .. KINDS .. "'tcp-reset" },
      { { 3 }, "bad argument 'kind' to 'reject' (string expected, got 3)" },
      { { {} }, "bad argument 'kind' to 'reject' (string expected, got table)" },
      { { "icmp-port", 1 }, "too many arguments to 'reject'" },
      { { "tcp-reset" }, "bad argument 'kind' to 'reject' ('tcp-reset' answers TCP, and this is none)" },
    }
    for _, case in ipairs(CASES) do
      local pkt = nfqueue.packet(UDP4)
      local message = unit.message(pkt.reject, pkt, table.unpack(case[1]))
      assert.are.equal(case[2], message:sub(1, #case[2]))
      assert.is_nil(pkt.verdict)
      assert.is_nil(pkt.answer)
    end
  end)

  it("has no answer beside other verdicts", function()
    local pkt = nfqueue.packet(UDP4)
    assert.is_nil(pkt.answer)
    pkt:drop()
    assert.is_nil(pkt.answer)
  end)
end)
