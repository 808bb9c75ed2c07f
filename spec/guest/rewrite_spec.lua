-- As spec/kernel/rewrite_spec.lua, over lines that the kernel's own netem makes bad.

local net = require("support.net")
local page = require("support.page")
local traffic = require("support.traffic")

-- What takes no time overtakes the rest. A large segment is lost as a whole, and there are fewer of them.
local BAD = {
  [true] = { netem = "limit 10000 loss 4% delay 1ms reorder 4%" },
  [false] = { netem = "limit 10000 loss 1% delay 1ms reorder 1%" },
}

local ACCEPT = [[
  return function(pkt)
    pkt:accept()
  end
]]

describe("a page, accepted on lines made bad by netem,", function()
  after_each(page.clean)

  for _, family in ipairs(traffic.FAMILIES) do
    for _, large in ipairs({ true, false }) do
      it(("is what was sent: %s, gso %s"):format(family.name, large and "on" or "off"), function()
        local got, text = page.fetch(net.file(ACCEPT), {
          family = family, large = large, before = BAD[large], behind = BAD[large],
        })
        assert.is_true(got.body == text, ("%d bytes came, not as they were sent"):format(#got.body))
      end)
    end
  end
end)
