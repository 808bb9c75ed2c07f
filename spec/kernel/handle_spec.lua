-- Handles of packets: what they allow before the verdict, after it, and past their handler.

local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

local READ = {
  "id", "family", "hook", "ethertype", "timestamp", "verdict", "length", "truncated", "gso", "mark", "priority",
  "iif", "oif", "physiif", "physoif", "iifname", "oifname", "physiifname", "physoifname", "hwaddr", "vlan",
  "l2header", "uid", "gid", "secctx", "cgroup",
}
local ASSIGNED = { "mark", "priority" }
local VERBS = {
  { "accept" }, { "drop" }, { "modify", "new bytes" }, { "again" }, { "requeue", 4 }, { "reject" }, { "delay", 0 },
}
local READERS = {
  { "u8", 0 }, { "u16", 0 }, { "u24", 0 }, { "u32", 0 }, { "bytes" }, { "unpack", ">I2", 0 }, { "find", "x" },
}
local WRITERS = {
  { "u8", 8, 1 }, { "u16", 8, 1 }, { "u24", 8, 1 }, { "u32", 8, 1 }, { "patch", 8, "1" },
}
local METHODS = {}
for _, list in ipairs({ VERBS, READERS, WRITERS, { { "hold" } } }) do
  table.move(list, 1, #list, #METHODS + 1, METHODS)
end

local DEAD = "packet is no longer valid"
local DECIDED = "packet already has a verdict"

-- The message of an error, without where it was raised.
local function refusal(what, body, ...)
  local done, message = pcall(body, ...)
  assert.is_false(done, what .. " went through")
  return (tostring(message):gsub("^[%w%p]+:%d+: ", ""))
end

-- Everything that a handle of a past packet must refuse; `methods`: functions taken while it was alive.
local function check_dead(pkt, methods)
  for _, name in ipairs(READ) do
    assert.equal(DEAD, refusal(name, function() return pkt[name] end), name)
  end
  for _, name in ipairs(ASSIGNED) do
    assert.equal(DEAD, refusal(name, function() pkt[name] = 1 end), name)
  end
  assert.equal(DEAD, refusal("#", function() return #pkt end))
  for _, call in ipairs(METHODS) do
    local name = call[1]
    assert.equal(DEAD, refusal(name, function() return pkt[name](pkt, table.unpack(call, 2)) end), name)
    assert.equal(DEAD, refusal(name, methods[name], pkt, table.unpack(call, 2)), name)
  end
  assert.equal(DEAD, refusal("no such name", function() return pkt.tpc end))
  assert.equal("packet (no longer valid)", tostring(pkt))
end

local function take_methods(pkt)
  local methods = {}
  for _, call in ipairs(METHODS) do
    methods[call[1]] = pkt[call[1]]
  end
  return methods
end

describe("a packet's handle", function()
  local udp

  before_each(function()
    udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
  end)
  after_each(traffic.cleanup)

  -- Judges as many packets, with what is to be checked in the handler itself: its failures are raised here.
  local function judge(count, handler, config)
    local failure
    local queue = traffic.open(3, function(pkt, own)
      local done, message = xpcall(handler, debug.traceback, pkt, own)
      failure = failure or not done and message
    end, config)
    for i = 1, count do
      udp:send("packet " .. i)
    end
    traffic.judge_packets(queue, count)
    assert.falsy(failure, failure)
    return queue
  end

  it("is alive in its handler", function()
    judge(1, function(pkt)
      for _, name in ipairs(READ) do
        local _ = pkt[name]
      end
      assert.matches("^IP 127%.0%.0%.1%.%d+ > 127%.0%.0%.1%.%d+: UDP, length 8$", tostring(pkt))
      assert.equal(36, #pkt)
      assert.is_nil(pkt.verdict)
      assert.equal("packet has no field 'tpc' (did you mean 'tcp'?)", refusal("tpc", function() return pkt.tpc end))
      assert.equal("packet has no field 'tpc' (did you mean 'tcp'?)", refusal("tpc", function() pkt.tpc = 1 end))
      assert.equal("packet field 'id' is read-only", refusal("id", function() pkt.id = 1 end))
    end)
  end)

  for _, verb in ipairs(VERBS) do
    it(("after %s can be read, not changed"):format(verb[1]), function()
      judge(1, function(pkt)
        local arguments = verb[1] == "modify" and { pkt:bytes() } or { table.unpack(verb, 2) }
        if verb[1] == "again" then
          arguments = { { mark = 1 } }
        end
        pkt[verb[1]](pkt, table.unpack(arguments))
        assert.equal(verb[1], pkt.verdict)
        local before = pkt:bytes() -- with modify, lengths and checksums are complete by now
        for _, call in ipairs(VERBS) do
          assert.equal(DECIDED, refusal(call[1], pkt[call[1]], pkt, table.unpack(call, 2)), call[1])
        end
        for _, call in ipairs(WRITERS) do
          assert.equal(DECIDED, refusal(call[1], pkt[call[1]], pkt, table.unpack(call, 2)), call[1])
        end
        for _, name in ipairs(ASSIGNED) do
          assert.equal(DECIDED, refusal(name, function() pkt[name] = 1 end), name)
        end
        for _, call in ipairs(READERS) do
          assert(pcall(pkt[call[1]], pkt, table.unpack(call, 2)))
        end
        assert.equal(before, pkt:bytes())
        assert.equal(1, pkt.id)
        traffic.rule("-I OUTPUT -j ACCEPT") -- no second round for `again`
      end)
    end)
  end

  it("takes its headers along when it ends", function()
    local kept
    judge(2, function(pkt)
      if kept then
        for name, field in pairs({ ip = "src", udp = "dport" }) do
          assert.equal(DEAD, refusal(name, function() return kept[name][field] end), name)
          assert.equal(name .. " header (no longer valid)", tostring(kept[name]))
        end
        assert.equal(DEAD, refusal("unknown", function() return kept.udp.tpc end))
      end
      kept = { ip = pkt.ip, udp = pkt.udp }
      assert.same({ "127.0.0.1", "udp header" }, { kept.ip.src, tostring(kept.udp) })
    end)
  end)

  it("is refused by methods when it is none", function()
    judge(1, function(pkt, queue)
      local others = { { io.stdout, "userdata" }, { queue, "userdata" }, { {}, "table" }, { 7, "number" } }
      for _, call in ipairs(METHODS) do
        for _, other in ipairs(others) do
          assert.equal(("bad argument 'self' to '%s' (packet expected, got %s)"):format(call[1], other[2]),
            refusal(call[1], pkt[call[1]], other[1], table.unpack(call, 2)))
        end
      end
      pkt:accept() -- and took no harm
    end)
    assert.same({ "packet 1" }, udp:received())
  end)

  it("is dead past its handler, while the next packet is judged", function()
    local kept, methods = {}, nil
    judge(3, function(pkt)
      methods = methods or take_methods(pkt)
      for _, old in ipairs(kept) do
        check_dead(old, methods)
        assert.is_false(rawequal(old, pkt))
        assert.are_not.equal(old, pkt)
      end
      kept[#kept + 1] = pkt
      assert.equal(#kept, pkt.id)
      pkt:accept()
    end)
    for _, old in ipairs(kept) do
      check_dead(old, methods)
    end
    assert.same({ "packet 1", "packet 2", "packet 3" }, udp:received())
  end)

  for _, case in ipairs({
    { "a raise before a verdict", function() error("before") end },
    { "a raise after the verdict", function(pkt)
      pkt:accept()
      error("after")
    end },
    { "a refused verdict", function(pkt) pkt:modify("") end },
    { "no verdict", function() end },
    { "a return of the wrong kind", function() return 7 end },
  }) do
    it("is dead after " .. case[1], function()
      local kept, methods
      local queue = traffic.open(3, function(pkt)
        kept, methods = pkt, take_methods(pkt)
        return case[2](pkt)
      end)
      traffic.log(function()
        udp:send("one")
        traffic.judge_packets(queue, 1)
      end)
      check_dead(kept, methods)
    end)
  end

  for _, case in ipairs({
    { "a hold settled in its handler", function(pkt)
      pkt:hold()
      pkt:drop()
    end },
    { "a hold that has ended", function(pkt) pkt:hold(0) end },
    { "a hold settled by a timer", function(pkt)
      pkt:hold()
      nfqueue.after(0, function() pkt:accept() end)
    end },
    { "a hold delayed by a timer", function(pkt)
      pkt:hold()
      nfqueue.after(0, function() pkt:delay(0) end)
    end },
    { "a hold that raised", function(pkt)
      pkt:hold(0)
      error("out")
    end },
    { "a delay", function(pkt) pkt:delay(0) end },
  }) do
    it("is dead after " .. case[1], function()
      local kept, methods
      local queue = traffic.open(3, function(pkt)
        kept, methods = pkt, take_methods(pkt)
        return case[2](pkt)
      end)
      traffic.log(function()
        udp:send("one")
        traffic.judge({ queue }, "its end", function()
          return queue:stats().packets == 1 and queue:stats().kept == 0
        end)
      end)
      check_dead(kept, methods)
    end)
  end

  measured("is dead in the queue's close, after its stop, and when the queue is gone", function()
    local kept, methods, in_close
    local queue = nfqueue.new(3, {
      packet = function(pkt, own)
        kept, methods = pkt, take_methods(pkt)
        own:stop()
        assert(pkt.id) -- alive until the handler returns, stopped or not
        pkt:accept()
      end,
      close = function()
        in_close = pcall(check_dead, kept, methods)
      end,
    })
    traffic.flood(udp.port, 1, 3)
    assert.is_true(queue:start())
    assert.is_true(in_close)
    check_dead(kept, methods)
    queue = setmetatable({ queue }, { __mode = "v" })
    collectgarbage()
    collectgarbage()
    assert.is_nil(queue[1])
    check_dead(kept, methods)
    assert.same({ "1" }, udp:received())
  end)

  it("stays dead when the same queue judges again, and another object after it", function()
    local kept, methods
    local function handler(pkt)
      methods = methods or take_methods(pkt)
      if kept then
        check_dead(kept, methods)
      end
      kept = kept or pkt
      pkt:accept()
    end
    local queue = judge(1, handler)
    queue:close()
    assert(queue:open())
    udp:send("second")
    traffic.judge_packets(queue, 2)
    queue:close()
    judge(1, handler)
    check_dead(kept, methods)
    assert.equal(0, queue:stats().errors)
    assert.same({ "packet 1", "second", "packet 1" }, udp:received())
  end)
end)
