-- Workers that die at once, again and again: the pauses between them grow, and meanwhile a stand-in without a script
-- gives every packet on_error.

local net = require("support.net")

if net.no_queue_list() then
  return pending("a crash loop: " .. net.no_queue_list())
end

local PORT = 4500
local boxes, flag

-- While there is a file `flag`, workers die as they load it. What is judged has mark 77, but what says otherwise.
local SCRIPT = [[
  local args = ...
  local flag = io.open(args.flag)
  if flag then
    flag:close()
    os.execute("kill -KILL " .. io.open("/proc/self/stat"):read("n"))
  end
  return function(pkt, queue)
    if pkt:find("hold") then
      pkt:hold(1000, pkt:find("drop") and "drop" or "accept")
    elseif pkt:find("delay") then
      pkt:delay(1000, { mark = 78 })
    elseif pkt:find("block") then
      io.stderr:write("blocked\n")
      io.open(args.gate):read("l")
    else
      local stats = queue:stats()
      io.stderr:write(("queue %d errors %d lost %d kept %d workers %d\n"):format(queue.number, stats.errors,
        stats.lost, stats.kept, stats.workers_lost))
      pkt:accept({ mark = 77 })
    end
  end
]]

before_each(function()
  net.cleanup()
  boxes = { net.udp(PORT), net.udp(PORT + 1), net.udp(PORT + 2) }
  flag = net.file()
  os.remove(flag)
end)

after_each(function()
  os.remove(flag)
  for _, box in ipairs(boxes) do
    box:close()
  end
  net.cleanup()
end)

local function start(options)
  for i = 1, 3 do
    net.queue_udp(PORT + i - 1, 4 + i, "")
  end
  for mark = 77, 78 do
    net.must(("iptables -w -A INPUT -p udp --dport %d:%d -m mark --mark %d"):format(PORT, PORT + 2, mark))
  end
  return net.run(("%s -q 5-7 --threads 2 %s -- flag=%s gate=%s"):format(net.file(SCRIPT), options, flag,
    net.make_gate()))
end

local function kill_worker(run)
  net.must("kill -KILL " .. run:worker())
end

local function begin_loop(run)
  assert(io.open(flag, "w")):close()
  kill_worker(run)
  run:await("CRASH LOOP")
end

-- The stand-in's pid, which stays for more than a second.
local function begin_long_pause(run)
  begin_loop(run)
  run:await("the next starts in 1.6 s")
  return run:worker()
end

local function end_loop(run)
  local ready = run:count("ready:")
  os.remove(flag)
  net.wait_for("a worker", function()
    return run:count("ready:") > ready
  end, 20)
end

describe("in a crash loop", function()
  for _, policy in ipairs({ "accept", "drop" }) do
    it("every packet gets on_error, " .. policy .. ", until a worker lives again", function()
      local run = start("--on-error " .. policy)
      boxes[1]:send("hold 1", "hold drop 2", "delay 3")
      boxes[2]:send("hold 4")
      net.wait_for("four kept", function()
        return net.queue(5).waiting == 3 and net.queue(6).waiting == 1
      end)
      begin_loop(run)
      local text = run:output():match("[^\n]*CRASH LOOP[^\n]*")
      assert.matches("nfqueue: error: CRASH LOOP: 4 workers in a row died at once; the next starts in 0.4 s, "
        .. "and until then every packet gets on_error", text, 1, true)
      -- What was kept has what a successor gives it.
      boxes[2]:await("hold 4")
      boxes[1]:await_count(2)
      assert.equal(1, net.rule_packets("INPUT", "mark match 0x4e"))
      for number = 1, 300 do
        boxes[number % 3 + 1]:send("packet " .. number)
      end
      net.await_judged(5, 6, 7)
      local accepts = policy == "accept"
      if accepts then
        assert.equal("packet 300", boxes[1]:await("packet 300")[102])
        assert.equal(100, #boxes[3]:await("packet 299"))
      end
      end_loop(run)
      boxes[1]:send("last")
      assert.equal(accepts and 103 or 3, #boxes[1]:await("last"))
      assert.equal(accepts and 101 or 1, #boxes[2]:all())
      assert.equal(accepts and 100 or 0, #boxes[3]:all())
      assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
      local lost = run:count("starting another")
      assert.is_true(lost >= 4)
      run:await(("queue 5 errors 100 lost 0 kept 0 workers %d\n"):format(lost))
      assert.equal(0, run:count("died in the handler"))
      run:signal("TERM")
      assert.equal(0, run:join())
    end)
  end

  it("a stop drains the queues and leaves them", function()
    local run = start("--on-error accept")
    begin_loop(run)
    boxes[1]:send("packet")
    run:signal("TERM")
    assert.equal(0, run:join())
    boxes[1]:await("packet")
    assert.is_nil(net.queue(5))
    assert.is_nil(net.queue(7))
    assert.equal(0, net.rule_packets("INPUT", "mark match 0x4d"))
  end)

  it("a second signal leaves at once", function()
    local run = start("--on-error accept")
    net.pause(begin_long_pause(run)) -- it would have left
    run:signal("TERM")
    run:await("draining the queues")
    run:signal("INT")
    assert.equal(1, run:join())
    assert.is_nil(net.queue(5))
  end)

  it("packets wait for the next worker when the stand-in dies, too", function()
    local run = start("--on-error drop")
    net.must("kill -KILL " .. begin_long_pause(run))
    run:await("the stand-in was killed by signal 9 (Killed): packets wait")
    boxes[1]:send("waits")
    os.remove(flag)
    boxes[1]:await("waits")
    assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
  end)
end)

describe("a worker that dies while it is draining", function()
  for _, policy in ipairs({ "accept", "drop" }) do
    it("leaves what waits to on_error, " .. policy, function()
      local run = start("--on-error " .. policy)
      boxes[1]:send("block")
      run:await("blocked")
      for number = 1, 100 do
        boxes[1]:send("packet " .. number)
      end
      run:signal("TERM")
      run:await("draining the queues")
      kill_worker(run)
      assert.equal(0, run:join())
      assert.matches("was killed by signal 9 (Killed); what waits gets on_error", run:output(), 1, true)
      assert.is_nil(net.queue(5))
      if policy == "accept" then
        boxes[1]:await("packet 100")
      end
      assert.equal(policy == "accept" and 101 or 0, #boxes[1]:all())
      assert.equal(1, run:count("died in the handler"))
    end)
  end
end)
