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
