-- Raw access: 0-based offsets from the start of the packet, network byte order, bounds.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local message = unit.message
local BYTES = "" -- no IP: 0 1 2 ... 255
for value = 0, 255 do
  BYTES = BYTES .. string.char(value)
end

local WIDTHS = { { "u8", 1 }, { "u16", 2 }, { "u24", 3 }, { "u32", 4 } }
local OFFSET = "integer from 0 to 9223372036854775807 expected, got "

-- Offsets that are none, and what the message shows of them.
local NO_OFFSETS = {
  { -1, "-1" }, { math.mininteger, "-9223372036854775808" }, { 1.5, "1.5" }, { "0", "'0'" }, { {}, "table" },
  { true, "true" }, { 2 ^ 63, "9.2233720368548e+18" }, { 0 / 0, tostring(0 / 0) },
}

describe("packet:u8, u16, u24, u32", function()
  for _, width in ipairs(WIDTHS) do
    local name, size = width[1], width[2]
    local most = (1 << (8 * size)) - 1

    it(name .. " reads in network byte order up to the end", function()
      local pkt = nfqueue.packet(BYTES)
      for _, offset in ipairs({ 0, 1, 7, 128, 256 - size, 4.0 }) do
        local at = math.tointeger(offset) + 1
        assert.are.equal(string.unpack(">I" .. size, BYTES, at), pkt[name](pkt, offset))
      end
    end)

    it(name .. " writes in network byte order, and nothing beside it", function()
      for _, offset in ipairs({ 0, 1, 7, 256 - size }) do
        for _, value in ipairs({ 0, 1, 0x5a % (most + 1), most }) do
          local pkt = nfqueue.packet(BYTES)
          assert.are.equal(0, select("#", pkt[name](pkt, offset, value)))
          assert.are.equal(value, pkt[name](pkt, offset))
          assert.are.equal(BYTES:sub(1, offset) .. string.pack(">I" .. size, value) .. BYTES:sub(offset + size + 1),
            pkt:bytes())
        end
      end
    end)

    it(name .. " refuses offsets that reach beyond the end, reading and writing", function()
      for _, length in ipairs({ 0, size - 1, size, 256 }) do
        local pkt = nfqueue.packet(BYTES:sub(1, length))
        for _, offset in ipairs({ length - size + 1, length, length + 1, 65536, 1 << 32, math.maxinteger }) do
          if offset >= 0 then
            local expected = ("bad argument 'offset' to '%s' (%d and %d bytes reach beyond the packet's %d)")
              :format(name, offset, size, length)
            assert.are.equal(expected, message(pkt[name], pkt, offset))
            assert.are.equal(expected, message(pkt[name], pkt, offset, 0))
          end
        end
        assert.are.equal(BYTES:sub(1, length), pkt:bytes())
      end
    end)

    it(name .. " refuses what is no offset", function()
      local pkt = nfqueue.packet(BYTES)
      for _, case in ipairs(NO_OFFSETS) do
        local expected = ("bad argument 'offset' to '%s' (%s%s)"):format(name, OFFSET, case[2])
        assert.are.equal(expected, message(pkt[name], pkt, case[1]))
        assert.are.equal(expected, message(pkt[name], pkt, case[1], 0))
      end
      assert.are.equal(("bad argument 'offset' to '%s' (%snothing)"):format(name, OFFSET), message(pkt[name], pkt))
    end)

    it(name .. " refuses what does not fit", function()
      local pkt = nfqueue.packet(BYTES)
      for _, case in ipairs({ { -1, "-1" }, { most + 1, tostring(most + 1) }, { 1.5, "1.5" }, { "1", "'1'" },
        { {}, "table" }, { false, "false" } }) do
        assert.are.equal(("bad argument 'value' to '%s' (integer from 0 to %d expected, got %s)")
          :format(name, most, case[2]), message(pkt[name], pkt, 0, case[1]))
      end
      assert.are.equal(BYTES, pkt:bytes())
    end)
  end
end)

