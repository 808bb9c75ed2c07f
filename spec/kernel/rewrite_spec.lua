-- A web page through a router that judges it, over lines that lose and reorder: what curl gets of what nginx sent.

local net = require("support.net")
local page = require("support.page")
local traffic = require("support.traffic")

local missing = page.missing(true)
local it = missing and function(name) pending(name .. " (" .. missing .. ")") end or it

-- A handler that accepts all, and says at its end how many packets and how many large ones it had.
local ACCEPT = [[
  local packets, large = 0, 0
  return {
    packet = function(pkt)
      packets = packets + 1
      if pkt.gso then
        large = large + 1
      end
      pkt:accept()
    end,
    close = function()
      io.stderr:write(("%d packets, %d large\n"):format(packets, large))
    end,
  }
]]

describe("a page, accepted on lines that lose and reorder,", function()
  after_each(page.clean)

  for _, family in ipairs(traffic.FAMILIES) do
    for _, large in ipairs({ true, false }) do
      it(("is what was sent: %s, gso %s"):format(family.name, large and "on" or "off"), function()
        local bad = { loss = 1, reorder = large and 10 or 1, duplicate = 1 }
        local got, text, output = page.fetch(net.file(ACCEPT), {
          family = family, large = large, before = bad, behind = bad,
        })
        assert.is_true(got.body == text, ("%d bytes came, not as they were sent"):format(#got.body))
        local packets, seen = output:match("(%d+) packets, (%d+) large")
        packets, seen = tonumber(packets), tonumber(seen)
        if large then
          assert.is_true(seen > page.BYTES // 65536 // 2, seen .. " large ones of " .. packets)
        else
          assert.equal(0, seen)
          assert.is_true(packets > page.BYTES // 1460)
        end
      end)
    end
  end
end)
