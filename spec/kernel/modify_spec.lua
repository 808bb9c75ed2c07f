-- Packets that leave with other content: what the receiver gets, and that its kernel found every checksum right.

local net = require("support.net")
local traffic = require("support.traffic")

-- The two ways to change a packet: both leave with lengths and checksums completed.
local WAYS = {
  {
    name = "modify",
    replace = function(pkt, offset, bytes)
      local old = pkt:bytes()
      pkt:modify(old:sub(1, offset) .. bytes .. old:sub(offset + #bytes + 1))
    end,
  },
  {
    name = "an edit in place",
    replace = function(pkt, offset, bytes)
      pkt:patch(offset, bytes)
      pkt:accept()
    end,
  },
}

local ECHO_REQUEST = { IPv4 = 8, IPv6 = 128 }

-- A whole UDP packet of the other version.
local UDP_HEADER = string.pack(">I2I2I2I2", 1, 2, 8, 0)
local OTHER = {
  IPv4 = string.pack(">I4I2BB", 6 << 28, 8, 17, 64) .. ("\0"):rep(32) .. UDP_HEADER,
  IPv6 = string.pack(">BBI2I2I2BBI2", 0x45, 0, 28, 0, 0, 64, 17, 0) .. ("\127\0\0\1"):rep(2) .. UDP_HEADER,
}

-- The offset of the TCP payload behind a plain IP header.
local function tcp_payload(pkt, header)
  return header + (pkt:u8(header + 12) >> 4) * 4
end

for _, family in ipairs(traffic.FAMILIES) do
  describe("over " .. family.name, function()
    local errors

    before_each(function()
      errors = traffic.checksum_errors()
    end)
    after_each(traffic.cleanup)

    local function ping(handler, options)
      traffic.rule(("-A OUTPUT -p %s -j NFQUEUE --queue-num 3"):format(family.icmp), family)
      local queue = traffic.open(3, handler)
      local client = net.start(("ping -n -c 1 -W 5 -s 64 %s %s"):format(options or "", family.address))
      traffic.judge({ queue }, "ping to end", function()
        return not client:is_alive()
      end)
      return client:output(), client:join(), queue:stats()
    end

    for _, way in ipairs(WAYS) do
      it("a ping's TTL is changed with " .. way.name, function()
        local output, status, stats = ping(function(pkt)
          way.replace(pkt, family.ttl, "\42")
        end)
        assert.equal(0, status, output)
        assert.truthy(output:find("ttl=42 ", 1, true), output)
        assert.equal(2, stats.modified)
        assert.equal(errors, traffic.checksum_errors())
      end)

      it("a ping's data is changed with " .. way.name .. ", there and back", function()
        local seen
        local output, status = ping(function(pkt)
          local data = family.header + 8 + 32
          if pkt:u8(family.header) == ECHO_REQUEST[family.name] then
            return way.replace(pkt, data, ("y"):rep(32))
          end
          seen = pkt:bytes(data)
          way.replace(pkt, data, ("x"):rep(32))
        end, "-p 78")
        assert.equal(("y"):rep(32), seen) -- what the other end got is what it sent back
        assert.equal(0, status, output)
        assert.falsy(output:find("wrong data", 1, true), output)
        assert.equal(errors, traffic.checksum_errors())
      end)

      it("TCP bytes are changed with " .. way.name .. " on the way", function()
        local source = traffic.text_file(1000000)
        traffic.rule("-A OUTPUT -p tcp --dport 8300 -j NFQUEUE --queue-num 3", family)
        local queue = traffic.open(3, function(pkt)
          local offset = tcp_payload(pkt, family.header)
          if offset == #pkt then
            return pkt:accept()
          end
          way.replace(pkt, offset, pkt:bytes(offset):upper())
        end)
        local target = traffic.transfer({ queue }, source, { family = family, port = 8300 })
        local expected = net.must("tr a-z A-Z < " .. source .. " | sha256sum")
        assert.equal(expected, traffic.sha256(target))
        assert.is_true(queue:stats().modified > 0)
        assert.equal(errors, traffic.checksum_errors())
      end)
    end

    it("a ping's data changed without completing the checksum is refused by the receiver", function()
      ping(function(pkt)
        pkt:patch(family.header + 8 + 40, "no")
        pkt:accept({ fixup = false })
      end, "-W 1")
      assert.equal(errors + 1, traffic.checksum_errors())
    end)

    for _, gso in ipairs({ true, false }) do
      it(("a TCP transfer arrives as it was sent, gso %s"):format(gso), function()
        local source = traffic.text_file(4000000)
        traffic.rule("-A OUTPUT -p tcp -j NFQUEUE --queue-num 3", family) -- both directions
        local queue = traffic.open(3, function(pkt) pkt:accept() end, { gso = gso })
        local target = traffic.transfer({ queue }, source, { family = family, port = 8300 })
        local stats = queue:stats()
        assert.equal(traffic.sha256(source), traffic.sha256(target))
        assert.equal(stats.packets, stats.accepted)
        assert.is_true(stats.bytes > 4000000)
        assert.equal(errors, traffic.checksum_errors())
      end)
    end

    it("UDP changes its length in both directions", function()
      traffic.rule("-A OUTPUT -p udp --dport 8301 -j NFQUEUE --queue-num 3", family)
      traffic.rule("-A OUTPUT -p udp --sport 8301 -j NFQUEUE --queue-num 4", family)
      local head = family.header + 8
      local question = traffic.open(3, function(pkt)
        pkt:modify(pkt:bytes(0, head) .. pkt:bytes(head):gsub("short", "a longer question"))
      end)
      local answer = traffic.open(4, function(pkt)
        return "modify", pkt:bytes(0, head) .. pkt:bytes(head):gsub("^a longer", "odd")
      end)
      local version, address = family.socat:match("(.):(.*)")
      net.start(("socat UDP%s-RECVFROM:8301,fork EXEC:cat"):format(version))
      traffic.wait_listening(version == "4" and "udp" or "udp6", 8301)
      local client = net.start(([[sh -c "echo short | timeout 10 socat -t 9 - UDP%s:%s:8301"]])
        :format(version, address))
      traffic.judge({ question, answer }, "the answer", function()
        return client:output() == "odd question\n"
      end)
      assert.equal(1, question:stats().modified)
      assert.equal(1, answer:stats().modified)
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("UDP comes out whole at any length, empty and odd ones included", function()
      local udp = traffic.udp(family)
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
      local lengths = { 0, 1, 2, 3, 63, 64, 65, 1400, 1401, 1452 } -- on lo of 1,500 bytes nothing above fits
      local index = 0
      local queue = traffic.open(3, function(pkt)
        index = index + 1
        pkt:modify(pkt:bytes(0, family.header + 8) .. ("z"):rep(lengths[index]))
      end)
      for _ = 1, #lengths do
        udp:send("something")
      end
      traffic.judge({ queue }, "all of them", function()
        return #udp:received() == #lengths
      end)
      for i, length in ipairs(lengths) do
        assert.equal(("z"):rep(length), udp.texts[i])
      end
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("UDP whose checksum comes out as 0 has it sent as 0xffff", function()
      -- 0 would say "no checksum", which IPv6 refuses (RFC 768, RFC 8200).
      local udp = traffic.udp(family)
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
      traffic.rule(("-t mangle -A POSTROUTING -p udp --dport %d -j NFQUEUE --queue-num 4"):format(udp.port), family)
      traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 5"):format(udp.port), family)
      local head = family.header + 8
      local complement, sent
      local zeros = traffic.open(3, function(pkt)
        pkt:modify(pkt:bytes(0, head) .. "\0\0")
      end)
      -- What completes the sum over everything else: with it as the data the checksum is 0.
      local crafted = traffic.open(4, function(pkt)
        complement = pkt:bytes(family.header + 6, 2)
        pkt:modify(pkt:bytes(0, head) .. complement)
      end)
      local watched = traffic.open(5, function(pkt)
        sent = pkt:u16(family.header + 6)
      end)
      udp:send("ab")
      traffic.judge({ zeros, crafted, watched }, "the datagram", function()
        return #udp:received() == 1
      end)
      assert.equal(complement, udp.texts[1])
      assert.equal(0xffff, sent)
      assert.equal(errors, traffic.checksum_errors())
    end)

    local REFUSED = {
      { "no content", function() return "" end, "the new content is empty" },
      { "too much", function() return ("x"):rep(65532) end, "the new content is longer than 65531 bytes" },
      { "a cut IP header", function(bytes) return bytes:sub(1, 19) end,
        "it is neither IPv4 nor IPv6, or shorter than its IP header" },
      { "a cut UDP header", function(bytes) return bytes:sub(1, family.header + 7) end,
        "its UDP header is cut short" },
      { "the other version of IP", function() return OTHER[family.name] end, "the IP version must stay" },
    }
    for _, case in ipairs(REFUSED) do
      it(("refuses %s and leaves the packet as it was"):format(case[1]), function()
        local udp = traffic.udp(family)
        traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
        local message
        local queue = traffic.open(3, function(pkt)
          message = select(2, pcall(pkt.modify, pkt, case[2](pkt:bytes())))
          pkt:accept()
        end)
        udp:send("untouched")
        traffic.judge({ queue }, "the datagram", function()
          return udp:received()[1]
        end)
        assert.truthy(message:find("cannot edit this packet: " .. case[3], 1, true), message)
        assert.equal("untouched", udp.texts[1])
        assert.equal(0, queue:stats().modified)
      end)
    end
  end)
end
