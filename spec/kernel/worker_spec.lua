-- Supervisor and worker: what a worker's death costs (the packet in the handler its verdict, nothing else),
-- and what the supervisor's death leaves behind.

local net = require("support.net")

if net.no_queue_list() then
  return pending("what a death costs: " .. net.no_queue_list())
end

local PORT = 4300
local boxes

local ACCEPT = "return function(pkt) pkt:accept() end"

before_each(function()
  net.cleanup()
  boxes = { net.udp(PORT), net.udp(PORT + 1), net.udp(PORT + 2) }
end)

after_each(function()
  for _, box in ipairs(boxes) do
    box:close()
  end
  net.cleanup()
end)

--- Kill the worker and wait for the next one to judge: its pid.
local function replace_worker(run)
  local old = run:worker()
  local ready = run:count("ready:")
  net.must("kill -KILL " .. old)
  net.wait_for("a new worker", function()
    return run:count("ready:") > ready
  end)
  local new = run:worker()
  assert.not_equal(old, new)
  return new
end

describe("nfqueue run", function()
  it("is two processes of one name, the worker a child of the supervisor", function()
    local run = net.run(net.file(ACCEPT) .. " -q 5")
    local worker = run:worker()
    assert.equal("nfqueue\n", net.read(("/proc/%d/comm"):format(run.pid)))
    assert.equal("nfqueue\n", net.read(("/proc/%d/comm"):format(worker)))
    assert.equal("", (net.sh("pgrep -P " .. worker)))
    assert.matches("worker pid " .. worker .. "\n", run:output(), 1, true)
  end)

  it("keeps its sockets from the programs a script starts", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt)
      if pkt:find("spawn") then
        os.execute("sleep 60 >/dev/null 2>&1 & echo child $! >&2")
      end
      pkt:accept()
    end]]) .. " -q 5")
    boxes[1]:send("spawn")
    boxes[1]:await("spawn")
    local child = run:output():match("child (%d+)")
    finally(function()
      net.sh("kill -KILL " .. child)
    end)
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.equal("sleep\n", net.read(("/proc/%s/comm"):format(child)))
    -- Neither the netlink socket nor anything else of the loop.
    local netlink = {}
    for inode in net.read("/proc/net/netlink"):gmatch("(%d+)%s*\n") do
      netlink["socket:[" .. inode .. "]"] = true
    end
    for target in net.must(("ls -l /proc/%s/fd"):format(child)):gmatch("-> ([^\n]+)") do
      assert.is_nil(netlink[target], target)
      assert.is_nil(target:find("anon_inode", 1, true), target)
      assert.is_nil(target:find("nfnetlink_queue", 1, true), target)
    end
    assert.is_nil(net.queue(5))
  end)
end)

describe("a worker killed while idle", function()
  it("is replaced behind the same socket, which stays bound", function()
    net.queue_udp(PORT, 5, "")
    local run = net.run(net.file(ACCEPT) .. " -q 5 --max-packets 33 --copy-range 100")
    boxes[1]:send("before")
    boxes[1]:await("before")
    local portid = net.queue(5).portid
    replace_worker(run)
    assert.equal(portid, net.queue(5).portid)
    assert.equal(100, net.queue(5).copy_range)
    boxes[1]:send("after")
    assert.same({ "before", "after" }, boxes[1]:await("after"))
    assert.equal(0, net.queue(5).waiting)
    assert.equal(1, run:count("worker %(pid %d+%) was killed by signal 9 %(Killed%); starting another"))
    assert.equal(0, run:count("died in the handler"))
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.is_nil(net.queue(5))
  end)

  it("before its first packet is replaced too", function()
    net.queue_udp(PORT, 5, "")
    local run = net.run(net.file(ACCEPT) .. " -q 5-7 --threads 2")
    replace_worker(run)
    boxes[1]:send("first")
    boxes[1]:await("first")
    assert.is_table(net.queue(7))
  end)

  it("leaves its successor empty stores, flows and buckets, which says so once", function()
    net.queue_udp(PORT, 5, "")
    local run = net.run(net.file([[
      local nfqueue = require("nfqueue")
      local store, flows = nfqueue.shared("counts"), nfqueue.flows({})
      local bucket = nfqueue.bucket("limit", { rate = 1e-9, burst = 2 })
      return function(pkt)
        local flow = flows:get(pkt)
        flow.count = (flow.count or 0) + 1
        io.stderr:write(("%s: store %d, flow %d, bucket %s\n"):format(pkt.payload, store:incr("packets"), flow.count,
          bucket:take("key")))
        pkt:accept()
      end
    ]]) .. " -q 5")
    local SAID = "warn: this worker starts with empty stores, flows and buckets: the dead one took its own along\n"
    for deaths = 0, 2 do
      boxes[1]:send("a" .. deaths, "b" .. deaths, "c" .. deaths)
      for number, letter in ipairs({ "a", "b", "c" }) do
        run:await(("%s%d: store %d, flow %d, bucket %s\n"):format(letter, deaths, number, number, number < 3))
      end
      assert.equal(deaths, run:count(SAID))
      replace_worker(run)
    end
  end)

  it("is counted where the handler can read it", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[return function(pkt, queue)
      io.stderr:write("lost ", queue:stats().workers_lost, "\n")
      pkt:accept()
    end]]) .. " -q 5")
    for deaths = 0, 2 do
      boxes[1]:send("packet")
      run:await("lost " .. deaths .. "\n")
      replace_worker(run)
    end
  end)
