-- nfqueue.rewrite and time: when connections are forgotten, by the clock of a loaded handler.

local datagram = require("support.datagram")
local nfqueue = require("nfqueue")
local segments = require("support.segments")
local unit = require("support.unit")

local DEFAULT, CLOSED, REPEAT = 7440, 120, 300 -- seconds, as the documents say
local JUST = 0.001

after_each(unit.cleanup)

-- What a call hands over: the handler's state is this one.
local asked = {}

before_each(function()
  _G.asked = asked
end)

after_each(function()
  _G.asked = nil
end)

local SCRIPT = [[
  local nfqueue = require("nfqueue")
  local rw = nfqueue.rewrite({ %s })
  return function(pkt)
    if pkt.udp then
      asked.stats = rw:stats()
    else
      asked.fine, asked.reason = rw(pkt, asked.content)
    end
    pkt:accept()
  end]]

--- A rewriter in a loaded handler: `rw` for segments.new, `stats()`, `advance(seconds)`.
local function load(options)
  local handler = assert(nfqueue.load(unit.file(SCRIPT:format(options or ""))))
  return {
    rw = function(pkt, content)
      asked.content = content
      assert.are.equal("accept", (handler(pkt)))
      return asked.fine, asked.reason
    end,
    stats = function()
      handler(nfqueue.packet(datagram.right(datagram.ip4(datagram.udp("stats")))))
      return asked.stats
    end,
    advance = function(seconds)
      assert(handler:advance(seconds) == nil)
    end,
  }
end

--- A connection whose first end has sent 7 bytes that became 2.
local function edited(world, port)
  local line = segments.new(world.rw, { ports = { port or 40000, 80 } }):open()
  assert.is_true(line:send(1, 0, "request", { content = "rq" }).fine)
  return line
end

--- Whether its numbers are still kept in step.
local function is_followed(line)
  local at = line:send(1, 7, "more").at
  assert.is_true(at == 2 or at == 7, at)
  return at == 2
end

--- kept: bytes; nil for some.
local function assert_counts(world, connections, expired, kept)
  local stats = world.stats()
  assert.are.same({ connections, expired, 0, kept or stats.kept },
    { stats.connections, stats.expired, stats.evicted, stats.kept })
end

