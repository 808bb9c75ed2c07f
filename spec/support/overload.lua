-- More packets than a handler can judge, and where they went: what was not judged is what the kernel says it dropped,
-- or, with fail_open, what it let pass.

local net = require("support.net")
local outcomes = require("support.outcomes")

local overload = {}

local PORT, QUEUE = 9800, 5
-- Of the rate that can be sustained, which a machine that is slow tells less exactly.
local FACTOR = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 10 or 3

-- Each packet costs its handler a while. The one that says "tell" has the counters told.
local SCRIPT = outcomes.TELL .. [[
  local BUSY = %d
  return function(pkt, queue)
    if pkt.payload == "tell" then
      io.stderr:write(tell(queue))
    end
    local sum = 0
    for i = 1, BUSY do
      sum = sum + i
    end
    pkt:accept()
  end
]]
local BUSY = 4000

--- What there is: where the queue can overrun, and what becomes of the packets then.
overload.CASES = {
  { name = "the queue is full", arguments = "--max-packets 1000", drops = "queue_dropped" },
  { name = "the receive buffer is full", arguments = "--buffer-size 100000", drops = "user_dropped" },
  { name = "both are small", arguments = "--max-packets 100 --buffer-size 100000", drops = "queue_dropped" },
  { name = "the queue is full, fail_open", arguments = "--max-packets 1000 --fail-open" },
  { name = "the receive buffer is full, fail_open", arguments = "--buffer-size 100000 --fail-open" },
}

local function numbered(arguments)
  return net.start(("%s/support/numbered %d %s 1 64"):format(net.build, PORT, arguments))
end

--- Offer `count` packets at three times the rate a case can sustain, and hold the accounts against each other with
-- `equal(expected, actual, what)`. Returns a table of figures.
function overload.check(case, count, equal)
  -- On the way in, so that the sender is not told; each rule in a table of its own.
  net.must(([[iptables -w -t raw -A PREROUTING -p udp --dport %d -m comment --comment before
    iptables -w -t mangle -A PREROUTING -p udp --dport %d -j NFQUEUE --queue-num %d
    iptables -w -A INPUT -p udp --dport %d -m comment --comment behind]]):format(PORT, PORT, QUEUE, PORT))
  local run = net.run(("%s -q %d %s"):format(net.file(SCRIPT:format(BUSY)), QUEUE, case.arguments))
  local function rule(name)
    return net.rule_packets(name == "before" and "PREROUTING -t raw" or "INPUT", name)
  end
  -- The rate it sustains: a handful is on its way, so that nothing is lost.
  local client = numbered(("%d 50 0 a0"):format(count // 8))
  equal(0, client:join(120), "status of the program that measures")
  local slow = outcomes.read(client:output())
  equal(0, slow.missing, "missing below the sustainable rate")
  local sustained = slow.sent / slow.seconds
  local first, first_behind = rule("before"), rule("behind")

  client = numbered(("%d 0 %d u0"):format(count, math.floor(FACTOR * sustained)))
  net.wait_for("the packets to be sent", function()
    return client:output():find("all sent")
  end, 60 + count // 1000)
  net.wait_for("an empty queue", function()
    return net.queue(QUEUE).waiting == 0
  end)
  -- The loop goes on, and the packet behind the last gap shows it.
  local sender = require("socket").udp()
  sender:sendto("tell", "127.0.0.1", PORT)
  sender:close()
  equal(0, client:join(), "status of the program that sends")
  local sent = outcomes.read(client:output())
  equal(count, sent.sent, "sent")
  equal(0, sent.double, "double")
  equal(0, sent.wrong + sent.stray, "wrong")
  equal(sent.received, rule("behind") - first_behind - 1, "behind the queue and received")
  local own = outcomes.read_stats(run:output(), QUEUE)
  local kernel = net.queue(QUEUE)
  local before = rule("before")
  local offered = before - first - 1
  local unseen = before - own.packets
  equal(kernel.id_sequence, own.packets + own.lost, "ids")
  equal(kernel.queue_dropped, own.kernel_queue_dropped, "kernel_queue_dropped")
  equal(kernel.user_dropped, own.kernel_user_dropped, "kernel_user_dropped")
  if case.drops then
    equal(kernel.user_dropped, own.lost, "gaps")
    equal(unseen, own.lost + own.kernel_queue_dropped, "own count of what was lost")
    equal(unseen, kernel.user_dropped + kernel.queue_dropped, "the kernel's count of what was lost")
    equal(true, kernel[case.drops] > 0, case.drops .. " above 0")
    equal(offered, sent.received + unseen, "received or lost")
  else
    equal(0, kernel.queue_dropped + kernel.user_dropped, "dropped by the kernel")
    equal(true, unseen > 0, "some passed unseen")
    equal(offered, sent.received, "received, of all that came to the queue")
  end
  if own.enobufs > 0 then
    equal(true, run:output():find("raise buffer_size", 1, true) ~= nil, "a warning that names the setting")
  end
  equal(own.packets, own.accepted + 1, "verdicts") -- the counters were told before the last verdict
  equal(0, own.refused + own.errors, "refused and errors")
  run:signal("TERM")
  equal(0, run:join(), "status of nfqueue run")
  return { sustained = sustained, offered = sent.sent / sent.sending, judged = own.packets - slow.sent - 1,
    unseen = unseen, sent = sent.sent }
end

return overload
