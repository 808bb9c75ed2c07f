-- The control socket of a running instance: `nfqueue reload`, `stop` and `stats`, and clients that are slow, hostile
-- or somebody else.

local net = require("support.net")

local PORT = 4950
local ACCEPT = "return function(pkt) pkt:accept() end"
local box, folder

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
  folder = net.must("mktemp -d")
end)

after_each(function()
  box:close()
  net.cleanup()
  os.execute("rm -rf " .. folder)
end)

local function with(words, variables)
  return ("env -u XDG_RUNTIME_DIR -u NFQUEUE_RUNTIME_DIR %s %s %s"):format(variables
    or "NFQUEUE_RUNTIME_DIR=" .. folder, net.command, words)
end

--- Start `nfqueue run` with its socket in `folder`.
local function run_here(words, variables)
  local run = net.start(with("run " .. words, variables))
  run:await("ready:")
  return run
end

--- What a command prints, and its exit status.
local function ask(words, variables)
  local output, _, status = net.sh(with(words, variables))
  return output, status
end

local function stop(run)
  run:signal("TERM")
  assert.equal(0, run:join())
end

local function connect()
  local socket = require("socket.unix")()
  assert(socket:connect(folder .. "/nfqueue.sock"))
  socket:settimeout(10)
  return socket
end

--- Wait until so many have asked and not been answered.
local function await_clients(wanted)
  net.wait_for("their requests", function()
    -- Those that are connected; ss knows no Unix sockets on every kernel.
    local _, count = net.read("/proc/net/unix"):gsub(" 03 +%d+ " .. folder:gsub("%p", "%%%0"), "")
    return count >= wanted
  end)
end