describe("a connection is forgotten by the state's clock", function()
  for _, case in ipairs({ { "", DEFAULT }, { "timeout = 60", 60 }, { "timeout = 0.5", 0.5 },
    { "timeout = 1e9", 1e9 } }) do
    local options, timeout = table.unpack(case)

    it(("when it has been silent for more than %g seconds (%s), with what is kept of it"):format(timeout, options),
      function()
        local world = load(options)
        local first, second = edited(world, 1), edited(world, 2)
        world.advance(timeout)
        assert_counts(world, 2, 0)
        assert.is_true(is_followed(first))
        world.advance(JUST)
        assert_counts(world, 1, 1)
        assert.is_true(is_followed(first))
        assert.is_false(is_followed(second))
      end)

    it(("and then not found, when nobody asked for the counts (%s)"):format(options), function()
      local world = load(options)
      local line = edited(world)
      world.advance(timeout)
      world.advance(JUST)
      assert.is_false(is_followed(line))
      assert_counts(world, 0, 1, 0)
    end)
  end

  it("not while either end says something, for as long as it likes", function()
    local world = load("timeout = 10")
    local line, silent = edited(world, 1), edited(world, 2)
    for i = 1, 50 do
      world.advance(9)
      line:send(1 + i % 2, i % 2 == 0 and 7 or 0, "", { ack = i % 2 == 1 and 2 or 0 })
    end
    assert_counts(world, 1, 1, 0) -- end 2 has acknowledged the edit
    assert.is_true(is_followed(line))
    assert.is_false(is_followed(silent))
  end)

  for _, case in ipairs({ { "", CLOSED }, { "timeout = 120.5", CLOSED }, { "timeout = 30", 30 } }) do
    local options, timeout = table.unpack(case)

    it(("%d seconds after its last packet when it was reset (%s)"):format(timeout, options), function()
      local world = load(options)
      local line, open = edited(world, 1), edited(world, 2)
      for _ = 1, 3 do -- the time begins again with every packet
        line:send(2, 0, "", { flags = "RA", ack = 2 })
        world.advance(timeout)
        assert.is_true(is_followed(line))
        assert.is_true(is_followed(open))
      end
      world.advance(timeout + JUST)
      local left = timeout == CLOSED and 1 or 0 -- the open one
      assert_counts(world, left, 2 - left)
      assert.is_false(is_followed(line))
      assert.are.equal(left == 1, is_followed(open))
    end)

    it(("%d seconds after its last packet when both ends have ended (%s)"):format(timeout, options), function()
      local world = load(options)
      local line = edited(world)
      line:send(1, 7, "", { flags = "FA" })
      line:send(2, 0, "", { ack = 3 })
      line:send(2, 0, "", { flags = "FA", ack = 3 })
      line:send(1, 8, "", { ack = 1 })
      world.advance(timeout)
      assert_counts(world, 1, 0, 0)
      world.advance(JUST)
      assert_counts(world, 0, 1, 0)
    end)
  end

  it("which is late for one that only one end has ended", function()
    local world = load()
    local line = edited(world)
    line:send(1, 7, "", { flags = "FA" })
    line:send(2, 0, "", { ack = 3 })
    world.advance(DEFAULT)
    assert_counts(world, 1, 0, 0)
    world.advance(JUST)
    assert_counts(world, 0, 1, 0)
  end)

  it("and its place is another's, which is no eviction", function()
    local world = load("max = 2, timeout = 10")
    edited(world, 1)
    edited(world, 2)
    world.advance(10 + JUST)
    assert.is_true(is_followed(edited(world, 3)))
    assert.is_true(is_followed(edited(world, 4)))
    assert_counts(world, 2, 2)
  end)

  it("and no other handler's clock counts", function()
    local world, other = load("timeout = 10"), load("timeout = 10")
    local line, others = edited(world), edited(other)
    other.advance(1000)
    assert.is_true(is_followed(line))
    assert.is_false(is_followed(others))
    assert_counts(world, 1, 0)
  end)
end)

describe("for want of room", function()
  local LONG = ("0123456789abcdef"):rep(3750) -- 60,000 bytes
  local SAME = ("x"):rep(60000)

  --- As much content as one direction may keep, never acknowledged.
  local function fill(world, port)
    local line = segments.new(world.rw, { ports = { port, 80 } }):open()
    for i = 0, 68 do
      line:send(2, 60000 * i, SAME, { gso = true, content = LONG })
    end
  end

  for _, case in ipairs({ { "", REPEAT }, { "timeout = 40", 40 } }) do
    it(("connections that hold some go after %d seconds of silence (%s)"):format(case[2], case[1]), function()
      local world = load("max = 100, " .. case[1])
      local line = segments.new(world.rw, { ports = { 50000, 80 } }):open()
      assert.is_true(line:send(2, 0, "word", { content = "longer" }).fine)
      local quiet = segments.new(world.rw, { ports = { 50001, 80 } }):open() -- holds nothing
      for port = 1, 17 do
        fill(world, port)
      end
      local function try()
        local went = line:send(2, 4, SAME, { gso = true, content = LONG })
        return went.fine or went.reason
      end
      assert.are.equal("no room", try())
      world.advance(case[2])
      assert.are.equal("no room", try())
      world.advance(1 - JUST)
      assert.are.equal("no room", try()) -- looked for once a second
      world.advance(JUST)
      if case[1] == "" then
        assert.is_true(try())
        assert_counts(world, 2, 17)
        assert.is_nil(quiet:send(1, 0, "word").reason)
      else
        assert.is_true(try())
        assert_counts(world, 1, 18)
      end
      assert.is_true(world.stats().kept < 1 << 20)
    end)
  end
end)
