-- The handle matrix without a kernel: every method and property on live and decided packets and on what is none.
-- Handles that outlived their handler exist with real queues only: see spec/kernel/.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local message = unit.message
local UDP = datagram.right(datagram.ip4(datagram.udp("question")))

-- Every method with arguments that pass, and whether it changes the packet.
local METHODS = {
  { "accept", {}, changes = true }, { "drop", {}, changes = true }, { "modify", { UDP }, changes = true },
  { "again", {}, changes = true }, { "requeue", { 1 }, changes = true },
  { "reject", {}, changes = true }, { "delay", { 1 }, changes = true },
  { "u8", { 0 } }, { "u16", { 0 } }, { "u24", { 0 } }, { "u32", { 0 } },
  { "u8", { 8, 1 }, changes = true }, { "u16", { 28, 1 }, changes = true }, { "u24", { 28, 1 }, changes = true },
  { "u32", { 28, 1 }, changes = true }, { "patch", { 28, "Q" }, changes = true },
  { "bytes", {} }, { "unpack", { ">I2" } }, { "find", { "question" } },
}
local PROPERTIES = {
  "id", "family", "hook", "ethertype", "timestamp", "verdict", "length", "truncated", "gso", "mark", "priority",
  "iif", "oif", "physiif", "physoif", "iifname", "oifname", "physiifname", "physoifname", "hwaddr", "vlan",
  "l2header", "uid", "gid", "secctx", "cgroup", "sent", "answer",
}
local ASSIGNABLE = { mark = true, priority = true }
local DECISIONS = {
  { "accept" }, { "drop" }, { "modify", UDP }, { "again" }, { "requeue", 1 }, { "reject" }, { "delay", 1 },
}

local function decided(decision)
  local pkt = nfqueue.packet(UDP, { id = 5 })
  pkt[decision[1]](pkt, table.unpack(decision, 2))
  return pkt
end

local function set(pkt, name, value)
  pkt[name] = value
end

local function get(pkt, name)
  return pkt[name]
end

