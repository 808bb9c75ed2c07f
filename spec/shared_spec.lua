-- nfqueue.shared: values by key for all queues, without queues; time is the clock that the spec moves.

local core = require("nfqueue.core")
local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message
local count = 0

after_each(unit.cleanup)

--- A store of a name that nobody else has.
local function new(options)
  count = count + 1
  return nfqueue.shared("shared_spec " .. count, options)
end

--- What a process of its own prints.
local function run_alone(text, before)
  local head = "package.path, package.cpath = %q, %q\nlocal nfqueue = require('nfqueue')\n"
  return net.must((before or "") .. net.lua .. " " .. unit.file(head:format(package.path, package.cpath) .. text))
end

local function sorted(list)
  table.sort(list)
  return list
end

local VALUES = {
  { "an integer", 5 }, { "zero", 0 }, { "the least integer", math.mininteger }, { "the most", math.maxinteger },
  { "a float", 0.1 }, { "a float that is whole", 3.0 }, { "infinity", math.huge }, { "minus zero", -0.0 },
  { "true", true }, { "false", false }, { "an empty string", "" }, { "a string", "text" },
  { "any bytes", "\0\1\255\n\0" }, { "a kilobyte", ("x"):rep(1024) }, { "a megabyte", ("xyz"):rep(349525) },
}

local KEYS = {
  { "one byte", "a" }, { "nothing", "" }, { "16 bytes, all of a first block", ("k"):rep(16) },
  { "17 bytes", ("k"):rep(17) }, { "76 bytes, all of a second block", ("k"):rep(76) }, { "77 bytes", ("k"):rep(77) },
  { "any bytes", "\0\255\0" }, { "65,535 bytes", ("k"):rep(65535) },
}

