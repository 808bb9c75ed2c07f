-- What goes with a verdict: marks and priorities that later rules and queues see, other queues, and once more.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

-- Sends a packet with the mark `initial` (0: none) through queue 3 on output: the mark that an INPUT rule
-- sees, found among the candidates.
local function mark_after(family, initial, judge, config)
  local udp = traffic.udp(family)
  local match = ("-p udp --dport %d "):format(udp.port)
  if initial ~= 0 then
    traffic.rule(("-t mangle -A OUTPUT %s -j MARK --set-mark %d"):format(match, initial), family)
  end
  traffic.rule("-A OUTPUT " .. match .. "-j NFQUEUE --queue-num 3", family)
  traffic.rule("-A INPUT " .. match .. "-j NFQUEUE --queue-num 4", family)
  local seen
  local first = traffic.open(3, judge, config)
  local second = traffic.open(4, function(pkt)
    seen = pkt.mark
  end)
  traffic.log(function()
    udp:send("marked")
    traffic.judge({ first, second }, "the datagram", function()
      return udp:received()[1]
    end)
  end)
  return seen
end

local MARKS = {
  { "accept with a mark", 0, function(pkt) pkt:accept({ mark = 7 }) end, 7 },
  { "accept without one", 5, function(pkt) pkt:accept() end, 5 },
  { "the largest mark", 1, function(pkt) pkt:accept({ mark = 0xffffffff }) end, 0xffffffff },
  { "mark 0 takes it off", 0xabcd, function(pkt) pkt:accept({ mark = 0 }) end, 0 },
  { "a mask keeps the other bits", 0xabcd1234, function(pkt) pkt:accept({ mark = 0x5555, mask = 0xff00 }) end,
    0xabcd5534 },
  { "a mask of nothing", 0x12, function(pkt) pkt:accept({ mark = 0xff, mask = 0 }) end, 0x12 },
  { "assigned", 0, function(pkt)
    pkt.mark = 9
    assert(pkt.mark == 9)
    pkt:accept()
  end, 9 },
  { "assigned, then a masked one", 0x1, function(pkt)
    pkt.mark = 0xa0
    pkt:accept({ mark = 0x0b, mask = 0x0f })
  end, 0xab },
  { "assigned and undecided", 0, function(pkt) pkt.mark = 11 end, 11 },
  { "read and counted up", 41, function(pkt)
    pkt.mark = pkt.mark + 1
    pkt:accept()
  end, 42 },
  { "the short form", 0, function() return "accept", { mark = 13 } end, 13 },
  { "modify with a mark", 0, function(pkt) pkt:modify(pkt:bytes(), { mark = 14 }) end, 14 },
  { "an edit in place with a mark", 0, function(pkt)
    pkt:patch(pkt:find("marked"), "MARKED")
    pkt:accept({ mark = 15 })
  end, 15 },
  { "assigned, then raised", 3, function(pkt)
    pkt.mark = 16
    error("on_error carries nothing")
  end, 3, { on_error = "accept" } },
}

for _, family in ipairs(traffic.FAMILIES) do
  describe("over " .. family.name .. " the mark of", function()
    after_each(traffic.cleanup)

    for _, case in ipairs(MARKS) do
      it(case[1], function()
        assert.equal(case[4], mark_after(family, case[2], case[3], case[5]))
      end)
    end

    it("one verdict is matched by a later rule", function()
      local udp = traffic.udp(family)
      local match = ("-p udp --dport %d "):format(udp.port)
      traffic.rule("-A OUTPUT " .. match .. "-j NFQUEUE --queue-num 3", family)
      for _, mark in ipairs({ "0x7", "0x70/0xf0" }) do
        traffic.rule(("-A INPUT %s -m mark --mark %s"):format(match, mark), family)
      end
      local count = 0
      local queue = traffic.open(3, function(pkt)
        count = count + 1
        pkt:accept({ mark = count <= 2 and 7 or 0x71 })
      end)
      udp:send("a", "b", "c", "d", "e")
      traffic.judge({ queue }, "the datagrams", function()
        return #udp:received() == 5
      end)
      assert.equal(2, net.rule_packets("INPUT", "0x7$", family.program))
      assert.equal(3, net.rule_packets("INPUT", "0x70/0xf0$", family.program))
    end)
  end)
end

