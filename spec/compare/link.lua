-- From the link layer to the network layer: where in a frame its IP packet begins.

local link = {}

local IP4, IP6 = 0x0800, 0x86dd
local TAGS = { [0x8100] = true, [0x88a8] = true, [0x9100] = true, [0x9200] = true } -- VLAN
local PPP = { [0x21] = IP4, [0x57] = IP6 }
local FAMILIES = { [2] = IP4, [10] = IP6, [24] = IP6, [28] = IP6, [30] = IP6 } -- AF_INET6 of each BSD, and Linux

-- Each takes the frame and answers with the 0-based offset of what lies above; nil: no IP packet.

local function skip_ppp(bytes, at)
  if bytes:sub(at + 1, at + 2) == "\xff\x03" then
    at = at + 2
  end
  local protocol, size = bytes:byte(at + 1) or 0, 1
  if protocol & 1 == 0 then -- not compressed to one byte
    protocol, size = protocol << 8 | (bytes:byte(at + 2) or 0), 2
  end
  return PPP[protocol] and at + size
end

-- `at` is the offset of the ethertype.
local function skip_ethertype(bytes, at)
  if #bytes < at + 2 then
    return nil
  end
  local kind = string.unpack(">I2", bytes, at + 1)
  at = at + 2
  if TAGS[kind] then
    return skip_ethertype(bytes, at + 2)
  elseif kind == IP4 or kind == IP6 then
    return at
  elseif kind == 0x8864 then -- PPPoE session: six bytes
    return skip_ppp(bytes, at + 6)
  elseif kind <= 1500 and bytes:sub(at + 1, at + 6) == "\xaa\xaa\3\0\0\0" then -- LLC and SNAP
    return skip_ethertype(bytes, at + 6)
  end
end

local function skip_family(order)
  return function(bytes)
    return #bytes >= 4 and FAMILIES[string.unpack(order .. "I4", bytes)] and 4
  end
end

local SKIP = {
  [0] = function(bytes) -- BSD loopback, in the byte order of whoever captured
    return skip_family("<")(bytes) or skip_family(">")(bytes)
  end,
  [1] = function(bytes) -- Ethernet
    return skip_ethertype(bytes, 12)
  end,
  [9] = function(bytes) -- PPP
    return skip_ppp(bytes, 0)
  end,
  [12] = function() return 0 end, -- raw IP, and its other numbers
  [14] = function() return 0 end,
  [101] = function() return 0 end,
  [228] = function() return 0 end,
  [229] = function() return 0 end,
  [50] = function(bytes) -- PPP behind HDLC framing
    return skip_ppp(bytes, 0)
  end,
  [51] = function(bytes) -- PPP over Ethernet
    return skip_ppp(bytes, 6)
  end,
  [104] = function(bytes) -- Cisco HDLC
    return skip_ethertype(bytes, 2)
  end,
  [108] = skip_family(">"), -- OpenBSD loopback
  [113] = function(bytes) -- Linux cooked
    return skip_ethertype(bytes, 14)
  end,
  [276] = function(bytes) -- Linux cooked, version 2
    local kind = #bytes >= 20 and string.unpack(">I2", bytes)
    return (kind == IP4 or kind == IP6) and 20
  end,
}

--- The IP packet in a frame and its length on the wire; nil where there is none, or the link type is not known.
function link.strip(kind, bytes, wire)
  local skip = SKIP[kind]
  local offset = skip and skip(bytes)
  if not offset or offset >= #bytes then
    return nil
  end
  return bytes:sub(offset + 1), wire - offset
end

--- Whether frames of this link type can be stripped.
function link.is_known(kind)
  return SKIP[kind] ~= nil
end

return link
