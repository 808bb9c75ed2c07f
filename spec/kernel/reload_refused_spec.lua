-- Another script for a running one, by SIGHUP: what an error leaves, and what comes in between.

local net = require("support.net")
local reloading = require("support.reloading")
local traffic = require("support.traffic")

local hooks, script, stop = reloading.hooks, reloading.script, reloading.stop

local PORT = 4900
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  traffic.cleanup()
end)

local function ask_who()
  return reloading.ask_who(box)
end

local function refuses_conntrack()
  local run = net.start(net.command .. " run " .. net.file(script("probe")) .. " -q 9 --conntrack")
  net.wait_for("an answer", function()
    return run:output():find("does not support", 1, true) or run:output():find("ready", 1, true)
  end)
  local refuses = run:output():find("does not support", 1, true) ~= nil
  run:signal("TERM")
  run:join()
  return refuses
end

local BAD = {
  { "is gone", nil, "cannot read script %s: No such file or directory" },
  { "is a folder", "folder", "cannot read script %s again: it is not a regular file" },
  { "is a pipe", "fifo", "cannot read script %s again: it is not a regular file" },
  { "is too large", "large", "cannot read script %s: File too large" },
  { "does not compile", "return function(", "script %s does not compile: %s:1: " },
  { "is bytecode", "\27Lua", "script %s does not compile: attempt to load a binary chunk (mode is 't')" },
  { "fails while loading", "error('no')", "script %s failed while loading: %s:1: no" },
  { "fails with a table", "error({})", "script %s failed while loading: (error object is a table value)" },
  { "is empty", "", "%s: the script returns no handler: it must return a function, or a table with a function "
    .. "'packet' (got nothing)" },
  { "returns no handler", "return 5", "%s: the script returns no handler: it must return a function, or a table "
    .. "with a function 'packet' (got number)" },
  { "has an unknown setting", "return { packet = print, config = { color = 1 } }",
    "%s: unknown config key 'color' to 'script' (known: " },
  { "has a wrong setting", "return { packet = print, config = { default = 'maybe' } }",
    "%s: bad argument 'default' to 'script' (" },
  { "fails in open", script("bad", nil, "self.open = function() error('not open') end"),
    "open of the script failed: " },
}

