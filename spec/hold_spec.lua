-- Packets past their handler, without a kernel: held and delayed under a loaded handler and its clock.
-- The same with real packets: spec/kernel/hold_spec.lua, spec/kernel/delay_spec.lua.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local message = unit.message
local UDP = datagram.right(datagram.ip4(datagram.udp("question")))
local OTHER = datagram.right(datagram.ip4(datagram.udp("an answer")))
local PATCHED = datagram.right(datagram.ip4(datagram.udp("Question")))

after_each(unit.cleanup)

--- A handler of this body; `pkt`, `queue` and `nfqueue` are known in it.
local function load(body, config)
  return assert(nfqueue.load(unit.file(("local nfqueue = require('nfqueue')\nreturn function(pkt, queue) %s end")
    :format(body)), nil, config))
end

--- A packet, and what the handler did with it.
local function apply(handler, bytes, meta)
  local pkt = nfqueue.packet(bytes or UDP, meta)
  return pkt, handler(pkt)
end

describe("a held packet", function()
  it("has no verdict, and is as alive as in its handler", function()
    local pkt, result, problem = apply(load("header = pkt.udp pkt:hold()"), UDP, { mark = 5, iifname = "eth7" })
    local header = _G.header
    _G.header = nil
    assert.same({ "hold", nil }, { result, problem })
    assert.is_nil(pkt.verdict)
    assert.is_nil(pkt.sent)
    assert.same({ UDP, 5, "eth7", "question", 53 }, { pkt:bytes(), pkt.mark, pkt.iifname, pkt.payload, header.dport })
    pkt.mark = 6
    header.dport = 5353
    pkt.payload = "an answer"
    assert.same({ 6, 5353, "an answer" }, { pkt.mark, pkt.udp.dport, pkt.payload })
    pkt:accept()
    local sent = nfqueue.packet(pkt.sent)
    assert.same({ "accept", 5353, "an answer" }, { pkt.verdict, sent.udp.dport, sent.payload })
  end)

  -- Every verb, and what is sent then.
  local VERBS = {
    { "accept", {}, UDP }, { "drop", {}, nil }, { "modify", { OTHER }, OTHER }, { "again", { { mark = 1 } }, UDP },
    { "requeue", { 4 }, UDP },
  }
  -- Every place a verb can come from: each gets a held packet and a function that settles it.
  local PLACES = {
    ["its own handler"] = function(settle)
      _G.settle = settle
      local handler = load("pkt:hold() settle(pkt)")
      local pkt, result = apply(handler)
      assert.equal(pkt.verdict, result)
      return pkt
    end,
    ["the handler of another packet"] = function(settle)
      _G.settle = settle
      local handler = load("if kept then settle(kept) pkt:drop() else kept = pkt pkt:hold() end")
      local pkt = apply(handler)
      local other, result = apply(handler)
      assert.same({ "drop", "drop" }, { other.verdict, result })
      return pkt
    end,
    ["a timer"] = function(settle)
      _G.settle = settle
      local handler = load("pkt:hold() nfqueue.after(1, function() settle(pkt) end)")
      local pkt = apply(handler)
      assert.is_nil(handler:advance(0.5))
      assert.is_nil(pkt.verdict)
      assert.is_nil(handler:advance(0.5))
      return pkt
    end,
    ["outside"] = function(settle)
      local pkt = apply(load("pkt:hold()"))
      settle(pkt)
      return pkt
    end,
  }
  for place, get in pairs(PLACES) do
    for _, verb in ipairs(VERBS) do
      it(("is settled by %s from %s, once"):format(verb[1], place), function()
        local pkt = get(function(pkt)
          pkt[verb[1]](pkt, table.unpack(verb[2]))
          for _, again in ipairs(VERBS) do
            assert.equal("packet already has a verdict", message(pkt[again[1]], pkt, table.unpack(again[2])))
          end
          for _, name in ipairs({ "hold", "delay" }) do
            assert.equal("packet already has a verdict", message(pkt[name], pkt, 1))
          end
        end)
        _G.settle, _G.kept = nil, nil
        assert.same({ verb[1], verb[3] }, { pkt.verdict, pkt.sent })
      end)
    end

    it("is delayed from " .. place, function()
      local pkt = get(function(pkt)
        pkt:delay(2, { mark = 9 })
      end)
      _G.settle, _G.kept = nil, nil
      assert.same({ "delay", nil, 9 }, { pkt.verdict, pkt.sent, pkt.mark })
    end)
  end

  it("gets `default` after hold_limit when nobody settles it", function()
    for _, case in ipairs({ -- config, seconds, verdict
      { {}, 30, "accept" }, { { default = "drop" }, 30, "drop" }, { { hold_limit = 0.5 }, 0.5, "accept" },
    }) do
      local handler = load("pkt:hold()", case[1])
      local pkt = apply(handler)
      handler:advance(case[2] - 0.001)
      assert.is_nil(pkt.verdict)
      handler:advance(0.001)
      assert.same({ case[3], case[3] == "accept" and UDP or nil }, { pkt.verdict, pkt.sent })
      assert.equal("packet already has a verdict", message(pkt.accept, pkt))
    end
  end)

  it("gets the verdict it was held with, after the time it was held for", function()
    for _, case in ipairs({ -- arguments, seconds, verdict
      { "2", 2, "accept" }, { "2, 'drop'", 2, "drop" }, { "nil, 'drop'", 30, "drop" },
      { "0.25, 'accept'", 0.25, "accept" }, { "90", 90, "accept" }, { "nil, nil", 30, "accept" }, { "", 30, "accept" },
    }) do
      local handler = load(("pkt:hold(%s)"):format(case[1]))
      local pkt = apply(handler)
      handler:advance(case[2] - 0.001)
      assert.is_nil(pkt.verdict, case[1])
      handler:advance(0.001)
      assert.equal(case[3], pkt.verdict, case[1])
    end
  end)

  it("held for no time gets it when time moves", function()
    local handler = load("pkt:hold(0, 'drop')")
    local pkt, result = apply(handler)
    assert.same({ "hold", nil }, { result, pkt.verdict })
    handler:advance(0)
    assert.equal("drop", pkt.verdict)
  end)

  it("gets it at close", function()
    local handler = assert(nfqueue.load(unit.file([[return {
      packet = function(pkt) pkt:hold(5, pkt.mark == 1 and "drop" or nil) end,
      close = function() at_close = { first.verdict, second.verdict } end }]])))
    local first, second = apply(handler, UDP, { mark = 1 }), apply(handler, UDP)
    _G.first, _G.second = first, second
    handler:close()
    assert.same({ "drop", "accept" }, _G.at_close) -- after its last verdict
    _G.first, _G.second, _G.at_close = nil, nil, nil
    assert.equal(UDP, second.sent)
  end)

  it("is none when its handler has closed itself: hold raises, and delayed packets leave at once", function()
    local handler = load("closing:close() pkt:hold()")
    _G.closing = handler
    local pkt, result, problem = apply(handler)
    assert.same({ "drop", "drop" }, { result, pkt.verdict })
    assert.matches("cannot hold this packet: handler is closed", problem, 1, true)
    _G.closing = load("closing:close() pkt:delay(5)")
    pkt = apply(_G.closing)
    _G.closing = nil
    assert.same({ "delay", UDP }, { pkt.verdict, pkt.sent })
  end)

  it("leaves with its edits then", function()
    for _, verdict in ipairs({ "", "'accept'" }) do
      local handler = load(("pkt:patch(28, 'Q') pkt:hold(1, %s)"):format(verdict == "" and "nil" or verdict))
      local pkt = apply(handler)
      handler:advance(1)
      assert.same({ "accept", PATCHED }, { pkt.verdict, pkt.sent })
    end
    local handler = load("pkt:hold()")
    local pkt = apply(handler)
    pkt:patch(28, "Q")
    handler:close()
    assert.same({ "accept", PATCHED }, { pkt.verdict, pkt.sent })
  end)

  it("gets on_error, without its edits, when those cannot leave", function()
    local cut = UDP:sub(1, 26) -- IPv4 with half a UDP header: nothing to complete
    for _, on_error in ipairs({ "accept", "drop" }) do
      local handler = load("pkt:u8(8, 1) pkt:hold()", { on_error = on_error })
      local pkt = apply(handler, cut, { mark = 3 })
      handler:advance(30)
      assert.same({ on_error, on_error == "accept" and cut or nil, cut, 3 },
        { pkt.verdict, pkt.sent, pkt:bytes(), pkt.mark })
    end
  end)

  it("can be held again: another time and verdict, from then on", function()
    local handler = load("pkt:hold(5, 'drop')")
    local pkt = apply(handler)
    handler:advance(4)
    pkt:hold(5)
    handler:advance(4.5)
    assert.is_nil(pkt.verdict)
    handler:advance(0.5)
    assert.equal("accept", pkt.verdict)
    handler = load("pkt:hold(5) pkt:hold(1, 'drop')")
    pkt = apply(handler)
    handler:advance(1)
    assert.equal("drop", pkt.verdict)
    handler = load("pkt:hold(1) pkt:hold()")
    pkt = apply(handler)
    handler:advance(29)
    assert.is_nil(pkt.verdict)
    handler:advance(1)
    assert.equal("accept", pkt.verdict)
  end)

  it("is no matter for the handler's return", function()
    for _, body in ipairs({ "pkt:hold() return", "return pkt:hold()", "pkt:hold() return nil" }) do
      assert.same({ "hold", nil }, { select(2, apply(load(body))) })
    end
  end)

  it("stays held when its handler then fails", function()
    for _, case in ipairs({
      { "error('out')", "out" }, { "return 'accept'", "the handler returned 'accept', but it holds the packet" },
      { "return 'hold'", "the handler returned 'hold', but it holds the packet" },
      { "return 5", "a handler returns nothing or the name of a verb, not number" },
    }) do
      local handler = load("pkt:patch(28, 'Q') pkt:hold(1) " .. case[1], { on_error = "drop" })
      local pkt, result, problem = apply(handler)
      assert.equal("hold", result)
      assert.matches(case[2], problem, 1, true)
      assert.is_nil(pkt.verdict)
      handler:advance(1)
      assert.same({ "accept", PATCHED }, { pkt.verdict, pkt.sent })
    end
  end)

  it("settled in its handler has its verdict when that then fails", function()
    local pkt, result, problem = apply(load("pkt:hold() pkt:drop() error('out')"))
    assert.same({ "drop", "drop" }, { result, pkt.verdict })
    assert.matches("out", problem)
    pkt, result, problem = apply(load("pkt:hold() pkt:accept() return 'drop'"))
    assert.same({ "accept", "accept" }, { result, pkt.verdict })
    assert.matches("the handler returned 'drop', but the packet already has a verdict", problem, 1, true)
  end)

  it("is held by name, too", function()
    local handler = load("return 'hold', 3, 'drop'")
    local pkt, result = apply(handler)
    assert.equal("hold", result)
    handler:advance(3)
    assert.equal("drop", pkt.verdict)
    handler = load("return 'hold'")
    pkt = apply(handler)
    handler:advance(30)
    assert.equal("accept", pkt.verdict)
  end)

  it("is not given to a handler again", function()
    local handler = load("pkt:hold()")
    local pkt = apply(handler)
    assert.equal("packet is held", message(handler, pkt))
    assert.equal("packet is held", message(load(""), pkt))
    handler:close()
    assert.equal("packet already has a verdict", message(load(""), pkt))
  end)

  it("keeps its place in the order of verdicts however it is settled", function()
    local handler = load("pkt:hold(pkt.mark)")
    local packets = {}
    for i = 1, 200 do
      packets[i] = apply(handler, UDP, { mark = i })
    end
    for i = 200, 2, -2 do
      packets[i]:drop()
    end
    handler:advance(100)
    for i, pkt in ipairs(packets) do
      assert.equal(i % 2 == 0 and "drop" or i <= 100 and "accept" or nil, pkt.verdict)
    end
    handler:advance(100)
    assert.equal("accept", packets[199].verdict)
  end)

  it("outlives neither its handler's end nor breaks it", function()
    local handler = load("pkt:hold()")
    local pkt = apply(handler)
    handler = setmetatable({ handler }, { __mode = "v" })
    collectgarbage()
    collectgarbage()
    assert.is_nil(handler[1])
    assert.is_nil(pkt.verdict)
    pkt:accept() -- a packet like any other
    assert.same({ "accept", UDP }, { pkt.verdict, pkt.sent })
    -- and the other way: nobody but the handler knows of the packet
    handler = load("pkt:hold(1) nfqueue.after(1, function() settled = pkt.verdict end)")
    apply(handler)
    collectgarbage()
    collectgarbage()
    assert.is_nil(handler:advance(2))
  end)

  it("is one that a handler is at", function()
    local pkt = nfqueue.packet(UDP)
    assert.equal("cannot hold this packet: no handler is at it", message(pkt.hold, pkt))
    _G.bystander = pkt
    local _, result, problem = apply(load("bystander:hold()"))
    _G.bystander = nil
    assert.equal("drop", result)
    assert.matches("cannot hold this packet: no handler is at it", problem, 1, true)
    assert.is_nil(pkt.verdict)
  end)
end)

