-- The command with several queues: how they share threads, and when chunk, open and close run.

local net = require("support.net")

local PORT = 4100

before_each(net.cleanup)
after_each(net.cleanup)

--- Tells of every step on standard error, one write a line. `state` is the thread's own table.
local SCRIPT = [[
  local state = tostring({}):match("0x%x+")
  local function tell(...)
    io.stderr:write("step " .. table.concat({ ... }, " ") .. "\n")
  end
  tell("chunk", state)
  return {
    open = function(queue) tell("open", state, queue.number) end,
    packet = function(pkt, queue)
      tell("packet", state, queue.number)
      pkt:accept()
    end,
    close = function(queue) tell("close", state, queue.number) end,
  }
]]

--- The steps told so far: a list of { what, state, queue }.
local function steps(process, wanted)
  local list = {}
  for what, state, queue in process:output():gmatch("step (%a+) (%S+) ?(%d*)\n") do
    if what == wanted or not wanted then
      list[#list + 1] = { what = what, state = state, queue = tonumber(queue) }
    end
  end
  return list
end

local function queues_of(list)
  local numbers = {}
  for _, step in ipairs(list) do
    numbers[#numbers + 1] = step.queue
  end
  table.sort(numbers)
  return numbers
end

local function threads_of(pid)
  local names = {}
  for name in net.must(("cat /proc/%d/task/*/comm"):format(pid)):gmatch("[^\n]+") do
    if name:find("^queue ") then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local cores = tonumber(net.must("nproc"))

for _, case in ipairs({
  { words = "-q 5", queues = { 5 }, threads = 1 },
  { words = "-q 5-6 --threads 2", queues = { 5, 6 }, threads = 2 },
  { words = "-q 5-6 --threads 1", queues = { 5, 6 }, threads = 1 },
  { words = "-q 5 -q 9 -q 65534-65535 --threads 4", queues = { 5, 9, 65534, 65535 }, threads = 4 },
  { words = "-q 5-8 --threads 3", queues = { 5, 6, 7, 8 }, threads = 3 },
  { words = "-q 5,7 -q 6", queues = { 5, 6, 7 }, threads = math.min(3, cores) },
}) do
  describe("nfqueue run " .. case.words, function()
    local run, boxes

    before_each(function()
      run = net.run(net.file(SCRIPT) .. " " .. case.words)
      boxes = {}
      for i, queue in ipairs(case.queues) do
        boxes[i] = net.udp(PORT + i)
        net.queue_udp(PORT + i, queue)
      end
    end)

    after_each(function()
      for _, box in ipairs(boxes) do
        box:close()
      end
    end)

    it("makes a named thread for each lane in one worker, and none in the supervisor", function()
      assert.equal(case.threads, #threads_of(run:worker()))
      assert.same({}, threads_of(run.pid))
      for _, name in ipairs(threads_of(run:worker())) do
        local number = tonumber(name:match("%d+"))
        local known = false
        for _, queue in ipairs(case.queues) do
          known = known or queue == number
        end
        assert.is_true(known, name)
      end
    end)

    it("runs the chunk once a thread, open and close once a queue, packets between", function()
      assert.equal(case.threads, #steps(run, "chunk"))
      assert.same(case.queues, queues_of(steps(run, "open")))
      for _, box in ipairs(boxes) do
        box:send("one", "two")
      end
      for _, box in ipairs(boxes) do
        box:await("two")
      end
      assert.same({}, steps(run, "close"))
      run:signal("TERM")
      assert.equal(0, run:join())
      assert.same(case.queues, queues_of(steps(run, "close")))
      -- The life of each queue in order, all of it in the one state that loaded the chunk.
      local states, life = {}, {}
      for _, step in ipairs(steps(run)) do
        if step.what == "chunk" then
          assert.is_nil(states[step.state])
          states[step.state] = true
        else
          assert.is_true(states[step.state], "a state that ran no chunk")
          local entry = life[step.queue] or { state = step.state }
          assert.equal(entry.state, step.state)
          entry[#entry + 1] = step.what
          life[step.queue] = entry
        end
      end
      for _, queue in ipairs(case.queues) do
        assert.equal("open packet packet close", table.concat(life[queue], " "))
        assert.is_nil(net.queue(queue))
      end
    end)
  end)
end

describe("open", function()
  it("has run for every queue of every thread before any queue is bound", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    -- The first of two threads opens at once, the second waits for a word; only then is there a queue.
    local gate = net.make_gate()
    local run = net.start(("%s run %s -q 5-6 --threads 2 --time-limit 600 -- gate=%s"):format(net.command, net.file([[
      local args = ...
      return {
        open = function(queue)
          if queue.number == 6 then
            io.open(args.gate):read("l")
          end
          io.stderr:write("opened ", queue.number, "\n")
        end,
        packet = function(pkt) pkt:accept() end,
      }
    ]]), gate))
    net.wait_for("the first open", function()
      return run:output():find("opened 5", 1, true)
    end)
    assert.is_nil(net.queue(5))
    assert.is_nil(net.queue(6))
    net.open_gate(gate)
    net.wait_for("both queues", function()
      return net.queue(5) and net.queue(6)
    end)
    assert.matches("opened 6\n.*ready: 2 queues, 2 threads", net.wait_for("ready", function()
      return run:output():find("ready:", 1, true) and run:output()
    end))
  end)

  it("sees the settings its queue is about to have", function()
    local run = net.run(net.file([[return {
      config = { max_packets = 77 },
      open = function(queue)
        io.stderr:write(("open %d %d %s\n"):format(queue.number, queue.config.max_packets, queue.config.default))
      end,
      packet = function(pkt) pkt:accept() end,
    }]]) .. " -q 5 --default drop")
    assert.matches("open 5 77 drop\n", run:output(), 1, true)
  end)
end)

describe("close", function()
  it("that raises is told in the log, the others still run, and the command ends as it would", function()
    local run = net.run(net.file([[return {
      packet = function(pkt) pkt:accept() end,
      close = function(queue)
        if queue.number == 5 then error("broken close") end
        io.stderr:write("closed ", queue.number, "\n")
      end,
    }]]) .. " -q 5-6 --threads 1")
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.matches("close of the script failed: [^\n]*broken close", run:output())
    assert.matches("closed 6\n", run:output(), 1, true)
    assert.is_nil(net.queue(5))
    assert.is_nil(net.queue(6))
  end)
end)
