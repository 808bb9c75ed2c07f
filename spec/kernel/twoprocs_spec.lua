-- Two handlers in two processes: each has its own queue, and neither minds how the other ends.

local net = require("support.net")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

-- Accepts what comes to queue `number` and prints it; ends with the text "stop <number>".
local SCRIPT = [[
local nfqueue = require("nfqueue")
local number = %d
io.stdout:setvbuf("line")
local queue = nfqueue.new(number, function(pkt, queue)
  local text = pkt:bytes(28)
  print(text)
  if text == "stop " .. number then
    queue:stop()
  end
  return text:find("drop", 1, true) and "drop" or "accept"
end)
print("end", queue:start())
print("stats", queue:stats().packets, queue:stats().accepted)
]]

describe("two processes with a queue each", function()
  local udp, handlers

  -- Which queue has a text goes by its port.
  before_each(function()
    udp, handlers = {}, {}
    for number = 1, 2 do
      udp[number] = traffic.udp()
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d --queue-bypass")
        :format(udp[number].port, number))
      handlers[number] = net.start(net.lua .. " " .. net.file(SCRIPT:format(number)))
    end
    net.wait_for("both queues", function()
      return net.queue(1) and net.queue(2)
    end)
  end)
  after_each(traffic.cleanup)

  local function await(number, count)
    net.wait_for(("%d datagrams behind queue %d"):format(count, number), function()
      return #udp[number]:received() >= count
    end)
  end

  it("judge their own packets only", function()
    local texts = { {}, {} }
    for i = 1, 100 do
      for number = 1, 2 do
        texts[number][i] = ("to %d: %d"):format(number, i)
        udp[number]:send(texts[number][i])
      end
    end
    for number = 1, 2 do
      udp[number]:send("drop this", "stop " .. number)
      texts[number][101] = "stop " .. number
      await(number, 101)
      assert.same(texts[number], udp[number].texts)
      assert.equal(0, handlers[number]:join())
      table.insert(texts[number], 101, "drop this")
      assert.equal(table.concat(texts[number], "\n") .. "\nend\ttrue\nstats\t102\t101\n", handlers[number]:output())
      assert.is_nil(net.queue(number))
    end
  end)

  it("go on when the other stops", function()
    udp[1]:send("stop 1")
    assert.equal(0, handlers[1]:join())
    udp[2]:send("still judged", "drop this", "and this")
    await(2, 2)
    assert.same({ "still judged", "and this" }, udp[2].texts)
    assert.is_nil(net.queue(1))
    udp[1]:send("drop by nobody") -- bypass
    await(1, 2)
    assert.equal("drop by nobody", udp[1].texts[2])
    assert.equal("stop 1\nend\ttrue\nstats\t1\t1\n", handlers[1]:output())
  end)

  it("go on when the other is killed, whose queue is free at once", function()
    handlers[1]:signal("KILL")
    assert.equal(128 + 9, handlers[1]:join())
    net.wait_for("the queue to be left", function()
      return not net.queue(1)
    end)
    udp[2]:send("still judged")
    await(2, 1)
    local queue = traffic.open(1, function() return "drop" end)
    udp[1]:send("judged here")
    traffic.judge_packets(queue, 1)
    assert.equal(1, queue:stats().dropped)
    assert.same({}, udp[1]:received())
  end)

  it("refuse the other's queue and keep their own", function()
    local other = net.start(net.lua .. " " .. net.file(SCRIPT:format(2)))
    assert.equal(0, other:join())
    local message = ("queue 2 is held by lua5.4 (pid %d); stop it or use another number"):format(handlers[2].pid)
    assert.equal(("end\tnil\t%s\t16\nstats\t0\t0\n"):format(message), other:output())
    udp[2]:send("still judged")
    await(2, 1)
  end)
end)

describe("two processes under --queue-balance", function()
  after_each(traffic.cleanup)

  it("handle each packet once between them", function()
    local COUNT = 400
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-balance 1:2"):format(udp.port))
    traffic.rule(("-A INPUT -p udp --dport %d -m comment --comment arrived"):format(udp.port))
    local handlers = {}
    for number = 1, 2 do
      handlers[number] = net.start(net.lua .. " " .. net.file(SCRIPT:format(number)))
      net.wait_for("the queue", function() return net.queue(number) end)
    end
    traffic.flood(udp.port, COUNT, 2, 20):join()
    net.wait_for("the packets to arrive", function()
      return net.rule_packets("INPUT", "arrived") == COUNT
    end)
    local times = {}
    for number = 1, 2 do
      local lines = 0
      for text in handlers[number]:output():gmatch("[^\n]+") do
        times[text] = (times[text] or 0) + 1
        lines = lines + 1
      end
      assert.is_true(lines > 0)
      assert.equal(net.queue(number).id_sequence, lines)
    end
    for i = 1, COUNT do
      assert.equal(1, times[tostring(i)], "packet " .. i)
    end
  end)
end)
