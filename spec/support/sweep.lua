-- Edits of every size, on every hook: each packet arrives whole and right, or its edit was an error and it got the
-- policy. What is expected is worked out here, from sizes alone; what arrived is what cast.c tells of it.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local sweep = {}
sweep.__index = sweep

local QUEUE = 3
local MTU = 1500
local EDIT_MOST = 65531 -- what a verdict can carry
local COPY_MOST = 65531 -- what the kernel copies
local SMALL = 64        -- bytes of payload, where the size is that of the new one
local CHUNK = 20        -- packets on their way at a time: with 46 fragments each they fit netdev_max_backlog

local FAMILIES = {
  { name = "IPv4", program = "iptables", header = 20, most = 65535, icmp = 1, echo = "icmp --icmp-type echo-request",
    here = { "10.7.1.1", "10.7.2.1" }, there = { "10.7.1.2", "10.7.2.2" }, bits = 24, echo_type = 8 },
  { name = "IPv6", program = "ip6tables", header = 40, most = 65535 + 40, icmp = 58,
    echo = "ipv6-icmp --icmpv6-type echo-request",
    here = { "fd07:1::1", "fd07:2::1" }, there = { "fd07:1::2", "fd07:2::2" }, bits = 64, echo_type = 128 },
}

-- `least` are the bytes without which it is no header.
local PROTOCOLS = {
  { name = "UDP", number = 17, header = 8, least = 8,
    tables = function() return { udp = { sport = 4000, dport = 4001 } } end },
  { name = "TCP", number = 6, header = 20, least = 20,
    tables = function() return { tcp = { sport = 4000, dport = 4001, seq = 1, flags = "A", ack_seq = 1 } } end },
  { name = "ICMP", header = 8, least = 4,
    tables = function(family) return { icmp = { type = family.echo_type, code = 0, id = 7, seq = 1 } } end },
}

--- The hooks: where a packet comes from and goes to.
sweep.HOOKS = { "INPUT", "OUTPUT", "FORWARD" }

--- What there is to sweep: hook, family, and settings: gso, the policy, and whether packets may be fragmented. `some`:
-- gso on or off in turn, not both for each.
function sweep.combinations(some)
  local list, turn = {}, true
  for _, hook in ipairs(sweep.HOOKS) do
    for _, family in ipairs(FAMILIES) do
      for _, df in ipairs(family.name == "IPv4" and { false, true } or { false }) do
        turn = not turn
        for _, gso in ipairs(some and { turn } or { true, false }) do
          list[#list + 1] = { hook = hook, family = family, gso = gso, df = df,
            on_error = gso ~= df and "drop" or "accept" }
        end
      end
    end
  end
  return list
end

function sweep.describe(combination)
  return ("%s, %s, gso %s, on_error %s%s"):format(combination.family.name, combination.hook,
    combination.gso and "on" or "off", combination.on_error, combination.df and ", not to be fragmented" or "")
end

