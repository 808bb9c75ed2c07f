-- A queue inside another event loop: opened, processed, closed; packets of every outcome.

local core = require("nfqueue.core")
local judge = dofile("spec/faults/judge.lua")

local queue, handled

local function drain()
  for _ = 1, 50 do
    if not queue then
      return
    end
    local count, message = queue:process()
    if not count then
      queue = nil
      error(message, 0)
    end
    if count == 0 and kernel.waiting() == 0 then
      return
    end
  end
end

return {
  prepare = function()
    judge.prepare(7)
  end,
  run = function()
    local opened, message
    handled = core.new(7, judge.handler(), { hold_limit = 0.01 })
    opened, message = handled:open()
    if not opened then
      error(message, 0)
    end
    queue = handled
    drain()
    queue:close()
    queue = nil
  end,
  check = function()
    -- What it left is judged when things go well again.
    if queue then
      drain()
      queue:close()
      queue = nil
    end
  end,
}
