-- Queues in somebody else's loop: open, fd, process, close, and how they end when nobody closes them.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

local function accept(pkt)
  pkt:accept()
end

local function receiver()
  local udp = traffic.udp()
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
  return udp
end

local function readable(queue)
  return #socket.select({ queue }, nil, 0) == 1
end

describe("an opened queue", function()
  after_each(traffic.cleanup)

  it("is bound from open to close", function()
    local queue = traffic.queue(3, accept)
    assert.is_nil(net.queue(3))
    assert.is_true(rawequal(queue, queue:open()))
    assert.is_table(net.queue(3))
    assert.equal("queue 3 (bound)", tostring(queue))
    queue:close()
    assert.is_nil(net.queue(3))
    assert.equal("queue 3 (idle)", tostring(queue))
    queue:close() -- twice does no harm
    assert(queue:open())
    assert.is_table(net.queue(3))
  end)

  it("has a descriptor that is readable when process has something to do", function()
    local udp = receiver()
    local queue = traffic.open(3, accept)
    assert.is_true(math.type(queue:fd()) == "integer" and queue:fd() > 2)
    assert.equal(queue:fd(), queue:getfd())
    assert.is_false(readable(queue))
    assert.equal(0, queue:process())
    udp:send("a", "b", "c")
    assert.is_true(readable(queue))
    assert.equal(0, #udp:received())
    assert.equal(3, queue:process())
    assert.same({ "a", "b", "c" }, udp:received()) -- the verdicts are sent when process returns
    assert.is_false(readable(queue))
    assert.equal(0, queue:process())
    assert.equal(0, queue:stats().waiting)
  end)

  it("handles in one process all that was received", function()
    local udp = receiver()
    local queue = traffic.open(3, accept)
    for i = 1, 200 do -- more than fit one receive call
      udp:send(tostring(i))
    end
    assert.equal(200, queue:process())
    assert.equal(200, #udp:received())
  end)

  it("is stopped from its handler when process is through", function()
    local udp = receiver()
    local queue = traffic.open(3, function(_, own)
      own:stop()
      own:close()
      assert(own:fd()) -- still open
    end)
    udp:send("a", "b")
    assert.equal(2, queue:process())
    assert.same({ "a", "b" }, udp:received())
    assert.is_nil(net.queue(3))
    assert.equal(0, queue:stats().errors)
    assert.equal("queue 3 is not open", select(2, pcall(queue.process, queue)))
  end)

  it("is not open before open and after close, and says so", function()
    local queue = traffic.queue(3, accept)
    for _ = 1, 2 do
      for _, method in ipairs({ "fd", "process", "getfd", "pollfd" }) do
        local done, message = pcall(queue[method], queue)
        assert.is_false(done)
        assert.equal("queue 3 is not open", message)
      end
      assert(queue:open())
      queue:close()
    end
  end)

  it("judges what waits when it is closed", function()
    local udp = receiver()
    local queue = traffic.open(3, function(pkt)
      return traffic.payload(pkt) == "b" and "drop" or "accept"
    end)
    udp:send("a", "b", "c")
    queue:close()
    assert.same({ "a", "c" }, udp:received())
    assert.equal(3, queue:stats().packets)
    assert.equal(1, queue:stats().dropped)
  end)

  it("is closed at the end of its block", function()
    local udp = receiver()
    local calls = {}
    do
      local queue <close> = nfqueue.new(3, {
        open = function() calls[#calls + 1] = "open" end,
        packet = function() calls[#calls + 1] = "packet" end,
        close = function() calls[#calls + 1] = "close" end,
      }):open()
      udp:send("a")
      assert.is_table(net.queue(queue.number))
    end
    assert.is_nil(net.queue(3))
    assert.same({ "open", "packet", "close" }, calls)
    assert.same({ "a" }, udp:received())
  end)

  it("is closed when its block is left by an error", function()
    assert.is_false(pcall(function()
      local queue <close> = nfqueue.new(3, accept):open()
      assert.is_table(net.queue(queue.number))
      error("out")
    end))
    assert.is_nil(net.queue(3))
  end)

  for on_error, arrive in pairs({ accept = { "a", "b" }, drop = {} }) do
    it("that is collected settles what waits with on_error " .. on_error, function()
      local udp = receiver()
      local entered = 0
      local queue = nfqueue.new(3, {
        packet = function() entered = entered + 1 end,
        close = function() entered = entered + 1 end,
      }, { on_error = on_error })
      assert(queue:open())
      udp:send("a", "b")
      assert.equal(2, net.queue(3).waiting)
      queue = setmetatable({ queue }, { __mode = "v" })
      collectgarbage()
      collectgarbage()
      assert.is_nil(queue[1])
      assert.is_nil(net.queue(3))
      assert.equal(0, entered) -- no script runs during a collection
      assert.same(arrive, udp:received())
    end)
  end

  it("ends with its process, whatever was open", function()
    local script = net.file([[
      queue = require("nfqueue").new(3, function() end)
      assert(queue:open())
      assert(require("support.net").queue(3))
    ]])
    net.must(net.lua .. " " .. script)
    assert.is_nil(net.queue(3))
  end)
end)

describe("two opened queues", function()
  after_each(traffic.cleanup)

  it("are each their own", function()
    local udp, other = receiver(), traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(other.port))
    local first, second = traffic.open(3, accept), traffic.open(4, accept)
    assert.are_not.equal(first:fd(), second:fd())
    udp:send("a", "b")
    other:send("c")
    assert.is_true(readable(first))
    assert.equal(2, first:process())
    assert.same({}, other:received())
    assert.equal(1, second:process())
    first:close()
    other:send("d")
    assert.equal(1, second:process())
    assert.same({ "c", "d" }, other:received())
  end)

  it("can be judged one inside the other's handler", function()
    local udp, other = receiver(), traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(other.port))
    local inner = traffic.open(4, accept)
    local outer = traffic.open(3, function(pkt)
      local id = pkt.id
      assert(inner:process() == 1)
      assert(pkt.id == id) -- this handle is as it was
    end)
    udp:send("outer")
    other:send("inner")
    assert.equal(1, outer:process())
    assert.equal(0, outer:stats().errors)
    assert.same({ "outer" }, udp:received())
    assert.same({ "inner" }, other:received())
  end)
end)

describe("process", function()
  after_each(traffic.cleanup)

  it("can be called from a coroutine, whose handler cannot yield across it", function()
    local udp = receiver()
    local yielded
    local queue = traffic.open(3, function()
      yielded = select(2, pcall(coroutine.yield))
    end)
    udp:send("a")
    local done, count = coroutine.resume(coroutine.create(function()
      return queue:process()
    end))
    assert.is_true(done)
    assert.equal(1, count)
    assert.truthy(yielded:find("attempt to yield across a C-call boundary", 1, true), yielded)
    assert.same({ "a" }, udp:received())
  end)
end)
