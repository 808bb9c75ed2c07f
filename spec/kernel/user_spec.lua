-- nfqueue run --user: an ordinary user with CAP_NET_ADMIN alone, in the supervisor and in every worker, and the
-- queues served as before.

local net = require("support.net")

local PORT = 4410
local NAME, UID = "nobody", nil -- the user; its number is /etc/passwd's to say
for line in net.read("/etc/passwd"):gmatch("[^\n]+") do
  UID = UID or line:match("^" .. NAME .. ":[^:]*:(%d+):")
end

local function why_not()
  if not UID then
    return "there is no user " .. NAME
  end
  local output, able = net.sh(("setpriv --reuid %s --regid %s --clear-groups %s --version")
    :format(UID, UID, net.command))
  return not able and "another user cannot run " .. net.command .. ": " .. output or nil
end

if why_not() then
  return pending("nfqueue run --user: " .. why_not())
end

local CAP_NET_ADMIN = ("%016x"):format(1 << 12)
local NONE = ("%016x"):format(0)
local box

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
end)

after_each(function()
  box:close()
  net.cleanup()
end)

-- A script this user may read.
local function script(text)
  local path = net.file(text)
  net.must("chmod 644 " .. path)
  return path
end

local function run(text, words)
  return net.run(("%s --user %s %s"):format(script(text), NAME, words or "-q 5"))
end

-- What /proc says of a process: single spaces between the words of a line.
local function status(pid)
  local list = {}
  for key, value in net.read(("/proc/%d/status"):format(pid)):gmatch("(%w+):%s*([^\n]*)") do
    list[key] = value:gsub("%s+", " "):gsub(" $", "")
  end
  return list
end

local function assert_dropped(pid)
  local got = status(pid)
  assert.equal(("%s %s %s %s"):format(UID, UID, UID, UID), got.Uid)
  assert.is_nil(got.Gid:find("%f[%d]0%f[%D]"), got.Gid)
  assert.is_nil(got.Groups:find("%f[%d]0%f[%D]"), got.Groups)
  assert.equal(CAP_NET_ADMIN, got.CapEff)
  assert.equal(CAP_NET_ADMIN, got.CapPrm)
  assert.equal(NONE, got.CapInh)
  assert.equal(NONE, got.CapBnd)
  assert.equal(NONE, got.CapAmb)
  assert.equal("1", got.NoNewPrivs)
end

local JUDGE = [[
  return function(pkt)
    if pkt:find("drop") then return pkt:drop() end
    if pkt:find("edit") then pkt.payload = "edited" end
    pkt:accept()
  end]]

describe("run --user", function()
  it("leaves the supervisor and the worker with one capability, and judges", function()
    local process = run(JUDGE)
    assert_dropped(process.pid)
    assert_dropped(process:worker())
    net.queue_udp(PORT, 5)
    box:send("drop", "one", "edit", "two")
    assert.are.same({ "one", "edited", "two" }, box:await("two"))
    process:signal("TERM")
    assert.equal(0, process:join())
  end)

  it("holds for every thread and for successors, which take over", function()
    local process = run(JUDGE, "-q 5-6 --threads 2 --on-error accept")
    net.queue_udp(PORT, 6, "")
    local first = process:worker()
    box:send("drop", "one")
    box:await("one")
    net.must("kill -KILL " .. first)
    net.wait_for("a successor", function()
      return process:count("ready:") == 2
    end)
    local second = process:worker()
    assert.are_not.equal(first, second)
    assert_dropped(second)
    for thread in net.must(("ls /proc/%d/task"):format(second)):gmatch("%d+") do
      assert_dropped(tonumber(thread))
    end
    box:send("drop", "two")
    assert.are.same({ "one", "two" }, box:await("two"))
  end)

  it("is reloaded, asked and stopped by root, as any", function()
    local runtime = net.must("mktemp -d")
    finally(function() net.must("rm -rf " .. runtime) end)
    local function ask(words)
      return net.must(("env NFQUEUE_RUNTIME_DIR=%s %s %s"):format(runtime, net.command, words))
    end
    local process = net.start(("env NFQUEUE_RUNTIME_DIR=%s %s run %s -q 5 --user %s")
      :format(runtime, net.command, script(JUDGE), NAME))
    process:await("ready:")
    ask("reload")
    process:await("info: reloaded")
    assert_dropped(process:worker())
    assert.matches("reloads +1\n", ask("stats"))
    ask("stop")
    assert.equal(0, process:join())
  end)

  it("sends, answers and counts through what was opened before", function()
    local process = run([[
      local nfqueue = require("nfqueue")
      return function(pkt, queue)
        if pkt:find("reject") then return pkt:reject() end
        if pkt:find("twice") then assert(nfqueue.send(pkt:bytes())) end
        if pkt:find("stats") then
          nfqueue.log.info("waiting %s, to %s", queue:stats().waiting, pkt.oifname)
        end
        pkt:accept()
      end]])
    net.must("iptables -w -A OUTPUT -m mark --mark 0x6e71 -j ACCEPT")
    net.queue_udp(PORT, 5)
    box:send("twice")
    assert.are.same({ "twice", "twice" }, box:await_count(2))
    box:send("stats")
    box:await("stats")
    process:await("waiting " .. (net.no_queue_list() and "nil" or "1") .. ", to lo")
    local closed = require("socket").udp()
    assert(closed:setpeername("127.0.0.1", PORT + 1))
    net.queue_udp(PORT + 1, 5)
    closed:send("reject")
    closed:settimeout(5)
    assert.are.same({ nil, "connection refused" }, { closed:receive() })
    closed:close()
    assert.equal(0, process:count("cannot"))
  end)

  it("stops what a handler tries with the rights of root", function()
    local secret = net.file("secret") -- of root alone
    local process = run([[
      local nfqueue = require("nfqueue")
      local args = ...
      return function(pkt)
        nfqueue.log.info("secret: %s", select(2, io.open(args.secret)))
        nfqueue.log.info("remove: %s", select(2, os.remove(args.secret)))
        local pipe = io.popen("id -u; setpriv --reuid 0 true 2>&1; ip link set lo mtu 1400 2>&1 && echo done")
        nfqueue.log.info("id: %s", pipe:read("a"):gsub("\n", " "))
        pkt:accept()
      end]], "-q 5 -- secret=" .. secret)
    net.queue_udp(PORT, 5)
    box:send("try")
    box:await("try")
    local output = process:output()
    assert.matches("secret: [^\n]*Permission denied", output)
    assert.matches("remove: [^\n]*Operation not permitted", output)
    -- Its children have no capability at all.
    assert.matches("id: " .. UID .. " ", output)
    assert.is_nil(output:find("done", 1, true), output)
  end)
end)

