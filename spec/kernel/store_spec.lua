-- The whole service dies: with a service manager that keeps its descriptors nothing is lost, in a restart by another
-- version neither; what cannot be taken over is said. Without one the rule's bypass takes over.

local net = require("support.net")

if net.no_queue_list() then
  return pending("a service that dies: " .. net.no_queue_list())
end

local MANAGER = net.build .. "/support/manager"
local NEWER = net.build .. "/bin/nfqueue-newer"
local PORT = 4600
local boxes, command

-- Marks are of the version that judged; a hold is released by its end.
local SCRIPT = [[
  local nfqueue = require("nfqueue")
  local args = ...
  local mark = nfqueue._VERSION:find("newer") and 78 or 77
  return {
    packet = function(pkt, queue)
      if pkt:find("block") then
        io.stderr:write("blocked\n")
        io.open(args.gate):read("l")
      elseif pkt:find("hold") then
        return pkt:hold(1000, pkt:find("drop") and "drop" or "accept")
      elseif pkt:find("delay") then
        return pkt:delay(1000, { mark = 80 })
      elseif pkt:find("child") then
        os.execute("sleep 60 >/dev/null 2>&1 & echo child $! >&2")
      elseif pkt:find("stats") then
        local stats = queue:stats()
        io.stderr:write(("stats packets %d workers %d errors %d\n"):format(stats.packets, stats.workers_lost,
          stats.errors))
      end
      pkt:accept({ mark = mark })
    end,
    close = function(queue) io.stderr:write("closed ", queue.number, "\n") end,
  }
]]

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

-- What the manager runs from its next start on.
local function set_command(program, words)
  local file = assert(io.open(command, "w"))
  file:write(("exec %s run %s\n"):format(program, words))
  file:close()
end

local function make_rules(more)
  for i = 1, 3 do
    net.queue_udp(PORT + i - 1, 4 + i, more or "")
  end
  for mark = 77, 80 do
    net.must(("iptables -w -A INPUT -p udp --dport %d:%d -m mark --mark %d"):format(PORT, PORT + 2, mark))
  end
end

local function marked(mark)
  return net.rule_packets("INPUT", ("mark match 0x%x"):format(mark))
end

local script, gate

local function words(options)
  return ("%s %s -- gate=%s"):format(script, options or "-q 5-7 --threads 2 --on-error drop", gate)
end

local function start(options, most, more)
  script, gate, command = net.file(SCRIPT), net.make_gate(), net.file()
  make_rules()
  set_command(net.command, words(options))
  local manager = net.start(("%s %d %s %s"):format(MANAGER, most or 16, command, more or ""))
  manager:await("READY=1")
  return manager
end

-- The main process that was started last.
local function main_pid(manager)
  local pid
  for found in manager:output():gmatch("started (%d+)\n") do
    pid = found
  end
  return pid
end

local function worker_pid(manager)
  return math.tointeger(tonumber(net.must("pgrep -P " .. main_pid(manager))))
end

-- Stops worker and supervisor, so that it is certain what waits when they are killed.
local function freeze(manager)
  local main, worker = main_pid(manager), worker_pid(manager)
  net.pause(main)
  net.pause(worker)
  return main, worker
end

local function kill_all(manager, first, ...)
  local ready = manager:count("READY=1")
  -- Of what the first leaves the manager may be quicker.
  net.sh(("kill -KILL %s"):format(table.concat({ first, ... }, " ")))
  net.wait_for("the next run", function()
    return manager:count("READY=1") > ready
  end, 20)
end

