-- Packets held past their handler, with real packets: settled from anywhere and in any order, edited meanwhile, and
-- what they get when nobody settles them. Their verbs and errors without a kernel: spec/hold_spec.lua.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local DEAD = "packet is no longer valid"
local DECIDED = "packet already has a verdict"

local kept

--- Holds what it gets, with these arguments, and keeps it in order in `kept`.
local function holder(...)
  local arguments = table.pack(...)
  return function(pkt)
    pkt:hold(table.unpack(arguments, 1, arguments.n))
    kept[#kept + 1] = pkt
  end
end

--- A pair of sockets whose datagrams pass queue 3.
local function through_queue(family)
  local udp = traffic.udp(family)
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
  return udp
end

--- A queue whose handler's failures are raised here, at the end.
local failure
local function checked(handler)
  return function(...)
    local done, message = xpcall(handler, debug.traceback, ...)
    failure = failure or (not done and message)
  end
end

local function refusal(body, ...)
  local done, message = pcall(body, ...)
  assert.is_false(done)
  return (tostring(message):gsub("^[%w%p]+:%d+: ", ""))
end

before_each(function()
  kept, failure = {}, nil
end)

after_each(function()
  traffic.cleanup()
  assert.falsy(failure, failure)
end)

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
        kept[i]:accept()
      end
      kept[2]:drop()
      kept[4]:accept()
      assert.same({ "five", "three", "one", "four" }, udp:received())
      local stats = queue:stats()
      assert.same({ 4, 1, 0, 0, 0 }, { stats.accepted, stats.dropped, stats.kept, stats.expired, stats.refused })
    end)
  end

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
      kept[#kept + 1] = { pkt = pkt, headers = headers }
    end, { uid_gid = true })
    for i = 1, 3 do
      udp:send(("packet %d "):format(i):rep(50 * i))
    end
    traffic.judge_packets(queue, 3)
    udp:send("another, over the slots of those") -- what is received next lies where they lay
    traffic.judge_packets(queue, 4)
    for i = 1, 3 do
      local pkt = kept[i].pkt
      assert.is_nil(pkt.verdict)
      for _, name in ipairs(names) do
        assert.equal(told[i][name], pkt[name], name)
      end
      assert.same({ told[i].line, told[i].bytes, #told[i].bytes }, { tostring(pkt), pkt:bytes(), #pkt })
      assert.same({ "127.0.0.1", udp.port }, { kept[i].headers.ip.src, kept[i].headers.udp.dport })
      assert.equal("udp header", tostring(pkt.udp))
    end
    assert.equal(0, told[1].uid)
  end)

  it("are dead when they are settled from outside, with their headers", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder())
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    local pkt, header = kept[1], kept[1].udp
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
    assert.equal("two", kept[2].payload) -- the other is not
    kept[2]:drop()
    assert.equal(DEAD, refusal(accept, kept[2]))
    assert.same({ "one" }, udp:received())
  end)

  it("are settled by another packet's handler, and can be read until it returns", function()
    local udp = through_queue()
    local queue = traffic.open(3, checked(function(pkt)
      if pkt.payload:find("hold") then
        return holder()(pkt)
      end
      for i = #kept, 1, -1 do
        local old = table.remove(kept)
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
      if #kept == 0 then
        return holder()(pkt)
      elseif not kept.settled then
        kept[1]:drop()
        kept.settled = true
      else
        assert.equal(DEAD, refusal(function() return kept[1].id end))
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
    udp:send("0.03", "0.02", "0.01", "0")
    traffic.judge({ queue }, "the timers", function()
      return queue:stats().accepted == 4
    end)
    assert.same({ "0", "0.01", "0.02", "0.03" }, udp:received())
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
      kept[1]:accept()
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
    kept[2]:accept()
    kept[1]:accept()
    assert.same({ "hold 2", "hold 1" }, { table.unpack(udp:received(), 151) })
    udp:send("once more", "and again")
    traffic.judge_packets(queue, 154)
    assert.equal("and again", udp:received()[154])
    assert.equal(0, queue:stats().refused)
  end)

  measured("4,096 of them are settled in reverse", function()
    local COUNT = 4096
    -- On input: what is held on output counts against its sender's socket. Both rules are on one hook, one after the
    -- other.
    local udp = traffic.udp()
    traffic.rule(("-t mangle -A INPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(udp.port))
    local numbers = {}
    local queue = traffic.open(3, holder())
    local arrivals = traffic.open(4, function(pkt)
      numbers[#numbers + 1] = math.tointeger(tonumber(pkt.payload))
      pkt:drop()
    end, { max_packets = COUNT })
    for i = 1, COUNT do
      udp:send(tostring(i))
      if i % 64 == 0 then
        queue:process()
      end
    end
    traffic.judge_packets(queue, COUNT)
    assert.same({ COUNT, COUNT }, { net.queue(3).waiting, queue:stats().kept })
    for i = COUNT, 1, -1 do
      kept[i]:accept()
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
      kept[i]:accept()
    end
    udp:send("room again")
    traffic.judge_packets(queue, 11)
    assert.equal("room again", kept[11].payload)
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
        kept[#kept + 1] = pkt
      else
        problems[#problems + 1] = message
        pkt:drop()
      end
    end)
    local text = ("x"):rep(65300) -- with all that comes with it more than 64 KiB: a block of 128
    for _ = 1, 2051 do
      udp:send(text)
      queue:process()
    end
    assert.equal("cannot hold this packet: the memory for copies is used up", problems[1])
    assert.same({ 2048, 3, 2048 }, { #kept, #problems, queue:stats().kept })
    -- What is given back is there again.
    for i = 1, 10 do
      table.remove(kept):drop()
      udp:send(i .. text)
      queue:process()
      assert.equal(i .. text, kept[#kept].payload)
    end
    for _, pkt in ipairs(kept) do
      pkt:drop()
    end
    assert.same({ 0, 0 }, { queue:stats().kept, queue:stats().waiting })
  end)
end)

describe("edits of held packets", function()
  local function settled(text, in_handler, later, family)
    local udp = through_queue(family)
    local queue = traffic.open(3, checked(function(pkt)
      in_handler(pkt)
      holder()(pkt)
    end))
    udp:send(text)
    traffic.judge_packets(queue, 1)
    later(kept[1])
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
    for i, pkt in ipairs(kept) do
      pkt.payload = ("%d "):format(i):rep(i * 20)
    end
    for i = 20, 1, -1 do
      assert.equal(("%d "):format(i):rep(i * 20), kept[i].payload)
      kept[i]:accept()
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
      refusal(kept[1].u8, kept[1], 8, 1))
    kept[1]:accept()
    assert.same({ "longer than what is copied" }, udp:received())
  end)

  measured("with marks reach the rules behind", function()
    local udp = through_queue()
    traffic.rule(("-A INPUT -p udp --dport %d -m mark --mark 77"):format(udp.port))
    traffic.rule(("-A INPUT -p udp --dport %d -m mark --mark 78"):format(udp.port))
    local queue = traffic.open(3, holder())
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    kept[1].mark = 77
    kept[1]:accept()
    kept[2]:accept({ mark = 78 })
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
    kept[1]:again({ mark = 1 })
    kept[2]:requeue(4)
    traffic.judge_packets(second, 1)
    assert.same({ "one", "TWO" }, udp:received())
    assert.same({ 1, 1 }, { queue:stats().again, queue:stats().requeued })
  end)
end)

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
      assert.equal(DEAD, refusal(function() kept[1]:accept() end))
      assert.equal(2, traffic.verdicts(stats))
    end)
  end

  it("leaves with its edits", function()
    local udp = through_queue()
    local queue = traffic.open(3, holder(0.05))
    udp:send("one")
    traffic.judge_packets(queue, 1)
    kept[1].payload = "edited, and longer"
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
    kept[1]:hold(1000)
    traffic.judge({ queue }, "the other", function()
      return queue:stats().kept == 1
    end)
    assert.same({ "two" }, udp:received())
    assert.equal("one", kept[1].payload)
    kept[1]:hold(0.01, "drop")
    traffic.judge({ queue }, "its end", function()
      return queue:stats().kept == 0
    end)
    assert.same({ "two" }, udp:received())
  end)

  it("gets its verdict when the queue is closed, stopped from a handler, or collected", function()
    local function start_over()
      kept = {}
      local udp = through_queue()
      udp.queue = nfqueue.new(3, function(pkt, own)
        if pkt.payload == "stop" then
          own:stop()
          return pkt:accept()
        end
        holder(1000, pkt.payload)(pkt)
      end)
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
      for _, pkt in ipairs(kept) do
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
      in_close = refusal(function() kept[1]:accept() end)
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
    kept[2]:accept()
    kept[1]:accept()
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
      kept[#kept + 1] = pkt
      return "hold", 1000, "drop"
    end)
    udp:send("one")
    traffic.judge_packets(queue, 1)
    assert.equal("one", kept[1].payload)
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
      if #kept == 20 then
        for i = 20, 1, -1 do
          kept[i]:accept()
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
    kept[2]:drop()
    assert.equal(queue, socket.select({ queue }, nil, 60)[1])
    assert.equal(0, queue:process())
    assert.same({}, (socket.select({ queue }, nil, 0.05)))
  end)
end)
