-- Capture files without a kernel: what is written is read back, files of other programs' making, and bad ones.

local datagram = require("support.datagram")
local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local right = datagram.right
local TCP4 = right(datagram.ip4(datagram.tcp("hello")))
local UDP4, UDP6 = right(datagram.ip4(datagram.udp("hello"))), right(datagram.ip6(datagram.udp("hello")))
local ENOENT, EAGAIN, EISDIR, EINVAL, ENOSPC = 2, 11, 21, 22, 28

after_each(unit.cleanup)

local function temporary()
  return unit.file("")
end

-- All of a file: a list of { packet, prefix }, and the reader.
local function read_all(path)
  local list, reader = {}, assert(nfqueue.pcap.open(path))
  for pkt, prefix in reader do
    list[#list + 1] = { packet = pkt, prefix = prefix }
  end
  return list, reader
end

-- A pcap file of records, each a string or { bytes, length on the wire }.
local function pcap(link, records, order, magic)
  order = order or "<"
  local text = { string.pack(order .. "I4I2I2i4I4I4I4", magic or 0xa1b2c3d4, 2, 4, 0, 0, 262144, link) }
  for i, record in ipairs(records) do
    local bytes = type(record) == "table" and record[1] or record
    text[#text + 1] = string.pack(order .. "I4I4I4I4", 1700000000 + i, 250000, #bytes,
      type(record) == "table" and record[2] or #bytes) .. bytes
  end
  return table.concat(text)
end

describe("a recording", function()
  local META = {
    { hook = "forward", queue = 7, id = 9, mark = 0x42, iif = 2, oif = 3, physiif = 4, physoif = 0xffffffff, uid = 1000,
      gid = 1001, hwaddr = "00:11:22:33:44:55", timestamp = 1700000000.25 },
    { hook = "output", uid = 0, gid = 0, timestamp = 0 },
    { hook = "input", mark = 0xffffffff, hwaddr = "01:02:03:04:05:06:07:08", timestamp = 4000000000.5 },
    { hook = "postrouting", timestamp = 1.5, queue = 65535 },
  }
  local FIELDS = { "family", "hook", "ethertype", "id", "mark", "iif", "oif", "physiif", "physoif", "uid", "gid",
    "hwaddr", "timestamp", "length", "truncated" }

  it("keeps what was known of each packet", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    local written = {}
    for _, meta in ipairs(META) do
      for _, bytes in ipairs({ UDP4, UDP6, TCP4 }) do
        local pkt = nfqueue.packet(bytes, meta)
        written[#written + 1] = pkt
        assert.is_true(writer:write(pkt))
      end
    end
    writer:close()
    local list, reader = read_all(path)
    assert.are.equal(#written, #list)
    for i, item in ipairs(list) do
      for _, field in ipairs(FIELDS) do
        assert.are.equal(written[i][field], item.packet[field], field)
      end
      assert.are.equal(written[i]:bytes(), item.packet:bytes())
      assert.is_nil(item.prefix)
      assert.is_nil(item.packet.verdict)
    end
    assert.are.same({ 0, "NFLOG" }, { reader.skipped, reader.linktype })
  end)

  it("keeps the verdict, or what is given for it", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path, { linktype = "nflog" }))
    local pkt = nfqueue.packet(UDP4)
    writer:write(pkt)
    writer:write(pkt, "drop")
    writer:write(pkt, "")
    writer:write(pkt, ("x"):rep(127))
    pkt:reject()
    writer:write(pkt)
    writer:write(pkt, "because")
    local prefixes = {}
    for i, item in ipairs(read_all(path)) do
      prefixes[i] = item.prefix or false
    end
    assert.are.same({ false, "drop", "", ("x"):rep(127), "reject", "because" }, prefixes)
  end)

  it("keeps the packet as it is when it is written", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    local pkt = nfqueue.packet(UDP4)
    pkt.udp.dport = 54
    writer:write(pkt)
    pkt:accept()
    writer:write(pkt)
    local list = read_all(path)
    assert.are.equal(54, list[1].packet.udp.dport)
    assert.are.same({ "accept", pkt.sent }, { list[2].prefix, list[2].packet:bytes() })
  end)

  for _, linktype in ipairs({ "nflog", "raw" }) do
    it(("of link type %s keeps packets of every length, also of which not all is here"):format(linktype), function()
      local path = temporary()
      local writer = assert(nfqueue.pcap.create(path, { linktype = linktype }))
      local sizes = { 20, 21, 22, 23, 1500, 65528, 65531 }
      for _, size in ipairs(sizes) do
        local bytes = ("E" .. ("x"):rep(size - 1))
        assert.is_true(writer:write(nfqueue.packet(bytes)))
        assert.is_true(writer:write(nfqueue.packet(bytes, { length = size + 1001 })))
      end
      local list = read_all(path)
      assert.are.equal(2 * #sizes, #list)
      for i, size in ipairs(sizes) do
        local whole, cut = list[2 * i - 1].packet, list[2 * i].packet
        assert.are.same({ size, size, false, size, size + 1001, true },
          { #whole, whole.length, whole.truncated, #cut, cut.length, cut.truncated })
        assert.are.equal(("x"):rep(size - 1), cut:bytes(1))
      end
    end)
  end

  it("keeps a packet of which only metadata was copied", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    writer:write(nfqueue.packet("", { length = 1500, mark = 5 }))
    local pkt = read_all(path)[1].packet
    assert.are.same({ 0, 1500, true, 5, 0x0800 }, { #pkt, pkt.length, pkt.truncated, pkt.mark, pkt.ethertype })
  end)

  it("of link type raw holds the packets alone", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path, { linktype = "raw" }))
    writer:write(nfqueue.packet(UDP4, { mark = 5, timestamp = 7.5 }))
    local dropped = nfqueue.packet(UDP6)
    dropped:drop()
    writer:write(dropped)
    local list, reader = read_all(path)
    assert.are.equal("RAW", reader.linktype)
    assert.are.same({ UDP4, 0, 7.5 }, { list[1].packet:bytes(), list[1].packet.mark, list[1].packet.timestamp })
    assert.are.same({ UDP6, "ip6" }, { list[2].packet:bytes(), list[2].packet.family })
    assert.are.equal("bad argument 'verdict' to 'write' (link type raw has no room for it)",
      unit.message(writer.write, writer, dropped, "drop"))
  end)

  it("gets the present time where a packet has none", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    local before = os.time()
    writer:write(nfqueue.packet(UDP4))
    local stamp = read_all(path)[1].packet.timestamp
    assert.is_true(stamp >= before and stamp < os.time() + 1)
  end)

  it("can be read while it is being written", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    for i = 1, 3 do
      writer:write(nfqueue.packet(UDP4))
      assert.are.equal(i, #read_all(path))
    end
  end)

  it("is read by tshark and tcpdump", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    for _, bytes in ipairs({ UDP4, UDP6, TCP4 }) do
      local pkt = nfqueue.packet(bytes, { queue = 7, mark = 0x42, iif = 2, uid = 1000, hook = "forward" })
      pkt:drop()
      writer:write(pkt)
    end
    writer:close()
    local tools = 0
    if select(2, net.sh("command -v tcpdump")) then
      tools = tools + 1
      local text = net.must("tcpdump -nvr " .. path)
      assert.matches("192.0.2.1.40000 > 198.51.100.2.53: ", text, 1, true)
      assert.matches("2001:db8::1.40000 > 2001:db8::2.53: ", text, 1, true)
      assert.is_nil(text:find("|nflog", 1, true), text)
    end
    if select(2, net.sh("command -v tshark")) then
      tools = tools + 1
      local text = net.must(("tshark -n -r %s -T fields -E separator=, -e nflog.family -e nflog.res_id -e nflog.prefix "
        .. "-e nflog.ifindex_indev -e nflog.uid -e nflog.hook -e ip.src -e ipv6.src 2>/dev/null"):format(path))
      assert.are.equal("2,7,drop,2,1000,2,192.0.2.1,\n10,7,drop,2,1000,2,,2001:db8::1\n2,7,drop,2,1000,2,192.0.2.1,",
        text)
    end
    if tools == 0 then
      pending("neither tcpdump nor tshark is installed")
    end
  end)
end)

describe("nfqueue.pcap.create", function()
  it("empties a file that nobody writes", function()
    local path = temporary()
    for _ = 1, 2 do
      local writer <close> = assert(nfqueue.pcap.create(path))
      writer:write(nfqueue.packet(UDP4))
    end
    assert.are.equal(1, #read_all(path))
  end)

  it("continues a file where that is asked for", function()
    local path = temporary()
    for i = 1, 3 do
      local writer <close> = assert(nfqueue.pcap.create(path, { append = true }))
      writer:write(nfqueue.packet(UDP4, { mark = i }))
    end
    local list = read_all(path)
    assert.are.same({ 3, 1, 2, 3 }, { #list, list[1].packet.mark, list[2].packet.mark, list[3].packet.mark })
  end)

  it("continues a file that somebody else writes", function()
    local path = temporary()
    local writers = {}
    for i = 1, 3 do
      writers[i] = assert(nfqueue.pcap.create(path))
      for k = 1, i do
        writers[k]:write(nfqueue.packet(UDP4, { mark = 10 * i + k }))
      end
    end
    local other = unit.file(([[
      local nfqueue = require("nfqueue")
      local writer = assert(nfqueue.pcap.create(%q))
      for _ = 1, 100 do
        assert(writer:write(nfqueue.packet(("E"):rep(60000))))
      end
    ]]):format(path))
    net.must(("%s %s & %s %s & wait"):format(net.lua, other, net.lua, other))
    writers[1]:close()
    writers[2]:write(nfqueue.packet(UDP4, { mark = 99 }))
    local list, large = read_all(path), 0
    for _, item in ipairs(list) do
      if #item.packet == 60000 then
        large = large + 1
        assert.are.equal(("E"):rep(60000), item.packet:bytes())
      end
    end
    assert.are.same({ 200, 207, 11, 99 }, { large, #list, list[1].packet.mark, list[#list].packet.mark })
  end)

  it("does not continue what is something else", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    local result = { nfqueue.pcap.create(path, { linktype = "raw" }) }
    assert.are.same({ nil, "cannot continue " .. path .. ": it is of another link type", EINVAL },
      { result[1], result[2], result[3] })
    writer:close()
    for name, content in pairs({
      ["a text"] = "no capture at all, but long enough for a header",
      ["a short file"] = "\xd4\xc3",
      ["the other byte order"] = pcap(239, {}, ">"),
      nanoseconds = pcap(239, {}, "<", 0xa1b23c4d),
    }) do
      path = unit.file(content)
      local done, message, errno = nfqueue.pcap.create(path, { append = true })
      assert.are.same({ nil, ("cannot continue %s: it is no pcap file of this machine's byte order, with microseconds")
        :format(path), EINVAL }, { done, message, errno }, name)
      assert.are.equal(content, net.read(path))
    end
  end)

  it("tells why a file cannot be made", function()
    local done, message, errno = nfqueue.pcap.create("/nowhere/x.pcap")
    assert.are.same({ nil, "cannot write /nowhere/x.pcap: No such file or directory", ENOENT },
      { done, message, errno })
    done, message, errno = nfqueue.pcap.create("/tmp")
    assert.are.same({ nil, "cannot write /tmp: Is a directory", EISDIR }, { done, message, errno })
    done, message, errno = nfqueue.pcap.create("/dev/full")
    assert.are.same({ nil, "cannot write /dev/full: No space left on device", ENOSPC }, { done, message, errno })
  end)

  it("does not wait for ever for another program's lock", function()
    local path = temporary()
    local locked = net.start(("flock %s sh -c \"echo locked; sleep 60\""):format(path))
    finally(function() locked:signal("KILL") end)
    locked:await("locked")
    local done, message, errno = nfqueue.pcap.create(path)
    assert.are.same({ nil, "cannot write " .. path .. ": another program has locked it", EAGAIN },
      { done, message, errno })
  end)

  it("writes to a pipe", function()
    local path = unit.file([[
      local nfqueue = require("nfqueue")
      local writers = { assert(nfqueue.pcap.create("/dev/stdout")), assert(nfqueue.pcap.create("/dev/stdout")) }
      for _ = 1, 3 do
        for _, writer in ipairs(writers) do
          assert(writer:write(nfqueue.packet("E" .. ("x"):rep(19))))
        end
      end
    ]])
    local out = temporary()
    net.must(("%s %s | cat > %s"):format(net.lua, path, out))
    assert.are.equal(6, #read_all(out))
  end)

  it("refuses wrong arguments by name", function()
    local path = temporary()
    local CASES = {
      { nfqueue.pcap.create, {}, "bad argument 'path' to 'create' (string expected, got nothing)" },
      { nfqueue.pcap.create, { 7 }, "bad argument 'path' to 'create' (string expected, got 7)" },
      { nfqueue.pcap.create, { path .. "\0x" }, "bad argument 'path' to 'create' (it contains a zero byte)" },
      { nfqueue.pcap.create, { path, "raw" }, "bad argument 'options' to 'create' (table expected, got 'raw')" },
      { nfqueue.pcap.create, { path, { linktype = "ethernet" } },
        "bad argument 'linktype' to 'create' (\"nflog\" or \"raw\" expected, got 'ethernet')" },
      { nfqueue.pcap.create, { path, { linktype = 101 } },
        "bad argument 'linktype' to 'create' (\"nflog\" or \"raw\" expected, got 101)" },
      { nfqueue.pcap.create, { path, { append = 1 } },
        "bad argument 'append' to 'create' (boolean expected, got 1)" },
      { nfqueue.pcap.create, { path, { link = "raw" } },
        "unknown option 'link' to 'create' (known: linktype, append)" },
      { nfqueue.pcap.open, {}, "bad argument 'path' to 'open' (string expected, got nothing)" },
      { nfqueue.pcap.open, { path .. "\0x" }, "bad argument 'path' to 'open' (it contains a zero byte)" },
    }
    for _, case in ipairs(CASES) do
      assert.are.equal(case[3], unit.message(case[1], table.unpack(case[2])))
    end
    local writer = assert(nfqueue.pcap.create(path))
    local pkt = nfqueue.packet(UDP4)
    for _, case in ipairs({
      { {}, "bad argument 'pkt' to 'write' (packet expected, got nothing)" },
      { { UDP4 }, "bad argument 'pkt' to 'write' (packet expected, got '" },
      { { pkt, 7 }, "bad argument 'verdict' to 'write' (string expected, got 7)" },
      { { pkt, ("x"):rep(128) }, "bad argument 'verdict' to 'write' (at most 127 bytes, none of them zero)" },
      { { pkt, "a\0b" }, "bad argument 'verdict' to 'write' (at most 127 bytes, none of them zero)" },
    }) do
      local message = unit.message(writer.write, writer, table.unpack(case[1]))
      assert.are.equal(case[2], message:sub(1, #case[2]))
    end
    assert.are.equal(0, #read_all(path))
  end)
end)

describe("nfqueue.pcap.open", function()
  local MAC = "\2\0\0\0\0\1" .. "\2\0\0\0\0\2"
  local SLL = "\0\0\0\1\0\6\2\0\0\0\0\2\0\0"
  local ARP = "\0\1\8\0\6\4\0\1" .. ("\0"):rep(20)
  -- Link type as the file has it, what is in front of an IPv4 packet, and fields of the packet.
  local LINKS = {
    { "RAW", 101, "", {} },
    { "RAW, BSD's number", 12, "", {} },
    { "IPV4", 228, "", {} },
    { "NULL", 0, "\2\0\0\0", {} },
    { "LOOP", 108, "\0\0\0\2", {} },
    { "EN10MB", 1, MAC .. "\8\0", { hwaddr = "02:00:00:00:00:02", l2header = MAC .. "\8\0" } },
    { "EN10MB with a VLAN", 1, MAC .. "\x81\0\x20\7\8\0", { vlan = 7, l2header = MAC .. "\x81\0\x20\7\8\0" } },
    { "EN10MB with two", 1, MAC .. "\x88\xa8\0\x64\x81\0\0\7\8\0", { vlan = 100 } },
    { "LINUX_SLL", 113, SLL .. "\8\0", { hwaddr = "02:00:00:00:00:02", hook = "input" } },
    { "LINUX_SLL, outgoing", 113, "\0\4" .. SLL:sub(3) .. "\8\0", { hook = "output" } },
    { "LINUX_SLL2", 276, "\8\0\0\0\0\0\0\5\0\1\0\6\2\0\0\0\0\2\0\0", { iif = 5, hwaddr = "02:00:00:00:00:02" } },
    { "LINUX_SLL2, outgoing", 276, "\8\0\0\0\0\0\0\5\0\1\4\6\2\0\0\0\0\2\0\0", { oif = 5, hook = "output" } },
    { "PPP", 9, "\xff\3\0\x21", {} },
    { "PPP without address and control", 9, "\0\x21", {} },
    { "PPP_SERIAL", 50, "\xff\3\0\x21", {} },
  }
  for _, case in ipairs(LINKS) do
    it("reads " .. case[1], function()
      for _, order in ipairs({ "<", ">" }) do
        local path = unit.file(pcap(case[2], { case[3] .. UDP4, { case[3] .. UDP4:sub(1, 28), #case[3] + #UDP4 } },
          order))
        local list, reader = read_all(path)
        assert.are.same({ 2, 0 }, { #list, reader.skipped })
        local whole, cut = list[1].packet, list[2].packet
        assert.are.same({ UDP4, UDP4:sub(1, 28) }, { whole:bytes(), cut:bytes() })
        assert.are.same({ #UDP4, false, #UDP4, true }, { whole.length, whole.truncated, cut.length, cut.truncated })
        assert.are.same({ "ip", 0x0800, 1700000001.25 }, { whole.family, whole.ethertype, whole.timestamp })
        for field, value in pairs(case[4]) do
          assert.are.equal(value, whole[field], field)
        end
      end
    end)
  end

  it("reads IPv6 of every link type that has it", function()
    for _, case in ipairs({
      { 101, "" }, { 229, "" }, { 0, "\10\0\0\0" }, { 0, "\30\0\0\0" }, { 108, "\0\0\0\24" }, { 1, MAC .. "\x86\xdd" },
      { 113, SLL .. "\x86\xdd" }, { 276, "\x86\xdd\0\0\0\0\0\5\0\1\0\6\2\0\0\0\0\2\0\0" }, { 9, "\xff\3\0\x57" },
    }) do
      local list = read_all(unit.file(pcap(case[1], { case[2] .. UDP6 })))
      assert.are.same({ 1, "ip6", 0x86dd, UDP6 },
        { #list, list[1].packet.family, list[1].packet.ethertype, list[1].packet:bytes() })
    end
  end)

  it("passes over what is no IP packet, and counts it", function()
    for _, case in ipairs({
      { 1, { MAC .. "\8\6" .. ARP, MAC, MAC .. "\x81\0\0\7\8\6" .. ARP, MAC .. "\x81\0\0", "" } },
      { 113, { SLL .. "\8\6" .. ARP, SLL } },
      { 276, { "\8\6" .. ("\0"):rep(18) .. ARP, "\8\0" } },
      { 101, { ARP, "" } },
      { 0, { "\2\0\0\0" .. ARP, "\2" } },
      { 9, { "\xff\3\xc0\x21\1", "\xff\3", "\xff" } },
      { 239, { "", "\2\1\0\0", "\2\0\0", "\2\0\0\0", "\2\0\0\0\3\0\1\0", "\2\0\0\0\12\0\1\0\8\0" } },
    }) do
      local records = table.move(case[2], 1, #case[2], 1, {})
      local last = case[1] == 239 and "\2\0\0\0" .. string.pack("<I2I2", 4 + #UDP4, 9) .. UDP4
        or ({ [1] = MAC .. "\8\0", [113] = SLL .. "\8\0", [276] = "\8\0" .. ("\0"):rep(18), [101] = "",
          [0] = "\2\0\0\0", [9] = "\0\x21" })[case[1]] .. UDP4
      records[#records + 1] = last
      local list, reader = read_all(unit.file(pcap(case[1], records)))
      assert.are.same({ 1, #case[2] }, { #list, reader.skipped }, case[1])
      assert.are.equal(UDP4, list[1].packet:bytes())
    end
  end)

  it("reads what the kernel's NFLOG logs, from machines of both byte orders", function()
    for _, order in ipairs({ "<", ">" }) do
      local function tlv(kind, value)
        return string.pack(order .. "I2I2", 4 + #value, kind) .. value .. ("\0"):rep(-#value % 4)
      end
      local record = "\2\0\0\5" .. tlv(1, "\8\0\1\0") .. tlv(10, "ssh\0") .. tlv(4, "\0\0\0\2")
        .. tlv(8, "\0\6\0\0\2\0\0\0\0\2\0\0") .. tlv(15, "\0\1") .. tlv(16, MAC .. "\8\0") .. tlv(17, "\0\14")
        .. tlv(3, ("\0"):rep(16)) .. tlv(9, UDP4)
      local list = read_all(unit.file(pcap(239, { record, { record:sub(1, -11), #record } }, order)))
      local pkt = list[1].packet
      assert.are.same({ "ssh", UDP4, 2, "02:00:00:00:00:02", "input", false },
        { list[1].prefix, pkt:bytes(), pkt.iif, pkt.hwaddr, pkt.hook, pkt.truncated })
      pkt = list[2].packet
      assert.are.same({ UDP4:sub(1, -8), #UDP4, true }, { pkt:bytes(), pkt.length, pkt.truncated })
    end
  end)

  it("reads pcapng, and times in nanoseconds", function()
    local function block(kind, body)
      body = body .. ("\0"):rep(-#body % 4)
      return string.pack("<I4I4", kind, 12 + #body) .. body .. string.pack("<I4", 12 + #body)
    end
    local text = block(0x0a0d0d0a, string.pack("<I4I2I2i8", 0x1a2b3c4d, 1, 0, -1))
      .. block(1, string.pack("<I2I2I4", 101, 0, 262144))
      .. block(6, string.pack("<I4I4I4I4I4", 0, 1500000 >> 32, 1500000, #UDP4, #UDP4) .. UDP4)
    local list = read_all(unit.file(text))
    assert.are.same({ 1, UDP4, 1.5 }, { #list, list[1].packet:bytes(), list[1].packet.timestamp })
    list = read_all(unit.file(pcap(101, { UDP4 }, "<", 0xa1b23c4d)))
    assert.are.equal(1700000001.00025, list[1].packet.timestamp)
  end)

  it("gives packets that a handler judges, as those of nfqueue.packet", function()
    local handler = assert(nfqueue.load(unit.file("return function(pkt) pkt.udp.dport = 54; pkt:accept() end")))
    local pkt = read_all(unit.file(pcap(1, { MAC .. "\8\0" .. UDP4 .. ("\0"):rep(13) })))[1].packet
    assert.are.equal("hello", pkt.payload)
    assert.are.equal("accept", (handler(pkt)))
    assert.are.equal(54, nfqueue.packet(pkt.sent).udp.dport)
    assert.are.equal(#UDP4, #pkt.sent) -- no padding leaves
    pkt = read_all(unit.file(pcap(1, { MAC .. "\8\0" .. UDP4 })))[1].packet
    pkt.payload = "a longer payload"
    collectgarbage()
    pkt:accept()
    assert.are.equal("a longer payload", nfqueue.packet(pkt.sent).payload)
    assert.are.equal(MAC .. "\8\0", pkt.l2header)
  end)

  it("cuts what is longer than a packet of a queue", function()
    local pkt = read_all(unit.file(pcap(101, { "E" .. ("x"):rep(69999) })))[1].packet
    assert.are.same({ 65531, 70000, true }, { #pkt, pkt.length, pkt.truncated })
  end)

  it("tells what is wrong with a file", function()
    local done, message, errno = nfqueue.pcap.open("/nowhere/x.pcap")
    assert.are.same({ nil, "cannot read /nowhere/x.pcap: No such file or directory", ENOENT },
      { done, message, errno })
    done, message, errno = nfqueue.pcap.open("/tmp")
    assert.are.same({ nil, "cannot read /tmp: Is a directory", EISDIR }, { done, message, errno })
    for _, case in ipairs({
      { "", "truncated dump file; tried to read 4 file header bytes, only got 0" },
      { "no capture at all, but long enough", "unknown file format" },
      { pcap(101, {}):sub(1, 20), "truncated dump file; tried to read 24 file header bytes, only got 16" },
      { pcap(105, {}), "link type 105 (IEEE802_11) is not supported" },
    }) do
      local path = unit.file(case[1])
      done, message, errno = nfqueue.pcap.open(path)
      assert.are.same({ nil, ("cannot read %s: %s"):format(path, case[2]), EINVAL }, { done, message, errno })
    end
  end)

  it("stops where a file is damaged, and says so", function()
    local whole = pcap(101, { UDP4, UDP4 })
    local path = unit.file(whole:sub(1, -2))
    local MESSAGE = ("cannot read %s: truncated dump file; tried to read %d captured bytes, only got %d")
      :format(path, #UDP4, #UDP4 - 1)
    local reader = assert(nfqueue.pcap.open(path))
    assert.are.equal(UDP4, reader:read():bytes())
    local done, message, errno = reader:read()
    assert.are.same({ nil, MESSAGE, EINVAL }, { done, message, errno })
    assert.is_nil(reader:read())
    local read = 0
    message = unit.message(function()
      for _ in assert(nfqueue.pcap.open(path)) do
        read = read + 1
      end
    end)
    assert.are.same({ 1, MESSAGE }, { read, message })
    -- A length that no record has.
    path = unit.file(whole:sub(1, 24) .. string.pack("<I4I4I4I4", 1, 0, 0x7fffffff, 0x7fffffff))
    done, message, errno = assert(nfqueue.pcap.open(path)):read()
    assert.are.same({ nil, EINVAL }, { done, errno })
    assert.matches("^cannot read " .. path .. ": invalid packet capture length 2147483647", message)
  end)
end)

-- A sanitizer keeps what was freed for a while.
local measured = os.getenv("NFQUEUE_SANITIZE") and pending or it
measured("readers and writers that are gone take no memory", function()
  local path = temporary()
  local grown = unit.growth(2000, function()
    local writer <close> = assert(nfqueue.pcap.create(path))
    writer:write(nfqueue.packet(UDP4))
    nfqueue.pcap.create(path, { linktype = "raw" })
    nfqueue.pcap.create("/nowhere/x")
    local reader <close> = assert(nfqueue.pcap.open(path))
    assert(reader:read() and not reader:read())
    nfqueue.pcap.open("/nowhere")
  end)
  assert.is_true(grown < 1024, grown)
end)

describe("readers and writers", function()
  it("are closed once, by close, a to-be-closed variable and the collector", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    assert.are.equal("writer", tostring(writer))
    writer:close()
    writer:close()
    assert.are.equal("writer (closed)", tostring(writer))
    assert.are.equal("writer is closed", unit.message(writer.write, writer, nfqueue.packet(UDP4)))
    local reader = assert(nfqueue.pcap.open(path))
    assert.are.equal("reader", tostring(reader))
    assert.is_nil(reader:read())
    assert.is_nil(reader())
    reader:close()
    reader:close()
    assert.are.equal("reader (closed)", tostring(reader))
    for _, call in ipairs({ reader.read, function(r) return r() end, function(r) return r.skipped end,
      function(r) return r.linktype end }) do
      assert.are.equal("reader is closed", unit.message(call, reader))
    end
    local function open_files()
      return select(2, net.must("ls -l /proc/" .. net.read("/proc/self/stat"):match("%d+") .. "/fd"):gsub(path, ""))
    end
    local before = open_files()
    do
      local w <close> = assert(nfqueue.pcap.create(path))
      local r <close> = assert(nfqueue.pcap.open(path))
      assert.is_true(w:write(nfqueue.packet(UDP4)))
      assert.is_userdata(r:read())
      assert.are.equal(before + 2, open_files())
      nfqueue.pcap.create(path)
      nfqueue.pcap.open(path)
    end
    collectgarbage()
    collectgarbage()
    assert.are.equal(before, open_files())
  end)

  it("are told from other values", function()
    local path = temporary()
    local writer = assert(nfqueue.pcap.create(path))
    local reader = assert(nfqueue.pcap.open(path))
    for _, foreign in ipairs(unit.foreigners()) do
      for name, call in pairs({ write = writer.write, close = writer.close }) do
        assert.matches("^bad argument 'self' to '" .. name .. "' %(writer expected, got ",
          unit.message(call, foreign.value))
      end
      for name, call in pairs({ read = reader.read, close = reader.close }) do
        assert.matches("^bad argument 'self' to '" .. name .. "' %(reader expected, got ",
          unit.message(call, foreign.value))
      end
    end
    assert.matches("writer expected, got userdata", unit.message(writer.write, reader), 1, true)
    assert.are.equal("reader has no field 'next'", unit.message(function() return reader.next end))
    assert.are.equal("writer has no field '1'", unit.message(function() return writer[1] end))
    assert.are.same({ "nfqueue.reader", "nfqueue.writer" }, { getmetatable(reader), getmetatable(writer) })
  end)

  it("of one program are not inherited by what it starts", function()
    local path = temporary()
    local writer <close> = assert(nfqueue.pcap.create(path))
    local reader <close> = assert(nfqueue.pcap.open(path))
    assert.is_nil(net.must("ls -l /proc/self/fd"):find(path, 1, true))
    assert.is_truthy(writer and reader)
  end)
end)
