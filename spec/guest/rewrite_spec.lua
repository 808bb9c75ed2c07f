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

local IPV4, IPV6 = table.unpack(traffic.FAMILIES)

describe("a page, accepted on lines made bad by netem,", function()
  after_each(page.clean)

  for family, large in pairs({ [IPV4] = true, [IPV6] = false }) do
    it(("is what was sent: %s, gso %s"):format(family.name, large and "on" or "off"), function()
      local got, text = page.fetch(net.file(ACCEPT), {
        family = family, large = large, before = BAD[large], behind = BAD[large],
      })
      assert.is_true(got[1].body == text, ("%d bytes came, not as they were sent"):format(#got[1].body))
    end)
  end
end)

local LONGER = { needle = "a-large-darning-needle" }
local SHORTER = { needle = "pin" }

describe("a page is rewritten on lines made bad by netem:", function()
  after_each(page.clean)

  for _, case in ipairs({
    { family = IPV4, large = true, before = true, behind = true, replace = LONGER, mss = 1000, wait = false },
    { family = IPV6, large = true, behind = true, replace = SHORTER },
    { family = IPV4, large = false, before = true, replace = SHORTER },
    { family = IPV6, large = false, before = true, behind = true, replace = LONGER, mss = 1000, wait = false },
  }) do
    for _, side in ipairs({ "before", "behind" }) do
      case[side] = case[side] and BAD[case.large]
    end
    case.words = 4
    it(page.title(case), function()
      page.check(case)
    end)
  end
end)
