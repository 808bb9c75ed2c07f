-- What tshark reads from a capture of raw IP packets, packet by packet, under the keys of reading.lua.
-- It prints PDML: an element a line, each with the position of its bytes. Only the outermost headers count:
-- what an ICMP error or a tunnel carries is told apart by nesting and order.

local reading = require("compare.reading")

local tshark_read = {}

-- Everything that is neither here nor a part of these is switched off: what a payload means is another's business.
local ENABLED = {
  "frame", "raw", "ip", "ip%..*", "ipv6", "ipv6%..*", "ah", "tcp", "tcp%..*", "mptcp", "udp", "icmp", "icmpv6",
  "icmpv6%..*", "data", "_ws%..*",
}
local PREFERENCES = {
  "ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.relative_sequence_numbers:FALSE",
  "tcp.analyze_sequence_numbers:FALSE", "tcp.desegment_tcp_streams:FALSE",
}

local OUTER, EMBEDDED = "outer", "embedded" -- places of a header

local function decimal(attributes)
  return attributes.show:match("^%d+")
end

local function number(attributes)
  return attributes.value ~= "" and tostring(tonumber(attributes.value, 16)) or nil
end

local function eights(attributes) -- shown in units of 8 bytes
  return tostring(attributes.show * 8 | 0)
end

local function shown(attributes)
  return attributes.show
end

local function flag(attributes)
  return (attributes.show == "1" or attributes.show == "True") and "1" or "0"
end

-- Where PDML has it: our key, and how its text is made.
local FIELDS = {
  ["ip.version"] = { "ip.version", decimal }, ["ipv6.version"] = { "ip.version", decimal },
  ["ip.src"] = { "ip.src", shown }, ["ipv6.src"] = { "ip.src", shown },
  ["ip.dst"] = { "ip.dst", shown }, ["ipv6.dst"] = { "ip.dst", shown },
  ["ip.ttl"] = { "ip.ttl", decimal }, ["ipv6.hlim"] = { "ip.ttl", decimal },
  ["ip.dsfield"] = { "ip.tos", number }, ["ipv6.tclass"] = { "ip.tos", number },
  ["ip.id"] = { "ip.id", number }, ["ipv6.fraghdr.ident"] = { "ip.id", number },
  ["ip.flags.df"] = { "ip.df", flag },
  ["ip.flags.mf"] = { "ip.mf", flag }, ["ipv6.fraghdr.more"] = { "ip.mf", flag },
  ["ip.frag_offset"] = { "ip.frag_offset", eights }, ["ipv6.fraghdr.offset"] = { "ip.frag_offset", eights },
  ["ip.len"] = { "ip.length", decimal },
  ["ipv6.plen"] = { "ip.length", function(a) return tostring(decimal(a) + 40) end },
  ["ip.checksum"] = { "ip.checksum", number },
  ["tcp.srcport"] = { "tcp.sport", decimal }, ["tcp.dstport"] = { "tcp.dport", decimal },
  ["tcp.seq_raw"] = { "tcp.seq", decimal }, ["tcp.ack_raw"] = { "tcp.ack_seq", decimal },
  ["tcp.window_size_value"] = { "tcp.window", decimal }, ["tcp.urgent_pointer"] = { "tcp.urg_ptr", decimal },
  ["tcp.checksum"] = { "tcp.checksum", number }, ["tcp.options.mss_val"] = { "tcp.mss", decimal },
  ["tcp.flags.fin"] = { "tcp.fin", flag }, ["tcp.flags.syn"] = { "tcp.syn", flag },
  ["tcp.flags.reset"] = { "tcp.rst", flag }, ["tcp.flags.push"] = { "tcp.psh", flag },
  ["tcp.flags.ack"] = { "tcp.ack", flag }, ["tcp.flags.urg"] = { "tcp.urg", flag },
  ["tcp.flags.ece"] = { "tcp.ece", flag }, ["tcp.flags.cwr"] = { "tcp.cwr", flag },
  ["udp.srcport"] = { "udp.sport", decimal }, ["udp.dstport"] = { "udp.dport", decimal },
  ["udp.length"] = { "udp.length", decimal }, ["udp.checksum"] = { "udp.checksum", number },
  ["icmp.type"] = { "icmp.type", decimal }, ["icmpv6.type"] = { "icmp.type", decimal },
  ["icmp.code"] = { "icmp.code", decimal }, ["icmpv6.code"] = { "icmp.code", decimal },
  ["icmp.checksum"] = { "icmp.checksum", number }, ["icmpv6.checksum"] = { "icmp.checksum", number },
  ["icmp.ident"] = { "icmp.id", number }, ["icmpv6.echo.identifier"] = { "icmp.id", number },
  ["icmp.seq"] = { "icmp.seq", decimal }, ["icmpv6.echo.sequence_number"] = { "icmp.seq", decimal },
}
local HEXADECIMAL = { -- fields kept as bytes too
  ["ip.src"] = "ip.src_bytes", ["ipv6.src"] = "ip.src_bytes",
  ["ip.dst"] = "ip.dst_bytes", ["ipv6.dst"] = "ip.dst_bytes",
}
-- Next-header numbers: the last one read is the transport's.
local NEXT = {
  ["ip.proto"] = true, ["ipv6.nxt"] = true, ["ipv6.hopopts.nxt"] = true, ["ipv6.dstopts.nxt"] = true,
  ["ipv6.routing.nxt"] = true, ["ipv6.fraghdr.nxt"] = true, ["ah.next_header"] = true,
}
local EXTENSIONS = {
  ah = true, ["ipv6.hopopts"] = true, ["ipv6.dstopts"] = true, ["ipv6.routing"] = true, ["ipv6.fraghdr"] = true,
}
local INNER = {
  version = true, src = true, dst = true, ttl = true, tos = true, id = true, length = true, protocol = true,
}
local TRANSPORTS = { tcp = "tcp", udp = "udp", icmp = "icmp", icmpv6 = "icmp" }
local LETTERS = { "fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr" }

