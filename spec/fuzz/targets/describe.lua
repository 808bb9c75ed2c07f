-- Descriptions of any kind for nfqueue.build, most of them nearly right. The choices make the description, the content
-- is a payload, a packet to answer, or what an error embeds. What is refused must be refused by name.

local core = require("nfqueue.core")

local choices = dofile("spec/fuzz/choices.lua")
local choose, choose_bytes = choices.number, choices.bytes

local REFUSALS = { "^bad argument '[^']*' to 'build' %(", "^unknown key '.*' to 'build'" }
local ADDRESSES = { { "192.0.2.1", "198.51.100.2", "224.0.0.1" }, { "2001:db8::1", "::2", "ff02::1" } }
local STRANGE = { -1, 0, 1, 7, 8, 255, 256, 65535, 65536, 1 << 32, 1 << 63, 1.5, 2.0, true, false, "", "x", "SA", "1",
  "::ffff:192.0.2.1" }

local content

-- Sometimes a value of another kind, one that no key takes.
local function strange()
  local which = choose(#STRANGE + 4)
  if which < #STRANGE then
    return STRANGE[which + 1]
  elseif which == #STRANGE then
    return {}
  elseif which == #STRANGE + 1 then
    return { {} }
  elseif which == #STRANGE + 2 then
    return core.packet(content)
  end
  return choose_bytes(60)
end

local function usual(value)
  return choose(32) == 31 and strange() or value
end

-- Keys in one order, that the choices mean the same every time: { name, what makes its value } ...
local function make_table(keys, rate)
  local made = {}
  for _, key in ipairs(keys) do
    if choose(rate) == 0 then
      made[key[1]] = usual(key[2]())
    end
  end
  if choose(64) == 63 then
    made[usual("key") or "key"] = strange()
  end
  return made
end

local function number(most)
  return function() return choose(most + 1) end
end

local function number32()
  return choose(65536) << 16 | choose(65536)
end

local function flag()
  return choose(2) == 0
end

local function make_options(named)
  local options = {}
  for _ = 1, choose(6) do
    options[2 + choose(254)] = choose_bytes(12)
  end
  if named and choose(2) == 0 then
    options.mss = usual(1460)
    options.window_scale = choose(2) == 0 and 7 or nil
    options.sack_permitted = choose(3) == 0 and usual(true) or nil
    options.timestamps = choose(3) == 0 and usual({ number32(), number32() }) or nil
    if choose(3) == 0 then
      options.sack = {}
      for i = 1, choose(6) do
        options.sack[i] = usual({ number32(), number32() })
      end
    end
  end
  return choose(4) == 0 and choose_bytes(44) or options
end

local function make_extension(addresses)
  local which = choose(5)
  if which == 0 then
    return { hop_by_hop = usual(choose(2) == 0 and choose_bytes(40) or make_options()) }
  elseif which == 1 then
    return { destination = usual(choose(2) == 0 and content or make_options()) }
  elseif which == 2 then
    local list = {}
    for i = 1, choose(4) do
      list[i] = usual(addresses[1])
    end
    return { routing = choose(4) == 0 and choose_bytes(30)
      or { type = choose(256), left = choose(256), addresses = list } }
  elseif which == 3 then
    return { fragment = { id = usual(number32()), mf = choose(2) == 0, frag_offset = 8 * choose(8192) } }
  end
  return { ah = usual(choose_bytes(30)) }
end

local function make_ip(version)
  local addresses = ADDRESSES[choose(64) == 63 and 3 - version or version]
  local function address() return addresses[1 + choose(3)] end
  local keys = {
    { "src", address }, { "dst", address }, { "ttl", number(255) }, { "tos", number(255) }, { "id", number32 },
    { "mf", flag }, { "frag_offset", function() return 8 * choose(8192) end }, { "protocol", number(255) },
  }
  local made = make_table(keys, 4)
  made.src = made.src or addresses[1]
  made.dst = made.dst or addresses[2]
  for name, value in pairs(version == 1 and make_table({ { "df", flag }, { "options", make_options },
    { "checksum", number(65535) } }, 4) or make_table({ { "flow_label", number32 }, { "extensions", function()
    local list = {}
    for i = 1, choose(6) == 5 and choose(20) or choose(4) do
      list[i] = usual(make_extension(addresses))
    end
    return list
  end } }, 2)) do
    made[name] = value
  end
  return made
end

local function make_tcp()
  local keys = { { "seq", number32 }, { "ack_seq", number32 },
    { "flags", function() return ("FSRPAUEC"):sub(choose(8)) end }, { "window", number(65535) },
    { "urg_ptr", number(65535) }, { "mss", number(65535) },
    { "options", function() return make_options(true) end }, { "checksum", number(65535) }, { "syn", flag },
    { "rst", flag }, { "cwr", flag } }
  local made = make_table(keys, 4)
  made.sport, made.dport = usual(choose(65536)), usual(80)
  return made
end

local function make_udp()
  local made = make_table({ { "checksum", number(65535) } }, 8)
  made.sport, made.dport = usual(choose(65536)), usual(53)
  return made
end

local function make_icmp()
  local made = make_table({ { "code", number(255) }, { "id", number(65535) }, { "seq", number(65535) },
    { "checksum", number(65535) },
    { "embedded", function() return choose(2) == 0 and content or core.packet(content) end } }, 4)
  made.type = usual(choose(256))
  return made
end

local PARTS = { { "tcp", make_tcp }, { "udp", make_udp }, { "icmp", make_icmp } }

local function make_description()
  local made = {}
  local answers = choose(4) == 0
  if answers then
    made.reply = usual(choose(2) == 0 and content or core.packet(content))
  end
  if not answers or choose(2) == 0 then
    made.ip = usual(make_ip(1 + choose(2)))
  end
  local which = choose(4)
  if which < 3 and (not answers or choose(2) == 0) then
    local part = PARTS[which + 1]
    made[part[1]] = usual(part[2]())
  end
  if choose(2) == 0 then
    made.payload = usual(choose(2) == 0 and content or choose_bytes(200))
  end
  if choose(4) == 0 then
    made.mtu = usual(68 + choose(1500))
  end
  if choose(64) == 63 then
    made[strange() or "none"] = strange()
  end
  return made
end

local function is_fragment(ip)
  if ip.mf or ip.frag_offset and ip.frag_offset ~= 0 then
    return true
  end
  for _, extension in ipairs(ip.extensions or {}) do
    if extension.fragment then
      return true
    end
  end
  return false
end

-- Whether all of it is as computed, of a known transport.
local function is_computed(made)
  local part = made.tcp or made.udp or made.icmp
  return part and not part.checksum and made.ip and not made.ip.checksum and not is_fragment(made.ip)
end

return function(bytes, chosen)
  choices.begin(chosen)
  content = bytes:sub(1, 65531)
  local made = make_description()
  local ok, result = pcall(core.build, made)
  if not ok then
    local text = tostring(result):gsub("^[^ ]*:%d+: ", "")
    for _, pattern in ipairs(REFUSALS) do
      if text:find(pattern) then
        return nil
      end
    end
    error("an error of another kind: " .. text)
  end
  for _, packet in ipairs(type(result) == "table" and result or { result }) do
    local pkt = core.packet(packet:sub(1, 65531))
    assert(pkt.ip and #tostring(pkt) > 0)
    assert(not made.mtu or #packet <= made.mtu)
  end
  return type(result) == "string" and is_computed(made) and result or nil
end
