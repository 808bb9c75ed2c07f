-- nfqueue.flows without a kernel: which packets belong together, directions, ends, bounds.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local CLIENT, SERVER = "192.0.2.1", "198.51.100.2"
local CLIENT6, SERVER6 = "2001:db8::1", "2001:db8::2"

local function build(description)
  return nfqueue.packet(nfqueue.build(description))
end

-- A packet from the client, or with `reply` to it.
local function tcp(flags, reply, port)
  local here, there = port or 40000, 80
  return build({
    ip = { src = reply and SERVER or CLIENT, dst = reply and CLIENT or SERVER },
    tcp = { sport = reply and there or here, dport = reply and here or there, flags = flags },
  })
end

local function udp(reply, six, port)
  local from, to = six and CLIENT6 or CLIENT, six and SERVER6 or SERVER
  local here, there = port or 40000, 53
  return build({
    ip = { src = reply and to or from, dst = reply and from or to },
    udp = { sport = reply and there or here, dport = reply and here or there }, payload = "x",
  })
end

describe("flows:get", function()
  it("gives both directions the same table, and tells which is which", function()
    for name, packets in pairs({
      TCP = { tcp("S"), tcp("SA", true), tcp("A") }, UDP = { udp(), udp(true), udp() },
      ["UDP over IPv6"] = { udp(false, true), udp(true, true), udp(false, true) },
      ["ICMP echo"] = {
        build({ ip = { src = CLIENT, dst = SERVER }, icmp = { type = 8, id = 7, seq = 1 } }),
        build({ ip = { src = SERVER, dst = CLIENT }, icmp = { type = 0, id = 7, seq = 1 } }),
        build({ ip = { src = CLIENT, dst = SERVER }, icmp = { type = 8, id = 7, seq = 2 } }),
      },
      GRE = {
        build({ ip = { src = SERVER, dst = CLIENT, protocol = 47 }, payload = "opaque" }),
        build({ ip = { src = CLIENT, dst = SERVER, protocol = 47 }, payload = "opaque" }),
        build({ ip = { src = SERVER, dst = CLIENT, protocol = 47 }, payload = "opaque" }),
      },
    }) do
      local flows = nfqueue.flows()
      local first, reply = flows:get(packets[1])
      assert.is_false(reply, name)
      first.count = 1
      local second
      second, reply = flows:get(packets[2])
      assert.is_true(rawequal(first, second), name)
      assert.is_true(reply, name)
      second, reply = flows:get(packets[3])
      assert.are.same({ true, false, 1, 1 }, { rawequal(first, second), reply, second.count, #flows }, name)
    end
  end)

  it("tells connections apart by every part of their ends", function()
    local flows = nfqueue.flows()
    local seen = {}
    for _, pkt in ipairs({
      tcp("S"), tcp("S", false, 40001), udp(), udp(false, true), udp(false, false, 40001),
      build({ ip = { src = CLIENT, dst = "198.51.100.3" }, udp = { sport = 40000, dport = 53 } }),
      build({ ip = { src = CLIENT, dst = SERVER, protocol = 47 }, payload = "x" }),
      build({ ip = { src = CLIENT, dst = SERVER }, icmp = { type = 8, id = 7, seq = 1 } }),
      build({ ip = { src = CLIENT, dst = SERVER }, icmp = { type = 8, id = 8, seq = 1 } }),
    }) do
      local flow = flows:get(pkt)
      assert.is_nil(seen[flow])
      seen[flow] = true
    end
    assert.are.equal(9, #flows)
  end)

  it("tells the direction between equal addresses by the ports", function()
    local flows = nfqueue.flows()
    local function same(sport, dport)
      return build({ ip = { src = CLIENT, dst = CLIENT }, udp = { sport = sport, dport = dport } })
    end
    for _, ports in ipairs({ { 1, 2 }, { 4, 3 } }) do
      local flow, reply = flows:get(same(ports[1], ports[2]))
      assert.is_false(reply)
      local again
      again, reply = flows:get(same(ports[2], ports[1]))
      assert.are.same({ true, true }, { rawequal(flow, again), reply })
    end
  end)

  it("goes by the ends the packet arrived with", function()
    local flows = nfqueue.flows()
    local pkt = udp()
    pkt.ip.dst, pkt.udp.dport = "203.0.113.1", 5353
    local flow = flows:get(pkt)
    assert.is_true(rawequal(flow, (flows:get(udp(true)))))
    assert.are.equal(1, #flows)
  end)

  it("finds the flow that an ICMP error speaks of, and makes none for it", function()
    for _, six in ipairs({ false, true }) do
      local flows = nfqueue.flows()
      local kind = six and { type = 1, code = 4 } or { type = 3, code = 3 }
      local function refusal(of, to, from)
        return build({ ip = { src = from, dst = to },
          icmp = { type = kind.type, code = kind.code, embedded = of } })
      end
      local client, server = six and CLIENT6 or CLIENT, six and SERVER6 or SERVER
      local unknown = refusal(udp(false, six), client, server)
      assert.is_nil(flows:get(unknown))
      assert.are.equal(0, #flows)
      local flow = flows:get(udp(false, six))
      local found, reply = flows:get(refusal(udp(false, six), client, six and "2001:db8::9" or "203.0.113.9"))
      assert.are.same({ true, true }, { rawequal(flow, found), reply })
      found, reply = flows:get(refusal(udp(true, six), server, client))
      assert.are.same({ true, false }, { rawequal(flow, found), reply })
    end
  end)

  it("gives nil for what belongs to none", function()
    local flows = nfqueue.flows()
    local pieces = nfqueue.build({ ip = { src = CLIENT, dst = SERVER, id = 7 }, udp = { sport = 1, dport = 2 },
      payload = ("x"):rep(100), mtu = 68 })
    for _, bytes in ipairs({ "", ("\xff"):rep(40), pieces[2] }) do
      assert.are.same({ n = 1 }, table.pack(flows:get(nfqueue.packet(bytes))))
    end
    assert.is_table((flows:get(nfqueue.packet(pieces[1]))))
    assert.are.equal(1, #flows)
  end)

  it("refuses what is no packet, and a wrong self", function()
    local flows = nfqueue.flows()
    for _, foreign in ipairs(unit.foreigners()) do
      assert.matches("^bad argument 'pkt' to 'get' %(packet expected, got ",
        unit.message(flows.get, flows, foreign.value))
      assert.matches("^bad argument 'self' to 'get' %(flows expected, got ",
        unit.message(flows.get, foreign.value, udp()))
    end
    assert.are.equal("flows has no field 'got'", unit.message(function() return flows.got end))
    assert.are.equal("flows (0)", tostring(flows))
  end)
end)

describe("nfqueue.flows", function()
  it("refuses wrong options, naming them", function()
    for message, options in pairs({
      ["bad argument 'max' to 'flows' (integer from 1 to 16777216 expected, got 0)"] = { max = 0 },
      ["bad argument 'max' to 'flows' (integer from 1 to 16777216 expected, got '9')"] = { max = "9" },
      ["bad argument 'timeout' to 'flows' (seconds, more than 0 and at most 1e9, expected, got 0)"] = { timeout = 0 },
      ["bad argument 'finish' to 'flows' (function expected, got 'f')"] = { finish = "f" },
      ["unknown key 'time' to 'flows' (known: max, timeout, finish)"] = { time = 1 },
      ["unknown key '1' to 'flows' (known: max, timeout, finish)"] = { 1 },
    }) do
      assert.are.equal(message, unit.message(nfqueue.flows, options))
    end
    assert.are.equal("bad argument 'options' to 'flows' (table expected, got 7)", unit.message(nfqueue.flows, 7))
  end)

  it("lets the longest silent go for want of room, closed ones first, and calls finish", function()
    local finished = {}
    local flows = nfqueue.flows({ max = 3, finish = function(flow) finished[#finished + 1] = flow.name end })
    for i, name in ipairs({ "a", "b", "c" }) do
      flows:get(tcp("S", false, i)).name = name
    end
    flows:get(tcp("A", false, 1)) -- now b is the longest silent
    flows:get(tcp("S", false, 4)).name = "d"
    assert.are.same({ "b" }, finished)
    flows:get(tcp("R", true, 4)) -- closed: it goes before c
    flows:get(tcp("S", false, 5)).name = "e"
    flows:get(tcp("S", false, 6)).name = "f"
    assert.are.same({ "b", "d", "c" }, finished)
    assert.are.equal(3, #flows)
  end)

  it("ends a closed connection when another of the same ends begins", function()
    local finished = {}
    local flows = nfqueue.flows({ finish = function(flow) finished[#finished + 1] = flow.name end })
    flows:get(tcp("S")).name = "first"
    assert.are.equal("first", flows:get(tcp("S")).name) -- repeated
    flows:get(tcp("FA"))
    assert.are.equal("first", flows:get(tcp("S")).name) -- one side is not the end
    flows:get(tcp("FA", true))
    assert.are.equal("first", flows:get(tcp("A")).name)
    local flow, reply = flows:get(tcp("S", true)) -- the other way round this time
    assert.are.same({ false, { "first" } }, { reply, finished })
    assert.is_nil(flow.name)
    flow.name = "second"
    flows:get(tcp("R"))
    assert.is_nil(flows:get(tcp("S")).name)
    assert.are.same({ "first", "second" }, finished)
  end)

  it("goes on when finish raises, and may be used in it", function()
    local flows
    local inner
    flows = nfqueue.flows({ max = 1, finish = function(flow)
      inner = inner or flows:get(udp(false, false, flow.port + 100))
      error("in finish")
    end })
    flows:get(udp(false, false, 1)).port = 1
    local flow = flows:get(udp(false, false, 2))
    assert.is_table(flow)
    assert.is_table(inner)
    assert.are.equal(1, #flows)
  end)

  it("may be used by a finalizer that runs while get makes a table", function()
    local flows
    local met, ended = {}, {}
    flows = nfqueue.flows({ max = 1, finish = function(flow) ended[flow] = (ended[flow] or 0) + 1 end })
    local other, packets = udp(false, false, 9), {}
    for port = 10, 12 do
      packets[port] = udp(false, false, port)
    end
    local watch = true
    local function plant() -- it gets a flow at every collection, for which the one that is met must go
      setmetatable({}, { __gc = function()
        if watch then
          met[flows:get(other)] = true
          plant()
        end
      end })
    end
    plant()
    collectgarbage("incremental", 1, 1000, 1) -- a step at nearly every allocation, and each a whole cycle
    for i = 1, 200 do
      local flow = flows:get(packets[10 + i % 3])
      flow.port = flow.port or 10 + i % 3
      assert.are.equal(10 + i % 3, flow.port)
      met[flow] = true
    end
    watch = false
    collectgarbage("incremental", 200, 100, 13)
    flows:get(udp(false, false, 1)) -- the last of them goes, too
    for flow in pairs(met) do
      assert.are.equal(1, ended[flow])
    end
    for _, times in pairs(ended) do
      assert.are.equal(1, times)
    end
    assert.are.equal(1, #flows)
  end)

  it("goes with its timer when nobody has it any more", function()
    local function pending()
      local count = 0
      for _, anchored in pairs(debug.getregistry()) do
        for _, value in pairs(type(anchored) == "table" and anchored or {}) do
          count = count + (type(value) == "userdata" and tostring(value) == "timer (pending)" and 1 or 0)
        end
      end
      return count
    end
    collectgarbage()
    local before = pending()
    for _ = 1, 100 do
      nfqueue.flows({ max = 1 })
    end
    assert.is_true(pending() > before)
    collectgarbage()
    assert.are.equal(before, pending())
  end)

  it("has flows that a finalizer may still ask when the table is gone", function()
    local verdict, message = "none", nil
    do
      local flow
      setmetatable({}, { __gc = function()
        verdict = flow.verdict
        message = unit.message(function() flow.verdict = "drop" end)
      end })
      flow = nfqueue.flows():get(udp())
      flow.verdict = "accept"
    end
    collectgarbage()
    assert.is_nil(verdict)
    assert.are.equal("the flow is over: its verdict cannot be set", message)
  end)

  it("keeps no packet and no table alive that is over", function()
    local flows = nfqueue.flows({ max = 1 })
    local gone = setmetatable({}, { __mode = "k" })
    for i = 1, 50 do
      gone[flows:get(udp(false, false, i))] = true
    end
    collectgarbage()
    local left = 0
    for _ in pairs(gone) do
      left = left + 1
    end
    assert.are.equal(1, left)
  end)
end)

describe("flow.verdict", function()
  it("is kept beside what the handler keeps, and taken back with nil", function()
    local flows = nfqueue.flows()
    local flow = flows:get(udp())
    assert.is_nil(flow.verdict)
    for _, verdict in ipairs({ "accept", "drop" }) do
      flow.verdict = verdict
      assert.are.equal(verdict, flow.verdict)
      assert.are.equal(verdict, flows:get(udp(true)).verdict)
    end
    flow.verdict = nil
    assert.is_nil(flow.verdict)
    flow.other = 7
    assert.are.same({ other = 7 }, flow)
  end)

  it("refuses what is no verdict, and one for a flow that is over", function()
    local flows = nfqueue.flows({ max = 1 })
    local flow = flows:get(udp())
    for got, value in pairs({ ["'reject'"] = "reject", ["7"] = 7, ["true"] = true }) do
      assert.are.equal("bad argument 'verdict' to 'flow' ('accept', 'drop' or nil expected, got " .. got .. ")",
        unit.message(function() flow.verdict = value end))
    end
    flow.verdict = "drop"
    flows:get(udp(false, false, 2))
    assert.is_nil(flow.verdict)
    assert.are.equal("the flow is over: its verdict cannot be set",
      unit.message(function() flow.verdict = "accept" end))
  end)
end)

describe("in a loaded handler", function()
  after_each(unit.cleanup)

  -- A script that names flows by their first port, and tells which ended when.
  local SCRIPT = [[
    local nfqueue = require("nfqueue")
    local flows = nfqueue.flows({ timeout = 60, finish = function(flow)
      ended[#ended + 1] = ("%d at %g"):format(flow.name, nfqueue.now() - began)
    end })
    began = nfqueue.now()
    return function(pkt)
      local flow = flows:get(pkt)
      flow.name = flow.name or (pkt.tcp or pkt.udp).sport
      calls = (calls or 0) + 1
      flow.verdict = verdict
    end
  ]]

  local function load()
    _G.ended, _G.calls, _G.verdict = {}, 0, nil
    return assert(nfqueue.load(unit.file(SCRIPT)))
  end

  teardown(function()
    _G.ended, _G.calls, _G.verdict, _G.began = nil, nil, nil, nil
  end)

  it("a flow ends when it has been silent for its time, and a closed one earlier", function()
    local handler = load()
    handler(udp(false, false, 1))
    handler(tcp("S", false, 2))
    handler:advance(30)
    handler(udp(true, false, 1))
    handler(tcp("R", true, 2))
    handler:advance(12)
    assert.are.same({ "2 at 41" }, _G.ended)
    handler:advance(60)
    assert.are.same({ "2 at 41", "1 at 91" }, _G.ended)
  end)

  it("all end with the script", function()
    local handler = load()
    handler(udp(false, false, 1))
    handler(udp(false, false, 2))
    handler:advance(5)
    handler:close()
    table.sort(_G.ended)
    assert.are.same({ "1 at 5", "2 at 5" }, _G.ended)
  end)

  it("are nobody's when it is collected, wherever the next one is", function()
    local first = assert(nfqueue.load(unit.file([[
      kept = require("nfqueue").flows()
      return function(pkt) kept:get(pkt).verdict = "drop" end
    ]])))
    first(udp())
    assert.are.equal("drop", (first(udp())))
    first = setmetatable({ first }, { __mode = "v" })
    collectgarbage()
    collectgarbage()
    assert.is_nil(first[1])
    local path, handlers = unit.file("return function() end"), {}
    for i = 1, 200 do -- one of them lies where the first one lay
      handlers[i] = assert(nfqueue.load(path))
      assert.are.equal("accept", (handlers[i](udp())))
    end
    _G.kept = nil
  end)

  it("they end, too, when finish begins others, which do not", function()
    _G.ended = {}
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      local late
      local flows
      flows = nfqueue.flows({ finish = function(flow)
        ended[#ended + 1] = flow.name
        nfqueue.flows() -- one more table meanwhile
        flows:get(late).name = "late"
      end })
      return function(pkt)
        late = late or pkt
        flows:get(pkt).name = pkt.udp.sport
      end
    ]])))
    for port = 1, 3 do
      handler(udp(false, false, port))
    end
    handler:close()
    table.sort(_G.ended)
    assert.are.same({ 1, 2, 3 }, _G.ended)
  end)

  it("none is lost to finish when there is no memory for another", function()
    _G.ended, _G.failed = {}, 0
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      local flows = nfqueue.flows({ max = 1, finish = function(flow) ended[#ended + 1] = flow.port end })
      local ballast, slots, last
      local function fill() -- with what is large
        for size = 16, 8, -1 do
          while pcall(string.rep, "x", 1 << size) do
            ballast[#ballast + 1] = ("x"):rep(1 << size)
          end
        end
      end
      local function fill_up() -- with tables like that of a flow
        while true do
          slots[last + 1] = {}
          last = last + 1
        end
      end
      return function(pkt)
        if pkt.mark == 0 then
          flows:get(pkt).port = pkt.udp.sport
          return
        end
        ballast, slots, last = {}, {}, 0
        for i = 1, 100 do
          slots[i] = false
        end
        pcall(fill)
        for _ = 1, 3 do
          pcall(fill_up)
        end
        local done = pcall(flows.get, flows, pkt)
        ballast, slots = nil, nil
        failed = failed + (done and 0 or 1)
      end]]), nil, { memory_limit = 1 << 20 }))
    for port = 1, 20 do
      local pkt = udp(false, false, port)
      pkt.mark = port % 2
      local _, problem = handler(pkt)
      assert.is_nil(problem)
    end
    assert.are.same({ 10, { 2, 4, 6, 8, 10, 12, 14, 16, 18 } }, { _G.failed, _G.ended })
    _G.failed = nil
  end)

  it("a time-out may be shorter than a clock's tick", function()
    _G.ended = {}
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      local flows = nfqueue.flows({ timeout = 1e-10, finish = function() ended[#ended + 1] = nfqueue.now() end })
      return function(pkt) flows:get(pkt) end
    ]])))
    handler(udp())
    handler:advance(1)
    assert.are.same({ 0.01 }, _G.ended)
  end)

  it("a verdict holds for the rest of the flow, and for no other handler's packets", function()
    local first = load()
    _G.verdict = "drop"
    assert.are.equal("accept", first(udp()))
    local second = assert(nfqueue.load(unit.file(SCRIPT)))
    for i = 1, 3 do
      local pkt = udp(i % 2 == 0)
      assert.are.equal("drop", (first(pkt)))
      assert.are.same({ "drop", nil }, { pkt.verdict, pkt.sent })
    end
    assert.are.equal(1, _G.calls)
    _G.verdict = nil
    assert.are.equal("accept", second(udp()))
    assert.are.equal(2, _G.calls)
    first:advance(100) -- it is over, and another begins
    assert.are.equal("accept", first(udp()))
    assert.are.equal(3, _G.calls)
  end)
end)
