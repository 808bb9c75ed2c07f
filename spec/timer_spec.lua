-- Time without a kernel: a loaded handler's own clock, its timers, and the arguments of all that takes seconds.
-- Timers in running loops: spec/kernel/timer_spec.lua.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message

local heard
before_each(function()
  heard = {}
  _G.tell = function(what) heard[#heard + 1] = ("%g %s"):format(nfqueue.now(), what) end
end)
after_each(function()
  _G.tell = nil
  unit.cleanup()
end)

--- A handler whose chunk is this text; `nfqueue` and `pkt` are known in it.
local function load(text)
  return assert(nfqueue.load(unit.file("local nfqueue = require('nfqueue')\n" .. text .. "\nreturn function() end")))
end

describe("a loaded handler's clock", function()
  it("stands still at 0 until it is moved", function()
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      tell("chunk")
      return { open = function() tell("open") end, packet = function() tell("packet") end,
        close = function() tell("close") end }]])))
    handler(nfqueue.packet(""))
    handler:advance(1.5)
    handler(nfqueue.packet(""))
    handler:advance(0)
    handler(nfqueue.packet(""))
    handler:advance(1e9)
    handler:close()
    assert.same({ "0 chunk", "0 open", "0 packet", "1.5 packet", "1.5 packet", "1e+09 close" }, heard)
  end)

  it("is its own: other handlers and the state itself have theirs", function()
    local text = "tell('chunk') nfqueue.after(1, function() tell('timer') end)"
    local first, second = load(text), load(text)
    first:advance(5)
    second:advance(0.5)
    assert.same({ "0 chunk", "0 chunk", "1 timer" }, heard)
    second:advance(0.5)
    assert.equal("1 timer", heard[4])
    assert.is_true(nfqueue.now() > 10) -- the machine's
  end)

  it("inside another handler's function is that one's", function()
    _G.inner = load("nfqueue.after(1, function() tell('inner') end)")
    local outer = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      nfqueue.after(1, function() inner:advance(3) tell("outer") end)
      return function(pkt) inner(nfqueue.packet("")) tell("packet") pkt:accept() end]])))
    outer:advance(2)
    outer(nfqueue.packet(""))
    _G.inner = nil
    assert.same({ "1 inner", "1 outer", "2 packet" }, heard)
  end)

  it("is the state's again after a script that failed", function()
    local before = nfqueue.now()
    for _, text in ipairs({ "error('out')", "(", "return 5", "return { packet = print, open = error }" }) do
      assert.is_nil((nfqueue.load(unit.file(text))))
      assert.is_true(nfqueue.now() >= before)
    end
    local handler = assert(nfqueue.load(unit.file("return function() error('out') end")))
    handler(nfqueue.packet(""))
    assert.is_true(nfqueue.now() >= before)
  end)
end)

