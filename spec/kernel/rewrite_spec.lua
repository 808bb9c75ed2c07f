-- A web page through a router that judges it, over lines that lose and reorder: what curl gets of what nginx sent.

local net = require("support.net")
local page = require("support.page")
local traffic = require("support.traffic")

local missing = page.missing(true)
local it = missing and function(name) pending(name .. " (" .. missing .. ")") end or it

-- In the emulated machine, where setting up takes long, spec/guest/rewrite_spec.lua does what is left out here.
local emulated = os.getenv("NFQUEUE_GUEST") ~= nil

local IPV4, IPV6 = table.unpack(traffic.FAMILIES)

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

  local cases = { { IPV4, true }, { IPV6, false }, { IPV4, false }, { IPV6, true } }
  for number = 1, emulated and 2 or 4 do
    local family, large = table.unpack(cases[number])
    it(("is what was sent: %s, gso %s"):format(family.name, large and "on" or "off"), function()
      local bad = { loss = 1, reorder = large and 10 or 1, duplicate = 1 }
      local got, text, output = page.fetch(net.file(ACCEPT), {
        family = family, large = large, before = bad, behind = bad,
      })
      assert.is_true(got[1].body == text, ("%d bytes came, not as they were sent"):format(#got[1].body))
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
end)

local LONGER = { needle = "a-large-darning-needle" }
local SHORTER = { needle = "pin" }
local BOTH = { needle = "pin", straw = "any-amount-of-fresh-straw" }

-- Of family, gso, side of the loss and length each pair is there, in segments with several words. Words that
-- get longer have room for it (mss), but once.
local CASES = {
  { family = IPV4, large = true, before = true, replace = LONGER, mss = 1200, wait = false },
  { family = IPV6, large = false, before = true, replace = SHORTER, reorder = 0.5 },
  { family = IPV4, large = false, behind = true, replace = SHORTER },
  { family = IPV6, large = true, behind = true, replace = LONGER, mss = 1000, words = 1 },
  { family = IPV4, large = true, before = true, behind = true, replace = SHORTER, wait = false },
  { family = IPV6, large = false, before = true, behind = true, replace = LONGER, mss = 1000, wait = false },
  { name = "with no room", family = IPV4, large = true, behind = true, replace = LONGER, words = 40 },
  { name = "large on the line, cut for the queue", family = IPV4, large = true, gso = false, behind = true,
    replace = BOTH, mss = 1000 },
  { name = "a thread for each direction", queues = "directions", family = IPV6, large = true, before = true,
    behind = true, replace = BOTH, wait = false },
  { name = "three at a time, a thread for each processor", queues = "processors", times = 3, bytes = page.BYTES // 3,
    family = IPV4, large = false, before = true, behind = true, replace = BOTH, mss = 1000, wait = false },
}

describe("a page is rewritten on lines that lose and reorder:", function()
  after_each(page.clean)

  for number, case in ipairs(CASES) do
    for place, side in ipairs({ "before", "behind" }) do
      -- Large segments are few, so more of them are reordered.
      case[side] = case[side] and { seed = 2 * number + place, loss = 1, duplicate = 1,
        reorder = case.reorder or case.large and 10 or 1 }
    end
    case.words = case.words or 4
    if case.name or not emulated then
      it(page.title(case), function()
        page.check(case)
      end)
    end
  end
end)
