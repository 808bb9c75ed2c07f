-- Queues that loop in C: start, stop, start again; several in one state; and nothing lost on the way.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

-- A rule on output with queue 3 (or `target`) in it, and one that counts what arrives.
local function receiver(target)
  local udp = traffic.udp()
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE %s"):format(udp.port, target or "--queue-num 3"))
  traffic.rule(("-A INPUT -p udp --dport %d -m comment --comment arrived"):format(udp.port))
  return udp
end

-- A handler that accepts, and stops its queue with packet number `count`.
local function stop_after(count)
  local seen = 0
  return function(pkt, queue)
    seen = seen + 1
    pkt:accept()
    if seen == count then
      queue:stop()
    end
  end
end

describe("start", function()
  after_each(traffic.cleanup)

  it("returns true after stop, with every verdict sent and the queue unbound", function()
    local udp = receiver()
    local bound
    local handler = stop_after(50)
    local queue = traffic.queue(3, function(pkt, own)
      bound = net.queue(3) ~= nil and tostring(own)
      handler(pkt, own)
    end)
    assert.equal("queue 3 (idle)", tostring(queue))
    traffic.flood(udp.port, 50, 3)
    assert.is_true(queue:start())
    assert.equal("queue 3 (bound)", bound)
    assert.equal("queue 3 (idle)", tostring(queue))
    assert.is_nil(net.queue(3))
    assert.equal(50, queue:stats().packets)
    assert.equal(50, queue:stats().accepted)
    assert.equal(50, #udp:received())
    assert.equal("50", udp.texts[50])
  end)

  it("gives the stopping packet the verdict that comes after the stop", function()
    for verb, arrive in pairs({ accept = 1, drop = 0 }) do
      local udp = receiver()
      local queue = traffic.queue(3, function(pkt, own)
        own:stop()
        pkt[verb](pkt)
      end)
      traffic.flood(udp.port, 1, 3)
      assert.is_true(queue:start())
      assert.equal(arrive, #udp:received())
      traffic.cleanup()
    end
  end)

  it("works again after a stop, and the counters add up", function()
    local udp = receiver()
    local queue
    local seen = 0
    queue = traffic.queue(3, function(pkt, own)
      seen = seen + 1
      if seen % 10 == 0 then
        own:stop()
      end
      return pkt.id % 2 == 0 and "drop" or "accept"
    end)
    for round = 1, 3 do
      traffic.flood(udp.port, 10, 3)
      assert.is_true(nfqueue.start(queue))
      local stats = queue:stats()
      assert.equal(10 * round, stats.packets)
      assert.equal(5 * round, stats.accepted)
      assert.equal(5 * round, stats.dropped)
      assert.equal(0, stats.lost) -- ids begin at 1 again: that is no gap
      assert.equal(10 * round * (20 + 8 + 1) + round, stats.bytes) -- "10" has two digits
    end
    assert.equal(15, #udp:received())
  end)

  it("judges what comes in the order of open, packets, close", function()
    local udp = receiver()
    local calls = {}
    local queue = traffic.queue(3, {
      open = function(own)
        calls[#calls + 1] = "open " .. own.number .. (net.queue(3) and " bound" or " not bound")
      end,
      packet = function(pkt, own)
        calls[#calls + 1] = "packet " .. traffic.payload(pkt)
        if pkt.id == 2 then
          own:stop()
        end
      end,
      close = function(own)
        calls[#calls + 1] = "close " .. own.number .. (net.queue(3) and " bound" or " not bound")
      end,
    })
    for _ = 1, 2 do
      traffic.flood(udp.port, 2, 3)
      assert.is_true(queue:start())
    end
    local once = { "open 3 not bound", "packet 1", "packet 2", "close 3 not bound" }
    assert.same({ once[1], once[2], once[3], once[4], once[1], once[2], once[3], once[4] }, calls)
  end)

  it("hands the same queue object to the handler", function()
    local udp = receiver()
    local got
    local queue = traffic.queue(3, function(_, own)
      got = own
      own:stop()
    end)
    traffic.flood(udp.port, 1, 3)
    queue:start()
    assert.is_true(rawequal(queue, got))
  end)

  it("takes queue number 65535", function()
    local udp = receiver("--queue-num 65535")
    local queue = traffic.queue(65535, stop_after(3))
    traffic.flood(udp.port, 3, 65535)
    assert.is_true(queue:start())
    assert.equal(65535, queue.number)
    assert.same({ "1", "2", "3" }, udp:received())
  end)
end)

describe("several queues in one state", function()
  after_each(traffic.cleanup)

  for name, stop in pairs({
    ["nfqueue.stop"] = function() nfqueue.stop() end,
    ["a stop of one of them"] = function(queue) queue:stop() end,
  }) do
    it("end together with " .. name, function()
      local udp, other = receiver("--queue-num 3"), receiver("--queue-num 65535")
      local total, own = 0, { [3] = {}, [65535] = {} }
      local function handler(pkt, queue)
        total = total + 1
        table.insert(own[queue.number], traffic.payload(pkt))
        if total == 20 then
          stop(queue)
        end
      end
      local queues = { traffic.queue(3, handler), traffic.queue(65535, handler) }
      traffic.flood(udp.port, 10, 65535)
      traffic.flood(other.port, 10, 65535)
      assert.is_true(nfqueue.start(table.unpack(queues)))
      local sent = { "1", "2", "3", "4", "5", "6", "7", "8", "9", "10" }
      assert.same(sent, own[3])
      assert.same(sent, own[65535])
      assert.same(sent, udp:received())
      assert.same(sent, other:received())
      for _, queue in ipairs(queues) do
        assert.equal(10, queue:stats().accepted)
        assert.is_nil(net.queue(queue.number))
      end
    end)
  end
end)

describe("a stop under load", function()
  local COUNT = 20000

  after_each(traffic.cleanup)

  -- Floods through queue 3, which stops itself at packet 2000 while the rest comes.
  local function stop_in_flood(config)
    local udp = receiver("--queue-num 3 --queue-bypass")
    local queue = traffic.queue(3, stop_after(2000), config)
    local sender = traffic.flood(udp.port, COUNT, 3)
    assert.is_true(queue:start())
    assert.is_nil(net.queue(3))
    assert.equal(0, sender:join(60))
    return queue:stats(), net.rule_packets("INPUT", "arrived")
  end

  it("leaves no packet without a verdict; with bypass and on_error accept all go on", function()
    local stats, arrived = stop_in_flood({ on_error = "accept" })
    assert.is_true(stats.packets >= 2000 and stats.packets < COUNT)
    assert.equal(stats.packets, stats.accepted)
    assert.equal(0, stats.errors)
    assert.equal(COUNT, arrived)
  end)

  it("with on_error drop judges all that waits; later packets pass", function()
    local stats, arrived = stop_in_flood({ on_error = "drop" })
    assert.is_true(stats.packets >= 2000 and stats.packets < COUNT)
    assert.equal(stats.packets, stats.accepted)
    assert.equal(0, stats.errors)
    -- What comes in the instant before the unbinding goes the way of on_error; a sender has at most 300 on the way.
    assert.is_true(arrived > stats.accepted and arrived >= COUNT - 300, "arrived: " .. arrived)
  end)
end)

describe("a handler that always raises", function()
  after_each(traffic.cleanup)

  for on_error, arrive in pairs({ accept = 200, drop = 0 }) do
    it("loses no packet, on_error " .. on_error, function()
      local udp = receiver()
      local seen = 0
      local queue = traffic.queue(3, function(_, own)
        seen = seen + 1
        if seen == 200 then
          own:stop()
        end
        error("number " .. seen)
      end, { on_error = on_error })
      local log = traffic.log(function()
        traffic.flood(udp.port, 200, 3)
        assert.is_true(queue:start())
      end)
      assert.equal(200, queue:stats().errors)
      assert.equal(arrive, #udp:received())
      assert.truthy(log:find("handler failed: [^\n]*number 1\n  stack traceback:"), log)
      assert.falsy(log:find("number 2\n  stack"), log) -- one line for those that follow
    end)
  end
end)