describe("nfqueue run --user", function()
  it("is asked, reloaded and stopped by root through a socket that is root's", function()
    net.queue_udp(PORT, 5, "")
    local path = script(JUDGE)
    local process = net.run(("%s --user %s -q 5 --name lesser"):format(path, NAME))
    local function ask(words)
      local output, _, code = net.sh(net.command .. " " .. words .. " --name lesser")
      return code, output
    end
    assert.matches(("\npid +%d\n"):format(process.pid), (select(2, ask("stats"))))
    net.write(path, "return function(pkt) pkt.payload = 'two' pkt:accept() end")
    net.must("chmod 644 " .. path)
    assert.same({ 0, "" }, { ask("reload") })
    box:send("one")
    assert.same({ "two" }, box:await("two"))
    net.must("chmod 600 " .. path)
    assert.same({ 66, ("nfqueue: cannot read script %s: Permission denied"):format(path) }, { ask("reload") })
    assert.same({ 0, "" }, { ask("stop") })
    assert.equal(0, process:join())
  end)
end)

describe("run --user does not start", function()
  local function refused(words, prefix)
    local text, _, code = net.sh(("timeout 10 %s %s run %s"):format(prefix or "", net.command, words))
    return text, code
  end

  it("for a user that is none, and for root", function()
    local path = script(JUDGE)
    local text, code = refused(path .. " -q 5 --user nosuchuser")
    assert.equal("nfqueue: error: option '--user': there is no user 'nosuchuser'", text)
    assert.equal(64, code)
    text, code = refused(path .. " -q 5 --user root")
    assert.equal("nfqueue: error: option '--user': an ordinary user expected, got 'root'", text)
    assert.equal(64, code)
    assert.is_nil(net.queue(5))
  end)

  it("for who may not become another", function()
    local text, code = refused(script(JUDGE) .. " -q 5 --user " .. NAME,
      "setpriv --bounding-set -setuid,-setgid,-setpcap --inh-caps -setuid,-setgid,-setpcap")
    assert.matches("^nfqueue: error: no privilege to become user " .. NAME
      .. ": [^\n]+ %(run as root, or without %-%-user%)$", text)
    assert.equal(77, code)
  end)

  it("without CAP_NET_ADMIN", function()
    local text, code = refused(script(JUDGE) .. " -q 5 --user " .. NAME,
      "setpriv --bounding-set -net_admin --inh-caps -net_admin")
    assert.matches("^nfqueue: error: no privilege to use queue 5: it needs CAP_NET_ADMIN [^\n]*$", text)
    assert.equal(77, code)
  end)

  it("where another process has the queue, and says so", function()
    local holder = net.run(net.file(JUDGE) .. " -q 5")
    local text, code = refused(script(JUDGE) .. " -q 5 --user " .. NAME)
    assert.matches("^nfqueue: error: queue 5 is held by [^\n]*$", text)
    assert.equal(69, code)
    assert.is_true(holder:is_alive())
  end)

  it("with a script that this user may not read", function()
    local path = net.file(JUDGE)
    net.must("chmod 600 " .. path)
    local text, code = refused(path .. " -q 5 --user " .. NAME)
    assert.equal(("nfqueue: error: cannot read script %s: Permission denied"):format(path), text)
    assert.equal(66, code)
  end)

  it("with --confine's options alone", function()
    for _, word in ipairs({ "read", "write" }) do
      local text, code = refused(script(JUDGE) .. (" -q 5 --%s /tmp"):format(word))
      assert.equal(("nfqueue: option '--%s' is of use with --confine only"):format(word), text)
      assert.equal(64, code)
    end
  end)
end)
