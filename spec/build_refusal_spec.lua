-- nfqueue.build: a description that is wrong raises and names the key.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message, with, build = unit.message, unit.with, nfqueue.build
local UDP = { sport = 1, dport = 2 }

local function ip4(more)
  return with({ src = "192.0.2.1", dst = "192.0.2.2" }, more)
end

local function ip6(more)
  return with({ src = "2001:db8::1", dst = "2001:db8::2" }, more)
end

local function ip(more)
  return { ip = ip4(more), udp = UDP }
end

local function extensions(...)
  return { ip = ip6({ extensions = { ... } }), udp = UDP }
end

local function tcp(more)
  return { ip = ip4(), tcp = with(UDP, more) }
end

local CASES = { -- path, reason, description
  { "description", "table expected, got nothing" },
  { "description", "table expected, got 'x'", "x" },
  { "ip", "table expected, got nothing", {} },
  { "ip", "table expected, got 4", { ip = 4 } },
  { "ip.src", "IPv4 or IPv6 address expected, got nothing", { ip = { dst = "192.0.2.1" }, udp = UDP } },
  { "ip.dst", "IPv4 or IPv6 address expected, got nothing", { ip = { src = "192.0.2.1" }, udp = UDP } },
  { "ip.src", "IPv4 or IPv6 address expected, got '192.0.2'", ip({ src = "192.0.2" }) },
  { "ip.src", "IPv4 or IPv6 address expected, got 'example.com'", ip({ src = "example.com" }) },
  { "ip.src", "IPv4 or IPv6 address expected, got 1", ip({ src = 1 }) },
  { "ip.src", "IPv4 or IPv6 address expected, got '192.0.2.1'", ip({ src = "192.0.2.1\0" }) },
  { "ip.ttl", "integer from 0 to 255 expected, got 256", ip({ ttl = 256 }) },
  { "ip.ttl", "integer from 0 to 255 expected, got '64'", ip({ ttl = "64" }) },
  { "ip.tos", "integer from 0 to 255 expected, got -1", ip({ tos = -1 }) },
  { "ip.id", "more than 65535, in IPv4", ip({ id = 65536 }) },
  { "ip.id", "integer from 0 to 4294967295 expected, got 4294967296", { ip = ip6({ id = 1 << 32 }), udp = UDP } },
  { "ip.df", "boolean expected, got 1", ip({ df = 1 }) },
  { "ip.mf", "boolean expected, got 'true'", ip({ mf = "true" }) },
  { "ip.frag_offset", "multiple of 8 expected, got 7", ip({ frag_offset = 7 }) },
  { "ip.frag_offset", "integer from 0 to 65528 expected, got 65536", ip({ frag_offset = 65536 }) },
  { "ip.frag_offset", "a later fragment has no transport header", ip({ frag_offset = 8 }) },
  { "ip.frag_offset", "a later fragment has no transport header", extensions({ fragment = { frag_offset = 8 } }) },
  { "payload", "a fragment that is not the last fills units of 8 bytes", with(ip({ mf = true }), { payload = "x" }) },
  { "payload", "a fragment that is not the last fills units of 8 bytes",
    with(extensions({ fragment = { mf = true } }), { payload = "x" }) },
  { "ip.protocol", "udp is protocol 17", ip({ protocol = 6 }) },
  { "ip.protocol", "icmp is protocol 58", { ip = ip6({ protocol = 1 }), icmp = { type = 128 } } },
  { "ip.protocol", "integer from 0 to 255 expected, got nothing", { ip = ip4() } },
  { "ip.protocol", "integer from 0 to 255 expected, got 256", { ip = ip4({ protocol = 256 }) } },
  { "ip.checksum", "integer from 0 to 65535 expected, got 65536", ip({ checksum = 65536 }) },
  { "ip.checksum", "IPv6 has none", { ip = ip6({ checksum = 0 }), udp = UDP } },
  { "ip.df", "IPv6 has none", { ip = ip6({ df = false }), udp = UDP } },
  { "ip.options", "IPv6 has none", { ip = ip6({ options = "" }), udp = UDP } },
  { "ip.extensions", "IPv4 has none", ip({ extensions = {} }) },
  { "ip.flow_label", "IPv4 has none", ip({ flow_label = 0 }) },
  { "ip.flow_label", "integer from 0 to 1048575 expected, got 1048576",
    { ip = ip6({ flow_label = 1 << 20 }), udp = UDP } },
  { "ip.options", "longer than the 40 bytes there is room for", ip({ options = ("\1"):rep(41) }) },
  { "ip.options", "longer than the 40 bytes there is room for", ip({ options = { [7] = ("\1"):rep(39) } }) },
  { "ip.options", "string, or table by kind, expected, got 5", ip({ options = 5 }) },
  { "ip.options[7]", "string expected, got 5", ip({ options = { [7] = 5 } }) },
  { "ip.extensions", "list of at most 16 extension headers expected, got 'x'",
    { ip = ip6({ extensions = "x" }), udp = UDP } },
  { "ip.extensions", "list of at most 16 extension headers expected, got table",
    extensions(table.unpack((function()
      local list = {}
      for i = 1, 17 do list[i] = { destination = "" } end
      return list
    end)())) },
  { "ip.extensions", "no room for a fragment header: at most 16", (function()
    local list = {}
    for i = 1, 16 do list[i] = { destination = "" } end
    return { ip = ip6({ extensions = list, id = 1 }), udp = UDP }
  end)() },
  { "ip.extensions", "id, mf and frag_offset make a fragment header already",
    { ip = ip6({ id = 1, extensions = { { fragment = {} } } }), udp = UDP } },
  { "ip.extensions[1]", "table { name = content } expected, got 'x'", extensions("x") },
  { "ip.extensions[1]", "it names no extension header", extensions({}) },
  { "ip.extensions[1]", "one extension header an item: the order counts",
    extensions({ destination = "", hop_by_hop = "" }) },
  { "ip.extensions[2]", "hop-by-hop options come first", extensions({ destination = "" }, { hop_by_hop = "" }) },
  { "ip.extensions[1].hop_by_hop", "string, or table by kind, expected, got true", extensions({ hop_by_hop = true }) },
  { "ip.extensions[1].hop_by_hop", "longer than the 2046 bytes there is room for",
    extensions({ hop_by_hop = ("x"):rep(2047) }) },
  { "ip.extensions[1].destination[7]", "longer than the 255 bytes there is room for",
    extensions({ destination = { [7] = ("x"):rep(256) } }) },
  { "ip.extensions[1].destination", "longer than the 2046 bytes there is room for",
    extensions({ destination = (function()
    local table_of_options = {}
    for kind = 2, 255 do table_of_options[kind] = ("x"):rep(255) end
    return table_of_options
  end)() }) },
  { "ip.extensions[1].routing", "7 bytes: with the two before them they must fill units of 8",
    extensions({ routing = "1234567" }) },
  { "ip.extensions[1].routing", "longer than the 2046 bytes there is room for",
    extensions({ routing = ("x"):rep(2054) }) },
  { "ip.extensions[1].routing", "string, or table { type, left, addresses }, expected, got 7",
    extensions({ routing = 7 }) },
  { "ip.extensions[1].routing.type", "integer from 0 to 255 expected, got 256",
    extensions({ routing = { type = 256 } }) },
  { "ip.extensions[1].routing.left", "integer from 0 to 255 expected, got 'x'",
    extensions({ routing = { left = "x" } }) },
  { "ip.extensions[1].routing.addresses", "list of 1 to 127 IPv6 addresses expected, got nothing",
    extensions({ routing = {} }) },
  { "ip.extensions[1].routing.addresses[2]", "IPv6 address expected, got '192.0.2.1'",
    extensions({ routing = { addresses = { "::1", "192.0.2.1" } } }) },
  { "ip.extensions[1].fragment", "table expected, got 'x'", extensions({ fragment = "x" }) },
  { "ip.extensions[1].fragment.id", "integer from 0 to 4294967295 expected, got -1",
    extensions({ fragment = { id = -1 } }) },
  { "ip.extensions[1].fragment.mf", "boolean expected, got 1", extensions({ fragment = { mf = 1 } }) },
  { "ip.extensions[1].fragment.frag_offset", "multiple of 8 expected, got 9",
    extensions({ fragment = { frag_offset = 9 } }) },
  { "ip.extensions[1].ah", "string expected, got table", extensions({ ah = {} }) },
  { "ip.extensions[1].ah", "8 bytes: with the two before them they must fill units of 8",
    extensions({ ah = ("x"):rep(8) }) },
  { "ip.extensions[1].ah", "longer than the 1022 bytes there is room for", extensions({ ah = ("x"):rep(1030) }) },
  { "ip.dst", "IPv4 and IPv6 in one packet", ip({ dst = "::1", src = "192.0.2.1" }) },
  { "tcp", "table expected, got 'x'", { ip = ip4(), tcp = "x" } },
  { "tcp.sport", "integer from 0 to 65535 expected, got nothing", { ip = ip4(), tcp = { dport = 1 } } },
  { "tcp.dport", "integer from 0 to 65535 expected, got nothing", { ip = ip4(), tcp = { sport = 1 } } },
  { "tcp.dport", "integer from 0 to 65535 expected, got 65536", tcp({ dport = 65536 }) },
  { "tcp.dport", "integer from 0 to 65535 expected, got 80.5", tcp({ dport = 80.5 }) },
  { "tcp.seq", "integer from 0 to 4294967295 expected, got -1", tcp({ seq = -1 }) },
  { "tcp.ack_seq", "integer from 0 to 4294967295 expected, got 4294967296", tcp({ ack_seq = 1 << 32 }) },
  { "tcp.flags", "letters among FSRPAUEC expected, got 'SX'", tcp({ flags = "SX" }) },
  { "tcp.flags", "letters among FSRPAUEC expected, got 'S'", tcp({ flags = "S\0" }) }, -- printed up to the zero
  { "tcp.flags", "string expected, got 2", tcp({ flags = 2 }) },
  { "tcp.syn", "boolean expected, got 1", tcp({ syn = 1 }) },
  { "tcp.window", "integer from 0 to 65535 expected, got 65536", tcp({ window = 65536 }) },
  { "tcp.urg_ptr", "integer from 0 to 65535 expected, got -1", tcp({ urg_ptr = -1 }) },
  { "tcp.checksum", "integer from 0 to 65535 expected, got -1", tcp({ checksum = -1 }) },
  { "tcp.mss", "integer from 0 to 65535 expected, got '1460'", tcp({ mss = "1460" }) },
  { "tcp.mss", "it is among the options already", tcp({ mss = 1, options = { mss = 1 } }) },
  { "tcp.mss", "it is among the options already", tcp({ mss = 1, options = "\1\3\3\7\2\4\0\1" }) },
  { "tcp.options", "longer than the 36 bytes there is room for", tcp({ mss = 1, options = ("\1"):rep(37) }) },
  { "tcp.options", "longer than the 40 bytes there is room for",
    tcp({ options = { sack = { { 1, 2 }, { 3, 4 }, { 5, 6 }, { 7, 8 } }, timestamps = { 1, 2 } } }) },
  { "tcp.options", "option 2 is there twice, by name and by number", tcp({ options = { mss = 1, [2] = "\0\1" } }) },
  { "tcp.options.mss", "integer from 0 to 65535 expected, got 65536", tcp({ options = { mss = 65536 } }) },
  { "tcp.options.window_scale", "integer from 0 to 255 expected, got true",
    tcp({ options = { window_scale = true } }) },
  { "tcp.options.sack_permitted", "boolean expected, got 1", tcp({ options = { sack_permitted = 1 } }) },
  { "tcp.options.sack", "list of 1 to 4 blocks { left, right } expected, got 1", tcp({ options = { sack = 1 } }) },
  { "tcp.options.sack", "list of 1 to 4 blocks { left, right } expected, got table", tcp({ options = { sack = {} } }) },
  { "tcp.options.sack[1]", "block { left, right } expected, got 1", tcp({ options = { sack = { 1, 2 } } }) },
  { "tcp.options.sack[1][2]", "integer from 0 to 4294967295 expected, got -1",
    tcp({ options = { sack = { { 1, -1 } } } }) },
  { "tcp.options.timestamps", "list { value, echo } expected, got table", tcp({ options = { timestamps = { 1 } } }) },
  { "tcp.options.timestamps[1]", "integer from 0 to 4294967295 expected, got 'x'",
    tcp({ options = { timestamps = { "x", 1 } } }) },
  { "tcp.options[30]", "string expected, got true", tcp({ options = { [30] = true } }) },
  { "udp.dport", "integer from 0 to 65535 expected, got nothing", { ip = ip4(), udp = { sport = 1 } } },
  { "udp.checksum", "integer from 0 to 65535 expected, got 'x'", { ip = ip4(), udp = with(UDP, { checksum = "x" }) } },
  { "icmp.type", "integer from 0 to 255 expected, got nothing", { ip = ip4(), icmp = {} } },
  { "icmp.code", "integer from 0 to 255 expected, got 256", { ip = ip4(), icmp = { type = 8, code = 256 } } },
  { "icmp.embedded", "packet or string expected, got 5", { ip = ip4(), icmp = { type = 3, embedded = 5 } } },
  { "icmp.embedded", "an ICMP error carries the packet it is about", { ip = ip4(), icmp = { type = 3 } } },
  { "icmp.embedded", "only ICMP errors carry a packet", { ip = ip4(), icmp = { type = 8, embedded = "x" } } },
  { "icmp.embedded", "no bytes of it are here", { ip = ip4(), icmp = { type = 3, embedded = "" } } },
  { "payload", "the embedded packet is the payload of an ICMP error",
    { ip = ip4(), icmp = { type = 3, embedded = "x" }, payload = "x" } },
  { "payload", "string expected, got 5", with(ip(), { payload = 5 }) },
  { "payload", "it makes a packet of more than 65535 bytes", with(ip(), { payload = ("x"):rep(65508) }) },
  { "payload", "it makes a packet of more than 65575 bytes", { ip = ip6(), udp = UDP, payload = ("x"):rep(65528) } },
  { "icmp", "one of tcp, udp and icmp in a packet", with(ip(), { icmp = { type = 8 } }) },
  { "udp", "one of tcp, udp and icmp in a packet", with(tcp(), { udp = UDP }) },
  { "mtu", "integer from 68 to 65535 expected, got 67", with(ip(), { mtu = 67 }) },
  { "mtu", "what is described is a fragment already", with(ip({ mf = true, id = 1 }), { mtu = 1500 }) },
  { "mtu", "what is described is a fragment already", with(extensions({ fragment = {} }), { mtu = 1500 }) },
  { "mtu", "the headers alone do not fit",
    { ip = ip6({ id = 1, extensions = { { hop_by_hop = ("\0"):rep(62) } } }), udp = UDP, mtu = 100 } },
  { "ip.df", "it forbids the fragments that mtu asks for",
    { ip = ip4({ id = 1, df = true }), udp = UDP, payload = ("x"):rep(100), mtu = 68 } },
  { "ip.id", "fragments are known by it: one for each packet", with(ip(), { payload = ("x"):rep(100), mtu = 68 }) },
}