end)

describe("a worker killed in the handler", function()
  for _, case in ipairs({
    { policy = "drop", before = 0, after = 10 },
    { policy = "accept", before = 0, after = 10 },
    { policy = "drop", before = 5, after = 200 }, -- more than one batch waits
    { policy = "accept", before = 5, after = 200 },
    { policy = "drop", before = 0, after = 0 },
  }) do
    it(("costs that packet %s by on_error, and none of the %d before or %d behind it"):format(case.policy,
        case.before, case.after), function()
      local gate = net.make_gate()
      net.queue_udp(PORT, 5, "")
      local run = net.run(("%s -q 5 --on-error %s --time-limit 600 -- gate=%s")
        :format(net.file(net.GATED), case.policy, gate))
      local expected = {}
      net.pause(run:worker()) -- the blocking packet and those around it are one batch
      for number = 1, case.before do
        boxes[1]:send("before " .. number, "drop before " .. number)
        table.insert(expected, "before " .. number)
      end
      boxes[1]:send("block")
      if case.policy == "accept" then
        table.insert(expected, "block")
      end
      for number = 1, case.after do
        boxes[1]:send("after " .. number)
        table.insert(expected, "after " .. number)
        if number % 50 == 1 then
          boxes[1]:send("drop after " .. number)
        end
      end
      net.must("kill -CONT " .. run:worker())
      run:await("blocked")
      replace_worker(run)
      boxes[1]:send("last")
      table.insert(expected, "last")
      assert.same(expected, boxes[1]:await("last"))
      assert.equal(0, net.queue(5).waiting)
      assert.equal(1, run:count("blocked"), "no worker is handed that packet again")
      -- The packet is reported: its number in the queue, one line about it, and bytes that include its text.
      local id, line, bytes = run:output():match("died in the handler of packet (%d+) of queue 5: (.-) %((%x+)%)")
      assert.equal(2 * case.before + 1, tonumber(id))
      assert.matches("^IP 127%.0%.0%.1%.%d+ > 127%.0%.0%.1%.%d+: UDP, length 5$", line)
      assert.equal(2 * 33, #bytes)
      assert.is_truthy(run:output():find((("block"):gsub(".", function(c)
        return ("%02x"):format(c:byte())
      end)), 1, true))
    end)
  end

  it("costs the other queues of its thread nothing", function()
    local gate = net.make_gate()
    for i = 1, 3 do
      net.queue_udp(PORT + i - 1, 4 + i, "")
    end
    local run = net.run(("%s -q 5-7 --threads 1 --on-error drop --time-limit 600 -- gate=%s")
      :format(net.file(net.GATED), gate))
    boxes[2]:send("block")
    run:await("blocked")
    for number = 1, 100 do
      for _, box in ipairs(boxes) do
        box:send("packet " .. number)
      end
    end
    replace_worker(run)
    for i, box in ipairs(boxes) do
      local texts = box:await_count(100)
      assert.equal("packet 1", texts[1])
      assert.equal("packet 100", texts[100])
      box:send("last")
      assert.equal(101, #box:await("last"))
      assert.equal(0, net.queue(4 + i).waiting)
    end
  end)

  it("costs the other threads nothing", function()
    local gate = net.make_gate()
    net.queue_udp(PORT, 5, "")
    net.queue_udp(PORT + 1, 6, "")
    local run = net.run(("%s -q 5-6 --threads 2 --on-error drop --time-limit 600 -- gate=%s")
      :format(net.file(net.GATED), gate))
    boxes[1]:send("block")
    run:await("blocked")
    boxes[2]:send("passes beside it")
    boxes[2]:await("passes beside it")
    boxes[1]:send("waits behind it")
    replace_worker(run)
    assert.same({ "waits behind it" }, boxes[1]:await("waits behind it"))
    boxes[2]:send("last")
    assert.same({ "passes beside it", "last" }, boxes[2]:await("last"))
  end)

  it("again and again gives each of the killers on_error and judges the rest", function()
    net.queue_udp(PORT, 5, "")
    local run = net.run(net.file([[
      local pid = io.open("/proc/self/stat"):read("n")
      return function(pkt)
        if pkt:find("poison") then
          os.execute("kill -KILL " .. pid)
        end
        pkt:accept()
      end
    ]]) .. " -q 5 --on-error drop")
    boxes[1]:send("one", "poison 1", "two", "poison 2", "poison 3", "three", "last")
    assert.same({ "one", "two", "three", "last" }, boxes[1]:await("last"))
    assert.equal(3, run:count("died in the handler of packet"))
    run:signal("TERM")
    assert.equal(0, run:join())
  end)
end)
