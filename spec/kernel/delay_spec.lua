-- Packets judged now and accepted later, with real ones. Their verbs and errors without a kernel: spec/hold_spec.lua.

local held = require("support.held")
local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending
local through_queue = held.through_queue

--- Delays by the seconds that the datagram says; accepts what is no number.
local function delayer(options)
  return function(pkt)
    local seconds = tonumber(pkt.payload:match("^[%d.]+"))
    if seconds then
      pkt:delay(seconds, options)
    end
  end
end

local function judge_out(queue)
  traffic.judge({ queue }, "the delayed packets", function()
    return queue:stats().kept == 0
  end)
end

after_each(traffic.cleanup)

describe("delayed packets", function()
  for _, family in ipairs(traffic.FAMILIES) do
    it("leave in the order of their times, equal ones in that of their verdicts: " .. family.name, function()
      local udp = through_queue(family)
      local queue = traffic.open(3, delayer())
      udp:send("0.2 a", "0.1 b", "0.1 c", "now", "0 d", "0.15 e", "0.2 f", "0.1 g")
      traffic.judge_packets(queue, 8)
      local stats = queue:stats()
      assert.same({ 7, 1 }, { stats.delayed, stats.accepted })
      judge_out(queue)
      local texts = udp:received()
      -- Those received in one batch have the same time; a batch may end anywhere.
      assert.same({ "now", "0 d", "0.1 b", "0.1 c", "0.1 g", "0.15 e", "0.2 a", "0.2 f" }, texts)
      stats = queue:stats()
      assert.same({ 7, 1, 0, 0, 8 }, { stats.delayed, stats.accepted, stats.kept, stats.refused,
        traffic.verdicts(stats) })
    end)
  end

  it("leave no sooner than they were told to", function()
    local udp = through_queue()
    local queue = traffic.open(3, delayer())
    local started = socket.gettime()
    udp:send("0.1")
    traffic.judge({ queue }, "its time", function()
      return queue:stats().packets == 1 and queue:stats().kept == 0
    end)
    assert.is_true(socket.gettime() - started >= 0.1)
    assert.same({ "0.1" }, udp:received())
  end)

  it("are dead past their handler", function()
    local udp = through_queue()
    local kept
    local queue = traffic.open(3, function(pkt)
      pkt:delay(0.05)
      assert(pkt.verdict == "delay" and pkt.payload == "one")
      assert(not pcall(pkt.accept, pkt))
      kept = pkt
    end)
    udp:send("one")
    traffic.judge_packets(queue, 1)
    assert.has_error(function() kept:accept() end, "packet is no longer valid")
    judge_out(queue)
    assert.same({ "one" }, udp:received())
    assert.equal(0, queue:stats().errors)
  end)

  it("leave with their edits, of any length", function()
    for _, text in ipairs({ "EDITED", "edited, and much longer than it was", "e" }) do
      local udp = through_queue()
      local queue = traffic.open(3, function(pkt)
        pkt.payload = text
        pkt:delay(0.02)
      end)
      udp:send("before", "before", "before")
      traffic.judge_packets(queue, 3)
      udp:send("over the slots that they were in", "before")
      traffic.judge_packets(queue, 5)
      judge_out(queue)
      assert.same({ text, text, text, text, text }, udp:received())
      assert.same({ 5, 0 }, { queue:stats().delayed, queue:stats().modified })
      traffic.cleanup()
    end
  end)

  it("leave with their marks", function()
    local udp = through_queue()
    traffic.rule(("-A INPUT -p udp --dport %d -m mark --mark 77"):format(udp.port))
    local queue = traffic.open(3, delayer({ mark = 77 }))
    udp:send("0.01", "0.02")
    traffic.judge_packets(queue, 2)
    judge_out(queue)
    assert.equal(2, #udp:received())
    assert.equal(2, net.rule_packets("INPUT", "mark match 0x4d"))
  end)

  it("were held before", function()
    local udp = through_queue()
    local kept = {}
    local queue = traffic.open(3, function(pkt)
      pkt:hold(1000, "drop")
      kept[#kept + 1] = pkt
    end)
    udp:send("one", "two", "three")
    traffic.judge_packets(queue, 3)
    kept[1]:delay(0.06, { mark = 5 })
    kept[2].payload = "longer than two"
    kept[2]:delay(0.03)
    assert.has_error(function() kept[1]:accept() end, "packet is no longer valid")
    kept[3]:accept()
    judge_out(queue)
    assert.same({ "three", "longer than two", "one" }, udp:received())
    local stats = queue:stats()
    assert.same({ 3, 2, 1, 0 }, { stats.held, stats.delayed, stats.accepted, stats.expired })
  end)

  it("are overtaken by none that is settled meanwhile", function()
    local udp = through_queue()
    local queue = traffic.open(3, delayer())
    for i = 1, 100 do
      udp:send(i % 10 == 0 and "0.1 " .. i or "passes " .. i)
    end
    traffic.judge_packets(queue, 100)
    assert.equal(90, #udp:received())
    judge_out(queue)
    local texts = udp:received()
    for i = 1, 10 do
      assert.equal("0.1 " .. i * 10, texts[90 + i])
    end
  end)

  measured("are accepted at a close, at once", function()
    local udp = through_queue()
    local queue = traffic.open(3, delayer(), { default = "drop", on_error = "drop" })
    udp:send("1000 a", "500 b", "1000 c")
    traffic.judge_packets(queue, 3)
    udp:send("700 d") -- judged, and delayed, while it is leaving
    queue:close()
    assert.same({ "500 b", "700 d", "1000 a", "1000 c" }, udp:received())
    assert.is_nil(net.queue(3))
    assert.same({ 4, 0 }, { queue:stats().delayed, queue:stats().refused })
  end)

  measured("are many", function()
    local COUNT = 2000
    local queue, arrivals, numbers = held.numbered(COUNT, function(pkt)
      pkt:delay(1 + pkt.id % 7 / 1000)
    end)
    traffic.judge({ queue, arrivals }, "all of them", function()
      return #numbers == COUNT
    end)
    local seen = {}
    for _, number in ipairs(numbers) do
      assert.is_nil(seen[number])
      seen[number] = true
    end
    assert.same({ 0, COUNT, 0 }, { queue:stats().kept, queue:stats().delayed, queue:stats().refused })
  end)
end)

describe("a connection", function()
  for _, family in ipairs(traffic.FAMILIES) do
    for name, handler in pairs({
      delayed = function(pkt) pkt:delay(0.002) end,
      held = function(pkt)
        pkt:hold()
        nfqueue.after(0.001, function()
          pcall(function() pkt:accept() end) -- unless the queue was closed meanwhile
        end)
      end,
    }) do
      it(("whose packets are all %s arrives whole: %s"):format(name, family.name), function()
        traffic.rule("-A OUTPUT -p tcp --dport 4710 -j NFQUEUE --queue-num 3", family)
        traffic.rule("-A OUTPUT -p tcp --sport 4710 -j NFQUEUE --queue-num 3", family)
        local largest = 0
        local queue = traffic.open(3, function(pkt)
          largest = math.max(largest, #pkt)
          handler(pkt)
        end)
        local path = traffic.text_file(1 << 20)
        local copy = traffic.transfer({ queue }, path, { family = family, port = 4710 })
        assert.equal(traffic.sha256(path), traffic.sha256(copy))
        assert.is_true(largest > 1500, largest) -- segments come whole
        local stats = queue:stats()
        assert.same({ 0, 0, 0 }, { stats.refused, stats.errors, stats.expired })
        assert.equal(stats.packets, name == "held" and stats.held or stats.delayed)
      end)
    end
  end
end)

describe("a delay", function()
  it("by name delays as well", function()
    local udp = through_queue()
    local queue = traffic.open(3, function()
      return "delay", 0.01
    end)
    udp:send("one")
    traffic.judge_packets(queue, 1)
    judge_out(queue)
    assert.same({ "one" }, udp:received())
  end)

  it("before an error stands", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      pkt:delay(0.01)
      error("out")
    end)
    traffic.log(function()
      udp:send("one")
      traffic.judge_packets(queue, 1)
    end)
    judge_out(queue)
    assert.same({ "one" }, udp:received())
    assert.same({ 1, 1 }, { queue:stats().errors, queue:stats().delayed })
  end)

  measured("is kept by a loop in C", function()
    local udp = through_queue()
    local started, ended
    local queue
    queue = traffic.queue(3, function(pkt)
      started = started or nfqueue.now()
      pkt:delay(0.1)
      nfqueue.after(0.2, function()
        if queue:stats().kept == 0 then
          ended = nfqueue.now()
          queue:stop()
        end
      end)
    end)
    traffic.flood(udp.port, 20, 3)
    assert.is_true(queue:start())
    assert.is_true(ended - started >= 0.2)
    local texts = udp:received()
    assert.equal(20, #texts)
    for i, text in ipairs(texts) do
      assert.equal(tostring(i), text)
    end
  end)
end)
