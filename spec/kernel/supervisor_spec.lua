-- The supervisor over several deaths: none lost under load, a back-off from a crash loop, a script that
-- breaks meanwhile, and its own death.

local net = require("support.net")

if net.no_queue_list() then
  return pending("what a death costs: " .. net.no_queue_list())
end

local PORT = 4400
local ACCEPT = "return function(pkt) pkt:accept() end"
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

local function wait_for_worker(run, ready)
  net.wait_for("a new worker", function()
    return run:count("ready:") > ready
  end, 20)
end

local function replace_worker(run)
  local ready = run:count("ready:")
  net.must("kill -KILL " .. run:worker())
  wait_for_worker(run, ready)
end

--- Seconds of a clock that only goes forward.
local function uptime()
  return tonumber(net.read("/proc/uptime"):match("^%S+"))
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

describe("workers killed under load", function()
  for _, words in ipairs({ "-q 5", "-q 4-6 --threads 1", "-q 4-6 --threads 2" }) do
    it("cost no packet with on_error accept: " .. words, function()
      -- No bypass. What is sent and what arrives is counted by rules; the second ends the packet's way.
      net.must(("iptables -w -A OUTPUT -p udp --dport %d"):format(PORT))
      net.queue_udp(PORT, 5, "")
      net.must(("iptables -w -A INPUT -p udp --dport %d -j DROP"):format(PORT))
      local run = net.run(net.file(ACCEPT) .. " --on-error accept " .. words)
      local load = net.start(net.lua .. " " .. net.file(([[
        local udp = require("socket").udp()
        while true do
          udp:sendto("load", "127.0.0.1", %d)
        end
      ]]):format(PORT)))
      local portid = net.queue(5).portid
      for _ = 1, 4 do
        local seen = net.queue(5).id_sequence
        net.wait_for("traffic", function()
          return net.queue(5).id_sequence > seen + 1000
        end)
        replace_worker(run)
      end
      load:signal("TERM")
      load:join()
      net.wait_for("an empty queue", function()
        return net.queue(5).waiting == 0
      end)
      local queue = net.queue(5)
      assert.equal(portid, queue.portid)
      assert.equal(0, queue.queue_dropped + queue.user_dropped)
      assert.equal(net.rule_packets("OUTPUT", "dpt:" .. PORT .. "%s*$"), net.rule_packets("INPUT", "dpt:" .. PORT))
      assert.is_true(run:count("died in the handler") <= 4)
    end)
  end
end)

describe("a worker that dies again and again", function()
  it("is given longer and longer pauses", function()
    local run = net.run(net.file(ACCEPT) .. " -q 5")
    local start = uptime()
    for _ = 1, 5 do
      replace_worker(run)
    end
    -- Each has lived a second or was followed by a pause, twice the one before: at least 1.5 s in all.
    assert.is_true(uptime() - start >= 1)
    assert.equal(5, run:count("was killed by signal 9"))
    -- Told to stop while nobody may be there to drain, it leaves.
    net.must("kill -KILL " .. run:worker())
    run:signal("TERM")
    run:join()
    assert.is_nil(net.queue(5))
    assert.equal("", (net.sh("pgrep -P " .. run.pid)))
  end)
end)

describe("what a script loads, broken since the start", function()
  for _, case in ipairs({
    { "does not compile", "return function(", "failed while loading: " },
    { "is gone", nil, "failed while loading: cannot open" },
    { "fails in open", "return { packet = print, open = function() error('no') end }", "open of the script failed" },
  }) do
    it(case[1] .. ": the queue stays bound, and the repaired one judges what waited", function()
      net.queue_udp(PORT, 5, "")
      local path = net.file(ACCEPT)
      local run = net.run(net.file("return dofile((...).path)") .. " -q 5 -- path=" .. path)
      local portid = net.queue(5).portid
      if case[2] then
        write(path, case[2])
      else
        os.remove(path)
      end
      net.must("kill -KILL " .. run:worker())
      net.wait_for("a failed successor", function()
        return run:output():find(case[3], 1, true)
      end)
      box:send("waits")
      assert.equal(portid, net.queue(5).portid)
      write(path, ACCEPT)
      wait_for_worker(run, 1)
      box:send("last")
      assert.same({ "waits", "last" }, box:await("last"))
      run:signal("TERM")
      assert.equal(0, run:join())
    end)
  end
end)

describe("a script whose file broke since the start", function()
  for _, case in ipairs({ { "does not compile", "return function(" }, { "is gone" } }) do
    it(case[1] .. ": the next worker has it as it was", function()
      net.queue_udp(PORT, 5, "")
      local path = net.file(ACCEPT)
      local run = net.run(path .. " -q 5 --default drop")
      if case[2] then
        write(path, case[2])
      else
        os.remove(path)
      end
      replace_worker(run)
      box:send("judged")
      assert.same({ "judged" }, box:await("judged"))
      assert.equal(1, run:count("error:")) -- of the death
      run:signal("TERM")
      assert.equal(0, run:join())
    end)
  end
end)

describe("a killed supervisor", function()
  it("takes the worker with it, which judges what waits before it leaves", function()
    local gate = net.make_gate()
    net.queue_udp(PORT, 5, "")
    local run = net.run(net.file([[
      local args = ...
      return {
        packet = function(pkt)
          if pkt:find("block") then
            io.stderr:write("blocked\n")
            io.open(args.gate):read("l")
          end
          pkt:accept()
        end,
        close = function() io.stderr:write("closed\n") end,
      }
    ]]) .. " -q 5 --time-limit 600 -- gate=" .. gate)
    local worker = run:worker()
    box:send("block")
    net.wait_for("the blocking packet", function()
      return run:output():find("blocked", 1, true)
    end)
    for number = 1, 150 do
      box:send("packet " .. number)
    end
    run:signal("KILL")
    assert.equal(128 + 9, run:join())
    assert.is_table(net.queue(5)) -- the worker has it still
    net.open_gate(gate)
    net.wait_for("the worker's end", function()
      return not net.queue(5) and not net.read(("/proc/%d/stat"):format(worker)):find("%) [^Z]")
    end)
    assert.equal("packet 150", box:await_count(151)[151])
    assert.matches("closed\n", run:output(), 1, true)
  end)

  it("leaves the traffic to the rule's bypass", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file("return function(pkt) pkt:drop() end") .. " -q 5-6 --threads 2")
    box:send("dropped")
    net.wait_for("the verdict", function()
      local queue = net.queue(5)
      return queue.id_sequence == 1 and queue.waiting == 0
    end)
    run:signal("KILL")
    net.wait_for("the queues to be left", function()
      return not net.queue(5) and not net.queue(6)
    end)
    box:send("passes")
    assert.same({ "passes" }, box:await("passes"))
  end)
end)
