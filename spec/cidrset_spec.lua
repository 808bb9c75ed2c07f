-- nfqueue.cidrset: prefixes with values, the longest that holds an address is found.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message

after_each(unit.cleanup)

describe("an address set", function()
  it("finds the value of the longest prefix that holds an address", function()
    local set = nfqueue.cidrset({
      "10.0.0.0/8", ["10.1.0.0/16"] = "guests", ["10.1.2.0/24"] = false, ["10.1.2.3"] = 7, ["192.0.2.0/25"] = 0.5,
      ["2001:db8::/32"] = "doc", ["2001:db8:1::/48"] = "lab", ["2001:db8:1::1/128"] = "host", ["::/1"] = "low",
    })
    for address, value in pairs({
      ["10.0.0.0"] = true, ["10.255.255.255"] = true, ["10.0.255.255"] = true, ["10.1.0.0"] = "guests",
      ["10.1.255.255"] = "guests", ["10.2.0.0"] = true, ["10.1.2.0"] = false, ["10.1.2.2"] = false, ["10.1.2.3"] = 7,
      ["10.1.2.4"] = false, ["10.1.3.0"] = "guests", ["192.0.2.0"] = 0.5, ["192.0.2.127"] = 0.5,
      ["2001:db8::"] = "doc", ["2001:DB8:0:ffff:ffff:ffff:ffff:ffff"] = "doc", ["2001:db8:1::"] = "lab",
      ["2001:db8:1::1"] = "host", ["2001:db8:1::2"] = "lab", ["2001:db8:2::"] = "doc", ["2001:db9::"] = "low",
      ["::"] = "low", ["::1"] = "low", ["7fff::"] = "low", ["::10.1.2.3"] = "low",
    }) do
      assert.equal(value, set:find(address), address)
      assert.equal(math.type(value), math.type(set:find(address)), address)
    end
    for _, address in ipairs({ "9.255.255.255", "11.0.0.0", "0.0.0.0", "255.255.255.255", "192.0.2.128", "8000::",
      "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" }) do
      assert.is_nil(set:find(address), address)
    end
    assert.equal(9, #set)
  end)

  it("reaches to the ends of both families", function()
    local set = nfqueue.cidrset({ ["0.0.0.0/0"] = "all", ["255.255.255.255"] = "last", ["0.0.0.0"] = "first",
      ["::/0"] = "all6", ["::"] = "first6", ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] = "last6",
      ["fe80::/10"] = "link" })
    assert.equal("first", set:find("0.0.0.0"))
    assert.equal("all", set:find("0.0.0.1"))
    assert.equal("all", set:find("255.255.255.254"))
    assert.equal("last", set:find("255.255.255.255"))
    assert.equal("first6", set:find("::"))
    assert.equal("all6", set:find("::1"))
    assert.equal("link", set:find("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
    assert.equal("all6", set:find("fec0::"))
    assert.equal("last6", set:find("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
  end)

  it("keeps the families apart: an IPv4 address in an IPv6 one is an IPv6 address", function()
    local set = nfqueue.cidrset({ "192.0.2.1", "::/96" })
    assert.is_nil(set:find("::ffff:192.0.2.1"))
    assert.is_true(set:find("::192.0.2.2"))
    assert.is_nil(set:find("192.0.2.2"))
  end)

  it("may be empty", function()
    for _, set in ipairs({ nfqueue.cidrset(), nfqueue.cidrset(nil), nfqueue.cidrset({}) }) do
      assert.equal(0, #set)
      assert.is_nil(set:find("10.0.0.1"))
      assert.is_nil(set:find("::"))
    end
  end)

  it("takes raw addresses too", function()
    local set = nfqueue.cidrset({ ["192.0.2.0/24"] = "four", ["2001:db8::/32"] = "six" })
    assert.equal("four", set:find_bytes("\192\0\2\255"))
    assert.is_nil(set:find_bytes("\192\0\3\0"))
    assert.equal("six", set:find_bytes("\x20\x01\x0d\xb8" .. ("\xff"):rep(12)))
    assert.is_nil(set:find_bytes(("\0"):rep(16)))
    -- "::1f" is an address as text, and 58.58.49.102 as bytes.
    set = nfqueue.cidrset({ ["58.58.49.102"] = "bytes", ["::1f"] = "text" })
    assert.equal("bytes", set:find_bytes("::1f"))
    assert.equal("text", set:find("::1f"))
  end)

  it("takes the addresses of packets", function()
    local set = nfqueue.cidrset({ ["192.0.2.0/24"] = "source", ["198.51.100.0/24"] = "target" })
    local handler = unit.file([[
      local set = require("nfqueue").cidrset({ ["192.0.2.0/24"] = "source" })
      return function(pkt)
        if set:find(pkt.ip.src) == "source" and set:find_bytes(pkt.ip.src_bytes) == "source" then pkt:drop() end
      end
    ]])
    local bytes = string.pack(">BBI2I4BBI2I4I4", 0x45, 0, 20, 0, 64, 17, 0, 0xc0000207, 0xc6336401)
    local pkt = nfqueue.packet(bytes)
    assert.equal("source", set:find(pkt.ip.src))
    assert.equal("target", set:find_bytes(pkt.ip.dst_bytes))
    assert.equal("drop", (assert(nfqueue.load(handler))(pkt)))
  end)

  it("keeps values of every kind, and any bytes", function()
    for _, value in ipairs({ true, false, 0, -5, math.maxinteger, 1.5, 2.0, math.huge, "", "text", "\0\255",
      ("v"):rep(255) }) do
      local found = nfqueue.cidrset({ ["10.0.0.0/8"] = value }):find("10.1.2.3")
      assert.equal(value, found)
      assert.equal(math.type(value), math.type(found))
    end
  end)

  it("keeps apart numbers that are equal and not the same", function()
    local set = nfqueue.cidrset({ ["10.0.0.0/8"] = 0.5, ["11.0.0.0/8"] = 0.5, ["12.0.0.0/8"] = 0.0,
      ["13.0.0.0/8"] = -0.0, ["14.0.0.0/8"] = 0 })
    assert.same({ 0.5, 0.5 }, { set:find("10.0.0.1"), set:find("11.0.0.1") })
    assert.same({ math.huge, -math.huge }, { 1 / set:find("12.0.0.1"), 1 / set:find("13.0.0.1") })
    assert.equal("integer", math.type(set:find("14.0.0.1")))
  end)

  -- Against a search through all prefixes, bit by bit.
  describe("finds the same as a look at every prefix", function()
    local random = math.random

    --- Bytes that often begin alike, with the bits from `length` on cleared.
    local function some_bytes(size, length, spread)
      local bytes = {}
      for i = 1, size do
        local kind = random(10)
        bytes[i] = (spread and i <= 4 or kind > 8) and random(0, 255) or kind <= 3 and 0 or kind <= 5 and 255
          or random(0, 3)
      end
      for bit = length, size * 8 - 1 do
        bytes[bit // 8 + 1] = bytes[bit // 8 + 1] & ~(128 >> bit % 8)
      end
      return string.char(table.unpack(bytes))
    end

    local function cut(bytes, length)
      local list = { bytes:byte(1, -1) }
      for bit = length, #bytes * 8 - 1 do
        list[bit // 8 + 1] = list[bit // 8 + 1] & ~(128 >> bit % 8)
      end
      return string.char(table.unpack(list))
    end

    local function print_address(bytes)
      if #bytes == 4 then
        return ("%d.%d.%d.%d"):format(bytes:byte(1, -1))
      end
      return (("%x:"):rep(8):sub(1, -2):format(string.unpack(">I2I2I2I2I2I2I2I2", bytes)))
    end

    --- The first or last address of a prefix, or the one before or behind it.
    local function at_end(bytes, length)
      local list = { bytes:byte(1, -1) }
      local last = random(2) == 1
      for bit = length, last and #bytes * 8 - 1 or -1 do
        list[bit // 8 + 1] = list[bit // 8 + 1] | 128 >> bit % 8
      end
      if random(2) == 1 then
        local carry, at = last and 1 or -1, #list
        while carry ~= 0 and at > 0 do
          list[at] = list[at] + carry
          carry = list[at] > 255 and 1 or list[at] < 0 and -1 or 0
          list[at] = list[at] & 255
          at = at - 1
        end
      end
      return string.char(table.unpack(list))
    end

    for _, case in ipairs({ -- prefixes, different values, the longest prefix of each family, over all addresses
      { 1, 5, 32, 128 }, { 30, 5, 32, 128 }, { 300, 3, 32, 128 }, { 300, 300, 32, 64 }, { 9000, 5, 32, 64, true },
      { 9000, 5000, 32, 128, true }, { 9000, 5, 16, 32 }, { 20000, 2, 32, 64, true },
    }) do
      it(("with %d prefixes of at most %d and %d bits and %d values"):format(case[1], case[3], case[4], case[2]),
        function()
          local seed = os.time() + case[1]
          math.randomseed(seed)
          local entries, lists, ends = {}, { [4] = {}, [16] = {} }, {}
          for i = 1, case[1] do
            local size = random(2) == 1 and 4 or 16
            -- Most are long, so that not all is covered.
            local most = size == 4 and case[3] or case[4]
            local length = random(4) == 1 and random(0, most) or random(most // 2, most)
            local bytes = some_bytes(size, length, case[5])
            local value = random(case[2])
            value = value % 3 == 0 and ("value %d"):format(value) or value % 7 == 0 and false or value
            lists[size][length] = lists[size][length] or {}
            lists[size][length][bytes] = value
            entries[print_address(bytes) .. "/" .. length] = value
            ends[i] = { bytes, length }
          end
          local set = nfqueue.cidrset(entries)
          for i = 1, 2000 do
            local size = random(2) == 1 and 4 or 16
            local address = some_bytes(size, size * 8, case[5])
            if i % 2 == 0 then
              address = at_end(table.unpack(ends[random(#ends)]))
              size = #address
            end
            local wanted
            for length = size * 8, 0, -1 do
              local values = lists[size][length]
              if values and wanted == nil then
                wanted = values[cut(address, length)]
              end
            end
            local label = ("seed %d, %s"):format(seed, print_address(address))
            assert.equal(wanted, set:find_bytes(address), label)
            assert.equal(wanted, set:find(print_address(address)), label)
          end
        end)
    end

    for _, count in ipairs({ 255, 256, 65535, 65536 }) do
      it(("with %d different values"):format(count), function()
        for _, form in ipairs({ "10.%d.%d.%d", "2001:db8:%x:%x::/64", "2001:db8::%x:%x:%x" }) do
          local parts = form:find("/64", 1, true) and 2 or 3
          local function name(i)
            return form:format(table.unpack({ i >> 16, i >> 8 & 255, i & 255 }, 4 - parts))
          end
          local entries = {}
          for i = 1, count do
            entries[name(i)] = i
          end
          local set = nfqueue.cidrset(entries)
          local found = 0
          for text, value in pairs(entries) do
            found = found + (set:find((text:gsub("/64", ""))) == value and 1 or 0)
          end
          assert.equal(count, found)
        end
      end)
    end
  end)

  describe("refuses as an address", function()
    local set = nfqueue.cidrset({ "0.0.0.0/0", "::/0" })

    for _, text in ipairs({
      "", " ", "10.0.0.1 ", " 10.0.0.1", "10.0.0", "10.0.0.0.1", "10.0.0.256", "10.0.0.01", "10.0.0.1/32", "10..0.1",
      ".10.0.0.1", "10.0.0.1.", "1e1.0.0.1", "0x0a.0.0.1", "+1.0.0.1", "-1.0.0.1", "10.0.0.1\0", "167772161", "example",
      ":", ":::", "::1::", "1::2::3", ":1", "1:", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::8", "::12345",
      "::g", "fe80::1%lo", "[::1]", "::1.2.3", "::1.2.3.4.5", "1.2.3.4::", "::1.2.3.4:5", "1:2:3:4:5:6:7:1.2.3.4",
      "::ffff:1.2.3.256", "1:2:3:4:5:6:7:", ("1"):rep(1000),
    }) do
      it(("%q"):format(text), function()
        assert.matches("^bad argument 'address' to 'find' %(IPv4 or IPv6 address expected, got ",
          message(set.find, set, text))
      end)
    end

    it("what is no string", function()
      for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { true, "true" }, { {}, "table" } }) do
        assert.equal("bad argument 'address' to 'find' (IPv4 or IPv6 address expected, got " .. case[2] .. ")",
          message(set.find, set, case[1]))
        assert.equal("bad argument 'address' to 'find_bytes' (string of 4 or 16 bytes expected, got " .. case[2] .. ")",
          message(set.find_bytes, set, case[1]))
      end
    end)

    it("bytes of another length", function()
      for _, length in ipairs({ 0, 3, 5, 15, 17, 100 }) do
        assert.matches("^bad argument 'address' to 'find_bytes' %(string of 4 or 16 bytes expected, got ",
          message(set.find_bytes, set, ("x"):rep(length)))
      end
    end)
  end)

  it("takes every way to write an IPv6 address", function()
    for text, bytes in pairs({
      ["::"] = ("\0"):rep(16), ["0:0:0:0:0:0:0:0"] = ("\0"):rep(16), ["::1"] = ("\0"):rep(15) .. "\1",
      ["1::"] = "\0\1" .. ("\0"):rep(14), ["1:2:3:4:5:6:7:8"] = "\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\8",
      ["1:2:3::6:7:8"] = "\0\1\0\2\0\3\0\0\0\0\0\6\0\7\0\8", ["::3:4:5:6:7:8"] = "\0\0\0\0\0\3\0\4\0\5\0\6\0\7\0\8",
      ["1:2:3:4:5:6::"] = "\0\1\0\2\0\3\0\4\0\5\0\6\0\0\0\0", ["1:2:3:4:5:6:7::"] = "\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\0",
      ["::2:3:4:5:6:7:8"] = "\0\0\0\2\0\3\0\4\0\5\0\6\0\7\0\8",
      ["1:2:3:4:5:6:1.2.3.4"] = "\0\1\0\2\0\3\0\4\0\5\0\6\1\2\3\4", ["::1.2.3.4"] = ("\0"):rep(12) .. "\1\2\3\4",
      ["::ffff:255.255.255.255"] = ("\0"):rep(10) .. ("\255"):rep(6),
      ["aBcD::00eF"] = "\xab\xcd" .. ("\0"):rep(13) .. "\xef", ["0001::0000"] = "\0\1" .. ("\0"):rep(14),
    }) do
      local set = nfqueue.cidrset({ text })
      assert.is_true(set:find_bytes(bytes), text)
      assert.is_true(set:find(text), text)
      assert.equal(1, #set)
    end
  end)

  describe("refuses as an entry", function()
    for _, case in ipairs({
      { { "10.0.0.1/8" }, "'10.0.0.1/8' has bits set behind its prefix length (10.0.0.0/8?)" },
      { { "2001:db8::1/64" }, "'2001:db8::1/64' has bits set behind its prefix length (2001:db8::/64?)" },
      { { "255.255.255.255/0" }, "'255.255.255.255/0' has bits set behind its prefix length (0.0.0.0/0?)" },
      { { "10.0.0.0/33" }, "'10.0.0.0/33' has a prefix length that is not from 0 to 32" },
      { { "::/129" }, "'::/129' has a prefix length that is not from 0 to 128" },
      { { "10.0.0.0/" }, "'10.0.0.0/' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/08" }, "'10.0.0.0/08' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/-1" }, "'10.0.0.0/-1' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/8/8" }, "'10.0.0.0/8/8' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/4294967304" }, "'10.0.0.0/4294967304' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/255.0.0.0" }, "'10.0.0.0/255.0.0.0' has a prefix length that is not from 0 to 32" },
      { { "" }, "'' is no IPv4 or IPv6 address or prefix" },
      { { "example.com" }, "'example.com' is no IPv4 or IPv6 address or prefix" },
      { { nam = "x" }, "'nam' is no IPv4 or IPv6 address or prefix" },
      { { "10.0.0.0/8 office" }, "'10.0.0.0/8 office' has a prefix length that is not from 0 to 32" },
      { { "10.0.0.0/8", ["10.0.0.0/8"] = "x" }, "'10.0.0.0/8' is given twice, with different values" },
      { { ["::1"] = 1, ["0::1"] = 2 }, "'::1/128' is given twice, with different values" },
    }) do
      it(tostring(case[1][1] or next(case[1])), function()
        assert.equal("bad argument 'entries' to 'cidrset' (" .. case[2] .. ")", message(nfqueue.cidrset, case[1]))
      end)
    end

    for _, case in ipairs({
      { { 5 }, "(string expected, got 5)" }, { { {} }, "(string expected, got table)" },
      { { [true] = 1 }, "(string expected, got true)" }, { { [1.5] = 1 }, "(string expected, got 1.5)" },
      { { ["10.0.0.0/8"] = {} }, "(string, number or boolean expected, got table)" },
      { { ["10.0.0.0/8"] = print }, "(string, number or boolean expected, got function)" },
      { { ["10.0.0.0/8"] = ("v"):rep(256) }, "(string of at most 255 bytes expected, got a string of 256 bytes)" },
    }) do
      it(case[2], function()
        assert.equal("bad argument 'entries' to 'cidrset' " .. case[2], message(nfqueue.cidrset, case[1]))
      end)
    end

    it("anything but a table, and a name that is none", function()
      for _, case in ipairs({ { 5, "5" }, { "10.0.0.0/8", "'10.0.0.0/8'" }, { true, "true" } }) do
        assert.equal("bad argument 'entries' to 'cidrset' (table expected, got " .. case[2] .. ")",
          message(nfqueue.cidrset, case[1]))
      end
      assert.equal("bad argument 'name' to 'cidrset' (string expected, got 5)", message(nfqueue.cidrset, { name = 5 }))
      assert.equal("bad argument 'name' to 'cidrset' (string of 1 to 255 bytes without a zero expected, got '')",
        message(nfqueue.cidrset, { name = "" }))
    end)
  end)

  it("takes a prefix twice that has one value", function()
    local set = nfqueue.cidrset({ "10.0.0.0/8", "10.0.0.0/8", ["10.0.0.0/8"] = true, ["::1"] = 5, ["0::1"] = 5 })
    assert.equal(2, #set)
    assert.equal(5, set:find("::1"))
  end)
end)

describe("an address set with a name", function()
  it("is one, asked for with the same entries in any form, or with none", function()
    local first = nfqueue.cidrset({ name = "nets", "10.0.0.0/8", ["::1"] = "me" })
    for _, entries in ipairs({ { name = "nets" }, { name = "nets", ["10.0.0.0/8"] = true, ["0::1/128"] = "me" } }) do
      local again = nfqueue.cidrset(entries)
      assert.equal("me", again:find("::1"))
    end
    assert.are_not.equal(first, nfqueue.cidrset({ name = "nets" }))
    local path = unit.file("192.0.2.0/24 loaded")
    assert.equal(1, nfqueue.cidrset({ name = "nets" }):load(path))
    assert.equal("loaded", first:find("192.0.2.1"))
    assert.is_nil(first:find("::1"))
    assert.equal("loaded", nfqueue.cidrset({ name = "nets", "10.0.0.0/8", ["::1"] = "me" }):find("192.0.2.1"))
  end)

  it("stays when nobody holds it", function()
    nfqueue.cidrset({ name = "kept", "10.0.0.0/8" })
    collectgarbage()
    collectgarbage()
    assert.is_true(nfqueue.cidrset({ name = "kept" }):find("10.0.0.1"))
  end)

  it("cannot have other entries", function()
    nfqueue.cidrset({ name = "fixed", "10.0.0.0/8", ["::1"] = "me" })
    for _, entries in ipairs({ { "10.0.0.0/8" }, { "10.0.0.0/8", ["::1"] = "you" }, { "10.0.0.0/8", "::1" },
      { "10.0.0.0/9", ["::1"] = "me" }, { "10.0.0.0/8", ["::1"] = "me", ["::2"] = 0 } }) do
      entries.name = "fixed"
      assert.equal("bad argument 'name' to 'cidrset' ('fixed' was made with other entries)",
        message(nfqueue.cidrset, entries))
    end
    nfqueue.cidrset({ name = "empty" })
    assert.equal("bad argument 'name' to 'cidrset' ('empty' was made with other entries)",
      message(nfqueue.cidrset, { name = "empty", "::1" }))
  end)

  it("says what it is", function()
    assert.equal("cidrset 'fixed'", tostring(nfqueue.cidrset({ name = "fixed" })))
    assert.equal("cidrset", tostring(nfqueue.cidrset()))
    assert.equal("nfqueue.cidrset", getmetatable(nfqueue.cidrset()))
  end)
end)

describe("an address set from files", function()
  it("reads prefixes, values and comments", function()
    local set = nfqueue.cidrset({ "127.0.0.1" })
    local path = unit.file("# a list\n\n10.0.0.0/8\n  10.1.0.0/16 guests\n\t10.2.0.0/16\tthe  other guests \t\r\n"
      .. "10.3.0.0/16 # no value\n10.4.0.0/16 value # comment\n10.5.0.0/16 C# is;no comment ; but this\n"
      .. "; another list's comment\n2001:db8::/32 ; SBL256894\n192.0.2.1 \"quoted\"\n \n10.6.0.0/16 true\n::1 me")
    assert.equal(10, set:load(path))
    assert.equal(10, #set)
    assert.is_nil(set:find("127.0.0.1")) -- replaced
    for address, value in pairs({ ["10.9.0.0"] = true, ["10.1.1.1"] = "guests", ["10.2.1.1"] = "the  other guests",
      ["10.3.0.0"] = true, ["10.4.0.0"] = "value", ["10.5.0.0"] = "C# is;no comment", ["2001:db8::1"] = true,
      ["192.0.2.1"] = '"quoted"', ["10.6.0.0"] = "true", ["::1"] = "me" }) do
      assert.equal(value, set:find(address), address)
    end
  end)

  it("reads what editors leave: a byte order mark, no newline at the end, nothing at all", function()
    local set = nfqueue.cidrset()
    assert.equal(1, set:load(unit.file("\xef\xbb\xbf10.0.0.0/8\r\n")))
    assert.is_true(set:find("10.0.0.1"))
    assert.equal(1, set:load(unit.file("10.0.0.0/8 x")))
    assert.equal("x", set:find("10.0.0.1"))
    for _, text in ipairs({ "", "\n", "\n\n", "# nothing", "\xef\xbb\xbf" }) do
      assert.equal(0, set:load(unit.file(text)))
      assert.is_nil(set:find("10.0.0.1"))
    end
  end)

  it("lets the last value of a prefix count, over all files", function()
    local set = nfqueue.cidrset()
    local first, second = unit.file("10.0.0.0/8 a\n10.0.0.0/8 b\n::1 a\n"), unit.file("::1 b\n192.0.2.1\n")
    assert.equal(2, set:load(first))
    assert.equal("b", set:find("10.0.0.1"))
    assert.equal(3, set:load(first, second))
    assert.equal("b", set:find("::1"))
    assert.is_true(set:find("192.0.2.1"))
    assert.equal(3, set:load(second, first))
    assert.equal("a", set:find("::1"))
  end)

  it("sees a file that has changed, at once", function()
    local set = nfqueue.cidrset()
    local path = unit.file("")
    for i = 1, 50 do
      local file = assert(io.open(path, "w"))
      file:write(("10.0.0.%d\n"):format(i + 100))
      file:close()
      assert.equal(1, set:load(path))
      assert.is_true(set:find("10.0.0." .. i + 100))
    end
  end)

  it("takes long lists, whose lines lie across the pieces in which they are read", function()
    local lines = {}
    for i = 1, 40000 do
      lines[i] = ("10.%d.%d.%d value %d"):format(i // 65536, i // 256 % 256, i % 256, i)
    end
    local set = nfqueue.cidrset()
    assert.equal(40000, set:load(unit.file(table.concat(lines, "\n"))))
    for i = 1, 40000, 7 do
      assert.equal("value " .. i, set:find(("10.%d.%d.%d"):format(i // 65536, i // 256 % 256, i % 256)))
    end
    assert.is_nil(set:find("10.0.0.0"))
  end)

  it("reads from a pipe", function()
    local path = os.tmpname()
    os.execute(("rm %s && mkfifo %s && { printf '10.0.0.0/8\\n::1' >%s & }"):format(path, path, path))
    local set = nfqueue.cidrset()
    assert.equal(2, set:load(path))
    os.remove(path)
  end)

  describe("refuses", function()
    for _, case in ipairs({ -- text, line, problem
      { "10.0.0.0/8\nexample.com\n", 2, "'example.com' is no IPv4 or IPv6 address or prefix" },
      { "10.0.0.0/8, x\n", 1, "'10.0.0.0/8,' has a prefix length that is not from 0 to 32" },
      { "\n\n10.0.0.1/8 x # y\n", 3, "'10.0.0.1/8' has bits set behind its prefix length (10.0.0.0/8?)" },
      { "10.0.0.0/40", 1, "'10.0.0.0/40' has a prefix length that is not from 0 to 32" },
      { "::/200", 1, "'::/200' has a prefix length that is not from 0 to 128" },
      { "10.0.0.0/8#x", 1, "'10.0.0.0/8#x' has a prefix length that is not from 0 to 32" },
      { "10.0.0.0/8\n\xff\xfe\0x", 2, "'???x' is no IPv4 or IPv6 address or prefix" },
      { "10.0.0.0\0/8", 1, "'10.0.0.0?/8' is no IPv4 or IPv6 address or prefix" },
      { ("x"):rep(300), 1, "'" .. ("x"):rep(47) .. "...' is no IPv4 or IPv6 address or prefix" },
      { "10.0.0.0/8 " .. ("v"):rep(256), 1, "'" .. ("v"):rep(47) .. "...' is a value of more than 255 bytes" },
      { "10.0.0.0/8\n" .. ("x"):rep(70000) .. "\n", 2, "'" .. ("x"):rep(47) .. "...' begins a line of 64 KB or more" },
      { "<html>\n", 1, "'<html>' is no IPv4 or IPv6 address or prefix" },
    }) do
      it(("%q in line %d"):format(case[1]:sub(1, 30), case[2]), function()
        local set = nfqueue.cidrset({ ["192.0.2.0/24"] = "before" })
        local path = unit.file(case[1])
        assert.same({ nil, ("%s:%d: %s"):format(path, case[2], case[3]), 22 }, { set:load(path) }) -- EINVAL
        assert.equal("before", set:find("192.0.2.1"))
        assert.is_nil(set:find("10.0.0.0"))
        assert.equal(1, #set)
      end)
    end

    it("all of them when one is wrong, and names it", function()
      local set = nfqueue.cidrset({ ["192.0.2.0/24"] = "before" })
      local good, bad = unit.file("10.0.0.0/8\n10.1.0.0/16\n"), unit.file("::1\n\nx\n")
      assert.same({ nil, bad .. ":3: 'x' is no IPv4 or IPv6 address or prefix", 22 }, { set:load(good, bad) })
      assert.same({ nil, bad .. ":3: 'x' is no IPv4 or IPv6 address or prefix", 22 }, { set:load(bad, good) })
      assert.same({ nil, "cannot read /nowhere/list: No such file or directory", 2 },
        { set:load(good, "/nowhere/list") })
      assert.equal("before", set:find("192.0.2.1"))
      assert.equal(1, #set)
    end)

    it("what cannot be read", function()
      local set = nfqueue.cidrset()
      assert.same({ nil, "cannot read /nowhere/list: No such file or directory", 2 }, { set:load("/nowhere/list") })
      assert.same({ nil, "cannot read /tmp: Is a directory", 21 }, { set:load("/tmp") })
      local _, problem, errno = set:load("/dev/zero")
      assert.equal("/dev/zero:1: '" .. ("?"):rep(47) .. "...' begins a line of 64 KB or more", problem)
      assert.equal(22, errno)
    end)

    it("paths that are none", function()
      local set = nfqueue.cidrset()
      assert.equal("bad argument 'path' to 'load' (string expected, got nothing)", message(set.load, set))
      for _, case in ipairs({ { nil, "string expected, got nothing" }, { 5, "string expected, got 5" },
        { {}, "string expected, got table" }, { "", "path of a file expected, got ''" },
        { "/etc/hosts\0x", "path of a file expected, got '/etc/hosts'" } }) do
        assert.equal(("bad argument 'path' to 'load' (%s)"):format(case[2]), message(set.load, set, case[1]))
        assert.equal(("bad argument 'path' to 'load' (%s)"):format(case[2]), message(set.load, set, "/x", case[1]))
      end
    end)
  end)

  it("holds a million prefixes", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    for i = 0, 999999 do
      file:write(i % 2 == 0 and ("%d.%d.%d.0/24 AS%d\n"):format(i >> 16, i >> 8 & 255, i & 255, i % 1000)
        or ("2001:%x:%x::/48 AS%d\n"):format(i >> 8, i & 255, i % 1000))
    end
    file:close()
    local set = nfqueue.cidrset()
    assert.equal(1000000, set:load(path))
    os.remove(path)
    for i = 0, 999999, 991 do
      assert.equal("AS" .. i % 1000, set:find(i % 2 == 0 and ("%d.%d.%d.77"):format(i >> 16, i >> 8 & 255, i & 255)
        or ("2001:%x:%x::1"):format(i >> 8, i & 255)))
    end
    assert.is_nil(set:find("0.0.1.0"))
    assert.is_nil(set:find("2001::1"))
  end)
end)

describe("methods of address sets", function()
  it("raise for anything else, and fields that they do not have", function()
    local set = nfqueue.cidrset()
    for _, method in ipairs({ "find", "find_bytes", "load" }) do
      for _, foreigner in ipairs(unit.foreigners()) do
        assert.equal(("bad argument 'self' to '%s' (cidrset expected, got %s)"):format(method, foreigner.type),
          message(set[method], foreigner.value, "::1"))
      end
      assert.equal(("bad argument 'self' to '%s' (cidrset expected, got userdata)"):format(method),
        message(set[method], nfqueue.domainset(), "::1"))
    end
    assert.equal("cidrset has no field 'has'", message(function() return set.has end))
    assert.equal("cidrset has no field '10.0.0.0/8' to assign to", message(function() set["10.0.0.0/8"] = true end))
  end)
end)
