-- Held packets that nobody settles in time, and holds that fail.

local held = require("support.held")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local holder, through_queue, refusal = held.holder, held.through_queue, held.refusal
local DEAD = held.DEAD

before_each(held.start)
after_each(held.finish)

describe("a held packet that nobody settles", function()
  for _, case in ipairs({ -- arguments of hold, config, whether it arrives
    { name = "accepted by default", {}, { hold_limit = 0.05 }, arrives = true, standard = 1 },
    { name = "dropped by default", {}, { hold_limit = 0.05, default = "drop" }, arrives = false, standard = 1 },
    { name = "accepted as told", { 0.05, "accept" }, { default = "drop" }, arrives = true, standard = 0 },
    { name = "dropped as told", { 0.05, "drop" }, {}, arrives = false, standard = 0 },
    { name = "accepted after its own time", { 0.05 }, { hold_limit = 1000 }, arrives = true, standard = 1 },
  }) do
    it(("is %s, once, and counted"):format(case.name), function()
      local udp = through_queue()
      local queue = traffic.open(3, holder(table.unpack(case[1])), case[2])
      udp:send("one", "two")
      traffic.judge_packets(queue, 2)
      traffic.judge({ queue }, "its time", function()
        return queue:stats().kept == 0
      end)
      assert.same(case.arrives and { "one", "two" } or {}, udp:received())
      local stats = queue:stats()
      assert.same({ 2, 2 * case.standard, 2, 0, 0 },
        { stats.expired, stats.undecided, case.arrives and stats.accepted or stats.dropped, stats.refused,
          stats.errors })
      assert.equal(DEAD, refusal(function() held.kept[1]:accept() end))
      assert.equal(2, traffic.verdicts(stats))
    end)
  end

  it("leaves with its edits", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(0.05))
    udp:send("one")
    traffic.judge_packets(queue, 1)
    held.kept[1].payload = "edited, and longer"
    traffic.judge({ queue }, "its time", function()
      return queue:stats().kept == 0
    end)
    assert.same({ "edited, and longer" }, udp:received())
    assert.equal(1, queue:stats().modified)
  end)

  it("is held longer when it is held again", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(0.01))
    udp:send("one", "two")
    queue:process()
    held.kept[1]:hold(1000)
    traffic.judge({ queue }, "the other", function()
      return queue:stats().kept == 1
    end)
    assert.same({ "two" }, udp:received())
    assert.equal("one", held.kept[1].payload)
    held.kept[1]:hold(0.01, "drop")
    traffic.judge({ queue }, "its end", function()
      return queue:stats().kept == 0
    end)
    assert.same({ "two" }, udp:received())
  end)

  it("gets its verdict when the queue is closed, stopped from a handler, or collected", function()
    local function start_over()
      held.start()
      local udp = through_queue()
      udp.queue = nfqueue.new(3, function(pkt, own)
        if pkt.payload == "stop" then
          own:stop()
          return pkt:accept()
        end
        holder(1000, pkt.payload)(pkt)
      end, { buffer_size = 1 << 20 })
      assert(udp.queue:open())
      udp:send("accept", "drop")
      traffic.judge_packets(udp.queue, 2)
      udp:send("accept") -- still to be judged, and held, while it is leaving
      return udp
    end
    for name, leave in pairs({
      close = function(udp) udp.queue:close() end,
      stop = function(udp)
        udp:send("stop")
        udp.queue:process()
      end,
      collect = function(udp)
        udp.queue:process()
        udp.queue = nil
        collectgarbage()
        collectgarbage()
      end,
    }) do
      local udp = start_over()
      leave(udp)
      assert.same(name == "stop" and { "stop", "accept", "accept" } or { "accept", "accept" }, udp:received(), name)
      for _, pkt in ipairs(held.kept) do
        assert.equal(DEAD, refusal(function() pkt:accept() end))
      end
      if udp.queue then
        local stats = udp.queue:stats()
        assert.same({ 3, 0, 0 }, { stats.expired, stats.undecided, stats.kept })
      end
      traffic.cleanup()
    end
  end)

  it("is dead in the queue's close, after its last verdict", function()
    local udp = through_queue()
    local in_close
    local queue = traffic.open(3, { packet = holder(), close = function()
      in_close = refusal(function() held.kept[1]:accept() end)
    end })
    udp:send("one")
    traffic.judge_packets(queue, 1)
    queue:close()
    assert.equal(DEAD, in_close)
    assert.same({ "one" }, udp:received())
  end)
end)

describe("a hold", function()
  it("given before an error stands, and the error is counted", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      holder()(pkt)
      error("out")
    end)
    local log = traffic.log(function()
      udp:send("one", "two")
      traffic.judge_packets(queue, 2)
    end)
    assert.matches("handler failed: [^\n]*out", log)
    assert.same({ 2, 2, 0 }, { queue:stats().errors, queue:stats().kept, traffic.verdicts(queue:stats()) })
    held.kept[2]:accept()
    held.kept[1]:accept()
    assert.same({ "two", "one" }, udp:received())
  end)

  it("that is refused leaves the packet to on_error", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      pkt:hold(-1)
    end, { on_error = "accept" })
    traffic.log(function()
      udp:send("one")
      traffic.judge_packets(queue, 1)
    end)
    assert.same({ "one" }, udp:received())
    assert.same({ 1, 0 }, { queue:stats().errors, queue:stats().held })
  end)

  it("by name holds as well", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      held.kept[#held.kept + 1] = pkt
      return "hold", 1000, "drop"
    end)
    udp:send("one")
    traffic.judge_packets(queue, 1)
    assert.equal("one", held.kept[1].payload)
    queue:close()
    assert.same({}, udp:received())
    assert.equal(1, queue:stats().dropped)
  end)

  measured("works where several queues are one loop", function()
    local udp, other = through_queue(), traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(other.port))
    local queues
    local function handler(pkt)
      holder()(pkt)
      if #held.kept == 20 then
        for i = 20, 1, -1 do
          held.kept[i]:accept()
        end
        nfqueue.stop()
      end
    end
    queues = { traffic.queue(3, handler), traffic.queue(4, handler) }
    traffic.flood(udp.port, 10, 3)
    traffic.flood(other.port, 10, 4)
    assert.is_true(nfqueue.start(table.unpack(queues)))
    for i, box in ipairs({ udp, other }) do
      local texts = box:received()
      assert.equal(10, #texts)
      for k, text in ipairs(texts) do
        assert.equal(tostring(11 - k), text)
      end
      assert.same({ 10, 10, 0 }, { queues[i]:stats().accepted, queues[i]:stats().held, queues[i]:stats().expired })
    end
  end)

  it("and its end make the descriptor readable, in LuaSocket's select as in any other loop", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(0.1))
    udp:send("one")
    traffic.judge_packets(queue, 1)
    assert.same({}, (socket.select({ queue }, nil, 0)))
    assert.equal(queue, socket.select({ queue }, nil, 60)[1])
    assert.equal(1, queue:process())
    assert.same({ "one" }, udp:received())
    assert.same({}, (socket.select({ queue }, nil, 0)))
    -- One that is settled before its time leaves nothing behind that would wake the loop for ever.
    udp:send("two")
    traffic.judge_packets(queue, 2)
    held.kept[2]:drop()
    assert.equal(queue, socket.select({ queue }, nil, 60)[1])
    assert.equal(0, queue:process())
    assert.same({}, (socket.select({ queue }, nil, 0.05)))
  end)
end)
