-- Timers between packets: in loops in C, in foreign ones, under nfqueue run. Their order and arguments:
-- spec/timer_spec.lua.

local cqueues = require("cqueues")
local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local timers

--- A timer that is taken back at the end.
local function after(...)
  timers[#timers + 1] = nfqueue.after(...)
  return timers[#timers]
end

local function every(...)
  timers[#timers + 1] = nfqueue.every(...)
  return timers[#timers]
end

before_each(function()
  timers = {}
end)

after_each(function()
  for _, timer in ipairs(timers) do
    timer:cancel()
  end
  traffic.cleanup()
end)

local function readable(queue)
  return #socket.select({ queue }, nil, 0) == 1
end

describe("timers in start", function()
  it("run without packets, those made before it too, and can stop it", function()
    local queue
    local calls = {}
    after(0.03, function() calls[#calls + 1] = "before" end)
    queue = traffic.queue(3, {
      packet = print,
      open = function()
        after(0, function() calls[#calls + 1] = "first" end)
        after(0.01, function() calls[#calls + 1] = "open" end)
        after(0.05, function()
          calls[#calls + 1] = "stop"
          queue:stop()
        end)
        after(1000, function() calls[#calls + 1] = "never" end)
      end,
      close = function() calls[#calls + 1] = "close" end,
    })
    assert.is_true(queue:start())
    assert.same({ "first", "open", "before", "stop", "close" }, calls)
  end)

  it("stay for the next loop when they are not due", function()
    local queue = traffic.queue(3, print)
    local ran
    after(0.02, function()
      ran = true
      nfqueue.stop()
    end)
    local first = after(0, nfqueue.stop)
    assert.is_true(queue:start())
    assert.is_nil(ran)
    assert.equal("timer (done)", tostring(first))
    assert.is_true(queue:start())
    assert.is_true(ran)
  end)

  it("run between packets, however many those are", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local inside, ticks, packets = false, 0, 0
    local queue = traffic.queue(3, function(pkt)
      inside = true
      packets = packets + 1
      pkt:drop()
      inside = false
    end)
    every(0.001, function()
      assert.is_false(inside)
      ticks = ticks + 1
      if ticks >= 20 and packets >= 200 then
        nfqueue.stop()
      end
    end)
    local load = net.start(net.lua .. " " .. net.file(([[
      local udp = require("socket").udp()
      while true do
        udp:sendto("load", "127.0.0.1", %d)
      end
    ]]):format(udp.port)))
    assert.is_true(queue:start())
    load:signal("KILL")
    assert.is_true(ticks >= 20)
  end)

  it("that raise are logged, the first in full, and the loop goes on", function()
    local count = 0
    local queue = traffic.queue(3, print)
    local log = traffic.log(function()
      every(0.001, function()
        count = count + 1
        if count == 50 then
          nfqueue.stop()
        end
        error("trouble " .. count)
      end)
      assert.is_true(queue:start())
    end)
    assert.matches("nfqueue: error: timer failed: [^\n]*trouble 1\n%s+stack traceback:", log)
    -- 50 errors in about as many milliseconds: at most one more line a second.
    local _, lines = log:gsub("timer failed", "")
    assert.is_true(lines < 50, log)
    assert.equal(0, queue:stats().errors) -- those are packets'
  end)

  it("see a clock that goes forward, and is the same for a batch", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local times = {}
    local queue = traffic.open(3, function()
      times[#times + 1] = nfqueue.now()
      for _ = 1, 10000 do end -- luacheck: ignore
    end)
    local before = nfqueue.now()
    udp:send("one", "two", "three")
    traffic.judge_packets(queue, 3)
    local behind = nfqueue.now()
    udp:send("four")
    traffic.judge_packets(queue, 4)
    assert.is_true(before < times[1] and times[3] < behind and behind < times[4])
    assert.is_true(times[1] <= times[2] and times[2] <= times[3])
  end)

  measured("count their time from the call, not from the batch", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local queue
    local asked, ran
    queue = traffic.queue(3, function(pkt)
      local _ = nfqueue.now()
      if pkt.payload == "1" then
        os.execute("sleep 0.1")
        asked = socket.gettime()
        after(0.05, function()
          ran = socket.gettime()
          queue:stop()
        end)
      end
    end)
    traffic.flood(udp.port, 1, 3)
    assert.is_true(queue:start())
    assert.is_true(ran - asked >= 0.05)
  end)

  it("can close and open other queues", function()
    local queue = traffic.queue(3, print)
    local other = traffic.queue(4, print)
    after(0, function() assert(other:open()) end)
    after(0.01, function() other:close() end)
    after(0.02, nfqueue.stop)
    local log = traffic.log(function()
      assert.is_true(queue:start())
    end)
    assert.equal("", log)
    assert.equal("queue 4 (idle)", tostring(other))
  end)
end)

describe("an opened queue's descriptor", function()
  it("is readable when a timer is due, until process has run it", function()
    local queue = traffic.open(3, print)
    assert.is_false(readable(queue))
    local ran = 0
    after(0.02, function() ran = ran + 1 end)
    assert.is_false(readable(queue))
    assert.equal(0, queue:process())
    assert.equal(0, ran)
    assert.equal(queue, socket.select({ queue }, nil, 60)[1])
    assert.equal(0, ran) -- it needs process
    assert.equal(0, queue:process()) -- that is no verdict
    assert.equal(1, ran)
    assert.is_false(readable(queue))
  end)

  it("is readable again and again for a repeated one, and no more when that is cancelled", function()
    local queue = traffic.open(3, print)
    local ran = 0
    local timer = every(0.01, function() ran = ran + 1 end)
    for i = 1, 3 do
      assert.equal(queue, socket.select({ queue }, nil, 60)[1])
      queue:process()
      assert.is_true(ran >= i)
    end
    timer:cancel()
    socket.select({ queue }, nil, 0.05) -- what was armed may still come
    queue:process()
    assert.is_false(readable(queue))
  end)

  it("of any queue of the state tells of all timers; each runs once", function()
    local first = traffic.open(3, print)
    local ran = 0
    after(0.01, function() ran = ran + 1 end)
    local second = traffic.open(4, print)
    assert.equal(second, socket.select({ second }, nil, 60)[1])
    assert.is_true(readable(first))
    second:process()
    first:process()
    assert.equal(1, ran)
    assert.is_false(readable(first) or readable(second))
  end)

  it("is readable for timers made without a loop, from open on", function()
    local ran
    after(0, function() ran = true end)
    local queue = traffic.open(3, print)
    assert.is_true(readable(queue))
    queue:process()
    assert.is_true(ran)
  end)

  it("gives a new timer of no time its turn with the next process", function()
    local queue = traffic.open(3, print)
    local ran = 0
    local function again()
      ran = ran + 1
      if ran < 5 then
        after(0, again)
      end
    end
    after(0, again)
    traffic.judge({ queue }, "five turns", function()
      return ran == 5
    end)
    assert.is_false(readable(queue))
  end)

  it("closed from a timer is closed when process returns", function()
    local queue = traffic.open(3, print)
    after(0, function()
      queue:close()
      assert(queue:fd())
    end)
    assert.equal(0, queue:process())
    assert.equal("queue 3 (idle)", tostring(queue))
  end)

  it("wakes cqueues", function()
    local queue = traffic.open(3, print)
    local ran = 0
    every(0.005, function() ran = ran + 1 end)
    local controller = cqueues.new()
    controller:wrap(function()
      while ran < 5 do
        assert(cqueues.poll(queue, 60) == queue)
        queue:process()
      end
      cqueues.cancel(queue:pollfd())
    end)
    assert(controller:loop())
    assert.equal(5, ran)
  end)
end)

describe("nfqueue run", function()
  local PORT = 4700

  measured("runs timers of the chunk and of open in every thread, and ends with them", function()
    local run = net.run(net.file([[
      local nfqueue = require("nfqueue")
      nfqueue.after(0.01, function() io.stderr:write("chunk ran\n") end)
      return {
        open = function(queue)
          nfqueue.after(0.02, function() io.stderr:write("queue ", queue.number, " ran\n") end)
          nfqueue.every(1000, print)
        end,
        packet = function(pkt) pkt:accept() end,
      }]]) .. " -q 5-6 --threads 2")
    run:await("queue 5 ran")
    run:await("queue 6 ran")
    assert.equal(2, run:count("chunk ran"))
    run:signal("TERM")
    assert.equal(0, run:join())
  end)

  measured("stops when a timer says so", function()
    local run = net.start(net.command .. " run " .. net.file([[
      local nfqueue = require("nfqueue")
      nfqueue.after(0.05, nfqueue.stop)
      return function(pkt) pkt:accept() end]]) .. " -q 5-6 --threads 2")
    assert.equal(0, run:join())
    assert.is_nil(net.queue(5))
    assert.is_nil(net.queue(6))
  end)

  measured("takes hold_limit from the script and the command line", function()
    local box = net.udp(PORT)
    finally(function() box:close() end)
    net.queue_udp(PORT, 5, "")
    local script = net.file([[return {
      config = { hold_limit = 1000 }, packet = function(pkt) pkt:hold() end }]])
    local run = net.run(script .. " -q 5 --hold-limit 0.05")
    box:send("one")
    box:await("one")
    run:signal("TERM")
    assert.equal(0, run:join())
    run = net.run(script .. " -q 5 --default drop")
    box:send("two")
    net.wait_for("the queue", function() return net.queue(5).waiting == 1 end)
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.same({ "one" }, box:all())
  end)
end)