describe("a shared store", function()
  describe("keeps", function()
    for _, case in ipairs(VALUES) do
      it(case[1], function()
        local store = new()
        assert.is_true(store:set("key", case[2]))
        local value = store:get("key")
        assert.equal(case[2], value)
        assert.equal(math.type(case[2]), math.type(value))
        assert.equal(tostring(case[2]), tostring(value)) -- -0.0
      end)
    end

    for _, case in ipairs(KEYS) do
      it("a value for a key of " .. case[1], function()
        local store = new()
        for _, value in ipairs({ 1, ("v"):rep(100), false }) do
          assert.is_true(store:set(case[2], value))
          assert.equal(value, store:get(case[2]))
          assert.same({ case[2] }, store:keys())
        end
        assert.is_nil(store:get(case[2]:sub(1, -2) .. "x"))
        assert.is_true(store:delete(case[2]))
        assert.is_nil(store:get(case[2]))
        assert.equal(0, store:stats().bytes)
      end)
    end

    it("the value set last, of any kind after any other", function()
      local store = new()
      for _, first in ipairs(VALUES) do
        for _, second in ipairs(VALUES) do
          store:set("key", first[2])
          store:set("key", second[2])
          assert.equal(second[2], store:get("key"))
        end
      end
      assert.equal(1, store:stats().keys)
    end)

    it("keys apart that only begin alike, and gives each its own", function()
      local store = new()
      for length = 0, 300 do
        store:set(("k"):rep(length), length)
      end
      for length = 0, 300 do
        assert.equal(length, store:get(("k"):rep(length)))
      end
    end)
  end)

  it("knows nothing of a key that was never set", function()
    local store = new()
    assert.is_nil(store:get("key"))
    assert.is_false(store:delete("key"))
    assert.same({}, store:keys())
    assert.same({ keys = 0, bytes = 0, evicted = 0, max_bytes = 16 << 20 }, store:stats())
  end)

  it("forgets a key that is deleted, and says whether there was one", function()
    local store = new()
    store:set("key", false)
    assert.is_true(store:delete("key"))
    assert.is_false(store:delete("key"))
    assert.is_nil(store:get("key"))
  end)

  it("lists its keys, and forgets all of them when flushed", function()
    local store = new()
    local keys = {}
    for i = 1, 3000 do
      keys[i] = ("key number %d"):format(i)
      store:set(keys[i], i)
    end
    assert.same(sorted(keys), sorted(store:keys()))
    assert.equal(3000, store:stats().keys)
    assert.equal(0, select("#", store:flush()))
    assert.same({}, store:keys())
    assert.equal(0, store:stats().bytes)
    assert.equal(0, store:stats().evicted)
    store:set("again", 1)
    assert.same({ "again" }, store:keys())
  end)

  describe("add", function()
    it("sets what has no value, and leaves alone what has one", function()
      local store = new()
      assert.is_true(store:add("key", 1))
      assert.is_false(store:add("key", 2))
      assert.equal(1, store:get("key"))
      store:set("false", false)
      assert.is_false(store:add("false", 2))
      store:delete("key")
      assert.is_true(store:add("key", 3))
      assert.equal(3, store:get("key"))
    end)
  end)

  describe("incr", function()
    for _, case in ipairs({ -- what is there, what is added, the sum
      { nil, 1, 1 }, { nil, -2, -2 }, { nil, 0.5, 0.5 }, { 1, 1, 2 }, { 1, -3, -2 }, { 1, 0.5, 1.5 }, { 1.5, 1, 2.5 },
      { 1.5, 1.5, 3.0 }, { 1, 2.0, 3.0 }, { math.maxinteger, 1, math.mininteger },
      { math.mininteger, -1, math.maxinteger }, { math.huge, 1, math.huge }, { 1 << 53, 1.0, 2.0 ^ 53 },
    }) do
      it(("adds %s to %s"):format(case[2], case[1]), function()
        local store = new()
        if case[1] then
          store:set("key", case[1])
        end
        local sum = store:incr("key", case[2])
        assert.equal(case[3], sum)
        assert.equal(math.type(case[3]), math.type(sum))
        assert.equal(case[3], store:get("key"))
      end)
    end

    it("adds one unless it is told otherwise", function()
      local store = new()
      assert.equal(1, store:incr("key"))
      assert.equal(2, store:incr("key"))
      assert.equal(3, store:incr("key", nil, 5))
    end)

    for _, case in ipairs({ { "text", "a string" }, { "5", "a string" }, { true, "true" }, { false, "false" } }) do
      it(("raises for %q, and leaves it"):format(case[1]), function()
        local store = new()
        store:set("key", case[1])
        assert.equal("cannot add to the value of this key: it is " .. case[2], message(store.incr, store, "key", 1))
        assert.equal(case[1], store:get("key"))
      end)
    end
  end)

  describe("with a time to live", function()
    before_each(function() core.tables_clock(1000) end)
    after_each(function() core.tables_clock() end)

    it("forgets what is older, and not before", function()
      local store = new()
      store:set("key", 1, 10)
      core.tables_clock(1009.999)
      assert.equal(1, store:get("key"))
      core.tables_clock(1010)
      assert.is_nil(store:get("key"))
      assert.is_false(store:delete("key"))
      assert.same({}, store:keys())
      assert.equal(0, store:stats().bytes)
    end)

    it("lists only what is still there", function()
      local store = new()
      store:set("short", 1, 1)
      store:set("long", 1, 100)
      store:set("for ever", 1)
      core.tables_clock(1050)
      assert.same({ "for ever", "long" }, sorted(store:keys()))
      assert.equal(3, store:stats().keys)
    end)

    it("takes the time of the value set last, and none as for ever", function()
      local store = new()
      store:set("longer", 1, 10)
      store:set("longer", 2, 20)
      store:set("for ever", 1, 10)
      store:set("for ever", 2)
      store:set("shorter", 1)
      store:set("shorter", 2, 10)
      core.tables_clock(1010)
      assert.equal(2, store:get("longer"))
      assert.equal(2, store:get("for ever"))
      assert.is_nil(store:get("shorter"))
      core.tables_clock(1020)
      assert.is_nil(store:get("longer"))
    end)

    it("add: succeeds again when the time is over", function()
      local store = new()
      assert.is_true(store:add("key", 1, 10))
      core.tables_clock(1005)
      assert.is_false(store:add("key", 2, 10))
      core.tables_clock(1010)
      assert.is_true(store:add("key", 3, 10))
      core.tables_clock(1019)
      assert.equal(3, store:get("key"))
    end)

    it("goes by the clock of the loaded handler that uses it", function()
      core.tables_clock()
      local handler = assert(nfqueue.load(unit.file([[local nfqueue = require("nfqueue")
        local store = nfqueue.shared("clock of a handler")
        local bucket = nfqueue.bucket("clock of a handler", { rate = 1, burst = 1 })
        return function()
          if not store:add("key", 1, 10) then
            return "drop"
          end
          assert(bucket:take("key"))
          assert(not bucket:take("key"))
        end]])))
      local function judge()
        local verdict, problem = handler(nfqueue.packet("x"))
        assert.is_nil(problem)
        return verdict
      end
      assert.equal("accept", judge())
      assert.is_nil(handler:advance(9.999))
      assert.equal("drop", judge())
      assert.is_nil(handler:advance(0.001))
      assert.equal("accept", judge())
    end)

    it("does not go back for a handler that is loaded later", function()
      core.tables_clock()
      local path = unit.file([[
        local limit = require("nfqueue").bucket("clock of later handlers", { rate = 1, burst = 2 })
        return function() return limit:take("key") and "accept" or "drop" end]])
      local verdicts = {}
      local function judge(handler)
        for _ = 1, 3 do
          verdicts[#verdicts + 1] = (handler(nfqueue.packet("x"))):sub(1, 1)
        end
      end
      for _ = 1, 3 do
        local handler = assert(nfqueue.load(path))
        handler:advance(1000)
        judge(handler)
        handler:advance(1)
        judge(handler)
      end
      assert.equal(("aad" .. "add"):rep(3), table.concat(verdicts))
    end)

    it("incr: counts from when the key is made, so that a window ends", function()
      local store = new()
      for second = 0, 59 do
        core.tables_clock(1000 + second)
        assert.equal(second + 1, store:incr("key", 1, 60))
      end
      core.tables_clock(1060)
      assert.equal(1, store:incr("key", 1, 60))
      core.tables_clock(1119)
      assert.equal(2, store:incr("key", 1, 60))
      core.tables_clock(1120)
      assert.is_nil(store:get("key"))
    end)

    it("stands still with a clock that goes back", function()
      local store = new()
      store:set("key", 1, 10)
      core.tables_clock(500)
      assert.equal(1, store:get("key"))
      core.tables_clock(1010)
      assert.is_nil(store:get("key"))
    end)

    it("goes by nanoseconds and by decades", function()
      local store = new()
      store:set("short", 1, 1e-9)
      store:set("long", 1, 1e9)
      assert.equal(1, store:get("short"))
      core.tables_clock(1000.000001)
      assert.is_nil(store:get("short"))
      core.tables_clock(9e8)
      assert.equal(1, store:get("long"))
    end)
  end)

  it("goes by the system's clock otherwise", function()
    local store = new()
    store:set("short", 1, 1e-9)
    store:set("long", 1, 1e6)
    assert.is_nil(store:get("short"))
    assert.equal(1, store:get("long"))
  end)

  describe("when it is full", function()
    local LEAST = 4096

    --- Sets keys 1, 2, ... until the first one goes: their number without it.
    local function fill(store)
      local i = 0
      repeat
        i = i + 1
        assert.is_true(store:set(tostring(i), i))
      until store:stats().evicted > 0
      assert.is_nil(store:get("1"))
      return i - 1
    end

    it("lets go what was used longest ago", function()
      local store = new({ max_bytes = LEAST })
      local room = fill(store)
      assert.equal(room, store:stats().keys)
      assert.is_true(room > 40, room) -- 64 bytes each
      assert.equal(2, store:get("2")) -- used now
      store:incr("3") -- as well
      store:set("new", 1)
      assert.is_nil(store:get("4"))
      assert.equal(2, store:get("2"))
      assert.equal(4, store:get("3"))
      assert.equal(5, store:get("5"))
      assert.equal(1, store:get("new"))
      assert.equal(2, store:stats().evicted)
    end)

    it("does not let go more than is needed, nor what is set anew", function()
      local store = new({ max_bytes = LEAST })
      local room = fill(store)
      for _ = 1, 10 do
        for i = 2, room + 1 do
          store:set(tostring(i), true)
        end
      end
      assert.equal(room, store:stats().keys)
      assert.equal(1, store:stats().evicted)
    end)

    it("keeps what is used all the time among what is not, whatever the size", function()
      for _, max_bytes in ipairs({ LEAST, 100000, 1 << 20 }) do
        local store = new({ max_bytes = max_bytes })
        store:set("hot", "value")
        for i = 1, 3 * max_bytes // 64 do
          store:set(("key %d"):format(i), ("v"):rep(i % 20))
          if i % 10 == 0 then
            assert.equal("value", store:get("hot"))
          end
        end
        assert.is_true(store:stats().evicted > 0)
      end
    end)

    it("keeps what is used among few large values, wherever they lie", function()
      local large = ("v"):rep(100000)
      for _ = 1, 20 do -- the hash is another one each time
        local store = new({ max_bytes = 1 << 20 })
        store:set("hot", large)
        for i = 1, 50 do
          store:set(("key %d"):format(i), large)
          assert.is_string(store:get("hot"))
        end
        local stats = store:stats()
        assert.is_true(stats.keys >= 9, stats.keys)
        assert.equal(51 - stats.keys, stats.evicted)
        for i = 50 - stats.keys + 2, 50 do -- the latest, beside the hot one
          assert.is_string(store:get(("key %d"):format(i)), i)
        end
      end
    end)

    it("takes values of all sizes up to half of it, and stays within its bound", function()
      local store = new({ max_bytes = 100000 })
      math.randomseed(7)
      for i = 1, 5000 do
        local length = math.random(0, math.random() < 0.9 and 200 or 40000)
        local value = ("v"):rep(length)
        local key = tostring(math.random(1, 400))
        assert.is_true(store:set(key, value))
        assert.equal(value, store:get(key))
        if i % 100 == 0 then
          assert.is_true(store:stats().bytes <= 100000)
        end
      end
      store:flush()
      assert.equal(0, store:stats().bytes)
    end)

    it("says when a value does not fit, and keeps what there was", function()
      local store = new({ max_bytes = 100000 })
      store:set("key", "old")
      store:set("other", "other")
      for _, call in ipairs({ "set", "add" }) do
        local key = call == "set" and "key" or "new"
        local result, problem, errno = store[call](store, key, ("v"):rep(60000))
        assert.is_nil(result)
        assert.equal(("a value of 60000 bytes does not fit in shared store 'shared_spec %d' (max_bytes 100000)")
          :format(count), problem)
        assert.equal(28, errno) -- ENOSPC
      end
      assert.same({ nil, 28 }, { (store:incr(("k"):rep(60000), 1)), (select(3, store:incr(("k"):rep(60000), 1))) })
      assert.equal("old", store:get("key"))
      assert.equal("other", store:get("other"))
      assert.is_nil(store:get("new"))
      assert.equal(0, store:stats().evicted)
    end)

    it("is the same after any number of keys", function()
      local store = new({ max_bytes = 1 << 18 })
      local most = 0
      for i = 1, 100000 do
        store:set(("%d.%d"):format(i, i * 7), ("v"):rep(i % 50))
        if i % 5000 == 0 then
          local stats = store:stats()
          most = math.max(most, stats.bytes)
          assert.is_true(stats.bytes <= 1 << 18)
          assert.is_true(i < 10000 or stats.bytes > 200000)
        end
      end
      assert.is_true(store:stats().evicted > 80000)
    end)
  end)

  describe("by its name", function()
    it("is one, however often it is asked for, with its size or without", function()
      local first = nfqueue.shared("by name", { max_bytes = 8192 })
      local second = nfqueue.shared("by name")
      local third = nfqueue.shared("by name", { max_bytes = 8192 })
      first:set("key", 1)
      assert.equal(1, second:get("key"))
      assert.equal(2, third:incr("key"))
      assert.equal(8192, second:stats().max_bytes)
      assert.is_nil(nfqueue.shared("by another name"):get("key"))
    end)

    it("stays when nobody holds it", function()
      nfqueue.shared("kept"):set("key", 1)
      collectgarbage()
      collectgarbage()
      assert.equal(1, nfqueue.shared("kept"):get("key"))
    end)

    it("cannot have two sizes", function()
      nfqueue.shared("sized", { max_bytes = 8192 })
      assert.equal("bad argument 'max_bytes' to 'shared' (store 'sized' exists with 8192, got 9000)",
        message(nfqueue.shared, "sized", { max_bytes = 9000 }))
    end)

    it("is something else than buckets and sets of the same name", function()
      local store = nfqueue.shared("one name")
      store:set("key", 1)
      nfqueue.bucket("one name", { rate = 1 })
      nfqueue.cidrset({ name = "one name" })
      nfqueue.domainset({ name = "one name" })
      assert.equal(1, nfqueue.shared("one name"):get("key"))
    end)

    it("is there for scripts loaded in the same state", function()
      local handler = assert(nfqueue.load(unit.file([[
        local hits = require("nfqueue").shared("hits of a script")
        return function(pkt) hits:incr(pkt.mark) end
      ]])))
      assert.matches("string expected, got 7", select(2, handler(nfqueue.packet("E", { mark = 7 }))))
      handler = assert(nfqueue.load(unit.file([[
        local hits = require("nfqueue").shared("hits of a script")
        return function(pkt) hits:incr("mark " .. pkt.mark) end
      ]])))
      handler(nfqueue.packet("E", { mark = 7 }))
      handler(nfqueue.packet("E", { mark = 7 }))
      assert.equal(2, nfqueue.shared("hits of a script"):get("mark 7"))
    end)
  end)

  it("says what it is", function()
    assert.equal("shared store 'named'", tostring(nfqueue.shared("named")))
  end)

  describe("raises", function()
    local store = nfqueue.shared("raises")

    for _, case in ipairs({
      { "no name", { nil }, "bad argument 'name' to 'shared' (string expected, got nothing)" },
      { "a number as name", { 5 }, "bad argument 'name' to 'shared' (string expected, got 5)" },
      { "an empty name", { "" }, "bad argument 'name' to 'shared' (string of 1 to 255 bytes without a zero expected, "
        .. "got '')" },
      { "a zero in the name", { "a\0b" }, "bad argument 'name' to 'shared' (string of 1 to 255 bytes without a zero "
        .. "expected, got 'a')" },
      { "a long name", { ("n"):rep(256) }, "bad argument 'name' to 'shared' (string of 1 to 255 bytes without a zero "
        .. "expected, got a string of 256 bytes)" },
      { "options that are none", { "x", 5 }, "bad argument 'options' to 'shared' (table expected, got 5)" },
      { "an unknown option", { "x", { size = 5 } }, "unknown key 'size' to 'shared' (known: max_bytes)" },
      { "an option by number", { "x", { 5 } }, "unknown key '1' to 'shared' (known: max_bytes)" },
      { "a size that is none", { "x", { max_bytes = "5" } },
        "bad argument 'max_bytes' to 'shared' (integer from 4096 to 68719476736 expected, got '5')" },
      { "a size too small", { "x", { max_bytes = 4095 } },
        "bad argument 'max_bytes' to 'shared' (integer from 4096 to 68719476736 expected, got 4095)" },
      { "a size too large", { "x", { max_bytes = (1 << 36) + 1 } },
        "bad argument 'max_bytes' to 'shared' (integer from 4096 to 68719476736 expected, got 68719476737)" },
    }) do
      it("for " .. case[1], function()
        assert.equal(case[3], message(nfqueue.shared, table.unpack(case[2], 1, 2)))
      end)
    end

    for _, method in ipairs({ "get", "set", "add", "incr", "delete" }) do
      it("for a key of " .. method .. " that is no string, or too long", function()
        for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { true, "true" }, { {}, "table" } }) do
          assert.equal(("bad argument 'key' to '%s' (string expected, got %s)"):format(method, case[2]),
            message(store[method], store, case[1], 1))
        end
        assert.equal(("bad argument 'key' to '%s' (string of at most 65535 bytes expected, got a string of 65536 "
          .. "bytes)"):format(method), message(store[method], store, ("k"):rep(65536), 1))
      end)
    end

    for _, method in ipairs({ "set", "add" }) do
      it("for a value of " .. method .. " that cannot be kept", function()
        for _, case in ipairs({ { nil, "nothing" }, { {}, "table" }, { print, "function" },
          { io.stdout, "userdata" } }) do
          assert.equal(("bad argument 'value' to '%s' (string, number or boolean expected, got %s)")
            :format(method, case[2]), message(store[method], store, "key", case[1]))
        end
      end)
    end

    it("for what incr cannot add", function()
      for _, case in ipairs({ { "1", "'1'" }, { true, "true" }, { {}, "table" } }) do
        assert.equal(("bad argument 'n' to 'incr' (number expected, got %s)"):format(case[2]),
          message(store.incr, store, "key", case[1]))
      end
    end)

    for _, method in ipairs({ "set", "add", "incr" }) do
      it("for a time to live of " .. method .. " that is none", function()
        for _, case in ipairs({ { 0, "0" }, { -1, "-1" }, { "5", "'5'" }, { math.huge, "inf" },
          { 1e10, tostring(1e10) }, { 0 / 0, tostring(0 / 0) }, { true, "true" } }) do
          assert.equal(("bad argument 'ttl' to '%s' (number from 1e-09 to 1000000000 expected, got %s)")
            :format(method, case[2]), message(store[method], store, "key", 1, case[1]))
        end
        assert.is_nil(store:get("key"))
      end)
    end

    for _, method in ipairs({ "get", "set", "add", "incr", "delete", "keys", "flush", "stats" }) do
      it(method .. ": for anything but a store", function()
        for _, foreigner in ipairs(unit.foreigners()) do
          assert.equal(("bad argument 'self' to '%s' (shared store expected, got %s)"):format(method, foreigner.type),
            message(store[method], foreigner.value, "key", 1))
        end
        assert.equal(("bad argument 'self' to '%s' (shared store expected, got userdata)"):format(method),
          message(store[method], nfqueue.bucket("foreign", { rate = 1 }), "key", 1))
      end)
    end

    it("for a field that it does not have", function()
      assert.equal("shared store has no field 'size'", message(function() return store.size end))
      assert.equal("shared store has no field 'size' to assign to", message(function() store.size = 5 end))
      assert.equal("shared store has no field '1'", message(function() return store[1] end))
    end)
  end)

  it("keeps its metatable to itself", function()
    assert.equal("nfqueue.shared", getmetatable(nfqueue.shared("meta")))
    assert.is_false(pcall(setmetatable, nfqueue.shared("meta"), {}))
  end)

  it("can be used by a finalizer at the end of the state", function()
    local output = run_alone([[
      keep = setmetatable({}, { __gc = function()
        print(pcall(function() return store:get("key") end))
        print(tostring(store), pcall(function() return bucket:take("key") end))
        print(pcall(function() return set:find("::1") end))
      end })
      store, bucket, set = nfqueue.shared("x"), nfqueue.bucket("x", { rate = 1 }), nfqueue.cidrset()
      store:set("key", 1)
    ]])
    assert.equal("false\tshared store is closed\nshared store (closed)\tfalse\tbucket is closed\n"
      .. "false\tcidrset is closed", (output:gsub("[^\t\n]+:%d+: ", "")))
  end)
