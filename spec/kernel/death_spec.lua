-- Workers killed under load, of everything: the short form of spec/soak/death.lua.

local death = require("support.death")
local net = require("support.net")

if net.no_queue_list() then
  return pending("workers killed under load: " .. net.no_queue_list())
end

after_each(net.cleanup)

describe("workers killed while packets go through", function()
  for _, case in ipairs({
    { on_error = "accept", queues = 1, threads = 1 },
    { on_error = "drop", queues = 3, threads = 2 },
  }) do
    it(("lose no verdict: on_error %s, queues %d, threads %d"):format(case.on_error, case.queues,
        case.threads), function()
      case.kills = 8
      case.steps = { { 400, 1000 }, { 1600, 4000 }, { 4000, 20000 } }
      death.check(death.run(case))
    end)
  end
end)
