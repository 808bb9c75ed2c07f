-- What the specs of spec/kernel/ share: queues of this process that are judged from here, and real traffic.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")

local traffic = {}

--- The two versions of IP, for specs that go through both. `header` is the length of a plain IP header.
traffic.FAMILIES = {
  { name = "IPv4", address = "127.0.0.1", program = "iptables", icmp = "icmp", udp = socket.udp4, header = 20,
    socat = "4:127.0.0.1", ttl = 8, nft = "ip" },
  { name = "IPv6", address = "::1", program = "ip6tables", icmp = "ipv6-icmp", udp = socket.udp6, header = 40,
    socat = "6:[::1]", ttl = 7, nft = "ip6" },
}
local IPV4 = traffic.FAMILIES[1]

-- As in net.lua.
local PATIENCE = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 6 or 1

local figures = io.open("/proc/net/netfilter/nfnetlink_queue")
if figures then
  figures:close()
end
--- Whether the kernel tells of its queues here, as it does to the machine's root only: specs that need its
-- figures say `local it = traffic.figures and it or pending`.
traffic.figures = figures ~= nil

local queues, sockets = {}, {}

--- A queue object that traffic.cleanup closes.
function traffic.queue(number, handler, config)
  if not traffic.figures and not (config and config.buffer_size) then
    -- An ordinary user's buffers are capped: no warning about each.
    local capped = { buffer_size = 1 << 20 }
    for key, value in pairs(config or {}) do
      capped[key] = value
    end
    config = capped
  end
  local queue = nfqueue.new(number, handler, config)
  queues[#queues + 1] = queue
  return queue
end

--- The same, opened.
function traffic.open(number, handler, config)
  local queue = traffic.queue(number, handler, config)
  assert(queue:open())
  return queue
end

--- For after_each: closes what was opened, then what net.cleanup does.
function traffic.cleanup()
  net.flush_rules() -- first: nothing new comes in while the queues are closed
  for _, queue in ipairs(queues) do
    queue:close()
  end
  for _, item in ipairs(sockets) do
    item:close()
  end
  queues, sockets = {}, {}
  net.cleanup()
end

--- A firewall rule of a family (default IPv4): arguments as for iptables.
function traffic.rule(arguments, family)
  net.must(("%s -w %s"):format((family or IPV4).program, arguments))
end

--- Judge what arrives at opened queues until the condition holds: its result.
function traffic.judge(opened, what, condition, seconds)
  local deadline = socket.gettime() + (seconds or 10) * PATIENCE
  repeat
    for _, queue in ipairs(opened) do
      assert(queue:process())
    end
    local result = condition()
    if result then
      return result
    end
    socket.select(opened, nil, 0.02)
  until socket.gettime() > deadline
  error("gave up waiting for " .. what, 2)
end

--- Judge until an opened queue has had so many packets.
function traffic.judge_packets(queue, count)
  traffic.judge({ queue }, count .. " packets", function()
    return queue:stats().packets >= count
  end)
end

local pair = {}
pair.__index = pair

--- A UDP receiver of this process and a sender connected to it; sends and receives never wait.
function traffic.udp(family)
  family = family or IPV4
  local self = setmetatable({ sender = family.udp(), receiver = family.udp(), texts = {} }, pair)
  sockets[#sockets + 1] = self.sender
  sockets[#sockets + 1] = self.receiver
  assert(self.receiver:setsockname(family.address, 0))
  self.receiver:settimeout(0)
  local _, port = self.receiver:getsockname()
  self.port = math.tointeger(tonumber(port))
  assert(self.sender:setpeername(family.address, self.port))
  self.sender:settimeout(0)
  return self
end

function pair:send(...)
  for _, text in ipairs({ ... }) do
    self.sender:send(text) -- what a full queue drops is an error here, and no concern of ours
  end
end

-- An accepted packet is on its way through the kernel for a moment, a long one where that is emulated.
local SILENCE = os.getenv("NFQUEUE_GUEST") and 0.3 or 0.02

--- All texts that have arrived, in order, when nothing more comes for a moment.
function pair:received()
  self.receiver:settimeout(SILENCE)
  local text = self.receiver:receive()
  while text do
    self.texts[#self.texts + 1] = text
    text = self.receiver:receive()
  end
  self.receiver:settimeout(0)
  return self.texts
end

local FLOOD = [[
local net = require("support.net")
local socket = require("socket")
local port, count, addresses, queue = %d, %d, %d, %d
net.wait_for("queue " .. queue, function() return net.queue(queue) end)
local sender = socket.udp4()
for i = 1, count do
  sender:sendto(tostring(i), "127.0.0." .. 1 + i %% addresses, port)
end
]]

--- A process that waits for a queue to be bound, and sends the numbers from 1 to count over UDP, going
-- round so many addresses 127.0.0.x (default 1).
function traffic.flood(port, count, queue, addresses)
  return net.start("lua5.4 " .. net.file(FLOOD:format(port, count, addresses or 1, queue)))
end

--- The UDP payload of a packet without IP options or extension headers.
function traffic.payload(pkt)
  return pkt:bytes((pkt:u8(0) >> 4 == 4 and 20 or 40) + 8)
end

--- Wait until something listens on this port: `protocol` is "tcp", "tcp6", "udp" or "udp6".
function traffic.wait_listening(protocol, port)
  local state = protocol:find("tcp", 1, true) and "0A" or "07"
  local pattern = (":%04X %%x+:%%x+ %s "):format(port, state)
  net.wait_for(("a listener on %s port %d"):format(protocol, port), function()
    return net.read("/proc/net/" .. protocol):find(pattern)
  end)
end

--- A file of about this many bytes, lower case letters and digits in lines of 76.
function traffic.text_file(bytes)
  local path = net.file()
  net.must(("head -c %d /dev/urandom | base64 | tr A-Z a-z > %s"):format(bytes * 3 // 4, path))
  return path
end

function traffic.sha256(path)
  return (net.must("sha256sum < " .. path))
end

--- Send a file over TCP while these opened queues judge: the path of what was received.
-- options: `family`, `port`, and `from`, what goes before the sending command (to enter a namespace).
function traffic.transfer(opened, path, options)
  local family = options.family or IPV4
  local version, address = (options.socat or family.socat):match("(.):(.*)")
  local target = net.file()
  local server = net.start(("socat -u TCP%s-LISTEN:%d,reuseaddr OPEN:%s,trunc")
    :format(version, options.port, target))
  traffic.wait_listening(version == "4" and "tcp" or "tcp6", options.port)
  local client = net.start(("%s socat -u OPEN:%s TCP%s:%s:%d")
    :format(options.from or "", path, version, address, options.port))
  traffic.judge(opened, "the transfer", function()
    return not client:is_alive() and not server:is_alive()
  end, 30)
  assert(client:join() == 0, client:output())
  assert(server:join() == 0, server:output())
  return target
end

local host = {}
host.__index = host

--- A network namespace of its own, for as long as it takes, at most 600 s: `enter` is what goes before a command to
-- run it there. It outlives traffic.cleanup, until `remove`.
function traffic.namespace()
  local pid = math.tointeger(tonumber(net.must("unshare -n sleep 600 >/dev/null 2>&1 & echo $!")))
  local own = net.must("readlink /proc/self/ns/net")
  net.wait_for("a namespace", function()
    local other, done = net.sh(("readlink /proc/%d/ns/net"):format(pid))
    return done and other ~= own
  end)
  return setmetatable({ pid = pid, enter = ("nsenter -t %d -n "):format(pid) }, host)
end

--- Another host: a namespace behind a pair of virtual Ethernet interfaces, `interface` here and eth0 there.
function traffic.host(interface, mac)
  local self = traffic.namespace()
  self.interface = interface
  net.must(("ip link add name %s type veth peer name eth0 %s netns %d")
    :format(interface, mac and "address " .. mac or "", self.pid))
  net.must(("ip link set %s up; %s ip link set eth0 up"):format(interface, self.enter))
  return self
end

--- Give the two ends addresses: IPv4 or IPv6, with the length of their prefix.
function host:address(here, there, bits)
  local add = ("ip address add %%s/%d dev %%s %s"):format(bits, here:find(":", 1, true) and "nodad" or "")
  net.must(add:format(here, self.interface))
  net.must(self.enter .. add:format(there, "eth0"))
end

function host:remove()
  net.sh(("kill -KILL %d"):format(self.pid))
  if self.interface then
    net.sh("ip link delete " .. self.interface)
  end
end

local CHECKSUM_ERRORS = {
  { "/proc/net/snmp", "Ip", "InHdrErrors" }, { "/proc/net/snmp", "Icmp", "InCsumErrors" },
  { "/proc/net/snmp", "Tcp", "InCsumErrors" }, { "/proc/net/snmp", "Udp", "InCsumErrors" },
  { "/proc/net/snmp6", "Ip6InHdrErrors" }, { "/proc/net/snmp6", "Icmp6InCsumErrors" },
  { "/proc/net/snmp6", "Udp6InCsumErrors" },
}

local function read_snmp(text, group, name)
  local names, values = text:match(group .. ": (%a[^\n]*)\n" .. group .. ": ([^\n]*)")
  local next_value = values:gmatch("%S+")
  for column in names:gmatch("%S+") do
    local value = next_value()
    if column == name then
      return math.tointeger(tonumber(value))
    end
  end
  error(("no %s %s in %s"):format(group, name, text))
end

--- What the TCP of another host counts, by a name of /proc/net/netstat.
function traffic.tcp_count(other, name)
  return read_snmp(net.must(other.enter .. "cat /proc/net/netstat"), "TcpExt", name)
end

--- How many packets the receivers of this namespace, or of that of another host, have refused for a checksum or a
-- bad header.
function traffic.checksum_errors(other)
  local texts = {}
  for _, path in ipairs({ "/proc/net/snmp", "/proc/net/snmp6" }) do
    texts[path] = other and net.must(other.enter .. "cat " .. path) or net.read(path)
  end
  local sum = 0
  for _, item in ipairs(CHECKSUM_ERRORS) do
    local text = texts[item[1]]
    if item[3] then
      sum = sum + read_snmp(text, item[2], item[3])
    else
      sum = sum + math.tointeger(tonumber(text:match(item[2] .. "%s+(%d+)")))
    end
  end
  return sum
end

--- The sum of the verdict counters: each packet has exactly one of them.
function traffic.verdicts(stats)
  return stats.accepted + stats.dropped + stats.modified + stats.again + stats.requeued + stats.rejected
    + stats.delayed
end

-- The handle that now owns descriptor 2, once it was replaced.
local standard_error

-- Closes descriptor 2 and opens the path, which takes it as the lowest that is free.
local function replace_standard_error(path)
  if standard_error then
    standard_error:close()
  else
    local holder = socket.udp() -- LuaSocket can be told to own, and so to close, any descriptor
    holder:setfd(2)
    holder:close()
  end
  standard_error = assert(io.open(path, "a"))
end

--- Call the function with standard error in a file: all that was logged meanwhile, and what it returned.
function traffic.log(body)
  local path = net.file()
  local probe = assert(socket.udp4())
  local number = probe:getfd()
  probe:close()
  local original = assert(io.open("/proc/self/fd/2", "a")) -- takes the same number
  replace_standard_error(path)
  local done, result = xpcall(body, debug.traceback)
  replace_standard_error(("/proc/self/fd/%d"):format(number))
  original:close()
  local text = net.read(path)
  if not done then
    error(("%s\nlogged meanwhile: %s"):format(result, text), 0)
  end
  return text, result
end

return traffic
