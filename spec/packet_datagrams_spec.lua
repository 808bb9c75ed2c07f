-- UDP datagrams delivered in one, before they are cut apart: who cuts them goes on from a sum of the pseudo-header.

local nfqueue = require("nfqueue")
local checksum = require("support.checksum")
local unit = require("support.unit")

local PAYLOAD = ("abcdefgh"):rep(500)
local CUT = "it is UDP datagrams in one, of a length each that only the kernel knows (gso = false has them one by one)"

local FAMILIES = {
  { name = "IPv4", src = "192.0.2.1", dst = "192.0.2.2", other = "198.51.100.7", pseudo = checksum.pseudo4 },
  { name = "IPv6", src = "2001:db8::1", dst = "2001:db8::2", other = "2001:db8::7", pseudo = checksum.pseudo6 },
}

-- As the kernel delivers them; with `none` those of a tunnel without checksums.
local function deliver(family, none)
  return nfqueue.packet(nfqueue.build({
    ip = { src = family.src, dst = family.dst },
    udp = { sport = 40000, dport = 443, checksum = none and 0 or 0x1234 },
    payload = PAYLOAD,
  }), { gso = true })
end

local function pseudo_sum(family, pkt)
  return 0xffff - checksum.of(family.pseudo(pkt.ip.src_bytes, pkt.ip.dst_bytes)(17, 8 + #PAYLOAD))
end

local EDITS = {
  { "a header field", function(pkt) pkt.ip.ttl = 7 end },
  { "a port", function(pkt) pkt.udp.dport = 8443 end },
  { "a payload", function(pkt) pkt.payload = PAYLOAD:upper() end },
  { "bytes in place", function(pkt) pkt:patch(pkt.payload_offset, "xyz") end },
}

for _, family in ipairs(FAMILIES) do
  describe("UDP datagrams in one, " .. family.name, function()
    for _, case in ipairs(EDITS) do
      local name, edit = table.unpack(case)
      it("keep the sum of the pseudo-header, edited: " .. name, function()
        local pkt = deliver(family)
        edit(pkt)
        pkt:accept()
        local sent = nfqueue.packet(pkt.sent)
        assert.are.equal(pseudo_sum(family, sent), sent.udp.checksum)
        assert.are.equal(8 + #PAYLOAD, sent.udp.length)
      end)

      it("keep no checksum when they have none: " .. name, function()
        local pkt = deliver(family, true)
        edit(pkt)
        pkt:accept()
        assert.are.equal(0, nfqueue.packet(pkt.sent).udp.checksum)
      end)
    end

    it("have that of new addresses", function()
      local pkt = deliver(family)
      pkt.ip.src = family.other
      pkt:accept()
      local sent = nfqueue.packet(pkt.sent)
      assert.are.equal(family.other, sent.ip.src)
      assert.are.equal(pseudo_sum(family, sent), sent.udp.checksum)
    end)

    it("have it in content of modify, whatever that says", function()
      local pkt = deliver(family)
      local bytes = pkt:bytes()
      pkt.udp.dport = 8443
      pkt:modify((bytes:gsub("abcdefgh", "ABCDEFGH")))
      local sent = nfqueue.packet(pkt.sent)
      assert.are.equal(pseudo_sum(family, sent), sent.udp.checksum)
      assert.are.equal(PAYLOAD:upper(), sent.payload)
      pkt = deliver(family, true)
      pkt:modify(deliver(family):bytes())
      assert.are.equal(0, nfqueue.packet(pkt.sent).udp.checksum)
    end)

    it("get no other length", function()
      for _, payload in ipairs({ PAYLOAD .. "x", "x", "" }) do
        local pkt = deliver(family)
        local before = pkt:bytes()
        assert.are.equal("cannot edit this packet: " .. CUT, unit.message(function()
          pkt.payload = payload
        end))
        assert.are.equal("cannot edit this packet: " .. CUT, unit.message(function()
          pkt:modify(before:sub(1, pkt.payload_offset) .. payload)
        end))
        assert.are.equal(before, pkt:bytes())
        pkt:accept()
        assert.are.equal(before, pkt.sent)
      end
    end)
  end)
end
