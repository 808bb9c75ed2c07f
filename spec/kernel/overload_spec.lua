-- Overload is counted exactly. spec/soak/overload.lua is the long form.

local net = require("support.net")
local overload = require("support.overload")

if net.no_queue_list() then
  return pending("what is lost under overload: " .. net.no_queue_list())
end

local COUNT = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 4000 or 16000

describe("at three times the rate a handler can sustain", function()
  before_each(net.cleanup)
  after_each(net.cleanup)

  for _, case in ipairs(overload.CASES) do
    it(case.name .. (case.drops and ": what is lost is counted" or ": every packet arrives"), function()
      overload.check(case, COUNT, assert.equal)
    end)
  end
end)
