-- Workers killed under load, of everything: SIGKILL, SIGSEGV and SIGABRT from outside, and the kernel's want of memory
-- in the handler. Every packet is numbered, and its handler stamps the number into its mark or drops it: so of each
-- packet that comes, or does not, it is known whether its handler's verdict was carried out, or on_error.

local death = require("support.death")

return function(soak)
  local kills, packets = soak.count(100, 8), soak.count(100000, 4000)
  local cases = {
    { on_error = "accept", queues = 1, threads = 1 },
    { on_error = "drop", queues = 1, threads = 1 },
    { on_error = "accept", queues = 3, threads = 1 },
    { on_error = "drop", queues = 3, threads = 2 },
  }
  for _, case in ipairs(cases) do
    local name = ("on_error %s, %d queues, %d threads: "):format(case.on_error, case.queues, case.threads)
    soak.say("%s%d kills, %d packets", name, kills, packets)
    local result = death.run({
      on_error = case.on_error, queues = case.queues, threads = case.threads, kills = kills,
      steps = { { packets // 10, 1000 }, { packets * 3 // 10, 5000 }, { packets * 6 // 10, 20000 } },
    })
    soak.figure(name .. "packets", result.sent)
    soak.figure(name .. "workers lost", result.deaths, result.by)
    soak.figure(name .. "in a handler then", result.culprits, "got on_error")
    soak.figure(name .. "unread then", result.lost, "got on_error")
    soak.figure(name .. "gap, median", result.gaps[#result.gaps // 2 + 1], "ms without a packet after a kill")
    soak.figure(name .. "gap, p99", result.gaps[math.ceil(#result.gaps * 0.99)],
      "ms (promised: 50; on two busy cores 100)")
    soak.figure(name .. "gap, most", result.gaps[#result.gaps], "ms")
    death.check(result)
  end
  local rounds = soak.count(40, 4)
  soak.say("%d deaths while idle", rounds)
  local times = death.measure_idle(rounds)
  soak.figure("idle: median", times[#times // 2 + 1], "ms from a packet that its worker dies with to its arrival")
  soak.figure("idle: most", times[#times], "ms (promised: 100)")
end
