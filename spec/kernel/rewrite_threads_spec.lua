-- One rewriter for all threads: each direction of a connection is judged in a thread of its own.

local net = require("support.net")
local traffic = require("support.traffic")

local BYTES = 300000
local PORT = 8500
local WORD, NEW = "needle", "a far longer phrase"

after_each(traffic.cleanup)

-- Two rewriters, of which the second does the work: the n-th of one thread is the n-th of the other.
local SCRIPT = [[
  local nfqueue = require("nfqueue")
  local first, second = nfqueue.rewrite({ max = 7 }), nfqueue.rewrite({ max = 8, timeout = 60 })
  local state = tostring({}):match("0x%x+")
  local packets = 0
  return {
    packet = function(pkt)
      packets = packets + 1
      second(pkt, (pkt.payload:gsub("needle", "a far longer phrase")))
      pkt:accept()
    end,
    close = function(queue)
      local one, two = first:stats(), second:stats()
      io.stderr:write(("queue %d state %s: %d packets, %d edits, connections %d, %d of the first\n")
        :format(queue.number, state, packets, two.edits, two.connections, one.connections))
    end,
  }
]]

-- Lines with the word in some of them.
local function make_text()
  local lines = {}
  for i = 1, BYTES // 50 do
    lines[i] = ("%06d %s in a line of a text\n"):format(i, i % 3 == 0 and WORD or "nothing")
  end
  return table.concat(lines)
end

describe("the rewriters of a script", function()
  for _, family in ipairs(traffic.FAMILIES) do
    it("are the same in all its threads, " .. family.name, function()
      local version, address = family.socat:match("(.):(.*)")
      local run = net.run(net.file(SCRIPT) .. " -q 1-2 --threads 2")
      traffic.rule(("-A OUTPUT -p tcp --dport %d -j NFQUEUE --queue-num 1"):format(PORT), family)
      traffic.rule(("-A OUTPUT -p tcp --sport %d -j NFQUEUE --queue-num 2"):format(PORT), family)
      local text, target = make_text(), net.file()
      local server = net.start(("socat -u TCP%s-LISTEN:%d,reuseaddr OPEN:%s,trunc"):format(version, PORT, target))
      traffic.wait_listening(version == "4" and "tcp" or "tcp6", PORT)
      local client = net.start(("socat -u OPEN:%s TCP%s:%s:%d"):format(net.file(text), version, address, PORT))
      assert.equal(0, client:join(30), client:output())
      assert.equal(0, server:join(30), server:output())
      local got = net.read(target)
      assert.is_true(#got > #text)
      assert.is_true(got:gsub(NEW, WORD) == text)
      local edits = select(2, got:gsub(NEW, ""))
      run:signal("TERM")
      assert.equal(0, run:join())
      local seen = {}
      local pattern = "queue (%d) state (%S+): (%d+) packets, (%d+) edits, connections (%d+), (%d+) of the first"
      for queue, state, packets, taken, connections, others in run:output():gmatch(pattern) do
        seen[#seen + 1] = state
        assert.is_true(tonumber(packets) > 3, queue)
        assert.is_true(tonumber(taken) > 0 and tonumber(taken) <= edits)
        assert.same({ "1", "0" }, { connections, others })
      end
      assert.equal(2, #seen)
      assert.are_not.equal(seen[1], seen[2])
    end)
  end

  it("must be made alike in all threads", function()
    local script = net.file([[
      local nfqueue = require("nfqueue")
      local rw = nfqueue.rewrite({ max = math.random(1 << 20) })
      return function(pkt) pkt:accept() end
    ]])
    local run = net.start(net.command .. " run " .. script .. " -q 1-2 --threads 2")
    assert.equal(65, run:join())
    assert.is_truthy(run:output():find("another thread has made rewrite 1 with other options", 1, true), run:output())
  end)
end)
