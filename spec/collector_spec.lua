-- Packets, queues and handlers while the collector runs at every step: nothing that is still needed goes away.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local UDP = datagram.right(datagram.ip4(datagram.udp("question")))
local EDITED = datagram.right(datagram.ip4(datagram.udp("answered")))
local AT = UDP:find("question", 1, true) - 1

-- Each leaves the collector busy in its own way while fn runs.
local STRESS = {
  ["a full collection at every instruction"] = function(fn)
    debug.sethook(function() collectgarbage() end, "", 1)
    local fine, problem = pcall(fn)
    debug.sethook()
    return fine, problem
  end,
  ["an incremental cycle that never pauses"] = function(fn)
    collectgarbage("incremental", 100, 1000, 1) -- a step a few bytes, each a whole cycle's work
    collectgarbage("setpause", 0)
    local fine, problem = pcall(fn)
    collectgarbage("incremental", 200, 100, 13)
    return fine, problem
  end,
  ["generations at every allocation"] = function(fn)
    collectgarbage("generational", 1, 1)
    local fine, problem = pcall(fn)
    collectgarbage("incremental", 200, 100, 13)
    return fine, problem
  end,
}

-- Strings made at run time. Those longer than 40 bytes are one of a kind, so only the packet keeps them.
local function fresh(text)
  return text:sub(1, 1) .. text:sub(2)
end

local function long(number)
  return ("number %d "):format(number):rep(50)
end

