-- A web page through a router that judges it, over lines that lose and reorder: what curl gets of what nginx sent.

local line = require("support.line")
local net = require("support.net")
local traffic = require("support.traffic")
local web = require("support.web")

local QUEUE = 3
-- Emulated machines and sanitizers take a smaller one.
local BYTES = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 1000000 or 10000000
local SECONDS = 60

local missing = line.missing() or web.missing()
local it = missing and function(name) pending(name .. " (" .. missing .. ")") end or it

-- What is lost of the response on a bad line: a good half of what is asked for.
local LOST = BYTES // 1448 // 100 // 2

local text, way, folder

local function clean()
  traffic.cleanup()
  if way then
    way:remove()
    way = nil
  end
  if folder then
    web.remove(folder)
    folder = nil
  end
end

local function build(case)
  way = line.new(case)
  folder = web.serve(way.server)
  text = web.text(BYTES)
  local file = assert(io.open(folder .. "/text", "w"))
  file:write(text)
  file:close()
end

-- Ends the lines: checks that they were as bad as asked for, and no packet came with a wrong checksum.
local function check_line(case)
  local counts = way:finish()
  for interface, bad in pairs({ toserver = case.before, toclient = case.behind }) do
    -- The response leaves the server by one line and comes to the client by the other.
    local count = counts[interface][interface == "toserver" and "out" or "back"]
    assert.is_true(count.lost > LOST * (bad.loss or 1), interface .. " lost " .. count.lost)
    assert.is_true(count.reordered > 0)
    assert.equal(case.large, count.large_out > 0)
  end
  assert.equal(0, traffic.checksum_errors(way.client))
  assert.equal(0, traffic.checksum_errors(way.server))
end

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
  after_each(clean)

  for _, family in ipairs(traffic.FAMILIES) do
    for _, large in ipairs({ true, false }) do
      it(("is what was sent: %s, gso %s"):format(family.name, large and "on" or "off"), function()
        local bad = { loss = 1, reorder = large and 10 or 1, duplicate = 1 }
        local case = { large = large, before = bad, behind = bad }
        build(case)
        traffic.rule(("-A FORWARD -p tcp -j NFQUEUE --queue-num %d"):format(QUEUE), family)
        local run = net.run(("%s -q %d %s"):format(net.file(ACCEPT), QUEUE, large and "" or "--no-gso"))
        local page = web.fetch(way.client, line.SERVER[family.name], "text", SECONDS)
        assert.equal(0, page.status, page.output)
        assert.is_true(page.body == text, ("%d bytes came, not as they were sent"):format(#page.body))
        run:signal("TERM")
        assert.equal(0, run:join(), run:output())
        local packets, seen = run:output():match("(%d+) packets, (%d+) large")
        packets, seen = tonumber(packets), tonumber(seen)
        if large then
          assert.is_true(seen > BYTES // 65536 // 2, seen .. " large ones of " .. packets)
        else
          assert.equal(0, seen)
          assert.is_true(packets > BYTES // 1460)
        end
        check_line(case)
      end)
    end
  end
end)
