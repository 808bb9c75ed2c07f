-- tcpdump expressions, as objects and as a configuration's filter, without a kernel.

local datagram = require("support.datagram")
local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local right = datagram.right
local TCP4, TCP6 = right(datagram.ip4(datagram.tcp("hello"))), right(datagram.ip6(datagram.tcp("hello")))
local UDP4, UDP6 = right(datagram.ip4(datagram.udp("hello"))), right(datagram.ip6(datagram.udp("hello")))
local ICMP4, ICMP6 = right(datagram.ip4(datagram.icmp("hello"))), right(datagram.ip6(datagram.icmp6("hello")))
local LATER = right(datagram.ip4(datagram.raw(17, ("x"):rep(8)), { fragment = 3 }))
local CHAIN = right(datagram.ip6(datagram.udp("hello"), { chain = { { 60, "\0\1\4\0\0\0\0" } } }))

after_each(unit.cleanup)

describe("nfqueue.filter", function()
  -- TCP4 TCP6 UDP4 UDP6 ICMP4 ICMP6 LATER CHAIN
  local PACKETS = { TCP4, TCP6, UDP4, UDP6, ICMP4, ICMP6, LATER, CHAIN }
  local CASES = {
    { "", "11111111" },
    { "ip", "10101010" },
    { "ip6", "01010101" },
    { "tcp", "11000000" },
    { "udp", "00110010" },
    { "udp port 53", "00110000" },
    { "port 80 or port 53", "11110000" },
    { "icmp or icmp6", "00001100" },
    { "host 192.0.2.1", "10101010" },
    { "src host 192.0.2.1 and not tcp", "00101010" },
    { "dst net 198.51.100.0/24", "10101010" },
    { "net 2001:db8::/32", "01010101" },
    { "tcp[13] & 8 != 0", "10000000" }, -- never IPv6
    { "ip6[40+13] & 8 != 0 and ip6 proto 6", "01000000" },
    { "ip[6:2] & 0x1fff != 0", "00000010" },
    { "ip6 protochain 17", "00010001" },
    { "len = 33", "00101000" },
    { "greater 46", "01010101" },
    { "udp[8:4] = 0x68656c6c", "00100000" },
  }
  for _, case in ipairs(CASES) do
    it(("matches as tcpdump does: %q"):format(case[1]), function()
      local filter = nfqueue.filter(case[1])
      local found = ""
      for _, bytes in ipairs(PACKETS) do
        local match = filter(nfqueue.packet(bytes))
        assert.are.equal("boolean", type(match))
        assert.are.equal(match, filter(bytes))
        found = found .. (match and 1 or 0)
      end
      assert.are.equal(case[2], found)
      assert.are.equal("filter: " .. case[1], tostring(filter))
    end)
  end

  it("takes the length on the wire, and matches nothing in what was not copied", function()
    local cut = nfqueue.packet(UDP4:sub(1, 20), { length = 1000 })
    assert.is_true(nfqueue.filter("len = 1000")(cut))
    assert.is_true(nfqueue.filter("udp")(cut))
    assert.is_false(nfqueue.filter("udp port 53")(cut))
    assert.is_false(nfqueue.filter("not udp port 53")(cut))
    assert.is_false(nfqueue.filter("ip")(nfqueue.packet("", { length = 1000 })))
    assert.is_true(nfqueue.filter("len = 1000")(nfqueue.packet("", { length = 1000 })))
    assert.is_false(nfqueue.filter("ip")(""))
  end)

  it("sees a packet as it is now", function()
    local filter = nfqueue.filter("dst port 53")
    local pkt = nfqueue.packet(UDP4)
    assert.is_true(filter(pkt))
    pkt.udp.dport = 54
    assert.is_false(filter(pkt))
    pkt:drop()
    assert.is_false(filter(pkt))
  end)

  it("shows libpcap's message for what it does not take", function()
    for expression, text in pairs({
      ["tcp and and"] = "can't parse filter expression: syntax error",
      ["port 65536"] = "illegal port number 65536 > 65535",
      ["host 300.1.1.1"] = "invalid IPv4 address '300.1.1.1'",
      ["ether proto 0x88cc and host"] = "can't parse filter expression: syntax error",
    }) do
      local message = unit.message(nfqueue.filter, expression)
      assert.are.equal(("bad argument 'expression' to 'filter' (%s)"):format(text), message)
    end
    assert.matches("^bad argument 'expression' to 'filter' %(ethernet addresses supported only on ethernet",
      unit.message(nfqueue.filter, "ether host 00:11:22:33:44:55"))
  end)

  it("refuses what is no expression", function()
    for _, case in ipairs({ { nil, "got nothing" }, { 53, "got 53" }, { {}, "got table" } }) do
      assert.are.equal("bad argument 'expression' to 'filter' (string expected, " .. case[2] .. ")",
        unit.message(nfqueue.filter, case[1]))
    end
    assert.are.equal("bad argument 'expression' to 'filter' (it contains a zero byte)",
      unit.message(nfqueue.filter, "tcp\0udp"))
  end)

  it("is asked about packets only", function()
    local filter = nfqueue.filter("tcp")
    assert.are.equal("bad argument 'pkt' to 'filter' (packet or string expected, got nothing)", unit.message(filter))
    for _, foreign in ipairs(unit.foreigners()) do
      if foreign.type ~= "string" then
        assert.matches("^bad argument 'pkt' to 'filter' %(packet or string expected, got ",
          unit.message(filter, foreign.value))
        local call = getmetatable(io.stdout) and debug.getmetatable(filter).__call
        assert.matches("^bad argument 'self' to 'filter' %(filter expected, got ", unit.message(call, foreign.value))
      end
    end
    assert.are.equal("nfqueue.filter", getmetatable(filter))
  end)
end)

