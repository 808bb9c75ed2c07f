-- nfqueue run --confine: the worker's system calls and files, read back from /proc and tried from handlers and from
-- a C module; queues are served as before, by successors too.

local net = require("support.net")

local PORT = 4411
local JUDGE = "return function(pkt) if pkt:find('drop') then return pkt:drop() end pkt:accept() end"

local function why_not()
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write("return nil")
  file:close()
  local text = net.sh(("%s run %s -q 5 --confine"):format(net.command, path))
  os.remove(path)
  return text:match("this kernel does not support %-%-confine[^\n]*") or text:match("this build has none[^\n]*")
end

if why_not() then
  return pending("nfqueue run --confine: " .. why_not())
end

local box, folder

before_each(function()
  net.cleanup()
  box = net.udp(PORT)
  folder = net.must("mktemp -d")
end)

after_each(function()
  box:close()
  net.cleanup()
  net.must("rm -rf " .. folder)
end)

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

-- A handler script in a folder of its own, run confined over queue 5.
local function run(text, words)
  local process = net.run(("%s --confine -q 5 %s"):format(write("script.lua", text), words or ""))
  net.queue_udp(PORT, 5, "")
  return process
end

-- Sends a packet and waits until it came back: the handler has done what it does then.
local function try(process, text)
  box:send(text or "try")
  box:await(text or "try")
  return process:output()
end

local function field(pid, name)
  return net.read(("/proc/%s/status"):format(pid)):match("%f[%w]" .. name .. ":%s*(%d+)")
end

