-- Resident memory of `nfqueue run` while 100,000,000 packets go through everything a handler can do with them.

local net = require("support.net")

local PACKETS = 100000000
local PORT, QUEUE = 9340, 5
local BURST = 20000 -- packets that are sent at a time; what finds the queue full is not counted

local HANDLER = [[
  local nfqueue = require("nfqueue")
  local flows = nfqueue.flows({ max = 10000, finish = function(flow) flow.over = true end })
  local store = nfqueue.shared("soak", { max_bytes = 1 << 20 })
  local bucket = nfqueue.bucket("soak", { rate = 1000, burst = 10, max = 1000 })
  local count, held = 0, {}
  local ACTIONS = {
    [0] = function(pkt) pkt.payload = pkt.payload .. count pkt:accept() end,
    function(pkt) pkt:hold(0.01) end,
    function(pkt)
      pkt:hold(10)
      held[#held + 1] = pkt
      if #held == 100 then
        for i = 100, 1, -1 do
          held[i]:accept()
          held[i] = nil
        end
      end
    end,
    function(pkt) pkt:delay(0.002) end,
    function(pkt) pkt.udp.sport = 1000 pkt:delay(0.001) end,
    function(pkt) nfqueue.after(0.001, function() count = count + 1 end) pkt:accept() end,
    function(pkt) pkt:modify(nfqueue.build({ reply = pkt, payload = tostring(pkt) })) end,
    function(pkt) store:set(pkt.tuple .. count % 50000, pkt.payload, 5) store:incr("n", 1) pkt:accept() end,
    function(pkt) return bucket:take(tostring(count % 5000)) and "accept" or "drop" end,
    function(pkt) flows:get(pkt).last = pkt:bytes() pkt:accept() end,
    function(pkt) coroutine.wrap(function() pkt:accept({ mark = count & 0xff }) end)() end,
    function() end,
  }
  return function(pkt)
    count = count + 1
    if count % 100000 == 0 then
      error("now and then")
    end
    return ACTIONS[count % 12](pkt)
  end
]]

local function resident(pid)
  return tonumber(net.read(("/proc/%d/status"):format(pid)):match("VmRSS:%s*(%d+)")) / 1024
end

return function(soak)
  if net.no_queue_list() then
    soak.skip(net.no_queue_list())
  end
  local tenth = soak.count(PACKETS / 10, 10000)
  net.must(("iptables -w -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE))
  local run = net.run(("%s -q %d --max-packets 60000"):format(net.file(HANDLER), QUEUE))
  local worker, figures = run:worker(), {}
  -- Ids are 32 bits.
  local judged, last = 0, 0
  for i = 1, 10 do
    while judged < i * tenth do
      net.sh(("%s/bench/flood %d 100 %d 5000"):format(net.build, BURST, PORT))
      local now = assert(net.queue(QUEUE), "the queue is gone").id_sequence
      judged, last = judged + (now - last) % (1 << 32), now
    end
    figures[i] = resident(worker)
    soak.figure(("resident after %d packets"):format(judged), ("%.1f"):format(figures[i]), "MiB")
    soak.say("%d packets: %.1f MiB", judged, figures[i])
  end
  soak.equal(worker, run:worker(), "the worker")
  soak.figure("the supervisor's", ("%.1f"):format(resident(run.pid)), "MiB")
  -- The first tenth is for tables to fill.
  for i = 3, 10 do
    soak.check(figures[i] < figures[2] * 1.1 + 2, "resident memory grew from %.1f to %.1f MiB", figures[2], figures[i])
  end
end
