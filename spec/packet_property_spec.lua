-- For random packets and random edits, what leaves is what scapy makes of the edited bytes when it is left to fill in
-- lengths and checksums. Each edit is done twice: by nfqueue on the packet, and here on a plain string.

local compare = require("compare.compare")
local datagram = require("support.datagram")
local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local PACKETS = 1500
local random, bytes = math.random, unit.random_bytes

local function one_of(list)
  return list[random(#list)]
end

-- --- Packets, as scapy reads and writes them: its own order and padding of options, reserved fields 0 ---

local TCP_OPTIONS = { "", "\2\4\5\xb4", "\2\4\5\xb4\1\3\3\7\4\2\8\10abcdefgh\1\1\1\1", "\1\1\5\10abcdefgh" }
local IP4_OPTIONS = { "", "", "\1\1\1\1", "\7\7\4\0\0\0\0\0", "\131\11\8\192\0\2\9\198\51\100\9\0" }

local function routing(kind, left, addresses)
  return { 43, string.pack(">BBBI4", #addresses // 8, kind, left, kind == 4 and (#addresses // 16 - 1) << 24 or 0)
    .. addresses }
end

local function random_chain()
  local chain, changes = {}, {}
  if random(3) == 1 then
    table.insert(chain, { 0, "\0\5\2\0\0\1\0" })
  end
  if random(4) == 1 then
    changes.origin = bytes(16, 16)
    table.insert(chain, { 60, "\2\1\2\0\0\201\16" .. changes.origin })
  elseif random(4) == 1 then
    table.insert(chain, { 60, "\0\1\4\0\0\0\0" })
  end
  if random(3) == 1 then
    local kind, count = one_of({ 0, 2, 4 }), random(1, 3)
    local addresses, left = bytes(16 * count, 16 * count), random(0, count)
    if kind == 2 then
      addresses, left = addresses:sub(1, 16), math.min(left, 1)
    end
    if left > 0 then
      changes.final = kind == 4 and addresses:sub(1, 16) or addresses:sub(-16)
    end
    table.insert(chain, routing(kind, left, addresses))
  end
  if random(5) == 1 then
    table.insert(chain, { 44, "\0\0\0" .. bytes(4, 4) }) -- atomic (RFC 6946)
  end
  changes.chain = chain
  return changes
end

-- A transport and where in it lie fields that may be edited: { name, offset in it, width }.
local function random_transport(version)
  local payload = bytes(0, one_of({ 4, 40, 400 }))
  local which = random(5)
  if which == 1 then
    local options = one_of(TCP_OPTIONS)
    return datagram.tcp(payload, options), "tcp", 20 + #options,
      { { "sport", 0, 2 }, { "dport", 2, 2 }, { "seq", 4, 4 }, { "ack_seq", 8, 4 }, { "window", 14, 2 },
        { "urg_ptr", 18, 2 } }
  elseif which == 2 then
    return datagram.udp(payload), "udp", 8, { { "sport", 0, 2 }, { "dport", 2, 2 } }
  elseif which == 3 then
    return version == 4 and datagram.icmp(payload) or datagram.icmp6(payload), "icmp", 8,
      { { "id", 4, 2 }, { "seq", 6, 2 }, { "code", 1, 1 } }
  elseif which == 4 then
    return datagram.raw(132, bytes(8, 8) .. "\0\0\0\0" .. "\0\3\0" .. string.char(4 + #payload % 64)
      .. payload:sub(1, #payload % 64)), "other", 0, {}
  end
  return datagram.raw(one_of({ 50, 47, 253, 59 }), payload), "other", 0, {}
end

local function random_packet()
  local version = one_of({ 4, 6 })
  local transport, name, header, fields = random_transport(version)
  local changes, at
  if version == 4 then
    changes = { options = one_of(IP4_OPTIONS), fragment = one_of({ 0, 0x4000 }) }
    changes.final = #changes.options == 12 and changes.options:sub(8, 11) or nil
    at = 20 + #changes.options
  else
    changes, at = random_chain(), 40
    for _, extension in ipairs(changes.chain) do
      at = at + 1 + #extension[2]
    end
  end
  local build = version == 4 and datagram.ip4 or datagram.ip6
  local wrong, right = build(transport, changes)
  return { version = version, wrong = wrong, bytes = right, name = name, transport = at, payload = at + header,
    fields = fields }
end

-- --- Edits: on the packet, and on the string ---

local function splice(text, offset, replacement)
  return text:sub(1, offset) .. replacement .. text:sub(offset + #replacement + 1)
end

-- Offsets that decide no layout: addresses, TTL and the like; the transport, but for TCP's header length and options,
-- ICMP's type and SCTP's chunks; the payload.
local function free_ranges(case)
  local list = case.version == 4 and { { 1, 2 }, { 4, 6 }, { 8, 9 }, { 12, 20 } } or { { 7, 8 }, { 8, 40 } }
  if case.name == "tcp" then
    list[#list + 1] = { case.transport, case.transport + 12 }
    list[#list + 1] = { case.transport + 13, case.transport + 20 }
  elseif case.name == "icmp" then
    list[#list + 1] = { case.transport + 1, case.payload }
  elseif case.name == "udp" then
    list[#list + 1] = { case.transport, case.payload }
  end
  if case.name ~= "other" and #case.bytes > case.payload then
    list[#list + 1] = { case.payload, #case.bytes }
  end
  return list
end

local EDITS = {}

function EDITS.number(case, pkt, text)
  local range = one_of(free_ranges(case))
  local width = math.min(one_of({ 1, 2, 3, 4 }), range[2] - range[1])
  local offset = random(range[1], range[2] - width)
  local value = bytes(width, width)
  pkt["u" .. 8 * width](pkt, offset, (string.unpack(">I" .. width, value)))
  return splice(text, offset, value)
end

function EDITS.patch(case, pkt, text)
  local range = one_of(free_ranges(case))
  local offset = random(range[1], range[2] - 1)
  local value = bytes(1, range[2] - offset)
  pkt:patch(offset, value)
  return splice(text, offset, value)
end

function EDITS.field(case, pkt, text)
  local field = one_of(case.fields)
  if not field then
    return text
  end
  local value = bytes(field[3], field[3])
  pkt[case.name][field[1]] = string.unpack(">I" .. field[3], value)
  return splice(text, case.transport + field[2], value)
end

function EDITS.address(case, pkt, text)
  local size = case.version == 4 and 4 or 16
  local value, source = bytes(size, size), random(2) == 1
  pkt.ip[source and "src_bytes" or "dst_bytes"] = value
  local at = case.version == 4 and (source and 12 or 16) or (source and 8 or 24)
  return splice(text, at, value)
end

function EDITS.ttl(case, pkt, text)
  local value = random(0, 255)
  pkt.ip.ttl = value
  return splice(text, case.version == 4 and 8 or 7, string.char(value))
end

function EDITS.payload(case, pkt, text)
  if case.name == "other" then
    return text
  end
  local size = #text - case.payload
  local value = case.name == "tcp" and bytes(size, size) or bytes(0, 200)
  pkt.payload = value
  return text:sub(1, case.payload) .. value
end

local NAMES = { "number", "patch", "field", "address", "ttl", "payload" }

-- What leaves, the string it was made from, and what was done.
local function random_case()
  local case = random_packet()
  local pkt, text, done = nfqueue.packet(case.bytes), case.bytes, {}
  if random(6) == 1 then
    pkt:modify(case.wrong) -- lengths and checksums are wrong
    return pkt.sent, case.wrong, { "modify" }, case
  end
  for i = 1, random(2, 5) do
    done[i] = i == 1 and "ttl" or one_of(NAMES) -- one at least that every packet takes
    -- The free ranges end where the payload now does.
    case.bytes = text
    text = EDITS[done[i]](case, pkt, text)
  end
  pkt:accept()
  return pkt.sent, text, done, case
end

local function hex(text)
  return (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

describe("random packets and edits", function()
  it("leave as scapy rebuilds them", function()
    local peers = table.concat(compare.peers(), " ")
    if not peers:find("scapy") then
      pending("not installed: python3-scapy")
    end
    local seed = tonumber(os.getenv("NFQUEUE_SEED")) or os.time()
    math.randomseed(seed)
    local cases, lines = {}, {}
    for i = 1, PACKETS do
      local sent, text, done, case = random_case()
      cases[i] = { sent = hex(sent), done = done, name = case.name, version = case.version }
      lines[i] = hex(text)
    end
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(table.concat(lines, "\n"), "\n")
    file:close()
    local output = net.must("/usr/bin/python3 -I spec/compare/scapy_rebuild.py < " .. path)
    os.remove(path)
    local number = 0
    for line in output:gmatch("%S+") do
      number = number + 1
      local case = cases[number]
      assert.are.equal(line, case.sent, ("NFQUEUE_SEED=%d, packet %d (IPv%d %s) after %s of %s"):format(seed, number,
        case.version, case.name, table.concat(case.done, ", "), lines[number]))
    end
    assert.are.equal(PACKETS, number)
  end)
end)