-- Two queues one after the other: 3 on output, 4 behind it; both started together until the second has had
-- `count` packets.
local function start_both(count, first, second)
  local udp = traffic.udp()
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
  local seen = {}
  local queues = {
    traffic.queue(3, first),
    traffic.queue(4, function(pkt, queue)
      seen[#seen + 1] = { text = traffic.payload(pkt), mark = pkt.mark, priority = pkt.priority, id = pkt.id }
      if #seen == count then
        nfqueue.stop()
      end
      return second(pkt, queue)
    end),
  }
  return udp, queues, seen
end

describe("the priority of", function()
  after_each(traffic.cleanup)

  for name, judge in pairs({
    ["a verdict"] = function(pkt) pkt:accept({ priority = 0x10003 }) end,
    ["an assignment"] = function(pkt)
      pkt.priority = 0x10003
      pkt:accept()
    end,
    ["a modify"] = function(pkt) pkt:modify(pkt:bytes(), { priority = 0x10003 }) end,
    ["a requeue"] = function(pkt) pkt:requeue(4, { priority = 0x10003, mark = 0 }) end,
  }) do
    measured(name .. " is seen by a later queue", function()
      local udp, queues, seen = start_both(1, judge, function(pkt) pkt:accept() end)
      traffic.rule(("-t mangle -A POSTROUTING -p udp --dport %d -m mark --mark 0 -j NFQUEUE --queue-num 4")
        :format(udp.port))
      traffic.flood(udp.port, 1, 4)
      assert.is_true(nfqueue.start(table.unpack(queues)))
      assert.equal(0x10003, seen[1].priority)
    end)
  end
end)

describe("a requeue", function()
  after_each(traffic.cleanup)

  for name, judge in pairs({
    ["by the verb"] = function(pkt) pkt:requeue(4) end,
    ["in the short form"] = function() return "requeue", 4 end,
  }) do
    measured(name .. " is judged by the other queue", function()
      local udp, queues, seen = start_both(3, judge, function(pkt)
        return traffic.payload(pkt) == "2" and "drop" or "accept"
      end)
      traffic.flood(udp.port, 3, 4)
      assert.is_true(nfqueue.start(table.unpack(queues)))
      assert.same({ "1", "3" }, udp:received())
      assert.equal("1 2 3", seen[1].text .. " " .. seen[2].text .. " " .. seen[3].text)
      assert.equal(3, queues[1]:stats().requeued)
      assert.equal(0, queues[1]:stats().accepted)
      assert.equal(2, queues[2]:stats().accepted)
      assert.equal(1, queues[2]:stats().dropped)
    end)
  end

  measured("takes edits, mark and priority along", function()
    local udp, queues, seen = start_both(1, function(pkt)
      pkt:patch(pkt:find("1", 28), "!") -- behind the headers, which may hold a "1" too
      pkt:requeue(4, { mark = 21, priority = 22 })
    end, function(pkt) pkt:accept() end)
    traffic.flood(udp.port, 1, 4)
    assert.is_true(nfqueue.start(table.unpack(queues)))
    assert.same({ text = "!", mark = 21, priority = 22, id = 1 }, seen[1])
    assert.same({ "!" }, udp:received())
  end)

  -- Nobody holds queue 65535.
  for _, case in ipairs({ { true, "first subject" }, { false, "first" } }) do
    it(("to a queue without a listener, bypass %s"):format(case[1]), function()
      local udp = traffic.udp()
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
      local queue = traffic.open(3, function(pkt)
        if traffic.payload(pkt) == "subject" then
          return pkt:requeue(65535, { bypass = case[1] })
        end
        pkt:accept()
      end)
      udp:send("first", "subject", "fence")
      traffic.judge({ queue }, "the fence", function()
        local texts = udp:received()
        return texts[#texts] == "fence"
      end)
      assert.equal(case[2] .. " fence", table.concat(udp.texts, " "))
      assert.equal(1, queue:stats().requeued)
    end)
  end
end)

describe("again", function()
  after_each(traffic.cleanup)

  for name, judge in pairs({
    ["by the verb"] = function(pkt) pkt:again({ mark = 1 }) end,
    ["in the short form"] = function() return "again", { mark = 1 } end,
    ["after an assignment"] = function(pkt)
      pkt.mark = 1
      pkt:again()
    end,
  }) do
    it(name .. " goes through the hook's rules once more", function()
      local udp = traffic.udp()
      local match = ("-A OUTPUT -p udp --dport %d "):format(udp.port)
      traffic.rule(match .. "-m comment --comment every")
      traffic.rule(match .. "-m mark ! --mark 1 -j NFQUEUE --queue-num 3")
      traffic.rule(match .. "-m comment --comment behind")
      local queue = traffic.open(3, judge)
      udp:send("a", "b")
      traffic.judge({ queue }, "the datagrams", function()
        return #udp:received() == 2
      end)
      assert.equal(4, net.rule_packets("OUTPUT", "every"))
      assert.equal(2, net.rule_packets("OUTPUT", "behind"))
      assert.equal(2, queue:stats().packets)
      assert.equal(2, queue:stats().again)
    end)
  end

  it("comes back to the same queue, changed, with an id of its own", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local ids, texts = {}, {}
    local queue = traffic.open(3, function(pkt)
      ids[#ids + 1], texts[#texts + 1] = pkt.id, traffic.payload(pkt)
      if pkt.mark == 1 then
        return pkt:drop()
      end
      pkt:patch(pkt:find("before"), "behind")
      pkt:again({ mark = 1 })
    end)
    udp:send("before")
    traffic.judge_packets(queue, 2)
    assert.same({ 1, 2 }, ids)
    assert.same({ "before", "behind" }, texts)
    assert.equal(1, queue:stats().again)
    assert.equal(1, queue:stats().dropped)
  end)
end)