describe("packet:bytes", function()
  it("is the whole packet, or the part asked for", function()
    local pkt = nfqueue.packet(BYTES)
    assert.are.equal(BYTES, pkt:bytes())
    assert.are.equal(BYTES, pkt:bytes(nil, nil))
    assert.are.equal(BYTES:sub(201), pkt:bytes(200))
    assert.are.equal("\3\4", pkt:bytes(3, 2))
    assert.are.equal("\0\1", pkt:bytes(nil, 2))
    assert.are.same({ "", "", "\255" }, { pkt:bytes(256), pkt:bytes(256, 0), pkt:bytes(255, 1) })
    assert.are.equal("", nfqueue.packet(""):bytes())
    assert.are.equal("", nfqueue.packet("", { length = 100 }):bytes(0, 0))
  end)

  it("refuses what is beyond the packet", function()
    local pkt = nfqueue.packet(BYTES)
    for _, offset in ipairs({ 257, math.maxinteger }) do
      assert.are.equal(("bad argument 'offset' to 'bytes' (%d and 0 bytes reach beyond the packet's 256)")
        :format(offset), message(pkt.bytes, pkt, offset))
    end
    for _, case in ipairs({ { 0, 257, 256 }, { 250, 7, 6 }, { 256, 1, 0 }, { 0, math.maxinteger, 256 },
      { 0, -1, 256 } }) do
      assert.are.equal(("bad argument 'length' to 'bytes' (integer from 0 to %d expected, got %d)")
        :format(case[3], case[2]), message(pkt.bytes, pkt, case[1], case[2]))
    end
    assert.are.equal("bad argument 'length' to 'bytes' (integer from 0 to 256 expected, got '1')",
      message(pkt.bytes, pkt, 0, "1"))
    for _, case in ipairs(NO_OFFSETS) do
      assert.are.equal(("bad argument 'offset' to 'bytes' (%s%s)"):format(OFFSET, case[2]),
        message(pkt.bytes, pkt, case[1]))
    end
  end)
end)

