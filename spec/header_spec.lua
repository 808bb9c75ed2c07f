-- Headers as handlers read them: what is there, what is nil, what raises.

local checksum = require("support.checksum")
local datagram = require("support.datagram")
local unit = require("support.unit")
local nfqueue = require("nfqueue")

-- Every field of a header that is not nil, as a table.
local FIELDS = {
  ip = {
    "version", "src", "dst", "src_bytes", "dst_bytes", "ttl", "tos", "id", "df", "mf", "frag_offset", "length",
    "protocol", "checksum", "offset",
  },
  tcp = {
    "sport", "dport", "seq", "ack_seq", "flags", "window", "urg_ptr", "mss", "checksum", "fin", "syn", "rst", "psh",
    "ack", "urg", "ece", "cwr", "offset",
  },
  udp = { "sport", "dport", "length", "checksum", "offset" },
  icmp = { "type", "code", "id", "seq", "checksum", "offset", "embedded" },
}

local function read(header, name)
  local values = {}
  for _, field in ipairs(FIELDS[name]) do
    values[field] = header[field]
  end
  return values
end

local function ip4(protocol, payload, changes)
  changes = changes or {}
  local options = changes.options or ""
  return string.pack(">BBI2I2I2BBI2", 0x45 + #options // 4, 0xb8, changes.total or 20 + #options + #payload, 0x1234,
    changes.fragment or 0, 63, protocol, 0xabcd) .. datagram.SOURCE4 .. datagram.TARGET4 .. options .. payload
end

