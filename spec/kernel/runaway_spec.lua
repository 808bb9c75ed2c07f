-- Handlers, timers, hooks and chunks that never return, behind a real queue: each is interrupted, and what is behind
-- it, or in other threads, loses nothing.

local net = require("support.net")
local runaways = require("support.runaways")

local PORT = 4400
local boxes

before_each(function()
  net.cleanup()
  boxes = { net.udp(PORT), net.udp(PORT + 1) }
  for i in ipairs(boxes) do
    net.queue_udp(PORT + i - 1, 4 + i, "")
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
    if pkt:find("report") then
      local stats = queue:stats()
      io.stderr:write(("report: judged %d, %d errors, %d timeouts\n"):format(judged, stats.errors, stats.timeouts))
    end
    pkt:accept()
  end
]]

local function start(options)
  return net.run(("%s -q 5-6 --threads 2 --time-limit 0.05 %s -- path=%s")
    :format(net.file(SCRIPT), options or "",
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
    assert.equal(("judged %d, %d errors, %d timeouts"):format(2 * #runaways.interruptible + 1,
      #runaways.interruptible, #runaways.interruptible), run:output():match("report: ([^\n]+)"))
    assert.equal(worker, run:worker())
    -- The first in full, then one a second at most.
    assert.matches("nfqueue: error: handler failed: [^\n]*runaways.lua:%d+: time limit of 0.05 s exceeded\n"
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
