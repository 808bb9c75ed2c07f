-- Edits of fragments: the checksum in a first fragment covers the rest too, and follows the change exactly.

local nfqueue = require("nfqueue")
local checksum = require("support.checksum")
local datagram = require("support.datagram")
local unit = require("support.unit")

local BEFORE, AFTER = ("question"):rep(9), ("answered"):rep(9)
local PIECE = 48 -- bytes of the datagram in its first fragment, a multiple of 8

local function with(bytes, offset, replacement)
  return bytes:sub(1, offset) .. replacement .. bytes:sub(offset + #replacement + 1)
end

-- The first fragment of a whole datagram.
local function first4(whole)
  local header = with(with(with(whole:sub(1, 20), 2, string.pack(">I2", 20 + PIECE)), 6, "\x20\0"), 10, "\0\0")
  return with(header, 10, string.pack(">I2", checksum.of(header))) .. whole:sub(21, 20 + PIECE)
end

local function first6(whole)
  local fragment = whole:sub(7, 7) .. "\0\0\1" .. "\0\0\0\7" -- offset 0, more to come
  return with(with(whole:sub(1, 40), 4, string.pack(">I2", 8 + PIECE)), 6, "\44") .. fragment
    .. whole:sub(41, 40 + PIECE)
end

local function later4(payload, ttl)
  return datagram.right(datagram.ip4(datagram.raw(17, payload), { fragment = 0x2006, ttl = ttl }))
end

local CASES = { -- name, builder, transport, first fragment of it, offset of the checksum
  { "IPv4 UDP", datagram.ip4, datagram.udp, first4, 26 }, { "IPv4 TCP", datagram.ip4, datagram.tcp, first4, 36 },
  { "IPv4 ICMP", datagram.ip4, datagram.icmp, first4, 22 }, { "IPv6 UDP", datagram.ip6, datagram.udp, first6, 54 },
  { "IPv6 TCP", datagram.ip6, datagram.tcp, first6, 64 }, { "IPv6 ICMPv6", datagram.ip6, datagram.icmp6, first6, 50 },
}

-- BEFORE with only its first `count` bytes turned into AFTER's: what an edit of the first fragment makes of it.
local function partly(count)
  return AFTER:sub(1, count) .. BEFORE:sub(count + 1)
end

for _, case in ipairs(CASES) do
  local name, build, transport, first, sum_at = table.unpack(case)
  local before = first(datagram.right(build(transport(BEFORE))))
  local at = before:find(BEFORE:sub(1, 8), 1, true) - 1
  local count = #before - at -- bytes of payload here
  local after = first(datagram.right(build(transport(partly(count)))))

  describe("a first fragment, " .. name, function()
    it("is edited in place at once or piece by piece", function()
      local pkt = nfqueue.packet(before)
      pkt:patch(at, AFTER:sub(1, count))
      pkt:accept()
      assert.are.equal(after, pkt.sent)
      pkt = nfqueue.packet(before)
      for i = 0, count - 1 do
        pkt:u8(at + i, AFTER:byte(i + 1))
      end
      pkt:accept()
      assert.are.equal(after, pkt.sent)
    end)

    it("is replaced, whatever checksum the new bytes hold", function()
      local pkt = nfqueue.packet(before)
      pkt:modify(with(after, sum_at, "\xde\xad"))
      assert.are.equal(after, pkt.sent)
    end)

    it("is sent verbatim with fixup=false, both ways", function()
      local edited = with(before, at, AFTER:sub(1, count))
      local pkt = nfqueue.packet(before)
      pkt:patch(at, AFTER:sub(1, count))
      pkt:accept({ fixup = false })
      assert.are.equal(edited, pkt.sent)
      pkt = nfqueue.packet(before)
      pkt:modify(edited, { fixup = false })
      assert.are.equal(edited, pkt.sent)
    end)

    it("keeps its length", function()
      for _, bytes in ipairs({ after .. "x", after:sub(1, -2) }) do
        local pkt = nfqueue.packet(before)
        assert.are.equal("cannot edit this packet: it is a fragment: its length decides where the others go",
          unit.message(pkt.modify, pkt, bytes))
        assert.is_nil(pkt.verdict)
      end
    end)
  end)
end

describe("a first fragment", function()
  it("follows a change of address, which the pseudo-header holds", function()
    for _, transport in ipairs({ datagram.udp, datagram.tcp }) do
      local whole = datagram.right(datagram.ip4(transport(BEFORE)))
      local pkt = nfqueue.packet(first4(whole))
      pkt:u32(12, 0x0a000001)
      pkt:accept()
      local together = pkt.sent:sub(21) .. whole:sub(21 + PIECE) -- as the receiver reassembles it
      local pseudo = checksum.pseudo4("\10\0\0\1", datagram.TARGET4)(whole:byte(10), #together)
      assert.are.equal(0, checksum.of(pseudo .. together))
      assert.are.equal(0, checksum.of(pkt.sent:sub(1, 20)))
    end
  end)

  -- One raised nothing and left with a checksum that was wrong for what is reassembled.
  it("whose checksum cannot follow lets nothing change that it covers", function()
    local function first(protocol, payload)
      return datagram.right(datagram.ip4(datagram.raw(protocol, payload), { fragment = 0x2000 }))
    end
    local elsewhere = "cannot edit this packet: it is a first fragment: the checksum over it lies in a later one"
    local sctp = "cannot edit this packet: it is a first fragment: SCTP's checksum is made of the whole packet only"
    for _, case in ipairs({
      { first(6, ("x"):rep(16)), elsewhere, true },
      { first(6, ("x"):rep(16)) .. ("\0"):rep(10), elsewhere, true }, -- padded by the link layer
      { first(132, ("x"):rep(48)), sctp, false },
    }) do
      local before, reason, has_pseudo_header = table.unpack(case)
      local edits = {
        function(pkt) pkt:u16(20, 7) end,
        function(pkt) pkt:patch(16, pkt:bytes(16, 4) .. "X") end,
        function(pkt) pkt:modify(with(before, 22, "X")) end,
      }
      local addresses = {
        function(pkt) pkt.ip.src = "10.0.0.1" end,
        function(pkt) pkt.ip.dst = "10.0.0.1" end,
        function(pkt) pkt:modify(with(before, 12, "\10")) end,
      }
      for _, edit in ipairs(edits) do
        assert.are.equal(reason, unit.message(edit, nfqueue.packet(before)))
      end
      for _, edit in ipairs(addresses) do
        local pkt = nfqueue.packet(before)
        if has_pseudo_header then
          assert.are.equal(reason, unit.message(edit, pkt))
          assert.are.equal(before, pkt:bytes())
        else
          edit(pkt)
        end
      end
      local pkt = nfqueue.packet(before)
      pkt.ip.ttl = 9
      pkt:patch(20, before:sub(21)) -- the same bytes
      pkt:accept()
      assert.are.equal(0, checksum.of(pkt.sent:sub(1, 20)))
      assert.are.equal("x", pkt.sent:sub(21, 21))
    end
  end)

  it("without a UDP checksum stays without one", function()
    local before = with(first4(datagram.right(datagram.ip4(datagram.udp(BEFORE)))), 26, "\0\0")
    local pkt = nfqueue.packet(before)
    pkt:patch(28, AFTER:sub(1, 8))
    pkt:accept()
    assert.are.equal(with(before, 28, AFTER:sub(1, 8)), pkt.sent)
  end)

  it("that is only accepted is left alone", function()
    local before = with(first4(datagram.right(datagram.ip4(datagram.udp(BEFORE)))), 26, "\xde\xad")
    local pkt = nfqueue.packet(before)
    pkt:accept()
    assert.are.equal(before, pkt.sent)
  end)
end)

describe("a later fragment", function()
  it("gets a new IP header, and keeps what is behind it", function()
    local pkt = nfqueue.packet(later4("abcdefgh"))
    pkt:u8(8, 9)
    pkt:accept()
    assert.are.equal(later4("abcdefgh", 9), pkt.sent)
    pkt = nfqueue.packet(later4("abcdefgh"))
    pkt:modify(later4("abcdefgh", 9))
    assert.are.equal(later4("abcdefgh", 9), pkt.sent)
  end)

  it("refuses a change of its payload", function()
    local reason = "cannot edit this packet: it is a later fragment: the checksum over it lies in the first"
    local pkt = nfqueue.packet(later4("abcdefgh"))
    assert.are.equal(reason, unit.message(pkt.u8, pkt, 20, 65))
    assert.are.equal(reason, unit.message(pkt.patch, pkt, 27, "X"))
    assert.are.equal(reason, unit.message(pkt.modify, pkt, later4("abcdefgX")))
    pkt:accept()
    assert.are.equal(later4("abcdefgh"), pkt.sent)
  end)
end)
