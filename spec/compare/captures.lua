-- Capture files, read and written with string.unpack alone: pcap and pcapng, plain or gzipped.
-- A damaged file is read up to its damage.

local captures = {}

captures.RAW = 101 -- LINKTYPE_RAW: bytes begin with the IP header

local PCAP = { -- magic as a little-endian number: byte order, bytes of a record's header
  [0xa1b2c3d4] = { "<", 16 }, [0xd4c3b2a1] = { ">", 16 },
  [0xa1b23c4d] = { "<", 16 }, [0x4d3cb2a1] = { ">", 16 }, -- nanoseconds
  [0xa1b2cd34] = { "<", 24 }, [0x34cdb2a1] = { ">", 24 }, -- Kuznetzov's
}
local SECTION, INTERFACE, PACKET, SIMPLE, ENHANCED = 0x0a0d0d0a, 1, 2, 3, 6

local function read_pcap(text, kind)
  local order, header = kind[1], kind[2]
  local link = #text >= 24 and string.unpack(order .. "I4", text, 21) & 0xffff
  local at = 25
  return function()
    if at + header - 1 > #text then
      return nil
    end
    local size, wire = string.unpack(order .. "I4I4", text, at + 8)
    local bytes = text:sub(at + header, at + header + size - 1)
    if #bytes < size then
      return nil
    end
    at = at + header + size
    return link, bytes, wire
  end
end

-- One block of a pcapng file: link type, bytes and wire length, where it holds a packet. RFC draft-ietf-opsawg-pcapng.
local function read_block(kind, body, order, interfaces)
  if kind == INTERFACE and #body >= 8 then
    local link, snap = string.unpack(order .. "I2xxI4", body)
    table.insert(interfaces, { link = link, snap = snap })
  elseif kind == ENHANCED and #body >= 20 then
    local index, size, wire = string.unpack(order .. "I4xxxxxxxxI4I4", body)
    local interface = interfaces[index + 1]
    return interface and interface.link, body:sub(21, 20 + size), wire
  elseif kind == PACKET and #body >= 20 then
    local index, size, wire = string.unpack(order .. "I2xxxxxxxxxxI4I4", body)
    local interface = interfaces[index + 1]
    return interface and interface.link, body:sub(21, 20 + size), wire
  elseif kind == SIMPLE and #body >= 4 and interfaces[1] then
    local wire = string.unpack(order .. "I4", body)
    local snap = interfaces[1].snap > 0 and interfaces[1].snap or wire
    return interfaces[1].link, body:sub(5, 4 + math.min(wire, snap)), wire
  end
end

local function read_pcapng(text)
  local at, order, interfaces = 1, "<", {}
  return function()
    while at + 11 <= #text do
      local kind = string.unpack("<I4", text, at)
      if kind == SECTION then
        order = string.unpack("<I4", text, at + 8) == 0x1a2b3c4d and "<" or ">"
        interfaces = {}
      end
      local block, size = string.unpack(order .. "I4I4", text, at)
      if size < 12 or at + size - 1 > #text then
        return nil
      end
      local body = text:sub(at + 8, at + size - 5)
      at = at + size
      local link, bytes, wire = read_block(block, body, order, interfaces)
      if link then
        return link, bytes, wire
      end
    end
  end
end

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  if text:sub(1, 2) == "\x1f\x8b" then
    local pipe = assert(io.popen("gzip -dc '" .. path:gsub("'", "'\\''") .. "' 2>/dev/null", "r"))
    text = pipe:read("a")
    pipe:close()
  end
  return text
end

--- An iterator over the packets of a file: link type, bytes, bytes on the wire; nil for a file that is no capture.
function captures.packets(path)
  local text = read_file(path)
  local magic = #text >= 4 and string.unpack("<I4", text)
  if PCAP[magic] then
    return read_pcap(text, PCAP[magic])
  elseif magic == SECTION then
    return read_pcapng(text)
  end
  return nil
end

--- A writer of raw IP packets: `write(bytes, wire_length)`, `close()`.
function captures.create(path)
  local file = assert(io.open(path, "wb"))
  file:write(string.pack("<I4I2I2i4I4I4I4", 0xa1b2c3d4, 2, 4, 0, 0, 0x40000, captures.RAW))
  return {
    write = function(_, bytes, wire)
      file:write(string.pack("<I4I4I4I4", 0, 0, #bytes, wire), bytes)
    end,
    close = function()
      file:close()
    end,
  }
end

return captures
