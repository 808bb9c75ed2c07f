-- Scripts loaded anew under load: 100 reloads in 60 seconds at 10,000 packets a second, and as many bad ones tried as a
-- tenth of that. Each packet has the version that judged it in its mark, twice.

local reloads = require("support.reloads")

return function(soak)
  local count = soak.count(100, 5)
  for _, case in ipairs({ { queues = 1, threads = 1 }, { queues = 4, threads = 2 } }) do
    local name = ("%d queues, %d threads: "):format(case.queues, case.threads)
    case.packets, case.rate, case.reloads = count * 6000, 10000, count
    soak.say("%s%d reloads, %d packets", name, count, case.packets)
    local result = reloads.run(case)
    reloads.check(result)
    soak.figure(name .. "packets", case.packets, "each by one whole script")
    soak.figure(name .. "of them held, delayed", ("%d, %d"):format(result.held, result.delayed))
    soak.figure(name .. "reloads", case.reloads)
    soak.figure(name .. "bad scripts refused", result.failures)
    soak.figure(name .. "lost", 0)
    soak.figure(name .. "a reload, median", result.times[#result.times // 2 + 1], "ms, the command's start included")
    soak.figure(name .. "a reload, most", result.times[#result.times], "ms")
    local tenth, last = result.sizes[math.max(1, count // 10)], result.sizes[count]
    soak.figure(name .. "worker resident", last, ("KB at the end, %+d since the tenth part"):format(last - tenth))
    soak.check(last - tenth < 16384, "the worker grew by %d KB over %d reloads", last - tenth, count)
    soak.figure(name .. "longest gap between packets", result.gap, "ms")
  end
end
