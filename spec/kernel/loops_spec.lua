-- A queue inside the event loops people use: luv, cqueues, LuaSocket's select; beside timers and sockets.

local cqueues = require("cqueues")
local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local uv = require("luv")

local PORT = 4500
local judged, queue

--- Drops what says "drop", stops the queue at "stop", accepts the rest.
local function judge(pkt, its_queue)
  judged = judged + 1
  if pkt:find("drop") then
    return pkt:drop()
  elseif pkt:find("stop") then
    its_queue:stop()
  end
  pkt:accept()
end

before_each(function()
  net.cleanup()
  judged = 0
  queue = nfqueue.new(5, judge)
  net.queue_udp(PORT, 5, "") -- no bypass: what arrives has been judged
end)

after_each(function()
  queue:close()
  net.cleanup()
end)

describe("in a luv loop", function()
  local handles

  local function keep(handle)
    table.insert(handles, handle)
    return handle
  end

  before_each(function()
    handles = {}
  end)

  after_each(function()
    for _, handle in ipairs(handles) do
      if not handle:is_closing() then
        handle:close()
      end
    end
    uv.run() -- lets them close
  end)

  --- Sends one datagram a tick and gives what comes back to `receive`.
  local function make_traffic(texts, receive)
    local udp = keep(uv.new_udp())
    assert(udp:bind("127.0.0.1", PORT))
    udp:recv_start(function(problem, text)
      assert.is_nil(problem)
      if text then
        receive(text)
      end
    end)
    local ticks = 0
    local timer = keep(uv.new_timer())
    timer:start(1, 1, function()
      ticks = ticks + 1
      if texts[ticks] then
        udp:send(texts[ticks], "127.0.0.1", PORT)
      else
        timer:stop()
      end
    end)
    return function()
      return ticks
    end
  end

  --- Ends the loop when something never comes.
  local function set_deadline()
    local timer = keep(uv.new_timer())
    timer:start(10000, 0, function()
      uv.stop()
    end)
    timer:unref()
  end

  it("it judges between a timer and a socket, and lets the loop end when closed", function()
    assert.equal(queue, queue:open())
    local poll = keep(uv.new_poll(queue:fd()))
    local verdicts, received = 0, {}
    poll:start("r", function(problem)
      assert.is_nil(problem)
      verdicts = verdicts + queue:process()
    end)
    local ticks = make_traffic({ "one", "drop", "two", "last" }, function(text)
      table.insert(received, text)
      if text == "last" then
        uv.stop()
      end
    end)
    set_deadline()
    uv.run()
    assert.same({ "one", "two", "last" }, received)
    assert.equal(4, judged)
    assert.equal(4, verdicts)
    assert.is_true(ticks() >= 4)
    poll:close()
    queue:close()
    assert.is_nil(net.queue(5))
  end)

  it("it wakes for timers, delayed and held packets, too", function()
    local held
    queue:close()
    queue = nfqueue.new(5, function(pkt)
      if pkt:find("delay") then
        return pkt:delay(0.01)
      end
      pkt:hold(pkt:find("settle") and 1000 or 0.02)
      held = pkt
    end)
    assert(queue:open())
    local poll = keep(uv.new_poll(queue:fd()))
    poll:start("r", function() queue:process() end)
    local received, ticks = {}, 0
    make_traffic({ "expire", "delay", "settle" }, function(text)
      received[text] = ticks
    end)
    local repeated
    repeated = nfqueue.every(0.005, function()
      ticks = ticks + 1
      if received.expire and received.delay then
        if received.settle then
          repeated:cancel()
          return uv.stop()
        elseif held:find("settle") then
          pcall(held.accept, held) -- the first time
        end
      end
    end)
    set_deadline()
    uv.run()
    repeated:cancel()
    assert.is_true(received.expire > 0 and received.delay > 0 and received.settle > 0)
    assert.same({ 1, 1, 0 }, { queue:stats().expired, queue:stats().delayed, queue:stats().kept })
  end)

  it("it can be stopped by its handler while the loop goes on", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    queue:open()
    local poll = keep(uv.new_poll(queue:fd()))
    local received = {}
    poll:start("r", function()
      queue:process()
      if not net.queue(5) then
        poll:close() -- the descriptor is gone with the queue
        uv.stop()
      end
    end)
    make_traffic({ "one", "stop" }, function(text)
      table.insert(received, text)
    end)
    set_deadline()
    uv.run()
    assert.equal(2, judged)
    assert.is_nil(net.queue(5))
    net.wait_for("both datagrams", function()
      uv.run("nowait")
      return #received == 2
    end)
    assert.has_error(function()
      queue:fd()
    end, "queue 5 is not open")
  end)
end)

