-- A bridge between two machines (network namespaces), with VLANs: what the bridge family and br_netfilter tell.

local net = require("support.net")
local traffic = require("support.traffic")

local QUEUE = 5
local A = "02:00:00:00:00:0a"
local ARP = 0x0806

-- Machine a has 10.0.0.1, machine b 10.0.0.2; the bridge's ports are porta and portb. Each also has 10.7.0.x in
-- VLAN 7, with priority 5 on the wire, and 10.9.0.x in VLAN 4094 with priority 7.
local BUILD = [[
set -e
for side in a b; do
  ip netns add $side
  number=$([ $side = a ] && echo 1 || echo 2)
  ip -batch - <<END
    link add port$side type veth peer name eth0 address 02:00:00:00:00:0$side netns $side
END
  ip -n $side -batch - <<END
    link set eth0 up
    address add 10.0.0.$number/24 dev eth0
    address add fd00::$number/64 dev eth0 nodad
    link add link eth0 name vlan7 type vlan id 7 egress-qos-map 0:5
    link set vlan7 up
    address add 10.7.0.$number/24 dev vlan7
    link add link eth0 name vlan4094 type vlan id 4094 egress-qos-map 0:7
    link set vlan4094 up
    address add 10.9.0.$number/24 dev vlan4094
END
done
ip -batch - <<END
  link add br0 address 02:00:00:00:00:01 type bridge
  link set br0 up
  link set porta master br0 up
  link set portb master br0 up
END
]]

local function build()
  net.must(BUILD)
end

local function clean()
  net.sh("ip netns delete a; ip netns delete b; ip link delete br0; ip link delete porta; ip link delete portb")
end

local function bridge_rules(hook)
  net.nft(("table bridge spec { chain c { type filter hook %s priority 0; queue num %d; }\n}"):format(hook, QUEUE))
end

local FIELDS = { "family", "hook", "ethertype", "vlan", "hwaddr", "iifname", "oifname", "physiifname", "physoifname",
  "iif", "oif", "physiif", "physoif", "l2header" }

-- The question of ARP goes to everybody; what else goes to a group is not asked about here.
local function is_for_group(pkt)
  return pkt.l2header ~= nil and pkt.l2header:byte() & 1 == 1
end

-- Ping from a to this address while the queue is judged: what the first packet of `ethertype` from a says.
local function ping(address, ethertype, edit)
  local notes = {}
  local queue = traffic.open(QUEUE, function(pkt)
    if pkt.hwaddr == A and pkt.ethertype == ethertype and is_for_group(pkt) == (ethertype == ARP) then
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

-- One packet of `ethertype` from a to the address. The last ones change the network by `prepare`, in this order.
local CASES = {
  { name = "IPv4", address = "10.0.0.2", ethertype = 0x0800 },
  { name = "IPv6", address = "fd00::2", ethertype = 0x86dd },
  { name = "ARP", address = "10.0.0.2", ethertype = ARP },
  { name = "VLAN 7, priority 5", address = "10.7.0.2", ethertype = 0x0800, vlan = 7 },
  { name = "VLAN 4094, priority 7", address = "10.9.0.2", ethertype = 0x0800, vlan = 4094 },
  { name = "IPv4, before the bridge chose the port", address = "10.0.0.2", ethertype = 0x0800, hook = "prerouting" },
  { name = "tagged frames through a bridge that filters", address = "10.7.0.2", ethertype = 0x0800, vlan = 7,
    prepare = "ip link set br0 type bridge vlan_filtering 1; "
      .. "for side in a b; do bridge vlan add dev port$side vid 7; done" },
  { name = "an untagged frame that the bridge puts into VLAN 7", address = "10.7.0.2", ethertype = 0x0800, vlan = 7,
    prepare = "bridge vlan add dev porta vid 7 pvid untagged; ip -n a link delete vlan7; "
      .. "ip -n a address add 10.7.0.1/24 dev eth0" },
}

describe("a bridge's packet:", function()
  setup(build)
  teardown(clean)
  after_each(traffic.cleanup)

  it("can be dropped and modified, tagged or not", function()
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
    local queue = traffic.open(QUEUE, function() return "drop" end)
    local client = net.start("ip netns exec a ping -n -c 1 -W 1 10.7.0.2")
    traffic.judge({ queue }, "the ping", function() return not client:is_alive() end, 60)
    assert.equal(1, client:join())
    assert.is_true(queue:stats().dropped > 0)
  end)

  for _, case in ipairs(CASES) do
    it(case.name, function()
      net.must("for side in b a; do ip -n $side neighbour flush all; done; " .. (case.prepare or "true"))
      local hook = case.hook or "forward"
      bridge_rules(hook)
      local got = ping(case.address, case.ethertype)
      local out = hook == "forward"
      local target = case.ethertype == ARP and "\xff\xff\xff\xff\xff\xff" or "\2\0\0\0\0\x0b"
      local header = target .. "\2\0\0\0\0\x0a" .. string.pack(">I2", case.ethertype)
      assert.same({
        family = "bridge", hook = hook, ethertype = case.ethertype, vlan = case.vlan, hwaddr = A, l2header = header,
        iifname = "br0", iif = ifindex("br0"), physiifname = "porta", physiif = ifindex("porta"),
        oifname = out and "br0" or nil, oif = out and ifindex("br0") or nil,
        physoifname = out and "portb" or nil, physoif = out and ifindex("portb") or nil,
      }, got)
    end)
  end
end)

-- With br_netfilter the rules of IP see bridged packets; the ports are what they really came in and leave by.
local IP_RULES = {
  { name = "iptables", make = function()
    net.must(("iptables -w -A FORWARD -j NFQUEUE --queue-num %d"):format(QUEUE))
  end },
  { name = "nft inet", make = function()
    net.nft(([[table inet spec { chain c { type filter hook forward priority 0; meta nfproto ipv4 queue num %d; }
      }]]):format(QUEUE))
  end },
}

describe("with br_netfilter, a bridged packet", function()
  setup(function()
    net.must("modprobe br_netfilter")
    build()
  end)
  teardown(function()
    clean()
    net.must("rmmod br_netfilter")
  end)
  after_each(traffic.cleanup)

  for _, case in ipairs(IP_RULES) do
    it("has bridge and ports in a queue by " .. case.name, function()
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
