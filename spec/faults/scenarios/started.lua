-- Two queues of one state, looping in C until they are stopped.

local core = require("nfqueue.core")
local judge = dofile("spec/faults/judge.lua")

return {
  prepare = function()
    judge.prepare(7)
    judge.prepare(8)
    judge.stop(8)
  end,
  run = function()
    local handler = judge.handler()
    local done, message = core.start(core.new(7, handler), core.new(8, handler, { max_packets = 100 }))
    if not done then
      error(message, 0)
    end
  end,
  check = function(fine)
    if not fine then
      return
    end
    local queue = core.new(9, function() end)
    assert(queue:open())
    assert(queue:process())
    queue:close()
  end,
}