describe("nfqueue reload", function()
  it("is done when it returns; its exit status tells whether it worked, and why not", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(ACCEPT)
    local run = run_here(path .. " -q 5")
    net.write(path, "return function(pkt) pkt.payload = 'two' pkt:accept() end")
    assert.same({ "", 0 }, { ask("reload") })
    box:send("one")
    assert.same({ "two" }, box:await("two"))
    for _, case in ipairs({
      { "return function(", 65, "nfqueue: script %s does not compile: %s:1: " },
      { "error('no')", 65, "nfqueue: script %s failed while loading: %s:1: no" },
      { "return { packet = print, open = function() error('not open') end }", 65,
        "nfqueue: open of the script failed: " },
      { "return { packet = print, config = { color = 1 } }", 78, "nfqueue: %s: unknown config key 'color'" },
      { nil, 66, "nfqueue: cannot read script %s: No such file or directory" },
    }) do
      if case[1] then
        net.write(path, case[1])
      else
        os.remove(path)
      end
      local output, status = ask("reload")
      local expected = case[3]:gsub("%%s", function() return path end)
      assert.same({ case[2], expected }, { status, output:sub(1, #expected) })
    end
    box:send("three")
    assert.same({ "two", "two" }, box:await_count(2))
    stop(run)
  end)

  it("that come together are all answered, each by what was there when it came", function()
    local path = net.file(ACCEPT)
    local gate = net.make_gate()
    local run = run_here(path .. " -q 5")
    net.write(path, ("io.stderr:write('loading\\n') io.open(%q):read('l') error('first')"):format(gate))
    local first = net.start(with("reload"))
    run:await("loading")
    net.write(path, ACCEPT)
    local others = { net.start(with("reload")), net.start(with("reload")) }
    await_clients(3)
    net.open_gate(gate)
    assert.equal(65, first:join())
    assert.matches("first", first:output(), 1, true)
    for _, other in ipairs(others) do
      assert.same({ 0, "" }, { other:join(), other:output() })
    end
    assert.matches('"reloads":[12],', (ask("stats --json")))
    stop(run)
  end)

  it("says so when nobody runs, or it is stopping", function()
    local message = "nfqueue: no nfqueue named '%s' runs here (looked for " .. folder .. "/%s.sock)"
    assert.same({ message:format("nfqueue", "nfqueue"), 69 }, { ask("reload") })
    assert.same({ message:format("web", "web"), 69 }, { ask("reload --name web") })
    assert.same({ "nfqueue: no nfqueue named 'not-there' runs here (looked for /run/nfqueue/not-there.sock)", 69 },
      { ask("reload --name not-there", "NFQUEUE_RUNTIME_DIR=") })
    for _, name in ipairs({ "../x", ".x", "''", ("x"):rep(65) }) do
      local output, status = ask("reload --name " .. name)
      assert.same({ ("nfqueue: option '--name': letters, digits, '.', '-' and '_' expected, at most 64, got '%s' "
        .. "(see nfqueue reload --help)"):format(name == "''" and "" or name), 64 }, { output, status })
    end
    local gate = net.make_gate()
    net.queue_udp(PORT, 5, "")
    local run = run_here(net.file(net.GATED) .. " -q 5 -- gate=" .. gate)
    box:send("block")
    run:await("blocked")
    run:signal("TERM")
    run:await("draining")
    assert.same({ "nfqueue: nfqueue is stopping", 69 }, { ask("reload") })
    assert.matches("\nstate +stopping\n", (ask("stats")))
    net.open_gate(gate)
    assert.equal(0, run:join())
  end)
end)

describe("nfqueue stop", function()
  it("returns when all that waits is judged and the queue is left", function()
    net.queue_udp(PORT, 5, "")
    local gate = net.make_gate()
    local run = run_here(net.file(net.GATED) .. " -q 5 --name web -- gate=" .. gate)
    box:send("block")
    run:await("blocked")
    for number = 1, 150 do
      box:send("packet " .. number)
    end
    local stops = { net.start(with("stop --name web")), net.start(with("stop --name web")) }
    run:await("asked to stop: draining")
    await_clients(2)
    assert.is_true(stops[1]:is_alive())
    net.open_gate(gate)
    for _, one in ipairs(stops) do
      assert.same({ 0, "" }, { one:join(), one:output() })
    end
    assert.is_nil(net.queue(5))
    assert.equal("packet 150", box:await_count(151)[151])
    assert.equal(0, run:join())
    assert.equal(69, select(2, ask("stop --name web")))
    assert.equal("", net.must("ls " .. folder))
  end)

  it("tells of an end that was not a good one", function()
    net.queue_udp(PORT, 5)
    local run = run_here(net.file(net.GATED) .. " -q 5 -- gate=" .. net.make_gate())
    box:send("block")
    run:await("blocked")
    local stopping = net.start(with("stop"))
    run:await("draining")
    run:signal("TERM") -- the second wish: at once
    run:await("leaving at once")
    assert.same({ 1, "nfqueue: nfqueue did not end well: see its log\n" }, { stopping:join(), stopping:output() })
    assert.equal(1, run:join())
  end)
end)

describe("nfqueue stats", function()
  it("shows the counters, while the worker does nothing", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file([[return function(pkt)
      if pkt:find("drop") then pkt:drop() elseif pkt:find("fail") then error("asked") else pkt:accept() end
    end]])
    local run = run_here(path .. " -q 5-6 --threads 1")
    box:send("drop", "fail", "one", "two")
    box:await("two")
    local worker = run:worker()
    net.wait_for("the counters", function()
      return ask("stats"):find("\npackets +4 ")
    end)
    net.pause(worker)
    local output, status = ask("stats")
    assert.equal(0, status)
    assert.matches(("^name +nfqueue\nversion +%%S+\npid +%d\nstate +running\nworker_pid +%d\nscript +%s\nthreads +1\n")
      :format(run.pid, worker, path), output)
    assert.matches("\nworkers_lost +0\nreloads +0\nenobufs +0\n", output)
    assert.matches("\nqueue +all +5 +6\npackets +4 +4 +0\n", output)
    assert.matches("\naccepted +2 +2 +0\ndropped +2 +2 +0\n", output)
    assert.matches("\nerrors +1 +1 +0\n", output)
    local json = ask("stats --json")
    assert.matches(('^{"name":"nfqueue","version":"[^"]+","pid":%d,"state":"running","worker_pid":%d,"script":"%s",'
      .. '"threads":1,"workers_lost":0,"reloads":0,"enobufs":0,"queues":%%[{"queue":5,"packets":4,"bytes":%%d+,"acc')
      :format(run.pid, worker, path), json)
    assert.matches('},{"queue":6,"packets":0,', json, 1, true)
    if not net.no_queue_list() then
      assert.matches('"kernel_queue_dropped":0,"kernel_user_dropped":0,"waiting":0}]}$', json)
    end
    net.must("kill -CONT " .. worker)
    net.must("kill -KILL " .. worker)
    net.wait_for("another", function()
      return ask("stats --json"):find('"state":"running","worker_pid":%d+,.*"workers_lost":1,')
    end)
    stop(run)
  end)

  it("are those of one queue alone", function()
    local run = run_here(net.file(ACCEPT) .. " -q 7")
    assert.matches("\nqueue +7\npackets +0\n", (ask("stats")))
    stop(run)
  end)
end)

describe("an instance", function()
  it("takes the place of one that was killed, worker and all", function()
    net.queue_udp(PORT, 5)
    local run = run_here(net.file(net.GATED) .. " -q 5 -- gate=" .. net.make_gate())
    box:send("block")
    run:await("blocked")
    local worker = run:worker()
    run:signal("KILL")
    run:join()
    -- The worker that is left behind has not its supervisor's socket.
    assert.equal(69, select(2, ask("stats")))
    assert.equal("nfqueue.sock", net.must("ls " .. folder))
    local other = run_here(net.file(ACCEPT) .. " -q 6")
    assert.equal(0, other:count("control socket"))
    assert.equal(0, select(2, ask("stats")))
    net.sh("kill -KILL " .. worker)
    stop(other)
  end)

  it("of a name that is taken does not start; one without a name runs without a socket", function()
    local one = run_here(net.file(ACCEPT) .. " -q 5")
    local web = run_here(net.file(ACCEPT) .. " -q 6 --name web")
    local taken = folder .. "/%s.sock); give this one another --name"
    local two = run_here(net.file(ACCEPT) .. " -q 7")
    two:await("without a control socket")
    assert.matches("nfqueue: warn: an nfqueue named 'nfqueue' runs already (" .. taken:format("nfqueue")
      .. "; it runs without a control socket\n", two:output(), 1, true)
    local output, status = ask("run " .. net.file(ACCEPT) .. " -q 8 --name web")
    -- One that does not start says only why not.
    assert.matches("^nfqueue: error: queue 5 is held by nfqueue %(pid %d+%); stop it or use another number$",
      net.no_queue_list() and "nfqueue: error: queue 5 is held by nfqueue (pid 1); stop it or use another number"
      or (ask("run " .. net.file(ACCEPT) .. " -q 5")))
    assert.same({ "nfqueue: error: an nfqueue named 'web' runs already (" .. taken:format("web"), 69 },
      { output, status })
    stop(two)
    assert.matches(("pid +%d\n"):format(one.pid), (ask("stats")))
    assert.matches(("pid +%d\n"):format(web.pid), (ask("stats --name web")))
    stop(one)
    stop(web)
    assert.equal("", net.must("ls " .. folder))
  end)

  it("has its socket for its owner alone, where XDG_RUNTIME_DIR says, if it must", function()
    local run = run_here(net.file(ACCEPT) .. " -q 5")
    assert.equal("600 " .. net.must("id -u"), net.must(("stat -c '%%a %%u' %s/nfqueue.sock"):format(folder)))
    stop(run)
    if net.must("id -u") ~= "0" or not select(2, net.sh("test -w /run")) then
      local variables = "XDG_RUNTIME_DIR=" .. folder
      run = run_here(net.file(ACCEPT) .. " -q 5", variables)
      assert.equal("700", net.must(("stat -c %%a %s/nfqueue"):format(folder)))
      assert.equal(0, select(2, ask("stats", variables)))
      stop(run)
    end
  end)

  for _, case in ipairs({
    { "is not there", "%s/no/folder", "%s/no/folder: No such file or directory" },
    { "is a file", "%s/file", "%s/file: Not a directory" },
    { "is everybody's", "%s/open", "%s/open: not its owner's alone to write to" },
    { "has too long a name", "%s/" .. ("x"):rep(120), "%s/" .. ("x"):rep(120) .. ": File name too long" },
  }) do
    it("runs without a socket when the folder " .. case[1], function()
      net.must(("touch %s/file; mkdir -m 777 %s/open"):format(folder, folder))
      local variables = "NFQUEUE_RUNTIME_DIR=" .. case[2]:format(folder)
      local run = run_here(net.file(ACCEPT) .. " -q 5", variables)
      run:await("without a control socket")
      assert.matches("nfqueue: warn: no folder for the control socket (" .. case[3]:format(folder)
        .. "); it runs without a control socket\n", run:output(), 1, true)
      assert.equal(69, select(2, ask("stats", variables)))
      run:signal("HUP")
      run:await("info: reloaded")
      stop(run)
    end)
  end
end)

describe("clients of the control socket", function()
  it("that say nothing, too much, or nonsense are got rid of, and delay nobody", function()
    net.queue_udp(PORT, 5, "")
    local run = run_here(net.file(ACCEPT) .. " -q 5")
    local nonsense = connect()
    nonsense:send("dance\n")
    assert.equal("64\nthis nfqueue knows no such request\n", nonsense:receive("*a"))
    local flood = connect()
    flood:send(("stats"):rep(1000))
    assert.equal("64", (flood:receive("*l")))
    flood:close()
    local gone = connect()
    gone:send("reload\n")
    gone:close()
    local parts = connect()
    for part in ("sta|ts|\n"):gmatch("[^|]+") do
      parts:send(part)
    end
    assert.equal("0", (parts:receive("*l")))
    parts:close()
    -- As many as are served, and one that waits for that.
    local idle = {}
    for i = 1, 9 do
      idle[i] = connect()
      if i % 2 == 0 then
        idle[i]:send("sta")
      end
    end
    net.must("kill -KILL " .. run:worker())
    net.wait_for("another worker", function()
      return run:count("ready:") == 2
    end)
    box:send("judged")
    box:await("judged")
    -- Those are told off one by one, and then it is this one's turn.
    assert.equal(0, select(2, ask("stop")))
    assert.equal(0, run:join())
    for _, one in ipairs(idle) do
      assert.equal("closed", select(2, one:receive("*l")))
      one:close()
    end
  end)

  it("that do not read their answer delay nobody", function()
    local run = run_here(net.file(ACCEPT) .. " -q 0-1023 --threads 1 --buffer-size 4096")
    local lazy = connect()
    lazy:send("stats\n") -- more than a socket holds
    assert.equal(0, select(2, ask("stats")))
    assert.equal(1024, select(2, ask("stats --json"):gsub('"queue":', "")))
    stop(run)
    lazy:close()
  end)

  it("are its owner's and root's only", function()
    if net.must("id -u") ~= "0" or not select(2, net.sh("setpriv --reuid 65534 --clear-groups true")) then
      return pending("only root can be somebody else")
    end
    local run = run_here(net.file(ACCEPT) .. " -q 5")
    local as_other = "setpriv --reuid 65534 --clear-groups "
    net.must("chmod 755 " .. folder)
    local output, _, status = net.sh(as_other .. with("stats"))
    assert.same({ ("nfqueue: cannot ask nfqueue 'nfqueue' (%s/nfqueue.sock): Permission denied"):format(folder), 77 },
      { output, status })
    -- The file's mode is not all that keeps them out.
    net.must(("chmod 666 %s/nfqueue.sock"):format(folder))
    output, _, status = net.sh(as_other .. with("stop"))
    assert.same({ "nfqueue: nfqueue 'nfqueue' ended without an answer", 69 }, { output, status })
    assert.is_true(run:is_alive())
    assert.equal(0, select(2, ask("stats")))
    stop(run)
  end)
end)
