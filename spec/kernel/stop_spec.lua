-- How the command ends: by a signal, a second one, from the handler; idle, busy and under load.

local net = require("support.net")

local PORT = 4200
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

for _, signal in ipairs({ "TERM", "INT" }) do
  describe("SIG" .. signal, function()
    it("ends an idle command with 0 and unbinds the queue", function()
      local why = net.no_queue_list()
      if why then
        return pending(why)
      end
      local run = net.run(net.file(net.GATED) .. " -q 5")
      local worker = run:worker()
      assert.is_table(net.queue(5))
      run:signal(signal)
      assert.equal(0, run:join())
      assert.is_nil(net.queue(5))
      assert.equal("", net.read("/proc/" .. worker .. "/stat"))
    end)

    for _, policy in ipairs({ "accept", "drop" }) do
      it(("lets the handler judge every packet sent before it, with on_error %s"):format(policy), function()
        local gate = net.make_gate()
        -- No bypass: a packet without a listener is dropped, so none can come through by luck.
        net.queue_udp(PORT, 5, "")
        local run = net.run(("%s -q 5 --on-error %s --time-limit 600 -- gate=%s")
          :format(net.file(net.GATED), policy, gate))
        box:send("block")
        run:await("blocked")
        for number = 1, 150 do
          box:send("packet " .. number)
        end
        run:signal(signal)
        run:await("draining")
        net.open_gate(gate)
        assert.equal(0, run:join())
        assert.is_nil(net.queue(5))
        local texts = box:await_count(151)
        assert.equal("packet 150", texts[151])
      end)
    end
  end)
end

describe("a stop that comes while a dead worker's successor starts", function()
  it("lets it judge what waits first", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5, "")
    -- Loading takes a while, so that the stop falls into it.
    local run = net.run(net.file([[
      os.execute("sleep 0.3")
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5 --on-error drop")
    local worker = run:worker()
    for number = 1, 70 do -- so many that there is no pause before the next worker
      box:send("packet " .. number)
    end
    box:await_count(70)
    net.pause(worker)
    for number = 71, 120 do
      box:send("packet " .. number)
    end
    net.must("kill -KILL " .. worker)
    run:await("starting another")
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.equal(120, #box:await_count(120))
    assert.is_nil(net.queue(5))
  end)
end)

describe("a stop under load", function()
  it("loses nothing where packets may pass unjudged", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    -- Rules count what is sent and what arrives; the second ends the packet's way.
    net.must(("iptables -w -A OUTPUT -p udp --dport %d"):format(PORT))
    net.queue_udp(PORT, 5)
    net.must(("iptables -w -A INPUT -p udp --dport %d -j DROP"):format(PORT))
    local load = net.start(net.lua .. " " .. net.file(([[
      local udp = require("socket").udp()
      while true do
        udp:sendto("load", "127.0.0.1", %d)
      end
    ]]):format(PORT)))
    local function sent()
      return net.rule_packets("OUTPUT", "dpt:" .. PORT .. "%s*$")
    end
    -- Slower than the sender: something waits in the queue at any time.
    local script = net.file("return function(pkt) for _ = 1, 3000 do end; pkt:accept() end")
    for _ = 1, 3 do
      local run = net.run(script .. " -q 5 --on-error accept")
      local before = sent()
      net.wait_for("traffic through the queue", function()
        return net.queue(5).id_sequence > 200
      end)
      run:signal("TERM")
      assert.equal(0, run:join())
      assert.is_nil(net.queue(5))
      local after = sent()
      assert.is_true(after > before)
      net.wait_for("traffic past the queue", function()
        return sent() > after + 100
      end)
    end
    load:signal("TERM")
    load:join()
    assert.equal(sent(), net.rule_packets("INPUT", "dpt:" .. PORT))
  end)

  it("ends although more packets come than the handler can judge", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5)
    local load = net.start(net.lua .. " " .. net.file(([[
      local udp = require("socket").udp()
      while true do
        udp:sendto("load", "127.0.0.1", %d)
      end
    ]]):format(PORT)))
    local run = net.run(net.file([[return function(pkt)
      for _ = 1, 20000 do end
      pkt:drop()
    end]]) .. " -q 5 --max-packets 64") -- fewer than fit into the sender's own buffer
    net.wait_for("a full queue", function()
      return net.queue(5).queue_dropped > 0
    end)
    run:signal("TERM")
    assert.equal(0, run:join(20))
    assert.is_nil(net.queue(5))
    load:signal("TERM")
    load:join()
  end)
end)

describe("a second signal", function()
  for _, second in ipairs({ "TERM", "INT" }) do
    it(("SIG%s leaves at once, though the handler never returns"):format(second), function()
      net.queue_udp(PORT, 5)
      local run = net.run(net.file([[return function(pkt)
        io.stderr:write("stuck\n")
        while true do end
      end]]) .. " -q 5")
      local worker = run:worker()
      box:send("anything")
      run:await("stuck")
      run:signal("TERM")
      run:await("draining")
      assert.is_true(run:is_alive())
      run:signal(second)
      assert.equal(1, run:join())
      assert.equal("", net.read("/proc/" .. worker .. "/stat"))
      assert.is_nil(net.queue(5))
      assert.matches("second signal", run:output(), 1, true)
    end)
  end
end)

describe("a stop from the handler", function()
  for _, case in ipairs({
    { "queue:stop()", "-q 5" },
    { "require('nfqueue').stop()", "-q 5" },
    { "queue:stop()", "-q 4-5 --threads 1" },
    { "queue:stop()", "-q 4-5 --threads 2" },
    { "require('nfqueue').stop()", "-q 4-5 --threads 2" },
  }) do
    local name = ("%s with %s: verdicts are sent, close runs, every queue is left, exit status 0")
    it(name:format(case[1], case[2]), function()
      net.queue_udp(PORT, 5, "")
      local run = net.run(net.file(([[return {
        packet = function(pkt, queue)
          if pkt:find("stop") then
            %s
          end
          pkt:accept()
        end,
        close = function(queue) io.stderr:write("closed ", queue.number, "\n") end,
      }]]):format(case[1])) .. " " .. case[2])
      net.pause(run:worker()) -- so that all of it is one batch
      box:send("before", "stop", "after")
      net.sh("kill -CONT " .. run:worker())
      assert.equal(0, run:join())
      assert.same({ "before", "stop", "after" }, box:await("after"))
      assert.is_nil(net.queue(5))
      assert.is_nil(net.queue(4))
      assert.matches("closed 5\n", run:output(), 1, true)
      assert.equal(case[2] ~= "-q 5", run:output():find("closed 4\n", 1, true) ~= nil)
    end)
  end

  it("from open: nothing is judged, exit status 0", function()
    local run = net.start(net.command .. " run " .. net.file([[return {
      open = function(queue) queue:stop() end,
      packet = function(pkt) pkt:drop() end,
    }]]) .. " -q 5")
    assert.equal(0, run:join())
    assert.is_nil(net.queue(5))
  end)
end)
