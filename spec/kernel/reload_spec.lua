-- Another script for a running one, by SIGHUP: what judges which packet, and what survives.

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
