-- Every way not to start: one sentence on standard error that tells the cases apart, an exit status of its
-- own, and no queue left bound.

local net = require("support.net")

local QUEUE = 5
local GOOD = "return function(pkt) pkt:accept() end"

before_each(net.cleanup)
after_each(net.cleanup)

--- What `nfqueue run` says and its exit status; `prefix` goes before the command.
local function run(arguments, prefix)
  local text, _, status = net.sh(("timeout 5 %s %s run %s"):format(prefix or "", net.command, arguments))
  return text, status
end

local function count_lines(text)
  return select(2, (text .. "\n"):gsub("\n", ""))
end

local function assert_one_sentence(text, pattern)
  assert.matches(pattern, text)
  assert.equal(1, count_lines(text), text)
  assert.matches("^nfqueue: ", text)
end

-- Who may not read the list of queues is told what to run.
local HIDDEN = "queue %d is held by another process; as root, `cat /proc/net/netfilter/nfnetlink_queue` [^\n]*$"

local function held(queue, name, pid)
  if net.no_queue_list() then
    return HIDDEN:format(queue)
  end
  return ("queue %d is held by %s %%(pid %d%%); stop it or use another number$"):format(queue, name, pid)
end

local function assert_nothing_bound()
  assert.equal("", net.read("/proc/net/netfilter/nfnetlink_queue"))
end

-- Another user, who needs to be able to reach this build, and to exist in this namespace.
local USER = "setpriv --reuid 65534 --regid 65534 --clear-groups"
local function need_user()
  local why, able = net.sh(USER .. " " .. net.command .. " --version")
  if not able then
    pending("another user cannot run " .. net.command .. ": " .. why)
  end
  return able
end

describe("a script", function()
  for _, case in ipairs({
    { "that is missing", nil, 66, "cannot read script [^\n]*: No such file or directory$" },
    { "with a syntax error", "return function(", 65, "script %S+ does not compile: [^\n]*:1: [^\n]+$" },
    { "of bytecode", string.dump(load(GOOD)), 65,
      "script %S+ does not compile: [^\n]*attempt to load a binary chunk %(mode is 't'%)$" },
    { "that returns nothing", "local x = 1", 65, "returns no handler: it must return a function, or a table with a "
      .. "function 'packet' %(got nothing%)$" },
    { "that is empty", "", 65, "returns no handler: [^\n]*%(got nothing%)$" },
    { "that returns a number", "return 5", 65, "returns no handler: [^\n]*%(got number%)$" },
    { "without a packet function", "return { open = function() end }", 65,
      "bad argument 'packet' to 'script' %(function expected, got nothing%)$" },
    { "with a packet that is no function", "return { packet = 5 }", 65,
      "bad argument 'packet' to 'script' %(function expected, got 5%)$" },
    { "with a key that is none", "return { packet = print, clsoe = print }", 65,
      "unknown key 'clsoe' in the handler of 'script' %(known: packet, open, close, config%)$" },
    { "with an unknown configuration key", "return { packet = print, config = { max_packet = 1 } }", 78,
      "unknown config key 'max_packet' to 'script' %(known: max_packets, [^\n]*%)$" },
    { "with a value of a wrong type", "return { packet = print, config = { gso = 1 } }", 78, "'gso'[^\n]*boolean" },
    { "with a value out of range", "return { packet = print, config = { max_packets = 65537 } }", 78,
      "'max_packets'[^\n]*65536" },
    { "with a verdict that is none", "return { packet = print, config = { default = 'repeat' } }", 78,
      "'default'[^\n]*accept[^\n]*drop" },
    { "with a config that is no table", "return { packet = print, config = 5 }", 78, "'config'[^\n]*table" },
  }) do
    it(case[1], function()
      local path = net.file(case[2])
      if not case[2] then
        os.remove(path)
      end
      local text, status = run(path .. " -q " .. QUEUE)
      assert_one_sentence(text, case[4])
      assert.equal(case[3], status)
      assert.is_truthy(text:find(path, 1, true), "the sentence names the script: " .. text)
      assert_nothing_bound()
    end)
  end

  it("that is a directory", function()
    local text, status = run("/ -q 5")
    assert_one_sentence(text, "cannot read script /: Is a directory$")
    assert.equal(66, status)
    assert_nothing_bound()
  end)

  it("that may not be read", function()
    if not need_user() then
      return
    end
    local path = net.file(GOOD)
    net.must("chmod 600 " .. path)
    local text, status = run(path .. " -q 5", USER)
    assert_one_sentence(text, "cannot read script " .. path .. ": Permission denied$")
    assert.equal(66, status)
    assert_nothing_bound()
  end)

  for _, case in ipairs({
    { "that raises while it is loaded", "local function inner() error('broken start') end\ninner()",
      "script %S+ failed while loading: [^\n]*:1: broken start\n  stack traceback:\n" },
    { "whose open raises", "return { open = function() error('broken open') end, packet = print }",
      "open of the script failed: [^\n]*:1: broken open\n  stack traceback:\n" },
    { "that raises a table", "error({})", "script %S+ failed while loading: %(error object is a table value%)\n" },
  }) do
    it(case[1] .. ": with a traceback", function()
      local text, status = run(net.file(case[2]) .. " -q 5-6")
      assert.matches(case[3], text)
      assert.equal(65, status)
      assert.equal(1, select(2, text:gsub("nfqueue: ", "")), text)
      assert_nothing_bound()
    end)
  end
end)

