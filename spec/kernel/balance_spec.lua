-- Several queues under --queue-balance: every packet is handled exactly once, in one state and in several threads.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

local COUNT, ADDRESSES = 1000, 50

-- Outgoing packets spread over the queues, and a rule that counts what arrives.
local function balance(udp, queues)
  local match = ("-p udp --dport %d -d 127.0.0.0/8 "):format(udp.port)
  traffic.rule(("-A OUTPUT %s -j NFQUEUE --queue-balance 0:%d"):format(match, queues - 1))
  traffic.rule(("-A INPUT %s -m comment --comment arrived"):format(match))
end

-- Each of the numbers 1 to COUNT once: `times` by text. The first that is not is named.
local function check_once(times)
  for i = 1, COUNT do
    assert.equal(1, times[tostring(i)], "packet " .. i)
  end
end

for _, count in ipairs({ 2, 4 }) do
  describe(count .. " queues in one state", function()
    after_each(traffic.cleanup)

    it("handle each packet once", function()
      local udp = traffic.udp()
      balance(udp, count)
      local total, times, handled, sequence = 0, {}, {}, {}
      local queues = {}
      for number = 0, count - 1 do
        handled[number] = 0
        queues[number + 1] = traffic.queue(number, function(pkt, queue)
          local text = traffic.payload(pkt)
          times[text] = (times[text] or 0) + 1
          handled[queue.number] = handled[queue.number] + 1
          total = total + 1
          if total == COUNT then
            for other = 0, count - 1 do
              sequence[other] = net.queue(other).id_sequence
            end
            nfqueue.stop()
          end
        end)
      end
      traffic.flood(udp.port, COUNT, count - 1, ADDRESSES)
      assert.is_true(nfqueue.start(table.unpack(queues)))
      check_once(times)
      for number = 0, count - 1 do
        assert.is_true(handled[number] > 0, "no packet came to queue " .. number)
        assert.equal(sequence[number], handled[number])
        assert.equal(handled[number], queues[number + 1]:stats().packets)
        assert.equal(handled[number], queues[number + 1]:stats().accepted)
      end
      assert.equal(COUNT, net.rule_packets("OUTPUT", "NFQUEUE"))
      assert.equal(COUNT, net.rule_packets("INPUT", "arrived"))
    end)
  end)
end

-- The handler under nfqueue.run: in its thread's own state, so what it saw is written when its queue is closed.
local SCRIPT = [[
local folder = (...).folder
local lines = {}
local state = tostring({})
return {
  packet = function(pkt, queue)
    local text = pkt:bytes(28)
    lines[queue.number] = lines[queue.number] or {}
    table.insert(lines[queue.number], text)
    if text == "stop" then
      require("nfqueue").stop()
    end
    pkt:accept()
  end,
  close = function(queue)
    local file = assert(io.open(folder .. "/" .. queue.number, "w"))
    file:write(state, "\n", queue:stats().accepted, "\n", table.concat(lines[queue.number] or {}, "\n"), "\n")
    file:close()
  end,
}
]]

describe("nfqueue.run over four queues", function()
  after_each(traffic.cleanup)

  for _, threads in ipairs({ 1, 2, 4 }) do
    it(("with threads = %d handles each packet once"):format(threads), function()
      local udp = traffic.udp()
      balance(udp, 4)
      local folder = net.must("mktemp -d")
      local script = net.file(SCRIPT)
      local main = net.file(([[
        local done, message = require("nfqueue").run({
          script = %q, queues = "0-3", threads = %d, args = { folder = %q },
        })
        print(done, message)
      ]]):format(script, threads, folder))
      local runner = net.start(net.lua .. " " .. main)
      net.wait_for("all queues", function() -- threads bind theirs in any order
        return net.queue(0) and net.queue(1) and net.queue(2) and net.queue(3)
      end)
      local flood = traffic.flood(udp.port, COUNT, 3, ADDRESSES)
      assert.equal(0, flood:join())
      net.wait_for("the packets to arrive", function()
        return net.rule_packets("INPUT", "arrived") == COUNT
      end)
      local sequence = {}
      for number = 0, 3 do
        sequence[number] = net.queue(number).id_sequence
        assert.equal(0, net.queue(number).waiting)
      end
      udp:send("stop") -- one thread gets it, all end
      assert.equal(0, runner:join())
      assert.equal("true\tnil\n", runner:output())
      local times, states, state_count, stops = {}, {}, 0, 0
      for number = 0, 3 do
        assert.is_nil(net.queue(number))
        local state, accepted, texts = net.read(folder .. "/" .. number):match("^(.-)\n(%d+)\n(.*)$")
        state_count = state_count + (states[state] and 0 or 1)
        states[state] = true
        local handled = 0
        for text in texts:gmatch("[^\n]+") do
          times[text] = (times[text] or 0) + 1
          handled = handled + 1
          if text == "stop" then
            stops = stops + 1
            sequence[number] = sequence[number] + 1
          end
        end
        assert.is_true(handled > 0, "no packet came to queue " .. number)
        assert.equal(sequence[number], handled)
        assert.equal(handled, tonumber(accepted))
      end
      net.must("rm -r " .. folder)
      check_once(times)
      assert.equal(1, stops)
      assert.equal(threads, state_count)
      assert.equal(COUNT + 1, net.rule_packets("INPUT", "arrived"))
    end)
  end
end)
