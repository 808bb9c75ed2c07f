-- Packets that the kernel gave up while they were judged: their verdicts are refused, which is counted and ends
-- nothing.

local net = require("support.net")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

local WAYS = {
  {
    name = "the firewall's rules are removed",
    flush = function() net.must("nft flush ruleset") end,
    restore = function() end,
  },
  {
    name = "their interface goes down",
    flush = function() net.must("ip link set lo down") end,
    restore = function() net.must("ip link set lo up") end,
  },
}

-- A run of plain accepts or drops is one verdict for all of it, and so one refusal; any other is its own.
local VERBS = {
  { name = "accept", judge = function(pkt) pkt:accept() end, refused = 1 },
  { name = "drop", judge = function(pkt) pkt:drop() end, refused = 1 },
  { name = "modify", judge = function(pkt) pkt:modify(pkt:bytes()) end, refused = 5 },
  { name = "accept with a mark", judge = function(pkt) pkt:accept({ mark = 1 }) end, refused = 5 },
}

describe("verdicts of packets that are gone because", function()
  after_each(function()
    traffic.cleanup()
    net.must("ip link set lo up")
  end)

  for _, way in ipairs(WAYS) do
    for _, verb in ipairs(VERBS) do
      it(("%s, with %s, are counted, and later packets are judged"):format(way.name, verb.name), function()
        local udp = traffic.udp()
        local rule = ("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port)
        local queue = traffic.open(3, verb.judge)
        traffic.rule(rule)
        udp:send("a", "b", "c", "d", "e")
        assert.equal(5, net.queue(3).waiting)
        way.flush()
        assert.equal(0, net.queue(3).waiting)
        traffic.judge({ queue }, "the refusals", function()
          return queue:stats().refused >= verb.refused
        end)
        assert.equal(5, queue:stats().packets)
        way.restore()
        net.flush_rules()
        traffic.rule(rule)
        udp:send("later")
        traffic.judge_packets(queue, 6)
        assert.same(verb.name == "drop" and {} or { "later" }, udp:received())
        local stats = queue:stats()
        assert.is_true(stats.refused >= verb.refused and stats.refused <= 5)
        assert.equal(6, traffic.verdicts(stats))
        assert.equal(0, stats.errors)
        assert.equal(0, stats.waiting)
      end)
    end
  end

  it("they vanished while their handler was at work", function()
    local udp = traffic.udp()
    local rule = ("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3 --queue-bypass"):format(udp.port)
    traffic.rule(rule)
    local seen = 0
    local queue = traffic.queue(3, function(pkt, own)
      seen = seen + 1
      if seen == 1 then
        net.must("nft flush ruleset") -- with this very packet in it
        traffic.rule(rule)
        udp:send("behind it")
      else
        own:stop()
      end
      pkt:accept()
    end)
    traffic.flood(udp.port, 1, 3)
    assert.is_true(queue:start())
    assert.equal(1, queue:stats().refused)
    assert.equal(2, queue:stats().packets)
    assert.same({ "behind it" }, udp:received())
    assert.is_nil(net.queue(3))
  end)

  it("a stop finds them gone: it unbinds all the same", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local queue = traffic.open(3, function(pkt) pkt:accept() end)
    udp:send("a", "b")
    net.must("nft flush ruleset")
    queue:close()
    assert.is_nil(net.queue(3))
    assert.equal(2, queue:stats().packets)
    assert.equal(2, queue:stats().accepted)
    assert.is_true(queue:stats().refused >= 1)
  end)
end)
