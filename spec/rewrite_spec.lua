-- nfqueue.rewrite: what it is made with, what it refuses, and its table of connections.

local datagram = require("support.datagram")
local nfqueue = require("nfqueue")
local rewriting = require("support.rewriting")
local segments = require("support.segments")
local unit = require("support.unit")

local right = datagram.right
local tcp, udp, raw = datagram.tcp, datagram.udp, datagram.raw
local ip4, ip6 = datagram.ip4, datagram.ip6

local TCP4 = right(ip4(tcp("question")))

describe("nfqueue.rewrite", function()
  it("names a wrong option", function()
    local timeout = "bad argument 'timeout' to 'rewrite' (seconds, more than 0 and at most 1e9, expected, got %s)"
    local max = "bad argument 'max' to 'rewrite' (integer from 1 to 1048576 expected, got %s)"
    for _, case in ipairs({
      { { max = 0 }, max:format("0") }, { { max = 1048577 }, max:format("1048577") },
      { { max = "10" }, max:format("'10'") }, { { max = 1.5 }, max:format("1.5") },
      { { timeout = 0 }, timeout:format("0") }, { { timeout = -1 }, timeout:format("-1") },
      { { timeout = 0 / 0 }, timeout:format(tostring(0 / 0)) }, { { timeout = 2e9 }, timeout:format("2000000000.0") },
      { { timeout = "1" }, timeout:format("'1'") },
      { { wait = 1 }, "bad argument 'wait' to 'rewrite' (boolean expected, got 1)" },
      { { size = 1 }, "unknown key 'size' to 'rewrite' (known: max, timeout, wait)" },
      { { 1 }, "unknown key '1' to 'rewrite' (known: max, timeout, wait)" },
      { 5, "bad argument 'options' to 'rewrite' (table expected, got 5)" },
    }) do
      assert.are.equal(case[2], unit.message(nfqueue.rewrite, case[1]))
    end
  end)

  it("needs no option", function()
    for _, options in ipairs({ {}, { max = 1 }, { max = 1048576, timeout = 1e9 }, { timeout = 0.5 }, { wait = true },
      { wait = false } }) do
      assert.are.equal("rewrite", tostring(nfqueue.rewrite(options)))
    end
    assert.are.equal("rewrite", tostring(nfqueue.rewrite()))
  end)

  it("makes an object whose names are checked", function()
    local rw = nfqueue.rewrite({ max = 4 })
    assert.are.equal("rewrite has no field 'stat'", unit.message(function() return rw.stat end))
    assert.are.equal("nfqueue.rewrite", getmetatable(rw))
    for _, foreigner in ipairs(unit.foreigners()) do
      assert.is_truthy(unit.message(rw.stats, foreigner.value):find("bad argument 'self' to 'stats' (rewrite expected",
        1, true))
    end
  end)

  it("counts from 0", function()
    assert.are.same({ connections = 0, kept = 0, edits = 0, retransmitted = 0, out_of_order = 0, no_room = 0,
      damaged = 0, cut = 0, evicted = 0, expired = 0 }, nfqueue.rewrite({ max = 4 }):stats())
  end)
end)

