-- A client, a router and a server: three network namespaces in a row, the router's being the spec's own, joined by
-- two lines that may be bad ones.

local net = require("support.net")
local traffic = require("support.traffic")

local line = {}
line.__index = line

--- The relay between tun devices (spec/support/relay.c).
line.relay = net.build .. "/support/relay"

--- Why there can be no relay here: nil when there can.
function line.missing()
  local device, why = io.open("/dev/net/tun", "r+")
  if not device then
    return why
  end
  device:close()
  return not io.open(line.relay) and line.relay .. " is not built (make support)" or nil
end

-- The router has .1 on either line.
line.CLIENT = { IPv4 = "10.1.0.2", IPv6 = "fd01::2" }
line.SERVER = { IPv4 = "10.2.0.2", IPv6 = "fd02::2" }

local OFFLOADS = "tso off gso off gro off"

-- A good line made bad by the kernel, in both directions.
local function spoil(self, interface, host, settings)
  -- A large segment is lost as a whole, so here they are smaller, and many.
  local change = [[sh -c 'ip link set %s gso_max_size 16384 && exec tc qdisc add dev %s root netem %s']]
  net.must(change:format(interface, interface, settings))
  net.must(host.enter .. change:format("eth0", "eth0", settings))
  self.spoilt[interface] = host
end

-- Connects a namespace with the router: `interface` here and eth0 there.
local function connect(self, name, interface, number, bad)
  local host = traffic.namespace()
  self[name] = host
  if bad and not bad.netem then
    local process = net.start(("%s -s %d -l %s -r %s -d %s %s %d:eth0 0:%s"):format(line.relay, bad.seed or 1,
      bad.loss or 1, bad.reorder or 1, bad.duplicate or 0, self.large and "-g" or "", host.pid, interface))
    process:await("ready")
    self.relays[interface] = process
  else
    net.must(("ip link add name %s type veth peer name eth0 netns %d"):format(interface, host.pid))
    if not self.large then
      net.must(("ethtool -K %s %s; %s ethtool -K eth0 %s"):format(interface, OFFLOADS, host.enter, OFFLOADS))
    end
  end
  -- Link-local addresses are given, so that IPv6 need not wait for them to be found unique. Senders' time-outs may
  -- get short, as what waits for them here would take minutes.
  net.must(([[
    set -e
    ip link set %s addrgenmode none up
    ip address add 10.%d.0.1/24 dev %s
    ip address add fd0%d::1/64 dev %s nodad
    ip address add fe80::1/64 dev %s nodad
    exec %s sh -c 'set -e
      ip link set lo up
      ip link set eth0 addrgenmode none up
      ip address add 10.%d.0.2/24 dev eth0
      ip address add fd0%d::2/64 dev eth0 nodad
      ip address add fe80::2/64 dev eth0 nodad
      ip route add default via 10.%d.0.1 rto_min 10ms
      ip route add default via fd0%d::1 rto_min 10ms'
  ]]):format(interface, number, interface, number, interface, interface, host.enter, number, number, number, number))
  if bad and bad.netem then
    spoil(self, interface, host, bad.netem)
  end
end

--- Make one. `large`: whether lines carry large TCP segments (GSO); `before`, `behind`: what is bad on the line
-- between router and server, and between client and router: { seed =, loss =, reorder =, duplicate = } in per
-- cent (1, 1 and 0 by default), or { netem = settings } for the kernel's own way, nil for a good one. The router's
-- interfaces are `toclient` and `toserver`. What it started ends with net.cleanup; then call `remove`.
function line.new(options)
  local self = setmetatable({ large = options.large, relays = {}, spoilt = {} }, line)
  net.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
  local done, message = pcall(function()
    connect(self, "client", "toclient", 1, options.behind)
    connect(self, "server", "toserver", 2, options.before)
  end)
  if not done then
    self:remove()
    error(message, 2)
  end
  return self
end

local DIRECTIONS = { "out", "back" }

-- Of what leaves an interface: { packets =, lost = }.
local function read_netem(interface, enter)
  local listing = net.must((enter or "") .. "tc -s qdisc show dev " .. interface)
  local packets, lost = listing:match("Sent %d+ bytes (%d+) pkt %(dropped (%d+),")
  return { packets = math.tointeger(tonumber(packets)), lost = math.tointeger(tonumber(lost)) }
end

--- Put an end to the lines: what the bad ones did, by interface of the router, as { out = from the client's or
-- server's namespace, back = to it }, each with counts named as relay.c prints them.
function line:finish()
  local counts = {}
  for interface, process in pairs(self.relays) do
    process:signal("TERM")
    assert(process:join() == 0, process:output())
    local lines = 0
    counts[interface] = {}
    for text in process:output():gmatch("packets=[^\n]+") do
      lines = lines + 1
      local count = {}
      for key, value in text:gmatch("(%g+)=(%d+)") do
        count[key] = math.tointeger(tonumber(value))
      end
      counts[interface][DIRECTIONS[lines]] = count
    end
  end
  self.relays = {}
  for interface, host in pairs(self.spoilt) do
    counts[interface] = { out = read_netem("eth0", host.enter), back = read_netem(interface) }
  end
  return counts
end

function line:remove()
  for _, name in ipairs({ "client", "server" }) do
    if self[name] then
      self[name]:remove()
    end
  end
  net.sh("ip link delete toclient; ip link delete toserver")
end

return line