describe("timers of a loaded handler", function()
  it("fire in order of time, each at its own, equal times in order of making", function()
    local handler = load([[
      for i, seconds in ipairs({ 3, 1, 2, 1, 0, 1.5, 2 }) do
        nfqueue.after(seconds, function() tell("timer " .. i) end)
      end]])
    assert.same({}, heard) -- they run between packets, not in the chunk
    assert.is_nil(handler:advance(0))
    assert.same({ "0 timer 5" }, heard)
    handler:advance(1.9999)
    handler:advance(0.0001)
    handler:advance(100)
    assert.same({ "0 timer 5", "1 timer 2", "1 timer 4", "1.5 timer 6", "2 timer 3", "2 timer 7", "3 timer 1" },
      heard)
  end)

  it("get themselves, and know whether they are pending", function()
    local handler = load([[
      one = nfqueue.after(1, function(timer) tell(tostring(rawequal(timer, one)) .. " " .. tostring(timer)) end)
      again = nfqueue.every(1, function(timer) tell(tostring(rawequal(timer, again)) .. " " .. tostring(timer)) end)]])
    assert.equal("timer (pending)", tostring(_G.one))
    handler:advance(1)
    assert.same({ "1 true timer (done)", "1 true timer (pending)" }, heard)
    assert.equal("timer (done)", tostring(_G.one))
    _G.one, _G.again = nil, nil
  end)

  it("can be made in a timer and in a handler, from that time on", function()
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      local function step(n)
        tell("step " .. n)
        if n < 3 then
          nfqueue.after(2, function() step(n + 1) end)
        end
      end
      return function(pkt) nfqueue.after(0.5, function() step(1) end) end]])))
    handler:advance(10)
    handler(nfqueue.packet(""))
    handler:advance(10)
    assert.same({ "10.5 step 1", "12.5 step 2", "14.5 step 3" }, heard)
  end)

  it("are cancelled, once, also by another timer of the same time and by themselves", function()
    local handler = load([[
      local first = nfqueue.after(1, function() tell("never") end)
      tell(tostring(first:cancel()) .. tostring(first:cancel()) .. tostring(first))
      local second
      nfqueue.after(2, function() tell(tostring(second:cancel())) end)
      second = nfqueue.after(2, function() tell("never") end)
      local third
      third = nfqueue.after(3, function() tell("third " .. tostring(third:cancel())) end)
      local count = 0
      nfqueue.every(1, function(timer)
        count = count + 1
        tell("every " .. count)
        if count == 4 then
          tell(tostring(timer:cancel()) .. tostring(timer:cancel()))
        end
      end)]])
    handler:advance(100)
    assert.same({ "0 truefalsetimer (done)", "1 every 1", "2 true", "2 every 2", "3 third false", "3 every 3",
      "4 every 4", "4 truefalse" }, heard)
  end)

  it("every: keeps in step with the clock", function()
    local handler = load("nfqueue.every(0.25, function() tell('tick') end)")
    handler:advance(0.3)
    handler:advance(0.8)
    assert.same({ "0.25 tick", "0.5 tick", "0.75 tick", "1 tick" }, heard)
    handler:advance(0.15)
    assert.equal("1.25 tick", heard[5])
  end)

  it("go on when one raises, and advance returns the first error", function()
    local handler = load([[
      nfqueue.after(1, function() error("first") end)
      nfqueue.after(2, function() error({}) end)
      nfqueue.after(2, function() tell("between") end)
      nfqueue.every(3, function() tell("raises") error("again") end)]])
    assert.matches("^[^\n]*first\nstack traceback:", (handler:advance(1)))
    assert.equal("(error object is a table value)", handler:advance(1):match("^[^\n]*"))
    local problem = handler:advance(4)
    assert.matches("^[^\n]*again\nstack traceback:", problem)
    assert.same({ "2 between", "3 raises", "6 raises" }, heard)
    assert.equal(0, select("#", handler:advance(1)))
  end)

  it("are gone when it is closed, from a timer too", function()
    local handler = load("nfqueue.after(1, function() tell('never') end)")
    handler:close()
    assert.equal("handler is closed", message(handler.advance, handler, 5))
    _G.closing = load([[
      nfqueue.after(1, function() tell("last") closing:close() end)
      nfqueue.after(1, function() tell("never") end)]])
    _G.closing:advance(5)
    assert.same({ "1 last" }, heard)
    _G.closing = nil
  end)

  it("are gone when it is collected, and can still be told", function()
    local handler = load("left = nfqueue.after(1, function() tell('never') end)")
    local timer = _G.left
    _G.left = nil
    assert.equal("timer (pending)", tostring(timer))
    handler = setmetatable({ handler }, { __mode = "v" })
    collectgarbage()
    collectgarbage()
    assert.is_nil(handler[1])
    assert.equal("timer (done)", tostring(timer))
    assert.is_false(timer:cancel())
  end)

  it("need nobody to hold them, and are freed when they are done", function()
    local handler = load([[
      local function nest(n)
        return function() tell(n) if n < 3 then nfqueue.after(1, nest(n + 1)) end end
      end
      nfqueue.after(1, nest(1))
      weak = setmetatable({ nfqueue.after(0.5, function() end), nfqueue.after(50, function() end) }, { __mode = "v" })
      ]])
    collectgarbage()
    assert.is_not_nil(_G.weak[1])
    handler:advance(3)
    assert.same({ "1 1", "2 2", "3 3" }, heard)
    collectgarbage()
    collectgarbage()
    assert.is_nil(_G.weak[1])
    assert.is_not_nil(_G.weak[2])
    _G.weak = nil
  end)

  it("do not move the clock of the handler that is advancing", function()
    _G.self = load("nfqueue.after(1, function() self:advance(1) end)")
    assert.matches("handler is advancing already", (_G.self:advance(3)))
    _G.self = nil
  end)

  it("that set themselves again for at once raise instead of never ending", function()
    local handler = load([[
      local function again() count = count + 1 nfqueue.after(0, again) end
      nfqueue.after(2, again)]])
    _G.count = 0
    assert.is_nil(handler:advance(1))
    assert.equal("timers of 0 seconds follow one another without end", message(handler.advance, handler, 4))
    assert.equal(1000002, _G.count)
    handler:close()
    _G.count = nil
  end)

  it("have a clock that goes to 7e9 seconds, not round", function()
    local handler = load("nfqueue.every(1e9, function() tell('on') end)")
    for second = 1, 7 do
      assert.is_nil(handler:advance(1e9))
      assert.same(("%ge+09 on"):format(second), heard[second])
    end
    assert.equal("bad argument 'seconds' to 'advance' (the clock goes to 7e9)", message(handler.advance, handler, 1e-9))
    assert.is_nil(handler:advance(0))
  end)

  it("are many", function()
    local handler = load([[
      local random, order = 7, {}
      fired = 0
      for i = 1, 5000 do
        random = random * 1103515245 + 12345 & 0x7fffffff
        local seconds = random % 1000 / 8
        local timer = nfqueue.after(seconds, function()
          assert(nfqueue.now() == seconds)
          fired = fired + 1
        end)
        if i % 5 == 0 then
          timer:cancel()
        end
      end]])
    assert.is_nil(handler:advance(1000))
    assert.equal(4000, _G.fired)
    _G.fired = nil
  end)
