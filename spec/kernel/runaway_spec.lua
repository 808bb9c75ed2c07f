-- Handlers, timers, hooks and chunks that never return, behind a real queue: each is interrupted, and what is behind
-- it, or in other threads, loses nothing.

local net = require("support.net")
local runaways = require("support.runaways")

-- What a handler may take, in seconds.
local slow = os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")
local LIMIT = slow and 0.4 or 0.05
local port = 4400
local boxes

before_each(function()
  net.cleanup()
  port = port + 2 -- what a handler has started keeps the old ones for a while
  boxes = { net.udp(port), net.udp(port + 1) }
  for i in ipairs(boxes) do
    net.queue_udp(port + i - 1, 4 + i, "")
  end
end)

after_each(function()
  for _, box in ipairs(boxes) do
    box:close()
  end
  net.cleanup()
end)

-- The packet "run <kind> <number>" runs that form; "report" writes what the state has come to.
local SCRIPT = [[
  local args = ...
  package.path = args.path
  local runaways = require("support.runaways")
  local judged = 0
  return function(pkt, queue)
    judged = judged + 1
    local kind, number = pkt.payload:match("^run (%a+) (%d+)$")
    if kind then
      runaways[kind][tonumber(number)][2](pkt)
    end
    if queue.number == 6 then -- so that there is often one at hand
      local deadline = os.clock() + 0.0005
      while os.clock() < deadline do end
    end
    if pkt:find("drop") then
      return pkt:drop()
    end
    if pkt:find("report") then
      local stats = queue:stats()
      io.stderr:write(("report: judged %d, %d errors, %d timeouts\n"):format(judged, stats.errors, stats.timeouts))
    end
    pkt:accept()
  end
]]

--- Datagrams for which a socket of this namespace had no room.
local function overflows()
  local names, values = net.read("/proc/net/snmp"):match("\nUdp:([^\n]*)\nUdp:([^\n]*)")
  local position = select(2, names:match("^(.-)RcvbufErrors"):gsub("%S+", "")) + 1
  for value in values:gmatch("%S+") do
    position = position - 1
    if position == 0 then
      return tonumber(value)
    end
  end
end

local function start(options)
  return net.run(("%s -q 5-6 --threads 2 --time-limit %g %s -- path=%s")
    :format(net.file(SCRIPT), LIMIT, options or "",
      net.must("readlink -f spec") .. "/?.lua"))
end

