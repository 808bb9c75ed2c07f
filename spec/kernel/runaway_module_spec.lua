-- Handlers that never return, in the module's process: started, processed in somebody else's loop, and in threads.

local cqueues = require("cqueues")
local net = require("support.net")
local signal = require("cqueues.signal")
local traffic = require("support.traffic")

local LIMIT = 0.05
local udp

before_each(function()
  traffic.cleanup()
  udp = traffic.udp()
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
end)

after_each(traffic.cleanup)

local function forever()
  while true do end -- luacheck: ignore 542
end

local function judge(pkt, queue)
  local text = traffic.payload(pkt)
  if text == "run" then
    forever()
  elseif text == "coroutine" then
    coroutine.wrap(forever)()
  elseif text == "slow" then
    -- Some tenths of a second of C code, which nothing interrupts.
    string.find(("x"):rep(10000), "^x*x*y")
  elseif text == "stop" then
    queue:stop()
  end
  pkt:accept()
end

describe("in a module's process a handler that never returns", function()
  it("is interrupted where it was started, and the loop goes on", function()
    local queue = traffic.queue(3, judge, { time_limit = LIMIT })
    queue:open()
    udp:send("before", "run", "behind", "coroutine", "last")
    local log = traffic.log(function()
      traffic.judge_packets(queue, 5)
    end)
    assert.same({ "before", "behind", "last" }, udp:received())
    assert.matches("handler failed: [^\n]*time limit of 0.05 s exceeded\n", log)
    assert.equal(2, queue:stats().errors)
    assert.equal(2, queue:stats().timeouts)
  end)

  it("that keeps signals off is sent a few", function()
    local SIGNAL = 64 -- the last one there is, which nobody else takes
    local function queued() -- by all processes of the user
      return tonumber(net.read("/proc/self/status"):match("SigQ:%s*(%d+)"))
    end
    local before, at_end
    local queue = traffic.queue(3, function(pkt)
      before = queued()
      signal.block(SIGNAL)
      local start = cqueues.monotime()
      repeat
        at_end = queued()
      until cqueues.monotime() > start + LIMIT + 0.5
      signal.unblock(SIGNAL)
      pkt:accept()
    end, { time_limit = LIMIT })
    queue:open()
    udp:send("deaf")
    traffic.log(function()
      traffic.judge_packets(queue, 1)
    end)
    assert.equal(1, queue:stats().timeouts)
    assert.is_true(at_end > before and at_end < before + 50, ("%d, then %d"):format(before, at_end))
  end)

  it("is interrupted inside start", function()
    local queue = traffic.queue(3, judge, { time_limit = LIMIT })
    net.start(("lua5.4 " .. net.file(([[
      local net = require("support.net")
      local socket = require("socket")
      net.wait_for("queue", function() return net.queue(3) end)
      local sender = socket.udp4()
      for _, text in ipairs({ "before", "run", "behind", "coroutine", "last", "stop" }) do
        sender:sendto(text, "127.0.0.1", %d)
      end
    ]]):format(udp.port))))
    traffic.log(function()
      assert.is_true(queue:start())
    end)
    assert.same({ "before", "behind", "last", "stop" }, udp:received())
    assert.equal(2, queue:stats().timeouts)
  end)

  it("is interrupted inside a cqueues loop, whose coroutines go on", function()
    local queue = traffic.open(3, judge, { time_limit = LIMIT })
    local loop = cqueues.new()
    local beside = 0
    local done = false
    loop:wrap(function()
      while queue:stats().packets < 4 do
        cqueues.poll(queue, 0.1)
        assert(queue:process())
      end
      done = true
    end)
    loop:wrap(function()
      while not done do
        beside = beside + 1
        cqueues.sleep(0.01)
      end
    end)
    udp:send("run", "a", "coroutine", "b")
    traffic.log(function()
      assert(loop:loop())
    end)
    assert.same({ "a", "b" }, udp:received())
    assert.equal(2, queue:stats().timeouts)
    assert.is_true(beside > 0)
  end)

  it("is told of once when it cannot be interrupted, and judged when it returns", function()
    local queue = traffic.open(3, judge, { time_limit = 0.02 })
    udp:send("slow", "behind")
    local log = traffic.log(function()
      traffic.judge_packets(queue, 2)
    end)
    assert.same({ "behind" }, udp:received())
    assert.equal(1, select(2, log:gsub("the handler has exceeded its time limit of 0.02 s and cannot be interrupted",
      "")))
    assert.equal(1, queue:stats().timeouts)
  end)
end)

describe("nfqueue.run in a module's process", function()
  it("interrupts the handlers of its threads", function()
    local script = net.file([[
      local first = true
      return function(pkt, queue)
        if pkt:find("run") then
          while true do end
        elseif pkt:find("stop") then
          io.stderr:write("timeouts ", queue:stats().timeouts, "\n")
          queue:stop()
        end
        pkt:accept()
      end
    ]])
    local host = net.start(("%s -e 'package.path = \"lua/?.lua;lua/?/init.lua;\" .. package.path; "
      .. "package.cpath = \"%s/lib/?.so;\" .. package.cpath' %s"):format(net.lua, net.build, net.file(([[
        print(require("nfqueue").run({ script = %q, queues = "3-4", threads = 2, config = { time_limit = 0.05,
          buffer_size = 1 << 20 } }))
      ]]):format(script))))
    net.wait_for("queue 3", function()
      return net.queue(3)
    end)
    udp:send("before", "run", "behind", "stop")
    assert.equal(0, host:join())
    assert.same({ "before", "behind", "stop" }, udp:received())
    assert.matches("timeouts 1\n.*true", host:output())
  end)
end)
