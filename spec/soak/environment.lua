-- The machine changes while packets wait, a hundred times in each way.

local environment = require("support.environment")
local net = require("support.net")
local traffic = require("support.traffic")

return function(soak)
  if net.no_queue_list() then
    soak.skip(net.no_queue_list())
  end
  local rounds = soak.count(100, 2)
  for _, event in ipairs(environment.EVENTS) do
    local counts = environment.check(event, rounds, soak.equal)
    soak.figure(event.name, rounds, ("rounds; %d packets, %d taken back by the kernel, %d verdicts refused")
      :format(counts.sent, counts.flushed, counts.refused))
    traffic.cleanup()
  end
  for _ = 1, rounds do
    environment.orphan(soak.equal)
    traffic.cleanup()
  end
  soak.figure("its namespace is left to it alone", rounds, "rounds")
end