describe("hold", function()
  for _, case in ipairs({
    { "'1'", "bad argument 'seconds' to 'hold' (seconds from 0 to 1e9 expected, got '1')" },
    { "-1", "bad argument 'seconds' to 'hold' (seconds from 0 to 1e9 expected, got -1)" },
    { "0/0", "bad argument 'seconds' to 'hold' (seconds from 0 to 1e9 expected, got " },
    { "math.huge", "bad argument 'seconds' to 'hold' (seconds from 0 to 1e9 expected, got inf)" },
    { "1, 'again'", "bad argument 'verdict' to 'hold' (\"accept\" or \"drop\" expected, got 'again')" },
    { "1, true", "bad argument 'verdict' to 'hold' (\"accept\" or \"drop\" expected, got true)" },
    { "1, 'drop', 1", "too many arguments to 'hold'" },
    { "'drop'", "bad argument 'seconds' to 'hold' (seconds from 0 to 1e9 expected, got 'drop')" },
  }) do
    it(("refuses (%s), and then nothing is held"):format(case[1]), function()
      local handler = load(("pkt:hold(%s)"):format(case[1]))
      local pkt, result, problem = apply(handler)
      assert.same({ "drop", "drop" }, { result, pkt.verdict })
      assert.is_truthy(problem:find(case[2], 1, true), problem)
      pkt, result, problem = apply(load(("return 'hold', %s"):format(case[1])))
      assert.same({ "drop", "drop" }, { result, pkt.verdict })
      assert.is_truthy(problem:find(case[2], 1, true), problem)
    end)
  end

  it("refuses what has a verdict", function()
    local _, _, problem = apply(load("pkt:accept() pkt:hold()"))
    assert.matches("packet already has a verdict", problem, 1, true)
  end)
end)