describe("a rewriter refuses", function()
  local rw = nfqueue.rewrite({ max = 4 })
  local SIGNED, AUTHENTICATED = "\19\18" .. ("m"):rep(16) .. "\1\1", "\29\4ab"
  local MULTIPATH = "\30\4\2\0"
  local is_signed = "it is signed (TCP MD5 or TCP-AO)"
  local multipath = "it belongs to a Multipath TCP connection, which numbers its data itself"

  for _, case in ipairs({ -- what, bytes, content, reason
    { "UDP", right(ip4(udp("x"))), "y", "it has no TCP header" },
    { "ICMP", right(ip4(datagram.icmp("x"))), nil, "it has no TCP header" },
    { "a TCP header cut short", right(ip4(raw(6, ("\0"):rep(19)))), nil, "it has no TCP header" },
    { "what is not IP", "question", nil, "it has no TCP header" },
    { "nothing", "", nil, "it has no TCP header" },
    { "a first fragment", right(ip4(tcp("x"), { fragment = 0x2000 })), nil,
      "it is a fragment: the rest of its segment is elsewhere" },
    { "a later fragment", right(ip4(raw(6, "x"), { fragment = 1 })), nil,
      "it is a fragment: the rest of its segment is elsewhere" },
    { "an IPv6 fragment", right(ip6(tcp("x"), { chain = { { 44, "\0\0\1\0\0\0\1" } } })), nil,
      "it is a fragment: the rest of its segment is elsewhere" },
    { "more content than it keeps", TCP4, ("x"):rep(1048577), "the new content is longer than 1048576 bytes" },
    { "content where there is no data", right(ip4(tcp(""))), "x", "it carries no data that could be replaced" },
    { "another content of a signed segment", right(ip4(tcp("x", SIGNED))), "y", is_signed },
    { "another content of an authenticated segment", right(ip4(tcp("x", AUTHENTICATED))), "y", is_signed },
    { "another content of Multipath TCP", right(ip6(tcp("x", MULTIPATH))), "y", multipath },
  }) do
    local what, bytes, content, reason = table.unpack(case, 1, 4)
    it(what, function()
      local pkt = nfqueue.packet(bytes)
      assert.are.equal("cannot edit this packet: " .. reason, unit.message(rw, pkt, content))
      assert.are.equal(bytes, pkt:bytes())
      pkt:accept()
      assert.are.equal(bytes, pkt.sent)
      assert.are.equal(0, rw:stats().connections)
    end)
  end

  it("truncated packets", function()
    local pkt = nfqueue.packet(TCP4, { length = 100 })
    assert.are.equal("cannot edit this packet: the kernel copied only part of it (raise copy_range)",
      unit.message(rw, pkt, "x"))
  end)

  it("a connection of an address and port with itself", function()
    local bytes = TCP4:sub(1, 12) .. TCP4:sub(13, 16):rep(2) .. TCP4:sub(21, 22):rep(2) .. TCP4:sub(25)
    assert.are.equal("cannot edit this packet: both its ends are the same",
      unit.message(rw, nfqueue.packet(bytes), "x"))
  end)

  it("a second time", function()
    local own = nfqueue.rewrite({ max = 4 })
    local pkt = nfqueue.packet(TCP4)
    assert.is_true(own(pkt, "answer"))
    assert.are.equal("cannot edit this packet: it has been rewritten already", unit.message(own, pkt))
  end)

  it("packets with a verdict, and what is no packet", function()
    local pkt = nfqueue.packet(TCP4)
    pkt:drop()
    assert.are.equal("packet already has a verdict", unit.message(rw, pkt))
    for _, foreigner in ipairs(unit.foreigners()) do
      assert.is_truthy(unit.message(rw, foreigner.value):find("bad argument 'pkt' to 'rewrite' (packet expected, got ",
        1, true), foreigner.name)
    end
    assert.are.equal("bad argument 'payload' to 'rewrite' (string expected, got 5)",
      unit.message(rw, nfqueue.packet(TCP4), 5))
  end)

  it("but takes signed and multipath segments that stay, and leaves them as they are", function()
    for _, options in ipairs({ SIGNED, AUTHENTICATED, MULTIPATH }) do
      local bytes = right(ip4(tcp("x", options)))
      local pkt = nfqueue.packet(bytes)
      assert.is_true(rw(pkt, "x"))
      pkt:accept()
      assert.are.equal(bytes, pkt.sent)
    end
  end)
end)

