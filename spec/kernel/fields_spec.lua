-- What a packet says of itself on every hook, in a small network: left - router - right. The router is this
-- namespace; the ends are namespaces of their own, each behind a pair of virtual Ethernet interfaces.

local net = require("support.net")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local HOOKS = { "prerouting", "input", "forward", "output", "postrouting" } -- on queues 1 to 5

local VERSIONS = {
  {
    name = "IPv4", program = "iptables", icmp = "icmp", family = "ip", ethertype = 0x0800, header = 20,
    left = "10.1.0.2", left_router = "10.1.0.1", right = "10.2.0.2", right_router = "10.2.0.1", bits = 24,
    forwarding = "/proc/sys/net/ipv4/ip_forward", request = 8,
  },
  {
    name = "IPv6", program = "ip6tables", icmp = "ipv6-icmp", family = "ip6", ethertype = 0x86dd, header = 40,
    left = "fd01::2", left_router = "fd01::1", right = "fd02::2", right_router = "fd02::1", bits = 64,
    forwarding = "/proc/sys/net/ipv6/conf/all/forwarding", request = 128,
  },
}

local MACS = { left = "02:00:00:00:01:02", right = "02:00:00:00:02:02" }

local SIZE = 100 -- of the ping's data

local ends = {}
local stamped

local function make_network()
  for _, version in ipairs(VERSIONS) do
    local file = assert(io.open(version.forwarding, "w"))
    file:write("1\n")
    file:close()
  end
  for side, mac in pairs(MACS) do
    local host = traffic.host("to-" .. side, mac)
    for _, version in ipairs(VERSIONS) do
      local router = version[side .. "_router"]
      host:address(router, version[side], version.bits)
      net.must(host.enter .. "ip route add default via " .. router)
    end
    ends[side] = host
  end
end

-- The kernel stamps packets while anybody asks for it, as this socket does; it begins a little later.
local function want_timestamps()
  stamped = net.must("socat -u UDP4-RECV:9,so-timestamp OPEN:/dev/null >/dev/null 2>&1 & echo $!")
  local udp = traffic.udp()
  traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 6"):format(udp.port))
  local stamp
  local queue = traffic.open(6, function(pkt) stamp = pkt.timestamp end)
  net.wait_for("packets with a timestamp", function()
    udp:send("stamp me")
    queue:process()
    return stamp
  end)
  traffic.cleanup()
end

-- Echo requests (not replies) of one version at every hook of the router, while left pings `target`: for each
-- hook the fields of the first.
local function observe(version, target, options)
  local seen, queues = {}, {}
  for number, hook in ipairs(HOOKS) do
    net.must(("%s -w -t mangle -A %s -p %s -j NFQUEUE --queue-num %d")
      :format(version.program, hook:upper(), version.icmp, number))
    queues[number] = traffic.queue(number, function(pkt, queue)
      local kind = pkt:u8(version.header)
      if kind == version.request or kind == version.request + (version.request == 8 and -8 or 1) then
        local name = (kind == version.request and "request " or "reply ") .. pkt.hook
        seen[name] = seen[name] or {
          queue = queue.number, id = pkt.id, family = pkt.family, ethertype = pkt.ethertype,
          timestamp = pkt.timestamp, mark = pkt.mark, priority = pkt.priority, iif = pkt.iif, oif = pkt.oif,
          iifname = pkt.iifname, oifname = pkt.oifname, hwaddr = pkt.hwaddr, length = pkt.length, bytes = #pkt,
          physiif = pkt.physiif, physoif = pkt.physoif, physiifname = pkt.physiifname,
          physoifname = pkt.physoifname, vlan = pkt.vlan, l2header = pkt.l2header, truncated = pkt.truncated,
          gso = pkt.gso, uid = pkt.uid, gid = pkt.gid, secctx = pkt.secctx, verdict = pkt.verdict,
        }
      end
    end)
    assert(queues[number]:open())
  end
  local before = os.time()
  local ping = net.start(("%s ping -n -c 1 -W 5 -s %d %s %s"):format(ends.left.enter, SIZE, options or "", target))
  traffic.judge(queues, "the ping", function()
    return not ping:is_alive()
  end)
  assert(ping:join() == 0, ping:output())
  return seen, before, os.time()
end

local function index_of(name)
  return math.tointeger(tonumber(net.must("ip -o link show dev " .. name):match("^(%d+)")))
end

