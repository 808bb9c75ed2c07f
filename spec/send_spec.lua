-- nfqueue.send without a kernel: what it takes, and what a loaded handler sends.

local datagram = require("support.datagram")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local IP4 = datagram.right(datagram.ip4(datagram.udp("hello")))
local IP6 = datagram.right(datagram.ip6(datagram.udp("hello")))

after_each(unit.cleanup)

local function load_handler(source, args, config)
  return assert(nfqueue.load(unit.file("local nfqueue = require('nfqueue')\n" .. source), args, config))
end

describe("nfqueue.send refuses", function()
  local CASES = {
    { "nothing", nil, "bad argument 'bytes' to 'send' (string expected, got nothing)" },
    { "a number", 7, "bad argument 'bytes' to 'send' (string expected, got 7)" },
    { "a packet", nfqueue.packet(IP4), "bad argument 'bytes' to 'send' (string expected, got userdata)" },
    { "empty bytes", "", "bad argument 'bytes' to 'send' (neither IPv4 nor IPv6, or shorter than its IP header)" },
    { "half a header", IP4:sub(1, 19),
      "bad argument 'bytes' to 'send' (neither IPv4 nor IPv6, or shorter than its IP header)" },
    { "ARP", "\0\1\8\0\6\4\0\1" .. ("\0"):rep(20),
      "bad argument 'bytes' to 'send' (neither IPv4 nor IPv6, or shorter than its IP header)" },
    { "a header length below 20", "\x44" .. IP4:sub(2),
      "bad argument 'bytes' to 'send' (its IPv4 header length points outside it)" },
    { "a header length beyond the end", string.pack(">BBI2", 0x4f, 0, #IP4) .. IP4:sub(5),
      "bad argument 'bytes' to 'send' (its IPv4 header length points outside it)" },
    { "one byte less than the header says", IP4:sub(1, -2),
      "bad argument 'bytes' to 'send' (its IP header says 33 bytes, and there are 32)" },
    { "one more", IP4 .. "\0", "bad argument 'bytes' to 'send' (its IP header says 33 bytes, and there are 34)" },
    { "IPv6, one byte less", IP6:sub(1, -2),
      "bad argument 'bytes' to 'send' (its IP header says 53 bytes, and there are 52)" },
    { "IPv6, one more", IP6 .. "\0", "bad argument 'bytes' to 'send' (its IP header says 53 bytes, and there are 54)" },
    { "IPv6 of length 0", string.pack(">I4I2", 0x60000000, 0) .. IP6:sub(7),
      "bad argument 'bytes' to 'send' (its IP header says 40 bytes, and there are 53)" },
    { "IPv4 of length 0", "\x45\0\0\0" .. IP4:sub(5),
      "bad argument 'bytes' to 'send' (its IP header says 0 bytes, and there are 33)" },
    { "more than IP allows", IP6 .. ("x"):rep(65535),
      "bad argument 'bytes' to 'send' (longer than an IP packet can be)" },
  }
  for _, case in ipairs(CASES) do
    it(case[1], function()
      assert.are.equal(case[3], unit.message(nfqueue.send, case[2]))
    end)
  end

  local OPTIONS = {
    { "mark", "bad argument 'options' to 'send' (table expected, got 'mark')" },
    { { mark = -1 }, "bad argument 'mark' to 'send' (integer from 0 to 4294967295 expected, got -1)" },
    { { mark = 1 << 32 }, "bad argument 'mark' to 'send' (integer from 0 to 4294967295 expected, got 4294967296)" },
    { { mark = "1" }, "bad argument 'mark' to 'send' (integer from 0 to 4294967295 expected, got '1')" },
    { { iface = 1 }, "bad argument 'iface' to 'send' (string expected, got 1)" },
    { { iface = "" }, "bad argument 'iface' to 'send' (interface name of 1 to 15 bytes expected, got '')" },
    { { iface = "sixteen-letters!" },
      "bad argument 'iface' to 'send' (interface name of 1 to 15 bytes expected, got 'sixteen-letters!')" },
    { { iface = "lo\0x" }, "bad argument 'iface' to 'send' (interface name of 1 to 15 bytes expected, got 'lo" },
    { { interface = "lo" }, "unknown option 'interface' to 'send' (known: mark, iface)" },
    { { 7 }, "unknown option '1' to 'send' (known: mark, iface)" },
  }
  for _, case in ipairs(OPTIONS) do
    it("options: " .. case[2]:match("%((.*)"), function()
      local message = unit.message(nfqueue.send, IP4, case[1])
      assert.are.equal(case[2], message:sub(1, #case[2]))
    end)
  end
end)

describe("a loaded handler", function()
  it("sends nothing: it is recorded, with its mark and interface", function()
    local handler = load_handler([[return function(pkt)
      assert(nfqueue.send(pkt:bytes()) == true)
      assert(nfqueue.send(pkt:bytes(), { mark = 0, iface = "nowhere" }))
      pkt:drop()
    end]])
    assert.are.same({}, handler.sent)
    assert.are.equal("drop", (handler(nfqueue.packet(IP4))))
    assert.are.same({
      { bytes = IP4, mark = 0x6e71 },
      { bytes = IP4, mark = 0, iface = "nowhere" },
    }, handler.sent)
    handler(nfqueue.packet(IP6))
    assert.are.equal(4, #handler.sent)
    assert.are.equal(IP6, handler.sent[3].bytes)
  end)

  it("records what the chunk, open and close send too", function()
    local handler = load_handler([[
      local args = ...
      nfqueue.send(args.bytes, { mark = 1 })
      return {
        open = function() nfqueue.send(args.bytes, { mark = 2 }) end,
        packet = function() end,
        close = function() nfqueue.send(args.bytes, { mark = 3 }) end,
      }]], { bytes = IP4 })
    assert.are.equal(2, #handler.sent)
    handler:close()
    local marks = {}
    for i, item in ipairs(handler.sent) do
      marks[i] = item.mark
    end
    assert.are.same({ 1, 2, 3 }, marks)
  end)

  it("marks with its loop_mark", function()
    local SOURCE = [[return { config = { loop_mark = %s },
      packet = function(pkt) nfqueue.send(pkt:bytes()) end }]]
    for _, mark in ipairs({ 0, 7, 0xffffffff }) do
      local handler = load_handler(SOURCE:format(mark))
      handler(nfqueue.packet(IP4))
      assert.are.equal(mark, handler.sent[1].mark)
      assert.are.equal(mark, handler.config.loop_mark)
    end
    local handler = load_handler(SOURCE:format(7), {}, { loop_mark = 8 })
    handler(nfqueue.packet(IP4))
    assert.are.equal(8, handler.sent[1].mark)
  end)

  it("records what its timers send, with its loop_mark", function()
    local handler = load_handler([[
      local args = ...
      nfqueue.after(1, function() nfqueue.send(args.bytes) end)
      return { config = { loop_mark = 7 }, packet = function() end }]], { bytes = IP4 })
    assert.is_nil(handler:advance(0.5))
    assert.are.same({}, handler.sent)
    assert.is_nil(handler:advance(0.5))
    assert.are.same({ { bytes = IP4, mark = 7 } }, handler.sent)
  end)

  it("has its own list, also when one calls another, and after an error", function()
    local inner = load_handler([[return function(pkt)
      nfqueue.send(pkt:bytes(), { mark = 1 })
      error("inner")
    end]])
    _G.inner_handler = inner
    finally(function() _G.inner_handler = nil end)
    local outer = load_handler([[return function(pkt)
      nfqueue.send(pkt:bytes())
      inner_handler(nfqueue.packet(pkt:bytes()))
      nfqueue.send(pkt:bytes(), { mark = 3 })
    end]], {}, { loop_mark = 2 })
    outer(nfqueue.packet(IP4))
    assert.are.same({ { bytes = IP4, mark = 2 }, { bytes = IP4, mark = 3 } }, outer.sent)
    assert.are.same({ { bytes = IP4, mark = 1 } }, inner.sent)
  end)

  it("fails as the loop would when what it sends is none", function()
    local handler = load_handler("return function(pkt) nfqueue.send('no packet') end")
    local verdict, problem = handler(nfqueue.packet(IP4))
    assert.are.equal("drop", verdict)
    assert.matches("bad argument 'bytes' to 'send' (neither IPv4 nor IPv6", problem, 1, true)
    assert.are.same({}, handler.sent)
  end)
end)

it("loop_mark is a configuration key with the default 0x6e71", function()
  assert.are.equal(0x6e71, nfqueue.new(0, print).config.loop_mark)
  assert.are.equal(0, nfqueue.new(0, print, { loop_mark = 0 }).config.loop_mark)
  assert.are.equal("bad argument 'loop_mark' to 'new' (integer from 0 to 4294967295 expected, got -1)",
    unit.message(nfqueue.new, 0, print, { loop_mark = -1 }))
end)
