-- Mutated packets live through a queue: each has one verdict.

local mutants = require("support.mutants")
local net = require("support.net")

describe("mutated packets", function()
  after_each(net.cleanup)

  it("have one verdict each, and no error but documented ones", function()
    if mutants.unable() then
      return pending(mutants.unable())
    end
    mutants.check(4000, function(expected, actual, what)
      assert.are.equal(expected, actual, what)
    end, 2)
  end)
end)
