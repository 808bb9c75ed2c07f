-- The whole service killed and restarted under load, in turn by two versions of the command, behind a service
-- manager that keeps its descriptors (spec/support/manager.c): no packet is lost, and at most one a thread and kill has
-- on_error.

local death = require("support.death")

return function(soak)
  local ends, packets = soak.count(60, 6), soak.count(120000, 6000)
  for _, case in ipairs({ { queues = 1, threads = 1 }, { queues = 3, threads = 2 } }) do
    local name = ("%d queues, %d threads: "):format(case.queues, case.threads)
    soak.say("%s%d ends, %d packets", name, ends, packets)
    local result = death.run_managed({
      queues = case.queues, threads = case.threads, ends = ends, steps = { { packets, 3000 } },
    })
    soak.figure(name .. "packets", result.sent)
    soak.figure(name .. "ends", result.ends, "killed, and asked to restart, in turn")
    soak.figure(name .. "missing", result.missing)
    soak.figure(name .. "on_error", result.other)
    soak.equal(0, result.missing, "packets missing")
    soak.equal(0, result.twice, "packets that came twice")
    soak.check(result.other <= result.ends * case.threads, "%d packets had on_error in %d ends", result.other,
      result.ends)
    soak.check(result.kernel_dropped == 0, "the kernel dropped %d packets", result.kernel_dropped)
  end
end
