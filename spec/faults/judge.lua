-- A handler that does everything, told what by the payload of the packet; for the scenarios.

local core = require("nfqueue.core")

local judge = {}

local function udp(payload, sport)
  return core.build({ ip = { src = "127.0.0.1", dst = "127.0.0.1" }, udp = { sport = sport or 1000, dport = 53 },
    payload = payload })
end

local function tcp(flags, payload, sport)
  return core.build({ ip = { src = "127.0.0.1", dst = "127.0.0.1" }, tcp = { sport = sport or 1000, dport = 80, seq = 1,
    ack_seq = 1, flags = flags }, payload = payload })
end

local ACTIONS = {
  accept = function(pkt) pkt:accept() end,
  drop = function(pkt) pkt:drop() end,
  nothing = function() end,
  named = function() return "accept" end,
  mark = function(pkt) pkt:accept({ mark = 5, mask = 0xff, priority = 3 }) end,
  again = function(pkt) pkt:again({ mark = 1 }) end,
  requeue = function(pkt) pkt:requeue(9) end,
  edit = function(pkt)
    pkt.udp.dport = 54
    pkt.ip.ttl = 9
    pkt:accept()
  end,
  longer = function(pkt)
    pkt.payload = ("longer "):rep(20)
    pkt:accept()
  end,
  modify = function(pkt) pkt:modify(udp("something else")) end,
  read = function(pkt)
    local all = { pkt.id, pkt.ip.src, pkt.ip.dst, pkt.udp.sport, pkt.payload, pkt.tuple, tostring(pkt), pkt:bytes(),
      pkt.iif, pkt:u16(0), pkt:find("read"), pkt:unpack("I2", 20), #pkt, pkt.length, pkt.udp.checksum }
    pkt:accept({ mark = #all })
  end,
  build = function(pkt)
    pkt:modify(core.build({ reply = pkt, payload = "answer" }))
  end,
  hold = function(pkt, state)
    pkt:hold(1000, "drop")
    state.held[#state.held + 1] = pkt
  end,
  settle = function(pkt, state)
    local old = table.remove(state.held)
    if old then
      old.payload = "settled, and longer than before"
      old:accept()
    end
    pkt:accept()
  end,
  expire = function(pkt) pkt:hold(0, "drop") end,
  delay = function(pkt) pkt:delay(0) end,
  later = function(pkt)
    pkt.ip.ttl = 3
    pkt:delay(0.001)
  end,
  timer = function(pkt)
    core.after(0, function() end)
    local timer = core.every(0.001, function(timer) timer:cancel() end)
    if not timer then
      pkt:drop()
    end
    pkt:accept()
  end,
  flow = function(pkt, state)
    local flow = state.flows:get(pkt)
    flow.count = (flow.count or 0) + 1
    pkt:accept()
  end,
  decided = function(pkt, state)
    state.flows:get(pkt).verdict = "accept"
    pkt:accept()
  end,
  store = function(pkt, state)
    state.store:incr("count", 1)
    state.store:set(pkt.payload, pkt.ip.src, 10)
    state.bucket:take(pkt.ip.src)
    pkt:accept({ mark = #state.store:keys() > 0 and 1 or 0 })
  end,
  sets = function(pkt, state)
    if state.addresses:find(pkt.ip.src) and state.names:has("www.example.org") and state.filter(pkt) then
      pkt:accept()
    end
  end,
  garbage = function(pkt)
    local list = {}
    for i = 1, 50 do
      list[i] = { pkt.payload .. i }
    end
    assert(#list == 50)
    pkt:accept()
  end,
  error = function() error("told to") end,
  wrong = function(pkt) pkt.payload = 5 end,
  twice = function(pkt)
    pkt:accept()
    pkt:drop()
  end,
  coroutine = function(pkt)
    local thread = coroutine.wrap(function() pkt:accept() end)
    thread()
  end,
}

local NAMES = {}
for name in pairs(ACTIONS) do
  NAMES[#NAMES + 1] = name
end
table.sort(NAMES)
NAMES[#NAMES + 1] = "settle"

--- What the handler works with; made in the scenario's run.
function judge.handler()
  local state = {
    held = {},
    flows = core.flows({ max = 16, finish = function(flow) return flow.count end }),
    rewrite = core.rewrite({ max = 16 }),
    store = core.shared("faults", { max_bytes = 65536 }),
    bucket = core.bucket("faults", { rate = 1000, burst = 1000, max = 16 }),
    addresses = core.cidrset({ "127.0.0.0/8", "2001:db8::/32" }),
    names = core.domainset({ "example.org", "example.net" }),
    filter = core.filter and core.has_pcap and core.filter("udp") or function() return true end,
  }
  return {
    config = { on_error = "drop" },
    packet = function(pkt, queue)
      local name = pkt.payload
      if name == "stop" then
        pkt:accept()
        return core.stop()
      elseif pkt.tcp then
        state.rewrite(pkt, #name > 0 and name .. "!" or nil)
        return pkt:accept()
      end
      assert(queue:stats().packets >= 0)
      return ACTIONS[name](pkt, state)
    end,
    open = function(queue) assert(queue.number) end,
    close = function(queue) assert(queue.config) end,
  }
end

--- Packets of every kind for a queue.
function judge.prepare(queue)
  -- Each of a connection of its own.
  for i, name in ipairs(NAMES) do
    kernel.send(queue, udp(name, 1000 + i))
  end
  -- The rewriter is the same for all threads.
  kernel.send(queue, tcp("S", "", queue))
  kernel.send(queue, tcp("A", "request", queue))
end

--- All the packets, for those without a queue.
-- @treturn {string,...} their bytes
function judge.packets()
  local list = {}
  for i, name in ipairs(NAMES) do
    list[#list + 1] = udp(name, 1000 + i)
  end
  list[#list + 1] = tcp("S", "")
  list[#list + 1] = tcp("A", "request")
  return list
end

--- What stops the loop, when nothing is left to do.
function judge.stop(queue)
  kernel.stop(queue, udp("stop"))
end

return judge