local function attributes_of(line)
  return {
    name = line:match(' name="([^"]*)"'),
    size = tonumber(line:match('" size="(%d+)"')),
    pos = tonumber(line:match('" pos="(%d+)"')),
    show = line:match('" show="([^"]*)"') or "",
    value = line:match('" value="([^"]*)"') or "",
  }
end

-- A top-level protocol begins; once the outermost packet's headers have ended, the rest is payload. Returns whether
-- it is one of those headers.
local function begin_protocol(state, element)
  local name = element.name
  if state.ended or name == "geninfo" or name == "frame" or name == "raw" or name:find("^_ws") then
    return false
  end
  if (name == "ip" or name == "ipv6") and not state.network then
    state.network = name
    state.out["ip.offset"] = tostring(element.pos)
    state.network_end = element.pos + element.size
    return true
  elseif TRANSPORTS[name] and not state.transport and state.network then
    state.transport = TRANSPORTS[name]
    state.out[state.transport .. ".offset"] = tostring(element.pos)
    state.header_end = element.pos + (state.transport == "tcp" and element.size or math.min(element.size, 8))
    state.finish = element.pos + element.size
    return true
  elseif EXTENSIONS[name] and not state.transport then
    state.network_end = element.pos + element.size
    return true
  end
  state.ended = true
  if element.pos and not state.header_end then
    -- A tunnel's inner packet: its element is as long as its header. Its end is the outer's.
    state.header_end = element.pos
    state.finish = math.min(state.size, tonumber(state.out["ip.length"]))
  end
  return false
end

-- A field of the first IP packet that an ICMP error embeds.
local function read_inner(state, element)
  local known = FIELDS[element.name]
  local key = known and known[1]:match("^ip%.(.*)") or NEXT[element.name] and "protocol"
  if key and INNER[key] and (key == "protocol" or not state.out["inner." .. key]) then
    state.out["inner." .. key] = (known and known[2] or decimal)(element)
  end
end