-- What pieces of code in one handler come to: a list of what they return, "done" or why not.
local function outcomes(codes, words)
  local text = {}
  for i, code in ipairs(codes) do
    text[i] = ("        tell(%s)\n"):format(code)
  end
  local process = run(([[
    local nfqueue = require("nfqueue")
    local function tell(fine, problem) io.stderr:write("outcome: ", fine and "done" or problem, "\n") end
    return function(pkt)
%s
      pkt:accept()
    end]]):format(table.concat(text)), words)
  local list = {}
  for line in try(process):gmatch("outcome: ([^\n]*)") do
    list[#list + 1] = line
  end
  return list
end

describe("run --confine", function()
  it("filters the system calls of every thread of the worker, not of the supervisor, and judges", function()
    local process = run(JUDGE, "-q 6 --threads 2")
    assert.equal("0", field(process.pid, "Seccomp"))
    local threads = 0
    for thread in net.must(("ls /proc/%d/task"):format(process:worker())):gmatch("%d+") do
      threads = threads + 1
      assert.equal("2", field(thread, "Seccomp"))
      assert.equal("1", field(thread, "NoNewPrivs"))
    end
    assert.is_true(threads >= 3)
    box:send("one", "drop", "two")
    assert.are.same({ "one", "two" }, box:await("two"))
    process:signal("TERM")
    assert.equal(0, process:join())
    assert.equal(0, process:count("system call"))
  end)

  it("holds for successors, which take over", function()
    local process = run(JUDGE, "--on-error accept")
    try(process, "one")
    net.must("kill -KILL " .. process:worker())
    net.wait_for("a successor", function()
      return process:count("ready:") == 2
    end)
    assert.equal("2", field(process:worker(), "Seccomp"))
    box:send("drop", "two")
    assert.are.same({ "one", "two" }, box:await("two"))
    assert.equal(0, process:count("system call"))
  end)

  it("holds over a reload, which brings the new script in", function()
    local process = run(JUDGE)
    try(process, "one")
    write("script.lua", [[return function(pkt)
      io.stderr:write("passwd: ", select(2, io.open("/etc/passwd")), "\n")
      if pkt:find("two") then return pkt:drop() end
      pkt:accept()
    end]])
    process:signal("HUP")
    net.wait_for("the new script", function()
      box:send("two", "drop")
      return process:count("passwd: /etc/passwd: Permission denied") > 0
    end)
    assert.equal("2", field(process:worker(), "Seccomp"))
    box:await("drop")
    assert.equal(0, process:count("system call"))
  end)

  it("does not come in the way of what handlers do with nfqueue", function()
    write("helper.lua", "return { name = 'helper' }")
    write("list.txt", "192.0.2.0/24\n")
    net.must("mkdir " .. folder .. "/out")
    local process = run([[
      local nfqueue = require("nfqueue")
      local args = ...
      package.path = args.folder .. "/?.lua;" .. package.path
      assert(require("helper").name == "helper")
      assert(nfqueue.cidrset({ "10.0.0.0/8" }):load(args.folder .. "/list.txt") == 1)
      local record = assert(nfqueue.pcap.create(args.folder .. "/out/all.pcap"))
      local limit = nfqueue.bucket("sources", { rate = 1000, burst = 2000 })
      nfqueue.every(0.01, function() end)
      return function(pkt, queue)
        assert(record:write(pkt))
        assert(limit:take(pkt.ip.src) and os.date("%H") and os.time() and queue:stats().memory)
        if pkt:find("reject") then return pkt:reject() end
        if pkt:find("twice") then assert(nfqueue.send(pkt:bytes(), { iface = "lo" })) end
        if pkt:find("edit") then pkt.payload = "edited" end
        if pkt:find("late") then return pkt:delay(0.01) end
        if pkt:find("hold") then return pkt:hold(0.01, "accept") end
        nfqueue.log.info("to %s", pkt.oifname)
        pkt:accept()
      end]], ("--write %s/out -- folder=%s"):format(folder, folder))
    net.must("iptables -w -I OUTPUT -m mark --mark 0x6e71 -j ACCEPT")
    box:send("twice")
    assert.are.same({ "twice", "twice" }, box:await_count(2))
    box:send("edit", "late", "hold")
    box:await("edited")
    box:await("late")
    box:await("hold")
    process:await("to lo")
    -- An answer's source is the address that was asked, of loopback the whole of 127.0.0.0/8.
    for _, address in ipairs({ "127.0.0.1", "127.0.0.5", "127.0.0.1", "127.0.0.6" }) do
      local closed = require("socket").udp()
      assert(closed:setpeername(address, PORT + 1))
      net.must(("iptables -w -A OUTPUT -p udp -d %s --dport %d -j NFQUEUE --queue-num 5"):format(address, PORT + 1))
      closed:send("reject")
      closed:settimeout(5)
      assert.are.same({ nil, "connection refused" }, { closed:receive() })
      closed:close()
    end
    assert.equal(0, process:count("system call"), process:output())
    assert.equal(0, process:count("failed"), process:output())
  end)

  for options, cases in pairs({ -- what is tried, and what comes of it (a pattern)
    [""] = {
      { "io.open('/etc/passwd')", "Permission denied" },
      { "io.open('/proc/self/status')", "Permission denied" },
      { "io.open('/etc/group')", "Permission denied" },
      { "io.open('/tmp/new', 'w')", "Permission denied" },
      { "io.open('FOLDER/script.lua')", "^done$" },
      { "io.open('FOLDER/script.lua', 'a')", "Permission denied" },
      { "io.open('FOLDER/new', 'w')", "Permission denied" },
      { "os.remove('FOLDER/script.lua')", "Permission denied" },
      { "os.rename('FOLDER/script.lua', 'FOLDER/other.lua')", "Permission denied" },
      { "io.open('FOLDER/../../etc/passwd')", "Permission denied" },
      { "io.open('FOLDER/link')", "Permission denied" },
      { "nfqueue.pcap.create('FOLDER/out.pcap')", "Permission denied" },
      { "nfqueue.pcap.create('/tmp/out.pcap')", "Permission denied" },
      { "nfqueue.cidrset({ '10.0.0.0/8' }):load('/etc/hosts')", "Permission denied" },
      { "pcall(nfqueue.filter, 'port http')", "no name is looked up in a sandbox or a confined worker: 'http'" },
      { "pcall(require, 'argparse')", "^done$" },
    },
    ["--read /etc/passwd"] = {
      { "io.open('/etc/passwd')", "^done$" },
      { "io.open('/etc/passwd', 'a')", "Permission denied" },
      { "io.open('/etc/hosts')", "Permission denied" },
    },
    ["--read /etc --write FOLDER/out"] = {
      { "io.open('/etc/hosts')", "^done$" },
      { "io.open('/etc/hosts', 'a')", "Permission denied" },
      { "io.open('FOLDER/out/new', 'w')", "^done$" },
      { "os.rename('FOLDER/out/new', 'FOLDER/out/other')", "^done$" },
      { "os.rename('FOLDER/out/other', 'FOLDER/other')", "." },
      { "os.remove('FOLDER/out/other')", "^done$" },
      { "io.open('FOLDER/new', 'w')", "Permission denied" },
    },
  }) do
    it("lets a handler see few files: " .. options, function()
      local function here(text)
        return (text:gsub("FOLDER", (folder:gsub("%%", "%%%%"))))
      end
      net.must(("mkdir %s/out; ln -s /etc/passwd %s/link"):format(folder, folder))
      local codes = {}
      for i, case in ipairs(cases) do
        codes[i] = here(case[1])
      end
      local got = outcomes(codes, here(options))
      for i, case in ipairs(cases) do
        assert.matches(case[2], got[i], case[1])
      end
      assert.is_nil(net.sh("ls " .. folder):find("new", 1, true))
    end)
  end

  describe("is the end of a worker whose handler", function()
    for _, case in ipairs({ "os.execute('true')", "io.popen('id')" }) do
      it("calls " .. case, function()
        local process = run(("return function(pkt) if pkt:find('try') then %s end pkt:accept() end"):format(case))
        box:send("try", "after")
        assert.are.same({ "after" }, box:await("after"))
        assert.equal(1, process:count("was killed by signal 31 %(Bad system call%)"))
        assert.equal(1, process:count("died in the handler of packet"))
      end)
    end
  end)

  it("does not start for a path that is not there", function()
    for _, word in ipairs({ "read", "write" }) do
      local text, _, code = net.sh(("timeout 10 %s run %s -q 5 --confine --%s /nowhere/x")
        :format(net.command, write("script.lua", JUDGE), word))
      assert.equal("nfqueue: error: cannot confine the worker to /nowhere/x: No such file or directory", text)
      assert.equal(66, code)
    end
    assert.is_nil(net.queue(5))
  end)
end)

-- A program of spec/support, built now: what it needs may not be there, as in the emulated machine.
local function compile(name, flags)
  local path = ("%s/%s"):format(folder, name)
  local output, able = net.sh(("env LD_PRELOAD= cc -D_GNU_SOURCE -o %s spec/support/%s.c %s")
    :format(path, name:match("^%w+"), flags))
  return able and path or nil, output:match("^[^\n]*")
end

local KILLING = { "execve", "fork", "clone", "ptrace", "process_vm_readv", "socket of IPv4", "socket of IPv6",
  "socket of Unix", "socket of netlink", "socket of packets", "socketpair" }
local REFUSED = { "mount", "umount2", "chroot", "pivot_root", "unshare", "setns", "setuid", "setgid", "capset", "prctl",
  "seccomp", "bpf", "perf_event_open", "io_uring_setup", "userfaultfd", "keyctl", "add_key", "init_module",
  "finit_module", "kexec_load", "reboot", "settimeofday", "clock_settime", "sethostname", "setpriority",
  "sched_setscheduler", "swapoff", "syslog", "open_by_handle_at", "mknodat", "fchmod", "fchown", "fsetxattr", "ioctl",
  "kill", "pidfd_open", "memfd_create", "accept4", "listen", "personality", "quotactl", "landlock_restrict_self" }

describe("a C module under run --confine", function()
  local SCRIPT = [[
    local args = ...
    package.cpath = args.folder .. "/?.so"
    local attempt = require("attempts")
    return function(pkt)
      local name = pkt.payload:match("^try (.*)")
      if name then
        local result, errno = attempt(name)
        io.stderr:write(("%s: %s %s\n"):format(name, result, errno))
      end
      pkt:accept()
    end]]

  it("gets EPERM for what it has no business with, which is told once a call", function()
    local module, why = compile("attempts.so", "-shared -fPIC $(pkg-config --cflags lua5.4)")
    if not module then
      return pending("no C module can be compiled: " .. why)
    end
    local process = run(SCRIPT, "-- folder=" .. folder)
    for _, name in ipairs(REFUSED) do
      box:send("try " .. name, "try " .. name)
      box:await("try " .. name)
    end
    box:send("end")
    box:await("end")
    for _, name in ipairs(REFUSED) do
      assert.equal(2, process:count("\n" .. name .. ": nil 1%f[\n]"), name .. " in " .. process:output())
      assert.equal(1, process:count("the script made the system call " .. name .. " %(%d+%), which %-%-confine "
        .. "refuses %(EPERM%); it is told once\n"), name)
    end
    assert.equal(0, process:count("killed"))
  end)

  it("is killed, with its worker, by what starts, opens or looks into another process", function()
    local module, why = compile("attempts.so", "-shared -fPIC $(pkg-config --cflags lua5.4)")
    if not module then
      return pending("no C module can be compiled: " .. why)
    end
    for _, name in ipairs(KILLING) do
      -- A run each: one whose workers die again and again waits longer each time.
      local process = run(SCRIPT, "-- folder=" .. folder)
      box:send("try " .. name, "after " .. name)
      box:await("after " .. name, 20)
      assert.equal(1, process:count("was killed by signal 31 %(Bad system call%)"), process:output())
      assert.equal(1, process:count("died in the handler of packet"))
      process:signal("TERM")
      process:join()
      net.flush_rules()
    end
    for _, text in ipairs(box:all()) do
      assert.matches("^after ", text) -- on_error is drop
    end
  end)
end)

describe("a kernel without Landlock", function()
  it("is told by name", function()
    local launcher, why = compile("without", "")
    if not launcher then
      return pending("no program can be compiled: " .. why)
    end
    local text, _, code = net.sh(("timeout 10 %s landlock %s run %s -q 5 --confine")
      :format(launcher, net.command, write("script.lua", JUDGE)))
    assert.matches("^nfqueue: error: this kernel does not support %-%-confine: it needs Landlock %(Linux 5.13 or "
      .. "newer, CONFIG_SECURITY_LANDLOCK, and landlock among the modules of its parameter lsm=%)$", text)
    assert.equal(69, code)
    assert.is_nil(net.queue(5))
  end)
end)
