-- A packet of any bytes, through everything that a handler can read and assign of it. The choices say in which order,
-- and with which values. What is read is held against the bytes; what is refused must be refused by name. Given a
-- packet of a queue, it does the same with that.

local core = require("nfqueue.core")

local choices = dofile("spec/fuzz/choices.lua")
local choose, choose_bytes = choices.number, choices.bytes

local PACKET = { "id", "family", "hook", "ethertype", "timestamp", "verdict", "length", "truncated", "gso", "mark",
  "priority", "iif", "oif", "physiif", "physoif", "iifname", "oifname", "physiifname", "physoifname", "hwaddr", "vlan",
  "l2header", "uid", "gid", "secctx", "cgroup", "sent", "ct", "payload", "payload_offset", "tuple" }
local HEADERS = { "ip", "ip4", "ip6", "tcp", "udp", "icmp" }
local IP = { "version", "src", "dst", "src_bytes", "dst_bytes", "ttl", "tos", "id", "df", "mf", "frag_offset",
  "length", "protocol", "checksum", "offset" }
local FIELDS = {
  ip = IP, ip4 = IP, ip6 = IP,
  tcp = { "sport", "dport", "seq", "ack_seq", "flags", "window", "urg_ptr", "mss", "checksum", "fin", "syn", "rst",
    "psh", "ack", "urg", "ece", "cwr", "offset" },
  udp = { "sport", "dport", "length", "checksum", "offset" },
  icmp = { "type", "code", "id", "seq", "checksum", "offset", "embedded" },
}
-- Where a field lies in its header, and how it is written there.
local PLACES = {
  tcp = { sport = { 0, ">I2" }, dport = { 2, ">I2" }, seq = { 4, ">I4" }, ack_seq = { 8, ">I4" },
    window = { 14, ">I2" }, checksum = { 16, ">I2" }, urg_ptr = { 18, ">I2" } },
  udp = { sport = { 0, ">I2" }, dport = { 2, ">I2" }, length = { 4, ">I2" }, checksum = { 6, ">I2" } },
  icmp = { type = { 0, "B" }, code = { 1, "B" }, checksum = { 2, ">I2" } },
  ip4 = { tos = { 1, "B" }, id = { 4, ">I2" }, ttl = { 8, "B" }, checksum = { 10, ">I2" }, src_bytes = { 12, "c4" },
    dst_bytes = { 16, "c4" } },
  ip6 = { ttl = { 7, "B" }, src_bytes = { 8, "c16" }, dst_bytes = { 24, "c16" } },
}
local META = {
  mark = 7, hook = "forward", family = "ip", hwaddr = "00:11:22:33:44:55", vlan = 5, l2header = "12345678901234",
  secctx = "label", iif = 1, iifname = "eth0", timestamp = 1.5, gso = true, uid = 0, queue = 3,
}
local VALUES = { 0, 1, 255, 256, 65535, 65536, 0xffffffff, 1 << 32, -1, 1.5, 2.0, true, false, "", "SA", "FSRPAUEC",
  "x", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "\0\0\0\0", ("\1"):rep(16), ("option"):rep(7), "1" }
local FORMATS = { ">I2", "<i4", "B", ">I4I4", "z", "s1", ">s2", "c8", "!8i8", "d", "xxB", ">I16", "s4", "j", "c0",
  "i17", "Xi4", "", " > B" }
local REFUSALS = { "^cannot edit this packet: ", "^bad argument '[%w_]+' to '[%w_]+' %(", "is read%-only",
  "^%w+ has no field '", "^packet already has a verdict$", "^the packet has no %w+ header any more$" }

