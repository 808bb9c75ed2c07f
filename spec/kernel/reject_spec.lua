-- pkt:reject with real clients: they are told at once, on every hook, over both families; and nobody is told what
-- must stay unanswered.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local QUEUE = 5
local PORT = 4600

after_each(traffic.cleanup)

-- Rejects what goes to PORT, by kind; everything else passes.
local SCRIPT = ([[
  local kind = (...).kind
  return function(pkt)
    local header = pkt.tcp or pkt.udp
    if header and header.dport == %d then
      return pkt:reject(kind)
    end
    pkt:accept()
  end
]]):format(PORT)

local function run(kind)
  return net.run(("%s -q %d %s"):format(net.file(SCRIPT), QUEUE, kind and "-- kind=" .. kind or ""))
end

-- A client that is not told would wait longer than this.
local function curl(url, from)
  local text, _, status = net.sh(("%s curl -gsSv --noproxy '*' --max-time 60 '%s'"):format(from or "", url))
  return text, status
end

local function dig(address, from)
  return (net.sh(("%s dig +tries=1 +timeout=60 +noedns -p %d @%s example.org"):format(from or "", PORT, address)))
end

local has_dig = select(2, net.sh("command -v dig"))

for _, hook in ipairs({ "OUTPUT", "INPUT" }) do
  for _, family in ipairs(traffic.FAMILIES) do
    local address = family.name == "IPv6" and "[::1]" or "127.0.0.1"

    describe(("a packet of %s rejected on %s"):format(family.name, hook), function()
      before_each(function()
        for _, protocol in ipairs({ "tcp", "udp" }) do
          traffic.rule(("-A %s -p %s --dport %d -j NFQUEUE --queue-num %d"):format(hook, protocol, PORT, QUEUE), family)
        end
      end)

      it("is a refused connection for curl", function()
        run()
        local text, status = curl(("http://%s:%d/"):format(address, PORT))
        assert.equal(7, status, text)
        assert.matches("Connection refused", text, 1, true)
      end)

      it("is a refused port for dig", function()
        if not has_dig then
          return pending("dig is not installed (bind9-dnsutils)")
        end
        run()
        assert.matches("connection refused", dig(family.address), 1, true)
      end)

      -- What the kernel makes of each error: icmp_err_convert, and icmpv6_err_convert.
      for kind, errors in pairs({
        ["icmp-port"] = { IPv4 = "Connection refused", IPv6 = "Connection refused" },
        ["icmp-host"] = { IPv4 = "No route to host", IPv6 = "No route to host" },
        ["icmp-net"] = { IPv4 = "Network is unreachable", IPv6 = "Network is unreachable" },
        ["icmp-admin"] = { IPv4 = "No route to host", IPv6 = "Permission denied" },
      }) do
        it(("is %q for curl with %s"):format(errors[family.name], kind), function()
          run(kind)
          local text, status = curl(("http://%s:%d/"):format(address, PORT))
          assert.equal(7, status, text)
          assert.matches(errors[family.name], text, 1, true)
        end)
      end

      it("resets a connection in the middle of it", function()
        net.run(("%s -q %d"):format(net.file([[return function(pkt)
          if pkt.payload:find("forbidden", 1, true) then
            return pkt:reject()
          end
          pkt:accept()
        end]]), QUEUE))
        local version, host = family.socat:match("(.):(.*)")
        local server = net.start(("socat -u TCP%s-LISTEN:%d,bind=%s,reuseaddr OPEN:/dev/null"):format(version, PORT,
          host))
        traffic.wait_listening(version == "4" and "tcp" or "tcp6", PORT)
        local text, status = curl(("http://%s:%d/forbidden"):format(address, PORT))
        assert.equal(56, status, text)
        assert.matches("Recv failure: Connection reset by peer", text, 1, true)
        assert.is_true(server:is_alive()) -- it has heard nothing
      end)
    end)
  end
end

