-- What conntrack(8) says of connections, in a shape in which pkt.ct can be compared with it.

local net = require("support.net")
local traffic = require("support.traffic")

local conntrack = {}

-- Labels are printed by name only, and the names are looked for in one place: so it gets an /etc of its own.
local names = {}
for number = 0, 127 do
  names[#names + 1] = ("%d bit-%d\n"):format(number, number)
end
local NAMED = ([[unshare -m sh -c 'mount -t tmpfs tmpfs /etc && mkdir /etc/xtables
cat >/etc/xtables/connlabel.conf <<END
%sEND
conntrack -L -f %%s -o id,labels 2>/dev/null']]):format(table.concat(names))

-- udp 17 29 src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=A sport=2 dport=1 mark=0 use=1 id=7 labels=bit-3
local function parse(line)
  local protocol = math.tointeger(tonumber(line:match("^%S+%s+(%d+)")))
  local entry = { labels = {}, seen_reply = true, assured = false, tuples = {} }
  local tuple
  for word in line:gmatch("%S+") do
    local key, value = word:match("^(%l+)=(.*)$")
    if word == "[UNREPLIED]" then
      entry.seen_reply = false
    elseif word == "[ASSURED]" then
      entry.assured = true
    elseif key == "src" then
      tuple = { src = value, protocol = protocol }
      table.insert(entry.tuples, tuple)
    elseif key == "dst" then
      tuple.dst = value
    elseif key == "mark" then
      entry.mark = math.tointeger(tonumber(value))
      tuple = entry -- the id behind it is the entry's, not an echo's
    elseif key == "labels" then
      for number in value:gmatch("bit%-(%d+)") do
        entry.labels[math.tointeger(tonumber(number))] = true
      end
    elseif key and key ~= "use" then
      tuple[key] = math.tointeger(tonumber(value))
    end
  end
  entry.orig, entry.reply = table.unpack(entry.tuples)
  entry.tuples = nil
  return entry
end

--- The connection with this original destination port, or of this protocol where it has no ports: { id, mark,
-- labels, seen_reply, assured, orig, reply }, or nil. `labels`: whether they are asked for, at some cost.
function conntrack.find(family, protocol, dport, labels)
  local listing = labels and NAMED or "conntrack -L -f %s -o id 2>/dev/null"
  for line in net.must(listing:format(family.name:lower())):gmatch("[^\n]+") do
    local entry = parse(line)
    if entry.orig.protocol == protocol and entry.orig.dport == dport then
      return entry
    end
  end
end

--- What conntrack(8) would say of the connection in a pkt.ct.
function conntrack.described(ct)
  return {
    id = ct.id, mark = ct.mark, labels = ct.labels, seen_reply = ct.status.seen_reply, assured = ct.status.assured,
    orig = ct.orig, reply = ct.reply,
  }
end

--- Have this network namespace track connections, as any rule that speaks of them does.
function conntrack.enable()
  for _, family in ipairs(traffic.FAMILIES) do
    traffic.rule("-t raw -A PREROUTING -m conntrack --ctstate INVALID", family)
  end
end

local verdict

--- Why this kernel hands no connections to queues: nil when it does.
function conntrack.missing()
  if verdict == nil then
    local seen
    local queue = traffic.queue(9, function(pkt) seen = pkt.ct ~= nil end, { conntrack = true })
    local opened, message = queue:open()
    if opened then
      conntrack.enable()
      local udp = traffic.udp()
      net.queue_udp(udp.port, 9)
      udp:send("probe")
      traffic.judge_packets(queue, 1)
      message = "no conntrack attribute comes with packets"
    end
    traffic.cleanup()
    verdict = not seen and message
  end
  return verdict or nil
end

return conntrack