--- Sizes of payloads: what lies around the boundaries; with `step` around all of them and behind all headers, and
-- every so many from 0 to 70,000.
function sweep.sizes(step)
  local wanted = {}
  local all = { 0, 1, 8, SMALL, 1280, MTU, 4096, 9000, 16384, 32768, 65507, 65515, EDIT_MOST, 65535, 65536, 70000 }
  local some = { 0, SMALL, MTU - 40, EDIT_MOST - 60 }
  for _, edge in ipairs(step and all or some) do
    for _, headers in ipairs(step and { 0, 28, 40, 48, 60 } or { 0 }) do
      for more = -1, 1 do
        wanted[math.max(0, edge - headers + more)] = true
      end
    end
  end
  for _, size in ipairs({ 1472, 1473, 65503, 65504, 65507, 65515, 65531, 65535, 65536, 70000 }) do
    wanted[size] = true
  end
  for size = 0, step and 70000 or -1, step or 1 do
    wanted[size] = true
  end
  local sizes = {}
  for size in pairs(wanted) do
    sizes[#sizes + 1] = size
  end
  table.sort(sizes)
  return sizes
end

local function content(letter, number, size)
  return (("%s%07d"):format(letter, number):rep(size // 8 + 1)):sub(1, size)
end

-- The ways to edit, with the length of the original for a new size: nil: that cannot be sent.
local WAYS = {
  { name = "payload", original = function() return SMALL end,
    edit = function(pkt, _, text) pkt.payload = text end },
  { name = "modify", original = function() return SMALL end,
    edit = function(pkt, headers, text) pkt:modify(pkt:bytes(0, headers) .. text) end },
  { name = "patch", original = function(size, most) return size <= most and size or nil end,
    edit = function(pkt, headers, text) pkt:patch(headers, text) end },
  { name = "same payload", original = function(size, most) return size <= most and size or nil end,
    edit = function(pkt, _, text) pkt.payload = text end },
  -- Content that ends within its headers.
  { name = "cut", cut = true, original = function() return SMALL end,
    edit = function(pkt, _, _, size) pkt:modify(pkt:bytes(0, size)) end },
}

-- What must become of a packet: its line as cast.c writes it, or nil where it does not arrive; and whether the
-- handler must have raised, and whether the network refuses it for its size.
local function foresee(case, combination)
  local family, protocol = combination.family, case.protocol
  local headers = family.header + protocol.header
  local length = case.way.cut and case.size or headers + case.size
  local truncated = headers + case.original > COPY_MOST
  local raises = case.way.cut or truncated or length > EDIT_MOST
    or (protocol.name == "TCP" and case.size ~= case.original)
  local letter, arrives = "E", length
  if raises then
    if combination.on_error == "drop" then
      return nil, true, false
    end
    letter, arrives = "o", headers + case.original
  end
  -- The sender's own IPv6 packets are fragmented by whom they leave; a router fragments none.
  local whole = combination.hook ~= "INPUT" and (combination.df or (family.name == "IPv6"
    and combination.hook == "FORWARD"))
  if whole and arrives > MTU then
    return nil, raises, true
  end
  local size = math.max(0, arrives - headers)
  return ("%d %d good %s whole"):format(protocol.number or family.icmp, arrives,
    size == 0 and "-" or content(letter, case.number, size):sub(1, 8)), raises, false
end

--- The hosts: one before and one behind this namespace, which routes between them.
function sweep.new()
  local self = setmetatable({ hosts = {}, senders = {} }, sweep)
  net.must("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
  for i, name in ipairs({ "before", "behind" }) do
    local host = traffic.host(name)
    self.hosts[i] = host
    for _, family in ipairs(FAMILIES) do
      host:address(family.here[i], family.there[i], family.bits)
      net.must(("%sip -%s route add default via %s"):format(host.enter, family.name:sub(-1), family.here[i]))
    end
  end
  net.wait_for("the way between them", function()
    for _, family in ipairs(FAMILIES) do
      for i = 1, 2 do
        if not select(2, net.sh(("%sping -c 1 -W 1 %s"):format(self.hosts[i].enter, family.there[3 - i]))) then
          return false
        end
      end
    end
    return true
  end)
  return self
end

function sweep:remove()
  for _, host in ipairs(self.hosts) do
    host:remove()
  end
end

-- Who sends and who receives at a hook: what goes before a command there (nil: here), the receiver's address, and the
-- host whose counters the receiver's are.
function sweep:ends(combination)
  local family, hook = combination.family, combination.hook
  local before, behind = self.hosts[1], self.hosts[2]
  if hook == "INPUT" then
    return before.enter, family.here[1], nil
  elseif hook == "OUTPUT" then
    return "", family.there[2], behind
  end
  return before.enter, family.there[2], behind
end

-- Packets that no path took for their size, of this namespace.
local function fragmentation_failures(family)
  if family.name == "IPv6" then
    return tonumber(net.read("/proc/net/snmp6"):match("Ip6FragFails%s+(%d+)"))
  end
  local names, values = net.read("/proc/net/snmp"):match("Ip: (%a[^\n]*)\nIp: ([^\n]*)")
  local next_value = values:gmatch("%S+")
  for name in names:gmatch("%S+") do
    local value = next_value()
    if name == "FragFails" then
      return tonumber(value)
    end
  end
end

local function transport_bytes(case, family, from, to)
  local parts = case.protocol.tables(family)
  parts.ip = { src = from, dst = to }
  parts.payload = content("o", case.number, case.original)
  return nfqueue.build(parts):sub(family.header + 1)
end

-- The longest payload that can be sent in one piece, to be seen in one.
local function longest_original(combination, protocol)
  local family = combination.family
  -- IPv6 is put together behind the hook.
  if combination.df or combination.hook == "FORWARD" or combination.hook == "INPUT" and family.name == "IPv6" then
    return MTU - family.header - protocol.header
  end
  return family.most - family.header - protocol.header
end

function sweep.cases(combination, sizes)
  local cases = {}
  local function add(way, protocol, size)
    local original = way.original(size, longest_original(combination, protocol))
    if original then
      cases[#cases + 1] = { number = #cases + 1, way = way, protocol = protocol, size = size, original = original }
    end
  end
  for _, protocol in ipairs(PROTOCOLS) do
    for _, way in ipairs(WAYS) do
      if way.cut then
        local header = combination.family.header
        for _, size in ipairs({ 0, 1, header - 1, header, header + protocol.least - 1 }) do
          add(way, protocol, size)
        end
      else
        for _, size in ipairs(sizes) do
          add(way, protocol, size)
        end
      end
    end
  end
  return cases
end

--- Send what the sizes make through one combination: fails through `equal(expected, actual, what)` where something
-- else becomes of one than should. Returns how many were delivered edited, refused by an error, and by the network.
function sweep:run(combination, sizes, equal)
  local family = combination.family
  local enter, target, host = self:ends(combination)
  local source = enter == "" and family.here[2] or family.there[1]
  for _, match in ipairs({ "udp", "tcp", family.echo }) do
    traffic.rule(("-A %s -d %s -p %s -j NFQUEUE --queue-num %d"):format(combination.hook, target, match, QUEUE),
      family)
  end
  local receiver = net.start(("%s%s/support/cast receive %s"):format(host and host.enter or "", net.build, target))
  receiver:await("ready")
  local log = net.file()
  local sender = assert(io.popen(("%s%s/support/cast send %s %s >%s 2>&1"):format(enter, net.build, target,
    combination.df and "df" or "", log), "w"))

  local at, cases, raised = nil, sweep.cases(combination, sizes), {}
  local queue = traffic.open(QUEUE, function(pkt)
    at = at + 1
    local case = cases[at]
    if not case then
      return pkt:accept() -- the last of all
    end
    local headers = family.header + case.protocol.header
    local done, message = pcall(case.way.edit, pkt, headers, content("E", case.number, case.size), case.size)
    raised[at] = not done and message or nil
    if not done then
      error(message, 0)
    elseif pkt.verdict == nil then
      pkt:accept()
    end
  end, { gso = combination.gso, on_error = combination.on_error })

  -- What has arrived, in order within each protocol: each is received through a socket of its own.
  local arrived, count, text, from = {}, 0, "", assert(io.open(receiver.log))
  local function pull()
    text = text .. (from:read("a") or "")
    local rest = 1
    for line, number, behind in text:gmatch("((%d+) %d+ %a+ %S+ %a+)\n()") do
      arrived[number] = arrived[number] or { next = 1 }
      table.insert(arrived[number], line)
      count, rest = count + 1, behind
    end
    text = text:sub(rest)
    return count
  end
  local function next_line(protocol)
    local lines = arrived[tostring(protocol.number or family.icmp)] or { next = 1 }
    lines.next = lines.next + 1
    return lines[lines.next - 1]
  end

  local errors, failures = traffic.checksum_errors(host), fragmentation_failures(family)
  local foreseen = 0
  at = 0
  local function send(case)
    local bytes = transport_bytes(case, family, source, target)
    sender:write(string.pack(">Bs4", case.protocol.number or family.icmp, bytes))
  end
  local log_text = traffic.log(function()
    for i, case in ipairs(cases) do
      send(case)
      foreseen = foreseen + (foresee(case, combination) and 1 or 0)
      if i % CHUNK == 0 or i == #cases then
        sender:flush()
        traffic.judge({ queue }, ("packet %d of %s"):format(i, sweep.describe(combination)), function()
          return at >= i
        end)
        -- No socket has to hold more than these. What is missing is told below.
        pcall(net.wait_for, "their arrival", function()
          return pull() >= foreseen
        end)
      end
    end
    send({ number = #cases + 1, protocol = PROTOCOLS[1], original = SMALL })
    sender:flush()
    traffic.judge({ queue }, "the last packet", function()
      return at > #cases
    end)
  end)
  equal(true, log_text ~= nil, "a log")
  sender:close()
  equal("", net.read(log), "what the kernel refused to send")
  local last = content("o", #cases + 1, 8)
  receiver:await(last)
  pull()
  from:close()

  local counts = { delivered = 0, raised = 0, refused = 0, cases = #cases }
  for i, case in ipairs(cases) do
    local line, raises, refused = foresee(case, combination)
    local label = ("%s of %d bytes to %d, %s, %s"):format(case.protocol.name, case.original, case.size,
      case.way.name, sweep.describe(combination))
    equal(raises, raised[i] ~= nil, ("an error for %s (%s)"):format(label, raised[i]))
    if line then
      equal(line, next_line(case.protocol), label)
    end
    counts.delivered = counts.delivered + (line and not raises and 1 or 0)
    counts.raised = counts.raised + (raises and 1 or 0)
    counts.refused = counts.refused + (refused and 1 or 0)
  end
  equal(last, (next_line(PROTOCOLS[1]) or ""):match("%S+ (%S+) %a+$"), "the last packet")
  for _, protocol in ipairs(PROTOCOLS) do
    equal(nil, next_line(protocol), "packets too many of " .. protocol.name)
  end
  equal(errors, traffic.checksum_errors(host), "InCsumErrors")
  equal(failures + counts.refused, fragmentation_failures(family), "FragFails")
  local stats = queue:stats()
  equal(counts.raised, stats.errors, "errors")
  equal(0, stats.refused + stats.lost, "refused or lost")
  return counts
end

local PORT = 4002

--- Send `size` bytes through a TCP connection whose segments are edited in place, however large they come. Returns the
-- length of the largest segment.
function sweep:transfer(combination, size, equal)
  local family = combination.family
  local enter, target, host = self:ends(combination)
  local version = family.name:sub(-1)
  local quoted = version == "4" and target or "[" .. target .. "]"
  traffic.rule(("-A %s -d %s -p tcp --dport %d -j NFQUEUE --queue-num %d"):format(combination.hook, target, PORT,
    QUEUE), family)
  local text = ("abcdefg\n"):rep(size // 8 + 1):sub(1, size)
  local source, copy = net.file(text), net.file()
  local errors, largest, gone = traffic.checksum_errors(host), 0, 0
  local queue = traffic.open(QUEUE, function(pkt)
    largest = math.max(largest, #pkt)
    gone = gone + #pkt.payload
    pkt.payload = pkt.payload:upper()
  end, { gso = combination.gso })
  local server = net.start(("%ssocat -u TCP%s-LISTEN:%d,reuseaddr OPEN:%s,trunc"):format(host and host.enter or "",
    version, PORT, copy))
  local client = net.start(("%ssocat -u -b 131072 OPEN:%s TCP%s:%s:%d,retry=100,interval=0.05"):format(enter, source,
    version, quoted, PORT))
  local label = ("of %d bytes over TCP, %s"):format(size, sweep.describe(combination))
  traffic.judge({ queue }, "the transfer " .. label, function()
    return not client:is_alive() and not server:is_alive()
  end, 30)
  equal(0, client:join(), client:output())
  equal(0, server:join(), server:output())
  equal(true, net.read(copy) == text:upper(), "content " .. label)
  equal(true, gone >= size, "bytes that came to the queue " .. label)
  equal(errors, traffic.checksum_errors(host), "InCsumErrors " .. label)
  local stats = queue:stats()
  equal(0, stats.errors + stats.refused + stats.lost + stats.truncated, "errors " .. label)
  return largest
end

return sweep