describe("a handler that never returns", function()
  it("is interrupted in every form, and its state lives on", function()
    local run = start("--on-error drop")
    local worker = run:worker()
    local expected, beside = {}, {}
    for number in ipairs(runaways.interruptible) do
      boxes[1]:send("run interruptible " .. number, "behind " .. number)
      boxes[2]:send("beside " .. number)
      table.insert(expected, "behind " .. number)
      table.insert(beside, "beside " .. number)
    end
    boxes[1]:send("report")
    table.insert(expected, "report")
    assert.same(expected, boxes[1]:await("report", 30))
    assert.same(beside, boxes[2]:await_count(#beside))
    run:await("report:")
    local judged, errors, timeouts = run:output():match("judged (%d+), (%d+) errors, (%d+) timeouts")
    assert.same({ #runaways.interruptible, #runaways.interruptible }, { tonumber(errors), tonumber(timeouts) })
    -- Where instructions take twenty times as long, one that does not come to an end in time costs the worker.
    if not slow then
      assert.equal(2 * #runaways.interruptible + 1, tonumber(judged))
      assert.equal(worker, run:worker())
    end
    -- The first in full, then one a second at most.
    assert.matches("nfqueue: error: handler failed: [^\n]*runaways.lua:%d+: time limit of [%d.]+ s exceeded\n"
      .. "  stack traceback:", run:output())
    run:signal("TERM")
    assert.equal(0, run:join())
  end)

  it("gets its packet accepted where on_error says so", function()
    start("--on-error accept")
    boxes[1]:send("run interruptible 1", "behind")
    assert.same({ "run interruptible 1", "behind" }, boxes[1]:await("behind"))
  end)

  it("is interrupted where it waits for something to read", function()
    local run = net.run(("%s -q 5 --time-limit 0.1 -- gate=%s"):format(net.file(net.GATED), net.make_gate()))
    boxes[1]:send("block", "behind")
    assert.same({ "behind" }, boxes[1]:await("behind"))
    assert.matches("time limit of 0.1 s exceeded", run:output(), 1, true)
  end)
end)

-- A steady stream of numbers, and of words in between that are to be dropped, until the file is gone.
local STREAM = [[
  local socket = require("socket")
  local sender = socket.udp4()
  local number = 0
  local file = io.open(%q)
  while file and number < 20000 do
    file:close()
    for _ = 1, 5 do
      number = number + 1
      sender:sendto("stream " .. number, "127.0.0.1", %d)
      sender:sendto("drop " .. number, "127.0.0.1", %d)
    end
    socket.sleep(0.01)
    file = io.open(%q)
  end
  print("sent " .. number)
]]

describe("a handler that cannot be interrupted", function()
  it("costs its worker in every form, its packet gets on_error, and no other packet anything", function()
    local run = start("--on-error drop")
    local worker = run:worker()
    local expected = {}
    local going = net.file()
    local overflowed = overflows()
    local stream = net.start("lua5.4 " .. net.file(STREAM:format(going, port + 1, port + 1, going)))
    for number, case in ipairs(runaways.stuck) do
      boxes[1]:send("before " .. number, "run stuck " .. number, "behind " .. number)
      table.insert(expected, "before " .. number)
      table.insert(expected, "behind " .. number)
      net.wait_for("what is behind " .. case[1], function()
        boxes[2]:all()
        local texts = boxes[1]:all()
        return texts[#texts] == "behind " .. number
      end)
      assert.equal(number, run:count("nfqueue: error: the worker %(pid %d+%) was ended: the handler exceeded its time "
        .. "limit of [%d.]+ s and could not be interrupted %(queue 5%); starting another\n"), case[1])
      assert.equal(number, run:count("the handler overran its time and could not be interrupted at packet %d+ of "
        .. "queue 5: IP 127.0.0.1"), case[1])
      assert.not_equal(worker, run:worker())
      worker = run:worker()
    end
    assert.same(expected, boxes[1]:all())
    os.remove(going)
    assert.equal(0, stream:join())
    local sent = tonumber(stream:output():match("sent (%d+)"))
    boxes[2]:send("stream end", "report")
    boxes[2]:await("report")
    local at = 1
    for number = 1, sent do
      at = at + (boxes[2].texts[at] == "stream " .. number and 1 or 0)
    end
    assert.equal("stream end", boxes[2].texts[at])
    -- None is missing, but on a machine so busy that a handler gets no processor for as long as its limit, or for as
    -- long as the end of a worker waits for it. Then it is an error, and no other packet is.
    run:await("report:")
    local errors, timeouts = run:output():match("(%d+) errors, (%d+) timeouts\n")
    local missing = sent - (at - 1) - (overflows() - overflowed)
    assert.is_true(missing <= tonumber(errors), ("%d of %d missing, %s errors"):format(missing, sent, errors))
    assert.equal(errors - timeouts, run:count("the worker died in the handler of packet %d+ of queue 6: "))
    boxes[1]:send("report")
    run:await((" %d errors, %d timeouts"):format(#runaways.stuck, #runaways.stuck))
    run:signal("TERM")
    assert.equal(0, run:join())
  end)

  it("keeps its packet until then, as on_error accepts it", function()
    start("--on-error accept")
    boxes[1]:send("run stuck 1", "behind")
    assert.same({ "run stuck 1", "behind" }, boxes[1]:await("behind"))
  end)

  it("does not keep the command from ending well, nor what waits behind it from its handler", function()
    local run = start("--on-error drop")
    boxes[1]:send("run stuck 1", "behind 1", "run stuck 1", "behind 2")
    run:signal("TERM")
    assert.equal(0, run:join(), run:output())
    assert.same({ "behind 1", "behind 2" }, boxes[1]:await("behind 2"))
    assert.is_nil(net.queue(5))
  end)

  for _, case in ipairs({
    { "the chunk", "string.rep('', 1 << 62)", "script's chunk" },
    { "open", "return { packet = print, open = function() string.rep('', 1 << 62) end }", "script's open" },
  }) do
    it("but " .. case[1] .. " ends a command that starts, with 65", function()
      local run = net.start(("%s run %s -q 5 --time-limit 0.02"):format(net.command, net.file(case[2])))
      assert.equal(65, run:join())
      assert.matches(("the %s exceeded its time limit of 0.2 s and could not be interrupted"):format(case[3]),
        run:output(), 1, true)
    end)
  end

  it("but a timer costs its worker, and no packet anything", function()
    local run = net.run(net.file([[
      local nfqueue = require("nfqueue")
      local args = ...
      local first = args.first
      local file = io.open(first, "r")
      if file then
        file:close()
        os.remove(first)
        nfqueue.after(0.01, function() string.rep("", 1 << 62) end)
      end
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5 --time-limit 0.05 -- first=" .. net.file())
    boxes[1]:send("a", "b", "c")
    run:await("the timer exceeded its time limit of 0.05 s and could not be interrupted")
    boxes[1]:send("d")
    assert.same({ "a", "b", "c", "d" }, boxes[1]:await("d"))
    run:signal("TERM")
    assert.equal(0, run:join())
  end)

  it("but the end of its state does not hold the command up for ever", function()
    local run = net.run(net.file([[
      KEPT = setmetatable({}, { __gc = function() while true do end end })
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5 --time-limit 0.05")
    boxes[1]:send("a")
    boxes[1]:await("a")
    run:signal("TERM")
    assert.equal(1, run:join())
    assert.matches("the end of the script's state exceeded its time limit", run:output(), 1, true)
  end)
end)

describe("time_limit", function()
  local LOOP = "while true do end"

  for _, case in ipairs({
    { "the chunk", LOOP, "failed while loading: [^\n]*time limit of 0%.2 s exceeded" },
    { "open", "return { packet = print, open = function() " .. LOOP .. " end }",
      "open of the script failed: [^\n]*time limit of 0%.2 s exceeded" },
    { "what the chunk returns", "return setmetatable({}, { __index = function() " .. LOOP .. " end })",
      "time limit of 0%.2 s exceeded" },
  }) do
    it("holds for " .. case[1] .. ", and the command ends", function()
      local run = net.start(("%s run %s -q 5 --time-limit 0.02"):format(net.command, net.file(case[2])))
      assert.equal(65, run:join())
      assert.matches(case[3], run:output())
    end)
  end

  it("holds for close, and the command ends well", function()
    local run = net.run(net.file("return { packet = print, close = function() " .. LOOP .. " end }")
      .. " -q 5 --time-limit 0.05")
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.matches("close of the script failed: [^\n]*time limit of 0.05 s exceeded", run:output())
  end)

  it("holds for timers", function()
    local run = net.run(net.file([[
      local nfqueue = require("nfqueue")
      nfqueue.after(0.01, function() while true do end end)
      nfqueue.after(0.02, function() io.stderr:write("the next timer\n") end)
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5 --time-limit 0.05")
    run:await("the next timer")
    assert.matches("timer failed: [^\n]*time limit of 0.05 s exceeded", run:output())
    boxes[1]:send("behind")
    boxes[1]:await("behind")
  end)
end)
