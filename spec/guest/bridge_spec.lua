-- A bridge between two machines (network namespaces), with VLANs: what the bridge family and br_netfilter tell.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local QUEUE = 5
local A = "02:00:00:00:00:0a"

-- Machine a has 10.0.0.1, machine b 10.0.0.2; the bridge's ports are porta and portb. Each also has 10.7.0.x in
-- VLAN 7, with priority 5 on the wire, and 10.9.0.x in VLAN 4094 with priority 7.
local BUILD = [[
ip link add br0 address 02:00:00:00:00:01 type bridge BRIDGE
ip link set br0 up
for side in a b; do
  ip netns add $side
  ip link add port$side type veth peer name eth0 netns $side
  ip link set port$side master br0 up
  number=$([ $side = a ] && echo 1 || echo 2)
  ip -n $side link set eth0 address 02:00:00:00:00:0$side up
  ip -n $side address add 10.0.0.$number/24 dev eth0
  ip -n $side address add fd00::$number/64 dev eth0 nodad
  for vlan in 7:5 4094:7; do
    id=${vlan%:*}
    ip -n $side link add link eth0 name vlan$id type vlan id $id egress-qos-map 0:${vlan#*:}
    ip -n $side link set vlan$id up
    ip -n $side address add 10.$((id % 10 == 7 ? 7 : 9)).0.$number/24 dev vlan$id
  done
done
]]

local function build(bridge)
  net.must("set -e\n" .. BUILD:gsub("BRIDGE", bridge or ""))
end

local function bridge_rules(hook)
  net.nft(("table bridge spec { chain c { type filter hook %s priority 0; queue num %d; }\n}"):format(hook, QUEUE))
end

local FIELDS = { "family", "hook", "ethertype", "vlan", "hwaddr", "iifname", "oifname", "physiifname", "physoifname",
  "iif", "oif", "physiif", "physoif", "l2header" }

-- Ping from a to this address while the queue is judged: what was noted of the packets with `ethertype` that a sent.
local function ping(address, ethertype, edit)
  local notes = {}
  local queue = traffic.open(QUEUE, function(pkt)
    if pkt.hwaddr == A and pkt.ethertype == ethertype then
      local note = {}
      for _, name in ipairs(FIELDS) do
        note[name] = pkt[name]
      end
      notes[#notes + 1] = note
      if edit then
        edit(pkt)
      end
    end
  end)
  local client = net.start("ip netns exec a ping -n -c 1 -W 60 " .. address)
  traffic.judge({ queue }, "the ping of " .. address, function() return not client:is_alive() end, 60)
  assert.equal(0, client:join(), client:output())
  queue:close()
  return notes[1] or error("no such packet came")
end

local function ifindex(name)
  return math.tointeger(tonumber(net.must("ip -o link show " .. name):match("^(%d+)")))
end

-- One packet of `ethertype` from a to the address. `prepare` comes behind the building of the bridge.
local CASES = {
  { name = "IPv4", address = "10.0.0.2", ethertype = 0x0800 },
  { name = "IPv6", address = "fd00::2", ethertype = 0x86dd },
  { name = "ARP", address = "10.0.0.2", ethertype = 0x0806, broadcast = true },
  { name = "VLAN 7, priority 5", address = "10.7.0.2", ethertype = 0x0800, vlan = 7 },
  { name = "VLAN 4094, priority 7", address = "10.9.0.2", ethertype = 0x0800, vlan = 4094 },
  { name = "untagged frames of ports in VLAN 7", address = "10.0.0.2", ethertype = 0x0800, vlan = 7,
    bridge = "vlan_filtering 1",
    prepare = "for side in a b; do bridge vlan add dev port$side vid 7 pvid untagged; done" },
  { name = "tagged frames through a bridge that filters", address = "10.7.0.2", ethertype = 0x0800, vlan = 7,
    bridge = "vlan_filtering 1",
    prepare = "for side in a b; do bridge vlan add dev port$side vid 7; done" },
  { name = "IPv4 before the bridge chose the port", address = "10.0.0.2", ethertype = 0x0800, hook = "prerouting" },
}

local function clean()
  traffic.cleanup()
  net.sh("ip netns delete a; ip netns delete b; ip link delete br0")
end

describe("a bridge's packet:", function()
  after_each(clean)

  for _, case in ipairs(CASES) do
    it(case.name, function()
      build(case.bridge)
      net.must(case.prepare or "true")
      local hook = case.hook or "forward"
      bridge_rules(hook)
      local got = ping(case.address, case.ethertype)
      local out = hook == "forward"
      local target = case.broadcast and "\xff\xff\xff\xff\xff\xff" or "\2\0\0\0\0\x0b"
      local header = target .. "\2\0\0\0\0\x0a" .. string.pack(">I2", case.ethertype)
      if case.address:find(":", 1, true) and got.l2header:sub(1, 2) == "\x33\x33" then
        header = got.l2header:sub(1, 6) .. header:sub(7) -- a neighbour solicitation's group
      end
      assert.same({
        family = "bridge", hook = hook, ethertype = case.ethertype, vlan = case.vlan, hwaddr = A, l2header = header,
        iifname = "br0", iif = ifindex("br0"), physiifname = "porta", physiif = ifindex("porta"),
        oifname = out and "br0" or nil, oif = out and ifindex("br0") or nil,
        physoifname = out and "portb" or nil, physoif = out and ifindex("portb") or nil,
      }, got)
    end)
  end

  it("can be dropped and modified, tagged or not", function()
    build()
    bridge_rules("forward")
    net.must("ip netns exec b nft 'table ip t { chain c { type filter hook input priority 0; "
      .. "icmp type echo-request ip ttl 33 counter; }; }'")
    for count, address in ipairs({ "10.0.0.2", "10.7.0.2" }) do
      ping(address, 0x0800, function(pkt)
        pkt:u8(8, 33) -- time to live
        pkt:accept()
      end)
      assert.matches(("ttl 33 counter packets %d "):format(count), net.must("ip netns exec b nft list ruleset"))
    end
    local queue = nfqueue.new(QUEUE, function() return "drop" end)
    assert(queue:open())
    local client = net.start("ip netns exec a ping -n -c 1 -W 1 10.7.0.2")
    traffic.judge({ queue }, "the ping", function() return not client:is_alive() end, 60)
    assert.equal(1, client:join())
    assert.is_true(queue:stats().dropped > 0)
    queue:close()
  end)
end)

-- With br_netfilter the rules of IP see bridged packets, and the ports are what the packet really came in and leaves by.
local IP_RULES = {
  { name = "iptables", make = function()
    net.must(("iptables -w -A FORWARD -j NFQUEUE --queue-num %d"):format(QUEUE))
  end },
  { name = "nft inet", make = function()
    net.nft(("table inet spec { chain c { type filter hook forward priority 0; meta nfproto ipv4 queue num %d; }\n}")
      :format(QUEUE))
  end },
}

describe("with br_netfilter, a bridged packet", function()
  setup(function()
    net.must("modprobe br_netfilter")
  end)
  teardown(function()
    net.must("rmmod br_netfilter")
  end)
  after_each(clean)

  for _, case in ipairs(IP_RULES) do
    it("has bridge and ports in a queue by " .. case.name, function()
      build()
      net.must("sysctl -qw net.bridge.bridge-nf-call-iptables=1")
      case.make()
      local got = ping("10.0.0.2", 0x0800)
      assert.same({
        family = "ip", hook = "forward", ethertype = 0x0800, hwaddr = A,
        iifname = "br0", iif = ifindex("br0"), oifname = "br0", oif = ifindex("br0"),
        physiifname = "porta", physiif = ifindex("porta"), physoifname = "portb", physoif = ifindex("portb"),
      }, got)
    end)
  end
end)
