-- Another script for a running one, by SIGHUP: what judges which packet, what survives, what an error leaves, and
-- what comes in between.

local net = require("support.net")
local traffic = require("support.traffic")

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

--- A script that tells its name at open and close, and accepts what does not say "drop"; `body` is Lua before its
-- table, `more` further fields of that.
local function script(name, body, more)
  return ([[
    local nfqueue, name = require("nfqueue"), %q
    %s
    local self = {
      open = function(queue) io.stderr:write(("open %%s %%d\n"):format(name, queue.number)) end,
      close = function(queue) io.stderr:write(("close %%s %%d\n"):format(name, queue.number)) end,
      packet = function(pkt)
        if pkt:find("who") then
          pkt.payload = name .. " " .. pkt.length
        end
        pkt:accept()
      end,
    }
    %s
    return self
  ]]):format(name, body or "", more or "")
end

--- The lines "open ..." and "close ..." of its output.
local function hooks(run)
  local lines = {}
  for line in run:output():gmatch("[^\n]+") do
    if line:find("^open ") or line:find("^close ") then
      lines[#lines + 1] = line
    end
  end
  return lines
end

local function ask_who()
  local before = #box:all()
  box:send("who")
  return (box:await_count(before + 1)[before + 1]:match("^%S+"))
end

local function stop(run)
  run:signal("TERM")
  assert.equal(0, run:join())
end

describe("a script that is loaded anew", function()
  it("judges from the next packet on; it opens before the old one closes", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one"))
    local run = net.run(path .. " -q 5")
    assert.equal("one", ask_who())
    assert.is_true(run:reload(path, script("two")))
    assert.equal("two", ask_who())
    assert.same({ "open one 5", "open two 5", "close one 5" }, hooks(run))
    stop(run)
    assert.equal("close two 5", hooks(run)[4])
    assert.equal(0, run:count("error:"))
  end)

  for _, threads in ipairs({ 1, 2, 4 }) do
    it(("opens in every thread before any of the old ones closes: 4 queues, %d threads"):format(threads), function()
      local path = net.file(script("one"))
      local run = net.run(("%s -q 5-8 --threads %d"):format(path, threads))
      assert.is_true(run:reload(path, script("two")))
      local lines = hooks(run)
      assert.equal(12, #lines)
      for place, word in ipairs({ "open one", "open two", "close one" }) do
        local numbers = {}
        for i = 4 * place - 3, 4 * place do
          assert.equal(word, lines[i]:sub(1, -3))
          numbers[#numbers + 1] = tonumber(lines[i]:sub(-1))
        end
        table.sort(numbers)
        assert.same({ 5, 6, 7, 8 }, numbers)
      end
      stop(run)
    end)
  end

  it("keeps its arguments and the command line's settings, and brings its own", function()
    net.queue_udp(PORT, 5, "")
    local tell = [[
      self.open = function(queue)
        local config = queue.config
        io.stderr:write(("open %s %s %s %s %s %d %s\n"):format(name, args.word, config.default, config.on_error,
          config.hold_limit, config.loop_mark, tostring(config.gso)))
      end
    ]]
    local function with(name, config)
      return script(name, "local args = ...", tell .. "self.config = " .. config)
    end
    local path = net.file(with("one", "{ default = 'drop', hold_limit = 3 }"))
    local run = net.run(path .. " -q 5 --on-error accept -- word=same")
    assert.is_true(run:reload(path,
      with("two", "{ default = 'accept', on_error = 'drop', hold_limit = 7, loop_mark = 9, gso = false }")))
    assert.same({ "open one same drop accept 3.0 28273 true", "open two same accept accept 7.0 9 false" },
      { table.unpack(hooks(run), 1, 2) })
    stop(run)
  end)

  it("is judged by under its own default, on_error and filter", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file("return { packet = function(pkt) if pkt:find('fail') then error('asked') end end }")
    local run = net.run(path .. " -q 5")
    box:send("one", "fail")
    box:await("one")
    assert.is_true(run:reload(path, ([[return {
      config = { default = "drop", on_error = "accept", filter = "udp[8] != 0x78" },
      packet = function(pkt) if pkt:find('fail') then error('asked') end end,
    }]])))
    box:send("undecided", "fail", "x unseen")
    assert.same({ "one", "fail", "x unseen" }, box:await("x unseen"))
    stop(run)
  end)

  it("sets the kernel's settings; what came under the old ones is the old script's", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5, "")
    local tell = [[
      local seen = {}
      self.packet = function(pkt)
        local kind = ("%d of %d"):format(#pkt, pkt.length)
        seen[kind] = (seen[kind] or 0) + 1
        pkt:drop()
      end
      self.close = function()
        for kind, count in pairs(seen) do
          io.stderr:write(("close %s %d packets, %s\n"):format(name, count, kind))
        end
      end
    ]]
    local path = net.file(script("one", nil, tell .. "self.config = { copy_range = 64 }"))
    local run = net.run(path .. " -q 5")
    local worker = run:worker()
    local sockets = {}
    local function send(count)
      for i = 1, count do
        local number = i % 20 -- what waits in the queue counts for the socket it came from
        sockets[number] = sockets[number] or require("socket").udp()
        assert(sockets[number]:sendto(("x"):rep(172), "127.0.0.1", PORT))
      end
    end
    net.pause(worker)
    send(3000)
    net.write(path, script("two", nil, tell .. "self.config = { copy_range = 100, max_packets = 777, gso = false }"))
    run:signal("HUP")
    net.must("kill -CONT " .. worker)
    run:await("info: reloaded")
    assert.equal(100, net.queue(5).copy_range)
    send(20)
    net.wait_for("all to be judged", function()
      return net.queue(5).waiting == 0
    end)
    -- What came later has been judged by the same script.
    assert.is_true(run:reload(path, script("three", nil, "self.config = { copy_range = 100 }")))
    -- The next worker finds them in force, too.
    net.must("kill -KILL " .. worker)
    net.wait_for("another worker", function()
      return run:count("ready:") == 2
    end)
    assert.equal(100, net.queue(5).copy_range)
    assert.same({ "open one 5", "open two 5", "close one 3000 packets, 64 of 200", "open three 5",
      "close two 20 packets, 100 of 200", "open three 5" }, hooks(run))
    stop(run)
    assert.equal(0, run:count("without that"))
  end)

  it("has timers of its own only", function()
    local path = net.file(script("one", "nfqueue.every(0.01, function() io.stderr:write('tick one\\n') end)"))
    local run = net.run(path .. " -q 5")
    run:await("tick one")
    local ticks = "nfqueue.every(0.01, function() io.stderr:write('tick two\\n') end)"
    assert.is_true(run:reload(path, script("two", ticks)))
    run:await("tick two")
    local before = run:count("tick one")
    local after = run:count("tick two")
    net.wait_for("more of the new", function()
      return run:count("tick two") > after + 5
    end)
    assert.equal(before, run:count("tick one"))
    stop(run)
  end)

  it("counts the reloads", function()
    net.queue_udp(PORT, 5, "")
    local tell = [[self.packet = function(pkt, queue)
      io.stderr:write(("reloads %d, packets %d\n"):format(queue:stats().reloads, queue:stats().packets))
      pkt:accept()
    end]]
    local path = net.file(script("one", nil, tell))
    local run = net.run(path .. " -q 5")
    box:send("one")
    run:await("reloads 0, packets 1")
    for _ = 1, 2 do
      assert.is_true(run:reload(path, script("two", nil, tell)))
    end
    assert.is_nil((run:reload(path, "no")))
    box:send("two")
    run:await("reloads 2, packets 2")
    stop(run)
  end)
end)

describe("what survives", function()
  it("is in named stores, buckets and sets", function()
    net.queue_udp(PORT, 5, "")
    local body = [[
      local store = nfqueue.shared("s")
      local bucket = nfqueue.bucket("b", { rate = 0.001, burst = 3 })
      local took = bucket:take("x") and bucket:take("x")
      io.stderr:write("loads ", store:incr("loads"), ", took ", tostring(took), ", set ",
        tostring(nfqueue.cidrset({ name = "c", %s }):find("192.0.2.1")), "\n")
    ]]
    local path = net.file(script("one", body:format("'192.0.2.128/25'")))
    local run = net.run(path .. " -q 5")
    run:await("loads 1, took true, set nil")
    assert.is_true(run:reload(path, script("two", body:format("'192.0.2.128/25', '192.0.2.0/30'"))))
    run:await("loads 2, took false, set true")
    stop(run)
  end)

  it("is not harmed by a script that asks for other tables and fails", function()
    local body = [[
      local store = nfqueue.shared("s", { max_bytes = %d })
      io.stderr:write(("loads %%d\n"):format(store:incr("loads")))
    ]]
    local path = net.file(script("one", body:format(100000)))
    local run = net.run(path .. " -q 5")
    assert.is_nil((run:reload(path, script("two", body:format(200000), "error('no')"))))
    assert.equal(2, run:count("loads 1\n"))
    assert.is_true(run:reload(path, script("three", body:format(100000))))
    run:await("loads 2\n")
    assert.is_true(run:reload(path, script("four", body:format(200000))))
    assert.equal(3, run:count("loads 1\n"))
    stop(run)
  end)

  it("is what was delayed, with its edits; what was held gets its verdict before the old script ends", function()
    net.queue_udp(PORT, 5, "")
    local slow = os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")
    local path = net.file(script("one", nil, "local long = " .. (slow and 8 or 0.6) .. [[ self.packet = function(pkt)
      if pkt:find("delay") then
        pkt.payload = "delayed, edited"
        pkt:delay(long)
      elseif pkt:find("hold") then
        pkt.payload = "held, edited"
        pkt:hold(100, "accept")
      elseif pkt:find("dropped") then
        pkt:hold(100, "drop")
      else
        pkt:hold(100)
      end
      io.stderr:write("has it\n")
    end
    self.config = { default = "accept" }
    self.close = function(queue)
      local stats = queue:stats()
      io.stderr:write(("close one: kept %d, expired %d, undecided %d\n"):format(stats.kept, stats.expired,
        stats.undecided))
    end]]))
    local run = net.run(path .. " -q 5")
    box:send("delay", "hold", "dropped", "the default")
    net.wait_for("the packets", function()
      return run:count("has it") == 4
    end)
    assert.is_true(run:reload(path, script("two", nil, "self.config = { default = 'drop' }")))
    box:await("delayed, edited")
    assert.same({ "held, edited", "the default", "delayed, edited" }, box:all())
    assert.equal("close one: kept 1, expired 3, undecided 1", hooks(run)[3])
    stop(run)
  end)

  it("is a rewriter: a connection goes on, whatever each script makes of its content", function()
    local socket = require("socket")
    local port, versions, lines = 8510, 6, 600
    local function rewriting(version)
      return ([[
        local rw = require("nfqueue").rewrite({ max = 100 })
        return function(pkt)
          local payload = pkt.payload:gsub("needle", %q)
          rw(pkt, payload)
          pkt:accept()
        end
      ]]):format("<" .. ("n"):rep(3 * version) .. ">")
    end
    local path, target = net.file(rewriting(1)), net.file()
    local run = net.run(path .. " -q 5-6 --threads 2")
    traffic.rule(("-A OUTPUT -p tcp --dport %d -j NFQUEUE --queue-num 5"):format(port), traffic.FAMILIES[1])
    traffic.rule(("-A OUTPUT -p tcp --sport %d -j NFQUEUE --queue-num 6"):format(port), traffic.FAMILIES[1])
    local server = net.start(("socat -u TCP4-LISTEN:%d,reuseaddr OPEN:%s,trunc"):format(port, target))
    traffic.wait_listening("tcp", port)
    local client = socket.tcp()
    assert(client:connect("127.0.0.1", port))
    local sent, got = {}, ""
    for version = 1, versions do
      if version > 1 then
        assert.is_true(run:reload(path, rewriting(version)))
      end
      local part = {}
      for i = 1, lines do
        part[i] = ("%d.%06d %s in a line\n"):format(version, i, i % 3 == 0 and "needle" or "nothing")
      end
      sent[version] = table.concat(part)
      assert(client:send(sent[version]))
      local from = #got
      net.wait_for("part " .. version, function()
        got = net.read(target)
        return got:find(("%d.%06d %%S+ in a line\n$"):format(version, lines))
      end)
      local new = "<" .. ("n"):rep(3 * version) .. ">"
      local _, edits = got:sub(from + 1):gsub(new, "")
      assert.is_true(edits >= lines // 3 - 20, edits) -- but those that lie in two segments
    end
    client:close()
    assert.equal(0, server:join(), server:output())
    assert.is_true(net.read(target):gsub("<n+>", "needle") == table.concat(sent))
    stop(run)
  end)

  it("is not a flow: each ends, its finish called", function()
    net.queue_udp(PORT, 5, "")
    local path = net.file(script("one", [[
      local flows = nfqueue.flows({ finish = function(flow)
        io.stderr:write(("finish %s after %d\n"):format(name, flow.packets))
      end })
    ]], [[self.packet = function(pkt)
      local flow = flows:get(pkt)
      flow.packets = (flow.packets or 0) + 1
      pkt:accept()
    end]]))
    local run = net.run(path .. " -q 5")
    box:send("1", "2", "3")
    box:await("3")
    assert.is_true(run:reload(path, script("two")))
    assert.matches("close one 5\nfinish one after 3\nnfqueue: info: reloaded", run:output(), 1, true)
    stop(run)
  end)
end)

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