describe("nfqueue.build refuses", function()
  for _, case in ipairs(CASES) do
    local path, reason, description = table.unpack(case, 1, 3)
    it(("%s: %s"):format(path, reason), function()
      assert.are.equal(("bad argument '%s' to 'build' (%s)"):format(path, reason), message(build, description))
    end)
  end
end)

describe("nfqueue.build names an unknown key", function()
  for path, description in pairs({
    foo = { foo = 1 }, ["1"] = { 1 }, ["true"] = { [true] = 1 },
    ["ip.version"] = ip({ version = 4 }), ["ip.1"] = ip({ 1 }), ["ip.length"] = ip({ length = 20 }),
    ["tcp.dprot"] = tcp({ dprot = 80 }), ["udp.length"] = { ip = ip4(), udp = with(UDP, { length = 8 }) },
    ["icmp.rest"] = { ip = ip4(), icmp = { rest = 1 } },
    ["tcp.options.nop"] = tcp({ options = { nop = true } }), ["tcp.options.1"] = tcp({ options = { "x" } }),
    ["tcp.options.256"] = tcp({ options = { [256] = "x" } }), ["tcp.options.2.5"] = tcp({ options = { [2.5] = "x" } }),
    ["ip.options.mss"] = ip({ options = { mss = 1 } }),
    ["ip.extensions.x"] = { ip = ip6({ extensions = { x = 1 } }), udp = UDP },
    ["ip.extensions[1].esp"] = extensions({ esp = "x" }),
    ["ip.extensions[1].routing.segments"] = extensions({ routing = { segments = 1 } }),
    ["ip.extensions[1].fragment.df"] = extensions({ fragment = { df = true } }),
    ["ip.extensions[1].hop_by_hop.1"] = extensions({ hop_by_hop = { "x" } }),
  }) do
    it(path, function()
      assert.are.equal(("unknown key '%s' to 'build'"):format(path), message(build, description))
    end)
  end
end)