describe("a connection", function()
  it("that is not followed passes as it is, and is not in the table", function()
    local rw = nfqueue.rewrite({ max = 4 })
    local line = segments.new(rw)
    for _, facts in ipairs({ {}, { flags = "FA" }, { flags = "RA" }, { flags = "R" }, { sack = { { 5, 9 } } } }) do
      local went = line:send(1, 100, "data", facts)
      assert.are.equal(line:bytes(1, 100, "data", facts), went.bytes)
      assert.is_true(went.fine)
    end
    assert.are.equal(0, rw:stats().connections)
  end)

  it("that is in the middle is followed from its first edit on", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    line:send(2, 5000, "unedited")
    local went = line:send(2, 6000, "answer", { content = "longer answer" })
    assert.are.same({ 6000, "longer answer", true }, { went.at, went.payload, went.fine })
    assert.are.equal(1, line.rw:stats().connections)
    assert.are.equal(6013, line:send(2, 6006, "next").at)
    assert.are.equal(5000, line:send(2, 5000, "unedited").at)
    assert.are.equal("longer answer", line:send(2, 6000, "answer").payload)
    assert.are.equal(6006, line:send(1, 700, "", { ack = 6013 }).ack)
    -- The other direction is as it was, and may be edited later.
    went = line:send(1, 700, "request", { ack = 6013 })
    assert.are.same({ 700, "request", true, 6006 }, { went.at, went.payload, went.fine, went.ack })
    assert.are.equal("r", line:send(1, 707, "request", { content = "r" }).payload)
    assert.are.equal(708, line:send(1, 714, "x").at)
    assert.are.equal(714, line:send(2, 6010, "", { ack = 708 }).ack)
  end)

  it("is found in both directions, and no other is", function()
    local rw = nfqueue.rewrite({ max = 100 })
    for version = 4, 6, 2 do
      for port = 1, 20 do
        local line = segments.new(rw, { version = version, ports = { port, 80 } }):open()
        line:send(1, 0, "request", { content = ("x"):rep(port) })
      end
    end
    assert.are.equal(40, rw:stats().connections)
    for version = 4, 6, 2 do
      for port = 1, 20 do
        local line = segments.new(rw, { version = version, ports = { port, 80 } })
        assert.are.equal(7, line:send(2, 0, "", { ack = port }).ack)
        line = segments.new(rw, { version = version, ports = { 80, port } }) -- the ports the other way round
        assert.are.equal(port, line:send(2, 0, "", { ack = port }).ack)
      end
    end
  end)

  it("goes when the table is full: first closed ones, then plain ones, the silent first", function()
    local rw = nfqueue.rewrite({ max = 3 })
    local lines = {}
    local function edited(port)
      lines[port] = segments.new(rw, { ports = { port, 80 } }):open()
      lines[port]:send(1, 0, "request", { content = "rq" })
    end
    local function is_followed(port)
      return lines[port]:send(2, 0, "", { ack = 2 }).ack == 7
    end
    edited(1)
    edited(2)
    for port = 10, 100 do -- a flood of connections that nobody edits
      segments.new(rw, { ports = { port, 80 } }):open()
    end
    assert.are.same({ 3, 90 }, { rw:stats().connections, rw:stats().evicted })
    assert.is_true(is_followed(2) and is_followed(1))
    edited(3)
    edited(4) -- 2 has been silent longest
    assert.is_true(is_followed(1))
    assert.is_false(is_followed(2))
    lines[4]:send(1, 7, "", { flags = "R" })
    edited(5)
    assert.is_false(is_followed(4))
    assert.is_true(is_followed(1) and is_followed(3) and is_followed(5))
    assert.are.equal(3, rw:stats().connections)
  end)

  it("takes what is kept with it when it goes", function()
    local rw = nfqueue.rewrite({ max = 1 })
    for port = 1, 50 do
      local line = segments.new(rw, { ports = { port, 80 } }):open()
      line:send(1, 0, ("x"):rep(1000), { content = ("y"):rep(1200) })
      assert.are.equal(1280, rw:stats().kept)
    end
  end)

  it("is forgotten when it has been silent too long", function()
    local rw = nfqueue.rewrite({ max = 10, timeout = 0.05 })
    local line = segments.new(rw):open()
    line:send(1, 0, "request", { content = "rq" })
    local deadline = os.time() + 30
    while rw:stats().connections > 0 and os.time() < deadline do
      rw:stats()
    end
    local stats = rw:stats()
    assert.are.same({ 0, 1, 0 }, { stats.connections, stats.expired, stats.kept })
    assert.are.equal(7, line:send(1, 7, "more").at)
  end)

  it("that is not silent stays while others go", function()
    local function first_gone()
      local rw = nfqueue.rewrite({ max = 10, timeout = 0.1 })
      local silent = segments.new(rw, { ports = { 1, 80 } }):open()
      local other = segments.new(rw, { ports = { 2, 80 } }):open()
      silent:send(1, 0, "request", { content = "rq" })
      other:send(1, 0, "request", { content = "rq" })
      local left
      repeat
        other:send(1, 7, "")
        left = rw:stats().connections
      until left < 2
      return left
    end
    local left = 0
    for _ = 1, 20 do -- both are gone when the machine stood still in between
      left = math.max(left, first_gone())
      if left == 1 then
        break
      end
    end
    assert.are.equal(1, left)
  end)

  it("that expired is not found, either, when nobody asked for the counts", function()
    local rw = nfqueue.rewrite({ max = 10, timeout = 0.02 })
    local line = segments.new(rw):open()
    line:send(1, 0, "request", { content = "rq" })
    local started, waited = os.clock(), false
    while not waited do -- the clock of the table moves at least as fast
      waited = os.clock() - started > 0.1
    end
    assert.are.equal(7, line:send(1, 7, "more").at)
  end)

  it("on a source route is found by its last stop", function()
    local rw = nfqueue.rewrite({ max = 4 })
    local final = "\10\9\8\7"
    local line = segments.new(rw):open()
    line:send(1, 0, "request", { content = "rq" })
    -- The same from end 1 on its way to a stop before the last.
    for i, kind in ipairs({ "\131", "\137" }) do
      local plain = line:bytes(1, 3 + 4 * i, "more")
      local route = kind .. "\11\4" .. "\10\0\0\1" .. final .. "\0"
      local header = "\x48\0" .. string.pack(">I2", #plain + 12) .. plain:sub(5, 16)
      local pkt = nfqueue.packet(header .. "\10\0\0\9" .. route .. plain:sub(21))
      assert.is_true(rw(pkt))
      pkt:accept()
      assert.are.equal(4 * i - 2, (string.unpack(">I4", pkt.sent, 32 + 5) - line.iss[1] - 1) & 0xffffffff)
    end
  end)

  it("on an IPv6 source route is found by its last stop", function()
    local rw = nfqueue.rewrite({ max = 4 })
    local line = segments.new(rw, { version = 6 }):open()
    line:send(1, 0, "request", { content = "rq" })
    local plain = line:bytes(1, 7, "more")
    local segment_route = "\6\2\4\1\0\0\0\0" .. plain:sub(25, 40)
    local bytes = plain:sub(1, 4) .. string.pack(">I2", #plain - 40 + 24) .. "\43" .. plain:sub(8, 24)
      .. ("\x20\x03"):rep(8) .. segment_route .. plain:sub(41)
    local pkt = nfqueue.packet(bytes)
    assert.is_true(rw(pkt))
    pkt:accept()
    assert.are.equal(2, (string.unpack(">I4", pkt.sent, 64 + 5) - line.iss[1] - 1) & 0xffffffff)
  end)
end)

describe("what leaves a rewriter", function()
  it("is complete, whichever way it leaves", function()
    for version = 4, 6, 2 do
      local line = segments.new(nfqueue.rewrite({ max = 4 }), { version = version }):open()
      for i, verb in ipairs({ "accept", "again", "requeue" }) do
        local pkt = nfqueue.packet(line:bytes(2, 6 * i - 6, "answer"))
        assert.is_true(line.rw(pkt, "a longer answer"))
        pkt[verb](pkt, verb == "requeue" and 1 or nil)
        local same = nfqueue.packet(pkt.sent)
        same:modify(pkt.sent) -- completed anew
        assert.are.equal(same.sent, pkt.sent)
        assert.are.equal("a longer answer", rewriting.read(pkt.sent).payload)
      end
    end
  end)

  it("can be read and edited further", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 })):open()
    line:send(2, 0, "answer", { content = "a longer answer" })
    local pkt = nfqueue.packet(line:bytes(2, 6, "answer"))
    line.rw(pkt, "no")
    assert.are.same({ "no", (line.iss[2] + 16) & 0xffffffff }, { pkt.payload, pkt.tcp.seq })
    pkt:u8(8, 3)
    pkt:accept()
    assert.are.equal(3, pkt.sent:byte(9))
  end)

  it("of a handler that fails afterwards is what came", function()
    local path = unit.file([[
      local nfqueue = require("nfqueue")
      local rw = nfqueue.rewrite()
      return { packet = function(pkt) rw(pkt, "other content") error("no") end, config = { on_error = "accept" } }
    ]])
    local handler = assert(nfqueue.load(path))
    local pkt = nfqueue.packet(TCP4)
    assert.are.equal("accept", handler(pkt))
    assert.are.equal(TCP4, pkt.sent)
    unit.cleanup()
  end)
end)
