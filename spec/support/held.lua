-- What the specs of held packets share: a handler that holds, the packets it held, and failures inside handlers.

local traffic = require("support.traffic")

local held = {}

held.DEAD = "packet is no longer valid"
held.DECIDED = "packet already has a verdict"

--- What held.holder has held since held.start, in order.
held.kept = {}

local failure

--- For before_each.
function held.start()
  held.kept, failure = {}, nil
end

--- For after_each: what traffic.cleanup does, and a failure inside held.checked is raised.
function held.finish()
  traffic.cleanup()
  if failure then
    error(failure, 0)
  end
end

--- A handler that holds what it gets, with these arguments, and keeps it.
function held.holder(...)
  local arguments = table.pack(...)
  return function(pkt)
    pkt:hold(table.unpack(arguments, 1, arguments.n))
    held.kept[#held.kept + 1] = pkt
  end
end

--- A pair of sockets whose datagrams pass queue 3 (or another) on output.
function held.through_queue(family, number)
  local udp = traffic.udp(family)
  traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(udp.port, number or 3), family)
  return udp
end

--- Numbers from 1 to `count`, each in a datagram, through queue 3, whose handler keeps them, and from there through
-- queue 4. Both are on input, where what waits does not count against its sender's socket. Returns both queues, and a
-- list of the numbers as they come to the second.
function held.numbered(count, handler)
  local udp = traffic.udp()
  traffic.rule(("-t mangle -A INPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
  traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 4"):format(udp.port))
  local numbers = {}
  local queue = traffic.open(3, handler)
  local arrivals = traffic.open(4, function(pkt)
    numbers[#numbers + 1] = math.tointeger(tonumber(pkt.payload))
    pkt:drop()
  end, { max_packets = count })
  for i = 1, count do
    udp:send(tostring(i))
    if i % 64 == 0 then
      queue:process()
    end
  end
  traffic.judge_packets(queue, count)
  return queue, arrivals, numbers
end

--- A handler or a timer's function whose failure is raised at the end of the test.
function held.checked(fn)
  return function(...)
    local done, message = xpcall(fn, debug.traceback, ...)
    failure = failure or (not done and message)
  end
end

--- The message with which it raises, without the position in front.
function held.refusal(fn, ...)
  local done, message = pcall(fn, ...)
  if done then
    error("it did not raise", 2)
  end
  return (tostring(message):gsub("^[%w%p]+:%d+: ", ""))
end

return held
