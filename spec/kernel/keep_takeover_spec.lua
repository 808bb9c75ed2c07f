-- A worker's death while it holds and delays packets: each gets the verdict it was kept for, exactly once, and what
-- its successor keeps is not touched by that.

local net = require("support.net")

if net.no_queue_list() then
  return pending("packets kept by a dead worker: " .. net.no_queue_list())
end

local PORT = 4800
local box

-- What a packet says is what happens to it: "hold accept", "hold drop", "hold" (the default), "delay ...", "edit
-- ...", which is delayed with other content, "block", which waits at the gate, "release", which accepts what is
-- held, last first, "told", which is said and dropped.
local SCRIPT = [[
  local args = ...
  local kept = {}
  return function(pkt, queue)
    local text = pkt.payload
    local verdict = text:match("^hold (%l+)")
    if text:find("^hold") then
      pkt:hold(1000, (verdict == "accept" or verdict == "drop") and verdict or nil)
      table.insert(kept, pkt)
      if text:find("poison") then
        os.execute("kill -KILL " .. io.open("/proc/self/stat"):read("n"))
      end
    elseif text:find("^delay") then
      pkt:delay(1000, text:find("mark") and { mark = 77 } or nil)
      if text:find("poison") then
        os.execute("kill -KILL " .. io.open("/proc/self/stat"):read("n"))
      end
    elseif text:find("^edit") then
      pkt.payload = text .. ", edited"
      pkt:delay(1000)
    elseif text == "block" then
      io.stderr:write("blocked\n")
      io.open(args.gate):read("l")
    elseif text == "told" then
      io.stderr:write("told\n")
      pkt:drop()
    elseif text == "release" then
      for i = #kept, 1, -1 do
        kept[i]:accept()
      end
      pkt:drop()
      local stats = queue:stats()
      io.stderr:write(("stats held %d delayed %d expired %d undecided %d kept %d refused %d\n"):format(stats.held,
        stats.delayed, stats.expired, stats.undecided, stats.kept, stats.refused))
    end
  end
]]

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
  net.queue_udp(PORT, 5, "")
end)

after_each(function()
  box:close()
  net.cleanup()
end)

local function start(options)
  local gate = net.make_gate()
  return net.run(("%s -q 5 %s --time-limit 600 -- gate=%s"):format(net.file(SCRIPT), options or "", gate)), gate
end

--- Kill the worker and wait for the next one.
local function replace_worker(run)
  local ready = run:count("ready:")
  net.must("kill -KILL " .. run:worker())
  net.wait_for("a new worker", function()
    return run:count("ready:") > ready
  end)
end

local function await_waiting(count)
  net.wait_for(count .. " packets in the queue", function()
    return net.queue(5).waiting == count
  end)
end

local function sorted(list)
  local copy = { table.unpack(list) }
  table.sort(copy)
  return copy
end

