-- Signals that reach more than the supervisor: a whole process group's, and those of a pipe whose reader is gone.

local net = require("support.net")

local PORT = 4200
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

-- As service managers, timeout(1) and a terminal's Ctrl-C send them.
for _, signal in ipairs({ "TERM", "INT" }) do
  describe("SIG" .. signal .. " to the whole process group", function()
    it("drains and ends with 0 as well", function()
      local gate = net.make_gate()
      net.queue_udp(PORT, 5, "")
      local run = net.start(("setsid %s run %s -q 5 --on-error drop --time-limit 600 -- gate=%s")
        :format(net.command, net.file(net.GATED), gate))
      run:await("ready:")
      box:send("block")
      run:await("blocked")
      for number = 1, 150 do
        box:send("packet " .. number)
      end
      net.must(("env kill -s %s -- -%d"):format(signal, run.pid)) -- not the shell's: it knows no groups
      run:await("draining")
      net.open_gate(gate)
      assert.equal(0, run:join())
      assert.is_nil(net.queue(5))
      assert.equal("packet 150", box:await_count(151)[151])
    end)
  end)
end

describe("a reader that went away", function()
  --- Starts `nfqueue run` with an output into a pipe whose reader ends after the first line that it reads.
  local function run_into(redirection, script)
    net.queue_udp(PORT, 5, "")
    local pipe = net.file()
    os.remove(pipe)
    net.must("mkfifo " .. pipe)
    local reader = net.start("head -n 1 " .. pipe)
    -- LuaSocket, in this process, ignores the signal, and what it starts inherits that.
    local run = net.start(("env --default-signal=PIPE %s run %s -q 5 --on-error drop %s")
      :format(net.command, net.file(script), redirection:format(pipe)))
    net.wait_for("the queue", function()
      return net.queue(5)
    end)
    return run, reader
  end

  it("of the handler's output costs no packet and no worker", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    local run, reader = run_into(">%s", [[return function(pkt)
      print("a packet")
      io.stdout:flush()
      pkt:accept()
    end]])
    box:send("one")
    reader:join()
    box:send("two", "three")
    box:await("three")
    assert.same({ "one", "two", "three" }, box:all())
    assert.is_nil(run:output():find("killed", 1, true), run:output())
    run:signal("TERM")
    assert.equal(0, run:join())
  end)

  it("of the log costs nothing but the log", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    local run, reader = run_into("2>%s", [[return function(pkt)
      if pkt:find("fail") then
        error("told to nobody")
      end
      pkt:accept()
    end]])
    reader:join()
    box:send("fail", "one")
    box:await("one")
    local worker = run:worker()
    net.must("kill -KILL " .. worker) -- the supervisor has something to tell
    box:send("fail", "two")
    assert.same({ "one", "two" }, box:await("two"))
    assert.is_true(run:is_alive())
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.is_nil(net.queue(5))
  end)
end)
