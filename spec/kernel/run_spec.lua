-- The command on real packets: what a handler is given, what wins among settings, threads, hooks, errors.

local net = require("support.net")

local PORT = 4000
local box

local function count(text, pattern)
  local _, times = text:gsub(pattern, "")
  return times
end

local function lines_of(process, prefix)
  local found = {}
  for line in process:output():gmatch("[^\n]+") do
    if line:find(prefix, 1, true) == 1 then
      found[#found + 1] = line
    end
  end
  return found
end

--- A handler that drops what says "drop", fails at "fail", leaves "undecided" alone and accepts the rest.
local JUDGE = [[
  return function(pkt)
    if pkt:find("drop") then
      pkt:drop()
    elseif pkt:find("fail") then
      error("asked to fail")
    elseif not pkt:find("undecided") then
      pkt:accept()
    end
  end
]]

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

describe("nfqueue run", function()
  it("gives each packet the verdict of the script", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file(JUDGE) .. " -q 5")
    box:send("one", "drop this", "two", "fail here", "undecided", "last")
    assert.same({ "one", "two", "undecided", "last" }, box:await("last"))
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.is_nil(net.queue(5))
  end)

  it("takes verdicts as return values", function()
    net.queue_udp(PORT, 5)
    net.run(net.file([[
      return function(pkt)
        if pkt:find("drop") then
          return "drop"
        end
        return "accept"
      end
    ]]) .. " -q 5")
    box:send("drop", "last")
    assert.same({ "last" }, box:await("last"))
  end)

  it("hands key=value words to the script, repeated ones as a list", function()
    local run = net.run(net.file([[
      local args = ...
      io.stderr:write(("args plain=%s list=%s equals=%s empty=<%s> absent=%s\n"):format(args.plain,
        table.concat(args.list, "+"), args.equals, args.empty, args.absent))
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5 -- plain='a b' list=x list=y list=z equals=k=v empty=")
    assert.same({ "args plain=a b list=x+y+z equals=k=v empty=<> absent=nil" }, lines_of(run, "args"))
  end)

  it("gives a script without words an empty table", function()
    local run = net.run(net.file([[
      io.stderr:write("args ", type(...), " ", tostring(next(...)), "\n")
      return function(pkt) pkt:accept() end
    ]]) .. " -q 5")
    assert.same({ "args table nil" }, lines_of(run, "args"))
  end)

  it("finds a script that came with it by its name", function()
    local run = net.run("demo -q 5")
    net.queue_udp(PORT, 5)
    box:send("it is cloudy")
    box:await("it is cloudy") -- the demo leaves UDP alone
    net.wait_for("the demo's line", function()
      return run:output():find("something else", 1, true)
    end)
  end)
end)

describe("a setting on the command line", function()
  --- What the script wants; each case below wins over a part of it.
  local function script(config, handler)
    return net.file(("return { config = { %s }, packet = %s }"):format(config, handler
      or "function(pkt) if pkt:find('fail') then error('asked') end; if pkt:find('accept') then pkt:accept() end end"))
  end

  it("copy_range: the kernel is told the command line's", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5)
    local run = net.run(script("copy_range = 128", [[function(pkt)
      io.stderr:write(("bytes %d %d\n"):format(#pkt, pkt.length))
      pkt:accept()
    end]]) .. " -q 5 --copy-range 256")
    assert.equal(256, net.queue(5).copy_range)
    assert.equal(2, net.queue(5).copy_mode)
    box:send(("x"):rep(1000))
    box:await_count(1)
    assert.same({ "bytes 256 1028" }, lines_of(run, "bytes"))
  end)

  it("copy_range: without it the script's holds", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.run(script("copy_range = 128") .. " -q 5")
    assert.equal(128, net.queue(5).copy_range)
  end)

  for _, case in ipairs({
    { "default from the script", "default = 'drop'", "", { "accept" } },
    { "default over the script's", "default = 'accept'", "--default drop", { "accept" } },
    { "default over the script's, the other way", "default = 'drop'", "--default accept", { "undecided", "accept" } },
    { "on_error from the script", "on_error = 'accept', default = 'drop'", "", { "fail", "accept" } },
    { "on_error over the script's", "on_error = 'drop', default = 'drop'", "--on-error accept", { "fail", "accept" } },
    { "on_error over what fail_open implies", "fail_open = true, default = 'drop'", "--on-error drop", { "accept" } },
    { "fail_open as the default of on_error", "default = 'drop'", "--fail-open", { "fail", "accept" } },
    { "no_fail_open over the script's", "fail_open = true, default = 'drop'", "--no-fail-open", { "accept" } },
  }) do
    it(case[1], function()
      net.queue_udp(PORT, 5)
      net.run(script(case[2]) .. " -q 5 " .. case[3])
      box:send("fail", "undecided", "accept")
      assert.same(case[4], box:await("accept"))
    end)
  end

  it("max_packets: the kernel holds so many and no more", function()
    local why = net.no_queue_list()
    if why then
      return pending(why)
    end
    net.queue_udp(PORT, 5)
    local run = net.run(script("max_packets = 1000") .. " -q 5 --max-packets 16")
    net.pause(run:worker())
    for number = 1, 40 do
      box:send("accept " .. number)
    end
    assert.equal(16, net.queue(5).waiting)
    assert.equal(24, net.queue(5).queue_dropped)
    net.sh("kill -CONT " .. run:worker())
    assert.equal("accept 16", box:await_count(16)[16])
  end)

  for _, case in ipairs({
    { words = "", config = "gso = true", large = true },
    { words = "--no-gso", config = "gso = true", large = false },
    { words = "--gso", config = "gso = false", large = true },
  }) do
    it(("gso: packets above the mtu are %s with %s over %s"):format(case.large and "seen" or "never seen",
        case.words == "" and "nothing" or case.words, case.config), function()
      local run = net.run(script(case.config, [[function(pkt)
        if pkt.length > 1500 then
          io.stderr:write("large\n")
        end
        pkt:accept()
      end]]) .. " -q 5 " .. case.words)
      net.must("iptables -w -A OUTPUT -p tcp -j NFQUEUE --queue-num 5")
      local server = net.start("sh -c \"nc -l -N 127.0.0.1 4001 </dev/null | wc -c\"")
      net.wait_for("the server", function()
        return net.sh("ss -Hltn sport = :4001") ~= ""
      end)
      net.must("head -c 1000000 /dev/zero | nc -N 127.0.0.1 4001")
      assert.equal(0, server:join())
      assert.equal("1000000\n", server:output())
      assert.equal(case.large, #lines_of(run, "large") > 0)
    end)
  end
end)

describe("the handler's errors", function()
  it("are told with the first traceback in full, then in rate-limited lines with a count", function()
    net.queue_udp(PORT, 5)
    local run = net.run(net.file([[
      local function deep(pkt)
        error(pkt:find("good") and "never" or "broken handler")
      end
      return function(pkt)
        if pkt:find("good") then
          return pkt:accept()
        end
        deep(pkt)
      end
    ]]) .. " -q 5")
    for _ = 1, 60 do
      box:send("bad")
    end
    box:send("good")
    assert.same({ "good" }, box:await("good"))
    -- What is suppressed is counted in the next line that may be written: the lines together account for
    -- every failure, the first and what each says came since the last.
    local output, sum, total
    net.wait_for("the count of failures", function()
      box:send("bad")
      output, sum, total = run:output(), 1, 1
      for more, all in output:gmatch("handler failed (%d+) more times, (%d+) in all; last: [^\n]*broken handler\n") do
        sum, total = sum + tonumber(more), tonumber(all)
      end
      return total > 60
    end)
    assert.equal(total, sum)
    assert.equal(1, count(output, "stack traceback:"))
    assert.matches("handler failed: [^\n]*:2: broken handler\n  stack traceback:\n[^\n]*\n.*in upvalue 'deep'", output)
    assert.is_true(count(output, "handler failed") < 20, output) -- the limit is one a second
  end)
end)

describe("two commands", function()
  it("judge two queues, each with its own script", function()
    local other = net.udp(PORT + 1)
    finally(function()
      other:close()
    end)
    net.queue_udp(PORT, 5)
    net.queue_udp(PORT + 1, 65535)
    local first = net.run(net.file([[return function(pkt)
      if pkt:find("alpha") then pkt:drop() else pkt:accept() end end]]) .. " -q 5")
    local second = net.run(net.file([[return function(pkt)
      if pkt:find("beta") then pkt:drop() else pkt:accept() end end]]) .. " -q 65535")
    box:send("alpha", "beta")
    other:send("beta", "alpha")
    assert.same({ "beta" }, box:await("beta"))
    assert.same({ "alpha" }, other:await("alpha"))
    first:signal("TERM")
    assert.equal(0, first:join())
    assert.is_nil(net.queue(5))
    other:send("beta", "alpha again")
    assert.same({ "alpha", "alpha again" }, other:await("alpha again"))
    assert.is_true(second:is_alive())
  end)
end)
