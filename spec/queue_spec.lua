-- Queue objects without a kernel: what new takes, and what an idle queue is.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message
local function handler() end

describe("nfqueue.new", function()
  it("takes every queue number there is", function()
    for _, number in ipairs({ 0, 1, 65535, 3.0 }) do
      assert.are.equal(number, nfqueue.new(number, handler).number)
    end
    for _, case in ipairs({ { -1, "-1" }, { 65536, "65536" }, { 0.5, "0.5" }, { "1", "'1'" }, { {}, "table" },
      { nil, "nothing" }, { true, "true" } }) do
      assert.are.equal(
        ("bad argument 'number' to 'new' (integer from 0 to 65535 expected, got %s)"):format(case[2]),
        message(nfqueue.new, case[1], handler))
    end
  end)

  it("takes a function, or a table with one", function()
    for _, right in ipairs({
      handler, { packet = handler }, { packet = handler, open = handler, close = handler, config = {} },
    }) do
      assert.are.equal("queue 5 (idle)", tostring(nfqueue.new(5, right)))
    end
  end)

  local HANDLER = "bad argument 'handler' to 'new' (function, or table with a function 'packet', expected, got %s)"
  local FUNCTION = "bad argument '%s' to 'new' (function expected, got %s)"
  local UNKNOWN = "unknown key '%s' in the handler of 'new' (known: packet, open, close, config)"
  for _, case in ipairs({
    { nil, HANDLER:format("nothing") },
    { 5, HANDLER:format("5") },
    { "handler.lua", HANDLER:format("'handler.lua'") },
    { true, HANDLER:format("true") },
    { io.stdout, HANDLER:format("userdata") },
    { {}, FUNCTION:format("packet", "nothing") },
    { setmetatable({}, { __call = handler }), FUNCTION:format("packet", "nothing") },
    { { open = handler }, FUNCTION:format("packet", "nothing") },
    { { packet = 5 }, FUNCTION:format("packet", "5") },
    { { packet = "accept" }, FUNCTION:format("packet", "'accept'") },
    { { packet = handler, open = 5 }, FUNCTION:format("open", "5") },
    { { packet = handler, close = {} }, FUNCTION:format("close", "table") },
    { { packet = handler, close = false }, FUNCTION:format("close", "false") },
    { { packet = handler, config = 5 }, "bad argument 'config' to 'new' (table expected, got 5)" },
    { { packet = handler, Open = handler }, UNKNOWN:format("Open") },
    { { handler }, UNKNOWN:format("1") },
    { { packet = handler, [true] = 1 }, UNKNOWN:format("true") },
  }) do
    it("refuses: " .. case[2], function()
      assert.are.equal(case[2], message(nfqueue.new, 1, case[1]))
    end)
  end

  it("keeps the handler's functions, not its table", function()
    local weak = setmetatable({}, { __mode = "v" })
    local queue
    do
      local script = { packet = function() end }
      weak.script, weak.packet = script, script.packet
      queue = nfqueue.new(1, script)
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak.script)
    assert.is_function(weak.packet)
    assert.are.equal(1, queue.number)
  end)

  it("lets go of the handler with the queue", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local function packet() return weak end
      weak[packet] = true
      nfqueue.new(1, packet)
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)
end)

describe("an idle queue", function()
  local queue = nfqueue.new(7, handler)

  for _, method in ipairs({ "fd", "process", "pollfd", "getfd" }) do
    it(method .. " needs an open queue", function()
      assert.are.equal("queue 7 is not open", message(queue[method], queue))
    end)
  end

  it("stops and closes without doing anything", function()
    queue:stop()
    queue:close()
    nfqueue.stop()
    do
      local closed <close> = nfqueue.new(8, handler)
      assert.are.equal("queue 8 (idle)", tostring(closed))
    end
    assert.are.equal("queue 7 (idle)", tostring(queue))
  end)

  it("tells pollers to read, without a deadline or a buffer", function()
    assert.are.equal("r", queue:events())
    assert.is_nil(queue:timeout())
    assert.is_false(queue:dirty())
  end)

  it("counts nothing", function()
    local stats = queue:stats()
    for _, name in ipairs({ "packets", "bytes", "accepted", "dropped", "modified", "again", "requeued", "undecided",
      "errors", "truncated", "refused", "lost", "enobufs", "workers_lost" }) do
      assert.are.equal(0, stats[name], name)
    end
    assert.is_true(stats.memory > 0)
    for _, name in ipairs({ "waiting", "kernel_queue_dropped", "kernel_user_dropped" }) do
      assert.is_nil(stats[name], name) -- known only while it is bound
    end
  end)

  it("has no other field, and none to assign", function()
    local function get(key) return queue[key] end
    local function set(key) queue[key] = 1 end
    for key, shown in pairs({ nubmer = "nubmer", __gc = "__gc", [1] = "1", [true] = "true" }) do
      assert.are.equal(("queue has no field '%s'"):format(shown), message(get, key))
    end
    assert.are.equal("queue has no field 'nil'", message(get, nil))
    for _, key in ipairs({ "number", "config", "start" }) do
      assert.are.equal(("queue field '%s' is read-only"):format(key), message(set, key))
    end
  end)
end)

describe("what is no queue", function()
  local values = unit.foreigners()
  values[#values + 1] = { name = "a packet", value = nfqueue.packet(""), type = "userdata" }
  local queue = nfqueue.new(7, handler)

  for _, foreign in ipairs(values) do
    it("is refused by every method: " .. foreign.name, function()
      for _, method in ipairs({ "start", "stop", "open", "fd", "process", "close", "stats", "pollfd", "events",
        "timeout", "getfd", "dirty" }) do
        assert.are.equal(("bad argument 'self' to '%s' (queue expected, got %s)"):format(method, foreign.type),
          message(queue[method], foreign.value))
      end
      assert.matches("^bad argument '%a+' to 'start' %(queue expected, got " .. foreign.type,
        message(nfqueue.start, queue, foreign.value))
    end)
  end

  it("does not start", function()
    assert.are.equal("bad argument 'queue' to 'start' (queue expected, got nothing)", message(nfqueue.start))
    assert.are.equal("queue 7 is given twice", message(nfqueue.start, queue, queue))
    assert.are.equal("queue 7 is given twice", message(nfqueue.start, queue, nfqueue.new(7, handler)))
    assert.are.equal("queue 7 (idle)", tostring(queue))
  end)
end)
