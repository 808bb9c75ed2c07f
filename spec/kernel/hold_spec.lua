-- Packets held past their handler, with real packets: settled from anywhere and in any order. Edits:
-- spec/kernel/hold_edits_spec.lua; what nobody settles: spec/kernel/hold_end_spec.lua; verbs and errors without a
-- kernel: spec/hold_spec.lua.

local held = require("support.held")
local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local holder, through_queue, checked, refusal = held.holder, held.through_queue, held.checked, held.refusal
local DEAD, DECIDED = held.DEAD, held.DECIDED

before_each(held.start)
after_each(held.finish)

describe("held packets", function()
  for _, family in ipairs(traffic.FAMILIES) do
    it("leave at once and in any order when settled from outside: " .. family.name, function()
      local udp = through_queue(family)
      local queue = traffic.open(3, holder())
      udp:send("one", "two", "three", "four", "five")
      traffic.judge_packets(queue, 5)
      assert.same({}, udp:received())
      assert.same({ 5, 5, 0 }, { queue:stats().held, queue:stats().kept, traffic.verdicts(queue:stats()) })
      for i = 5, 1, -2 do -- no process in between
        held.kept[i]:accept()
      end
      held.kept[2]:drop()
      held.kept[4]:accept()
      assert.same({ "five", "three", "one", "four" }, udp:received())
      local stats = queue:stats()
      assert.same({ 4, 1, 0, 0, 0 }, { stats.accepted, stats.dropped, stats.kept, stats.expired, stats.refused })
    end)
  end

  it("may be held, or settled, by a finalizer that runs while they are held: each gets one verdict", function()
    local udp = through_queue()
    local inside, hits, problems, seen = false, 0, {}, 0
    local function plant(pkt, verb)
      setmetatable({}, { __gc = function()
        hits = hits + (inside and 1 or 0)
        pcall(pkt[verb], pkt)
      end })
    end
    local queue = traffic.open(3, function(pkt)
      local hold = pkt.hold
      seen = seen + 1
      held.kept[#held.kept + 1] = pkt
      collectgarbage("stop")
      plant(pkt, seen % 4 == 0 and "accept" or "hold")
      collectgarbage("restart") -- the next allocation runs a whole cycle
      inside = true
      local done, message = pcall(hold, pkt)
      inside = false
      problems[#problems + 1] = not done and message or nil
    end)
    collectgarbage("incremental", 100, 1000, 40)
    for i = 1, 40 do
      udp:send("packet " .. i)
    end
    traffic.judge_packets(queue, 40)
    collectgarbage("incremental", 200, 100, 13)
    assert.is_true(hits > 10, hits)
    assert.is_true(#problems > 0)
    for _, problem in ipairs(problems) do
      assert.equal(DECIDED, problem)
    end
    for _, pkt in ipairs(held.kept) do
      pcall(pkt.accept, pkt)
    end
    local stats = queue:stats()
    assert.same({ 40, 0, 0 }, { stats.accepted, stats.kept, stats.refused })
  end)

  it("tell all they told in their handler", function()
    local udp = through_queue()
    local names = { "id", "family", "hook", "ethertype", "timestamp", "length", "truncated", "gso", "mark", "priority",
      "iif", "oif", "oifname", "hwaddr", "vlan", "l2header", "uid", "gid", "secctx", "cgroup", "payload",
      "payload_offset", "tuple" }
    local told = {}
    local queue = traffic.open(3, function(pkt)
      local one = { line = tostring(pkt), bytes = pkt:bytes(), length = #pkt }
      for _, name in ipairs(names) do
        one[name] = pkt[name]
      end
      told[#told + 1] = one
      local headers = { ip = pkt.ip, udp = pkt.udp }
      pkt:hold()
      held.kept[#held.kept + 1] = { pkt = pkt, headers = headers }
    end, { uid_gid = true })
    for i = 1, 3 do
      udp:send(("packet %d "):format(i):rep(50 * i))
    end
    traffic.judge_packets(queue, 3)
    udp:send("another, over the slots of those") -- what is received next lies where they lay
    traffic.judge_packets(queue, 4)
    for i = 1, 3 do
      local pkt = held.kept[i].pkt
      assert.is_nil(pkt.verdict)
      for _, name in ipairs(names) do
        assert.equal(told[i][name], pkt[name], name)
      end
      assert.same({ told[i].line, told[i].bytes, #told[i].bytes }, { tostring(pkt), pkt:bytes(), #pkt })
      assert.same({ "127.0.0.1", udp.port }, { held.kept[i].headers.ip.src, held.kept[i].headers.udp.dport })
      assert.equal("udp header", tostring(pkt.udp))
    end
    assert.is_number(told[1].uid)
  end)

  it("may be of metadata alone", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(), { copy_range = 0 })
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    assert.same({ 0, 2, nil }, { #held.kept[2], held.kept[2].id, held.kept[2].udp })
    held.kept[2]:accept()
    held.kept[1]:accept()
    assert.same({ "two", "one" }, udp:received())
  end)

  it("are dead when they are settled from outside, with their headers", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder())
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    local pkt, header = held.kept[1], held.kept[1].udp
    local accept = pkt.accept
    pkt:accept()
    for _, body in ipairs({
      function() return pkt.id end, function() return pkt.verdict end, function() return #pkt end,
      function() accept(pkt) end, function() pkt:drop() end, function() pkt:hold() end, function() pkt:delay(1) end,
      function() pkt.mark = 1 end, function() return header.dport end, function() pkt:u8(28, 1) end,
      function() return pkt:bytes() end,
    }) do
      assert.equal(DEAD, refusal(body))
    end
    assert.equal("packet (no longer valid)", tostring(pkt))
    assert.equal("udp header (no longer valid)", tostring(header))
    assert.equal("two", held.kept[2].payload) -- the other is not
    held.kept[2]:drop()
    assert.equal(DEAD, refusal(accept, held.kept[2]))
    assert.same({ "one" }, udp:received())
  end)

  it("are settled by another packet's handler, and can be read until it returns", function()
    local udp = through_queue()
    local queue = traffic.open(3, checked(function(pkt)
      if pkt.payload:find("hold") then
        return holder()(pkt)
      end
      for i = #held.kept, 1, -1 do
        local old = table.remove(held.kept)
        old:accept()
        assert.equal(DECIDED, refusal(old.accept, old))
        assert.equal(DECIDED, refusal(old.hold, old))
        assert.equal(DECIDED, refusal(function() old.mark = 1 end))
        assert.same({ "accept", "hold " .. i }, { old.verdict, old.payload })
        _G.last = old
      end
      pkt:accept()
    end))
    udp:send("hold 1", "hold 2", "hold 3", "go", "hold 1", "go")
    traffic.judge_packets(queue, 6)
    assert.same({ "hold 3", "hold 2", "hold 1", "go", "hold 1", "go" }, udp:received())
    assert.equal(DEAD, refusal(function() return _G.last.id end))
    _G.last = nil
    assert.same({ 6, 4, 0 }, { queue:stats().accepted, queue:stats().held, queue:stats().errors })
  end)

  it("are no longer valid in the next handler of the same batch", function()
    local udp = through_queue()
    local queue = traffic.open(3, checked(function(pkt)
      if #held.kept == 0 then
        return holder()(pkt)
      elseif not held.kept.settled then
        held.kept[1]:drop()
        held.kept.settled = true
      else
        assert.equal(DEAD, refusal(function() return held.kept[1].id end))
      end
    end))
    udp:send("one", "two", "three", "four")
    assert.equal(4, queue:process()) -- one batch
    assert.same({ "two", "three", "four" }, udp:received())
  end)

  it("are settled by timers, and can be read until those return", function()
    local udp = through_queue()
    local queue = traffic.open(3, checked(function(pkt)
      pkt:hold()
      local text = pkt.payload
      nfqueue.after(tonumber(text), checked(function()
        pkt:accept()
        assert.same({ "accept", text }, { pkt.verdict, pkt.payload })
        assert.equal(DECIDED, refusal(pkt.drop, pkt))
      end))
    end))
    udp:send("0.3", "0.2", "0.1", "0")
    traffic.judge({ queue }, "the timers", function()
      return queue:stats().accepted == 4
    end)
    assert.same({ "0", "0.1", "0.2", "0.3" }, udp:received())
    assert.equal(0, queue:stats().expired)
  end)

  it("are settled in their own handler like others", function()
    local udp = through_queue()
    local queue = traffic.open(3, checked(function(pkt)
      pkt:hold()
      pkt[pkt.payload](pkt)
      assert.equal(DECIDED, refusal(pkt.accept, pkt))
    end))
    udp:send("accept", "drop", "accept")
    traffic.judge_packets(queue, 3)
    assert.same({ "accept", "accept" }, udp:received())
    local stats = queue:stats()
    assert.same({ 2, 1, 3, 0 }, { stats.accepted, stats.dropped, stats.held, stats.kept })
  end)

  it("are settled in the handler of another queue, at once", function()
    local udp, other = through_queue(), traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(other.port))
    local first = traffic.open(3, holder())
    local second = traffic.open(4, checked(function()
      held.kept[1]:accept()
      assert.same({ "one" }, udp:received())
    end))
    udp:send("one")
    traffic.judge_packets(first, 1)
    other:send("go")
    traffic.judge_packets(second, 1)
    assert.same({ "one" }, udp:received())
  end)

  it("wait while all around them go their way", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      if pkt.payload:find("hold") then
        return holder(nil, "drop")(pkt)
      end
    end)
    for i = 1, 50 do
      udp:send("before " .. i)
    end
    udp:send("hold 1")
    for i = 1, 50 do
      udp:send("between " .. i)
    end
    udp:send("hold 2")
    for i = 1, 50 do
      udp:send("after " .. i)
    end
    traffic.judge_packets(queue, 152)
    assert.equal(150, #udp:received()) -- no batch verdict took them along
    held.kept[2]:accept()
    held.kept[1]:accept()
    assert.same({ "hold 2", "hold 1" }, { table.unpack(udp:received(), 151) })
    udp:send("once more", "and again")
    traffic.judge_packets(queue, 154)
    assert.equal("and again", udp:received()[154])
    assert.equal(0, queue:stats().refused)
  end)

  measured("4,096 of them are settled in reverse", function()
    local COUNT = 4096
    local queue, arrivals, numbers = held.numbered(COUNT, holder())
    assert.same({ COUNT, COUNT }, { net.queue(3).waiting, queue:stats().kept })
    for i = COUNT, 1, -1 do
      held.kept[i]:accept()
      if i % 64 == 1 then
        arrivals:process()
      end
    end
    traffic.judge({ arrivals }, "all of them", function()
      return #numbers == COUNT
    end)
    for i, number in ipairs(numbers) do
      assert.equal(COUNT + 1 - i, number)
    end
    assert.same({ 0, 0, COUNT }, { net.queue(3).waiting, queue:stats().kept, queue:stats().accepted })
  end)

  measured("fill the queue, and tell so", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(), { max_packets = 10 })
    for i = 1, 25 do
      udp:send(tostring(i))
      queue:process()
    end
    local stats = queue:stats()
    assert.same({ 10, 10, 15, 10 }, { stats.kept, stats.waiting, stats.kernel_queue_dropped, stats.packets })
    for i = 1, 5 do
      held.kept[i]:accept()
    end
    udp:send("room again")
    traffic.judge_packets(queue, 11)
    assert.equal("room again", held.kept[11].payload)
  end)

  it("give back what they took", function()
    local udp = through_queue()
    local queue = traffic.open(3, function(pkt)
      pkt:hold()
      held.kept[#held.kept + 1] = pkt
      nfqueue.after(1000, print):cancel()
    end)
    local memory
    for round = 1, 60 do
      for i = 1, 50 do
        udp:send(i % 2 == 0 and "short" or ("long "):rep(200))
      end
      traffic.judge_packets(queue, 50 * round)
      for i = 50, 1, -1 do
        local pkt = table.remove(held.kept)
        pkt.payload = pkt.payload .. "er"
        if i % 3 == 0 then
          pkt:delay(0)
        else
          pkt:drop()
        end
      end
      traffic.judge({ queue }, "the delayed ones", function()
        return queue:stats().kept == 0
      end)
      udp:received()
      udp.texts = {}
      collectgarbage()
      collectgarbage()
      if round == 20 then
        memory = queue:stats().memory
      end
    end
    assert.is_true(queue:stats().memory < memory * 1.1, memory .. " became " .. queue:stats().memory)
  end)

  measured("are as many as there is memory for copies; beyond it hold raises, and nothing is lost", function()
    if os.getenv("NFQUEUE_GUEST") then
      return pending("held packets beyond the memory of the emulated machine")
    end
    local udp = traffic.udp()
    traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local problems = {}
    local queue = traffic.open(3, function(pkt)
      local done, message = pcall(pkt.hold, pkt)
      if done then
        held.kept[#held.kept + 1] = pkt
      else
        problems[#problems + 1] = message
        -- A delay that has no room, either, changes nothing: neither do its options.
        pkt.payload = ("y"):rep(#pkt.payload)
        pkt.mark = 3
        problems.delay = held.refusal(pkt.delay, pkt, 1, { mark = 5, priority = 6 })
        problems.after = { pkt.mark, pkt.priority, pkt.verdict }
        pkt:accept()
      end
    end, { memory_limit = 1 << 30 })
    local text = ("x"):rep(65300) -- with all that comes with it more than 64 KiB: a block of 128
    for _ = 1, 2051 do
      udp:send(text)
      queue:process()
    end
    assert.equal("cannot hold this packet: the memory for copies is used up", problems[1])
    assert.equal("cannot delay this packet: the memory for copies is used up", problems.delay)
    assert.same({ 3, 0 }, problems.after)
    assert.same({ 2048, 3, 2048 }, { #held.kept, #problems, queue:stats().kept })
    -- What is given back is there again.
    for i = 1, 10 do
      table.remove(held.kept):drop()
      udp:send(i .. text)
      queue:process()
      assert.equal(i .. text, held.kept[#held.kept].payload)
    end
    for _, pkt in ipairs(held.kept) do
      pkt:drop()
    end
    assert.same({ 0, 0 }, { queue:stats().kept, queue:stats().waiting })
  end)
end)