describe("the command line", function()
  for _, case in ipairs({
    { "", "no queue is given: add %-q N, the number in your firewall rule$" },
    { "-q 65536", "option '%-q': '65536' is no queue number or range from 0 to 65535$" },
    { "-q x", "option '%-q': 'x' is no queue number or range from 0 to 65535$" },
    { "-q -1", "'%-1'" },
    { "-q 3-1", "option '%-q': '3%-1' is no queue number or range from 0 to 65535$" },
    { "-q 1-", "option '%-q': '1%-' is no queue number or range from 0 to 65535$" },
    { "-q 0-3 -q 2", "option '%-q': queue 2 is given twice$" },
    { "-q 5 --threads 0", "option '%-%-threads': integer from 1 to 1, the number of queues, expected, got '0'" },
    { "-q 5-6 --threads 3", "option '%-%-threads': integer from 1 to 2, the number of queues, expected, got '3'$" },
    { "-q 5 --threads 1.5", "option '%-%-threads': integer from 1 to 1, the number of queues, expected, got '1.5'$" },
    { "-q 5 --max-packets x", "option '%-%-max%-packets': integer expected, got 'x'" },
    { "-q 5 --max-packets 65537", "option '%-%-max%-packets': integer from 1 to 65536 expected, got 65537" },
    { "-q 5 --copy-range 70000", "option '%-%-copy%-range': integer from 0 to 65531 expected, got 70000" },
    { "-q 5 --default repeat", "'%-%-default'[^\n]*'accept', 'drop'" },
    { "-q 5 --on-error", "'%-%-on%-error'" },
    { "-q 5 --hold-limit 0", "option '%-%-hold%-limit': seconds, more than 0 and at most 1e9, expected, got '0'" },
    { "-q 5 --hold-limits 3", "unknown option '%-%-hold%-limits'" },
    { "-q 5 --max_packets 3", "unknown option '%-%-max_packets'" },
    { "-q 5 surplus", "too many arguments" },
    { "-q 5 -- novalue", "'novalue' behind %-%- is not of the form key=value$" },
    { "-q 5 -- =value", "'=value' behind %-%- is not of the form key=value$" },
  }) do
    it(case[1] == "" and "without a queue" or "with " .. case[1], function()
      local text, status = run(net.file(GOOD) .. " " .. case[1])
      assert_one_sentence(text, case[2])
      assert.equal(64, status)
      assert_nothing_bound()
    end)
  end

  it("without a script", function()
    local text, status = run("-q 5")
    assert_one_sentence(text, "missing argument 'script'")
    assert.equal(64, status)
  end)
end)

