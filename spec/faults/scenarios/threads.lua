-- Threads with states of their own, in the host's process.

local core = require("nfqueue.core")
local judge = dofile("spec/faults/judge.lua")

return {
  prepare = function()
    judge.prepare(7)
    judge.prepare(8)
    judge.stop(8)
  end,
  run = function()
    local done, message = core.run({ script = "spec/faults/script.lua", queues = { 7, 8 }, threads = 2,
      args = { "key", "value" }, config = { on_error = "drop" } })
    if not done then
      error(message, 0)
    end
  end,
}
