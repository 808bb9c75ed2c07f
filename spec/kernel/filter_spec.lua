-- The configuration's filter with real packets: what does not match passes without the handler.

local net = require("support.net")
local traffic = require("support.traffic")

local QUEUE = 5
local PORT = 4800

after_each(traffic.cleanup)

for _, family in ipairs(traffic.FAMILIES) do
  describe("a filter over " .. family.name, function()
    it("lets what does not match pass unseen, in order with the rest", function()
      local seen, other = traffic.udp(family), traffic.udp(family)
      traffic.rule(("-A OUTPUT -p udp -j NFQUEUE --queue-num %d"):format(QUEUE), family)
      local texts = {}
      local queue = traffic.open(QUEUE, function(pkt)
        texts[#texts + 1] = pkt.payload
        if pkt.payload == "error" then
          error("seen")
        end
        return pkt.payload == "drop" and pkt:drop() or nil
      end, { filter = "udp dst port " .. seen.port, default = "accept" })
      traffic.log(function()
        other:send("one")
        seen:send("drop", "pass")
        other:send("error", "two")
        seen:send("error", "last")
        other:send("three")
        traffic.judge_packets(queue, 8)
      end)
      assert.same({ "drop", "pass", "error", "last" }, texts)
      assert.same({ "one", "error", "two", "three" }, other:received())
      assert.same({ "pass", "last" }, seen:received())
      local stats = queue:stats()
      assert.same({ 8, 6, 2, 2, 1 }, { stats.packets, stats.accepted, stats.dropped, stats.undecided, stats.errors })
      assert.equal(8, traffic.verdicts(stats))
    end)

    for _, gso in ipairs({ true, false }) do
      it(("tells connections apart, with gso = %s"):format(gso), function()
        local path = traffic.text_file(1 << 20)
        traffic.rule(("-A OUTPUT -p tcp -j NFQUEUE --queue-num %d"):format(QUEUE), family)
        local seen, largest = 0, 0
        local queue = traffic.open(QUEUE, function(pkt)
          seen = seen + 1
          largest = math.max(largest, #pkt)
        end, { filter = ("tcp dst port %d"):format(PORT), gso = gso })
        local got = traffic.transfer({ queue }, path, { port = PORT + 1, family = family })
        assert.equal(traffic.sha256(path), traffic.sha256(got))
        assert.equal(0, seen)
        local before = queue:stats().packets
        got = traffic.transfer({ queue }, path, { port = PORT, family = family })
        assert.equal(traffic.sha256(path), traffic.sha256(got))
        local stats = queue:stats()
        assert.is_true(seen > 0 and seen < stats.packets - before) -- the other direction is not
        assert.equal(gso, largest > 1500)
        assert.equal(stats.packets, stats.accepted)
      end)
    end
  end)
end

describe("nfqueue run --filter", function()
  it("is for every thread, and for the next worker", function()
    traffic.rule(("-A OUTPUT -p udp --dport %d:%d -j NFQUEUE --queue-balance %d:%d"):format(PORT, PORT + 1, QUEUE,
      QUEUE + 1))
    local run = net.run(("%s -q %d-%d --threads 2 --filter 'udp port %d'"):format(
      net.file("return function(pkt) pkt:drop() end"), QUEUE, QUEUE + 1, PORT))
    local boxes = { net.udp(PORT), net.udp(PORT + 1) }
    finally(function()
      boxes[1]:close()
      boxes[2]:close()
    end)
    for turn = 1, 2 do
      boxes[1]:send("drop" .. turn)
      boxes[2]:send("pass" .. turn)
      boxes[2]:await("pass" .. turn)
      if turn == 1 then
        net.must("kill -KILL " .. run:worker())
        net.wait_for("a new worker", function() return run:count("ready:") == 2 end)
      end
    end
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.same({}, boxes[1]:all())
  end)
end)
