-- Rewritten connections beside connection tracking: why the README asks for it to be liberal.

local net = require("support.net")
local traffic = require("support.traffic")

local PORT = 8600
local LIBERAL = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"

after_each(traffic.cleanup)

local SCRIPT = [[
  local rw = require("nfqueue").rewrite({ max = 8 })
  return function(pkt)
    rw(pkt, (pkt.payload:gsub("needle", "a far longer phrase than that")))
    pkt:accept()
  end
]]

-- Sends a text that grows through the queue; how many packets connection tracking took for invalid.
local function send(port)
  local text = ("before "):rep(2000) .. ("needle "):rep(50) .. ("behind "):rep(2000)
  local target = net.file()
  traffic.rule("-A OUTPUT -m conntrack --ctstate INVALID -m comment --comment invalid")
  traffic.rule("-A OUTPUT -p tcp -j NFQUEUE --queue-num 5")
  local run = net.run(net.file(SCRIPT) .. " -q 5 --no-gso")
  local server = net.start(("socat -u TCP4-LISTEN:%d,reuseaddr OPEN:%s,trunc"):format(port, target))
  traffic.wait_listening("tcp", port)
  local client = net.start(("socat -u OPEN:%s TCP4:127.0.0.1:%d"):format(net.file(text), port))
  assert.equal(0, client:join(30), client:output())
  assert.equal(0, server:join(30), server:output())
  local got = net.read(target)
  assert.is_true(#got > #text and got:gsub("a far longer phrase than that", "needle") == text)
  run:signal("TERM")
  run:join()
  return net.rule_packets("OUTPUT", "invalid")
end

local _, usable = net.sh("iptables -A OUTPUT -m conntrack --ctstate INVALID && iptables -F && echo 1 > " .. LIBERAL)
local it = usable and it or function(name) pending(name .. " (no connection tracking that can be set here)") end

describe("connection tracking", function()
  it("takes acknowledgements of what grew for invalid unless it is liberal", function()
    net.must("echo 0 > " .. LIBERAL)
    assert.is_true(send(PORT) > 0)
    traffic.cleanup()
    net.must("echo 1 > " .. LIBERAL)
    assert.equal(0, send(PORT + 1))
  end)
end)