describe("nfqueue.build of nonsense", function()
  local KEYS = { "ip", "tcp", "udp", "icmp", "payload", "mtu", "reply", "src", "dst", "ttl", "id", "mf", "df",
    "frag_offset", "protocol", "options", "extensions", "flow_label", "checksum", "sport", "dport", "flags", "syn",
    "rst", "mss", "sack", "timestamps", "window_scale", "hop_by_hop", "routing", "fragment", "destination", "ah",
    "addresses", "type", "left", "embedded", "seq", 1, 2, 5, 8, 255, true }
  local random = math.random

  local function any(depth)
    local kind = random(depth > 3 and 8 or 14)
    if kind == 1 then return random(0, 300) end
    if kind == 2 then return random(0, 1 << 33) - 5 end
    if kind == 3 then return random(2) == 1 end
    if kind == 4 then return "192.0.2." .. random(0, 260) end
    if kind == 5 then return "2001:db8::" .. random(0, 9) end
    if kind == 6 then return ("\0\1x"):rep(random(0, 700)) end
    if kind == 7 then return random() end
    if kind == 8 then return nfqueue.packet(("E"):rep(random(0, 60))) end
    local list = {}
    for _ = 1, random(0, 6) do
      list[KEYS[random(#KEYS)]] = any(depth + 1)
    end
    return list
  end

  -- A description that is right, with a few values that need not be.
  local function near()
    local list = {
      ip = random(2) == 1 and ip4({ id = 1 }) or ip6({ extensions = { { destination = "" }, { fragment = {} } } }),
      tcp = { sport = 1, dport = 2, options = { mss = 1 } }, payload = "x",
    }
    local places = { list, list.ip, list.tcp, list.tcp.options, list.ip.extensions or list }
    for _ = 1, random(0, 3) do
      places[random(#places)][KEYS[random(#KEYS)]] = any(2)
    end
    return list
  end

  it("gives a packet or names a key, and nothing worse", function()
    local seed = os.time()
    math.randomseed(seed)
    local made, refused = 0, 0
    for i = 1, 20000 do
      local fine, result = pcall(build, i % 2 == 0 and any(0) or near())
      if fine then
        made = made + 1
        for _, bytes in ipairs(type(result) == "table" and result or { result }) do
          assert.is_string(bytes)
        end
      else
        refused = refused + 1
        assert.is_truthy(result:find("bad argument '", 1, true) or result:find("unknown key '", 1, true),
          ("%s (seed %d)"):format(result, seed))
      end
    end
    assert.is_true(made > 100 and refused > 100, made .. " made, " .. refused .. " refused")
  end)
end)

describe("nfqueue.build", function()
  it("leaves its description as it is, and reads no metamethods", function()
    local quiet = setmetatable({ ip = ip4(), udp = UDP }, { __index = error, __pairs = error, __len = error })
    assert.are.equal(28, #build(quiet))
    assert.are.same({ ip = ip4(), udp = { sport = 1, dport = 2 } }, { ip = quiet.ip, udp = quiet.udp })
  end)

  it("takes only a packet that lives", function()
    local kept
    local handler = assert(nfqueue.load(unit.file("return function(pkt) pkt:accept() end")))
    kept = nfqueue.packet(build({ ip = ip4(), udp = UDP }))
    handler(kept)
    assert.are.equal(28, #build({ reply = kept })) -- a made packet stays readable
  end)
end)
