-- Every field that nfqueue reads, held against what scapy and tshark read, packet by packet.
--
-- The IP packets of all captures go into one file of raw packets, which both peers read beside us; so all three
-- see the same bytes. A difference is explained by a rule (rules.lua) or it is not.

local captures = require("compare.captures")
local link = require("compare.link")
local reading = require("compare.reading")
local tshark_read = require("compare.tshark_read")

local compare = {}

local MOST = 65531 -- bytes that a verdict, and so nfqueue.packet, can hold
local SCAPY = "/usr/bin/python3 -I '%s' '%s' 2>/dev/null"

local function quote(path)
  return "'" .. path:gsub("'", "'\\''") .. "'"
end

local function succeeds(command)
  return (os.execute(command .. " >/dev/null 2>&1"))
end

--- The peers that are installed, by name, and a list of the missing ones' Debian packages.
function compare.peers()
  local peers, missing = {}, {}
  if succeeds("/usr/bin/python3 -I -c 'import scapy'") then
    peers[#peers + 1] = "scapy"
  else
    missing[#missing + 1] = "python3-scapy"
  end
  if succeeds("tshark -v") then
    peers[#peers + 1] = "tshark"
  else
    missing[#missing + 1] = "tshark"
  end
  return peers, missing
end

--- The versions of the peers, a line.
function compare.versions()
  local pipe = assert(io.popen("/usr/bin/python3 -I -c 'import scapy; print(\"scapy\", scapy.__version__)' 2>/dev/null;"
    .. " tshark -v 2>/dev/null | head -n 1", "r"))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("%s+$", ""):gsub("\n", ", "))
end

local function open_scapy(path, script)
  local pipe = assert(io.popen(SCAPY:format(script, path), "r"))
  local lines = pipe:lines()
  return {
    next = function()
      local line = lines()
      local values = line and {}
      for key, value in (line or ""):gmatch("(%S+)=(%S*)") do
        values[key] = value
      end
      return values
    end,
    close = function()
      return pipe:close()
    end,
  }
end

local OPEN = {
  scapy = function(path)
    return open_scapy(path, package.searchpath("compare.reading", package.path):gsub("reading%.lua$", "scapy_read.py"))
  end,
  tshark = tshark_read.open,
}

--- Puts the IP packets of `files` into one capture at `path`. Returns a list of their origins, and counts.
function compare.gather(files, path)
  local origins, counts = {}, { files = 0, records = 0, packets = 0, no_capture = 0 }
  local writer = captures.create(path)
  for _, file in ipairs(files) do
    local packets = captures.packets(file)
    counts.files = counts.files + 1
    if not packets then
      counts.no_capture = counts.no_capture + 1
    end
    local number = 0
    for kind, frame, wire in packets or function() end do
      number = number + 1
      counts.records = counts.records + 1
      local bytes, length = link.strip(kind, frame, wire)
      if bytes then
        counts.packets = counts.packets + 1
        origins[counts.packets] = { file = file, number = number }
        writer:write(bytes:sub(1, MOST), math.max(length, #bytes))
      end
    end
  end
  writer:close()
  return origins, counts
end

-- Keys of either, in order.
local function all_keys(one, other)
  local keys = {}
  for key in pairs(one) do
    keys[#keys + 1] = key
  end
  for key in pairs(other) do
    if one[key] == nil then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys)
  return keys
end

local function explain(rules, case)
  for _, rule in ipairs(rules) do
    if (not rule.peer or rule.peer == case.peer) and case.field:find(rule.fields) and rule.applies(case) then
      return rule
    end
  end
end

-- Protocols that have no tuple, or one with ports, where the peer reads no such header: cut ones, DCCP, SCTP, UDP-Lite;
-- and extension headers, which are cut where they come last.
local UNTOLD = {
  ["0"] = true, ["6"] = true, ["17"] = true, ["33"] = true, ["43"] = true, ["44"] = true, ["48"] = true, ["51"] = true,
  ["60"] = true, ["132"] = true, ["136"] = true,
}
local ECHO = { ["4"] = { ["0"] = true, ["8"] = true }, ["6"] = { ["128"] = true, ["129"] = true } }
local NAMES = { ["1"] = "icmp", ["6"] = "tcp", ["17"] = "udp", ["58"] = "icmp6" }

-- What pkt.tuple is of a packet that has a peer's fields; nil where it has none, false where they do not tell.
local function find_tuple(their)
  local version, protocol = their["ip.version"], their["ip.protocol"]
  if their["ip.frag_offset"] and their["ip.frag_offset"] ~= "0" then
    return nil
  end
  local sport, dport = their["tcp.sport"] or their["udp.sport"], their["tcp.dport"] or their["udp.dport"]
  if their["icmp.type"] and ECHO[version][their["icmp.type"]] then
    sport, dport = their["icmp.id"], their["icmp.id"]
  end
  if not protocol or not their["ip.src"] or not sport and UNTOLD[protocol] then
    return false
  end
  local form = sport and (version == "6" and "[%s]:%s" or "%s:%s") or "%s"
  return ("%s_%s_>_%s"):format(NAMES[protocol] or protocol, form:format(their["ip.src"], sport),
    form:format(their["ip.dst"], dport))
end

-- What a peer has no field for.
local NOT_READ = { scapy = "^inner%.", tshark = "^icmp%.embedded$" }

-- One packet against one peer.
local function compare_packet(result, rules, peer, ours, theirs, bytes, wire, origin)
  for _, field in ipairs(all_keys(ours, theirs)) do
    local is_ip = ours["ip.version"] or theirs["ip.version"]
    if theirs[field] ~= false and not field:find(NOT_READ[peer]) and (is_ip or not field:find("^payload")) then
      result.fields = result.fields + 1
      if ours[field] ~= theirs[field] then
        local case = {
          peer = peer, field = field, ours = ours[field], theirs = theirs[field], our = ours, their = theirs,
          bytes = bytes, wire = wire, origin = origin,
        }
        local rule = explain(rules, case)
        result.differing = result.differing + 1
        if rule then
          result.explained = result.explained + 1
          result.rules[rule] = (result.rules[rule] or 0) + 1
        else
          table.insert(result.unexplained, case)
        end
      end
    end
  end
end

--- Reads a gathered capture with nfqueue and with `peers`. `origins` tells where each packet is from.
-- Returns a table: packets, fields (compared), differing, explained, unexplained (list of cases), rules (uses of each).
function compare.run(path, origins, peers, rules, folder)
  local result = { packets = 0, fields = 0, differing = 0, explained = 0, unexplained = {}, rules = {} }
  local readers = {}
  for i, peer in ipairs(peers) do
    os.execute("mkdir -p " .. quote(folder))
    readers[i] = OPEN[peer](path, folder)
  end
  local number = 0
  for _, bytes, wire in captures.packets(path) do
    number = number + 1
    result.packets = result.packets + 1
    local ours = reading.of(bytes, wire)
    for i, peer in ipairs(peers) do
      local theirs = readers[i]:next(bytes)
      if not theirs then
        error(("%s ended at packet %d of %s"):format(peer, number, path))
      end
      theirs.tuple = find_tuple(theirs)
      compare_packet(result, rules, peer, ours, theirs, bytes, wire, origins and origins[number])
    end
  end
  for _, reader in ipairs(readers) do
    reader:close()
  end
  return result
end

return compare