describe("a packet rejected on its way through", function()
  local left, right
  -- The addresses of the left and the right host, and this one's towards each.
  local NETS = {
    { name = "IPv4", program = "iptables", left = "192.0.2.2", here = "192.0.2.1", right = "198.51.100.2",
      there = "198.51.100.1", bits = 24, icmp = "icmp", url = "198.51.100.2" },
    { name = "IPv6", program = "ip6tables", left = "fd00:1::2", here = "fd00:1::1", right = "fd00:2::2",
      there = "fd00:2::1", bits = 64, icmp = "ipv6-icmp", url = "[fd00:2::2]" },
  }

  before_each(function()
    left, right = traffic.host("left"), traffic.host("right")
    net.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    for _, version in ipairs(NETS) do
      left:address(version.here, version.left, version.bits)
      right:address(version.there, version.right, version.bits)
      net.must(("%s ip route add default via %s"):format(left.enter, version.here))
      net.must(("%s ip route add default via %s"):format(right.enter, version.there))
      net.must(("%s -w -A FORWARD -p tcp --dport %d -j NFQUEUE --queue-num %d"):format(version.program, PORT, QUEUE))
      net.must(("%s -w -A FORWARD -p udp --dport %d -j NFQUEUE --queue-num %d"):format(version.program, PORT, QUEUE))
      -- Whose word an error is.
      net.must(("%s %s -w -A INPUT -p %s -s %s -j ACCEPT"):format(left.enter, version.program, version.icmp,
        version.here))
      net.must(("%s %s -w -A INPUT -p %s -s %s -j ACCEPT"):format(left.enter, version.program, version.icmp,
        version.right))
    end
    -- The first packet would wait for IPv6 to be ready, and could be lost.
    net.wait_for("a way from left to right", function()
      return select(2, net.sh(left.enter .. "ping -c 1 -W 1 fd00:2::2"))
    end)
  end)

  after_each(function()
    left:remove()
    right:remove()
    net.must("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
  end)

  for _, version in ipairs(NETS) do
    local function errors_from(address)
      local _, count = net.must(("%s %s -w -vxnL INPUT"):format(left.enter, version.program))
        :gsub("\n%s*[1-9]%d*%s+%d+%s+ACCEPT[^\n]*" .. address:gsub("%p", "%%%0") .. "[%s/]", "")
      return count > 0
    end

    it(version.name .. " is refused, by a reset in the name of the one asked", function()
      run()
      net.must(("%s %s -w -Z INPUT"):format(left.enter, version.program))
      local text, status = curl(("http://%s:%d/"):format(version.url, PORT), left.enter)
      assert.equal(7, status, text)
      assert.matches("Connection refused", text, 1, true)
      assert.is_false(errors_from(version.here))
      if has_dig then
        assert.matches("connection refused", dig(version.right, left.enter), 1, true)
        assert.is_true(errors_from(version.here), "an error is the router's own word")
        assert.is_false(errors_from(version.right))
      end
    end)

    it(version.name .. " is refused by an error of the router", function()
      run("icmp-admin")
      net.must(("%s %s -w -Z INPUT"):format(left.enter, version.program))
      local text, status = curl(("http://%s:%d/"):format(version.url, PORT), left.enter)
      assert.equal(7, status, text)
      assert.matches(version.name == "IPv6" and "Permission denied" or "No route to host", text, 1, true)
      assert.is_true(errors_from(version.here))
      assert.is_false(errors_from(version.right))
    end)
  end

  it("to a broadcast address gets no answer, and to link-local ones it does", function()
    local queue = traffic.open(QUEUE, function(pkt) pkt:reject() end)
    for _, program in ipairs({ "iptables", "ip6tables" }) do
      net.must(("%s -w -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(program, PORT, QUEUE))
      net.must(("%s -w -A OUTPUT -p %s -m mark --mark 0x6e71 -j ACCEPT")
        :format(program, program == "iptables" and "icmp" or "ipv6-icmp"))
    end
    local function send(address, from)
      net.must(("%s sh -c 'echo x | socat -u - %s,broadcast'"):format((from or left).enter, address))
    end
    send(("UDP4:192.0.2.255:%d"):format(PORT))
    traffic.judge_packets(queue, 1)
    assert.equal(0, net.rule_packets("OUTPUT", "mark match 0x6e71"))
    send(("UDP4:192.0.2.1:%d"):format(PORT))
    traffic.judge_packets(queue, 2)
    assert.equal(1, net.rule_packets("OUTPUT", "mark match 0x6e71"))
    for turn, host in ipairs({ left, right }) do
      -- Both links have the same prefix: the answer has to know where it came from.
      local here = net.must(("ip -6 address show dev %s scope link"):format(host.interface)):match("inet6 (fe80%S+)/")
      net.must(("%s ip6tables -w -A INPUT -p ipv6-icmp --icmpv6-type port-unreachable -s %s -j ACCEPT")
        :format(host.enter, here))
      send(("UDP6:[%s%%eth0]:%d"):format(here, PORT), host)
      traffic.judge_packets(queue, 2 + turn)
      net.wait_for("an answer by " .. host.interface, function()
        return net.must(host.enter .. "ip6tables -w -vxnL INPUT"):find("\n%s+1%s+%d+[^\n]*" .. here:gsub("%p", "%%%0"))
      end)
    end
    assert.equal(4, queue:stats().rejected)
  end)
end)

describe("the answer", function()
  -- Sends one datagram that is rejected: what was logged, and the queue's counters.
  local function reject_one(config)
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(udp.port, QUEUE))
    local answers = {}
    local queue = traffic.open(QUEUE, function(pkt)
      pkt:reject()
      answers[#answers + 1] = pkt.answer
    end, config)
    local log = traffic.log(function()
      udp:send("hello")
      traffic.judge_packets(queue, 1)
    end)
    assert.same({}, udp:received())
    return queue:stats(), log, answers[1]
  end

  it("carries loop_mark", function()
    for _, case in ipairs({ { nil, "0x6e71" }, { { loop_mark = 77 }, "0x4d" }, { { loop_mark = 0 }, "0x0" } }) do
      traffic.rule("-A OUTPUT -p icmp -m mark --mark " .. case[2] .. " -j ACCEPT")
      local stats, log = reject_one(case[1])
      assert.equal("", log)
      assert.equal(1, net.rule_packets("OUTPUT", "mark match " .. case[2]))
      assert.same({ 1, 0, 0 }, { stats.rejected, stats.dropped, stats.injected })
      traffic.cleanup()
    end
  end)

  it("to a packet that was held leaves when it is rejected, from a timer too", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(udp.port, QUEUE))
    traffic.rule("-A OUTPUT -p icmp -m mark --mark 0x6e71 -j ACCEPT")
    local held = {}
    local queue = traffic.open(QUEUE, function(pkt)
      pkt:hold()
      held[#held + 1] = pkt
    end)
    udp:send("one")
    net.wait_for("a packet to be held", function()
      queue:process()
      return held[1]
    end)
    assert.equal(0, net.rule_packets("OUTPUT", "mark match 0x6e71"))
    held[1]:reject()
    assert.equal(1, net.rule_packets("OUTPUT", "mark match 0x6e71"))
    udp:send("told of the refusal instead", "two")
    net.wait_for("another packet to be held", function()
      queue:process()
      return held[2]
    end)
    nfqueue.after(0, function() held[2]:reject("icmp-host") end)
    net.wait_for("the timer", function()
      queue:process()
      return queue:stats().rejected == 2
    end)
    assert.equal(2, net.rule_packets("OUTPUT", "mark match 0x6e71"))
    assert.same({}, udp:received())
  end)

  it("is what pkt.answer says", function()
    local _, _, answer = reject_one()
    local pkt = nfqueue.packet(answer)
    assert.same({ 3, 3, "127.0.0.1", "127.0.0.1" }, { pkt.icmp.type, pkt.icmp.code, pkt.ip.src, pkt.ip.dst })
    assert.equal("hello", nfqueue.packet(pkt.payload).payload)
  end)

  it("that a rule keeps from leaving is logged, and the packet is dropped", function()
    traffic.rule("-A OUTPUT -p icmp -j DROP")
    local stats, log = reject_one()
    assert.matches("queue 5: cannot answer a rejected packet, only drop it: Operation not permitted", log, 1, true)
    assert.equal(1, stats.rejected)
  end)

  it("without CAP_NET_RAW is missing: the queue runs, drops, and says so", function()
    local process = net.start(("setpriv --bounding-set -net_raw --inh-caps -net_raw %s run %s -q %d")
      :format(net.command, net.file(SCRIPT), QUEUE))
    process:await("ready:")
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE))
    local udp = socket.udp4()
    udp:sendto("hello", "127.0.0.1", PORT)
    process:await("queue 5: cannot answer a rejected packet, only drop it: Operation not permitted")
    udp:close()
    process:signal("TERM")
    assert.equal(0, process:join())
  end)
end)