local function ip6(next_header, payload)
  return string.pack(">I4I2BB", 0x60000000 | 0xb8 << 20 | 0x12345, #payload, next_header, 63)
    .. datagram.SOURCE6 .. datagram.TARGET6 .. payload
end

-- `bytes` with others at a 0-based offset.
local function patched(bytes, offset, replacement)
  return bytes:sub(1, offset) .. replacement .. bytes:sub(offset + #replacement + 1)
end

-- An authentication header of 24 bytes.
local function ah(next_header)
  return string.char(next_header, 4, 0, 0) .. ("\7"):rep(20)
end

local function tcp(flags, payload, options)
  options = options or ""
  return string.pack(">I2I2I4I4BBI2I2I2", 40000, 443, 0xfffffffe, 7, (5 + #options // 4) << 4, flags, 512, 0xbeef, 9)
    .. options .. payload
end

local UDP = string.pack(">I2I2I2I2", 40000, 53, 12, 0xbeef) .. "data"
local ECHO = string.pack(">BBI2I2I2", 8, 1, 0xbeef, 77, 2) .. "data"
local ECHO6 = "\128" .. ECHO:sub(2)
local HOP = "\17\0\5\2\0\0\1\0" -- next UDP, router alert
local FRAGMENT6 = string.pack(">BBI2I4", 17, 0, 24 | 1, 0xdeadbeef) -- offset 24, more to come

describe("pkt.ip", function()
  local CASES = {
    ["of IPv4"] = { ip4(17, UDP, { fragment = 0x4000 }), {
      version = 4, src = "192.0.2.1", dst = "198.51.100.2", src_bytes = datagram.SOURCE4,
      dst_bytes = datagram.TARGET4, ttl = 63, tos = 0xb8, id = 0x1234, df = true, mf = false, frag_offset = 0,
      length = 32, protocol = 17, checksum = 0xabcd, offset = 0,
    } },
    ["of an IPv4 fragment with options"] = { ip4(17, UDP, { fragment = 0x2003, options = "\7\3\4\0" }), {
      version = 4, src = "192.0.2.1", dst = "198.51.100.2", src_bytes = datagram.SOURCE4,
      dst_bytes = datagram.TARGET4, ttl = 63, tos = 0xb8, id = 0x1234, df = false, mf = true, frag_offset = 24,
      length = 36, protocol = 17, checksum = 0xabcd, offset = 0,
    } },
    ["of IPv6 behind hop-by-hop options"] = { ip6(0, HOP .. UDP), {
      version = 6, src = "2001:db8::1", dst = "2001:db8::2", src_bytes = datagram.SOURCE6,
      dst_bytes = datagram.TARGET6, ttl = 63, tos = 0xb8, mf = false, frag_offset = 0, length = 60, protocol = 17,
      offset = 0,
    } },
    ["of an IPv6 fragment"] = { ip6(44, FRAGMENT6 .. UDP), {
      version = 6, src = "2001:db8::1", dst = "2001:db8::2", src_bytes = datagram.SOURCE6,
      dst_bytes = datagram.TARGET6, ttl = 63, tos = 0xb8, id = 0xdeadbeef, mf = true, frag_offset = 24, length = 60,
      protocol = 17, offset = 0,
    } },
  }
  for name, case in pairs(CASES) do
    it(name, function()
      local pkt = nfqueue.packet(case[1])
      assert.are.same(case[2], read(pkt.ip, "ip"))
      local is_ip4 = case[2].version == 4
      assert.are.same({ is_ip4, not is_ip4 }, { pkt.ip4 ~= nil, pkt.ip6 ~= nil })
      assert.are.same(case[2], read(is_ip4 and pkt.ip4 or pkt.ip6, "ip"))
    end)
  end
end)

describe("pkt.tcp, pkt.udp, pkt.icmp", function()
  local SYN = "\2\4\5\xb4\1\3\3\7\4\2\8\10\0\0\0\1\0\0\0\2\1\1" -- MSS 1460, scale 7, SACK permitted, timestamps
  local CASES = {
    { "TCP of all flags", ip4(6, tcp(0xff, "payload")), "tcp", 20, 40, "payload", {
      sport = 40000, dport = 443, seq = 0xfffffffe, ack_seq = 7, flags = "FSRPAUEC", window = 512, urg_ptr = 9,
      checksum = 0xbeef, fin = true, syn = true, rst = true, psh = true, ack = true, urg = true, ece = true,
      cwr = true, offset = 20,
    } },
    { "TCP SYN with options over IPv6", ip6(6, tcp(0x02, "", SYN .. "\0\0")), "tcp", 40, 84, "", {
      sport = 40000, dport = 443, seq = 0xfffffffe, ack_seq = 7, flags = "S", window = 512, urg_ptr = 9,
      checksum = 0xbeef, fin = false, syn = true, rst = false, psh = false, ack = false, urg = false, ece = false,
      cwr = false, mss = 1460, offset = 40,
    } },
    { "UDP behind IPv4 options", ip4(17, UDP, { options = "\1\1\1\0" }), "udp", 24, 32, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 24 } },
    { "UDP with padding of the link layer", ip4(17, UDP, { total = 32 }) .. ("\0"):rep(14), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 20 } },
    { "UDP behind hop-by-hop options", ip6(0, HOP .. UDP), "udp", 48, 56, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 48 } },
    { "ICMP", ip4(1, ECHO), "icmp", 20, 28, "data",
      { type = 8, code = 1, id = 77, seq = 2, checksum = 0xbeef, offset = 20 } },
    { "ICMPv6", ip6(58, ECHO6), "icmp", 40, 48, "data",
      { type = 128, code = 1, id = 77, seq = 2, checksum = 0xbeef, offset = 40 } },
    { "UDP behind an authentication header", ip4(51, ah(17) .. UDP), "udp", 44, 52, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 44 } },
    { "UDP behind two, in IPv6", ip6(51, ah(51) .. ah(17) .. UDP), "udp", 88, 96, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 88 } },
    { "UDP with options behind it (RFC 9868)", ip4(17, UDP .. "\1\1\0"), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 20 } },
    { "UDP that claims less than its header", ip4(17, (UDP:gsub("\0\12", "\0\7"))), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 7, checksum = 0xbeef, offset = 20 } },
    { "UDP that claims nothing", ip4(17, (UDP:gsub("\0\12", "\0\0"))), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 0, checksum = 0xbeef, offset = 20 } },
    { "UDP of a first fragment", ip4(17, (UDP:gsub("\0\12", "\5\0")), { fragment = 0x2000 }), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 0x500, checksum = 0xbeef, offset = 20 } },
    { "UDP of segments to be cut by the card", ip4(17, UDP, { total = 0 }), "udp", 20, 28, "data",
      { sport = 40000, dport = 53, length = 12, checksum = 0xbeef, offset = 20 } },
    { "ICMP of four bytes and padding", ip4(1, ECHO:sub(1, 4), { total = 24 }) .. ("\0"):rep(22), "icmp", 20, 24, "",
      { type = 8, code = 1, checksum = 0xbeef, offset = 20 } },
    { "ICMP without id and seq", ip4(1, "\9" .. ECHO:sub(2)), "icmp", 20, 28, "data",
      { type = 9, code = 1, checksum = 0xbeef, offset = 20 } },
    { "ICMP of four bytes", ip4(1, ECHO:sub(1, 4)), "icmp", 20, 24, "",
      { type = 8, code = 1, checksum = 0xbeef, offset = 20 } },
  }
  for _, case in ipairs(CASES) do
    local name, bytes, which, _, payload_offset, payload, expected = table.unpack(case)
    it("reads " .. name, function()
      local pkt = nfqueue.packet(bytes)
      assert.are.same(expected, read(pkt[which], which))
      assert.are.same({ payload_offset, payload }, { pkt.payload_offset, pkt.payload })
      for _, other in ipairs({ "tcp", "udp", "icmp" }) do
        assert.are.equal(other == which, pkt[other] ~= nil)
      end
    end)
  end

  local ABSENT = {
    { "a later fragment", ip4(17, UDP, { fragment = 3 }), 20, UDP },
    { "another protocol", ip4(47, UDP), 20, UDP },
    { "ICMPv6 over IPv4", ip4(58, ECHO), 20, ECHO },
    { "TCP cut in its header", ip4(6, tcp(2, ""):sub(1, 19)), 20, tcp(2, ""):sub(1, 19) },
    { "TCP cut in its options", ip4(6, tcp(2, "", "\2\4\5\xb4"):sub(1, 23)), 20, tcp(2, "", "\2\4\5\xb4"):sub(1, 23) },
    { "TCP with a data offset of 4", ip4(6, (tcp(2, ""):gsub("^(" .. ("."):rep(12) .. ").", "%1\x40"))), 20 },
    { "UDP cut in its header", ip4(17, UDP:sub(1, 7)), 20, UDP:sub(1, 7) },
    { "IPv4 options that reach beyond the end", ip4(17, "", { options = "\1\1\1\1" }):sub(1, 22), 22, "" },
    { "IPv6 extension headers that reach beyond the end", ip6(0, "\17\1" .. ("\0"):rep(6)), 48, "" },
    { "an authentication header that reaches beyond the end", ip4(51, ah(17):sub(1, 23)), 43, "" },
    { "an IPv6 packet whose payload length is 0", patched(ip6(17, UDP), 4, "\0\0"), 40, "" },
    { "hop-by-hop options beyond the payload length", patched(ip6(0, HOP .. UDP), 4, "\0\4"), 44, "" },
    { "an IPv4 total length of less than the header", ip4(17, UDP, { total = 19 }), 32, "" },
    { "no IP", ("\xff"):rep(40), 0, ("\xff"):rep(40) },
    { "nothing", "", 0, "" },
  }
  for _, case in ipairs(ABSENT) do
    it("are nil for " .. case[1], function()
      local pkt = nfqueue.packet(case[2])
      assert.are.same({}, { pkt.tcp, pkt.udp, pkt.icmp })
      assert.are.equal(case[3], pkt.payload_offset)
      assert.are.equal(case[4] or case[2]:sub(case[3] + 1), pkt.payload)
    end)
  end

  it("leave payload nil where nothing was copied", function()
    local pkt = nfqueue.packet("", { length = 100 })
    assert.are.same({}, { pkt.payload, pkt.payload_offset, pkt.ip })
  end)

  it("raise for names that are none, and for what is no header", function()
    local pkt = nfqueue.packet(ip4(6, tcp(2, "")))
    local header = pkt.tcp
    for _, key in ipairs({ "tpc", 1, true, "" }) do
      local fine, message = pcall(function() return header[key] end)
      assert.is_false(fine)
      assert.matches("tcp has no field '" .. tostring(key) .. "'", message, 1, true)
    end
    assert.matches("tcp has no field 'tpc'", select(2, pcall(function() header.tpc = 1 end)), 1, true)
    for key, meant in pairs({ seqq = "'seq'", ackseq = "'ack_seq'", dpot = "'dport'", setoption = "'set_option'",
      payload = "the packet's 'payload'", drop = "the packet's 'drop'" }) do
      assert.are.equal(("tcp has no field '%s' (did you mean %s?)"):format(key, meant),
        unit.message(function() return header[key] end))
    end
    for _, foreign in ipairs({ io.stdout, pkt, pkt.ip, 7, {} }) do
      local fine, message = pcall(header.option, foreign, 2)
      assert.is_false(fine)
      assert.matches("bad argument 'self' to 'option' (tcp header expected, got", message, 1, true)
    end
    assert.are.equal("tcp header", tostring(header))
  end)

  it("are as the packet was changed to", function()
    local pkt = nfqueue.packet(ip4(17, UDP))
    local udp = pkt.udp
    pkt:u16(22, 5353)
    assert.are.equal(5353, udp.dport)
    pkt:u8(9, 1) -- now it is ICMP
    local fine, message = pcall(function() return udp.dport end)
    assert.is_false(fine)
    assert.matches("the packet has no udp header any more", message, 1, true)
    assert.is_nil(pkt.udp)
  end)
