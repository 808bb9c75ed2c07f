-- What nfqueue reads from a packet, as one flat table: "header.field" = text. Fields that are nil are left out;
-- booleans are 0 and 1, byte strings hexadecimal; "inner" is the IP header of what an ICMP error embeds. The peers'
-- readers give the same keys.

local nfqueue = require("nfqueue")

local reading = {}

local FIELDS = {
  ip = {
    "version", "src", "dst", "ttl", "tos", "id", "df", "mf", "frag_offset", "length", "protocol", "checksum", "offset",
  },
  tcp = {
    "sport", "dport", "seq", "ack_seq", "flags", "window", "urg_ptr", "mss", "checksum", "fin", "syn", "rst", "psh",
    "ack", "urg", "ece", "cwr", "offset",
  },
  udp = { "sport", "dport", "length", "checksum", "offset" },
  icmp = { "type", "code", "id", "seq", "checksum", "offset" },
}
local BYTES = { ip = { "src_bytes", "dst_bytes" }, icmp = { "embedded" } }
local INNER = { "version", "src", "dst", "ttl", "tos", "id", "length", "protocol" } -- of what an ICMP error embeds

function reading.hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function text(value)
  if type(value) == "boolean" then
    return value and "1" or "0"
  end
  return tostring(value)
end

local function read_header(header, name, out)
  for _, field in ipairs(FIELDS[name]) do
    local value = header[field]
    if value ~= nil then
      out[name .. "." .. field] = text(value)
    end
  end
  for _, field in ipairs(BYTES[name] or {}) do
    local value = header[field]
    if value then
      out[name .. "." .. field] = reading.hex(value)
    end
  end
end

--- Every field of a packet. `wire`: its length on the wire, where that is more than its bytes.
function reading.of(bytes, wire)
  local pkt = nfqueue.packet(bytes, { length = math.max(wire or 0, #bytes) })
  local out = {}
  for name in pairs(FIELDS) do
    local header = pkt[name]
    if header then
      read_header(header, name, out)
    end
  end
  local tcp = pkt.tcp
  for kind = 2, tcp and 255 or 0 do
    local value = tcp:option(kind)
    if value then
      out["tcp.option." .. kind] = reading.hex(value)
    end
  end
  out.tuple = pkt.tuple and pkt.tuple:gsub(" ", "_")
  local embedded = pkt.icmp and pkt.icmp.embedded
  local inner = embedded and nfqueue.packet(embedded).ip
  for _, field in ipairs(inner and INNER or {}) do
    local value = inner[field]
    out["inner." .. field] = value and text(value)
  end
  local offset, payload = pkt.payload_offset, pkt.payload
  out["payload.offset"] = text(offset)
  out["payload.length"] = text(#payload)
  assert(payload == bytes:sub(offset + 1, offset + #payload), "the payload is not the packet's bytes")
  return out
end

return reading
