-- The sandbox behind a real queue: in every thread, in successors, over a reload, and under nfqueue.run.

local net = require("support.net")

local PORT = 4412
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

-- Says at load and in the handler what it can reach; the log is the way out that is left.
local SCRIPT = [[
  local nfqueue = require("nfqueue")
  nfqueue.log.info("load: %s %s %s", io, debug, package)
  return {
    open = function(queue) nfqueue.log.info("open: %s %s", io, queue.config.sandbox) end,
    packet = function(pkt, queue)
      local fine, problem = pcall(function() return os.execute("true") end)
      nfqueue.log.info("VERSION: %s %s, %s %s", io, getmetatable(pkt), fine, problem)
      if pkt:find("evil") then return (("a"):rep(3000)):find(("a-"):rep(60) .. "b") end
      return "accept"
    end,
  }]]
local LOADED = "load: nil nil nil\n"
local OPENED = "open: nil true\n"

local function script(version)
  return (SCRIPT:gsub("VERSION", version))
end

local function handled(version)
  return version .. ": nil nfqueue.packet, false [^\n]*attempt to call a nil value %(field 'execute'%)\n"
end

describe("run --sandbox", function()
  it("holds in every thread, in successors and over a reload", function()
    local path = net.file(script("one"))
    local run = net.run(path .. " --sandbox -q 5-6 --threads 2")
    net.queue_udp(PORT, 5, "")
    assert.equal(2, run:count(LOADED))
    assert.equal(2, run:count(OPENED))
    box:send("first")
    box:await("first")
    assert.equal(1, run:count(handled("one")))
    local file = assert(io.open(path, "w"))
    file:write(script("two"))
    file:close()
    run:signal("HUP")
    net.wait_for("the new script", function()
      return run:count(OPENED) == 4
    end)
    net.wait_for("its handler", function()
      box:send("second")
      return run:count(handled("two")) > 0
    end)
    net.must("kill -KILL " .. run:worker())
    net.wait_for("a successor", function()
      return run:count("ready:") == 2
    end)
    assert.equal(6, run:count(LOADED))
    assert.equal(6, run:count(OPENED))
    box:send("third")
    box:await("third")
  end)

  it("gives a packet on_error whose handler asks for too much", function()
    local run = net.run(net.file(script("one")) .. " --sandbox -q 5 --time-limit 20")
    net.queue_udp(PORT, 5, "")
    box:send("evil", "behind")
    assert.are.same({ "behind" }, box:await("behind"))
    assert.matches("handler failed: [^\n]*: pattern too complex\n", run:output())
    assert.equal(1, run:count("ready:"))
  end)
end)

describe("nfqueue.run with config.sandbox", function()
  it("makes sandboxes, and leaves the state that called alone", function()
    local run = net.start(net.lua .. " " .. net.file(([[
      local nfqueue = require("nfqueue")
      print(nfqueue.run({ script = %q, queues = 5, config = { sandbox = true } }))
      print("host: " .. type(io) .. " " .. type(getmetatable("")))
    ]]):format(net.file(SCRIPT:gsub('return "accept"', 'nfqueue.stop() return "accept"'):gsub("VERSION", "one")))))
    net.queue_udp(PORT, 5, "")
    net.wait_for("the queue", function()
      box:send("first")
      return run:count("one: nil") > 0
    end)
    assert.equal(0, run:join(10))
    assert.matches("true\nhost: table table\n", run:output(), 1, true)
    assert.equal(1, run:count(LOADED))
    assert.is_true(run:count(handled("one")) >= 1)
  end)
end)
