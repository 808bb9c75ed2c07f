-- pkt.ct: the connection a packet belongs to, as conntrack(8) tells it at the same moment.

local conntrack = require("support.conntrack")
local net = require("support.net")
local socket = require("socket")
local traffic = require("support.traffic")

local missing = conntrack.missing()
local UDP, TCP = 17, 6
local QUEUE = 5

-- A queue whose handler notes pkt.ct and, while it has the packet, what conntrack(8) says of the connection.
local function watch(family, config)
  local notes = {}
  local queue = traffic.open(QUEUE, function(pkt)
    local ct = pkt.ct
    local told = ct and conntrack.find(family, ct.orig.protocol, ct.orig.dport)
    notes[#notes + 1] = { ct = ct, told = told, hook = pkt.hook }
    pkt:accept()
  end, config or { conntrack = true })
  return queue, notes
end

-- Answer the next datagram: what it says, and who sent it as the receiver sees it.
local function answer(udp, text)
  local got = net.wait_for("a datagram", function()
    local got = table.pack(udp.receiver:receivefrom())
    return got[1] and got
  end)
  udp.receiver:sendto(text, got[2], got[3])
  return got[1], got[2]
end

local function send_udp_both_ways(family)
  local udp = traffic.udp(family)
  return { protocol = UDP, dport = udp.port }, {
    function() udp:send("there") end,
    function() assert.equal("there", (answer(udp, "back"))) end,
    function() udp:send("there again") end,
  }
end

local function send_udp_to_closed_port(family)
  local udp = traffic.udp(family)
  udp.receiver:close()
  return { protocol = UDP, dport = udp.port }, { function() udp:send("nobody") end, function() end }
end

local function open_tcp(family)
  local server = assert(socket[family.name == "IPv4" and "tcp4" or "tcp6"]())
  local client = assert(socket[family.name == "IPv4" and "tcp4" or "tcp6"]())
  assert(server:bind(family.address, 0))
  assert(server:listen())
  local port = math.tointeger(tonumber((select(2, server:getsockname()))))
  client:settimeout(0)
  return { protocol = TCP, dport = port }, {
    function() client:connect(family.address, port) end, function() end, function() end,
  }, { server, client }
end

local function ping(family)
  return { protocol = family.name == "IPv4" and 1 or 58 }, {
    function() net.start("ping -n -c 1 " .. family.address) end, function() end,
  }
end

-- `packets`: what each packet through the OUTPUT hook is to its connection.
local FLOWS = {
  {
    name = "UDP", start = send_udp_both_ways,
    packets = {
      { state = "new", direction = "original" },
      { state = "established", direction = "reply", confirmed = true, seen_reply = true },
      { state = "established", direction = "original", confirmed = true, seen_reply = true },
    },
  },
  {
    name = "TCP", start = open_tcp,
    packets = {
      { state = "new", direction = "original" },
      { state = "established", direction = "reply", confirmed = true, seen_reply = true },
      { state = "established", direction = "original", confirmed = true, seen_reply = true, assured = true },
    },
  },
  {
    name = "ICMP echo", start = ping,
    packets = {
      { state = "new", direction = "original" },
      { state = "established", direction = "reply", confirmed = true, seen_reply = true },
    },
  },
  {
    name = "ICMP error about UDP", start = send_udp_to_closed_port,
    packets = {
      { state = "new", direction = "original" },
      { state = "related", direction = "reply", confirmed = true },
    },
  },
}

local STATUS = { "expected", "seen_reply", "assured", "confirmed", "snat", "dnat", "dying" }

local function assert_status(wanted, status)
  local all = {}
  for _, name in ipairs(STATUS) do
    all[name] = wanted[name] or false
  end
  assert.same(all, status)
end

describe("pkt.ct", function()
  if missing then
    pending(missing)
    return
  end

  local sockets
  before_each(function()
    sockets = {}
  end)
  after_each(function()
    for _, item in ipairs(sockets) do
      item:close()
    end
    traffic.cleanup()
  end)

  for _, family in ipairs(traffic.FAMILIES) do
    for _, case in ipairs(FLOWS) do
      it(("%s over %s: every packet is told as conntrack(8) tells it"):format(case.name, family.name), function()
        conntrack.enable()
        traffic.rule(("-A OUTPUT -s %s -j NFQUEUE --queue-num %d"):format(family.address, QUEUE), family)
        local queue, notes = watch(family)
        local flow, steps, opened = case.start(family)
        sockets = opened or {}
        for i, step in ipairs(steps) do
          step()
          traffic.judge_packets(queue, i)
        end
        local final = assert(conntrack.find(family, flow.protocol, flow.dport))
        for i, wanted in ipairs(case.packets) do
          local ct = notes[i].ct
          assert.equal(wanted.state, ct.state)
          assert.equal(wanted.direction, ct.direction)
          assert_status(wanted, ct.status)
          -- An entry is listed once its first packet has left.
          local told = notes[i].told or not wanted.confirmed and final
          local described = conntrack.described(ct)
          if not wanted.confirmed then
            assert.is_nil(notes[i].told)
            described.seen_reply, described.assured = final.seen_reply, final.assured
          end
          assert.same(told, described)
        end
      end)
    end

    it("shows both tuples of translated connections over " .. family.name, function()
      local four = family.name == "IPv4"
      local before, from = four and "127.0.0.9" or "fd00::9", four and "127.0.0.5" or "fd00::5"
      if not four then
        net.must("ip -6 address replace fd00::9/128 dev lo && ip -6 address replace fd00::5/128 dev lo")
      end
      local udp = traffic.udp(family)
      local port = udp.port == 65535 and 1024 or udp.port + 1
      local to = (four and "%s:%d" or "[%s]:%d"):format(family.address, udp.port)
      traffic.rule(("-t nat -A OUTPUT -p udp --dport %d -j DNAT --to-destination %s"):format(port, to), family)
      traffic.rule(("-t nat -A POSTROUTING -p udp --dport %d -j SNAT --to-source %s"):format(udp.port, from), family)
      traffic.rule(("-A OUTPUT -p udp -j NFQUEUE --queue-num %d"):format(QUEUE), family)
      local queue, notes = watch(family)
      local client = family.udp()
      sockets = { client }
      assert(client:sendto("hello", before, port))
      traffic.judge_packets(queue, 1)
      assert.same({ "hello", from }, { answer(udp, "back") })
      traffic.judge_packets(queue, 2)
      local ct = notes[2].ct
      assert.same({ "established", "reply" }, { ct.state, ct.direction })
      assert_status({ seen_reply = true, confirmed = true, snat = true, dnat = true }, ct.status)
      assert.same({ before, port }, { ct.orig.dst, ct.orig.dport })
      assert.same({ family.address, udp.port, from }, { ct.reply.src, ct.reply.sport, ct.reply.dst })
      assert.same(notes[2].told, conntrack.described(ct))
      -- The first packet met the queue before its source was translated.
      assert_status({ dnat = true }, notes[1].ct.status)
      assert.equal(ct.id, notes[1].ct.id)
    end)
  end

  -- Without an error, each for a reason of its own.
  local NOTHING = {
    { name = "no rule speaks of connections", prepare = function() end },
    { name = "the packet is not tracked",
      prepare = function()
        conntrack.enable()
        traffic.rule("-t raw -A OUTPUT -p udp -j CT --notrack")
      end },
    { name = "it was not asked for", prepare = conntrack.enable, config = { conntrack = false } },
    { name = "the standard configuration does not ask for it", prepare = conntrack.enable, config = {} },
  }
  for _, case in ipairs(NOTHING) do
    it("is nil when " .. case.name, function()
      case.prepare()
      local udp = traffic.udp()
      net.queue_udp(udp.port, QUEUE)
      local queue, notes = watch(traffic.FAMILIES[1], case.config)
      udp:send("one", "two")
      traffic.judge_packets(queue, 2)
      assert.same({ { hook = "output" }, { hook = "output" } }, notes)
      assert.equal(0, queue:stats().errors)
      net.wait_for("both datagrams", function() return #udp:received() == 2 end)
    end)
  end
end)
