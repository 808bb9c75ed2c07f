-- nfqueue lab: a private network around a command, with and without a queue in the path, for root and for an
-- ordinary user. The specs run in such a lab themselves; labs nest.

local net = require("support.net")

local LAB = net.command .. " lab "
local USER = "setpriv --reuid 65534 --regid 65534 --clear-groups "

-- Asked of another program: some systems, and every chroot, give ordinary users no namespaces.
local user_problem, user_able = net.sh(USER .. "unshare -Ur " .. net.command .. " --version")
local can_nft = net.sh(LAB .. "--nft -- true") == ""

before_each(net.cleanup)
after_each(net.cleanup)

--- What a shell script in the lab prints: `options` of the lab, `script` without single quotes.
local function in_lab(who, options, script)
  return net.sh(("%s %s %s -- sh -c '%s'"):format(who, LAB, options, script))
end

for _, who in ipairs({ { name = "root", prefix = "" }, { name = "an ordinary user", prefix = USER } }) do
  describe("for " .. who.name .. ", the lab", function()
    local function lab(options, script)
      if who.prefix ~= "" and not user_able then
        pending("another user cannot run " .. net.command .. ": " .. user_problem)
      end
      return in_lab(who.prefix, options, script)
    end

    it("has one interface, its loopback, with the mtu of a wire", function()
      net.must("ip link add lab0 type veth peer name lab1")
      finally(function()
        net.sh("ip link del lab0")
      end)
      assert.matches("lab0", (net.sh("ip -o link")), 1, true)
      local links = lab("", "ip -o link")
      assert.matches("^1: lo: <[^>]*UP[^>]*> mtu 1500 [^\n]*$", links)
    end)

    it("has rules of its own", function()
      net.must("iptables -w -A INPUT -s 192.0.2.9 -j DROP")
      local rules, fine = lab("--hook none", "iptables -w -A INPUT -s 192.0.2.10 -j DROP && iptables -w -S INPUT")
      assert.is_true(fine, rules)
      assert.is_nil(rules:find("192.0.2.9/32", 1, true))
      assert.is_truthy(rules:find("192.0.2.10/32", 1, true))
      assert.is_nil(net.must("iptables -w -S INPUT"):find("192.0.2.10", 1, true))
    end)

    it("has a queue in the path that is bypassed while nobody listens", function()
      for _, address in ipairs({ "127.0.0.1", "::1" }) do
        local text, fine = lab("", "ping -n -c 1 -W 2 " .. address)
        assert.is_true(fine, text)
        assert.matches(" 0% packet loss", text, 1, true)
      end
    end)

    it("hands packets of both families to a handler that listens", function()
      local script = net.file("return function(pkt) pkt:drop() end")
      net.must("chmod 644 " .. script)
      local text = lab("", ([[
        log=$(mktemp)
        nfqueue run %s -q 0 2>$log &
        until grep -q ready: $log; do sleep 0.02; done
        ping -n -c 2 -i 0.01 -W 0.2 127.0.0.1 | grep loss
        ping -n -c 1 -W 0.2 ::1 | grep loss
        kill $!; wait $!; echo status $?
        ping -n -c 1 -W 2 127.0.0.1 | grep loss
        rm $log
      ]]):format(script))
      assert.matches("^2 packets [^\n]*100%% packet loss[^\n]*\n"
        .. "1 packets [^\n]*100%% packet loss[^\n]*\nstatus 0\n1 packets [^\n]* 0%% packet loss[^\n]*$", text)
    end)

    it("finds nfqueue on the PATH, before any other", function()
      assert.equal(net.must("readlink -f " .. net.command), (lab("", "readlink -f $(command -v nfqueue)")))
    end)

    it("makes its user root of it", function()
      assert.equal("0", (lab("", "id -u")))
    end)

    it("nests", function()
      local text, fine = lab("", "readlink /proc/self/ns/net; nfqueue lab -- readlink /proc/self/ns/net")
      assert.is_true(fine, text)
      local outer, inner = text:match("^(net:%S+)\n(net:%S+)$")
      assert.is_string(inner, text)
      assert.not_equal(outer, inner)
      assert.not_equal(net.must("readlink /proc/self/ns/net"), outer)
    end)

    for _, case in ipairs({ { "true", 0 }, { "exit 3", 3 }, { "exit 255", 255 }, { "kill -TERM $$", 128 + 15 } }) do
      it("carries the exit status of " .. case[1], function()
        local _, _, status = lab("", case[1])
        assert.equal(case[2], status)
      end)
    end
  end)
