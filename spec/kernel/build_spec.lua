-- What nfqueue.build makes, as the kernel takes it: datagrams, fragments, whole TCP connections, pings and errors.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")
local unit = require("support.unit")
local wire = require("support.wire")

local build, with = nfqueue.build, unit.with
local missing = wire.missing()
local it = not missing and it or function(name)
  pending(("%s (%s)"):format(name, missing))
end

local function packet(bytes)
  return nfqueue.packet(bytes)
end

local link, errors
local sockets = {}

before_each(function()
  if not missing then
    link = wire.new()
    errors = traffic.checksum_errors()
  end
end)
after_each(function()
  for _, item in ipairs(sockets) do
    item:close()
  end
  sockets = {}
  if link then
    link:close()
    link = nil
  end
  traffic.cleanup()
end)

local function keep(item)
  sockets[#sockets + 1] = item
  return item
end

-- A UDP socket at the kernel's end.
local function receiver(version, port)
  local item = keep(version == 4 and socket.udp4() or socket.udp6())
  assert(item:setsockname(wire.HERE[version], port))
  item:settimeout(0)
  return item
end

local function await_text(item, what)
  local text, address, port
  net.wait_for(what, function()
    text, address, port = item:receivefrom()
    return text
  end)
  return text, address, port
end

local function reassembled(version)
  if version == 4 then
    local names, values = net.read("/proc/net/snmp"):match("Ip: (%a[^\n]*)\nIp: ([^\n]*)")
    local next_value = values:gmatch("%S+")
    for name in names:gmatch("%S+") do
      local value = next_value()
      if name == "ReasmOKs" then
        return tonumber(value)
      end
    end
  end
  return tonumber(net.read("/proc/net/snmp6"):match("Ip6ReasmOKs%s+(%d+)"))
end

for _, version in ipairs({ 4, 6 }) do
  local ip = { src = wire.THERE[version], dst = wire.HERE[version] }
  local label = " (IPv" .. version .. ")"

  local VARIANTS = version == 4 and {
    { "plain", ip },
    { "with options", with(ip, { options = { [148] = "\0\0", [7] = "\4\0\0\0\0" } }) },
    { "with an id, tos and ttl", with(ip, { id = 7, tos = 0xb8, ttl = 1 }) },
  } or {
    { "plain", ip },
    { "with extension headers", with(ip, { extensions = { { hop_by_hop = { [30] = "x" } }, { destination = "" },
      { routing = { type = 0, left = 0, addresses = { "fd09::9" } } }, { destination = { [30] = "experiment" } } } }) },
    { "as an atomic fragment", with(ip, { id = 7 }) },
    { "with a flow label, tos and ttl", with(ip, { flow_label = 0x12345, tos = 0xb8, ttl = 1 }) },
  }

  describe("the kernel" .. label, function()
    for _, variant in ipairs(VARIANTS) do
      it("delivers datagrams " .. variant[1], function()
        local here = receiver(version, 7000)
        for _, text in ipairs({ "question", "odd", "", ("x"):rep(1400) }) do
          link:send(build({ ip = variant[2], udp = { sport = 40000, dport = 7000 }, payload = text }))
          local got, address, port = await_text(here, "a datagram")
          assert.are.same({ text, wire.THERE[version], 40000 }, { got, address, math.tointeger(tonumber(port)) })
        end
        assert.are.equal(errors, traffic.checksum_errors())
      end)

      it("puts fragments together " .. variant[1], function()
        local here = receiver(version, 7000)
        local before = reassembled(version)
        local text = ("0123456789abcdef"):rep(400)
        for id, mtu in ipairs({ version == 4 and 68 or 256, 576, 1280, 1500 }) do
          local pieces = build({ ip = with(variant[2], { id = id }), udp = { sport = 40000, dport = 7000 },
            payload = text, mtu = mtu })
          if id % 2 == 0 then -- the last one first
            for i = 1, #pieces // 2 do
              pieces[i], pieces[#pieces + 1 - i] = pieces[#pieces + 1 - i], pieces[i]
            end
          end
          link:send(table.unpack(pieces))
          assert.are.equal(text, (await_text(here, "the datagram")))
        end
        assert.are.equal(before + 4, reassembled(version))
        assert.are.equal(errors, traffic.checksum_errors())
      end)
    end

    it("refuses the checksum that was asked to be wrong", function()
      local here = receiver(version, 7000)
      local udp = { sport = 40000, dport = 7000 }
      link:send(build({ ip = ip, udp = with(udp, { checksum = 1 }), payload = "wrong" }),
        build({ ip = ip, udp = udp, payload = "right" }))
      assert.are.equal("right", (await_text(here, "a datagram")))
      assert.are.equal(errors + 1, traffic.checksum_errors())
    end)

    it("answers a ping", function()
      local echo = { type = version == 4 and 8 or 128, id = 77, seq = 5 }
      link:send(build({ ip = ip, icmp = echo, payload = "0123456789" }))
      local reply = packet(link:await("an echo reply", function(bytes)
        return packet(bytes).icmp and packet(bytes).icmp.type == (version == 4 and 0 or 129)
      end))
      assert.are.same({ 77, 5, "0123456789", wire.HERE[version] },
        { reply.icmp.id, reply.icmp.seq, reply.payload, reply.ip.src })
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    it("has its ping answered", function()
      local ping = net.start(("ping -n -c 2 -i 0.2 -W 10 -s 100 %s"):format(wire.THERE[version]))
      for _ = 1, 2 do
        link:send(build({ reply = link:await("an echo request", function(bytes)
          return packet(bytes).icmp and packet(bytes).icmp.type == (version == 4 and 8 or 128)
        end) }))
      end
      assert.are.equal(0, ping:join(), ping:output())
      assert.matches("2 received", ping:output())
      assert.not_matches("wrong data", ping:output())
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    it("takes part in a connection, options and all", function()
      local listener = keep(version == 4 and socket.tcp4() or socket.tcp6())
      assert(listener:setoption("reuseaddr", true))
      assert(listener:bind(wire.HERE[version], 7000))
      assert(listener:listen(1))
      listener:settimeout(0)
      local function segment(what, condition)
        return link:await(what, function(bytes)
          local tcp = packet(bytes).tcp
          return tcp and tcp.sport == 7000 and condition(tcp, packet(bytes).payload)
        end)
      end
      link:send(build({ ip = ip, tcp = { sport = 40000, dport = 7000, seq = 0xfffffff0, flags = "S", mss = 600,
        options = { window_scale = 2, sack_permitted = true, timestamps = { 1000, 0 } } } }))
      local syn_ack = segment("SYN and ACK", function(tcp) return tcp.syn end)
      local tcp = packet(syn_ack).tcp
      assert.are.same({ "SA", 0xfffffff1, 1000 }, { tcp.flags, tcp.ack_seq, (string.unpack(">I4", tcp:option(8), 5)) })
      assert.is_not_nil(tcp:option(3))
      assert.is_not_nil(tcp:option(4))

      link:send(build({ reply = syn_ack }), build({ reply = syn_ack, payload = "question, odd" }))
      local server
      net.wait_for("the connection", function()
        server = listener:accept()
        return server
      end)
      keep(server):settimeout(5)
      assert.are.equal("question, odd", server:receive(13))

      -- The kernel keeps to the MSS (less the 12 bytes of timestamps), and hears that its data came.
      local answer = ("abcdefgh"):rep(250)
      assert(server:send(answer))
      local got, last = "", nil
      while #got < #answer do
        last = segment("data", function(_, payload) return #payload > 0 end)
        assert.is_true(#packet(last).payload <= 588)
        got = got .. packet(last).payload
        link:send(build({ reply = last }))
      end
      assert.are.equal(answer, got)
      link:send(build({ reply = last, tcp = { fin = true } }))
      assert.are.equal("closed", (select(2, server:receive(1))))
      server:close()
      local fin = segment("FIN", function(found) return found.fin end)
      link:send(build({ reply = fin, tcp = { seq = packet(fin).tcp.ack_seq } }))
      net.wait_for("the connection to end", function()
        return not net.sh("ss -Htan sport = :7000 or dport = :7000"):find("LAST%-ACK")
      end)
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    -- A TCP client of the kernel, which does not wait: the SYN it sent.
    local function connect()
      local client = keep(version == 4 and socket.tcp4() or socket.tcp6())
      client:settimeout(0)
      client:connect(wire.THERE[version], 7000)
      return client, link:await("a SYN", function(bytes)
        local tcp = packet(bytes).tcp
        return tcp and tcp.syn and tcp.dport == 7000
      end)
    end

    -- What becomes of the connection: the error, nil when it is there.
    local function outcome(client)
      net.wait_for("the connection to end", function()
        local _, writable = socket.select({}, { client }, 0)
        return writable[client]
      end)
      local _, why = client:connect(wire.THERE[version], 7000)
      return why
    end

    it("has its connection refused by a reset", function()
      local client, syn = connect()
      link:send(build({ reply = syn, tcp = { rst = true } }))
      assert.are.equal("connection refused", outcome(client))
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    it("has a connection it believes in reset", function()
      local client, syn = connect()
      link:send(build({ reply = syn, tcp = { mss = 1000 } }))
      assert.is_nil((outcome(client)))
      assert(client:send("question"))
      local question = link:await("the question", function(bytes) return packet(bytes).payload == "question" end)
      link:send(build({ reply = question, tcp = { rst = true } }))
      client:settimeout(10)
      local _, why = client:receive(1)
      assert.are.equal("closed", why) -- LuaSocket's word for a reset, too
      assert.are.equal("", (net.sh("ss -Htan dport = :7000")))
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    it("hears the error a firewall sends", function()
      local client, syn = connect()
      link:send(build({ reply = syn, icmp = version == 4 and { type = 3, code = 13 } or { type = 1, code = 1 } }))
      assert.are.equal(version == 4 and "No route to host" or "permission denied", outcome(client))

      local udp = keep(version == 4 and socket.udp4() or socket.udp6())
      assert(udp:setpeername(wire.THERE[version], 7000))
      udp:settimeout(0)
      udp:send(("x"):rep(1400)) -- more than an error of IPv4 embeds
      link:send(build({ reply = link:await("the datagram", function(bytes) return packet(bytes).udp end),
        icmp = version == 4 and { type = 3, code = 3 } or { type = 1, code = 4 } }))
      net.wait_for("the error", function()
        local _, why = udp:receive()
        return why == "refused" or why == "connection refused"
      end)
      assert.are.equal(errors, traffic.checksum_errors())
    end)

    it("learns the MTU of the path", function()
      local udp = keep(version == 4 and socket.udp4() or socket.udp6())
      assert(udp:setpeername(wire.THERE[version], 7000))
      udp:send(("x"):rep(1400))
      local large = link:await("the datagram", function(bytes) return packet(bytes).udp end)
      link:send(build({ reply = large,
        icmp = version == 4 and { type = 3, code = 4, seq = 1300 } or { type = 2, seq = 1300 } }))
      net.wait_for("the route to know", function()
        return net.sh("ip route get " .. wire.THERE[version]):find("mtu 1300", 1, true)
      end)
      assert.are.equal(errors, traffic.checksum_errors())
    end)
  end)
end