describe("a script that cannot take the other's place", function()
  it("leaves that as it was, and says why", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5-7 --threads 2")
    for _, case in ipairs(BAD) do
      local what, text, expected = table.unpack(case)
      os.execute("rm -rf " .. path)
      if text == "folder" then
        net.must("mkdir " .. path)
      elseif text == "fifo" then
        net.must("mkfifo " .. path)
      elseif text == "large" then
        net.must("truncate -s 65M " .. path)
      elseif text then
        net.write(path, text)
      end
      local done, message = run:reload(path)
      assert.is_nil(done, what)
      expected = expected:gsub("%%s", function() return path end)
      assert.equal(expected, message:sub(1, #expected), what)
      assert.equal("one", ask_who(), what)
      assert.equal(0, run:count("close one"), what)
    end
    assert.is_true(run:reload(path, script("two")))
    assert.equal("two", ask_who())
    stop(run)
  end)

  it("fails in the open of one queue: those that were opened are closed", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5-7 --threads 1")
    assert.is_nil((run:reload(path, script("two", nil, [[
      self.open = function(queue)
        assert(queue.number < 7)
        io.stderr:write(("open two %d\n"):format(queue.number))
      end
    ]]))))
    assert.same({ "open one 5", "open one 6", "open one 7", "open two 5", "open two 6", "close two 5", "close two 6" },
      hooks(run))
    assert.equal("one", ask_who())
    stop(run)
  end)

  it("fails in one thread of two: both stay with the old one", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5-6 --threads 2")
    assert.is_nil((run:reload(path, script("two", nil, [[
      local open = self.open
      self.open = function(queue)
        open(queue)
        if queue.number == 6 then
          os.execute("sleep 0.1")
          error("not this one")
        end
      end
    ]]))))
    assert.equal("one", ask_who())
    assert.equal(0, run:count("close one"))
    assert.same({ 2, 1 }, { run:count("open two"), run:count("close two 5") })
    stop(run)
  end)

  it("does not come to an end: it is interrupted, or where it cannot be, its worker is another one after it", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5 --time-limit 0.05") -- ten times as long for these
    local worker = run:worker()
    local done, message = run:reload(path,
      script("two", nil, "self.open = function() while true do pcall(error) end end"))
    assert.is_nil(done)
    assert.equal("one", ask_who())
    -- ThreadSanitizer hands signals on at system calls only: there, nothing interrupts a loop.
    if os.getenv("NFQUEUE_SANITIZE") ~= "thread" then
      assert.matches("time limit of 0%.5 s exceeded", message)
      assert.equal(worker, run:worker())
    end
    done, message = run:reload(path, script("two", nil,
      "self.open = function() string.find(('a'):rep(3000), ('a-'):rep(60) .. 'b') end"))
    assert.is_nil(done)
    assert.equal(("the worker that loaded %s was ended: the script's open exceeded its time limit of 0.5 s and could "
      .. "not be interrupted (queue 5)"):format(path), message)
    assert.equal("one", ask_who())
    assert.are_not.equal(worker, run:worker())
    stop(run)
  end)

  it("needs what the kernel has not", function()
    if not refuses_conntrack() then
      return pending("this kernel has conntrack information")
    end
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5-6 --threads 1")
    local done, message = run:reload(path, script("two", nil, "self.config = { conntrack = true, copy_range = 99 }"))
    assert.is_nil(done)
    assert.equal("this kernel does not support conntrack (queue 5): it needs CONFIG_NETFILTER_NETLINK_GLUE_CT and the "
      .. "nf_conntrack_netlink module", message)
    assert.equal("one", ask_who())
    assert.equal(0, run:count("open two"))
    assert.equal(65531, net.queue(5) and net.queue(5).copy_range or 65531)
    stop(run)
  end)
end)

--- A script whose open says "opening" and waits at a gate, in its second life.
local function gated(name, gate)
  return script(name, nil, ([[
    self.open = function(queue)
      io.stderr:write(("open %%s %%d\n"):format(name, queue.number))
      io.open(%q .. (queue.number > 5 and queue.number or "")):read("l")
    end
  ]]):format(gate))
end

describe("a reload", function()
  it("that is asked for twice at once is done twice, with what there is then", function()
    net.queue_udp(PORT, 5, "")
    local gate = net.make_gate()
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5")
    net.write(path, gated("two", gate))
    run:signal("HUP")
    run:await("open two")
    net.write(path, script("three"))
    run:signal("HUP")
    run:signal("HUP")
    run:signal("HUP")
    net.open_gate(gate)
    net.wait_for("both", function()
      return run:count("info: reloaded") == 2
    end)
    assert.equal("three", ask_who())
    assert.same({ "open one 5", "open two 5", "close one 5", "open three 5", "close two 5" }, hooks(run))
    stop(run)
    assert.equal(2, run:count("info: reloaded"))
  end)

  it("is given up by a stop; both scripts close, and what waits is judged", function()
    net.queue_udp(PORT, 5, "")
    local gate = net.make_gate()
    net.must("mkfifo " .. gate .. 6)
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5-6 --threads 2")
    net.write(path, gated("two", gate))
    run:signal("HUP")
    net.wait_for("both", function()
      return run:count("open two") == 2
    end)
    for number = 1, 150 do
      box:send("packet " .. number)
    end
    run:signal("TERM")
    run:await("draining")
    run:signal("HUP")
    net.open_gate(gate)
    net.open_gate(gate .. 6)
    os.remove(gate .. 6)
    assert.equal(0, run:join())
    assert.equal("packet 150", box:await_count(150)[150])
    assert.equal(2, run:count("close two"))
    assert.equal(2, run:count("close one"))
    assert.equal(1, run:count("not reloaded, the script in force stays: nfqueue is stopping"))
  end)

  it("whose worker is killed leaves the old script with the next", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5")
    local worker = run:worker()
    local done, message = run:reload(path, script("two", nil, "self.open = function() os.exit(3) end"))
    assert.is_nil(done)
    assert.equal(("the worker that loaded %s ended with status 3 (os.exit in the script?)"):format(path), message)
    assert.equal("one", ask_who())
    assert.are_not.equal(worker, run:worker())
    stop(run)
  end)

  it("is the cure of a script that kills every worker", function()
    net.queue_udp(PORT, 5, "")
    -- From its second worker on: what lets it begin is gone.
    local path = net.file(script("one", "if not io.open((...).flag) then os.exit(3) end"))
    local flag = net.file()
    local run = net.run(("%s -q 5 --on-error accept -- flag=%s"):format(path, flag))
    os.remove(flag)
    net.must("kill -KILL " .. run:worker())
    net.wait_for("a pause", function()
      return run:count("ended with status 3") >= 2
    end)
    -- One that kills its worker as well, or fails, changes nothing.
    assert.is_nil((run:reload(path, script("two", "error('no')"))))
    assert.equal(1, run:count("not reloaded, the script in force stays: script %S+ failed while loading"))
    assert.is_nil((run:reload(path, script("two", "os.exit(4)"))))
    assert.is_true(run:reload(path, script("three")))
    assert.equal("three", ask_who())
    stop(run)
  end)

  it("that meets a death is taken or not, and it is known which", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("0"))
    local run = net.run(path .. " -q 5-6 --threads 2 --on-error accept --name meets")
    local portid, inforce = net.queue(5).portid, "0"
    for round = 1, 8 do
      local name = tostring(round)
      net.write(path, script(name))
      -- Before, in the middle, and after.
      if round % 3 == 0 then
        net.must("kill -KILL " .. run:worker())
      end
      local asking = net.start(net.command .. " reload --name meets")
      if round % 3 ~= 0 then
        os.execute(round % 3 == 1 and "sleep 0.005" or "sleep 0.02")
        net.sh("kill -KILL $(pgrep -P " .. run.pid .. ")")
      end
      local status = asking:join()
      if status == 0 then
        inforce = name
      else
        assert.same({ round, 65 }, { round, status })
        assert.matches("was killed by signal 9", asking:output(), 1, true)
      end
      net.wait_for("a worker", function()
        return net.sh(net.command .. " stats --name meets"):find("state +running")
      end)
      assert.equal(inforce, ask_who())
      -- A worker that has judged so many did not die at once: there is no pause after its death.
      local before = #box:all()
      for _ = 1, 70 do
        box:send("more")
      end
      box:await_count(before + 70)
    end
    assert.equal(portid, net.queue(5).portid)
    stop(run)
  end)

  it("waits for a worker that is being started", function()
    net.queue_udp(PORT, 5, "")
    local gate = net.make_gate()
    local path = net.file(script("one", "local args = ...", ([[self.open = function()
      if io.open(args.flag) then
        io.stderr:write("opening\n")
        io.open(%q):read("l")
      end
    end]]):format(gate)))
    local flag = net.file()
    os.remove(flag)
    local run = net.run(("%s -q 5 -- flag=%s"):format(path, flag))
    net.write(flag, "")
    net.must("kill -KILL " .. run:worker())
    run:await("opening")
    net.write(path, script("two"))
    run:signal("HUP")
    box:send("who")
    net.open_gate(gate)
    run:await("info: reloaded")
    box:await_count(1) -- by whichever
    assert.equal("two", ask_who())
    assert.equal("open two 5", hooks(run)[1]) -- the first one's says nothing
    stop(run)
    assert.same({ "open two 5", "close one 5", "close two 5" }, hooks(run))
  end)

  it("has its script from a pipe once", function()
    net.queue_udp(PORT, 5, "")
    local pipe = net.make_gate()
    local run = net.start(net.command .. " run " .. pipe .. " -q 5-6 --threads 2")
    net.must(("cat %s > %s"):format(net.file(script("one")), pipe))
    run:await("ready:")
    assert.equal("one", ask_who())
    stop(run)
  end)
end)

describe("SIGHUP", function()
  it("to the whole process group reloads once and ends nobody", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.start(("setsid %s run %s -q 5"):format(net.command, path))
    run:await("ready:")
    local worker = run:worker()
    net.write(path, script("two"))
    net.must(("env kill -s HUP -- -%d"):format(run.pid))
    run:await("info: reloaded")
    assert.equal("two", ask_who())
    assert.equal(worker, run:worker())
    stop(run)
    assert.equal(1, run:count("info: reloaded"))
  end)

  it("of a terminal that is gone asks for the end, unless nohup has asked for none", function()
    if not select(2, net.sh("command -v script nohup")) then
      return pending("there is no script(1) or nohup(1)")
    end
    for _, case in ipairs({ { "", true }, { "nohup ", false } }) do
      local path, log, pid = net.file(script("one")), net.file(), net.file()
      -- script(1) gives a terminal, and hangs it up when it is killed.
      local terminal = net.start(("script -qc 'echo $$ >%s; exec %s%s run %s -q 5 >/dev/null 2>%s' /dev/null")
        :format(pid, case[1], net.command, path, log))
      net.wait_for("it to be ready", function()
        return net.read(log):find("ready:", 1, true)
      end)
      local number = tonumber(net.read(pid):match("%d+"))
      terminal:signal("KILL")
      if case[2] then
        net.wait_for("its end", function()
          return not net.read(("/proc/%d/stat"):format(number)):find("%) [^Z]")
        end)
        assert.matches("Hangup: draining", net.read(log), 1, true)
      else
        net.wait_for("a reload", function()
          net.must("kill -HUP " .. number) -- again, as the kernel's may not have been read: then it is that one
          return net.read(log):find("info: reloaded", 1, true)
        end)
        net.must("kill -TERM " .. number)
        net.wait_for("its end", function()
          return not net.read(("/proc/%d/stat"):format(number)):find("%) [^Z]")
        end)
      end
    end
  end)
end)