describe("a worker that dies", function()
  for _, default in ipairs({ "accept", "drop" }) do
    it(("leaves held packets to their verdict, default %s, and has delayed ones accepted"):format(default), function()
      net.must(("iptables -w -A INPUT -p udp --dport %d -m mark --mark 77"):format(PORT))
      local run = start(("--default %s --on-error %s"):format(default, default == "drop" and "accept" or "drop"))
      box:send("hold accept", "hold drop", "hold", "delay", "delay mark", "edit", "pass")
      if default == "accept" then
        box:await("pass")
      end
      await_waiting(6)
      replace_worker(run)
      await_waiting(0)
      local expected = { "delay", "delay mark", "edit, edited", "hold accept" }
      if default == "accept" then
        table.insert(expected, "hold")
        table.insert(expected, "pass")
      end
      assert.same(sorted(expected), sorted(box:await_count(#expected)))
      assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
      -- Delayed ones in the order of their times.
      local order = {}
      for _, text in ipairs(box:all()) do
        if text:find("^delay") or text:find("^edit") then
          table.insert(order, text)
        end
      end
      assert.same({ "delay", "delay mark", "edit, edited" }, order)
      box:send("release")
      run:await("stats held 3 delayed 3 expired 3 undecided 2 kept 0 refused 0")
      box:send("delay last")
      await_waiting(1)
      run:signal("TERM")
      assert.equal(0, run:join())
      assert.equal(#expected + 1, #box:await("delay last"))
    end)
  end

  it("leaves what is behind it in its batch to be held and delayed by the next", function()
    local run = start("--on-error drop")
    net.pause(run:worker()) -- all are one batch
    box:send("hold before", "delay before", "pass before", "block", "hold 1", "pass 1", "delay behind", "hold 2",
      "edit behind", "pass 2", "hold 3")
    net.must("kill -CONT " .. run:worker())
    run:await("blocked")
    replace_worker(run)
    -- hold 1 to 3, and two delayed: neither the barrier's answer nor the next packet takes them along
    box:send("pass last")
    box:await("pass last")
    await_waiting(5)
    assert.same({ "delay before", "hold before", "pass 1", "pass 2", "pass before", "pass last" },
      sorted(box:all()))
    box:send("release")
    box:await("hold 1")
    local texts = box:all()
    assert.same({ "hold 3", "hold 2", "hold 1" }, { table.unpack(texts, #texts - 2) })
    run:await("kept 2 refused 0")
    await_waiting(2)
    run:signal("TERM")
    assert.equal(0, run:join())
    texts = box:await("edit behind, edited")
    assert.same({ "delay behind", "edit behind, edited" }, { table.unpack(texts, #texts - 1) })
    assert.equal(11, #texts)
  end)

  for _, verb in ipairs({ "hold accept", "delay" }) do
    it(("in a handler that had decided (%s) gives that packet on_error"):format(verb), function()
      local run = start("--on-error drop")
      box:send("hold accept other", verb .. " poison", "pass")
      box:await("pass")
      await_waiting(0)
      net.wait_for("the other", function()
        return #box:all() == 2
      end)
      assert.same({ "hold accept other", "pass" }, sorted(box:all()))
      assert.equal(1, run:count("died in the handler of packet 2"))
    end)
  end

  it("with many of them, again and again, leaves none behind", function()
    local run = start("--max-packets 2000 --default drop")
    local total = 0
    -- Rules count what arrives; the sender's socket would not take more than some 200 at a time.
    net.must(("iptables -w -A INPUT -p udp --dport %d -j DROP"):format(PORT))
    local senders = {}
    for i = 1, 8 do
      senders[i] = require("socket").udp()
    end
    for round = 1, 4 do
      for number = 1, 100 do
        for _, sender in ipairs(senders) do
          sender:sendto((number % 2 == 0 and "hold accept %d %d" or "delay %d %d"):format(round, number), "127.0.0.1",
            PORT)
        end
      end
      -- All are kept when one that was sent behind them has been judged.
      senders[1]:sendto("told", "127.0.0.1", PORT)
      net.wait_for("the last of them to be kept", function()
        return run:count("told\n") == round
      end)
      await_waiting(800)
      replace_worker(run)
      await_waiting(0)
      total = total + 800
      net.wait_for("all to arrive", function()
        return net.rule_packets("INPUT", "dpt:" .. PORT) == total
      end)
    end
    for _, sender in ipairs(senders) do
      sender:close()
    end
    run:signal("TERM")
    assert.equal(0, run:join())
  end)
end)

describe("a stop", function()
  it("gives held packets their verdict and accepts delayed ones", function()
    local run = start("--default drop")
    box:send("hold accept", "hold", "hold drop", "delay", "edit")
    await_waiting(5)
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.same({ "delay", "edit, edited", "hold accept" }, sorted(box:await_count(3)))
    assert.is_nil(net.queue(5))
  end)
end)
