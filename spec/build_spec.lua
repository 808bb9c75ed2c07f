-- nfqueue.build: what it makes reads back field for field, has right checksums, and bad descriptions are named.

local nfqueue = require("nfqueue")
local checksum = require("support.checksum")
local unit = require("support.unit")

local build, with = nfqueue.build, unit.with
local IP4 = { src = "192.0.2.1", dst = "198.51.100.2" }
local IP6 = { src = "2001:db8::1", dst = "2001:db8::2" }
local IP = { [4] = IP4, [6] = IP6 }

local function packet(description)
  return nfqueue.packet(build(description))
end

-- The transport's checksum, over what is behind the IP headers, comes out as 0.
local function assert_summed(pkt, target)
  local ip = pkt.ip
  local transport = (pkt.tcp or pkt.udp or pkt.icmp).offset
  local body = pkt:bytes(transport)
  local source, dst = ip.src_bytes, target or ip.dst_bytes
  local pseudo = ip.version == 4 and checksum.pseudo4 or checksum.pseudo6
  local front = ip.protocol == 1 and "" or pseudo(source, dst)(ip.protocol, #body)
  assert.are.equal(0, checksum.of(front .. body))
  if ip.version == 4 then
    assert.are.equal(0, checksum.of(pkt:bytes(0, (pkt:u8(0) & 15) * 4)))
  end
  assert.are.equal(#pkt, ip.length)
end

-- A field of a packet. `id` and `seq` of ICMP are what the halves of the second word are in any message here; read as
-- fields they are nil in the types that put something else there.
local function read(pkt, part, key)
  if part == "icmp" and (key == "id" or key == "seq") then
    local value = pkt:u16(pkt.icmp.offset + (key == "id" and 4 or 6))
    assert.is_true(pkt.icmp[key] == nil or pkt.icmp[key] == value)
    return value
  end
  return pkt[part][key]
end

-- Every field that the description has reads back.
local function assert_reads_back(description, pkt, skip)
  for _, part in ipairs({ "ip", "tcp", "udp", "icmp" }) do
    for key, value in pairs(description[part] or {}) do
      if not (skip and skip[key]) then
        assert.are.same({ part, key, value }, { part, key, read(pkt, part, key) })
      end
    end
  end
  assert.are.equal(description.payload or "", pkt.payload)
end

-- --- Random descriptions ---

local random, bytes = math.random, unit.random_bytes

local function maybe(value)
  return random(2) == 1 and value or nil
end

local function address(version)
  if version == 4 then
    return ("%d.%d.%d.%d"):format(random(1, 223), random(0, 255), random(0, 255), random(0, 255))
  end
  -- No group of zeros and none that begins with one: as RFC 5952 writes it.
  local groups = {}
  for i = 1, 8 do
    groups[i] = ("%x"):format(random(i == 1 and 0x2000 or 1, i == 1 and 0x3fff or 0xffff))
  end
  return table.concat(groups, ":")
end

local EXTENSIONS = {
  function() return { destination = { [random(2, 255)] = bytes(0, 60) } } end,
  function() return { destination = bytes(0, 100) } end,
  function() return { routing = { type = random(0, 255), left = 0, addresses = { address(6), address(6) } } } end,
  function() return { ah = bytes(3, 3) .. bytes(11, 11) .. ("\1"):rep(8 * random(0, 9)) } end,
}

local function random_ip(version)
  local ip = { src = address(version), dst = address(version), ttl = maybe(random(0, 255)),
    tos = maybe(random(0, 255)) }
  if version == 4 then
    -- No source route by chance: the sum would be over its last stop.
    local options = bytes(0, 40):gsub("[\131\137]", "\1")
    ip.df, ip.id, ip.options = maybe(random(2) == 1), maybe(random(0, 65535)), maybe(options)
    ip.checksum = random(8) == 1 and random(0, 65535) or nil
    return ip
  end
  ip.flow_label = maybe(random(0, 0xfffff))
  ip.extensions = {}
  if random(3) == 1 then
    ip.extensions[1] = { hop_by_hop = { [5] = "\0\0", [random(6, 255)] = bytes(0, 255) } }
  end
  for _ = 1, random(0, 3) do
    table.insert(ip.extensions, EXTENSIONS[random(#EXTENSIONS)]())
  end
  ip.id = maybe(random(0, 0xffffffff)) -- an atomic fragment (RFC 6946)
  return ip
end

local TRANSPORTS = {
  tcp = function()
    local tcp = {
      sport = random(0, 65535), dport = random(0, 65535), seq = maybe(random(0, 0xffffffff)),
      ack_seq = maybe(random(0, 0xffffffff)), window = maybe(random(0, 65535)), urg_ptr = maybe(random(0, 65535)),
      mss = maybe(random(0, 65535)),
    }
    local letters = ""
    for letter in ("FSRPAUEC"):gmatch(".") do
      letters = letters .. (maybe(letter) or "")
    end
    if random(3) > 1 then
      tcp.flags = letters
    end
    if random(3) == 1 then
      tcp.flags, tcp.syn, tcp.ack, tcp.psh = nil, true, random(2) == 1, false
    end
    tcp.options = maybe({ [3] = "\7", [random(30, 255)] = bytes(0, 20) })
    return tcp
  end,
  udp = function()
    return { sport = random(0, 65535), dport = random(0, 65535) }
  end,
  icmp = function()
    -- No errors: they need a packet to be about.
    return { type = ({ 0, 8, 13, 14, 128, 129, 135, 136 })[random(8)] | 0, code = maybe(random(0, 255)),
      id = maybe(random(0, 65535)), seq = maybe(random(0, 65535)) }
  end,
}

describe("nfqueue.build, random", function()
  local seed = os.time()
  for version, ip in pairs(IP) do
    for name, make in pairs(TRANSPORTS) do
      it(("IPv%d %s reads back (seed %d)"):format(version, name, seed), function()
        math.randomseed(seed)
        for _ = 1, 300 do
          local description = { ip = random_ip(version), [name] = make(), payload = maybe(bytes(0, 100)) }
          if name == "icmp" and version == 6 and description.icmp.type < 128 then
            description.icmp.type = description.icmp.type + 128
          end
          local pkt = packet(description)
          assert_reads_back(description, pkt, { options = true, extensions = true, flow_label = true })
          if not description.ip.checksum then
            assert_summed(pkt)
          end
          local options = description.ip.options
          if options then
            assert.are.equal(options .. ("\0"):rep(-#options % 4), pkt:bytes(20, (#options + 3) // 4 * 4))
          end
          if version == 6 then
            assert.are.equal(description.ip.flow_label or 0, pkt:u32(0) & 0xfffff)
          end
          for kind, value in pairs(name == "tcp" and description.tcp.options or {}) do
            assert.are.equal(value, pkt.tcp:option(kind))
          end
          -- The kernel would change nothing either: completing it gives the same bytes.
          if not description.ip.checksum then
            local again = nfqueue.packet(pkt:bytes())
            again:modify(pkt:bytes())
            assert.are.equal(pkt:bytes(), again.sent)
          end
        end
        assert.is_table(ip)
      end)
    end
  end
end)

-- --- Held against bytes written by hand ---

local TCP = { sport = 40000, dport = 80 }
local UDP = { sport = 40000, dport = 53 }

local function hex(text)
  return (text:gsub("%s+", ""):gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

describe("nfqueue.build", function()
  it("writes what RFC 791 and RFC 9293 draw", function()
    local expected = hex([[45b8 003c 1234 0000 4006 bc39 c0000201 c6336402
      9c40 0050 00000007 00000009 a0c1 faf0 86eb 0003  0204 05b4 0303 07 0402 080a 00000001 00000002 00]])
    local made = build({ ip = with(IP4, { tos = 0xb8, id = 0x1234 }), tcp = { sport = 40000, dport = 80, seq = 7,
      ack_seq = 9, flags = "CEF", window = 64240, urg_ptr = 3,
      options = { mss = 1460, window_scale = 7, sack_permitted = true, timestamps = { 1, 2 } } } })
    assert.are.equal(#expected, #made)
    -- The two sums are held against their definition, the rest to the byte.
    local function without_sums(text)
      return text:sub(1, 10) .. text:sub(13, 36) .. text:sub(39)
    end
    assert.are.equal(without_sums(expected), without_sums(made))
    assert_summed(nfqueue.packet(made))
  end)

  it("writes what RFC 8200 draws", function()
    local made = build({
      ip = with(IP6, { tos = 0xb8, flow_label = 0x12345, ttl = 9, extensions = {
        { hop_by_hop = { [5] = "\0\0" } },
        { routing = { type = 2, left = 1, addresses = { "2001:db8::3" } } },
        { fragment = { id = 7 } },
        { ah = hex("0000 00000100 00000001") .. ("\xaa"):rep(12) },
        { destination = "" },
      } }),
      udp = UDP, payload = "odd",
    })
    local expected = hex([[6b812345 0053 00 09 20010db8000000000000000000000001 20010db8000000000000000000000002
      2b 00 05020000 0100
      2c 02 02 01 00000000 20010db8000000000000000000000003
      33 00 0000 00000007
      3c 04 0000 00000100 00000001 aaaaaaaaaaaaaaaaaaaaaaaa
      11 00 0104 00000000
      9c40 0035 000b]])
    assert.are.equal(expected, made:sub(1, #expected))
    assert.are.equal("odd", made:sub(-3))
    -- On its way through a routing header the sum is over where it goes in the end (RFC 8200 section 8.1).
    assert_summed(nfqueue.packet(made), hex("20010db8000000000000000000000003"))
  end)

  it("has defaults that make a packet", function()
    local pkt = packet({ ip = IP4, tcp = TCP })
    local ip, tcp = pkt.ip, pkt.tcp
    assert.are.same({ 64, 0, 0, true, false, 0, 6 },
      { ip.ttl, ip.tos, ip.id, ip.df, ip.mf, ip.frag_offset, ip.protocol })
    assert.are.same({ 0, 0, "S", 65535, 0 }, { tcp.seq, tcp.ack_seq, tcp.flags, tcp.window, tcp.urg_ptr })
    assert.are.equal("PA", packet({ ip = IP6, tcp = TCP, payload = "x" }).tcp.flags)
    local icmp = packet({ ip = IP4, icmp = { type = 8 } }).icmp
    assert.are.same({ 8, 0, 0, 0 }, { icmp.type, icmp.code, icmp.id, icmp.seq })
  end)

  it("forbids splitting on the way unless the packet has an id (RFC 6864)", function()
    assert.is_false(packet({ ip = with(IP4, { id = 0 }), udp = UDP }).ip.df)
    assert.is_true(packet({ ip = with(IP4, { id = 5, df = true }), udp = UDP }).ip.df)
    assert.is_false(packet({ ip = with(IP4, { df = false }), udp = UDP }).ip.df)
  end)

  it("takes flags as letters in any order, as booleans, and both", function()
    for _, case in ipairs({
      { { flags = "AS" }, "SA" }, { { flags = "" }, "" }, { { flags = "FSRPAUEC" }, "FSRPAUEC" },
      { { syn = true, ack = true }, "SA" }, { { flags = "SA", ack = false, ece = true }, "SE" },
      { { fin = false }, "" },
    }) do
      assert.are.equal(case[2], packet({ ip = IP4, tcp = with(TCP, case[1]) }).tcp.flags)
    end
  end)

  it("keeps a checksum that is given", function()
    for _, ip in pairs(IP) do
      for name, part in pairs({ tcp = TCP, udp = UDP, icmp = { type = 200 } }) do
        for _, sum in ipairs({ 0, 0xbad, 0xffff }) do
          local pkt = packet({ ip = ip, [name] = with(part, { checksum = sum }), payload = "x" })
          assert.are.equal(sum, pkt[name].checksum)
        end
      end
    end
    assert.are.equal(0xbad, packet({ ip = with(IP4, { checksum = 0xbad }), udp = UDP }).ip.checksum)
  end)

  it("sends a UDP checksum of 0 as 0xffff", function()
    for _, ip in pairs(IP) do
      local sum = packet({ ip = ip, udp = UDP, payload = "\0\0" }).udp.checksum
      assert.are.equal(0xffff, packet({ ip = ip, udp = UDP, payload = string.pack(">I2", sum) }).udp.checksum)
    end
  end)

  it("puts other protocols behind the IP header as they are", function()
    for version, ip in pairs(IP) do
      for _, protocol in ipairs({ 6, 17, 47, 50, version == 4 and 1 or 58 }) do
        local pkt = packet({ ip = with(ip, { protocol = protocol }), payload = "as it is" })
        assert.are.equal(protocol, pkt.ip.protocol)
        assert.are.equal("as it is", pkt:bytes(version == 4 and 20 or 40))
      end
    end
    assert.are.equal("", packet({ ip = with(IP6, { protocol = 59 }) }).payload)
  end)

  it("writes the CRC32c of SCTP", function()
    local function crc32c(text) -- RFC 9260 appendix A, bit by bit
      local crc = 0xffffffff
      for byte in text:gmatch(".") do
        crc = crc ~ byte:byte()
        for _ = 1, 8 do
          crc = crc & 1 == 1 and crc >> 1 ~ 0x82f63b78 or crc >> 1
        end
      end
      return crc ~ 0xffffffff
    end
    assert.are.equal(0xe3069283, crc32c("123456789")) -- the known check value of CRC-32C
    local head, chunk = "\x9c\x40\0\80\0\0\0\0", hex("01000014 00000001 00010000 00010001 00000001")
    local sum = string.pack("<I4", crc32c(head .. "\0\0\0\0" .. chunk))
    for version, ip in pairs(IP) do
      local pkt = packet({ ip = with(ip, { protocol = 132 }), payload = head .. "none" .. chunk })
      assert.are.equal(head .. sum .. chunk, pkt:bytes(version == 4 and 20 or 40))
      local part = packet({ ip = with(ip, { protocol = 132, id = 1, mf = true }), payload = head .. "none" .. chunk })
      assert.are.equal(head .. "none" .. chunk, part:bytes(version == 4 and 20 or 48))
    end
  end)

  it("writes SACK blocks, and options as bytes", function()
    local tcp = packet({ ip = IP4, tcp = with(TCP, { options = { sack = { { 1, 2 }, { 0xffffffff, 5 } } } }) }).tcp
    assert.are.equal(string.pack(">I4I4I4I4", 1, 2, 0xffffffff, 5), tcp:option(5))
    local pkt = packet({ ip = IP4, tcp = with(TCP, { options = "\1\1\4\2\1" }) })
    assert.are.equal("\1\1\4\2\1\0\0\0", pkt:bytes(40))
    pkt = packet({ ip = IP4, tcp = with(TCP, { mss = 9000, options = "\3\3\7" }) })
    assert.are.same({ 9000, "\7" }, { pkt.tcp.mss, pkt.tcp:option(3) })
    assert.are.equal(0, #packet({ ip = IP4, tcp = with(TCP, { options = { sack_permitted = false } }) }):bytes(40))
  end)

  it("makes fragments one by one", function()
    local first = packet({ ip = with(IP4, { id = 1, mf = true }), udp = UDP, payload = ("x"):rep(16) })
    assert.are.same({ true, 0, "x", 1 }, { first.ip.mf, first.ip.frag_offset, first.payload:sub(1, 1), first.ip.id })
    local later = packet({ ip = with(IP6, { id = 9, frag_offset = 1480, protocol = 17 }), payload = "rest" })
    assert.are.same({ false, 1480, "rest", 9, 17 },
      { later.ip.mf, later.ip.frag_offset, later.payload, later.ip.id, later.ip.protocol })
    local listed = packet({ ip = with(IP6, { protocol = 17,
      extensions = { { fragment = { id = 9, frag_offset = 1480, mf = true } } } }), payload = ("x"):rep(8) })
    assert.are.same({ true, 1480, 9 }, { listed.ip.mf, listed.ip.frag_offset, listed.ip.id })
  end)

  it("sums a first fragment as the packet it is here", function()
    for version, ip in pairs(IP) do
      for name, part in pairs({ tcp = TCP, udp = UDP, icmp = { type = version == 4 and 8 or 128 } }) do
        local payload = ("x"):rep(name == "tcp" and 20 or 16) -- to a unit of 8
        local whole = build({ ip = ip, [name] = part, payload = payload })
        local first = build({ ip = with(ip, { id = 1, mf = true }), [name] = part, payload = payload })
        assert.are.equal(whole:sub(version == 4 and 21 or 41), first:sub(version == 4 and 21 or 49))
      end
    end
  end)

  it("puts the fragment header behind what routers read (RFC 8200 section 4.1)", function()
    local routing = { routing = { type = 0, left = 0, addresses = { "::1" } } }
    for _, case in ipairs({
      { {}, "2c 11" }, { { { hop_by_hop = "" } }, "00 2c 11" }, { { { destination = "" } }, "2c 3c 11" },
      { { { hop_by_hop = "" }, { destination = "" }, routing, { destination = "" } }, "00 3c 2b 2c 3c 11" },
      { { routing, { ah = ("x"):rep(14) } }, "2b 2c 33 11" },
    }) do
      local made = build({ ip = with(IP6, { id = 1, extensions = case[1] }), udp = UDP })
      local chain, at = made:sub(7, 7), 41
      while chain:byte(-1) ~= 17 do
        local kind = chain:byte(-1)
        local size = kind == 44 and 8 or kind == 51 and (made:byte(at + 1) + 2) * 4 or (made:byte(at + 1) + 1) * 8
        chain = chain .. made:sub(at, at)
        at = at + size
      end
      assert.are.equal(hex(case[2]), chain)
    end
  end)

  it("makes the largest packets there are", function()
    assert.are.equal(65535, #build({ ip = IP4, udp = UDP, payload = ("x"):rep(65507) }))
    assert.are.equal(65575, #build({ ip = IP6, udp = UDP, payload = ("x"):rep(65527) }))
  end)
end)

describe("nfqueue.build with an embedded packet", function()
  local ERRORS = { [4] = { 3, 4, 5, 11, 12 }, [6] = { 1, 2, 3, 4, 127 } }
  for version, ip in pairs(IP) do
    it(("makes errors of IPv%d"):format(version), function()
      local about = build({ ip = ip, udp = UDP, payload = "question" })
      for _, type in ipairs(ERRORS[version]) do
        for _, embedded in ipairs({ about, nfqueue.packet(about) }) do
          local pkt = packet({ ip = ip, icmp = { type = type, code = 1, seq = 1400, embedded = embedded } })
          assert.are.same({ type, 1, 1400 }, { pkt.icmp.type, pkt.icmp.code, read(pkt, "icmp", "seq") })
          assert.are.equal(about, pkt.icmp.embedded)
          assert.are.equal(about, pkt.payload)
          assert_summed(pkt)
        end
      end
    end)

    it(("takes as much as belongs into IPv%d"):format(version), function()
      local about = build({ ip = ip, udp = UDP, payload = ("x"):rep(2000) })
      local whole = version == 4 and 576 or 1280 -- RFC 1812 section 4.3.2.3, RFC 4443 section 2.4
      local pkt = packet({ ip = ip, icmp = { type = 3, embedded = about } })
      assert.are.equal(whole, #pkt)
      assert.are.equal(about:sub(1, whole - (version == 4 and 28 or 48)), pkt.payload)
    end)
  end
end)

-- --- Splitting ---

-- What the fragments of one packet are put together to, each checked for itself.
local function reassemble(list, mtu, transport)
  local whole, next_offset = "", 0
  for i, piece in ipairs(list) do
    local pkt = nfqueue.packet(piece)
    local ip = pkt.ip
    assert.is_true(#piece <= mtu)
    assert.are.same({ i < #list, next_offset, #piece }, { ip.mf, ip.frag_offset, ip.length })
    local head = ip.version == 4 and (pkt:u8(0) & 15) * 4 or transport
    if ip.version == 4 then
      assert.are.equal(0, checksum.of(piece:sub(1, head)))
    end
    whole = whole .. piece:sub(head + 1)
    next_offset = next_offset + #piece - head
    -- As full as they can be: none but the last has room for 8 bytes more.
    assert.is_true(i == #list or mtu - #piece < 8)
  end
  return whole
end

describe("nfqueue.build with mtu", function()
  it("gives fragments that are the packet", function()
    for version, ip in pairs(IP) do
      for _, mtu in ipairs({ 68, 69, 75, 76, 576, 1280, 1500 }) do
        for _, size in ipairs({ 0, 1, 20, 93, 94, 95, 100, 1452, 1472, 1473, 5000 }) do
          local description = { ip = with(ip, { id = 77 }), udp = UDP, payload = ("abcdefg"):rep(720):sub(1, size) }
          local whole = build(version == 4 and description or with(description, { ip = ip }))
          local list = build(with(description, { mtu = mtu }))
          if #whole <= mtu then
            assert.are.same({ whole }, list)
          else
            assert.are.equal(whole:sub(version == 4 and 21 or 41), reassemble(list, mtu, 48))
            -- No more of them than it takes: the last one fills no units of 8.
            local room = mtu - (version == 4 and 20 or 48)
            assert.are.equal(1 + math.ceil((8 + size - room) / (room // 8 * 8)), #list)
            for _, piece in ipairs(list) do
              assert.are.equal(77, nfqueue.packet(piece).ip.id)
            end
          end
        end
      end
    end
  end)

  it("writes a checksum of the IPv4 header that is given into each", function()
    for _, piece in ipairs(build({ ip = with(IP4, { id = 1, checksum = 0x1234 }), udp = UDP,
      payload = ("x"):rep(3000), mtu = 1280 })) do
      assert.are.equal(0x1234, nfqueue.packet(piece).ip.checksum)
    end
  end)

  it("copies those IPv4 options that say so (RFC 791)", function()
    local list = build({ ip = with(IP4, { id = 1, options = { [7] = "\4\0\0\0\0", [148] = "\0\0", [131] = "\4" } }),
      udp = UDP, payload = ("x"):rep(3000), mtu = 576 })
    assert.are.equal(hex("0707 0400000000 8303 04 9404 0000 0000"), list[1]:sub(21, 36))
    for i = 2, #list do
      assert.are.equal(hex("47"), list[i]:sub(1, 1))
      assert.are.equal(hex("8303 04 9404 0000 00"), list[i]:sub(21, 28))
    end
  end)

  it("copies the IPv6 headers that routers read (RFC 8200)", function()
    local made = { ip = with(IP6, { id = 1, extensions = { { hop_by_hop = { [5] = "\0\0" } }, { destination = "" },
      { routing = { type = 2, left = 0, addresses = { "::1" } } }, { destination = "" } } }),
      udp = UDP, payload = ("x"):rep(3000), mtu = 1280 }
    local list = build(made)
    for _, piece in ipairs(list) do
      assert.are.equal("\0", piece:sub(7, 7))
      assert.are.equal("\60", piece:sub(41, 41)) -- hop-by-hop, destination, routing, and then the fragment header
      assert.are.equal("\43", piece:sub(49, 49))
      assert.are.equal("\44", piece:sub(57, 57))
      assert.are.equal("\60\0", piece:sub(81, 82))
    end
    local whole = reassemble(list, 1280, 88)
    assert.are.equal(hex("11000104000000009c400035"), whole:sub(1, 12))
    assert.are.equal(8 + 8 + 3000, #whole)
  end)

  it("takes a payload that claims to be longer headers than it is for a payload", function()
    -- The claim was believed, and read beyond the packet. Found by fuzzing.
    for _, kind in ipairs({ 0, 43, 60 }) do
      for _, last in ipairs({ "\59\255", "\0\255", "\59\0\0\0\0\0\0\0\59\255", "\60\12" }) do
        local payload = last .. ("x"):rep(101 - #last)
        local list = build({ ip = with(IP6, { id = 1, protocol = kind }), payload = payload, mtu = 100 })
        local head = kind ~= 60 and #last == 10 and 56 or 48
        local whole = reassemble(list, 100, head)
        assert.are.equal(payload:sub(head - 47), whole)
      end
    end
  end)

  it("splits TCP and ICMP with their sums over the whole", function()
    for version, ip in pairs(IP) do
      for name, part in pairs({ tcp = TCP, icmp = { type = version == 4 and 8 or 128 } }) do
        local description = { ip = ip, [name] = part, payload = ("x"):rep(3000) }
        local whole = build(description)
        local list = build(with(description, { ip = with(ip, { id = 3 }), mtu = 1280 }))
        assert.are.equal(whole:sub(version == 4 and 21 or 41), reassemble(list, 1280, 48))
      end
    end
  end)
end)