-- A sanitizer keeps what was freed for a while.
local measured = os.getenv("NFQUEUE_SANITIZE") and pending or it
measured("filters that are gone take no memory", function()
  local grown = unit.growth(3000, function(i)
    assert(nfqueue.filter("udp port 53 or host 192.0.2." .. i % 256)(UDP4))
    pcall(nfqueue.filter, "tcp and and")
  end)
  assert.is_true(grown < 512, grown)
end)

describe("the configuration's filter", function()
  local SCRIPT = [[return {
    config = { filter = "udp port 53" },
    packet = function(pkt) pkt:drop() end,
  }]]

  it("keeps what does not match from the script, and accepts it", function()
    local handler = assert(nfqueue.load(unit.file(SCRIPT)))
    assert.are.equal("udp port 53", handler.config.filter)
    assert.are.equal("drop", (handler(nfqueue.packet(UDP4))))
    assert.are.equal("drop", (handler(nfqueue.packet(UDP6))))
    local pkt = nfqueue.packet(TCP4)
    assert.are.equal("accept", (handler(pkt)))
    assert.are.equal(TCP4, pkt.sent)
  end)

  it("is none by default, and the call's wins over the script's", function()
    assert.is_nil(nfqueue.new(1, print).config.filter)
    local handler = assert(nfqueue.load(unit.file(SCRIPT), nil, { filter = "tcp" }))
    assert.are.equal("tcp", handler.config.filter)
    assert.are.equal("accept", (handler(nfqueue.packet(UDP4))))
    assert.are.equal("drop", (handler(nfqueue.packet(TCP4))))
  end)

  it("that libpcap does not take is refused by name", function()
    for name, call in pairs({
      new = function() nfqueue.new(1, print, { filter = "port" }) end,
      load = function() nfqueue.load(unit.file(SCRIPT), nil, { filter = "port" }) end,
      run = function() nfqueue.run({ script = "x", queues = 1, config = { filter = "port" } }) end,
    }) do
      assert.are.equal(("bad argument 'filter' to '%s' (can't parse filter expression: syntax error)"):format(name),
        unit.message(call))
    end
    assert.are.equal("bad argument 'filter' to 'new' (string expected, got true)",
      unit.message(nfqueue.new, 1, print, { filter = true }))
    local path = unit.file("return { packet = print, config = { filter = 'port' } }")
    local handler, message, errno = nfqueue.load(path)
    assert.are.same({ nil, path .. ": bad argument 'filter' to 'script' (can't parse filter expression: syntax error)",
      22 }, { handler, message, errno })
  end)

  it("is an option of the command", function()
    local output = net.must(("%s check %s --filter 'icmp or icmp6'"):format(net.command, unit.file(SCRIPT)))
    for line in output:gmatch("[^\n]+") do
      local name, verdict = line:match("^(%S.-)  +(%a+)$")
      assert.are.equal(name:find("ICMP") and "drop" or "accept", verdict, line)
    end
  end)
end)
