-- Edits of sizes around every boundary. spec/soak/edits.lua goes through them all.

local net = require("support.net")
local sweep = require("support.sweep")
local traffic = require("support.traffic")

describe("an edit", function()
  local hosts

  setup(function()
    net.cleanup()
    hosts = sweep.new()
  end)
  after_each(traffic.cleanup)
  teardown(function()
    hosts:remove()
  end)

  for _, combination in ipairs(sweep.combinations(true)) do
    it("arrives right or is an error: " .. sweep.describe(combination), function()
      local counts = hosts:run(combination, sweep.sizes(), assert.equal)
      assert.is_true(counts.delivered > 50 and counts.raised > 50)
      assert.equal((combination.df or combination.family.name == "IPv6" and combination.hook == "FORWARD")
        and combination.hook ~= "INPUT", counts.refused > 0)
      traffic.cleanup()
      hosts:transfer(combination, 70000, assert.equal)
    end)
  end
end)
