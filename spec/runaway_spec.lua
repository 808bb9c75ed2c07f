-- Handlers that never return, under nfqueue.load: each is interrupted, and its state lives on.

local nfqueue = require("nfqueue")
local runaways = require("support.runaways")
local unit = require("support.unit")

local LIMIT = 0.03
local RAISED = "time limit of 0.03 s exceeded"
local BYTES = nfqueue.build({ ip = { src = "192.0.2.1", dst = "192.0.2.2" }, udp = { sport = 1, dport = 2 },
  payload = "text" })

after_each(unit.cleanup)

local function packet()
  return nfqueue.packet(BYTES)
end

--- A handler whose functions are those of the table, as a script has them.
local function wrap(handler, config)
  handler.config = config or { time_limit = LIMIT }
  runaways.handler = handler
  local loaded = assert(nfqueue.load(unit.file("return require('support.runaways').handler")))
  runaways.handler = nil
  return loaded
end

describe("a handler that never returns:", function()
  for _, case in ipairs(runaways.interruptible) do
    local name, run = table.unpack(case)
    it(name, function()
      local runs = true
      local handler = wrap({ packet = function(pkt)
        if runs then
          run(pkt)
        end
        pkt:accept()
      end })
      local verdict, message = handler(packet())
      assert.are.equal("drop", verdict)
      assert.matches(RAISED, message, 1, true)
      runs = false
      assert.are.same({ "accept" }, { handler(packet()) })
      debug.sethook() -- some set one
    end)
  end
end)

describe("what a handler did before its time was over", function()
  local function forever()
    while true do end -- luacheck: ignore 542
  end

  it("stands, when it is a verdict", function()
    local handler = wrap({ packet = function(pkt)
      pkt:accept()
      forever()
    end })
    local verdict, message = handler(packet())
    assert.are.equal("accept", verdict)
    assert.matches(RAISED, message, 1, true)
  end)

  it("is closed, what was to be closed", function()
    local file
    local handler = wrap({ packet = function()
      local own <close> = assert(io.open("/dev/null"))
      file = own
      forever()
    end })
    assert.matches(RAISED, select(2, handler(packet())), 1, true)
    assert.are.equal("closed file", io.type(file))
  end)

  it("does not, when it is an edit", function()
    local handler = wrap({ packet = function(pkt)
      pkt.udp.dport = 7
      forever()
    end }, { time_limit = LIMIT, on_error = "accept" })
    local pkt = packet()
    assert.are.equal("accept", (handler(pkt)))
    assert.are.equal(BYTES, pkt:bytes())
  end)
end)

describe("time_limit", function()
  it("is 1 s for who says nothing", function()
    assert.are.equal(1, nfqueue.new(1, function() end).config.time_limit)
  end)

  it("is not that of a handler that takes its time", function()
    local handler = wrap({ packet = function(pkt)
      local deadline = os.clock() + 0.1
      while os.clock() < deadline do end -- luacheck: ignore 542
      pkt:accept()
    end }, { time_limit = 60 })
    assert.are.same({ "accept" }, { handler(packet()) })
  end)

  it("is of each call: many together may take longer", function()
    local handler = wrap({ packet = function(pkt)
      local deadline = os.clock() + 0.01
      while os.clock() < deadline do end -- luacheck: ignore 542
      pkt:accept()
    end }, { time_limit = 2 })
    for _ = 1, 30 do
      assert.are.same({ "accept" }, { handler(packet()) })
    end
  end)

  it("holds for open, with ten times as much", function()
    local done, message, errno = nfqueue.load(unit.file("return { open = function() while true do end end, "
      .. "packet = function() end, config = { time_limit = 0.01 } }"))
    assert.is_nil(done)
    assert.matches("^open of the script failed: .*time limit of 0%.1 s exceeded", message)
    assert.are.equal(22, errno)
  end)

  it("holds for the chunk, as far as it can be known", function()
    local done, message, errno = nfqueue.load(unit.file("while true do end"), {}, { time_limit = 0.01 })
    assert.is_nil(done)
    assert.matches("^script .* failed while loading: .*time limit of 0%.1 s exceeded", message)
    assert.are.equal(22, errno)
  end)

  it("holds for what the chunk returns", function()
    local source = "return setmetatable({}, { __index = function() while true do end end })"
    local done, message, errno = nfqueue.load(unit.file(source), {}, { time_limit = 0.01 })
    assert.is_nil(done)
    assert.matches("time limit of 0.1 s exceeded", message, 1, true)
    assert.are.equal(22, errno)
  end)

  it("holds for close", function()
    local handler = wrap({ packet = function() end, close = function()
      while true do end -- luacheck: ignore 542
    end })
    assert.matches(RAISED, unit.message(handler.close, handler), 1, true)
  end)

  it("holds for timers, each by itself", function()
    local ran = 0
    local handler = wrap({ packet = function() end, open = function()
      for _ = 1, 2 do
        nfqueue.after(1, function()
          ran = ran + 1
          while true do end -- luacheck: ignore 542
        end)
      end
      nfqueue.after(1, function()
        ran = ran + 1
      end)
    end })
    assert.matches(RAISED, handler:advance(1), 1, true)
    assert.are.equal(3, ran)
  end)
end)