end)

describe("seconds", function()
  local nan = 0 / 0
  local handler
  before_each(function()
    handler = load("")
  end)

  for _, case in ipairs({ -- what takes them, by which name, whether 0 passes
    { "after", function(seconds) return nfqueue.after(seconds, print) end, true },
    { "every", function(seconds) return nfqueue.every(seconds, print) end, false },
    { "advance", function(seconds) return handler:advance(seconds) end, true },
    { "delay", function(seconds) return nfqueue.packet("E"):delay(seconds) end, true },
  }) do
    local name, call, zero = table.unpack(case)
    it("of " .. name .. " are a number in range", function()
      local expected = zero and "seconds from 0 to 1e9" or "seconds, more than 0 and at most 1e9,"
      for _, wrong in ipairs({ { -1, "-1" }, { -1e-9, "-1e-09" }, { 1e9 + 1, "1000000001.0" }, { math.huge, "inf" },
        { -math.huge, "-inf" }, { nan, tostring(nan) }, { "1", "'1'" }, { true, "true" }, { {}, "table" },
        { math.mininteger, "-9223372036854775808" }, { nil, "nothing" } }) do
        assert.equal(("bad argument 'seconds' to '%s' (%s expected, got %s)"):format(name, expected, wrong[2]),
          message(call, wrong[1]))
      end
      for _, right in ipairs({ 0.5, 1, 1e9, 1e-9, 1e-30 }) do
        local timer = call(right)
        if timer then
          timer:cancel()
        end
      end
      if zero then
        assert.has_no.errors(function() call(0) call(-0.0) end)
      else
        assert.equal(("bad argument 'seconds' to '%s' (%s expected, got 0)"):format(name, expected), message(call, 0))
      end
    end)
  end
end)

describe("after and every", function()
  it("take a function and no more", function()
    for name, make in pairs({ after = nfqueue.after, every = nfqueue.every }) do
      for _, wrong in ipairs({ { nil, "nothing" }, { "print", "'print'" }, { {}, "table" }, { 5, "5" } }) do
        assert.equal(("bad argument 'function' to '%s' (function expected, got %s)"):format(name, wrong[2]),
          message(make, 1, wrong[1]))
      end
      assert.equal(("too many arguments to '%s'"):format(name), message(make, 1, print, 2))
    end
  end)
end)

describe("a timer", function()
  local timer
  before_each(function()
    timer = nfqueue.after(1e6, print)
  end)
  after_each(function()
    timer:cancel()
  end)

  it("has no field but its method, and takes none", function()
    assert.equal("timer has no field 'stop'", message(function() return timer.stop end))
    assert.equal("timer has no field '1'", message(function() return timer[1] end))
    assert.has_error(function() timer.cancel = print end)
    assert.equal("nfqueue.timer", getmetatable(timer))
  end)

  for _, foreign in ipairs(unit.foreigners()) do
    it("is not: " .. foreign.name, function()
      assert.equal(("bad argument 'self' to 'cancel' (timer expected, got %s)"):format(foreign.type),
        message(timer.cancel, foreign.value))
    end)
  end

  it("is not a packet, nor a handler one", function()
    local pkt = nfqueue.packet("")
    assert.matches("packet expected, got userdata", message(pkt.accept, timer))
    assert.matches("timer expected, got userdata", message(timer.cancel, pkt))
    assert.matches("handler expected, got userdata", message(load("").advance, timer, 1))
  end)
end)