local function choose_value()
  local which = choose(#VALUES + 8)
  if which < #VALUES then
    return VALUES[which + 1]
  elseif which < #VALUES + 4 then
    return choose(65536)
  elseif which < #VALUES + 7 then
    return choose_bytes(40)
  end
  return nil
end

-- Whether it did it; what refuses must say so as is documented.
local function try(f, ...)
  local ok, message = pcall(f, ...)
  if ok then
    return true
  end
  local text = tostring(message):gsub("^[^ ]*:%d+: ", "")
  for _, pattern in ipairs(REFUSALS) do
    if text:find(pattern) then
      return false
    end
  end
  error("an error of another kind: " .. tostring(message), 2)
end

local function check(holds, what, ...)
  if not holds then
    error(what:format(...), 2)
  end
end

local function check_header(pkt, name, bytes)
  local header = pkt[name]
  if header == nil then
    return
  end
  local offset = header.offset
  check(math.type(offset) == "integer" and offset >= 0 and offset < #bytes, "%s at %s", name, offset)
  for _, field in ipairs(FIELDS[name]) do
    local value, again = header[field], header[field]
    check(value == again, "%s.%s differs when read again", name, field)
  end
  for field, place in pairs(PLACES[name] or {}) do
    local value, written = header[field], place[2]:unpack(bytes, offset + place[1] + 1)
    check(value == written, "%s.%s is %s, and %s there", name, field, value, written)
  end
  check(tostring(header):find("^%w+ header$"), "its name")
  if name == "tcp" then
    for kind = 2, 8 do
      local option = header:option(kind)
      check(option == nil or #option <= 38, "option %d", kind)
    end
  end
end

local function check_raw(pkt, bytes)
  for _, size in ipairs({ 1, 2, 3, 4 }) do
    local method = "u" .. 8 * size
    local offset = choose(#bytes + 5)
    local ok, value = pcall(pkt[method], pkt, offset)
    check(ok == (offset + size <= #bytes), "%s(%d) of %d", method, offset, #bytes)
    if ok then
      check(value == (">I" .. size):unpack(bytes, offset + 1), "%s(%d)", method, offset)
    end
  end
  local offset, length = choose(#bytes + 2), choose(#bytes + 2)
  if try(pkt.bytes, pkt, offset, length) then
    check(pkt:bytes(offset, length) == bytes:sub(offset + 1, offset + length), "bytes(%d, %d)", offset, length)
  end
  local format = FORMATS[choose(#FORMATS) + 1]
  if offset <= #bytes then
    local own = table.pack(pcall(string.unpack, format, bytes, offset + 1))
    local theirs = table.pack(pcall(pkt.unpack, pkt, format, offset))
    check(own[1] == theirs[1] and (not own[1] or own.n == theirs.n), "unpack(%q, %d)", format, offset)
    for i = 2, own[1] and own.n - 1 or 0 do
      check(own[i] == theirs[i] or own[i] ~= own[i], "unpack(%q, %d), value %d", format, offset, i - 1)
    end
    check(not own[1] or own[own.n] - 1 == theirs[own.n], "unpack(%q, %d): where it ends", format, offset)
    local wanted = bytes:sub(choose(#bytes + 1), -1):sub(1, choose(4))
    local found = bytes:find(wanted, offset + 1, true)
    check(pkt:find(wanted, offset) == (found and found - 1), "find(%q, %d)", wanted, offset)
  end
end

local function check_packet(pkt, bytes)
  check(#pkt == #bytes and pkt:bytes() == bytes, "its bytes")
  for _, field in ipairs(PACKET) do
    local value = pkt[field]
    check(type(value) ~= "userdata" and type(value) ~= "function", "%s is a %s", field, type(value))
  end
  local payload, offset = pkt.payload, pkt.payload_offset
  check((payload == nil) == (offset == nil), "a payload without an offset")
  check(payload == nil or payload == "" or bytes:sub(offset + 1, offset + #payload) == payload, "its payload")
  check(not tostring(pkt):find("[^\32-\126]"), "its line")
  for _, name in ipairs(HEADERS) do
    check_header(pkt, name, bytes)
  end
  check_raw(pkt, bytes)
end

local function set(object, field, value)
  object[field] = value
end

local function edit_header(pkt)
  local name = HEADERS[choose(#HEADERS) + 1]
  local header = pkt[name]
  local fields = FIELDS[name]
  local field, value = fields[choose(#fields) + 1], choose_value()
  if header == nil then
    return
  end
  if name == "tcp" and choose(3) == 0 then
    local kind = choose(300)
    if type(value) == "string" or value == nil then
      if try(header.set_option, header, kind, value) then
        check(header:option(kind) == value, "option %d is not what it was set to", kind)
      end
    else
      check(not try(header.set_option, header, kind, value), "an option of another type was taken")
    end
    return
  end
  if try(set, header, field, value) then
    local now = header[field]
    check(math.type(value) ~= "integer" or now == value, "%s.%s is %s, not %s", name, field, now, value)
    check(type(value) ~= "boolean" or now == value, "%s.%s is %s, not %s", name, field, now, value)
    check(field:find("_bytes$") == nil or now == value, "%s.%s", name, field)
  end
end

local function edit_packet(pkt)
  local how = choose(8)
  if how == 0 then
    local value = choose_bytes(60)
    -- Else it may look like a header itself, or be the rest of one.
    local known = pkt.udp or pkt.tcp or pkt.icmp and pkt.payload_offset == pkt.icmp.offset + 8
    if try(set, pkt, "payload", value) and known then
      check(pkt.payload == value, "its payload is %q, not %q, in %s", pkt.payload, value, pkt)
    end
  elseif how == 1 then
    local offset, value = choose(#pkt + 3), choose_bytes(8)
    if try(pkt.patch, pkt, offset, value) then
      check(pkt:bytes(offset, #value) == value, "patch(%d)", offset)
    end
  elseif how == 2 then
    local method = "u" .. 8 * (1 + choose(4))
    local offset, value = choose(#pkt + 3), choose(65536)
    if try(pkt[method], pkt, offset, value) then
      check(pkt[method](pkt, offset) == value, "%s(%d)", method, offset)
    end
  elseif how == 3 then
    try(set, pkt, PACKET[choose(#PACKET) + 1], choose_value())
  elseif how == 4 then
    collectgarbage(choose(16) == 0 and "collect" or "step")
  else
    edit_header(pkt)
  end
end

-- A header that is asked for once, and lives on whatever becomes of its packet.
local function use_stale(header, fields)
  if header then
    try(function() return header[fields[choose(#fields) + 1]] end)
    tostring(header)
  end
end

local function leave(pkt, bytes, made)
  local how = choose(8)
  local options = { fixup = choose(4) > 0, mark = choose(2) == 0 and choose(65536) or nil }
  if how == 0 then
    pkt:drop()
    check(pkt.sent == nil and pkt.verdict == "drop", "what was dropped is sent")
  elseif how == 1 then
    try(pkt.again, pkt, options)
  elseif how == 2 then
    try(pkt.requeue, pkt, choose(65536) | 1, options) -- a queue that is in use has an even number
  elseif how <= 4 then
    local content = choose(2) == 0 and choose_bytes(80) or pkt:bytes(choose(#pkt + 1)) .. choose_bytes(4)
    if try(pkt.modify, pkt, content, options) then
      check(pkt.verdict == "modify", "its verdict")
      -- A first fragment's checksum is no sum of what is here, which is known to who verifies it; that of datagrams in
      -- one (GSO) is the pseudo-header's, which is not.
      return made and options.fixup and not pkt.gso and core.packet(bytes).ip and core.packet(pkt.sent).ip and pkt.sent
    end
  elseif try(pkt.accept, pkt, options) then
    check(pkt.verdict == "accept" and (pkt.sent or not made), "its verdict")
    check(not try(pkt.accept, pkt), "a second verdict was taken")
    check(not try(set, pkt, "payload", "x"), "an edit after the verdict was taken")
  end
end

return function(bytes, chosen, pkt)
  choices.begin(chosen)
  local meta = {}
  for key, value in pairs(META) do
    if choose(8) == 0 then
      meta[key] = value
    end
  end
  if choose(16) == 0 then
    meta.length = #bytes + choose(3)
  end
  local made = not pkt
  pkt = pkt or core.packet(bytes:sub(1, 65531), choose(2) == 0 and meta or nil)
  local name = HEADERS[choose(#HEADERS) + 1]
  local held = pkt[name]
  bytes = bytes:sub(1, 65531)
  check_packet(pkt, bytes)
  for _ = 1, choose(8) do
    edit_packet(pkt)
  end
  use_stale(held, FIELDS[name])
  check_packet(pkt, pkt:bytes())
  local sent = leave(pkt, bytes, made)
  if made and pkt.sent then
    check_packet(core.packet(pkt.sent), pkt.sent)
  end
  if choose(16) == 0 then -- the header alone keeps it alive
    pkt = nil
    collectgarbage()
  end
  use_stale(held, FIELDS[name])
  return sent or nil, pkt
end