describe("in a cqueues loop", function()
  it("it is polled itself, beside a sleeping coroutine and another queue", function()
    local box = net.udp(PORT)
    local other = nfqueue.new(6, function(pkt)
      pkt:drop()
    end)
    finally(function()
      box:close()
      other:close()
    end)
    net.queue_udp(PORT + 1, 6, "")
    assert(queue:open())
    assert(other:open())
    local controller = cqueues.new()
    local open = true
    local verdicts = { 0, 0 }
    for i, one in ipairs({ queue, other }) do
      controller:wrap(function()
        while open do
          if cqueues.poll(one, 0.5) == one then
            verdicts[i] = verdicts[i] + one:process()
          end
        end
      end)
    end
    local ticks = 0
    controller:wrap(function()
      for _, text in ipairs({ "one", "drop", "two", "last" }) do
        box:send(text)
        box.socket:sendto(text, "127.0.0.1", PORT + 1)
        cqueues.sleep(0.001)
        ticks = ticks + 1
      end
      net.wait_for("the datagrams, in this loop", function()
        cqueues.sleep(0.001)
        return #box:all() == 3 and verdicts[2] == 4
      end)
      open = false
      -- The controller forgets descriptors only when told; then they may be closed.
      cqueues.cancel(queue:pollfd())
      cqueues.cancel(other:pollfd())
    end)
    assert(controller:loop())
    assert.same({ "one", "two", "last" }, box:all())
    assert.same({ 4, 4 }, verdicts)
    assert.equal(4, ticks)
    queue:close()
    other:close()
    assert.is_nil(net.queue(5))
    assert.is_nil(net.queue(6))
  end)

  it("a queue opened anew after a close is polled by its new descriptor", function()
    local box = net.udp(PORT)
    finally(function()
      box:close()
    end)
    local controller = cqueues.new()
    local texts = {}
    controller:wrap(function()
      for round = 1, 3 do
        assert(queue:open())
        box:send("round " .. round)
        assert.equal(queue, (cqueues.poll(queue, 5)))
        assert.equal(1, queue:process())
        table.insert(texts, box:await("round " .. round)[round])
        cqueues.cancel(queue:pollfd())
        queue:close()
      end
    end)
    assert(controller:loop())
    assert.same({ "round 1", "round 2", "round 3" }, texts)
  end)
end)

describe("in LuaSocket's select", function()
  local box

  before_each(function()
    box = net.udp(PORT)
  end)

  after_each(function()
    box:close()
  end)

  it("it is readable when there is something to judge, and only then", function()
    assert(queue:open())
    local ready, _, problem = socket.select({ queue, box.socket }, nil, 0)
    assert.equal("timeout", problem)
    assert.equal(0, #ready)
    assert.equal(0, queue:process())
    box:send("one", "drop", "last")
    local verdicts, received = 0, {}
    while #received < 2 do
      ready, _, problem = socket.select({ queue, box.socket }, nil, 10)
      assert.is_nil(problem)
      if ready[queue] then
        verdicts = verdicts + queue:process()
      end
      if ready[box.socket] then
        table.insert(received, box.socket:receive())
      end
    end
    assert.same({ "one", "last" }, received)
    assert.equal(3, verdicts)
    assert.equal("timeout", select(3, socket.select({ queue }, nil, 0)))
  end)

  it("it stays readable until everything received has been judged", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    assert(queue:open())
    local senders = {}
    for i = 1, 8 do -- a socket can have about 250 small packets on their way
      senders[i] = socket.udp()
      for _ = 1, 200 do
        senders[i]:sendto("drop", "127.0.0.1", PORT)
      end
    end
    assert.equal(1600, net.queue(5).waiting)
    local verdicts, turns = 0, 0
    while verdicts < 1600 do
      assert.is_true(socket.select({ queue }, nil, 10)[queue] ~= nil)
      verdicts = verdicts + queue:process()
      turns = turns + 1
    end
    assert.equal(1600, judged)
    assert.is_true(turns > 1) -- under a flood the host's loop gets its turn too
    assert.equal(0, net.queue(5).waiting)
    for _, sender in ipairs(senders) do
      sender:close()
    end
  end)

  it("a close judges what waits", function()
    assert(queue:open())
    box:send("one", "drop", "last")
    queue:close()
    assert.equal(3, judged)
    assert.same({ "one", "last" }, box:await("last"))
    assert.is_nil(net.queue(5))
    assert.has_error(function()
      socket.select({ queue }, nil, 0)
    end, "queue 5 is not open")
  end)

  it("a to-be-closed queue is left at the end of its block", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    do
      local scoped <close> = nfqueue.new(6, judge)
      assert(scoped:open())
      assert.is_table(net.queue(6))
    end
    assert.is_nil(net.queue(6))
  end)
end)