end)

describe("ip.length", function()
  local JUMBO = "\17\0\xc2\4\0\1\0\0" -- next UDP, a jumbo payload of 65,536 bytes

  it("is that of the option in a jumbogram (RFC 2675)", function()
    local pkt = nfqueue.packet(patched(ip6(0, JUMBO .. UDP), 4, "\0\0"), { length = 65576 })
    assert.are.same({ 65576, 53, "data" }, { pkt.ip.length, pkt.udp.dport, pkt.payload })
    -- padding, 65,535 bytes, an option of another length, one that reaches beyond the end
    for _, options in ipairs({ "\1\4\0\1\0\0", "\xc2\4\0\0\xff\xff", "\xc2\3\0\1\0\0", "\1\9\xc2\4\0\1" }) do
      options = "\17\0" .. options
      local other = nfqueue.packet(patched(ip6(0, options .. UDP), 4, "\0\0"))
      assert.are.equal(40, other.ip.length)
      assert.is_nil(other.udp)
    end
  end)

  it("is that on the wire where a field of 16 bits is too small for segments", function()
    local pkt = nfqueue.packet(patched(ip6(6, tcp(0x10, "data")), 4, "\0\0"), { length = 100000, gso = true })
    assert.are.same({ 100000, 443, "data" }, { pkt.ip.length, pkt.tcp.dport, pkt.payload })
    pkt = nfqueue.packet(ip4(6, tcp(0x10, "data"), { total = 0 }), { length = 100000, gso = true })
    assert.are.same({ 100000, 443, "data" }, { pkt.ip.length, pkt.tcp.dport, pkt.payload })
    pkt = nfqueue.packet(ip4(6, tcp(0x10, "data"), { total = 0 }))
    assert.are.same({ 0, 443, "data" }, { pkt.ip.length, pkt.tcp.dport, pkt.payload })
  end)
end)