describe("a live packet", function()
  for _, method in ipairs(METHODS) do
    it(("has %s with %d arguments"):format(method[1], #method[2]), function()
      local pkt = nfqueue.packet(UDP)
      assert.has_no.errors(function() pkt[method[1]](pkt, table.unpack(method[2])) end)
    end)
  end

  it("takes marks and priorities by assignment, and sends them", function()
    for name in pairs(ASSIGNABLE) do
      for _, value in ipairs({ 0, 1, 0xffffffff, 3.0 }) do
        local pkt = nfqueue.packet(UDP, { [name] = 77 })
        pkt[name] = value
        assert.are.equal(value, pkt[name])
        pkt:accept()
        assert.are.equal(value, pkt[name])
      end
      for _, case in ipairs({ { -1, "-1" }, { 1 << 32, "4294967296" }, { "1", "'1'" }, { 1.5, "1.5" },
        { nil, "nothing" }, { {}, "table" } }) do
        local pkt = nfqueue.packet(UDP, { [name] = 77 })
        assert.are.equal(
          ("bad argument '%s' to 'packet' (integer from 0 to 4294967295 expected, got %s)"):format(name, case[2]),
          message(set, pkt, name, case[1]))
        assert.are.equal(77, pkt[name])
      end
    end
  end)

  it("masks a mark given with the verdict against the assigned one", function()
    local pkt = nfqueue.packet(UDP, { mark = 0xff })
    pkt.mark = 0xaa00
    pkt:accept({ mark = 0x0b, mask = 0x0f })
    assert.are.equal(0xaa0b, pkt.mark)
  end)

  it("refuses assignment to every other name it has", function()
    local pkt = nfqueue.packet(UDP)
    for _, name in ipairs(PROPERTIES) do
      if not ASSIGNABLE[name] then
        assert.are.equal(("packet field '%s' is read-only"):format(name), message(set, pkt, name, 1))
      end
    end
    for _, method in ipairs(METHODS) do
      assert.are.equal(("packet field '%s' is read-only"):format(method[1]), message(set, pkt, method[1], print))
    end
  end)

  it("has no other field", function()
    local pkt = nfqueue.packet(UDP)
    local table_key = {}
    for key, shown in pairs({
      [""] = "", ids2 = "ids2", xy = "xy", __index = "__index", __gc = "__gc",
      [("x"):rep(50)] = ("x"):rep(50),
      [1] = "1", [0] = "0", [1.5] = "1.5", [true] = "true", [table_key] = tostring(table_key), [pkt] = tostring(pkt),
    }) do
      assert.are.equal(("packet has no field '%s'"):format(shown), message(get, pkt, key))
      assert.are.equal(("packet has no field '%s'"):format(shown), message(set, pkt, key, 1))
    end
    assert.are.equal("packet has no field 'nil'", message(get, pkt, nil))
    assert.are.equal("packet has no field 'nil'", message(set, pkt, nil, 1))
  end)

  it("tells what a name was likely meant to be", function()
    local pkt = nfqueue.packet(UDP)
    for key, meant in pairs({
      tpc = "'tcp'", Id = "'id'", id2 = "'id'", lenght = "'length'", acept = "'accept'", PAYLOAD = "'payload'",
      payloadoffset = "'payload_offset'", timstmp = "'timestamp'", src = "'ip.src'", flags = "'tcp.flags'",
      dport = "'tcp.dport' or 'udp.dport'", embedded = "'icmp.embedded'",
      checksum = "'ip.checksum' or 'tcp.checksum' or 'udp.checksum' or 'icmp.checksum'",
    }) do
      local expected = ("packet has no field '%s' (did you mean %s?)"):format(key, meant)
      assert.are.equal(expected, message(get, pkt, key))
      assert.are.equal(expected, message(set, pkt, key, 1))
    end
  end)

  it("finds its names however they are made", function()
    local pkt = nfqueue.packet(UDP, { id = 5 })
    assert.are.equal(5, pkt[("i"):rep(1) .. string.char(100)])
    assert.are.equal(UDP, pkt[table.concat({ "by", "tes" })](pkt))
  end)
end)

describe("a decided packet", function()
  for _, decision in ipairs(DECISIONS) do
    it(("(%s) can be read, not changed"):format(decision[1]), function()
      for _, method in ipairs(METHODS) do
        local pkt = decided(decision)
        local sent = pkt.sent
        local fine, result = pcall(pkt[method[1]], pkt, table.unpack(method[2]))
        assert.are.equal(not method.changes, fine, method[1])
        if method.changes then
          assert.are.equal("packet already has a verdict", result)
        end
        assert.are.same({ decision[1], UDP }, { pkt.verdict, pkt:bytes() })
        assert.are.equal(sent, pkt.sent)
      end
    end)

    it(("(%s) keeps its properties, read-only"):format(decision[1]), function()
      local pkt = decided(decision)
      for _, name in ipairs(PROPERTIES) do
        assert.has_no.errors(function() return pkt[name] end)
        assert.are.equal("packet already has a verdict", message(set, pkt, name, 1))
      end
      local line = "IP 192.0.2.1.40000 > 198.51.100.2.53: UDP, length 8"
      assert.are.same({ 5, #UDP, line }, { pkt.id, #pkt, tostring(pkt) })
      assert.are.equal("packet has no field 'tpc' (did you mean 'tcp'?)", message(get, pkt, "tpc"))
      assert.are.equal("packet has no field 'tpc' (did you mean 'tcp'?)", message(set, pkt, "tpc", 1))
    end)
  end
end)

describe("what is no packet", function()
  local values = unit.foreigners()
  values[#values + 1] = { name = "a queue", value = nfqueue.new(1, print), type = "userdata" }
  local class = debug.getmetatable(nfqueue.packet(UDP))

  for _, foreign in ipairs(values) do
    it(("is refused by every method: %s"):format(foreign.name), function()
      local pkt = nfqueue.packet(UDP)
      for _, method in ipairs(METHODS) do
        assert.are.equal(
          ("bad argument 'self' to '%s' (packet expected, got %s)"):format(method[1], foreign.type),
          message(pkt[method[1]], foreign.value, table.unpack(method[2])))
      end
    end)

    it(("is refused by the metamethods: %s"):format(foreign.name), function()
      local tail = (" (packet expected, got %s)"):format(foreign.type)
      assert.are.equal("bad argument 'self' to 'index'" .. tail, message(class.__index, foreign.value, "id"))
      assert.are.equal("bad argument 'self' to 'newindex'" .. tail,
        message(class.__newindex, foreign.value, "mark", 1))
      assert.are.equal("bad argument 'self' to '#'" .. tail, message(class.__len, foreign.value))
      assert.are.equal("bad argument 'self' to 'tostring'" .. tail, message(class.__tostring, foreign.value))
    end)
  end

  it("is refused when it is missing, or a table that poses as one", function()
    local pkt = nfqueue.packet(UDP)
    assert.are.equal("bad argument 'self' to 'accept' (packet expected, got no value)", message(pkt.accept))
    local poser = debug.setmetatable({}, class)
    assert.matches("^bad argument 'self' to 'index' %(packet expected, got ", message(get, poser, "id"))
    assert.matches("^bad argument 'self' to 'accept' %(packet expected, got ", message(pkt.accept, poser))
  end)

  it("does not get at the class with getmetatable", function()
    assert.are.equal("nfqueue.packet", getmetatable(nfqueue.packet(UDP)))
  end)
end)
