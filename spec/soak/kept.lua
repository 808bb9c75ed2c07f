-- Resident memory of a worker whose packets are held and settled, held until their time is over, delayed, rejected and
-- answered by packets of its own, whose flows come and go, and that starts and cancels timers all the while: for ten
-- minutes, through a real queue.

local net = require("support.net")
local socket = require("socket")

local PORT = 4400
local QUEUE = 5
local MOST_GROWTH = 2048 -- kilobytes from the most of the first fifth to the most of all: garbage comes in waves
local MEAN_GROWTH = 512 -- from the mean of the second fifth to that of the last

-- What becomes of a packet follows from its port: PORT and up, in this order.
local KINDS = { "held", "expired", "delayed", "flows", "rejected", "sent" }
local ROUND = 0.2 -- seconds: with a steady pace as many packets wait at any time
local EACH = { held = 100, expired = 50, delayed = 100, flows = 600, rejected = 40, sent = 40 } -- packets of a round

local SCRIPT = ([[
  local nfqueue = require("nfqueue")
  local PORT, PARTS = %d, 512
  local counts = { timers = 0, fired = 0, settled = 0, finished = 0, answers = 0 }
  local random, held, timers = math.random, {}, {}
  local long = ("y"):rep(900)
  local flows = nfqueue.flows({ max = 1000, timeout = 2, finish = function(flow)
    counts.finished = counts.finished + flow.one
  end })

  -- In another order than they came, by every verb there is for it.
  local function settle(most)
    while #held > most do
      local pkt = table.remove(held, random(#held))
      local how = random(6)
      counts.settled = counts.settled + 1
      if how == 1 then
        pkt:drop()
      elseif how == 2 then
        pkt.payload = long
        pkt:accept()
      elseif how == 3 then
        pkt:modify(pkt:bytes())
      elseif how == 4 then
        pkt:delay(random() / 4)
      elseif how == 5 then
        pkt:reject()
      else
        pkt:accept()
      end
    end
  end

  local function use_timers()
    local place = random(PARTS)
    counts.timers = counts.timers + 1
    if timers[place] then
      timers[place]:cancel()
    end
    timers[place] = nfqueue.after(random() / 2, function()
      counts.fired = counts.fired + 1
    end)
  end

  local sweep
  local function begin_sweep()
    if sweep then
      sweep:cancel()
    end
    sweep = nfqueue.every(0.02, function() settle(random(0, 200)) end)
    nfqueue.after(1, begin_sweep)
  end

  local ways = {
    [PORT] = function(pkt)
      pkt:hold()
      held[#held + 1] = pkt
      settle(400) -- from the handler of another
    end,
    [PORT + 1] = function(pkt)
      if random(2) == 1 then
        pkt.payload = long
      end
      pkt:hold(random() / 4, random(2) == 1 and "accept" or "drop")
    end,
    [PORT + 2] = function(pkt)
      if random(2) == 1 then
        pkt.payload = long
      end
      pkt:delay(random() / 2)
    end,
    [PORT + 3] = function(pkt)
      local flow, reply = flows:get(pkt)
      flow.one, flow[reply] = 1, (flow[reply] or 0) + 1
      if random(3) == 1 then
        flow.verdict = random(2) == 1 and "accept" or "drop"
      end
      pkt:accept()
    end,
    [PORT + 4] = function(pkt)
      pkt:reject()
    end,
    [PORT + 5] = function(pkt)
      assert(nfqueue.send(pkt:bytes()))
      assert(nfqueue.send(nfqueue.build({ reply = pkt, payload = long })))
      counts.answers = counts.answers + 2
      pkt:drop()
    end,
  }
  return {
    open = begin_sweep,
    packet = function(pkt)
      local header = pkt.udp or pkt.tcp
      use_timers()
      return (ways[header.dport] or ways[header.sport])(pkt)
    end,
    close = function(queue)
      local line = {}
      for _, list in ipairs({ counts, (queue:stats()) }) do
        for name, value in pairs(list) do
          line[#line + 1] = name .. "=" .. tostring(value)
        end
      end
      io.stderr:write("counts ", table.concat(line, " "), "\n")
    end,
  }
]]):format(PORT)

local function resident(pid)
  return 4 * tonumber(net.read(("/proc/%d/statm"):format(pid)):match("^%d+ (%d+)"))
end

local function descriptors(pid)
  return tonumber((net.must(("ls /proc/%d/fd | wc -l"):format(pid))))
end

--- Some packets of each kind, over UDP, and some connections that are refused.
local function send_round(round)
  for i, kind in ipairs(KINDS) do
    -- More flows than there is room for, and times in which they end for their age.
    local flows = kind == "flows" and (round % 60 < 30 and 300 or 1) or 20
    if kind == "flows" and round % 2 == 0 and flows > 1 then
      flows = 1500
    end
    net.must(("%s/bench/flood %d 64 %d %d"):format(net.build, math.max(EACH[kind], flows), PORT + i - 1, flows))
  end
  for _, port in ipairs({ PORT + 3, PORT + 4 }) do
    for _ = 1, 5 do
      local client = socket.tcp()
      client:settimeout(0)
      client:connect("127.0.0.1", port)
      client:close()
    end
  end
end

local function mean(samples, from, to)
  local sum = 0
  for i = from, to do
    sum = sum + samples[i]
  end
  return sum / (to - from + 1)
end

local function prepare()
  for port = PORT, PORT + #KINDS - 1 do
    local rule = "iptables -w -A OUTPUT -p %s --%s %d -m mark ! --mark 0x6e71 -j NFQUEUE --queue-num %d"
    net.must(rule:format("udp", "dport", port, QUEUE))
    net.must(rule:format("tcp", "dport", port, QUEUE))
    net.must(rule:format("tcp", "sport", port, QUEUE))
  end
  -- Nobody listens: this is where they end.
  net.must(("iptables -w -A INPUT -p udp --dport %d:%d -j DROP"):format(PORT, PORT + #KINDS - 1))
end

return function(soak)
  if net.no_queue_list() then
    soak.skip(net.no_queue_list())
  end
  local seconds = soak.count(600, 10)
  prepare()
  local run = net.run(("%s -q %d --max-packets 65536"):format(net.file(SCRIPT), QUEUE))
  local pid = run:worker()
  local samples, shown, round = {}, socket.gettime(), 0
  local opened = descriptors(pid)
  local deadline, next_round, waited = shown + seconds, shown, 0
  while socket.gettime() < deadline do
    send_round(round)
    round = round + 1
    samples[round] = resident(pid)
    waited = math.max(waited, net.queue(QUEUE).waiting)
    if socket.gettime() >= shown + 10 then
      shown = socket.gettime()
      soak.say("%4.0f s left: %d KB resident", deadline - shown, samples[round])
    end
    -- Rounds that came late are not made up for: more would wait than before.
    next_round = math.max(next_round + ROUND, socket.gettime())
    socket.sleep(next_round - socket.gettime())
  end
  soak.equal(pid, run:worker(), "the worker")
  soak.equal(opened, descriptors(pid), "open descriptors")
  net.wait_for("the queue to be empty", function() return net.queue(QUEUE).waiting == 0 end, 60)
  run:signal("TERM")
  soak.equal(0, run:join(30), "exit status")
  local line = run:output():match("counts ([^\n]*)")
  soak.check(line and run:count("error:") == 0, "it failed: %s", run:output())
  local counts = {}
  for name, value in line:gmatch("(%w+)=(%-?[%d.]+)") do
    counts[name] = math.tointeger(tonumber(value)) or tonumber(value)
  end
  soak.figure("rounds", round, ("in %d s"):format(seconds))
  soak.figure("waiting, most", waited, "packets")
  for _, name in ipairs({ "packets", "settled", "expired", "delayed", "rejected", "injected", "finished", "timers",
    "fired", "undecided", "errors", "refused", "lost" }) do
    soak.figure(name, counts[name] or 0)
  end
  for _, name in ipairs({ "settled", "expired", "delayed", "rejected", "injected", "finished", "timers", "fired" }) do
    soak.check(counts[name] >= seconds, "only %d %s", counts[name], name)
  end
  soak.equal(0, counts.errors, "errors of the handler")
  local fifth = #samples // 5
  local first, most = math.max(table.unpack(samples, 1, fifth)), math.max(table.unpack(samples))
  local early, late = mean(samples, fifth + 1, 2 * fifth), mean(samples, #samples - fifth + 1, #samples)
  soak.figure("resident, most of the first fifth", first, "KB")
  soak.figure("resident, most of all", most, "KB")
  soak.figure("resident, mean of the second fifth", early // 1 | 0, "KB")
  soak.figure("resident, mean of the last fifth", late // 1 | 0, "KB")
  soak.check(most - first < MOST_GROWTH and late - early < MEAN_GROWTH, "it has grown")
end
