-- Edits that turn a packet into something else, and back, and those of packets whose lengths do not agree. Found by
-- fuzzing; each says what went wrong before.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")

local right = datagram.right
local ip4, ip6, tcp, udp, icmp, raw = datagram.ip4, datagram.ip6, datagram.tcp, datagram.udp, datagram.icmp,
  datagram.raw
local AT_PROTOCOL = 9 -- of the IPv4 header

-- The same bytes with lengths and checksums completed, by modify: packet_edit_spec holds that against its own sums.
local function completed(bytes)
  local pkt = nfqueue.packet(bytes)
  pkt:modify(bytes)
  return pkt.sent
end

local function with_protocol(bytes, protocol)
  return bytes:sub(1, AT_PROTOCOL) .. string.char(protocol) .. bytes:sub(AT_PROTOCOL + 2)
end

describe("an IPv4 packet made another protocol's", function()
  it("keeps the sum of a first fragment when it is made its own again", function()
    -- The address counted while TCP's pseudo-header covered it, and ICMP's checksum, which has none, went wrong.
    local bytes = right(ip4(icmp(("payload"):rep(8)), { fragment = 0x2000 }))
    local pkt = nfqueue.packet(bytes)
    pkt:u8(AT_PROTOCOL, 6)
    pkt.ip.src = "203.0.113.9"
    pkt:u8(AT_PROTOCOL, 1)
    pkt:accept()
    assert.are.equal(bytes:sub(21), pkt.sent:sub(21))
    assert.are.equal("\203\0\113\9", pkt.sent:sub(13, 16))
  end)

  it("is summed within its bytes when an authentication header moves the transport", function()
    -- A length that the UDP header had at its old place was summed over at the new one, beyond the packet's end.
    local inner = string.pack(">I2I2I2I2", 53, 54, 0, 0) .. "payload!"
    local bytes = right(ip4(raw(17, string.pack(">I2I2I2I2", 0x1100, 53, 8 + #inner, 0) .. inner)))
    local pkt = nfqueue.packet(bytes)
    pkt:u8(AT_PROTOCOL, 51) -- the source port says: UDP follows behind 8 bytes
    assert.are.equal(28, pkt.udp.offset)
    pkt:accept()
    assert.are.equal(completed(with_protocol(bytes, 51)), pkt.sent)
    assert.are.equal(16, nfqueue.packet(pkt.sent).udp.length)
  end)

  it("sends the checksum assigned to its new header", function()
    -- It was summed anew: the transport that the packet arrived with was remembered instead.
    local pkt = nfqueue.packet(right(ip4(raw(17, ("\x50"):rep(40)))))
    pkt:u8(AT_PROTOCOL, 6)
    pkt.tcp.checksum = 0xbeef
    pkt:accept()
    assert.are.equal("\xbe\xef", pkt.sent:sub(37, 38))
  end)

  it("does not send the checksum assigned where the transport was before it moved", function()
    local bytes = right(ip4(raw(17, ("\17\0\0\40\0\40\0\0"):rep(5))))
    local pkt = nfqueue.packet(bytes)
    pkt.udp.checksum = 0xbeef
    pkt:u8(AT_PROTOCOL, 51)
    assert.are.equal(28, pkt.udp.offset)
    pkt:u16(26, 0x1234)
    local edited = pkt:bytes()
    pkt:accept()
    assert.are.equal(completed(edited), pkt.sent)
    assert.are.equal("\x12\x34", pkt.sent:sub(27, 28))
  end)

  it("does not send in it the checksum assigned to the old one", function()
    local bytes = right(ip4(raw(17, ("\x50"):rep(40))))
    local pkt = nfqueue.packet(bytes)
    pkt.udp.checksum = 0xbeef
    local edited = pkt:bytes()
    pkt:u8(AT_PROTOCOL, 6)
    pkt:accept()
    assert.are.equal(completed(with_protocol(edited, 6)), pkt.sent)
  end)
end)

describe("a packet said to be as long on the wire as it is", function()
  local bytes = right(ip4(udp("payload")))

  it("is not truncated once it is shorter", function()
    -- It was: its new length was held against the old one, and the second assignment refused.
    local pkt = nfqueue.packet(bytes, { length = #bytes })
    pkt.payload = "pay"
    assert.is_false(pkt.truncated)
    assert.are.equal(#bytes - 4, pkt.length)
    pkt.payload = "p"
    pkt:accept()
    assert.are.equal(right(ip4(udp("p"))), pkt.sent)
  end)

  it("has the length of its new content after modify", function()
    local pkt = nfqueue.packet(bytes, { length = #bytes })
    pkt:modify(right(ip4(udp("p"))))
    assert.is_false(pkt.truncated)
    assert.are.equal(#bytes - 6, pkt.length)
  end)
end)

describe("a payload assigned where the claimed length ends within the transport header", function()
  -- A length was written behind the end, and the packet refused only when it was to leave.
  for name, packet in pairs({
    ["its UDP header is cut short"] = { right(ip6(udp("payload"))), 4 },
    ["its TCP header is cut short"] = { right(ip6(tcp("payload"))), 19 },
    ["its TCP data offset points outside the packet"] = { right(ip6(tcp("payload", ("\1"):rep(8)))), 22 },
  }) do
    it("is refused: " .. name, function()
      local bytes, claimed = table.unpack(packet)
      local pkt = nfqueue.packet(bytes:sub(1, 4) .. string.pack(">I2", claimed) .. bytes:sub(7))
      local before = pkt:bytes()
      local ok, message = pcall(function() pkt.payload = "another payload" end)
      assert.is_false(ok)
      assert.are.equal("cannot edit this packet: " .. name, (message:gsub("^[^ ]*:%d+: ", "")))
      assert.are.equal(before, pkt:bytes())
      pkt:accept()
      assert.are.equal(before, pkt.sent)
    end)
  end
end)
