-- Exactly one verdict for every packet, whatever the script does with it. spec/soak/verdicts.lua is the long form.

local net = require("support.net")
local outcomes = require("support.outcomes")

if net.no_queue_list() then
  return pending("every packet's outcome: " .. net.no_queue_list())
end

local COUNT = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 10000 or 100000

describe("every packet has exactly one verdict", function()
  before_each(net.cleanup)
  after_each(net.cleanup)

  -- With these seeds each of the rarest outcomes comes once, one of the two among the first 10,000.
  for _, case in ipairs({
    { name = "a thread a queue, on_error drop", on_error = "drop", arguments = "--threads 2", seed = 36 },
    { name = "both queues in a thread, on_error accept", on_error = "accept", arguments = "--threads 1", seed = 49 },
  }) do
    it(("of %d through %d outcomes, %s"):format(COUNT, #outcomes.KINDS, case.name), function()
      local _, stats = outcomes.check(COUNT, assert.equal, case)
      assert.is_true(stats[1].timeouts >= 1)
    end)
  end
end)
