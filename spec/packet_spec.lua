-- The packet class: verbs and their options, one verdict, names, and values that are no packet.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local message = unit.message
local UDP = datagram.right(datagram.ip4(datagram.udp("question")))
local OTHER = datagram.right(datagram.ip4(datagram.udp("answer")))

-- Every verb, with arguments that pass.
local VERBS = {
  { name = "accept", verdict = "accept", sent = UDP },
  { name = "drop", verdict = "drop" },
  { name = "modify", verdict = "modify", sent = OTHER, first = OTHER },
  { name = "again", verdict = "again", sent = UDP },
  { name = "requeue", verdict = "requeue", sent = UDP, first = 65535 },
}

local function call(pkt, verb, ...)
  if verb.first then
    return pkt[verb.name](pkt, verb.first, ...)
  end
  return pkt[verb.name](pkt, ...)
end

local function verb_of(name)
  for _, verb in ipairs(VERBS) do
    if verb.name == name then
      return verb
    end
  end
end

describe("nfqueue.packet", function()
  it("takes up to 65531 bytes", function()
    for _, size in ipairs({ 0, 1, 20, 65531 }) do
      local bytes = ("E"):rep(size)
      local pkt = nfqueue.packet(bytes)
      assert.are.same({ size, size, false }, { #pkt, pkt.length, pkt.truncated })
      assert.are.equal(bytes, pkt:bytes())
    end
    assert.are.equal("bad argument 'bytes' to 'packet' (65532 bytes; at most 65531)",
      message(nfqueue.packet, ("E"):rep(65532)))
  end)

  for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" }, { true, "true" } }) do
    it("refuses bytes of " .. case[2], function()
      assert.are.equal(("bad argument 'bytes' to 'packet' (string expected, got %s)"):format(case[2]),
        message(nfqueue.packet, case[1]))
    end)
  end

  it("keeps its own copy of the bytes", function()
    local bytes = UDP .. ""
    local pkt = nfqueue.packet(bytes)
    pkt:u8(8, 1)
    assert.are.equal(datagram.right(datagram.ip4(datagram.udp("question"))), bytes)
  end)

  it("prints as one line, as tcpdump would", function()
    local lines = {
      ["IP 192.0.2.1.40000 > 198.51.100.2.53: UDP, length 8"] = nfqueue.packet(UDP),
      ["ethertype 0x0806, length 0"] = nfqueue.packet("", { family = "arp", ethertype = 0x0806 }),
      ["ethertype 0x0800, length 0, truncated"] = nfqueue.packet("", { length = 60 }),
    }
    for line, pkt in pairs(lines) do
      assert.are.equal(line, tostring(pkt))
    end
  end)
end)

describe("a verb", function()
  for _, verb in ipairs(VERBS) do
    it(verb.name .. " decides, sends and returns nothing", function()
      local pkt = nfqueue.packet(UDP)
      assert.are.equal(0, select("#", call(pkt, verb)))
      assert.are.equal(verb.verdict, pkt.verdict)
      assert.are.equal(verb.sent, pkt.sent)
    end)

    it(verb.name .. " is given once", function()
      for _, second in ipairs(VERBS) do
        local pkt = nfqueue.packet(UDP)
        call(pkt, verb)
        assert.are.equal("packet already has a verdict", message(call, pkt, second))
        assert.are.equal(verb.verdict, pkt.verdict)
        assert.are.equal(verb.sent, pkt.sent)
      end
    end)

    it(verb.name .. " takes no more arguments than it knows", function()
      local pkt = nfqueue.packet(UDP)
      local extra = verb.name == "drop" and { {} } or { {}, "more" }
      assert.are.equal(("too many arguments to '%s'"):format(verb.name),
        message(call, pkt, verb, table.unpack(extra)))
      assert.is_nil(pkt.verdict)
    end)
  end

  for _, case in ipairs({ { nil, "nothing" }, { -1, "-1" }, { 65536, "65536" }, { 1.5, "1.5" }, { "3", "'3'" } }) do
    it("requeue refuses queue " .. case[2], function()
      local pkt = nfqueue.packet(UDP)
      assert.are.equal(
        ("bad argument 'n' to 'requeue' (integer from 0 to 65535 expected, got %s)"):format(case[2]),
        message(pkt.requeue, pkt, case[1]))
      assert.is_nil(pkt.verdict)
    end)
  end

  for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" }, { false, "false" } }) do
    it("modify refuses bytes of " .. case[2], function()
      local pkt = nfqueue.packet(UDP)
      assert.are.equal(("bad argument 'bytes' to 'modify' (string expected, got %s)"):format(case[2]),
        message(pkt.modify, pkt, case[1]))
      assert.is_nil(pkt.verdict)
    end)
  end
end)

describe("an option of", function()
  local MARKS = { -- what the packet had, options, what it has then
    { 0, { mark = 0xffffffff }, 0xffffffff },
    { 0xffffffff, { mark = 0 }, 0 },
    { 0xaabbccdd, { mark = 0x11223344, mask = 0x0000ffff }, 0xaabb3344 },
    { 0xaabbccdd, { mark = 0x11223344, mask = 0 }, 0xaabbccdd },
    { 0xaabbccdd, { mark = 0x11223344, mask = 0xffffffff }, 0x11223344 },
    { 5, {}, 5 },
  }
  local NUMBER = "integer from 0 to 4294967295"
  local WRONG = {
    { { mark = -1 }, "mark", NUMBER, "-1" }, { { mark = 2 ^ 32 }, "mark", NUMBER, "4294967296.0" },
    { { mark = "1" }, "mark", NUMBER, "'1'" }, { { mark = true }, "mark", NUMBER, "true" },
    { { mark = 1, mask = -1 }, "mask", NUMBER, "-1" }, { { mark = 1, mask = {} }, "mask", NUMBER, "table" },
    { { priority = 1.5 }, "priority", NUMBER, "1.5" }, { { priority = 1 << 32 }, "priority", NUMBER, "4294967296" },
    { { fixup = 1 }, "fixup", "boolean", "1" }, { { fixup = "no" }, "fixup", "boolean", "'no'" },
  }

  for _, name in ipairs({ "accept", "modify", "again", "requeue" }) do
    local verb = verb_of(name)
    local function refuse(options, expected)
      local pkt = nfqueue.packet(UDP, { mark = 3, priority = 4 })
      assert.are.equal(expected, message(call, pkt, verb, options))
      assert.is_nil(pkt.verdict)
      assert.are.same({ 3, 4, UDP }, { pkt.mark, pkt.priority, pkt:bytes() })
    end

    it(name .. ": mark and mask", function()
      for _, case in ipairs(MARKS) do
        local pkt = nfqueue.packet(UDP, { mark = case[1] })
        call(pkt, verb, case[2])
        assert.are.same({ case[3], verb.verdict }, { pkt.mark, pkt.verdict })
      end
    end)

    it(name .. ": priority and fixup, none at all", function()
      for _, options in ipairs({ { priority = 0 }, { priority = 0xffffffff }, { fixup = true }, { fixup = false } }) do
        local pkt = nfqueue.packet(UDP, { priority = 9 })
        call(pkt, verb, options)
        assert.are.same({ options.priority or 9, verb.verdict }, { pkt.priority, pkt.verdict })
      end
      local pkt = nfqueue.packet(UDP)
      call(pkt, verb, nil)
      assert.are.equal(verb.verdict, pkt.verdict)
    end)

    it(name .. ": for the connection, beside the packet's", function()
      for _, options in ipairs({
        { connmark = 0 }, { connmark = 0xffffffff, connmask = 0xff }, { label = 0 }, { label = 127, connmark = 5 },
        { connmark = 1, connmask = 0, mark = 2, priority = 3 },
      }) do
        local pkt = nfqueue.packet(UDP, { mark = 7 })
        call(pkt, verb, options)
        assert.are.same({ options.mark or 7, verb.verdict }, { pkt.mark, pkt.verdict })
      end
      refuse({ connmask = 1 },
        ("bad argument 'connmask' to '%s' (it goes with 'connmark', which is not there)"):format(name))
      for _, case in ipairs({ { { connmark = -1 }, "connmark", 0xffffffff, "-1" },
        { { connmark = 1, connmask = 1 << 32 }, "connmask", 0xffffffff, "4294967296" },
        { { label = 128 }, "label", 127, "128" }, { { label = "x" }, "label", 127, "'x'" } }) do
        refuse(case[1], ("bad argument '%s' to '%s' (integer from 0 to %d expected, got %s)"):format(case[2], name,
          case[3], case[4]))
      end
    end)

    it(name .. ": wrong values change nothing", function()
      for _, case in ipairs(WRONG) do
        refuse(case[1], ("bad argument '%s' to '%s' (%s expected, got %s)"):format(case[2], name, case[3], case[4]))
      end
      refuse({ mask = 1 }, ("bad argument 'mask' to '%s' (it goes with 'mark', which is not there)"):format(name))
      for _, wrong in ipairs({ { 5, "5" }, { "mark", "'mark'" }, { true, "true" }, { print, "function" } }) do
        refuse(wrong[1], ("bad argument 'opts' to '%s' (table expected, got %s)"):format(name, wrong[2]))
      end
    end)

    it(name .. ": unknown ones are named", function()
      for key, shown in pairs({ color = "color", Mark = "Mark", [1] = "1", [true] = "true" }) do
        local pkt = nfqueue.packet(UDP)
        local problem = message(call, pkt, verb, { [key] = 1 })
        assert.are.equal(("unknown option '%s' to '%s' ("):format(shown, name), problem:match("^.-%("))
        assert.is_nil(pkt.verdict)
      end
    end)
  end

  it("requeue alone: bypass", function()
    for _, bypass in ipairs({ true, false }) do
      local pkt = nfqueue.packet(UDP)
      pkt:requeue(0, { bypass = bypass, mark = 1 })
      assert.are.same({ "requeue", 1 }, { pkt.verdict, pkt.mark })
    end
    local pkt = nfqueue.packet(UDP)
    assert.are.equal("bad argument 'bypass' to 'requeue' (boolean expected, got 1)",
      message(pkt.requeue, pkt, 0, { bypass = 1 }))
    for _, name in ipairs({ "accept", "modify", "again" }) do
      assert.matches(("^unknown option 'bypass' to '%s' %%("):format(name),
        message(call, pkt, verb_of(name), { bypass = true }))
    end
    assert.is_nil(pkt.verdict)
  end)
end)

describe("the connection of a packet", function()
  it("is what its meta table says", function()
    local ct = { id = 5, state = "established", orig = { src = "192.0.2.1" } }
    local pkt = nfqueue.packet(UDP, { ct = ct })
    assert.are.equal(ct, pkt.ct)
    assert.are.equal("192.0.2.1", pkt.ct.orig.src)
  end)

  it("is nil where nothing is said of it", function()
    assert.is_nil(nfqueue.packet(UDP).ct)
    assert.is_nil(nfqueue.packet(UDP, { mark = 1 }).ct)
  end)

  it("is a table", function()
    assert.are.equal("bad argument 'ct' to 'packet' (table expected, got 5)",
      message(nfqueue.packet, UDP, { ct = 5 }))
  end)
end)
