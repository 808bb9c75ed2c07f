-- What `make demo` prints, for root and for an ordinary user.

local net = require("support.net")

local USER = "setpriv --reuid 65534 --regid 65534 --clear-groups "

before_each(net.cleanup)
after_each(net.cleanup)

--- The demo's lines by who says them: the handler's and the client's interleave as they come.
local function run_demo(prefix)
  local text, fine = net.sh(prefix .. "timeout 60 sh spec/support/demo.sh " .. net.build)
  assert.is_true(fine, text)
  local said = { handler = {}, client = {} }
  for line in text:gmatch("[^\n]+") do
    local who, what = line:match("^%s+(%a+) | (.*)$")
    if who then
      table.insert(said[who], what)
    end
  end
  return { handler = table.concat(said.handler, "\n"), client = table.concat(said.client, "\n"), text = text }
end

local function count(text, pattern)
  return select(2, text:gsub(pattern, ""))
end

for _, who in ipairs({ { name = "root", prefix = "" }, { name = "an ordinary user", prefix = USER } }) do
  describe("the demo for " .. who.name, function()
    it("shows packets accepted, dropped and modified, and what the client sees of it", function()
      -- Asked of another program: some systems, and every chroot, give ordinary users no namespaces.
      local why, able = net.sh(who.prefix .. "unshare -Ur " .. net.command .. " --version")
      if who.prefix ~= "" and not able then
        pending("another user cannot run " .. net.command .. ": " .. why)
      end
      local demo = run_demo(who.prefix)
      -- Pings: the third is dropped, so three replies come, each with the time to live that the handler sets.
      for sequence, decision in ipairs({ "accept", "accept", "DROP", "accept" }) do
        local line = ("ping request %d%%s+84 bytes%%s+%s"):format(sequence, decision)
        assert.equal(1, count(demo.handler, line), demo.text)
      end
      assert.equal(3, count(demo.handler, "ping reply %d%s+84 bytes%s+MODIFY: ttl 42"))
      assert.equal(0, count(demo.handler, "ping reply 3"))
      assert.equal(3, count(demo.client, "icmp_seq=%d ttl=42 "))
      assert.matches("4 packets transmitted, 3 received, 25% packet loss", demo.client, 1, true)
      -- The page; a slow machine may send it twice.
      assert.is_true(count(demo.handler, "tcp 8080 > %d+%s+%d+ bytes%s+MODIFY: cloudy %-> sunny!") >= 1, demo.text)
      assert.matches("The weather today: sunny!", demo.client, 1, true)
      assert.is_nil(demo.client:find("cloudy", 1, true))
      -- The port: no connection, so what the client gets is a timeout.
      assert.is_true(count(demo.handler, "tcp %d+ > 8081%s+%d+ bytes%s+DROP") >= 1, demo.text)
      assert.equal(0, count(demo.handler, "tcp 8081 >"))
      assert.matches("curl: (28)", demo.client, 1, true)
      assert.matches("every packet had its verdict (exit status 0)", demo.text, 1, true)
      -- Each packet is shown once, with one decision, in the kernel's order.
      local next_id = 1
      for id in demo.handler:gmatch("packet%s+(%d+) ") do
        assert.equal(next_id, tonumber(id))
        next_id = next_id + 1
      end
      assert.is_true(next_id > 15, demo.text)
    end)
  end)
end

describe("the demo", function()
  it("touches no rule and no queue outside its lab, and leaves no process and no file", function()
    local folder = net.must("mktemp -d") -- the demo's own lies in it, so that its processes can be told
    finally(function()
      os.execute("rm -rf " .. folder)
    end)
    local save = "iptables-save | grep -v ^#; ip6tables-save | grep -v ^#; true"
    net.must("iptables -w -A INPUT -s 192.0.2.9 -j DROP")
    local rules = net.must(save)
    run_demo(("env TMPDIR=%s "):format(folder))
    assert.equal(rules, net.must(save))
    assert.is_nil(net.queue(0))
    assert.equal("", (net.sh(("pgrep -fa '^[^ ]*(tail|httpd|busybox|nfqueue) .*%s/'"):format(folder))))
    assert.equal("", net.must("ls -A " .. folder))
  end)
end)
