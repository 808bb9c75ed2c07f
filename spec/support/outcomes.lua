-- Packets through every outcome there is, chosen at random, and what became of them by four accounts that must agree:
-- the program that sends and receives them (numbered.c), rules before and behind the queue, the kernel's figures of its
-- queues, and our counters.

local net = require("support.net")

local outcomes = {}

local PORT, QUEUE, OTHER = 9700, 5, 6
local MARK, AGAIN, SELF = 7, 8, 9

--- Lua that a script begins with: `tell(queue)` is the line of its counters that outcomes.read_stats reads.
outcomes.TELL = [[
  local function tell(queue)
    local words = {}
    for name, value in pairs(queue:stats()) do
      words[#words + 1] = name .. "=" .. tostring(value)
    end
    return "stats of " .. queue.number .. " " .. table.concat(words, " ") .. "\n"
  end
]]

-- `fate` is as numbered.c has it; `counts` names the counters of queue QUEUE that it adds 1 to, `other` those of queue
-- OTHER. Where `fate` is "policy" the packet is what on_error says.
-- `rare` divides how often it comes. In `body`, `edit` changes the packet so that its receiver can tell.
local KINDS = {
  { name = "accept", fate = "a0", counts = { "accepted" }, body = "pkt:accept()" },
  { name = "accept by name", fate = "a0", counts = { "accepted" }, body = "return 'accept'" },
  { name = "nothing", fate = "a0", counts = { "accepted", "undecided" }, body = "" },
  { name = "nothing after an edit", fate = "e0", counts = { "modified", "undecided" }, body = "edit(pkt)" },
  { name = "drop", fate = "d0", counts = { "dropped" }, body = "edit(pkt) pkt:drop()" },
  { name = "drop by name", fate = "d0", counts = { "dropped" }, body = "return 'drop'" },
  { name = "edit", fate = "e0", counts = { "modified" }, body = "edit(pkt) pkt:accept()" },
  { name = "edit and revise", fate = "e0", counts = { "modified" },
    body = "edit(pkt) pkt.ip.ttl = 9 pkt.udp.sport = pkt.udp.sport pkt:accept({ priority = 1 })" },
  { name = "longer payload", fate = "l0", counts = { "modified" },
    body = "edit(pkt) pkt.payload = pkt.payload .. 'y' pkt:accept()" },
  { name = "modify", fate = "e0", counts = { "modified" },
    body = "local b = pkt:bytes() pkt:modify(b:sub(1, STATE) .. 'E' .. b:sub(STATE + 2))" },
  { name = "modify by name", fate = "l0", counts = { "modified" },
    body = "local b = pkt:bytes() return 'modify', b:sub(1, STATE) .. 'E' .. b:sub(STATE + 2) .. 'y'" },
  { name = "mark", fate = "a0", counts = { "accepted" }, mark = true, body = "pkt:accept({ mark = MARK })" },
  { name = "mark and edit", fate = "e0", counts = { "modified" }, mark = true,
    body = "edit(pkt) pkt.mark = MARK pkt:accept()" },
  { name = "again", fate = "a0", counts = { "again" }, again = true, body = "pkt:again({ mark = AGAIN })" },
  { name = "again and edit", fate = "e0", counts = { "again" }, again = true,
    body = "edit(pkt) pkt:again({ mark = AGAIN })" },
  { name = "requeue", fate = "a0", counts = { "requeued" }, other = { "accepted" }, body = "pkt:requeue(OTHER)" },
  { name = "requeue and edit", fate = "e0", counts = { "requeued" }, other = { "accepted" },
    body = "edit(pkt) pkt:requeue(OTHER)" },
  { name = "requeue, dropped there", fate = "d0", counts = { "requeued" }, other = { "dropped" },
    body = "pkt:requeue(OTHER)", there = "pkt:drop()" },
  { name = "requeue to itself", fate = "a0", counts = { "requeued", "accepted" },
    body = "if pkt.mark == SELF then return pkt:accept() end pkt:requeue(QUEUE, { mark = SELF })" },
  { name = "error", fate = "policy", counts = { "errors", "policy" }, body = "error('planned')" },
  { name = "error after an edit", fate = "policy", counts = { "errors", "policy" },
    body = "edit(pkt) error({ 'planned' })" },
  { name = "error of a wrong argument", fate = "policy", counts = { "errors", "policy" },
    body = "pkt:modify(('x'):rep(70000))" },
  { name = "error of a wrong return", fate = "policy", counts = { "errors", "policy" }, body = "return 'acept'" },
  { name = "error for want of memory", fate = "policy", rare = 10, counts = { "errors", "policy" },
    body = "return ('x'):rep(1 << 28)" },
  { name = "overrun of its time", fate = "policy", rare = 3000, counts = { "errors", "timeouts", "policy" },
    body = "edit(pkt) while true do end" },
  { name = "overrun after a verdict", fate = "e0", rare = 3000,
    counts = { "errors", "timeouts", "modified" },
    body = "edit(pkt) pkt:accept() repeat until pcall(function() while true do end end) and false" },
  { name = "two verdicts", fate = "a0", counts = { "errors", "accepted" }, body = "pkt:accept() pkt:drop()" },
  { name = "two verdicts, one by name", fate = "d0", counts = { "errors", "dropped" },
    body = "pkt:drop() return 'accept'" },
  { name = "held and settled", fate = "a0", counts = { "accepted" },
    body = "pkt:hold(20, 'drop') held[#held + 1] = pkt" },
  { name = "held, edited and settled", fate = "e0", counts = { "modified" },
    body = "pkt:hold(20, 'drop') edits[#edits + 1] = pkt" },
  { name = "held and dropped", fate = "d0", counts = { "dropped" },
    body = "pkt:hold(20, 'accept') drops[#drops + 1] = pkt" },
  { name = "held too long", fate = "d0", counts = { "dropped", "expired" }, body = "pkt:hold(0.02, 'drop')" },
  { name = "edited and held too long", fate = "e0", counts = { "modified", "expired" },
    body = "edit(pkt) pkt:hold(0.02, 'accept')" },
  { name = "held before an error", fate = "a0", counts = { "accepted", "expired", "errors" },
    body = "pkt:hold(0.02, 'accept') error('planned')" },
  { name = "delay", fate = "a0", counts = { "delayed" }, body = "pkt:delay(0.01)" },
  { name = "edit and delay", fate = "e0", counts = { "delayed" }, body = "edit(pkt) pkt:delay(0.005)" },
  { name = "reject", fate = "d0", counts = { "rejected" }, body = "edit(pkt) pkt:reject()" },
  { name = "flow accepted", fate = "a1", counts = { "accepted" },
    body = "flows:get(pkt).verdict = 'accept' pkt:accept()" },
  { name = "flow dropped", fate = "d2", counts = { "dropped" },
    body = "flows:get(pkt).verdict = 'drop' return 'drop'" },
  -- The filter keeps it from the handler.
  { name = "filtered", fate = "a3", counts = { "accepted" }, filtered = true, body = "os.exit(1)" },
}
outcomes.KINDS = KINDS

local HEADER = ([[
  local nfqueue = require("nfqueue")
  local STATE, KIND, QUEUE, OTHER, MARK, AGAIN, SELF = 37, 36, %d, %d, %d, %d, %d
  local flows = nfqueue.flows({ max = 1000 })
  local held, edits, drops, kinds, there = {}, {}, {}, {}, {}
  local function edit(pkt)
    pkt:u8(STATE, ("E"):byte())
  end
  -- Out of order, from a timer.
  nfqueue.every(0.005, function()
    for _ = 1, #held do
      table.remove(held):accept()
    end
    for _ = 1, #drops do
      table.remove(drops, 1 + #drops // 2):drop()
    end
    for _ = 1, #edits do
      local pkt = table.remove(edits)
      edit(pkt)
      pkt:accept()
    end
  end)
]]):format(QUEUE, OTHER, MARK, AGAIN, SELF)

local FOOTER = [[
  return {
    packet = function(pkt, queue)
      return (queue.number == OTHER and there or kinds)[pkt:u8(KIND)](pkt)
    end,
    close = function(queue)
      io.stderr:write(tell(queue))
    end,
    config = { filter = "not (%s)" },
  }
]]

local function script(kinds)
  local filtered = {}
  local parts = { outcomes.TELL, HEADER }
  for i, kind in ipairs(kinds) do
    parts[#parts + 1] = ("kinds[%d] = function(pkt) %s end there[%d] = function(pkt) %s end")
      :format(i - 1, kind.body, i - 1, kind.there or "pkt:accept()")
    if kind.filtered then
      filtered[#filtered + 1] = ("udp[16] = %d"):format(i - 1)
    end
  end
  parts[#parts + 1] = FOOTER:format(table.concat(filtered, " or "))
  return table.concat(parts, "\n")
end

--- The counters of a queue that a script wrote to its log with outcomes.TELL: a table.
function outcomes.read_stats(log, number)
  local line = log:match("stats of " .. number .. " ([^\n]*)")
  if not line then
    error("the script told no counters:\n" .. log)
  end
  local stats = {}
  for name, value in line:gmatch("(%S+)=(%S+)") do
    stats[name] = math.tointeger(tonumber(value)) or value
  end
  return stats
end

--- Read what numbered.c prints: a table of its figures, and `kinds`, a list of { sent=, received= }.
function outcomes.read(text)
  local figures = { kinds = {} }
  for name, value in (text:match("sent %d[^\n]*") or error("numbered told nothing: " .. text)):gmatch("(%a+) (%S+)") do
    figures[name] = tonumber(value)
  end
  for sent, received in text:gmatch("kind %d+ sent (%d+) received (%d+)") do
    table.insert(figures.kinds, { sent = tonumber(sent), received = tonumber(received) })
  end
  return figures
end

local function verdicts(stats)
  return stats.accepted + stats.dropped + stats.modified + stats.again + stats.requeued + stats.rejected
    + stats.delayed
end

--- Send `count` packets through the outcomes and hold the accounts against each other; `equal(expected, actual, what)`
-- is called for each. options: `on_error`, `arguments` (more of `nfqueue run`), `window`, `seed`, `seconds` (how long
-- it may take). Returns the program's figures, the seconds it took among them, and the counters of both queues.
function outcomes.check(count, equal, options)
  local on_error = options.on_error or "drop"
  local fates = {}
  for i, kind in ipairs(KINDS) do
    fates[i] = (kind.fate == "policy" and (on_error == "accept" and "a0" or "d0") or kind.fate)
      .. "*" .. 10000 // (kind.rare or 1)
  end
  -- "Before" lies in a table of its own, so that what traverses the other again is not seen twice.
  net.must(([[iptables -w -t mangle -A OUTPUT -p udp --dport %d -m comment --comment before
    iptables -w -A OUTPUT -p udp --dport %d -m mark --mark %d -m comment --comment again -j ACCEPT
    iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d
    iptables -w -t mangle -A INPUT -p udp --dport %d -m mark --mark %d -m comment --comment marked
    iptables -w -t mangle -A INPUT -p udp --dport %d -m comment --comment behind]])
    :format(PORT, PORT, AGAIN, PORT, QUEUE, PORT, MARK, PORT))
  local run = net.run(("%s -q %d-%d --on-error %s --time-limit 0.3 --memory-limit %d %s"):format(
    net.file(script(KINDS)), QUEUE, OTHER, on_error, 64 << 20, options.arguments or ""))
  local client = net.start(("%s/support/numbered %d %d %d 0 %s %d"):format(net.build, PORT, count,
    options.window or 1000, table.concat(fates, ","), options.seed or 1))
  local status = client:join(options.seconds or 120)
  local sent = outcomes.read(client:output())
  equal(0, status, "status of the program that sends, which tells " .. client:output():match("^[^\n]*"))
  net.wait_for("empty queues", function()
    return net.queue(QUEUE).waiting == 0 and net.queue(OTHER).waiting == 0
  end)
  local kernel = { net.queue(QUEUE), net.queue(OTHER) }
  local rules = {}
  for name, chain in pairs({ before = "OUTPUT -t mangle", again = "OUTPUT", marked = "INPUT -t mangle",
    behind = "INPUT -t mangle" }) do
    rules[name] = net.rule_packets(chain, name)
  end
  run:signal("TERM")
  equal(0, run:join(), "status of nfqueue run")
  local log = run:output()
  local stats = { outcomes.read_stats(log, QUEUE), outcomes.read_stats(log, OTHER) }

  local expected, wanted = { {}, {} }, { arrive = 0, again = 0, marked = 0 }
  for i, kind in ipairs(KINDS) do
    local number = sent.kinds[i].sent
    for where, list in ipairs({ kind.counts, kind.other or {} }) do
      for _, name in ipairs(list) do
        name = name == "policy" and (on_error == "accept" and "accepted" or "dropped") or name
        expected[where][name] = (expected[where][name] or 0) + number
      end
    end
    local arrives = fates[i]:sub(1, 1) ~= "d"
    equal(arrives and number or 0, sent.kinds[i].received, "received of kind " .. kind.name)
    wanted.arrive = wanted.arrive + (arrives and number or 0)
    wanted.again = wanted.again + (kind.again and number or 0)
    wanted.marked = wanted.marked + (kind.mark and number or 0)
  end

  equal(count, sent.sent, "sent")
  for _, name in ipairs({ "refused", "missing", "double", "wrong", "stray" }) do
    equal(0, sent[name], name)
  end
  equal(wanted.arrive, sent.received, "received")
  equal(count, rules.before, "packets before the queue")
  equal(wanted.arrive, rules.behind, "packets behind the queue")
  equal(wanted.again, rules.again, "packets that traversed the chain again")
  equal(wanted.marked, rules.marked, "packets behind the queue with the mark")
  for where, queue in ipairs(kernel) do
    local own = stats[where]
    local label = " of queue " .. (where == 1 and QUEUE or OTHER)
    equal(0, queue.queue_dropped, "queue_dropped" .. label)
    -- Every id was received, was dropped by the kernel, which leaves a gap, and none of them twice.
    equal(queue.id_sequence, own.packets + queue.user_dropped, "ids" .. label)
    equal(queue.user_dropped, own.lost, "gaps" .. label)
    equal(0, queue.user_dropped, "user_dropped" .. label)
    equal(own.packets, verdicts(own), "verdicts" .. label)
    equal(0, own.refused, "verdicts for packets that have one" .. label)
    for _, name in ipairs({ "accepted", "dropped", "modified", "again", "requeued", "rejected", "delayed", "expired",
      "errors", "timeouts", "undecided" }) do
      equal(expected[where][name] or 0, own[name], name .. label)
    end
  end
  return sent, stats
end

return outcomes