local OPERATIONS = {
  ["makes, reads and judges packets"] = function()
    for i = 1, 5 do
      local pkt = nfqueue.packet(fresh(UDP), {
        id = i, l2header = fresh("header"), secctx = fresh("label"), iifname = fresh("eth7"),
        hwaddr = fresh("00:11:22:33:44:55"), hook = fresh("forward"), timestamp = 1.5, mark = i,
      })
      assert(pkt.l2header == "header" and pkt.secctx == "label" and pkt.iifname == "eth7")
      assert(pkt.hwaddr == "00:11:22:33:44:55" and pkt.hook == "forward" and pkt.timestamp == 1.5)
      assert(pkt:bytes() == UDP and pkt:find(fresh("question")) == AT and #pkt == #UDP)
      assert(select("#", pkt:unpack(fresh(">BBI2I2"))) == 5)
      pkt:patch(AT, fresh("answered"))
      pkt:accept({ mark = 1, mask = 0xff, priority = 2 })
      assert(pkt.sent == EDITED and pkt.verdict == "accept" and tostring(pkt):find("UDP"))
    end
  end,
  ["keeps packets, each with what it was given and what it sent"] = function()
    local kept = {}
    for i = 1, 5 do
      kept[i] = nfqueue.packet(long(i), { secctx = long(i + 10), l2header = long(i + 20) })
      kept[i]:modify(long(i + 30), { mark = i, fixup = false })
    end
    for i, pkt in ipairs(kept) do
      assert(pkt.sent == long(i + 30) and pkt:bytes() == long(i + 30) and pkt.mark == i)
      assert(pkt.secctx == long(i + 10) and pkt.l2header == long(i + 20))
    end
  end,
  ["holds, delays and times"] = function()
    local handler = assert(nfqueue.load(unit.file([[
      local nfqueue = require("nfqueue")
      return function(pkt)
        if pkt.mark == 1 then
          return pkt:delay(1)
        end
        pkt:hold(2)
        local udp = pkt.udp
        nfqueue.after(pkt.mark / 8, function()
          udp.dport = 5353
          pkt:accept()
        end)
        nfqueue.every(0.25, function(timer) return timer:cancel() end)
      end]])))
    local packets = {}
    for i = 1, 5 do
      packets[i] = nfqueue.packet(fresh(UDP), { mark = i, secctx = fresh("label") })
      assert(handler(packets[i]) == (i == 1 and "delay" or "hold"))
    end
    handler(nfqueue.packet(fresh(UDP))) -- of which nobody knows
    assert(handler:advance(3) == nil)
    for i, pkt in ipairs(packets) do
      assert(pkt.secctx == "label" and #pkt.sent == #UDP and (i == 1 or pkt.udp.dport == 5353))
    end
    handler(nfqueue.packet(fresh(UDP))) -- still held when the handler goes
    nfqueue.after(1, print):cancel()
  end,
  ["keeps methods without their packet"] = function()
    local accept, bytes = nfqueue.packet("").accept, nfqueue.packet("").bytes
    local pkt = nfqueue.packet(fresh(UDP))
    accept(pkt)
    assert(bytes(pkt) == UDP and pkt.verdict == "accept")
  end,
  ["raises every kind of error"] = function()
    local pkt = nfqueue.packet(fresh(UDP))
    assert(unit.message(function() return pkt[fresh("tpc")] end) == "packet has no field 'tpc' (did you mean 'tcp'?)")
    assert(unit.message(pkt.modify, pkt, "") == "cannot edit this packet: the new content is empty")
    assert(unit.message(pkt.accept, pkt, { [fresh("color")] = 1 }):find("unknown option 'color'", 1, true))
    assert(unit.message(pkt.u8, pkt, 1 << 40):find("bad argument 'offset' to 'u8'", 1, true))
    assert(unit.message(nfqueue.packet, UDP, { secctx = fresh("x"), id = -1 }):find("bad argument 'id'", 1, true))
    assert(unit.message(nfqueue.new, 1, { packet = print, config = { [fresh("gsx")] = 1 } })
      :find("unknown config key 'gsx'", 1, true))
    pkt:drop()
    assert(unit.message(pkt.drop, pkt) == "packet already has a verdict")
  end,
  ["makes and forgets queues"] = function()
    local last
    for i = 1, 5 do
      last = nfqueue.new(i, { packet = function() return i end, close = function() end, config = { gso = false } },
        { max_packets = i })
      assert(last.config.max_packets == i and last.config.gso == false and last:stats().packets == 0)
    end
    assert(tostring(last) == "queue 5 (idle)")
  end,
  ["builds packets, their fragments and answers"] = function()
    local ip = { src = fresh("2001:db8::1"), dst = fresh("2001:db8::2"), id = 7, extensions = {
      { hop_by_hop = { [5] = fresh("\0\0"), [30] = long(1):sub(1, 200) } },
      { routing = { type = 0, left = 0, addresses = { fresh("::1"), fresh("::2") } } },
      { destination = long(2) }, { ah = ("x"):rep(14) },
    } }
    local description = { ip = ip, payload = long(3), tcp = { sport = 1, dport = 2, mss = 1400, flags = fresh("PA"),
      options = { timestamps = { 1, 2 }, [fresh("window_scale")] = 7, [30] = fresh("mp") } } }
    local whole = nfqueue.build(description)
    local pkt = nfqueue.packet(whole)
    assert(pkt.payload == long(3) and pkt.tcp.mss == 1400 and pkt.tcp:option(30) == "mp" and pkt.ip.id == 7)
    assert(pkt:find(long(2)) and pkt:find(long(1):sub(1, 200)))
    description.mtu = 1280
    description.payload = long(4):rep(3)
    local joined = ""
    for _, piece in ipairs(nfqueue.build(description)) do
      joined = joined .. nfqueue.packet(piece):bytes()
    end
    assert(#joined > #whole)
    local answer = nfqueue.packet(nfqueue.build({ reply = pkt, tcp = { fin = true }, payload = fresh("bye") }))
    assert(answer.tcp == nil or answer.payload == "bye")
    local problem = unit.message(nfqueue.build, { ip = ip, tcp = { [fresh("dprot")] = 1 } })
    assert(problem == "unknown key 'tcp.dprot' to 'build'")
  end,
  ["keeps values in stores and takes from buckets"] = function()
    local store = nfqueue.shared(fresh("collector"), { [fresh("max_bytes")] = 1 << 20 })
    for i = 1, 5 do
      store:set(fresh("key " .. i), long(i), 1000)
      store:add(fresh("number"), i)
      assert(store:get("key " .. i) == long(i) and store:incr(fresh("number"), 0) == 1)
    end
    assert(#store:keys() == 6 and store:stats().keys == 6)
    assert(unit.message(store.set, store, fresh("key"), {}):find("bad argument 'value' to 'set'", 1, true))
    assert(select(2, store:set("key", ("x"):rep(1 << 20))):find("does not fit", 1, true))
    store:flush()
    local bucket = nfqueue.bucket(fresh("collector"), { [fresh("rate")] = 1000 })
    assert(bucket:take(fresh("key")) and tostring(bucket) == "bucket 'collector'")
  end,
  ["makes, loads and searches sets"] = function()
    local path = unit.file("10.0.0.0/8 " .. fresh("loaded") .. "\n")
    for i = 1, 3 do
      assert(nfqueue.cidrset({ [fresh("name")] = "collector" .. i, fresh("::1") }):find(fresh("::1")) == true)
      local set = nfqueue.cidrset({ [fresh("192.0.2.0/24")] = fresh("value") })
      assert(set:find(fresh("192.0.2.1")) == "value" and set:load(fresh(path)) == 1)
      assert(set:find(fresh("10.1.2.3")) == "loaded")
      assert(select(2, set:load(fresh("/nowhere/list"))):find("cannot read", 1, true))
      local names = nfqueue.domainset({ fresh("example.com"), fresh("*.example.org") })
      assert(names:has(fresh("www.example.com")) and #names == 2)
    end
    assert(unit.message(nfqueue.cidrset, { fresh("10.0.0.1/8") }):find("10.0.0.0/8?", 1, true))
    assert(unit.message(nfqueue.domainset, { "example.com", fresh("a..b") }):find("empty label", 1, true))
  end,
  ["loads and applies handlers"] = function()
    local path = unit.file([[
      local args = ...
      return {
        open = function(queue) args.queue = queue end,
        packet = function(pkt, queue)
          assert(queue == args.queue and queue.config.max_packets == 9)
          if pkt.mark == 1 then pkt:patch(0, "E") error({ "one" .. pkt.mark }) end
          if pkt.mark == 2 then return "modify", args.edited, { mark = 7 } end
          if pkt.mark == 3 then pkt:u8(8, 1) end
        end,
        close = function(queue) assert(queue == args.queue) end,
      }]])
    local handler = assert(nfqueue.load(path, { edited = fresh(EDITED) }, { max_packets = 9 }))
    for mark = 0, 3 do
      local pkt = nfqueue.packet(fresh(UDP), { mark = mark })
      local verdict, problem = handler(pkt)
      assert(verdict == ({ [0] = "accept", "drop", "modify", "accept" })[mark])
      assert((problem ~= nil) == (mark == 1))
      assert(pkt.sent == ({ [0] = UDP, nil, EDITED, pkt.sent })[mark])
    end
    handler:close()
    local nothing, problem = nfqueue.load(unit.file("return " .. fresh("5")))
    assert(nothing == nil and problem:find("no handler", 1, true))
  end,
}

after_each(function()
  debug.sethook()
  unit.cleanup()
end)

for stress, run in pairs(STRESS) do
  describe("with " .. stress, function()
    for name, operation in pairs(OPERATIONS) do
      it(name, function()
        local fine, problem = run(operation)
        assert.is_true(fine, tostring(problem))
      end)
    end
  end)
end

describe("the collector", function()
  it("takes what nobody holds", function()
    local weak = setmetatable({}, { __mode = "k" })
    for _ = 1, 10 do
      weak[nfqueue.packet(UDP, { secctx = "label" })] = true
      weak[nfqueue.new(1, print)] = true
      weak[nfqueue.load(unit.file("return print"))] = true
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(weak))
  end)

  it("finds no more after many packets than before", function()
    local function round()
      for _ = 1, 200 do
        local pkt = nfqueue.packet(UDP, { secctx = "label", l2header = "header" })
        pkt:modify(EDITED)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    round()
    local before = round()
    assert.is_true(round() - before < 64, "200 packets leave more than 64 KB behind")
  end)
end)