describe("with a descriptor store", function()
  it("the service says what it does, and gives the sockets and the memory", function()
    local manager = start()
    local output = manager:output()
    for _, name in ipairs({ "nfqueue-memory", "nfqueue-socket-0", "nfqueue-socket-1" }) do
      assert.equal(1, manager:count("FDSTORE=1\nFDNAME=" .. name:gsub("%-", "%%-") .. "\nFDPOLL=0\n"), name)
    end
    assert.matches("kept 3\n.*READY=1\nSTATUS=judging 3 queues with ", output)
    net.must("kill -HUP " .. main_pid(manager))
    net.wait_for("the reload", function()
      return manager:count("READY=1") == 2
    end)
    local usec = manager:output():match("RELOADING=1\nMONOTONIC_USEC=(%d+)\n")
    assert.is_true(math.abs(usec / 1e6 - tonumber(net.read("/proc/uptime"):match("^%S+"))) < 60)
    -- Nothing of the manager is for the programs that a script starts.
    boxes[1]:send("child")
    boxes[1]:await("child")
    local child = manager:output():match("child (%d+)")
    finally(function()
      net.sh("kill -KILL " .. child)
    end)
    local environment = net.read(("/proc/%s/environ"):format(child))
    assert.is_nil(environment:find("NOTIFY_SOCKET") or environment:find("FDSTORE") or environment:find("LISTEN_"))
    assert.is_nil(net.must(("ls -l /proc/%s/fd"):format(child)):find("memfd", 1, true))
    manager:signal("TERM")
    assert.equal(0, manager:join())
    assert.matches("STOPPING=1\nSTATUS=draining the queues\n.*ended 0\n", manager:output())
    assert.equal(2, manager:count("closed 5\n")) -- by the reload, too
    net.wait_for("the queues to be left", function()
      return not net.queue(5) and not net.queue(7)
    end)
  end)

  for _, program in ipairs({ { "the same version", net.command, 77 }, { "a newer version", NEWER, 78 } }) do
    it("a kill of the whole service loses nothing: " .. program[1], function()
      local manager = start()
      boxes[1]:send("hold 1", "hold drop 2", "delay 3")
      boxes[2]:send("one")
      boxes[2]:await("one")
      net.wait_for("three kept", function()
        return net.queue(5).waiting == 3
      end)
      local portid = net.queue(5).portid
      set_command(program[2], words())
      local main, worker = freeze(manager)
      for number = 1, 300 do
        boxes[number % 3 + 1]:send("packet " .. number)
      end
      kill_all(manager, main, worker)
      assert.matches("taking the queues over from the service's last run", manager:output(), 1, true)
      assert.equal(portid, net.queue(5).portid)
      assert.equal(102, #boxes[1]:await_count(102))
      assert.equal(101, #boxes[2]:await_count(101))
      assert.equal(100, #boxes[3]:await_count(100))
      net.await_judged(5, 6, 7)
      for i = 5, 7 do
        assert.equal(0, net.queue(i).queue_dropped + net.queue(i).user_dropped)
      end
      assert.equal(1, marked(80)) -- as the delayed one was decided
      -- each by the handler of the version that ran when it was judged
      assert.equal(program[3] == 77 and 301 or 300, marked(program[3]))
      -- and again, with what that version gave
      kill_all(manager, main_pid(manager), worker_pid(manager))
      boxes[3]:send("stats")
      boxes[3]:await("stats")
      assert.matches("stats packets 101 workers 0 errors 0\n", manager:output(), 1, true)
      manager:signal("TERM")
      assert.equal(0, manager:join())
    end)
  end

  it("the packet in the handler gets on_error when all is killed, and its batch the handler", function()
    local manager = start()
    local worker = worker_pid(manager)
    net.pause(worker)
    boxes[1]:send("before", "block", "after")
    net.must("kill -CONT " .. worker)
    manager:await("blocked")
    kill_all(manager, main_pid(manager), worker)
    assert.same({ "before", "after" }, boxes[1]:await("after"))
    assert.equal(1, manager:count("died in the handler of packet 2 of queue 5"))
    assert.equal(1, manager:count("blocked"))
  end)

  it("a restart drains, leaves the queues bound, and loses nothing of what comes meanwhile", function()
    local manager = start("-q 5-7 --threads 2 --on-error accept")
    boxes[1]:send("hold 1", "hold drop 2")
    net.wait_for("two kept", function()
      return net.queue(5).waiting == 2
    end)
    local portid = net.queue(5).portid
    local go = net.make_gate()
    local file = assert(io.open(command, "w"))
    file:write(("read word < %s\nexec %s run %s\n"):format(go, NEWER, words("-q 5-7 --threads 2 --copy-range 200")))
    file:close()
    manager:signal("USR1")
    manager:await("ended 0")
    assert.same({ "hold 1" }, boxes[1]:await("hold 1"))
    -- Nobody is there; the kernel keeps what comes, with on_error accept, too.
    for number = 1, 90 do
      boxes[number % 3 + 1]:send("packet " .. number)
    end
    assert.equal(30, net.queue(6).waiting)
    assert.equal(portid, net.queue(5).portid)
    net.open_gate(go)
    for i = 1, 3 do
      assert.equal(i == 1 and 31 or 30, #boxes[i]:await_count(i == 1 and 31 or 30))
    end
    assert.equal(90, marked(78))
    assert.equal(200, net.queue(5).copy_range) -- other settings are in force
  end)

  for _, case in ipairs({
    { "other queues", "-q 5-8 --threads 2", "it had other queues, or another number of threads" },
    { "as many others", "-q 4-6 --threads 2", "it had other queues" },
    { "more threads", "-q 5-7 --threads 3", "sockets are missing" },
    { "fewer threads", "-q 5-7 --threads 1", "they are of more threads" },
  }) do
    it("what was asked for otherwise begins anew, and says so: " .. case[1], function()
      local manager = start()
      set_command(net.command, words(case[2]))
      local main, worker = freeze(manager)
      boxes[1]:send("lost")
      kill_all(manager, main, worker)
      assert.matches("error: the queues of the service's last run cannot be taken over: " .. case[3]
        .. "; beginning anew, and what waits in them is dropped", manager:output(), 1, true)
      assert.is_true(manager:count("FDSTOREREMOVE=1") >= 3)
      boxes[1]:send("after")
      assert.same({ "after" }, boxes[1]:await("after"))
    end)
  end

  for _, case in ipairs({
    { "another magic number", 0, "I4", 7, "that memory is not nfqueue's" },
    { "another version of the layout", 4, "I4", 99, "its memory has the layout of another version" },
    { "another size", 8, "I8", 4096, "its memory has another layout" },
  }) do
    it("a memory that is not as this version makes it is not taken: " .. case[1], function()
      local manager = start()
      local main, worker = freeze(manager)
      local folder = ("/proc/%d/fd/"):format(manager.pid)
      local number = net.must("ls -l " .. folder):match("(%d+) %-> /memfd:nfqueue")
      local file = assert(io.open(folder .. number, "r+b"))
      file:seek("set", case[2])
      file:write((case[3]):pack(case[4]))
      file:close()
      -- It cannot be made shorter under those who use it.
      assert.is_false(select(2, net.sh("truncate -s 4096 " .. folder .. number)))
      boxes[1]:send("lost")
      kill_all(manager, main, worker)
      assert.matches("cannot be taken over: " .. case[5] .. "; beginning anew, and what waits in them is dropped",
        manager:output(), 1, true)
      boxes[1]:send("after")
      assert.same({ "after" }, boxes[1]:await("after"))
      -- What the manager keeps from here on is the new one.
      kill_all(manager, main_pid(manager), worker_pid(manager))
      assert.matches("taking the queues over from the service's last run", manager:output(), 1, true)
    end)
  end

  it("too small a store is said, and the service runs without", function()
    local manager = start(nil, 2)
    assert.matches("keeps 2 descriptors, but 3 are to be kept: a restart loses what waits (FileDescriptorStoreMax=)",
      manager:output(), 1, true)
    assert.equal(0, manager:count("\nkept"))
    manager:signal("TERM")
    assert.equal(0, manager:join())
  end)

  it("a worker that is left alive is ended before another judges", function()
    local manager = start(nil, nil, "leave")
    local main, worker = freeze(manager)
    boxes[1]:send("waits")
    kill_all(manager, main)
    assert.matches("killing the worker that the last run left (pid " .. worker .. ")", manager:output(), 1, true)
    assert.same({ "waits" }, boxes[1]:await("waits"))
    assert.equal(1, marked(77))
  end)
end)

describe("without one", function()
  it("a kill of all loses what was queued and, with bypass, nothing after it, a child left or not", function()
    for _, child in ipairs({ false, true }) do
      script, gate = net.file(SCRIPT), net.make_gate()
      make_rules("--queue-bypass")
      local run = net.run(words())
      if child then
        boxes[1]:send("child")
        boxes[1]:await("child")
        local pid = run:output():match("child (%d+)")
        finally(function()
          net.sh("kill -KILL " .. pid)
        end)
      end
      local worker = run:worker()
      net.pause(run.pid)
      net.pause(worker)
      for number = 1, 20 do
        boxes[1]:send("queued " .. number)
      end
      assert.equal(20, net.queue(5).waiting)
      net.must(("kill -KILL %d %d"):format(run.pid, worker))
      net.wait_for("the queues to be free", function()
        return not net.queue(5) and not net.queue(6) and not net.queue(7)
      end)
      for number = 1, 50 do
        boxes[1]:send("later " .. number)
      end
      local texts = boxes[1]:await("later 50")
      assert.equal(child and 51 or 50, #texts)
      assert.equal("later 1", texts[child and 2 or 1])
      boxes[1].texts = {}
      net.flush_rules()
    end
  end)
end)
