-- Whatever a script may do to loaded handlers and what they keep, at random, from handlers, timers, finishes and
-- finalizers, with little memory. It ends with status 0 when every packet of a closed handler has a verdict.
--   lua5.4 spec/support/torture.lua SEED ROUNDS

local nfqueue = require("nfqueue")

math.randomseed(tonumber(arg[1]))
local random = math.random

local SCRIPT = os.tmpname()
local file = assert(io.open(SCRIPT, "w"))
file:write([[
local nfqueue = require("nfqueue")
local flows
flows = nfqueue.flows({ max = math.random(4), timeout = math.random(2) == 1 and 3 * math.random() + 0.1 or 1e-10,
  finish = function(flow) hook(flows, flow) end })
local bucket = nfqueue.bucket("torture", { rate = 1, burst = 3 })
local store = nfqueue.shared("torture", { max_bytes = 4096 })
return {
  config = { default = math.random(2) == 1 and "drop" or "accept", on_error = "accept", memory_limit = 8 << 20 },
  open = function() hook(flows) end,
  close = function() hook(flows) end,
  packet = function(pkt)
    bucket:take("key")
    store:set("key" .. math.random(100), ("v"):rep(math.random(300)))
    return hook(flows, nil, pkt)
  end,
}]])
file:close()

local function bytes()
  local kind = random(5)
  local ip = { src = "192.0.2." .. random(3), dst = "198.51.100." .. random(3) }
  if kind == 1 then
    local flags = ({ "S", "FA", "R" })[random(3)]
    return nfqueue.build({ ip = ip, tcp = { sport = random(3), dport = random(3), flags = flags } })
  elseif kind == 2 then
    return nfqueue.build({ ip = ip, icmp = { type = 8, id = random(3), seq = 1 } })
  elseif kind == 3 then
    return ("\xff"):rep(random(0, 30))
  end
  return nfqueue.build({ ip = ip, udp = { sport = random(3), dport = random(3) }, payload = ("x"):rep(random(0, 20)) })
end

local handlers, packets, timers, tables, judged = {}, {}, {}, {}, {}
local depth = 0
local act

local function any(list)
  return list[random(math.max(#list, 1))]
end

local VERBS = {
  function(pkt) pkt:accept() end,
  function(pkt) pkt:drop() end,
  function(pkt) pkt:reject() end,
  function(pkt) pkt:hold(random(2) == 1 and 3 * random() or nil, random(2) == 1 and "drop" or nil) end,
  function(pkt) pkt:delay(3 * random()) end,
  function(pkt) pkt:modify(bytes(), { mark = random(9) }) end,
}

local ACTS = {
  function() handlers[#handlers + 1] = nfqueue.load(SCRIPT) end,
  function() table.remove(handlers, random(#handlers)) end,
  function() any(handlers):close() end,
  function() any(handlers):advance(random() * 2) end,
  function()
    local handler, pkt = any(handlers), nfqueue.packet(bytes())
    packets[#packets + 1] = pkt
    if handler(pkt) then
      judged[#judged + 1] = { handler, pkt }
    end
  end,
  function() any(VERBS)(any(packets)) end,
  function() any(packets).payload = ("y"):rep(random(0, 40)) end,
  function() timers[#timers + 1] = nfqueue.after(random() * 2, act) end,
  function() timers[#timers + 1] = nfqueue.every(random() + 0.2, act) end,
  function() any(timers):cancel() end,
  function() any(tables):get(any(packets)).verdict = any({ "accept", "drop" }) end,
  function() setmetatable({}, { __gc = function() act() end }) end,
  function() collectgarbage(random(2) == 1 and "step" or "collect") end,
  function()
    for _, list in ipairs({ packets, timers, tables, handlers }) do
      while #list > 20 do
        table.remove(list, random(#list))
      end
    end
  end,
}

function act()
  depth = depth + 1
  if depth < 8 then
    pcall(any(ACTS))
  end
  depth = depth - 1
end

function _G.hook(flows, _, pkt)
  tables[#tables + 1], packets[#packets + 1] = flows, pkt
  for _ = 1, random(0, 3) do
    act()
  end
  if pkt and random(3) > 1 then
    pcall(any(VERBS), pkt)
  end
  if random(20) == 1 then
    error("asked to fail")
  end
end

for _ = 1, tonumber(arg[2]) do
  act()
end
for _, handler in ipairs(handlers) do
  pcall(handler.close, handler)
end
os.remove(SCRIPT)
for _, pair in ipairs(judged) do
  assert(pair[2].verdict or tostring(pair[1]) == "handler", "a packet of a closed handler has no verdict")
end
os.exit(true, true)
