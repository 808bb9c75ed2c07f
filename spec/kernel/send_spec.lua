-- nfqueue.send into a real kernel: what arrives, with which mark, by which interface, and why it cannot.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local QUEUE = 5
local PORT = 4700
local EPERM, ENODEV, EMSGSIZE, ENETUNREACH = 1, 19, 90, 101

after_each(traffic.cleanup)

-- UDP to a port of this host goes through the queue, but what carries the mark.
local function rules(family, port, mark)
  traffic.rule(("-A OUTPUT -p udp --dport %d -m mark --mark %s -j ACCEPT"):format(port, mark), family)
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(port, QUEUE), family)
end

local function marked(mark, family)
  return net.rule_packets("OUTPUT", "mark match " .. mark .. " *$", family.program)
end

for _, family in ipairs(traffic.FAMILIES) do
  describe("nfqueue.send over " .. family.name, function()
    local function build(udp, payload)
      return nfqueue.build({
        ip = { src = family.address, dst = family.address },
        udp = { sport = 40000, dport = udp.port },
        payload = payload,
      })
    end

    it("duplicates a packet, which loop_mark lets pass", function()
      local udp = traffic.udp(family)
      rules(family, udp.port, "0x6e71")
      local queue = traffic.open(QUEUE, function(pkt)
        assert(nfqueue.send(pkt:bytes()) == true)
        pkt:accept()
      end)
      assert.equal("", (traffic.log(function()
        udp:send("one", "two")
        traffic.judge_packets(queue, 2)
      end)))
      local texts = udp:received()
      table.sort(texts)
      assert.same({ "one", "one", "two", "two" }, texts)
      assert.equal(2, marked("0x6e71", family))
      local stats = queue:stats()
      assert.same({ 2, 2, 2 }, { stats.packets, stats.accepted, stats.injected })
    end)

    it("duplicates what kept its checksum from the network card, and what did not", function()
      for _, gso in ipairs({ true, false }) do
        local udp = traffic.udp(family)
        rules(family, udp.port, "0x6e71")
        local errors = traffic.checksum_errors()
        local queue = traffic.open(QUEUE, function(pkt)
          assert(nfqueue.send(pkt:bytes()))
          pkt:drop()
        end, { gso = gso })
        udp:send("checked")
        traffic.judge_packets(queue, 1)
        assert.same({ "checked" }, udp:received())
        assert.equal(errors, traffic.checksum_errors())
        traffic.cleanup()
      end
    end)

    it("carries the configured mark from a timer, and counts for the queue", function()
      local udp = traffic.udp(family)
      traffic.rule(("-A OUTPUT -p udp --dport %d -m mark --mark 0x4d"):format(udp.port), family)
      local queue = traffic.open(QUEUE, function() end, { loop_mark = 77 })
      local sent
      nfqueue.after(0, function() sent = nfqueue.send(build(udp, "later")) end)
      net.wait_for("the timer", function()
        queue:process()
        return sent ~= nil
      end)
      assert.is_true(sent)
      assert.same({ "later" }, udp:received())
      assert.equal(1, marked("0x4d", family))
      assert.equal(1, queue:stats().injected)
    end)

    it("carries the configured mark, the given one, or none", function()
      for _, case in ipairs({
        { loop_mark = 77, mark = "0x4d" },
        { loop_mark = 0, mark = "0x0" },
        { loop_mark = 77, options = { mark = 78 }, mark = "0x4e" },
        { loop_mark = 77, options = { mark = 0 }, mark = "0x0" },
        { loop_mark = 77, options = {}, mark = "0x4d" },
        { loop_mark = 0, options = { mark = 0xffffffff }, mark = "0xffffffff" },
      }) do
        local udp = traffic.udp(family)
        traffic.rule(("-A OUTPUT -p udp --dport %d -m mark --mark %s"):format(udp.port, case.mark), family)
        local other = traffic.udp(family)
        traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(other.port, QUEUE), family)
        local queue = traffic.open(QUEUE, function(pkt)
          assert(nfqueue.send(build(udp, "marked"), case.options))
          pkt:drop()
        end, { loop_mark = case.loop_mark })
        other:send("go")
        traffic.judge_packets(queue, 1)
        assert.same({ "marked" }, udp:received())
        assert.equal(1, marked(case.mark, family))
        traffic.cleanup()
      end
    end)

    it("works without a queue, with the usual mark or that of the queue made last", function()
      local udp = traffic.udp(family)
      traffic.rule(("-A OUTPUT -p udp --dport %d -m mark --mark 0x6e71"):format(udp.port), family)
      local path = net.file(([[
        local nfqueue = require("nfqueue")
        assert(nfqueue.send(%q) == true)
      ]]):format(build(udp, "alone")))
      assert.equal("", (net.must(net.lua .. " " .. path)))
      assert.same({ "alone" }, udp:received())
      assert.equal(1, marked("0x6e71", family))
      traffic.rule(("-A OUTPUT -p udp --dport %d -m mark --mark 0x5"):format(udp.port), family)
      traffic.open(QUEUE, function() end, { loop_mark = 5 })
      assert.is_true(nfqueue.send(build(udp, "beside")))
      assert.same({ "alone", "beside" }, udp:received())
      assert.equal(1, marked("0x5", family))
    end)

    it("brings a whole TCP transfer across in the place of its packets, large segments cut", function()
      local path = traffic.text_file(3 << 20)
      traffic.rule(("-A OUTPUT -p tcp -m mark --mark 0x6e71 -j ACCEPT"), family)
      traffic.rule(("-A OUTPUT -p tcp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE), family)
      traffic.rule(("-A OUTPUT -p tcp --sport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE), family)
      local largest = 0
      local queue = traffic.open(QUEUE, function(pkt)
        largest = math.max(largest, #pkt)
        assert(nfqueue.send(pkt:bytes()))
        pkt:drop()
      end)
      local errors = traffic.checksum_errors()
      local got = traffic.transfer({ queue }, path, { port = PORT, family = family })
      assert.equal(traffic.sha256(path), traffic.sha256(got))
      assert.is_true(largest > 1500, largest)
      local stats = queue:stats()
      assert.same({ stats.packets, 0, 0 }, { stats.dropped, stats.accepted, stats.errors })
      assert.is_true(stats.injected > stats.packets)
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("tells why it cannot", function()
      local udp = traffic.udp(family)
      local result = { nfqueue.send(build(udp, "x"), { iface = "nowhere" }) }
      assert.same({ nil, "cannot send: no interface 'nowhere'", ENODEV }, { result[1], result[2], result[3] })

      local far = nfqueue.build({
        ip = { src = family.address, dst = family.name == "IPv4" and "198.51.100.9" or "2001:db8::9" },
        udp = { sport = 1, dport = 2 },
      })
      local done, message, errno = nfqueue.send(far)
      assert.same({ nil, "cannot send: Network is unreachable", ENETUNREACH }, { done, message, errno })

      done, message, errno = nfqueue.send(build(udp, ("x"):rep(3000)))
      assert.same({ nil, "cannot send: Message too long: the link carries no packet of this length", EMSGSIZE },
        { done, message, errno })

      traffic.rule("-A OUTPUT -p udp -j DROP", family)
      done, message, errno = nfqueue.send(build(udp, "x"))
      assert.same({ nil, "cannot send: Operation not permitted: a firewall rule drops it on output", EPERM },
        { done, message, errno })
      assert.same({}, udp:received())
    end)

    it("leaves by the interface that is asked for", function()
      local hosts = { traffic.host("first"), traffic.host("second") }
      finally(function()
        hosts[1]:remove()
        hosts[2]:remove()
      end)
      local here, there, bits = "192.0.2.1", "192.0.2.2", 24
      if family.name == "IPv6" then
        here, there, bits = "fd00::1", "fd00::2", 64
      end
      for _, host in ipairs(hosts) do
        host:address(here, there, bits)
        net.must(("%s %s -w -A INPUT -p udp --dport %d -j DROP"):format(host.enter, family.program, PORT))
      end
      local function got(host)
        return tonumber(net.must(("%s %s -w -vxnL INPUT"):format(host.enter, family.program))
          :match("\n%s*(%d+)[^\n]*dpt:" .. PORT))
      end
      local bytes = nfqueue.build({ ip = { src = here, dst = there }, udp = { sport = 1, dport = PORT } })
      for turn, host in ipairs(hosts) do
        net.wait_for("a packet by " .. host.interface, function()
          assert.is_true(nfqueue.send(bytes, { iface = host.interface }))
          return got(host) > 0 -- the first ones wait for the neighbour's address, or are lost
        end)
        if turn == 1 then
          assert.equal(0, got(hosts[2]))
        end
      end
    end)
  end)
end

describe("nfqueue run", function()
  local SCRIPT = [[
    local nfqueue = require("nfqueue")
    return function(pkt)
      if pkt:find("die") then
        os.execute("kill -KILL $PPID")
      end
      local done, message, errno = nfqueue.send(pkt:bytes())
      io.stderr:write(("sent %s %s %s\n"):format(done, message, errno))
      pkt:accept()
    end
  ]]

  before_each(function()
    rules(traffic.FAMILIES[1], PORT, "0x6e71")
  end)

  it("opens its sockets once, for all threads and for the next worker", function()
    local run = net.run(("%s -q %d-%d --threads 2"):format(net.file(SCRIPT), QUEUE, QUEUE + 1))
    local box = net.udp(PORT) -- not before: it would be inherited
    finally(function() box:close() end)
    -- Of netlink and raw ones: it has others besides.
    local function raw_sockets(pid)
      local count, inodes = 0, {}
      for _, name in ipairs({ "raw", "raw6", "netlink" }) do
        for line in net.read(("/proc/%d/net/%s"):format(pid, name)):gmatch("[^\n]+") do
          local words = {}
          for word in line:gmatch("%S+") do
            words[#words + 1] = word
          end
          inodes[words[10]] = true
        end
      end
      for inode in net.must("ls -l /proc/" .. pid .. "/fd"):gmatch("socket:%[(%d+)%]") do
        count = count + (inodes[inode] and 1 or 0)
      end
      return count
    end
    assert.equal(4, raw_sockets(run.pid)) -- two of netlink, two raw
    box:send("before")
    box:await_count(2)
    local worker = run:worker()
    net.must("kill -KILL " .. worker)
    net.wait_for("a new worker", function() return run:count("ready:") == 2 end)
    box:send("after")
    box:await_count(4)
    local texts = box:all()
    table.sort(texts)
    assert.same({ "after", "after", "before", "before" }, texts)
    assert.equal(4, raw_sockets(run.pid))
  end)

  it("keeps the raw sockets from what scripts start", function()
    local run = net.run(("%s -q %d"):format(net.file([[
      return function(pkt)
        os.execute("ls -l /proc/self/fd >&2; echo listed >&2")
        pkt:accept()
      end]]), QUEUE))
    local box = net.udp(PORT)
    finally(function() box:close() end)
    box:send("list")
    run:await("listed\n")
    assert.is_nil(run:output():find("socket:", 1, true), run:output())
  end)

  it("runs without CAP_NET_RAW, where send says why it cannot", function()
    local process = net.start(("setpriv --bounding-set -net_raw --inh-caps -net_raw %s run %s -q %d")
      :format(net.command, net.file(SCRIPT), QUEUE))
    process:await("ready:")
    local box = net.udp(PORT)
    finally(function() box:close() end)
    box:send("hello")
    box:await("hello")
    process:await("sent nil cannot send: Operation not permitted: no raw socket, which needs CAP_NET_RAW at the "
      .. "start 1\n")
    process:signal("TERM")
    assert.equal(0, process:join())
  end)
end)
