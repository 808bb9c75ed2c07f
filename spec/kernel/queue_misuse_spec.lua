-- Queues that cannot be had, and calls that make no sense where they are made.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

local function nothing() end

-- What `body` raised, without a position and a traceback.
local function raised(body, ...)
  local done, message = pcall(body, ...)
  assert.is_false(done)
  return (message:gsub("^[%w%p]+:%d+: ", ""):match("^[^\n]*"))
end

describe("a queue that is taken", function()
  after_each(traffic.cleanup)

  it("by another process is refused with its name and pid, by open and start alike", function()
    local script = net.file([[
      local nfqueue = require("nfqueue")
      nfqueue.new(3, { packet = function() end, open = function() print("opened") io.stdout:flush() end }):start()
    ]])
    local holder = net.start(net.lua .. " " .. script)
    net.wait_for("the holder", function() return net.queue(3) end)
    for _, method in ipairs({ "open", "start" }) do
      local queue = nfqueue.new(3, nothing)
      local done, message, errno = queue[method](queue)
      assert.is_nil(done)
      assert.equal(("queue 3 is held by lua5.4 (pid %d); stop it or use another number"):format(holder.pid), message)
      assert.equal(16, errno) -- EBUSY
    end
    assert.is_table(net.queue(3)) -- the holder's, still
    holder:signal("KILL")
    holder:join()
    local queue = nfqueue.new(3, nothing)
    assert(queue:open())
    queue:close()
  end)

  it("by this process itself", function()
    local first, second = traffic.open(3, nothing), traffic.queue(3, nothing)
    local done, message, errno = second:open()
    assert.is_nil(done)
    assert.equal(("queue 3 is held by this process itself (pid %d); stop it or use another number")
      :format(net.queue(3).portid), message)
    assert.equal(16, errno)
    first:close()
    assert(second:open())
  end)

  it("leaves the others of the same start unbound", function()
    traffic.open(5, nothing)
    local calls = {}
    local handler = {
      packet = nothing,
      open = function(queue) calls[#calls + 1] = "open " .. queue.number end,
      close = function(queue) calls[#calls + 1] = "close " .. queue.number end,
    }
    local free = { traffic.queue(3, handler), traffic.queue(4, handler) }
    local done, message, errno = nfqueue.start(free[1], free[2], traffic.queue(5, handler))
    assert.is_nil(done)
    assert.truthy(message:find("queue 5 is held by this process itself", 1, true), message)
    assert.equal(16, errno)
    assert.is_nil(net.queue(3))
    assert.is_nil(net.queue(4))
    assert.same({ "open 3", "open 4", "open 5", "close 3", "close 4", "close 5" }, calls)
  end)
end)

describe("without the privilege", function()
  it("a queue is refused and told from a taken one", function()
    local script = net.file([[
      local done, message, errno = require("nfqueue").new(3, function() end):open()
      print(done, errno, message)
    ]])
    local output = net.must(("setpriv --bounding-set -net_admin --inh-caps -net_admin %s %s"):format(net.lua, script))
    net.cleanup()
    assert.equal("nil\t1\tno privilege to use queue 3: it needs CAP_NET_ADMIN in this network namespace "
      .. "(run as root, or try it without root inside `nfqueue lab`)", output)
    assert.is_nil(net.queue(3))
  end)
end)

describe("a queue object", function()
  after_each(traffic.cleanup)

  it("cannot be opened or started while it is bound", function()
    local queue = traffic.open(3, nothing)
    for _, method in ipairs({ "open", "start" }) do
      assert.equal("queue 3 is already running", raised(queue[method], queue))
    end
    assert.equal("queue 3 is already running", raised(nfqueue.start, traffic.queue(4, nothing), queue))
    assert.is_nil(net.queue(4))
    assert.is_table(net.queue(3))
  end)

  it("cannot be given twice, nor its number", function()
    local queue, other = traffic.queue(3, nothing), traffic.queue(3, nothing)
    assert.equal("queue 3 is given twice", raised(nfqueue.start, queue, queue))
    assert.equal("queue 3 is given twice", raised(nfqueue.start, queue, other))
    assert.is_nil(net.queue(3))
  end)

  -- Calls a function inside a handler: what it raised.
  local function raised_inside(body)
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local message
    local queue = traffic.queue(3, function(pkt, own)
      message = raised(body, own)
      pkt:accept()
      own:stop()
    end)
    traffic.flood(udp.port, 1, 3)
    assert.is_true(queue:start())
    assert.same({ "1" }, udp:received())
    assert.equal(0, queue:stats().errors)
    return message
  end

  local running = "a queue is already running in this state; start them together, or open them"
  for _, case in ipairs({
    { "start of itself", function(own) own:start() end, running },
    { "start of another", function() nfqueue.new(4, nothing):start() end, running },
    { "open of itself", function(own) own:open() end, "queue 3 is already running" },
    { "process of itself", function(own) own:process() end, "queue 3 is already running" },
  }) do
    it(("refuses %s inside its handler"):format(case[1]), function()
      assert.equal(case[3], raised_inside(case[2]))
      assert.is_nil(net.queue(3))
      assert.is_nil(net.queue(4))
    end)
  end

  for name, call in pairs({
    ["process"] = function(own) own:process() end,
    ["open"] = function(own) own:open() end,
  }) do
    it(("that is opened refuses %s inside its handler"):format(name), function()
      local message
      local udp = traffic.udp()
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
      local queue = traffic.open(3, function(_, own)
        message = raised(call, own)
      end)
      udp:send("a")
      traffic.judge_packets(queue, 1)
      assert.equal("queue 3 is already running", message)
      assert.same({ "a" }, udp:received())
      assert.is_table(net.queue(3))
    end)
  end

  it("can be opened inside another's handler", function()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local second = traffic.queue(4, nothing)
    local first = traffic.open(3, function() assert(second:open()) end)
    udp:send("a")
    traffic.judge_packets(first, 1)
    assert.is_table(net.queue(4))
    assert.equal(0, first:stats().errors)
  end)
end)

describe("an open hook that raises", function()
  after_each(traffic.cleanup)

  it("raises out of start and open, and nothing stays bound", function()
    local queue = traffic.queue(3, { packet = nothing, open = function() error("not today") end })
    for _, method in ipairs({ "open", "start" }) do
      assert.equal("not today", raised(queue[method], queue))
      assert.is_nil(net.queue(3))
      assert.equal("queue 3 (idle)", tostring(queue))
    end
  end)

  it("closes the queues that were opened before it", function()
    local calls = {}
    local function handler(number)
      return {
        packet = nothing,
        open = function()
          calls[#calls + 1] = "open " .. number
          assert(number ~= 4, "not this one")
        end,
        close = function() calls[#calls + 1] = "close " .. number end,
      }
    end
    assert.equal("not this one", raised(nfqueue.start, traffic.queue(3, handler(3)), traffic.queue(4, handler(4)),
      traffic.queue(5, handler(5))))
    assert.same({ "open 3", "open 4", "close 3" }, calls)
    assert.is_nil(net.queue(3))
  end)
end)

describe("a close hook that raises", function()
  after_each(traffic.cleanup)

  it("is logged, and the queue is closed", function()
    local queue = traffic.open(3, { packet = nothing, close = function() error("at the end") end })
    local log = traffic.log(function()
      queue:close()
    end)
    assert.truthy(log:find("nfqueue: error: close failed: .*at the end"), log)
    assert.is_nil(net.queue(3))
    assert(queue:open())
    traffic.log(function() queue:close() end)
  end)
end)
