-- Scripts loaded anew under load: no packet is lost, and each is judged by one whole script. `make soak` does more.

local net = require("support.net")
local reloads = require("support.reloads")

if net.no_queue_list() then
  return pending("reloads under load: " .. net.no_queue_list())
end

before_each(net.cleanup)
after_each(net.cleanup)

describe("scripts loaded anew under load", function()
  for _, case in ipairs({ { queues = 1, threads = 1 }, { queues = 4, threads = 2 } }) do
    it(("judge every packet, each by a whole one: %d queues, %d threads"):format(case.queues, case.threads), function()
      -- So slow that all is not over when the first is loaded.
      local rate = os.getenv("NFQUEUE_GUEST") and 1000 or 10000
      case.packets, case.rate, case.reloads = 12000, rate, 6
      reloads.check(reloads.run(case))
    end)
  end
end)