describe("icmp.embedded", function()
  local WHOLE = ip4(17, UDP)
  local WHOLE6 = ip6(0, HOP .. UDP)
  local FILLED, FILLED6 = WHOLE .. ("\0"):rep(128 - #WHOLE), WHOLE6 .. ("\0"):rep(128 - #WHOLE6)
  local LONG = ip4(17, UDP .. ("long"):rep(40))
  local EXTENSION = "\x20\0\0\0\0\8\1\1\0\1\1\0" -- RFC 4884, RFC 4950
  EXTENSION = patched(EXTENSION, 2, string.pack(">I2", checksum.of(EXTENSION)))

  local function error4(kind, rest)
    return ip4(1, string.char(kind) .. "\0\xbe\xef" .. rest)
  end

  local function error6(kind, rest)
    return ip6(58, string.char(kind) .. "\0\xbe\xef" .. rest)
  end

  local CASES = {
    { "unreachable", error4(3, "\0\0\5\xdc" .. WHOLE), WHOLE },
    { "eight bytes of the transport", error4(11, "\0\0\0\0" .. WHOLE:sub(1, 28)), WHOLE:sub(1, 28) },
    { "source quench", error4(4, "\0\0\0\0" .. WHOLE), WHOLE },
    { "redirect", error4(5, "\1\2\3\4" .. WHOLE), WHOLE },
    { "parameter problem", error4(12, "\9\0\0\0" .. WHOLE), WHOLE },
    { "padding of the link layer", error4(3, "\0\0\0\0" .. WHOLE) .. "\0\0\0\0", WHOLE, 28 + #WHOLE },
    { "extensions", error4(11, "\0\32\0\0" .. FILLED .. EXTENSION), WHOLE },
    { "extensions behind more", error4(11, "\0\34\0\0" .. LONG:sub(1, 136) .. EXTENSION), LONG:sub(1, 136) },
    { "extensions, no length field", error4(3, "\0\0\0\0" .. LONG:sub(1, 128) .. EXTENSION), LONG:sub(1, 128) },
    { "no extensions: their checksum is wrong",
      error4(3, "\0\0\0\0" .. LONG:sub(1, 128) .. patched(EXTENSION, 2, "\1\2")),
      LONG:sub(1, 128) .. patched(EXTENSION, 2, "\1\2") },
    { "a length field beyond the end", error4(3, "\0\255\0\0" .. WHOLE), WHOLE },
    { "a redirect has no length field", error4(5, "\1\2\3\4" .. WHOLE), WHOLE },
    { "nothing", error4(3, "\0\0\0\0"), "" },
    { "not even all of the header", error4(3, "\0\0"), "" },
    { "what is no IP packet", error4(3, "\0\0\0\0junk"), "junk" },
    { "ICMPv6 unreachable", error6(1, "\0\0\0\0" .. WHOLE6), WHOLE6 },
    { "too big", error6(2, "\0\0\5\0" .. WHOLE6), WHOLE6 },
    { "hop limit exceeded, with extensions", error6(3, "\16\0\0\0" .. FILLED6 .. EXTENSION), WHOLE6 },
    { "ICMPv6 parameter problem", error6(4, "\0\0\0\6" .. WHOLE6), WHOLE6 },
    { "an ICMPv6 error of a type to come", error6(127, "\0\0\0\0" .. WHOLE6), WHOLE6 },
  }
  for _, case in ipairs(CASES) do
    it("is the packet an error is about: " .. case[1], function()
      local bytes = case[4] and patched(case[2], 2, string.pack(">I2", case[4])) or case[2]
      assert.are.equal(case[3], nfqueue.packet(bytes).icmp.embedded)
    end)
  end

  it("is nil in messages that are no errors", function()
    for _, bytes in ipairs({
      ip4(1, ECHO), ip4(1, "\0" .. ECHO:sub(2)), error4(13, WHOLE), error4(10, "\0\0\0\0" .. WHOLE), ip6(58, ECHO6),
      error6(137, WHOLE6),
    }) do
      assert.is_nil(nfqueue.packet(bytes).icmp.embedded)
    end
  end)

  it("makes a packet", function()
    local inner = nfqueue.packet(nfqueue.packet(error4(3, "\0\0\0\0" .. WHOLE:sub(1, 28))).icmp.embedded)
    assert.are.same({ "198.51.100.2", 53 }, { inner.ip.dst, inner.udp.dport })
  end)

  it("is read-only, and so are id and seq where there are none", function()
    local icmp = nfqueue.packet(error4(3, "\0\0\0\0" .. WHOLE)).icmp
    assert.matches("icmp field 'embedded' is read-only: it is changed with pkt:patch or pkt.payload",
      select(2, pcall(function() icmp.embedded = "x" end)), 1, true)
    for _, field in ipairs({ "id", "seq" }) do
      assert.is_nil(icmp[field])
      assert.matches("icmp field '" .. field .. "' is read-only: messages of this type have none",
        select(2, pcall(function() icmp[field] = 1 end)), 1, true)
    end
  end)
end)

describe("tcp:option", function()
  local function options(bytes)
    return nfqueue.packet(ip4(6, tcp(2, "", bytes .. ("\0"):rep(-#bytes % 4)))).tcp
  end

  it("finds each option by its kind", function()
    local header = options("\2\4\5\xb4\1\3\3\7\4\2\8\10abcdefgh\xfe\3x")
    assert.are.same({ "\5\xb4", "\7", "", "abcdefgh", "x" },
      { header:option(2), header:option(3), header:option(4), header:option(8), header:option(254) })
    assert.is_nil(header:option(5))
    assert.are.equal(1460, header.mss)
  end)

  it("stops at the end-of-list option and at a malformed one", function()
    for name, bytes in pairs({
      ["end of list"] = "\0\2\4\5\xb4", ["length 0"] = "\3\0\2\4\5\xb4", ["length 1"] = "\3\1\2\4\5\xb4",
      ["beyond the header"] = "\3\9\2\4\5\xb4", ["kind alone"] = "\1\1\1\2",
    }) do
      assert.is_nil(options(bytes):option(2), name)
      assert.is_nil(options(bytes).mss, name)
    end
    assert.is_nil(options("\2\3\5").mss) -- an MSS of one byte
  end)

  it("refuses kinds that have no value", function()
    for _, kind in ipairs({ 0, 1, 256, -1, 2.5, "2", {} }) do
      local fine, message = pcall(options("").option, options(""), kind)
      assert.is_false(fine)
      assert.matches("bad argument 'kind' to 'option' (integer from 2 to 255 expected", message, 1, true)
    end
  end)
end)

describe("every truncation of a packet", function()
  it("reads within its bytes", function()
    for _, whole in ipairs({
      ip4(6, tcp(2, "data", "\2\4\5\xb4")), ip6(0, HOP .. UDP), ip6(44, FRAGMENT6 .. UDP), ip4(1, ECHO),
    }) do
      for length = 0, #whole do
        local pkt = nfqueue.packet(whole:sub(1, length), { length = #whole })
        for name in pairs(FIELDS) do
          local header = pkt[name]
          assert.is_true(header == nil or next(read(header, name)) ~= nil)
        end
        assert.is_true(length == 0 or #pkt.payload <= length)
        assert.are.equal("string", type(tostring(pkt)))
      end
    end
  end)
end)