describe("packet:patch", function()
  it("overwrites bytes and keeps the length", function()
    for _, offset in ipairs({ 0, 1, 100, 254 }) do
      local pkt = nfqueue.packet(BYTES)
      assert.are.equal(0, select("#", pkt:patch(offset, "\xaa\xbb")))
      assert.are.equal(BYTES:sub(1, offset) .. "\xaa\xbb" .. BYTES:sub(offset + 3), pkt:bytes())
    end
    local pkt = nfqueue.packet(BYTES)
    pkt:patch(256, "")
    pkt:patch(0, BYTES:reverse())
    assert.are.equal(BYTES:reverse(), pkt:bytes())
  end)

  it("refuses to reach beyond the end", function()
    local pkt = nfqueue.packet(BYTES)
    for _, case in ipairs({ { 255, "ab" }, { 256, "a" }, { 257, "" }, { 0, BYTES .. "x" }, { math.maxinteger, "a" },
      { 0, ("x"):rep(1 << 20) } }) do
      assert.are.equal(("bad argument 'offset' to 'patch' (%d and %d bytes reach beyond the packet's 256)")
        :format(case[1], #case[2]), message(pkt.patch, pkt, case[1], case[2]))
    end
    for _, case in ipairs(NO_OFFSETS) do
      assert.are.equal(("bad argument 'offset' to 'patch' (%s%s)"):format(OFFSET, case[2]),
        message(pkt.patch, pkt, case[1], "a"))
    end
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.are.equal(("bad argument 'bytes' to 'patch' (string expected, got %s)"):format(case[2]),
        message(pkt.patch, pkt, 0, case[1]))
    end
    assert.are.equal(BYTES, pkt:bytes())
  end)

  it("refuses truncated packets, with the writers of numbers", function()
    local whole = datagram.right(datagram.ip4(datagram.udp("question")))
    local expected = "cannot edit this packet: the kernel copied only part of it (raise copy_range)"
    local pkt = nfqueue.packet(whole:sub(1, 30), { length = #whole })
    assert.are.equal(expected, message(pkt.patch, pkt, 8, "\1"))
    for _, width in ipairs(WIDTHS) do
      assert.are.equal(expected, message(pkt[width[1]], pkt, 24, 1))
    end
    pkt = nfqueue.packet("", { length = 36 })
    assert.are.equal("bad argument 'offset' to 'u8' (0 and 1 bytes reach beyond the packet's 0)",
      message(pkt.u8, pkt, 0, 1))
    assert.is_nil(pkt.verdict)
  end)
end)

describe("packet:unpack", function()
  it("reads values and the offset behind the last", function()
    local pkt = nfqueue.packet(BYTES)
    assert.are.same({ 0x0001, 0x02030405, 6 }, { pkt:unpack(">I2I4") })
    assert.are.same({ 0x0504, 6 }, { pkt:unpack("<I2", 4) })
    assert.are.same({ 256 }, { pkt:unpack("", 256) })
    assert.are.same({ "\3\4", 5 }, { pkt:unpack("s1", 2) }) -- the byte at 2 is the length
    local values = { pkt:unpack(("B"):rep(250)) }
    assert.are.same({ 251, 249, 250 }, { #values, values[250], values[251] })
    assert.are.same({ 0 }, { nfqueue.packet(""):unpack("") })
  end)

  it("refuses what is beyond the packet, and bad formats", function()
    local pkt = nfqueue.packet(BYTES)
    assert.matches("data string too short", message(pkt.unpack, pkt, ">I4", 253), 1, true)
    assert.matches("data string too short", message(pkt.unpack, pkt, "B", 256), 1, true)
    assert.matches("invalid format option 'y'", message(pkt.unpack, pkt, "y"), 1, true)
    assert.are.equal("bad argument 'offset' to 'unpack' (257 and 0 bytes reach beyond the packet's 256)",
      message(pkt.unpack, pkt, "B", 257))
    for _, case in ipairs(NO_OFFSETS) do
      assert.are.equal(("bad argument 'offset' to 'unpack' (%s%s)"):format(OFFSET, case[2]),
        message(pkt.unpack, pkt, "B", case[1]))
    end
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.are.equal(("bad argument 'format' to 'unpack' (string expected, got %s)"):format(case[2]),
        message(pkt.unpack, pkt, case[1]))
    end
  end)
end)

describe("packet:find", function()
  it("finds plain bytes from an offset on", function()
    local pkt = nfqueue.packet("a.b%w\0a.b")
    for _, case in ipairs({
      { 0, "a.b" }, { 6, "a.b", 1 }, { 6, "a.b", 6 }, { nil, "a.b", 7 }, { 3, "%w" }, { 5, "\0" }, { nil, "a?b" },
      { 0, "" }, { 9, "", 9 }, { 4, "", 4 }, { nil, "b", 9 }, { 0, "a.b%w\0a.b" }, { nil, "a.b%w\0a.b", 1 },
      { nil, "a.b%w\0a.bc" }, { 8, "b", 3 },
    }) do
      assert.are.equal(case[1], pkt:find(case[2], case[3]))
    end
    assert.is_nil(nfqueue.packet(""):find("a"))
    assert.are.equal(0, nfqueue.packet(""):find(""))
  end)

  it("refuses what is beyond the packet", function()
    local pkt = nfqueue.packet(BYTES)
    assert.are.equal("bad argument 'offset' to 'find' (257 and 0 bytes reach beyond the packet's 256)",
      message(pkt.find, pkt, "a", 257))
    for _, case in ipairs(NO_OFFSETS) do
      assert.are.equal(("bad argument 'offset' to 'find' (%s%s)"):format(OFFSET, case[2]),
        message(pkt.find, pkt, "a", case[1]))
    end
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.are.equal(("bad argument 'bytes' to 'find' (string expected, got %s)"):format(case[2]),
        message(pkt.find, pkt, case[1]))
    end
  end)
end)