-- A protocol within another: an extension header, MPTCP among the TCP options, or what an ICMP error embeds (ICMPv6
-- types below 128; a neighbour's redirect is none). Returns its place, false for what does not count.
local function begin_nested(state, element, place)
  if place == OUTER and (EXTENSIONS[element.name] or element.name == "mptcp") then
    state.network_end = state.transport and state.network_end or element.pos + element.size
    return OUTER
  elseif place == EMBEDDED and EXTENSIONS[element.name] then
    return EMBEDDED
  elseif place == OUTER and element.name == state.network and not state.embedded
    and (element.name == "ip" or tonumber(state.out["icmp.type"] or 255) < 128) then
    state.embedded = true
    return EMBEDDED
  end
  return false
end

local function read_field(state, element, bytes)
  local out = state.out
  local known = FIELDS[element.name]
  if known then
    local key, render = known[1], known[2]
    if not out[key] or key == "ip.mf" and out[key] == "0" then
      out[key] = render(element)
    end
    if HEXADECIMAL[element.name] then
      out[HEXADECIMAL[element.name]] = out[HEXADECIMAL[element.name]] or element.value
    end
  elseif NEXT[element.name] then
    out["ip.protocol"] = decimal(element)
  elseif element.name == "tcp.option_kind" then
    state.option = { kind = tonumber(element.show), pos = element.pos }
  elseif element.name == "tcp.option_len" and state.option and element.pos == state.option.pos + 1 then
    local option = state.option
    local key = "tcp.option." .. option.kind
    out[key] = out[key] or reading.hex(bytes:sub(option.pos + 3, option.pos + tonumber(element.show)))
  elseif element.name == "tcp.len" then -- on the wire
    state.segment = tonumber(element.show)
  end
end

local function finish(state)
  local out = state.out
  if not state.network then
    return {}
  end
  if out["tcp.fin"] then
    local letters = ""
    for i, name in ipairs(LETTERS) do
      letters = letters .. (out["tcp." .. name] == "1" and ("FSRPAUEC"):sub(i, i) or "")
    end
    out["tcp.flags"] = letters
  end
  if state.network == "ipv6" then
    out["ip.mf"] = out["ip.mf"] or "0"
    out["ip.frag_offset"] = out["ip.frag_offset"] or "0"
  end
  if state.segment then
    state.finish = math.min(state.size, state.header_end + state.segment)
  elseif not state.header_end then -- nothing lies behind the headers
    state.header_end, state.finish = state.network_end, state.network_end
  end
  if state.header_end then
    out["payload.offset"] = tostring(state.header_end)
    out["payload.length"] = tostring(math.max(state.finish - state.header_end, 0))
  end
  return out
end

-- Reads the elements of one packet; nil at the end of the document. `bytes` are the packet's.
local function read_packet(lines, bytes)
  for line in lines do
    if line:find("^<packet>") then
      break
    end
  end
  local state, stack = { out = {}, size = #bytes }, {} -- the stack: of each open protocol its place
  for line in lines do
    local kind = line:match("^%s*<(/?%a+)")
    local place = stack[#stack]
    if kind == "/packet" then
      return finish(state)
    elseif kind == "proto" then
      local element = attributes_of(line)
      if #stack == 0 then
        place = begin_protocol(state, element) and OUTER
      else
        place = begin_nested(state, element, place)
      end
      if not line:find("/>%s*$") then
        stack[#stack + 1] = place
      end
    elseif kind == "/proto" then
      stack[#stack] = nil
    elseif kind == "field" and (place or #stack == 1 and state.ended) then
      local name = line:match(' name="([^"]*)"')
      if place == OUTER and (FIELDS[name] or NEXT[name] or name:find("^tcp%.")) then
        read_field(state, attributes_of(line), bytes)
      elseif place == EMBEDDED and (FIELDS[name] or NEXT[name]) then
        read_inner(state, attributes_of(line))
      elseif name == "data.data" and state.ended then
        local element = attributes_of(line)
        state.header_end = state.header_end or element.pos
        if element.pos == state.header_end then
          state.finish = element.pos + element.size
        end
      end
    end
  end
  return nil
end

-- A configuration of our own: the user's says nothing here, and protocols above the transport are off.
local function configure(folder)
  local pipe = assert(io.popen("tshark -G protocols 2>/dev/null", "r"))
  local disabled = {}
  for line in pipe:lines() do
    local name = line:match("([^\t]+)$")
    local enabled = false
    for _, pattern in ipairs(ENABLED) do
      enabled = enabled or name:find("^" .. pattern .. "$") ~= nil
    end
    if not enabled then
      disabled[#disabled + 1] = name
    end
  end
  pipe:close()
  local file = assert(io.open(folder .. "/disabled_protos", "w"))
  file:write(table.concat(disabled, "\n"), "\n")
  file:close()
end

--- Starts tshark over a capture: `next(bytes)` gives the next packet's reading, nil after the last; `close()`.
-- `folder` is an existing one for its configuration.
function tshark_read.open(path, folder)
  configure(folder)
  local options = ""
  for _, preference in ipairs(PREFERENCES) do
    options = options .. " -o " .. preference
  end
  local pipe = assert(io.popen(("WIRESHARK_CONFIG_DIR='%s' TZ=UTC tshark -n -r '%s' -T pdml%s 2>/dev/null")
    :format(folder, path, options), "r"))
  local lines = pipe:lines()
  return {
    next = function(_, bytes)
      return read_packet(lines, bytes)
    end,
    close = function()
      return pipe:close()
    end,
  }
end

return tshark_read