describe("the kernel", function()
  for _, case in ipairs({ "-q 5", "-q 4-6 --threads 3", "-q 4-6 --threads 1 --fail-open" }) do
    it("refuses a process without privilege: " .. case, function()
      local text, status = run(net.file(GOOD) .. " " .. case,
        "setpriv --bounding-set -net_admin --inh-caps -net_admin")
      assert_one_sentence(text, "no privilege to use queue [456]: it needs CAP_NET_ADMIN [^\n]*nfqueue lab[^\n]*$")
      assert.equal(77, status)
      assert_nothing_bound()
    end)
  end

  it("refuses an ordinary user, and who is root of a user namespace alone", function()
    local path = net.file(GOOD)
    net.must("chmod 644 " .. path)
    local prefixes = { need_user() and USER or nil }
    if select(2, net.sh("unshare -Ur true")) then
      table.insert(prefixes, "unshare -Ur")
    end
    for _, prefix in ipairs(prefixes) do
      local text, status = run(path .. " -q 5", prefix)
      assert_one_sentence(text, "no privilege to use queue 5: it needs CAP_NET_ADMIN [^\n]*nfqueue lab[^\n]*$")
      assert.equal(77, status)
    end
    assert_nothing_bound()
  end)

  it("without netfilter's netlink is told by name, by the command and by the module", function()
    local launcher = net.file()
    local why, able = net.sh("env LD_PRELOAD= cc -D_GNU_SOURCE -o " .. launcher .. " spec/support/without.c")
    if not able then
      return pending("no program can be compiled: " .. why:match("^[^\n]*"))
    end
    local text, status = run(net.file(GOOD) .. " -q 5", launcher .. " nfnetlink")
    assert_one_sentence(text,
      "cannot open a netfilter socket: Protocol not supported %(it needs CONFIG_NETFILTER_NETLINK%)$")
    assert.equal(69, status)
    text = net.must(("%s nfnetlink %s %s"):format(launcher, net.lua, net.file([[
      print(require("nfqueue").new(5, print):start())]])))
    assert.equal("nil\tcannot open a netfilter socket: Protocol not supported (it needs CONFIG_NETFILTER_NETLINK)\t93",
      text)
  end)

  describe("has a queue for one process only:", function()
    local holder

    before_each(function()
      holder = net.run(net.file(GOOD) .. " -q 5")
    end)

    for _, case in ipairs({ "-q 5", "-q 4-6 --threads 3", "-q 4-6 --threads 1", "-q 4-6 --threads 2 --fail-open" }) do
      it(case, function()
        local text, status = run(net.file(GOOD) .. " " .. case)
        assert_one_sentence(text, held(5, "nfqueue", holder.pid))
        assert.equal(69, status)
        assert.is_nil(net.queue(4))
        assert.is_nil(net.queue(6))
        -- The holder never notices.
        assert.is_truthy(net.queue(5) or net.no_queue_list())
        assert.is_true(holder:is_alive())
      end)
    end

    it("a program that uses the module is named as well", function()
      local queue <close> = require("nfqueue").new(9, function() end)
      assert(queue:open())
      local text, status = run(net.file(GOOD) .. " -q 9")
      local pid, name = net.read("/proc/self/stat"):match("^(%d+) %(([^)]*)%)")
      assert_one_sentence(text, held(9, name, pid))
      assert.equal(69, status)
    end)

    it("a process that may not read who it is says what to run", function()
      if not need_user() then
        return
      end
      local path = net.file(GOOD)
      net.must("chmod 644 " .. path)
      local text, status = run(path .. " -q 5",
        USER .. " --inh-caps +net_admin --ambient-caps +net_admin --bounding-set +net_admin")
      assert_one_sentence(text, HIDDEN:format(5))
      assert.equal(69, status)
    end)
  end)

  it("without connection tracking for queues is told by name, with the option", function()
    local text, status = run(net.file(GOOD) .. " -q 5 --conntrack", "timeout --preserve-status -s TERM 1")
    if text:find("ready:", 1, true) then
      return pending("this kernel can")
    end
    assert_one_sentence(text, "conntrack[^\n]*NETFILTER_NETLINK_GLUE_CT")
    assert.equal(69, status)
    assert_nothing_bound()
  end)
end)

-- What is not the kernel's lack but the process's: 1, but for a script that cannot be opened.
describe("a process", function()
  local ASIDE = "cannot [^\n]*: Too many open files$"

  it("that may open few files says so, whichever is the first it cannot", function()
    local path = net.file(GOOD)
    for count = 4, 21 do
      local text, status = run(path .. " -q 5-6 --threads 2", ("prlimit --nofile=%d:%d"):format(count, count))
      if text:find("^nfqueue: info: ready") then
        break
      end
      -- The first ones are what loads the program.
      if not text:find("shared librar", 1, true) then
        assert_one_sentence(text, ASIDE)
        assert.equal(text:find("cannot read script", 1, true) and 66 or 1, status, text)
      end
      assert.is_nil(text:find("CONFIG", 1, true))
    end
    assert_nothing_bound()
  end)

  it("that may make no other process says so", function()
    if not need_user() then
      return
    end
    local path = net.file(GOOD)
    net.must("chmod 644 " .. path)
    -- A sanitizer that looks for leaks wants a process of its own.
    local text, status = run(path .. " -q 5", "env ASAN_OPTIONS=detect_leaks=0 " .. USER
      .. " --inh-caps +net_admin --ambient-caps +net_admin --bounding-set +net_admin prlimit --nproc=0:0")
    assert_one_sentence(text, "cannot start the worker: Resource temporarily unavailable$")
    assert.equal(1, status)
  end)

  it("that may have little memory says so", function()
    if os.getenv("NFQUEUE_SANITIZE") then
      return pending("a sanitizer's own memory is more than that")
    end
    for _, kilobytes in ipairs({ 20000, 40000, 60000 }) do
      local text, status = run(net.file(GOOD) .. " -q 5", ("prlimit --as=%d"):format(kilobytes * 1024))
      if not text:find("shared librar", 1, true) then
        assert_one_sentence(text, "not enough memory$")
        assert.equal(1, status)
      end
    end
    assert_nothing_bound()
  end)
end)