describe("the fields of", function()
  setup(function()
    want_timestamps()
    make_network()
  end)
  teardown(function()
    net.must("kill " .. stamped)
    for _, host in pairs(ends) do
      host:remove()
    end
  end)

  after_each(traffic.cleanup)

  for _, version in ipairs(VERSIONS) do
    it(("an %s packet through the router, on every hook it passes"):format(version.name), function()
      local seen, before, after = observe(version, version.right)
      local left, right = index_of("to-left"), index_of("to-right")
      local common = {
        family = version.family, ethertype = version.ethertype, mark = 0, priority = 0, gso = false,
        truncated = false, length = version.header + 8 + SIZE, bytes = version.header + 8 + SIZE,
      }
      for hook, expected in pairs({
        prerouting = { queue = 1, iif = left, iifname = "to-left", hwaddr = MACS.left, timestamp = true },
        forward = {
          queue = 3, iif = left, iifname = "to-left", oif = right, oifname = "to-right", hwaddr = MACS.left,
          timestamp = true,
        },
        postrouting = { queue = 5, oif = right, oifname = "to-right" },
      }) do
        local fields = seen["request " .. hook]
        assert.is_table(fields, hook)
        if expected.timestamp then
          assert.is_true(fields.timestamp >= before and fields.timestamp <= after + 1, hook)
          fields.timestamp = true
        end
        if hook == "postrouting" then -- newer kernels tell here too where a packet came from
          assert.is_true(fields.iif == nil or fields.iif == left)
          fields.iif, fields.iifname, fields.hwaddr = nil, nil, nil
        end
        assert.is_true(fields.id >= 1) -- neighbour discovery may go first
        fields.id = nil
        for name, value in pairs(common) do
          expected[name] = value
        end
        assert.same(expected, fields)
      end
      assert.is_nil(seen["request input"])
      assert.is_nil(seen["request output"])
    end)

    it(("an %s packet to the router and its answer"):format(version.name), function()
      local seen = observe(version, version.left_router)
      local left = index_of("to-left")
      local input = seen["request input"]
      assert.equal(2, input.queue)
      assert.equal(left, input.iif)
      assert.equal("to-left", input.iifname)
      assert.is_nil(input.oif)
      assert.is_nil(input.oifname)
      assert.equal(MACS.left, input.hwaddr)
      assert.is_number(input.timestamp)
      for _, hook in ipairs({ "output", "postrouting" }) do
        local fields = seen["reply " .. hook]
        assert.equal(left, fields.oif)
        assert.equal("to-left", fields.oifname)
        assert.is_nil(fields.iif)
        assert.is_nil(fields.iifname)
        assert.is_nil(fields.hwaddr)
        assert.is_nil(fields.timestamp)
        assert.equal(version.family, fields.family)
        assert.equal(version.ethertype, fields.ethertype)
        assert.equal(version.header + 8 + SIZE, fields.length)
      end
      assert.is_nil(seen["request forward"])
      assert.is_nil(seen["reply input"])
    end)

    it(("an %s packet that a rule has marked, with a type of service"):format(version.name), function()
      net.must(("%s -w -t raw -A PREROUTING -j MARK --set-mark 0xfedcba98"):format(version.program))
      local seen = observe(version, version.right, "-Q 0x10")
      assert.equal(0xfedcba98, seen["request prerouting"].mark)
      assert.equal(0xfedcba98, seen["request postrouting"].mark)
      -- Forwarding gives IPv4 the priority of its type of service (RFC 1349's low delay: 6).
      assert.equal(version.name == "IPv4" and 6 or 0, seen["request forward"].priority)
      assert.equal(0, seen["request prerouting"].priority)
    end)
  end
end)

describe("ids", function()
  after_each(traffic.cleanup)

  measured("count from 1 in each queue, one after the other", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 1"):format(udp.port))
    traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 2"):format(udp.port))
    local ids = { {}, {} }
    local function note(pkt, queue)
      table.insert(ids[queue.number], pkt.id)
      return traffic.payload(pkt) == "b" and "drop" or "accept"
    end
    local both = { traffic.open(1, note), traffic.open(2, note) }
    udp:send("a", "b", "c")
    traffic.judge(both, "the datagrams", function()
      return #udp:received() == 2
    end)
    assert.same({ { 1, 2, 3 }, { 1, 2 } }, ids)
    assert.equal(3, net.queue(1).id_sequence)
    assert.equal(2, net.queue(2).id_sequence)
  end)
end)