describe("a delayed packet", function()
  it("is judged, and leaves when its time has come", function()
    local handler = load("pkt:delay(2)")
    local pkt, result = apply(handler)
    assert.same({ "delay", "delay", nil }, { result, pkt.verdict, pkt.sent })
    assert.equal("packet already has a verdict", message(pkt.drop, pkt))
    assert.equal("packet already has a verdict", message(pkt.hold, pkt))
    handler:advance(1.999)
    assert.is_nil(pkt.sent)
    handler:advance(0.001)
    assert.same({ "delay", UDP }, { pkt.verdict, pkt.sent })
  end)

  it("leaves with its edits and options", function()
    local handler = load("pkt:patch(28, 'Q') pkt:delay(1, { mark = 7, priority = 3 })")
    local pkt = apply(handler)
    handler:advance(1)
    assert.same({ PATCHED, 7, 3 }, { pkt.sent, pkt.mark, pkt.priority })
    pkt = apply(load("pkt:u8(8, 1) pkt:delay(1, { fixup = false })"))
    assert.equal("delay", pkt.verdict)
  end)

  it("is delayed by name, too", function()
    local handler = load("return 'delay', 2, { mark = 7 }")
    local pkt, result = apply(handler)
    assert.same({ "delay", 7, nil }, { result, pkt.mark, pkt.sent })
    handler:advance(2)
    assert.equal(UDP, pkt.sent)
  end)

  it("leaves at close", function()
    local handler = load("pkt:delay(1000)")
    local pkt = apply(handler)
    handler:close()
    assert.same({ "delay", UDP }, { pkt.verdict, pkt.sent })
  end)

  it("that was held counts from its settling", function()
    local handler = load("pkt:hold(10)")
    local pkt = apply(handler)
    handler:advance(5)
    pkt:patch(28, "Q")
    pkt:delay(7)
    assert.equal("packet already has a verdict", message(pkt.accept, pkt))
    handler:advance(6.9)
    assert.is_nil(pkt.sent)
    handler:advance(0.1)
    assert.equal(PATCHED, pkt.sent)
  end)

  it("without a handler has its verdict and nobody to send it", function()
    local pkt = nfqueue.packet(UDP)
    pkt:delay(1)
    assert.same({ "delay", nil }, { pkt.verdict, pkt.sent })
  end)

  it("stays so when its handler then fails", function()
    local handler = load("pkt:delay(1) error('out')")
    local pkt, result, problem = apply(handler)
    assert.equal("delay", result)
    assert.matches("out", problem)
    handler:advance(1)
    assert.equal(UDP, pkt.sent)
  end)

  it("is not one when its edits cannot leave", function()
    local cut = UDP:sub(1, 26)
    local handler = load("pkt:u8(8, 1) pkt:delay(1)", { on_error = "accept" })
    local pkt, result, problem = apply(handler, cut)
    assert.same({ "accept", cut }, { result, pkt.sent })
    assert.matches("cannot edit this packet: its UDP header is cut short", problem, 1, true)
    handler:advance(5)
    assert.equal("accept", pkt.verdict)
  end)

  for _, case in ipairs({
    { "", "bad argument 'seconds' to 'delay' (seconds from 0 to 1e9 expected, got nothing)" },
    { "1, 5", "bad argument 'opts' to 'delay' (table expected, got 5)" },
    { "1, { marks = 5 }", "unknown option 'marks' to 'delay'" },
    { "1, { bypass = true }", "unknown option 'bypass' to 'delay'" },
    { "1, {}, 1", "too many arguments to 'delay'" },
  }) do
    it(("is not one for (%s)"):format(case[1]), function()
      for _, body in ipairs({ "pkt:delay(%s)", "return 'delay'" .. (case[1] == "" and "%s" or ", %s") }) do
        local pkt, result, problem = apply(load(body:format(case[1])))
        assert.same({ "drop", "drop" }, { result, pkt.verdict })
        assert.is_truthy(problem:find(case[2], 1, true), problem)
      end
    end)
  end
end)

describe("at the same time", function()
  it("delayed packets leave before timers run, and held ones get their verdict after", function()
    local handler = load([[
      if pkt.mark == 1 then
        pkt:hold(1)
        first = pkt
      else
        pkt:delay(1)
        second = pkt
      end
      nfqueue.after(1, function() order = { first.verdict, second and second.sent ~= nil } end)]])
    local first = apply(handler, UDP, { mark = 1 })
    local second = apply(handler, UDP)
    assert.is_nil(handler:advance(1))
    assert.same({ nil, true }, _G.order)
    assert.same({ "accept", UDP }, { first.verdict, second.sent })
    _G.first, _G.second, _G.order = nil, nil, nil
  end)

  it("a timer made for the end of a hold settles it", function()
    local handler = load("pkt:hold(5) nfqueue.after(5, function() pkt:drop() end)")
    local pkt = apply(handler)
    assert.is_nil(handler:advance(5))
    assert.equal("drop", pkt.verdict)
  end)
end)