end

describe("the lab's rule", function()
  for _, case in ipairs({
    { options = "", chain = "OUTPUT", queue = "--queue-num 0" },
    { options = "--hook input", chain = "INPUT", queue = "--queue-num 0" },
    { options = "-q 65535", chain = "OUTPUT", queue = "--queue-num 65535" },
    { options = "-q 1-2 --hook input", chain = "INPUT", queue = "--queue-balance 1:2" },
  }) do
    it(("with iptables %s is in both families, with bypass"):format(case.options), function()
      local text, fine = in_lab("", "--iptables " .. case.options, "iptables -w -S; ip6tables -w -S")
      assert.is_true(fine, text)
      local rule = ("-A %s -j NFQUEUE %s --queue-bypass"):format(case.chain, case.queue)
      local _, times = text:gsub(rule:gsub("%p", "%%%0"), "")
      assert.equal(2, times, text)
      assert.equal(2, select(2, text:gsub("%-A ", "")), text)
    end)
  end

  it("is none with --hook none", function()
    assert.equal("", (in_lab("", "--hook none", "{ iptables -w -S; ip6tables -w -S; } | grep -e -A")))
  end)

  it("with nft, or the sentence that says what this kernel lacks", function()
    local text, _, status = in_lab("", "--nft -q 1-2", "nft list ruleset")
    if can_nft then
      assert.matches("hook output", text, 1, true)
      assert.matches("queue [^\n]*bypass", text)
      assert.matches("1-2", text, 1, true)
      pending("this kernel has nft queue, so its absence is not shown")
      return
    end
    assert.equal("nfqueue: cannot put a queue in the path: this kernel has no nft queue expression "
      .. "(CONFIG_NFT_QUEUE, module nft_queue)", text)
    assert.equal(69, status)
  end)
end)

describe("what cannot be is said in one sentence:", function()
  for _, case in ipairs({
    { "", 64, "no command is given: nfqueue lab %-%- COMMAND" },
    { "--", 64, "no command is given: nfqueue lab %-%- COMMAND" },
    { "true", 64, "too many arguments" },
    { "--hook forward -- true", 64, "'%-%-hook' must be one of 'output', 'input', 'none'" },
    { "-q x -- true", 64, "option '%-q': 'x' is no queue number or range from 0 to 65535" },
    { "-q 65536 -- true", 64, "option '%-q': '65536' is no queue number or range from 0 to 65535" },
    { "-q 0,5 -- true", 64, "option '%-q': one number or one range, as firewall rules take it" },
    { "-q x --hook none -- true", 64, "option '%-q': 'x' is no queue number or range from 0 to 65535" },
    { "--nft --iptables -- true", 64, "'%-%-iptables' can not be used together with option '%-%-nft'" },
    { "-- no-such-command", 127, "cannot run no%-such%-command: No such file or directory" },
    { "-- /", 126, "cannot run /: Permission denied" },
  }) do
    it(case[1] == "" and "nothing at all" or case[1], function()
      local text, _, status = net.sh("PATH=/usr/sbin:/usr/bin:/sbin:/bin " .. LAB .. case[1])
      assert.matches("^nfqueue: [^\n]*" .. case[3] .. "[^\n]*$", text)
      assert.equal(case[2], status)
    end)
  end

  it("no privilege", function()
    local text, _, status = net.sh("setpriv --bounding-set -sys_admin --inh-caps -sys_admin " .. LAB .. "-- true")
    assert.matches("^nfqueue: cannot make a network namespace: Operation not permitted; CAP_SYS_ADMIN [^\n]*$", text)
    assert.equal(77, status)
  end)

  it("no programs to make it with", function()
    local text, _, status = net.sh("env PATH=/nonexistent " .. LAB .. "-- true")
    assert.matches("ip (package iproute2)", text, 1, true)
    assert.equal(69, status)
    assert.is_nil(text:find("\n", 1, true), text)
  end)
end)
