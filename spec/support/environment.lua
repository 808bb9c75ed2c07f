-- What can happen to a machine while packets wait for their verdict: links, addresses, rules, names, namespaces, the
-- clock. Nothing of it ends the loop; what the kernel takes back meanwhile is counted.

local net = require("support.net")
local outcomes = require("support.outcomes")
local socket = require("socket")
local traffic = require("support.traffic")

local environment = {}
environment.__index = environment

local PORT, QUEUE = 9900, 5
local HERE, THERE, BITS = "10.8.0.1", "10.8.0.2", 24
local EACH = 5 -- packets of each kind in a round

-- Packets wait in three ways: held by the script until a file says "go", delayed, and unread.
local SCRIPT = outcomes.TELL .. [[
  local nfqueue = require("nfqueue")
  local args = ...
  local held = {}
  nfqueue.every(0.02, function()
    if #held > 0 then
      local file = io.open(args.gate)
      if file and file:read("l") == "go" then
        for _ = 1, #held do
          table.remove(held):accept()
        end
      end
      if file then
        file:close()
      end
    end
  end)
  return function(pkt, queue)
    local text = pkt.payload
    if text:find("^held") then
      pkt:hold(600, "drop")
      held[#held + 1] = pkt
    elseif text:find("^delayed") then
      pkt:delay(0.3)
    else
      if text:find("^tell") then
        io.stderr:write(tell(queue), text .. " came by " .. tostring(pkt.iifname) .. "\n")
      end
      pkt:accept()
    end
  end
]]

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function connect(self)
  self.host = self.host or traffic.namespace()
  self.name = "before"
  net.must(("ip link add name before type veth peer name eth0 netns %d"):format(self.host.pid))
  net.must(("ip link set before up; ip address add %s/%d dev before; %s ip link set eth0 up; "
    .. "%s ip address add %s/%d dev eth0"):format(self.address, BITS, self.host.enter, self.host.enter, THERE, BITS))
end

local function add_rule()
  net.must(("iptables -w -t mangle -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE))
end

--- A host behind a link, packets from it that pass a queue, and `nfqueue run` that judges them. `before`: what goes
-- before its command.
function environment.new(before)
  local self = setmetatable({ address = HERE, texts = {}, sent = 0, rounds = 0, flushed = 0 }, environment)
  connect(self)
  add_rule()
  self.socket = socket.udp4()
  assert(self.socket:setsockname("*", PORT))
  self.socket:settimeout(0)
  self.gate = net.file("stay")
  self.clock = net.file("0")
  local original = net.command
  net.command = (before or "") .. original
  local done, run = pcall(net.run, ("%s -q %d -- gate=%s"):format(net.file(SCRIPT), QUEUE, self.gate))
  net.command = original
  if not done then
    error(run, 2)
  end
  self.run = run
  return self
end

function environment:remove()
  self.socket:close()
  self.host:remove()
  net.sh("ip link delete " .. self.name)
end

--- Packets from the host, each with a number: their texts.
function environment:send(kind, count)
  local first = self.sent + 1
  self.sent = self.sent + count
  net.must(("%s lua5.4 -e 'local s = require([[socket]]).udp() for i = %d, %d do "
    .. "assert(s:sendto([[%s ]] .. i, [[%s]], %d)) end'"):format(self.host.enter, first, self.sent, kind, self.address,
    PORT))
end

--- How many have arrived; none twice.
function environment:received()
  local text = self.socket:receive()
  while text do
    if self.texts[text] then
      error("twice: " .. text)
    end
    self.texts[text] = true
    self.texts[#self.texts + 1] = text
    text = self.socket:receive()
  end
  return #self.texts
end

local function waiting()
  return net.queue(QUEUE).waiting
end

--- The events: each changes something while packets wait. `flushes`: the kernel then takes them back.
environment.EVENTS = {
  { name = "a link goes down and up", flushes = true, happen = function(self)
    net.must(("ip link set %s down"):format(self.name))
    self.during = waiting()
    net.must(("ip link set %s up"):format(self.name))
  end },
  { name = "an address changes", happen = function(self)
    local old = self.address
    self.address = old == HERE and "10.8.0.3" or HERE
    net.must(("ip address del %s/%d dev %s; ip address add %s/%d dev %s"):format(old, BITS, self.name, self.address,
      BITS, self.name))
  end },
  { name = "the rules are flushed", happen = function()
    net.must("iptables -w -t mangle -F")
    add_rule()
  end },
  { name = "the tables of the rules are deleted", flushes = true, happen = function()
    net.flush_rules()
    add_rule()
  end },
  { name = "an interface is renamed", few = 2, may_flush = true, happen = function(self)
    local new = self.name == "before" and "renamed" or "before"
    if not select(2, net.sh(("ip link set %s name %s"):format(self.name, new))) then
      net.must(("ip link set %s down; ip link set %s name %s; ip link set %s up"):format(self.name, self.name, new,
        new))
    end
    self.name = new
  end },
  { name = "an interface is deleted and made anew", flushes = true, happen = function(self)
    net.must("ip link delete " .. self.name)
    connect(self)
  end },
  { name = "the other end's namespace is deleted", flushes = true, happen = function(self)
    self.host:remove()
    net.wait_for("its end of the link to go", function()
      return not select(2, net.sh("ip link show " .. self.name))
    end)
    self.host = nil
    connect(self)
  end },
  { name = "the clock jumps", before = net.preload(net.build .. "/support/clockstep.so"),
    happen = function(self)
      write(self.clock, self.rounds % 2 == 0 and "-90000" or "90000")
    end },
}

--- A packet that has the counters told, and passes.
function environment:tell()
  local last = "tell " .. self.sent + 1
  self:send("tell", 1)
  net.wait_for("the last packet", function()
    self:received()
    return self.texts[last] and self.run:output():find(last .. " came by " .. self.name, 1, true)
  end)
end

--- One round: packets wait, the event happens, and all of them have their end: `equal(expected, actual, what)`.
function environment:round(event, equal)
  self.rounds = self.rounds + 1
  local before = self:received()
  local since = self.sent
  write(self.gate, "stay")
  self:send("held", EACH)
  net.wait_for("packets to be held", function() return waiting() == EACH end)
  self:send("delayed", EACH)
  local worker = self.run:worker()
  net.pause(worker)
  local there = waiting()
  self:send("unread", EACH)
  net.wait_for("packets to wait", function() return waiting() == there + EACH end)
  event.happen(self)
  local left = waiting()
  net.must("kill -CONT " .. worker)
  write(self.gate, "go")
  net.wait_for("an empty queue", function() return waiting() == 0 end)
  -- The loop goes on.
  self:tell()
  local flushed = self.sent - since - (self:received() - before)
  self.flushed = self.flushed + flushed
  equal(true, self.run:is_alive() and self.run:worker() == worker, "the same worker lives on")
  if event.flushes then
    equal(0, left, "packets left in the queue when " .. event.name)
    equal(true, flushed >= 2 * EACH, "packets taken back when " .. event.name)
  elseif not event.may_flush then
    equal(0, flushed, "packets taken back when " .. event.name)
  end
end

--- After the rounds: the accounts. Returns how many were sent, taken back by the kernel, and refused.
function environment:account(equal)
  local stats
  net.wait_for("every held packet's end", function()
    self:tell()
    for line in self.run:output():gmatch("stats of[^\n]*") do
      stats = line
    end
    stats = outcomes.read_stats(stats, QUEUE)
    return stats.kept == 0
  end)
  equal(self.sent, stats.packets, "packets")
  equal(self.sent - 1, traffic.verdicts(stats), "verdicts") -- the last one's was not given yet
  equal(0, stats.errors + stats.lost + stats.kernel_queue_dropped + stats.kernel_user_dropped, "lost")
  -- A run of accepts is one verdict message, refused as one.
  equal(true, stats.refused <= self.flushed and (stats.refused > 0) == (self.flushed > 0),
    ("refused: %d, and %d were taken back"):format(stats.refused, self.flushed))
  self.run:signal("TERM")
  equal(0, self.run:join(), "status of nfqueue run")
  return { sent = self.sent, flushed = self.flushed, refused = stats.refused }
end

local ECHO = [[
  local socket = require("socket")
  local box = socket.udp4()
  assert(box:setsockname("127.0.0.1", %d))
  box:settimeout(10)
  assert(box:sendto("through the queue", "127.0.0.1", %d))
  io.write(tostring(box:receive()))
]]

--- `nfqueue run` in a namespace that nothing else refers to any more: it goes on there.
function environment.orphan(equal)
  local space = traffic.namespace()
  net.must(("%s ip link set lo up; %s iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(
    space.enter, space.enter, PORT, QUEUE))
  local original = net.command
  net.command = space.enter .. original
  local done, run = pcall(net.run, net.file([[return function(pkt)
    pkt.payload = pkt.payload:upper()
  end]]) .. " -q " .. QUEUE)
  net.command = original
  space:remove()
  if not done then
    error(run, 0)
  end
  net.wait_for("the namespace to lose its first process", function()
    return net.read(("/proc/%d/stat"):format(space.pid)) == ""
  end)
  local worker = run:worker()
  equal("THROUGH THE QUEUE", net.must(("nsenter -t %d -n lua5.4 %s"):format(run.pid,
    net.file(ECHO:format(PORT, PORT)))), "the packet")
  equal(true, run:is_alive() and run:worker() == worker, "the same worker lives on")
  run:signal("TERM")
  equal(0, run:join(), "status of nfqueue run")
end

--- As many rounds of an event.
function environment.check(event, rounds, equal)
  local before = event.before
  local clock = net.file("0")
  local self = environment.new(before and before:gsub("^env", "env CLOCKSTEP_FILE=" .. clock))
  self.clock = clock
  local done, result = xpcall(function()
    for _ = 1, rounds do
      self:round(event, equal)
    end
    return self:account(equal)
  end, debug.traceback)
  self:remove()
  if not done then
    error(result, 0)
  end
  return result
end

return environment
