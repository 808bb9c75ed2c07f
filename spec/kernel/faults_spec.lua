-- Faults that were there once: each spec states what went wrong.

local net = require("support.net")
local nfqueue = require("nfqueue")

local PORT = 9300

local box

describe("nfqueue run", function()
  before_each(function()
    net.cleanup()
    box = net.udp(PORT)
  end)
  after_each(function()
    box.socket:close()
    net.cleanup()
  end)

  it("does not take packet bytes in an error for the interpreter's Ctrl-C", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt)
      if pkt.payload ~= "last" then
        error("cannot parse " .. pkt.payload, 0)
      end
    end]]) .. " -q 5 --on-error accept")
    box:send("interrupted!", "x:1: interrupted!", "last")
    assert.same({ "interrupted!", "x:1: interrupted!", "last" }, box:await("last"))
    assert.is_true(run:is_alive())
  end)

  it("lets packet bytes forge no line of the log", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt) error(pkt.payload, 0) end]]) .. " -q 5 --on-error accept")
    box:send("one\nnfqueue: info: forged\r\27[2Jend")
    net.wait_for("the log", function() return run:output():find("end", 1, true) end)
    assert.is_nil(run:output():find("\nnfqueue: info: forged", 1, true))
    assert.is_nil(run:output():find("[\r\27]"))
    assert.matches("\n  nfqueue: info: forged\\x0d\\x1b[2Jend", run:output(), 1, true)
  end)

  it("takes os.exit(0) in a script for a death, not for a stop", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt)
      if pkt.payload == "exit" then
        os.exit(0)
      end
    end]]) .. " -q 5 --on-error accept")
    box:send("before", "exit", "after")
    assert.same({ "before", "exit", "after" }, box:await("after"))
    assert.matches("ended with status 0 (os.exit in the script?); starting another", run:output(), 1, true)
    assert.is_true(run:is_alive())
  end)

  it("does not start with a script that exits while it is loaded", function()
    local output, _, status = net.sh(net.command .. " run " .. net.file("os.exit(0)") .. " -q 5")
    assert.equal(1, status)
    assert.matches("the script ended its process (os.exit?)", output, 1, true)
  end)

  it("counts the packet a worker died with once, and none as lost", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt, queue)
      if pkt.payload == "exit" then
        os.exit(9)
      end
      local stats = queue:stats()
      io.stderr:write(("packets=%d lost=%d errors=%d refused=%d\n")
        :format(stats.packets, stats.lost, stats.errors, stats.refused))
    end]]) .. " -q 5 --on-error accept")
    box:send("one", "exit")
    box:await("exit")
    box:send("two", "three")
    box:await("three")
    assert.matches("packets=4 lost=0 errors=1 refused=0\n", run:output(), 1, true)
  end)

  it("idles when nothing comes, also after packets came while it was binding", function()
    -- Queue 0 has traffic from the moment it is bound, the others are bound after it.
    net.must("iptables -w -A OUTPUT -p icmp -j NFQUEUE --queue-num 0 --queue-bypass")
    local flood = net.start("ping -f -q -w 3 127.0.0.1")
    local run = net.run(net.file("return function(pkt) pkt:accept() end") .. " -q 0-255 --threads 1")
    flood:join()
    local function ticks()
      local fields = net.read(("/proc/%d/stat"):format(run:worker())):match("%) (.*)")
      local user, system = fields:match("^" .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
      return user + system
    end
    local before = ticks()
    os.execute("sleep 1")
    assert.is_true(ticks() - before < 50, "half of a processor's time, idle")
  end)

  it("takes over more queues than one batch of verdicts holds", function()
    local run = net.run(net.file("return function(pkt) pkt:accept() end")
      .. " -q 0-299 --threads 1 --fail-open --buffer-size 100000")
    for _ = 1, 2 do
      local before = select(2, run:output():gsub("ready:", ""))
      net.must("kill -KILL " .. run:worker())
      net.wait_for("another worker", function()
        return select(2, run:output():gsub("ready:", "")) > before
      end)
    end
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.equal(2, select(2, run:output():gsub("was killed", ""))) -- by us, and no other
  end)
end)

describe("a queue", function()
  after_each(net.cleanup)

  it("is closed from wherever Lua runs, though the coroutine that opened it is gone", function()
    net.must("iptables -w -A OUTPUT -p icmp -j NFQUEUE --queue-num 7")
    local seen = 0
    local queue = nfqueue.new(7, function(pkt)
      seen = seen + 1
      pkt:accept()
    end)
    local opener = coroutine.create(function() assert(queue:open()) end)
    assert(coroutine.resume(opener))
    opener = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local others = {}
    for i = 1, 100 do
      others[i] = coroutine.create(function() end)
    end
    local ping = net.start("ping -c 1 -W 1 127.0.0.1")
    net.wait_for("a packet", function() return net.queue(7) == nil or net.queue(7).waiting > 0 end)
    queue:close()
    assert.is_true(seen >= 1 and #others == 100, seen) -- the request, and its reply if that was quick
    ping:join()
  end)

  it("that is stopped by nfqueue.stop in its open hook does not start to loop", function()
    local queue = nfqueue.new(7, { packet = function() end, open = function() nfqueue.stop() end })
    assert.is_true(queue:start())
  end)
end)

describe("Ctrl-C in the stock interpreter", function()
  after_each(net.cleanup)

  for name, script in pairs({
    start = [[require("nfqueue").new(7, { packet = function() end, open = function() print("open") end,
      close = function() print("closed") end }):start() print("went on")]],
    run = [[require("nfqueue").run({ queues = 7, script = %q }) print("went on")]],
  }) do
    it("ends " .. name .. ", and the script with it", function()
      local handler = net.file("return function() end")
      local interpreter = net.start(net.lua .. " " .. net.file("io.stdout:setvbuf('no') " .. script:format(handler)))
      net.wait_for("the queue", function()
        -- As an ordinary user the list of queues cannot be read; then the process is waited for.
        return net.queue(7) or interpreter:output():find("open", 1, true)
      end)
      interpreter:signal("INT")
      assert.equal(1, interpreter:join())
      assert.matches("interrupted!", interpreter:output(), 1, true)
      assert.is_nil(interpreter:output():find("went on", 1, true))
      assert.equal(name == "start", interpreter:output():find("closed", 1, true) ~= nil)
      assert.is_nil(net.queue(7))
    end)
  end
end)
