-- Packets edited while they are held, and what leaves.

local held = require("support.held")
local net = require("support.net")
local traffic = require("support.traffic")

local holder, through_queue, checked, refusal = held.holder, held.through_queue, held.checked, held.refusal

before_each(held.start)
after_each(held.finish)

describe("edits of held packets", function()
  local function settled(text, in_handler, later, family)
    local udp = through_queue(family)
    local queue = traffic.open(3, checked(function(pkt)
      in_handler(pkt)
      holder()(pkt)
    end))
    udp:send(text)
    traffic.judge_packets(queue, 1)
    later(held.kept[1])
    local received = udp:received()
    assert.equal(0, queue:stats().errors)
    return received[1], queue:stats()
  end

  local function nothing() end

  for _, family in ipairs(traffic.FAMILIES) do
    for name, case in pairs({
      ["before holding, in place"] = { function(pkt) pkt.payload = "QUESTION" end, function(pkt) pkt:accept() end,
        "QUESTION" },
      ["before holding, of another length"] = { function(pkt) pkt.payload = "an answer" end,
        function(pkt) pkt:accept() end, "an answer" },
      ["after it, in place"] = { nothing, function(pkt)
        pkt.payload = "QUESTION"
        pkt:accept()
      end, "QUESTION" },
      ["after it, longer and shorter"] = { nothing, function(pkt)
        pkt.payload = ("longer "):rep(300)
        pkt.payload = "short"
        pkt.payload = ("long "):rep(100)
        pkt:accept()
      end, ("long "):rep(100) },
      ["before and after, each of another length"] = { function(pkt) pkt.payload = ("longer "):rep(150) end,
        function(pkt)
          pkt.payload = pkt.payload .. "and longer"
          pkt:accept()
        end, ("longer "):rep(150) .. "and longer" },
      ["modify later"] = { nothing, function(pkt)
        local bytes = pkt:bytes()
        pkt:modify(bytes:sub(1, -9) .. "modified, and longer")
      end, "modified, and longer" },
      ["none"] = { nothing, function(pkt) pkt:accept() end, "question" },
      ["then dropped"] = { function(pkt) pkt.payload = "x" end, function(pkt) pkt:drop() end, nil },
    }) do
      it(("%s: %s"):format(name, family.name), function()
        local text, stats = settled("question", case[1], case[2], family)
        assert.equal(case[3], text)
        assert.equal(case[3] and case[3] ~= "question" and 1 or 0, stats.modified)
      end)
    end
  end

  it("stay out of the way of each other", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder())
    for i = 1, 20 do
      udp:send("packet " .. i)
    end
    traffic.judge_packets(queue, 20)
    for i, pkt in ipairs(held.kept) do
      pkt.payload = ("%d "):format(i):rep(i * 20)
    end
    for i = 20, 1, -1 do
      assert.equal(("%d "):format(i):rep(i * 20), held.kept[i].payload)
      held.kept[i]:accept()
    end
    for i, text in ipairs(udp:received()) do
      local number = 21 - i
      assert.equal(("%d "):format(number):rep(number * 20), text)
    end
    assert.equal(20, #udp.texts)
  end)

  it("are refused with the reason, as in a handler", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(), { copy_range = 30 })
    udp:send("longer than what is copied")
    traffic.judge_packets(queue, 1)
    assert.equal("cannot edit this packet: the kernel copied only part of it (raise copy_range)",
      refusal(held.kept[1].u8, held.kept[1], 8, 1))
    held.kept[1]:accept()
    assert.same({ "longer than what is copied" }, udp:received())
  end)

  it("with marks reach the rules behind", function()
    local udp = through_queue()
    traffic.rule(("-A INPUT -p udp --dport %d -m mark --mark 77"):format(udp.port))
    traffic.rule(("-A INPUT -p udp --dport %d -m mark --mark 78"):format(udp.port))
    local queue = traffic.open(3, holder())
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    held.kept[1].mark = 77
    held.kept[1]:accept()
    held.kept[2]:accept({ mark = 78 })
    assert.equal(2, #udp:received())
    assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
    assert.equal(1, net.rule_packets("INPUT", "mark match 0x4e"))
  end)

  it("can requeue them, and let them traverse the hook again", function()
    local udp = through_queue()
    traffic.rule(("-I OUTPUT -p udp --dport %d -m mark --mark 1 -j ACCEPT"):format(udp.port))
    local queue = traffic.open(3, holder())
    local second = traffic.open(4, function(pkt)
      pkt:patch(pkt.payload_offset, "TWO")
      pkt:accept()
    end)
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    held.kept[1]:again({ mark = 1 })
    held.kept[2]:requeue(4)
    traffic.judge_packets(second, 1)
    assert.same({ "one", "TWO" }, udp:received())
    assert.same({ 1, 1 }, { queue:stats().again, queue:stats().requeued })
  end)
end)