end)

describe("memory that is not there", function()
  it("is told of, not died of", function()
    if os.getenv("NFQUEUE_SANITIZE") then
      return pending("a sanitizer needs more memory than the limit")
    end
    assert.equal("nil\tcannot make shared store 'large': Cannot allocate memory\t12\n"
      .. "nil\tcannot make bucket 'large': Cannot allocate memory\t12\ntrue", run_alone([[
        print(nfqueue.shared("large", { max_bytes = 1 << 36 }))
        print(nfqueue.bucket("large", { rate = 1, max = 1 << 26 }))
        print(nfqueue.shared("small"):set("key", 1))
      ]], "ulimit -v 1000000; "))
  end)
end)

describe("names of tables", function()
  it("are bounded in number", function()
    assert.equal("nil\tcannot make shared store 'one more': there are 1024 tables with names\t28\n"
      .. "nil\tcannot make bucket 'one more': there are 1024 tables with names\t28\n"
      .. "nil\tcannot make cidrset 'one more': there are 1024 tables with names\t28\n"
      .. "shared store '1024'\tcidrset", run_alone([[
        for i = 1, 1024 do assert(nfqueue.shared(tostring(i), { max_bytes = 4096 })) end
        print(nfqueue.shared("one more"))
        print(nfqueue.bucket("one more", { rate = 1 }))
        print(nfqueue.cidrset({ name = "one more" }))
        print(nfqueue.shared("1024"), nfqueue.cidrset())
      ]]))
  end)
end)
