-- The properties of a packet: what the meta table gives, what is absent, what is no name at all.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message
local IP4, IP6 = "E" .. ("\0"):rep(19), "\x60" .. ("\0"):rep(39)

describe("a property of a packet", function()
  local U32 = { 0, 1, 0x80000000, 0xffffffff }
  local FIELDS = {
    { name = "id", absent = 0, right = U32 },
    { name = "mark", absent = 0, right = U32 },
    { name = "priority", absent = 0, right = U32 },
    { name = "iif", right = U32 },
    { name = "oif", right = U32 },
    { name = "physiif", right = U32 },
    { name = "physoif", right = U32 },
    { name = "uid", right = U32 },
    { name = "gid", right = U32 },
    { name = "cgroup", right = U32 },
    { name = "ethertype", absent = 0x0800, right = { 0, 0x0806, 0xffff } },
    { name = "vlan", right = { 0, 1, 4095 } },
    { name = "length", absent = 20, right = { 20, 21, 0xffffffff } },
    { name = "gso", absent = false, right = { true, false } },
    { name = "family", absent = "ip", right = { "inet", "ip", "arp", "netdev", "bridge", "ip6" } },
    { name = "hook", absent = "input", right = { "prerouting", "input", "forward", "output", "postrouting" } },
    { name = "timestamp", right = { 0, 1700000000.25, 999999999999 } },
    { name = "iifname", right = { "x", "eth0", ("n"):rep(15) } },
    { name = "oifname", right = { "x", "eth0", ("n"):rep(15) } },
    { name = "physiifname", right = { "x", "eth0", ("n"):rep(15) } },
    { name = "physoifname", right = { "x", "eth0", ("n"):rep(15) } },
    { name = "hwaddr", right = { "00", "00:11:22:aa:bb:ff", "00:11:22:33:44:55:66:77" } },
    { name = "l2header", right = { "", "\0\1\2", ("x"):rep(65535) } },
    { name = "secctx", right = { "system_u:object_r:unlabeled_t:s0" } },
  }
  for _, field in ipairs(FIELDS) do
    it(field.name .. " is what was given", function()
      for _, value in ipairs(field.right) do
        assert.are.equal(value, nfqueue.packet(IP4, { [field.name] = value })[field.name])
      end
    end)
    it(("%s is %s when nothing was given"):format(field.name, tostring(field.absent)), function()
      assert.are.equal(field.absent, nfqueue.packet(IP4)[field.name])
    end)
  end

  it("is set by its own name only", function()
    for _, given in ipairs(FIELDS) do
      local pkt = nfqueue.packet(IP4, { [given.name] = given.right[#given.right] })
      for _, other in ipairs(FIELDS) do
        local follows = given.name == "family" and other.name == "hook" -- hooks are named by family
        if other.name ~= given.name and not follows then
          assert.are.equal(other.absent, pkt[other.name], other.name .. " after " .. given.name)
        end
      end
    end
  end)

  it("takes its default from the version of the bytes", function()
    local pkt = nfqueue.packet(IP6)
    assert.are.same({ "ip6", 0x86dd, "input" }, { pkt.family, pkt.ethertype, pkt.hook })
    pkt = nfqueue.packet("")
    assert.are.same({ "ip", 0x0800, "input" }, { pkt.family, pkt.ethertype, pkt.hook })
  end)

  it("hook is named as nft does for the family", function()
    for family, hooks in pairs({
      arp = { "input", "output" }, netdev = { "ingress", "egress" }, bridge = { "prerouting", "postrouting" },
    }) do
      for _, hook in ipairs(hooks) do
        assert.are.equal(hook, nfqueue.packet("", { hook = hook, family = family }).hook)
      end
    end
    assert.are.equal("bad argument 'hook' to 'packet' (a name as nft prints it expected, got 'prerouting')",
      message(nfqueue.packet, "", { family = "arp", hook = "prerouting" }))
    assert.are.equal("bad argument 'hook' to 'packet' (a name as nft prints it expected, got 'ingress')",
      message(nfqueue.packet, "", { family = "ip", hook = "ingress" }))
    assert.are.equal("input", nfqueue.packet("", { family = "arp" }).hook)
  end)

  it("truncated tells whether part of the packet is missing", function()
    assert.is_false(nfqueue.packet(IP4).truncated)
    assert.is_false(nfqueue.packet(IP4, { length = 20 }).truncated)
    assert.is_true(nfqueue.packet(IP4, { length = 21 }).truncated)
    assert.is_true(nfqueue.packet("", { length = 1 }).truncated)
    assert.is_false(nfqueue.packet("").truncated)
  end)

  it("timestamp keeps microseconds", function()
    local time = nfqueue.packet("", { timestamp = 1700000000.123456 }).timestamp
    assert.are.equal(123456, math.floor((time - 1700000000) * 1e6 + 0.5))
  end)

  it("secctx ends before the zero that some kernels count in", function()
    assert.are.equal("label", nfqueue.packet("", { secctx = "label\0" }).secctx)
    assert.is_nil(nfqueue.packet("", { secctx = "" }).secctx)
  end)

  it("iifname of an index is the interface's name here, nil when there is none", function()
    local pkt = nfqueue.packet("", { iif = 1, oif = 0x7fffffff, physiif = 1 })
    assert.are.same({ "lo", "lo" }, { pkt.iifname, pkt.physiifname })
    assert.is_nil(pkt.oifname)
    assert.is_nil(pkt.physoifname)
    assert.are.equal("wan", nfqueue.packet("", { iif = 1, iifname = "wan" }).iifname)
  end)

  it("sent and verdict are nil before a verdict", function()
    local pkt = nfqueue.packet(IP4)
    assert.is_nil(pkt.verdict)
    assert.is_nil(pkt.sent)
  end)
end)

describe("a meta table", function()
  local NUMBER = "integer from 0 to 4294967295"
  local WRONG = {
    { "id", -1, NUMBER, "-1" }, { "id", 2 ^ 32, NUMBER, "4294967296.0" }, { "id", 1.5, NUMBER, "1.5" },
    { "id", "1", NUMBER, "'1'" }, { "id", true, NUMBER, "true" }, { "id", {}, NUMBER, "table" },
    { "mark", -1, NUMBER, "-1" }, { "priority", "high", NUMBER, "'high'" }, { "iif", {}, NUMBER, "table" },
    { "oif", -1, NUMBER, "-1" }, { "physiif", 0 / 0, NUMBER, "nan" }, { "physoif", math.huge, NUMBER, "inf" },
    { "uid", -1, NUMBER, "-1" }, { "gid", "root", NUMBER, "'root'" }, { "cgroup", false, NUMBER, "false" },
    { "length", 19, "integer from 20 to 4294967295", "19" },
    { "ethertype", 65536, "integer from 0 to 65535", "65536" },
    { "queue", 65536, "integer from 0 to 65535", "65536" },
    { "vlan", 4096, "integer from 0 to 4095", "4096" },
    { "gso", 1, "boolean", "1" },
    { "family", "ipx", "a name as nft prints it", "'ipx'" }, { "family", 2, "string", "2" },
    { "hook", "INPUT", "a name as nft prints it", "'INPUT'" }, { "hook", 1, "string", "1" },
    { "timestamp", -1, "seconds since 1970", "-1" }, { "timestamp", 0 / 0, "seconds since 1970", "nan" },
    { "timestamp", math.huge, "seconds since 1970", "inf" }, { "timestamp", "now", "seconds since 1970", "'now'" },
    { "iifname", "", "interface name of 1 to 15 bytes", "''" }, { "oifname", 5, "string", "5" },
    { "physiifname", ("n"):rep(16), "interface name of 1 to 15 bytes", "'nnnnnnnnnnnnnnnn'" },
    { "physoifname", {}, "string", "table" },
    { "l2header", 5, "string", "5" }, { "secctx", true, "string", "true" },
  }
  for _, case in ipairs(WRONG) do
    local name, value, expected, got = table.unpack(case)
    it(("refuses %s of %s"):format(name, type(value) == "table" and "a table" or tostring(value)), function()
      local problem = message(nfqueue.packet, IP4, { [name] = value }):gsub("[-+]nan", "nan")
      assert.are.equal(("bad argument '%s' to 'packet' (%s expected, got %s)"):format(name, expected, got), problem)
    end)
  end

  for _, text in ipairs({
    "", "0", "00:", ":00", "0:11:22:33:44:55", "00:11:22:33:44:5g", "00-11-22-33-44-55", "-1:11:22:33:44:55",
    " 0:11:22:33:44:55", "0x:11:22:33:44:55", "00:11:22:33:44:55:66:77:88", "00:11:22:33:44:55\n",
  }) do
    it(("refuses hwaddr of %q"):format(text), function()
      assert.are.equal(
        ("bad argument 'hwaddr' to 'packet' (address like 00:11:22:33:44:55 expected, got '%s')"):format(text),
        message(nfqueue.packet, IP4, { hwaddr = text }))
    end)
  end

  it("refuses strings that no attribute holds", function()
    assert.are.equal("bad argument 'l2header' to 'packet' (longer than 65535 bytes)",
      message(nfqueue.packet, IP4, { l2header = ("x"):rep(65536) }))
    assert.are.equal("bad argument 'secctx' to 'packet' (longer than 65535 bytes)",
      message(nfqueue.packet, IP4, { secctx = ("x"):rep(65536) }))
  end)

  it("refuses unknown keys", function()
    for key, shown in pairs({ tpc = "tpc", verdict = "verdict", sent = "sent", [1] = "1", [true] = "true" }) do
      assert.are.equal(("unknown key '%s' in the meta table of 'packet'"):format(shown),
        message(nfqueue.packet, IP4, { [key] = 1 }))
    end
  end)

  it("is a table or nothing", function()
    assert.are.equal(20, #nfqueue.packet(IP4, nil))
    assert.are.equal("bad argument 'meta' to 'packet' (table expected, got 5)", message(nfqueue.packet, IP4, 5))
  end)

  it("can be changed or forgotten afterwards", function()
    local meta = { secctx = "la" .. "bel", l2header = ("x"):rep(14), iifname = "eth" .. "7" }
    local pkt = nfqueue.packet(IP4, meta)
    meta.secctx, meta.l2header, meta.iifname = nil, nil, nil
    collectgarbage()
    assert.are.same({ "label", ("x"):rep(14), "eth7" }, { pkt.secctx, pkt.l2header, pkt.iifname })
  end)
end)
