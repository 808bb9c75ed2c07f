-- nfqueue.build{ reply = }: what answers a packet, and what has no answer.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message, build = unit.message, nfqueue.build
local IP = {
  [4] = { src = "192.0.2.1", dst = "198.51.100.2" },
  [6] = { src = "2001:db8::1", dst = "2001:db8::2" },
}

local function packet(description)
  return nfqueue.packet(build(description))
end

local function tcp(version, fields, payload)
  fields.sport, fields.dport = 40000, 80
  return packet({ ip = IP[version], tcp = fields, payload = payload })
end

local function assert_swapped(version, pkt)
  assert.are.same({ IP[version].dst, IP[version].src }, { pkt.ip.src, pkt.ip.dst })
  local again = nfqueue.packet(pkt:bytes())
  again:modify(pkt:bytes())
  assert.are.equal(pkt:bytes(), again.sent) -- lengths and checksums were right
end

for version in pairs(IP) do
  describe(("an answer over IPv%d"):format(version), function()
    it("goes on where the segment left the connection", function()
      for _, case in ipairs({ -- fields, payload, and of the answer: flags, seq, ack_seq
        { { flags = "S", seq = 7 }, nil, "SA", 0, 8 },
        { { flags = "S", seq = 7 }, "fast", "SA", 0, 12 },
        { { flags = "SA", seq = 7, ack_seq = 100 }, nil, "A", 100, 8 },
        { { flags = "PA", seq = 7, ack_seq = 100 }, "question", "A", 100, 15 },
        { { flags = "FA", seq = 7, ack_seq = 100 }, "bye", "A", 100, 11 },
        { { flags = "A", seq = 0xffffffff, ack_seq = 0xfffffff0 }, "xyz", "A", 0xfffffff0, 2 },
      }) do
        local answer = packet({ reply = tcp(version, case[1], case[2]) })
        assert_swapped(version, answer)
        local got = answer.tcp
        assert.are.same({ 80, 40000, case[3], case[4], case[5], 65535, "" },
          { got.sport, got.dport, got.flags, got.seq, got.ack_seq, got.window, answer.payload })
      end
    end)

    it("takes data, flags and whatever else is given", function()
      local asked = tcp(version, { flags = "PA", seq = 7, ack_seq = 100 }, "question")
      local answer = packet({ reply = asked, payload = "answer" })
      assert.are.same({ "PA", 100, 15, "answer" },
        { answer.tcp.flags, answer.tcp.seq, answer.tcp.ack_seq, answer.payload })
      answer = packet({ reply = asked, tcp = { fin = true, window = 5 }, ip = { ttl = 9 } })
      assert.are.same({ "FA", 100, 15, 5, 9 },
        { answer.tcp.flags, answer.tcp.seq, answer.tcp.ack_seq, answer.tcp.window, answer.ip.ttl })
      assert_swapped(version, answer)
      local moved = version == 4 and "192.0.2.9" or "2001:db8::9"
      answer = packet({ reply = asked, ip = { src = moved }, tcp = { sport = 81, flags = "R" } })
      assert.are.same({ moved, 81, "R", 100, 0 },
        { answer.ip.src, answer.tcp.sport, answer.tcp.flags, answer.tcp.seq, answer.tcp.ack_seq })
    end)

    it("resets as RFC 9293 has it", function()
      for _, case in ipairs({
        { { flags = "S", seq = 7 }, nil, "RA", 0, 8 },
        { { flags = "F", seq = 7 }, "abc", "RA", 0, 11 },
        { { flags = "PA", seq = 7, ack_seq = 100 }, "question", "R", 100, 0 },
        { { flags = "SA", seq = 7, ack_seq = 100 }, nil, "R", 100, 0 },
      }) do
        local answer = packet({ reply = tcp(version, case[1], case[2]), tcp = { rst = true } })
        assert_swapped(version, answer)
        assert.are.same({ case[3], case[4], case[5], 0 },
          { answer.tcp.flags, answer.tcp.seq, answer.tcp.ack_seq, answer.tcp.window })
      end
    end)

    it("echoes timestamps, but for a SYN's and in a reset (RFC 7323)", function()
      local asked = { flags = "A", ack_seq = 1, options = { timestamps = { 1000, 2000 } } }
      local stamps = string.pack(">I4I4", 2000, 1000)
      assert.are.equal(stamps, packet({ reply = tcp(version, asked) }).tcp:option(8))
      assert.is_nil((packet({ reply = tcp(version, asked), tcp = { rst = true } }).tcp:option(8)))
      assert.is_nil((packet({ reply = tcp(version, asked), tcp = { options = "" } }).tcp:option(8)))
      asked.flags = "S"
      assert.is_nil((packet({ reply = tcp(version, asked) }).tcp:option(8)))
    end)

    it("counts what was not copied and no padding of the link layer", function()
      local whole = tcp(version, { flags = "A", seq = 7 }, ("x"):rep(1000)):bytes()
      local cut = nfqueue.packet(whole:sub(1, 80), { length = #whole })
      assert.are.equal(1007, packet({ reply = cut }).tcp.ack_seq)
      local padded = nfqueue.packet(tcp(version, { flags = "A", seq = 7 }):bytes() .. "\0\0\0\0\0\0")
      assert.are.equal(7, packet({ reply = padded }).tcp.ack_seq)
    end)

    it("swaps the ports of UDP", function()
      local asked = packet({ ip = IP[version], udp = { sport = 40000, dport = 53 }, payload = "question" })
      local answer = packet({ reply = asked, payload = "answer" })
      assert_swapped(version, answer)
      assert.are.same({ 53, 40000, "answer" }, { answer.udp.sport, answer.udp.dport, answer.payload })
      assert.are.equal("", packet({ reply = asked:bytes() }).payload)
    end)

    it("returns an echo's data", function()
      local asked = packet({ ip = { src = IP[version].src, dst = IP[version].dst, tos = 0xbb },
        icmp = { type = version == 4 and 8 or 128, id = 7, seq = 9 }, payload = "ping" })
      local answer = packet({ reply = asked })
      assert_swapped(version, answer)
      assert.are.same({ version == 4 and 0 or 129, 0, 7, 9, "ping", 0xb8 },
        { answer.icmp.type, answer.icmp.code, answer.icmp.id, answer.icmp.seq, answer.payload, answer.ip.tos })
      assert.are.equal("other", packet({ reply = asked, payload = "other" }).payload)
    end)

    it("swaps the addresses of other protocols", function()
      local asked = packet({ ip = { src = IP[version].src, dst = IP[version].dst, protocol = 47 }, payload = "gre" })
      local answer = packet({ reply = asked, payload = "back" })
      assert_swapped(version, answer)
      assert.are.same({ 47, "back" }, { answer.ip.protocol, answer.payload })
    end)

    it("is an ICMP error about the packet", function()
      local unreachable = version == 4 and 3 or 1
      for _, asked in ipairs({ tcp(version, { flags = "R" }),
        packet({ ip = IP[version], udp = { sport = 1, dport = 2 }, payload = ("x"):rep(1500) }) }) do
        local answer = packet({ reply = asked, icmp = { type = unreachable, code = 3 } })
        assert_swapped(version, answer)
        assert.are.same({ unreachable, 3 }, { answer.icmp.type, answer.icmp.code })
        assert.are.equal(asked:bytes(0, #answer.payload), answer.payload)
        assert.are.equal(math.min(#asked, (version == 4 and 576 - 28 or 1280 - 48)), #answer.payload)
      end
    end)

    it("embeds no padding of the link layer", function()
      local asked = tcp(version, {}):bytes()
      local answer = packet({ reply = asked .. "\0\0\0\0\0\0", icmp = { type = version == 4 and 3 or 1 } })
      assert.are.equal(asked, answer.payload)
    end)

    it("can be split", function()
      local asked = packet({ ip = IP[version], udp = { sport = 40000, dport = 53 } })
      local list = build({ reply = asked, ip = { id = 1 }, payload = ("x"):rep(3000), mtu = 1280 })
      assert.are.equal(3, #list)
      assert.are.equal(IP[version].src, nfqueue.packet(list[3]).ip.dst)
    end)

    it("is refused where there is none", function()
      local echo_reply = packet({ ip = IP[version], icmp = { type = version == 4 and 0 or 129 } })
      local error_message = packet({ ip = IP[version],
        icmp = { type = version == 4 and 3 or 1, embedded = tcp(version, {}) } })
      local first = nfqueue.packet(build({ ip = { src = IP[version].src, dst = IP[version].dst, id = 1 },
        tcp = { sport = 1, dport = 2 }, payload = ("x"):rep(3000), mtu = 1280 })[1])
      local later = packet({ ip = { src = IP[version].src, dst = IP[version].dst, id = 1, frag_offset = 8,
        protocol = 17 }, payload = "rest" })
      local unspecified = packet({ ip = { src = version == 4 and "0.0.0.0" or "::", dst = IP[version].dst },
        udp = { sport = 68, dport = 67 } })
      local multicast = packet({ ip = { src = IP[version].src, dst = version == 4 and "224.0.0.251" or "ff02::fb" },
        udp = { sport = 5353, dport = 5353 } })
      local error_of = { type = version == 4 and 3 or 1 }
      local whole = tcp(version, {}, "data"):bytes()
      local header = version == 4 and 20 or 40
      local datagram = packet({ ip = IP[version], udp = { sport = 1, dport = 2 } }):bytes()
      local echo = packet({ ip = IP[version], icmp = { type = version == 4 and 8 or 128 }, payload = "data" }):bytes()
      for _, case in ipairs({
        { "it is a TCP reset, which gets no answer", { reply = tcp(version, { flags = "RA" }) } },
        { "it is a TCP reset, which gets no answer", { reply = tcp(version, { flags = "R" }), tcp = { rst = true } } },
        { "only an echo request among ICMP messages has an answer", { reply = echo_reply } },
        { "only an echo request among ICMP messages has an answer", { reply = error_message } },
        { "it is an ICMP error: no error is about one", { reply = error_message, icmp = error_of } },
        { "it is a fragment: the rest of it is elsewhere", { reply = first } },
        { "it is a later fragment, without the header that says who is asked", { reply = later } },
        { "it is a later fragment: no ICMP error is about one", { reply = later, icmp = error_of } },
        { "its source is no single host", { reply = unspecified } },
        { "it went to no single host: ip.src names who answers", { reply = multicast } },
        { "it went to no single host: no ICMP error is about such", { reply = multicast, icmp = error_of } },
        { "only TCP is reset", { reply = multicast, tcp = { rst = true } } },
        { "its TCP header is cut short", { reply = whole:sub(1, -10) } },
        { "its UDP header is cut short", { reply = datagram:sub(1, header + 7) } },
        { "its ICMP header is cut short", { reply = echo:sub(1, header + 7) } },
        { "not all of its data is here, which an echo reply returns",
          { reply = nfqueue.packet(echo, { length = #echo + 10 }) } },
        { "neither IPv4 nor IPv6, or shorter than its IP header", { reply = "" } },
        { "neither IPv4 nor IPv6, or shorter than its IP header", { reply = nfqueue.packet("", { length = 60 }) } },
        { "longer than 65531 bytes", { reply = ("E"):rep(65532) } },
      }) do
        assert.are.equal(("bad argument 'reply' to 'build' (%s)"):format(case[1]), message(build, case[2]))
      end
      local answer = packet({ reply = multicast, ip = { src = IP[version].dst } })
      assert_swapped(version, answer)
    end)
  end)
end

describe("an answer", function()
  it("is for a packet or its bytes, nothing else", function()
    for _, foreign in ipairs(unit.foreigners()) do
      if foreign.type ~= "string" and foreign.type ~= "nil" then
        assert.matches("^bad argument 'reply' to 'build' %(packet or string expected, got ",
          message(build, { reply = foreign.value }))
      end
    end
  end)

  it("keeps to the protocol and the version of what is answered", function()
    local asked = tcp(4, {})
    assert.are.equal("bad argument 'udp' to 'build' (the packet that is answered has another protocol)",
      message(build, { reply = asked, udp = {} }))
    assert.are.equal("bad argument 'icmp' to 'build' (the packet that is answered has another protocol)",
      message(build, { reply = asked, icmp = { type = 0 } }))
    assert.are.equal("bad argument 'ip.src' to 'build' (IPv4 and IPv6 in one packet)",
      message(build, { reply = asked, ip = { src = "::1" } }))
    assert.are.equal("bad argument 'ip.protocol' to 'build' (tcp is protocol 6)",
      message(build, { reply = asked, ip = { protocol = 17 } }))
  end)

  it("refuses an error's own payload", function()
    assert.are.equal("bad argument 'payload' to 'build' (the embedded packet is the payload of an ICMP error)",
      message(build, { reply = tcp(4, {}), icmp = { type = 3 }, payload = "x" }))
  end)

  it("comes from a packet of a routing header's last address", function()
    local asked = packet({ ip = { src = "2001:db8::1", dst = "2001:db8::2",
      extensions = { { routing = { type = 2, left = 1, addresses = { "2001:db8::3" } } } } },
      udp = { sport = 1, dport = 2 } })
    assert.are.equal("2001:db8::3", packet({ reply = asked }).ip.src)
  end)
end)
