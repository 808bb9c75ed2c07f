-- The machine changes while packets wait. spec/soak/environment.lua does it a hundred times.

local environment = require("support.environment")
local net = require("support.net")
local traffic = require("support.traffic")

if net.no_queue_list() then
  return pending("what becomes of waiting packets: " .. net.no_queue_list())
end

describe("the loop goes on", function()
  before_each(net.cleanup)
  after_each(traffic.cleanup)

  for _, event in ipairs(environment.EVENTS) do
    it("when " .. event.name .. " while packets wait", function()
      environment.check(event, event.few or 1, assert.equal)
    end)
  end

  it("when nothing but it is left in its namespace", function()
    environment.orphan(assert.equal)
  end)
end)
