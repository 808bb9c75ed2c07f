-- What nfqueue.build makes, as tshark reads it: every checksum good, no warning, and the same fields.

local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local build, with = nfqueue.build, unit.with
local _, is_there = net.sh("command -v tshark")
local it = is_there and it or function(name)
  pending(name .. " (tshark is not installed)")
end

local IP = {
  [4] = { src = "192.0.2.1", dst = "198.51.100.2" },
  [6] = { src = "2001:db8::1", dst = "2001:db8::2" },
}

after_each(unit.cleanup)

-- A capture of raw IP packets (link type 101).
local function capture(packets)
  local parts = { string.pack("<I4I2I2i4I4I4I4", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 101) }
  for i, bytes in ipairs(packets) do
    parts[#parts + 1] = string.pack("<I4I4I4I4", i, 0, #bytes, #bytes) .. bytes
  end
  return unit.file(table.concat(parts))
end

local CHECKED = "-o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE"
  .. " -o 'sctp.checksum:CRC 32c'"

-- The fields of each packet: a list of tables of texts by name, absent ones "".
local function read(packets, fields, options)
  local output = net.must(("tshark -n -r %s %s %s -T fields -E separator=/t -E aggregator=';' -e %s 2>/dev/null")
    :format(capture(packets), CHECKED, options or "", table.concat(fields, " -e ")))
  local list = {}
  for line in (output .. "\n"):gmatch("([^\n]*)\n") do
    local row, position = {}, 0
    for value in (line .. "\t"):gmatch("([^\t]*)\t") do
      position = position + 1
      row[fields[position] or position] = value
    end
    list[#list + 1] = row
  end
  -- Empty columns at the very end are cut off with the white space.
  assert.are.equal(#packets, #list)
  return list
end

local SUMS = { "ip", "tcp", "udp", "icmp", "icmpv6", "sctp" }
local WARNING = 6291456 -- severities: 2097152 chat, 4194304 note, 6291456 warning, 8388608 error

-- How many checksums of each kind are good. Fails for a bad or an unchecked one, and for a warning.
local function assert_good(packets, expected_warning, options)
  local fields = { "frame.number", "icmp.type", "icmpv6.type" }
  for _, name in ipairs(SUMS) do
    fields[#fields + 1] = name .. ".checksum.status"
  end
  fields[#fields + 1] = "_ws.expert.severity"
  fields[#fields + 1] = "_ws.expert.message"
  fields[#fields + 1] = "_ws.malformed"
  local good = {}
  for i, row in ipairs(read(packets, fields, options)) do
    local shown = ("packet %d: %s"):format(i, tostring(nfqueue.packet(packets[i])))
    for _, name in ipairs(SUMS) do
      for status in (row[name .. ".checksum.status"] or ""):gmatch("%d") do
        -- 1 good, 2 unverified: only of a packet that is cut off in an error about it.
        assert.is_true(status == "1" or status == "2" and row["icmp.type"] .. row["icmpv6.type"] ~= "",
          ("%s, checksum of %s: status %s"):format(shown, name, status))
        good[name] = (good[name] or 0) + (status == "1" and 1 or 0)
      end
    end
    assert.are.equal("", row["_ws.malformed"] or "", shown)
    for severity in (row["_ws.expert.severity"] or ""):gmatch("%d+") do
      local message = row["_ws.expert.message"]
      assert.is_true(tonumber(severity) < WARNING or (expected_warning and message:find(expected_warning)) ~= nil,
        shown .. ": " .. message)
    end
  end
  return good
end

-- One of each layer of a version.
local function every_layer(version)
  local ip, list = IP[version], {}
  local function add(description)
    local made = build(description)
    table.move(type(made) == "table" and made or { made }, 1, 99, #list + 1, list)
    return made
  end
  local udp = { sport = 40000, dport = 40001 }
  add({ ip = ip, tcp = { sport = 40000, dport = 40001, mss = 1460,
    options = { window_scale = 7, sack_permitted = true, timestamps = { 1, 0 } } } })
  add({ ip = ip, tcp = { sport = 40002, dport = 40001, seq = 5, ack_seq = 6, flags = "PAUEC", urg_ptr = 3,
    options = { sack = { { 100, 200 }, { 300, 400 } } } }, payload = "hello" })
  add({ ip = ip, tcp = { sport = 40003, dport = 40001, flags = "FA", options = { [253] = "\0\1experiment" } } })
  local datagram = add({ ip = ip, udp = udp, payload = "odd" })
  add({ ip = ip, udp = udp })
  for _, size in ipairs({ 1400, 1401, 4000 }) do
    add({ ip = with(ip, { id = size }), udp = udp, payload = ("x"):rep(size), mtu = 1280 })
  end
  add({ ip = with(ip, { id = 9 }), tcp = { sport = 40004, dport = 40001 }, payload = ("x"):rep(4000), mtu = 576 })
  local echo = add({ ip = ip, icmp = { type = version == 4 and 8 or 128, id = 3, seq = 4 }, payload = "ping" })
  add({ reply = echo })
  add({ reply = datagram, payload = "answer" })
  add({ reply = datagram, icmp = { type = version == 4 and 3 or 1, code = 3 } })
  add({ reply = datagram, icmp = { type = version == 4 and 11 or 3 } })
  add({ ip = ip, icmp = { type = version == 4 and 3 or 2, code = version == 4 and 4 or 0, seq = 1400,
    embedded = build({ ip = ip, udp = udp, payload = ("x"):rep(3000) }) } })
  add({ ip = with(ip, { protocol = 132 }),
    payload = string.pack(">I2I2I4I4I4I4I4I4I4", 40000, 40001, 0, 0, 0x01000014, 1, 0x10000, 0x10001, 1) })
  add({ ip = with(ip, { protocol = 47 }), payload = "\0\0" .. (version == 4 and "\8\0" or "\x86\xdd") .. datagram })
  add({ ip = with(ip, { protocol = 50 }), payload = string.pack(">I4I4", version, 1) .. ("x"):rep(40) })
  if version == 4 then
    add({ ip = with(ip, { options = { [148] = "\0\0", [7] = "\4\0\0\0\0" } }), udp = udp, payload = "x" })
    add({ ip = with(ip, { id = 5, options = { [148] = "\0\0", [7] = "\4\0\0\0\0" } }), udp = udp,
      payload = ("x"):rep(3000), mtu = 1280 })
    return list
  end
  local extensions = {
    { hop_by_hop = { [5] = "\0\0" } }, { destination = "" },
    { routing = { type = 2, left = 1, addresses = { "2001:db8::3" } } },
    { ah = string.pack(">I2I4I4", 0, 256, 1) .. ("\xaa"):rep(12) }, { destination = { [0x1e] = "\0" } },
  }
  add({ ip = with(ip, { extensions = extensions }), udp = udp, payload = "x" })
  add({ ip = with(ip, { id = 77, extensions = extensions }), tcp = { sport = 40005, dport = 40001 } })
  extensions[4] = { destination = "" }
  add({ ip = with(ip, { id = 78, extensions = extensions }), udp = udp, payload = ("x"):rep(3000), mtu = 1280 })
  return list
end

describe("tshark", function()
  for version in pairs(IP) do
    it(("finds nothing wrong with what is built of IPv%d"):format(version), function()
      local packets = every_layer(version)
      local good = assert_good(packets, nil, "-o tcp.analyze_sequence_numbers:FALSE")
      -- The statuses are those of whole packets: fragments are summed where they are put together.
      assert.is_true(good.tcp >= 3, good.tcp)
      assert.is_true(good.udp >= 8, good.udp)
      assert.is_true(good[version == 4 and "icmp" or "icmpv6"] >= 5)
      assert.are.equal(1, good.sctp)
      assert.is_true(version == 6 or good.ip >= #packets)
    end)

    it(("puts the fragments of IPv%d together"):format(version), function()
      local ip = with(IP[version], { id = 9 })
      local payload = ("abcdefg"):rep(600)
      local pieces = build({ ip = ip, udp = { sport = 40000, dport = 40001 }, payload = payload, mtu = 1280 })
      local rows = read(pieces, { "frame.number", "udp.length", "udp.checksum.status",
        version == 4 and "ip.fragment.count" or "ipv6.fragment.count" })
      local last = rows[#rows]
      assert.are.equal(tostring(8 + #payload), last["udp.length"])
      assert.are.equal("1", last["udp.checksum.status"])
      assert.are.equal(tostring(#pieces), last[version == 4 and "ip.fragment.count" or "ipv6.fragment.count"])
    end)

    it(("follows a conversation of replies over IPv%d"):format(version), function()
      local list = {}
      local function say(description)
        list[#list + 1] = build(description)
        return list[#list]
      end
      local syn = say({ ip = IP[version], tcp = { sport = 40000, dport = 40001, seq = 1000, flags = "S", mss = 1400 } })
      local syn_ack = say({ reply = syn, tcp = { seq = 5000, mss = 1300 } })
      local ack = say({ reply = syn_ack })
      list[#list] = nil -- the question carries it
      local question = say({ reply = syn_ack, payload = "question" })
      assert.are.equal(nfqueue.packet(ack).tcp.seq, nfqueue.packet(question).tcp.seq)
      local answer = say({ reply = question, payload = "answer" })
      local bye = say({ reply = answer, tcp = { flags = "FA" } })
      local goodbye = say({ reply = bye, tcp = { flags = "FA" } })
      say({ reply = goodbye })
      assert.are.equal(7, assert_good(list).tcp)
      -- And a reset, which tshark warns of as such.
      local refused = build({ reply = syn, tcp = { rst = true } })
      assert.are.equal(2, assert_good({ syn, refused }, "Connection reset").tcp)
    end)

    it(("reads the fields of IPv%d that were given"):format(version), function()
      local random = math.random
      local seed = os.time()
      math.randomseed(seed)
      local packets, wanted = {}, {}
      for i = 1, 200 do
        local ip = with(IP[version], { ttl = random(1, 255), tos = random(0, 255), id = random(0, 65535) })
        local udp = { sport = random(40000, 50000), dport = random(50001, 60000) }
        local tcp = with(udp, { seq = random(0, 0xffffffff), ack_seq = random(0, 0xffffffff),
          window = random(0, 65535), urg_ptr = random(0, 65535), flags = "A", mss = random(0, 65535) })
        local is_tcp = random(2) == 1
        packets[i] = build({ ip = ip, [is_tcp and "tcp" or "udp"] = is_tcp and tcp or udp, payload = "x" })
        local ports = is_tcp and tcp or udp
        wanted[i] = {
          [version == 4 and "ip.src" or "ipv6.src"] = ip.src, [version == 4 and "ip.dst" or "ipv6.dst"] = ip.dst,
          [version == 4 and "ip.ttl" or "ipv6.hlim"] = ip.ttl,
          [version == 4 and "ip.dsfield" or "ipv6.tclass"] = ip.tos,
          [version == 4 and "ip.id" or "ipv6.fraghdr.ident"] = ip.id,
          ["tcp.srcport"] = is_tcp and ports.sport, ["tcp.dstport"] = is_tcp and ports.dport,
          ["udp.srcport"] = not is_tcp and ports.sport, ["udp.dstport"] = not is_tcp and ports.dport,
          ["tcp.seq_raw"] = is_tcp and tcp.seq, ["tcp.ack_raw"] = is_tcp and tcp.ack_seq,
          ["tcp.window_size_value"] = is_tcp and tcp.window, ["tcp.urgent_pointer"] = is_tcp and tcp.urg_ptr,
          ["tcp.options.mss_val"] = is_tcp and tcp.mss,
        }
      end
      local fields = {}
      for field in pairs(wanted[1]) do
        fields[#fields + 1] = field
      end
      fields[#fields + 1] = "frame.number"
      for i, row in ipairs(read(packets, fields)) do
        for field, value in pairs(wanted[i]) do
          local got = row[field]
          if value == false then
            assert.are.equal("", got or "", field)
          elseif type(value) == "number" then
            assert.are.equal(value, tonumber(got), ("%s of packet %d, seed %d"):format(field, i, seed))
          else
            assert.are.equal(value, got, field)
          end
        end
      end
    end)
  end

  it("would find a wrong checksum, and a malformed packet", function()
    local udp = { sport = 40000, dport = 40001 }
    for _, description in ipairs({
      { ip = with(IP[4], { checksum = 1 }), udp = udp },
      { ip = IP[4], udp = with(udp, { checksum = 1 }) },
      { ip = IP[6], tcp = with(udp, { checksum = 1 }) },
      { ip = IP[4], icmp = { type = 8, checksum = 1 } },
      { ip = IP[6], icmp = { type = 128, checksum = 1 } },
    }) do
      assert.is_false(pcall(assert_good, { build(description) }))
    end
    assert.is_false(pcall(assert_good, { build({ ip = IP[4], udp = udp, payload = "x" }):sub(1, 26) }))
  end)
end)
