-- nfqueue.bucket: token buckets by key; time is the clock that the spec moves.

local core = require("nfqueue.core")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message
local count = 0

--- Buckets of a name that nobody else has.
local function new(options)
  count = count + 1
  return nfqueue.bucket("bucket_spec " .. count, options)
end

--- How many single tokens are there.
local function drain(bucket, key)
  local taken = 0
  while bucket:take(key) do
    taken = taken + 1
  end
  return taken
end

before_each(function() core.tables_clock(0) end)
after_each(function() core.tables_clock() end)

describe("a bucket", function()
  it("begins full, and is refilled at its rate up to its burst", function()
    local bucket = new({ rate = 10, burst = 25 })
    assert.equal(25, drain(bucket, "key"))
    core.tables_clock(0.1)
    assert.equal(1, drain(bucket, "key"))
    core.tables_clock(1.1)
    assert.equal(10, drain(bucket, "key"))
    core.tables_clock(100)
    assert.equal(25, drain(bucket, "key"))
  end)

  it("has the tokens of one second without a burst, at least one", function()
    assert.equal(7, drain(new({ rate = 7 }), "key"))
    local slow = new({ rate = 1 / 60 })
    assert.equal(1, drain(slow, "key"))
    core.tables_clock(59)
    assert.equal(0, drain(slow, "key"))
    core.tables_clock(60)
    assert.equal(1, drain(slow, "key"))
  end)

  it("gives all tokens asked for, or none", function()
    local bucket = new({ rate = 1, burst = 10 })
    assert.is_true(bucket:take("key", 6))
    assert.is_false(bucket:take("key", 6))
    assert.is_true(bucket:take("key", 4))
    assert.is_false(bucket:take("key", 0.001))
    assert.is_true(bucket:take("key", 0))
    assert.is_false(bucket:take("key", 11)) -- never
    assert.is_false(bucket:take("other", 11))
    assert.is_true(bucket:take("other", 10))
  end)

  it("takes one without a number", function()
    local bucket = new({ rate = 1, burst = 2 })
    assert.is_true(bucket:take("key", nil))
    assert.is_true(bucket:take("key", 1))
    assert.is_false(bucket:take("key"))
  end)

  it("gives fractions", function()
    local bucket = new({ rate = 1, burst = 1 })
    for _ = 1, 10 do
      assert.is_true(bucket:take("key", 0.1))
    end
    assert.is_false(bucket:take("key", 0.1))
    -- Two tenths from three leave a little less than one: rounding takes no token away.
    bucket = new({ rate = 1, burst = 0.3 })
    for _ = 1, 3 do
      assert.is_true(bucket:take("key", 0.1))
    end
    assert.is_false(bucket:take("key", 0.1))
  end)

  it("is not cheated of tokens by asking too early, in whatever steps time goes", function()
    for _, step in ipairs({ 0.1, 1 / 3, 0.001, 1 / 7 }) do
      core.tables_clock(0)
      local bucket = new({ rate = 1, burst = 1 })
      local granted, now = 0, 0
      for _ = 1, math.floor(20 / step) do
        if bucket:take("key") then
          granted = granted + 1
        end
        now = now + step
        core.tables_clock(now)
      end
      assert.is_true(granted >= 19 and granted <= 21, ("%g: %d"):format(step, granted))
    end
  end)

  it("never gives more than its burst and what came since", function()
    math.randomseed(3)
    for _ = 1, 20 do
      local rate, burst = math.random() * 100, 1 + math.random() * 50
      core.tables_clock(0)
      local bucket = new({ rate = rate, burst = burst })
      local now, taken = 0, 0
      for _ = 1, 500 do
        now = now + math.random() * 0.05
        core.tables_clock(now)
        local n = math.random() * 3
        if bucket:take("key", n) then
          taken = taken + n
        end
        assert.is_true(taken <= burst + rate * now + 1e-6)
      end
      assert.is_true(taken >= math.min(burst + rate * now, 500) * 0.5)
    end
  end)

  it("stands still with a clock that goes back", function()
    local bucket = new({ rate = 1, burst = 5 })
    core.tables_clock(100)
    assert.equal(5, drain(bucket, "key"))
    core.tables_clock(50)
    assert.equal(0, drain(bucket, "key"))
    core.tables_clock(101)
    assert.equal(1, drain(bucket, "key"))
    assert.is_true(bucket:take("other", 2))
    core.tables_clock(50)
    assert.equal(3, drain(bucket, "other")) -- what there was is still there
    core.tables_clock(102)
    assert.equal(1, drain(bucket, "other"))
  end)

  it("is one of its own for each key, of any bytes and length", function()
    local bucket = new({ rate = 1, burst = 3 })
    for _, key in ipairs({ "", "a", "b", "a\0", "\0a", ("k"):rep(16), ("k"):rep(17), ("k"):rep(100000) }) do
      assert.equal(3, drain(bucket, key))
    end
    assert.equal(8, bucket:stats().keys)
  end)

  it("goes by the system's clock otherwise", function()
    core.tables_clock()
    local slow, fast = new({ rate = 1e-9, burst = 2 }), new({ rate = 1e12, burst = 2 })
    assert.equal(2, drain(slow, "key"))
    for _ = 1, 1000 do
      assert.is_true(fast:take("key") or fast:take("key")) -- a microsecond later at most
    end
  end)

  it("goes when there are too many, the one used longest ago first, and is full when it comes again", function()
    local bucket = new({ rate = 1, burst = 2, max = 3 })
    for _, key in ipairs({ "a", "b", "c" }) do
      assert.equal(2, drain(bucket, key))
    end
    assert.is_false(bucket:take("a")) -- used
    assert.is_true(bucket:take("d")) -- instead of b
    assert.same({ keys = 3, max = 3, evicted = 1 }, bucket:stats())
    assert.is_false(bucket:take("a"))
    assert.is_false(bucket:take("c"))
    assert.equal(2, drain(bucket, "b")) -- instead of d
    assert.equal(2, bucket:stats().evicted)
  end)

  it("stays within its number, whatever comes", function()
    for _, max in ipairs({ 1, 2, 1000, 5000 }) do
      local bucket = new({ rate = 1, max = max })
      for i = 1, 3 * max do
        bucket:take("key " .. i)
      end
      assert.same({ keys = max, max = max, evicted = 2 * max }, bucket:stats())
    end
  end)

  it("keeps all of them up to its number", function()
    local bucket = new({ rate = 1, burst = 1, max = 20000 })
    for _ = 1, 2 do
      for i = 1, 20000 do
        bucket:take("key " .. i)
      end
    end
    assert.same({ keys = 20000, max = 20000, evicted = 0 }, bucket:stats())
  end)
end)

describe("buckets by their name", function()
  it("are the same, asked for with the same options, some of them, or none", function()
    local first = nfqueue.bucket("by name", { rate = 2, burst = 6 })
    local others = {
      nfqueue.bucket("by name"), nfqueue.bucket("by name", {}), nfqueue.bucket("by name", { rate = 2 }),
      nfqueue.bucket("by name", { rate = 2.0, burst = 6, max = 65536 }),
    }
    assert.is_true(first:take("key", 2))
    for _, other in ipairs(others) do
      assert.is_true(other:take("key"))
    end
    assert.is_false(first:take("key"))
  end)

  it("stay when nobody holds them", function()
    nfqueue.bucket("kept", { rate = 1 }):take("key")
    collectgarbage()
    collectgarbage()
    assert.is_false(nfqueue.bucket("kept"):take("key"))
  end)

  it("cannot have other options", function()
    nfqueue.bucket("fixed", { rate = 0.5, burst = 3, max = 10 })
    for _, options in ipairs({ { rate = 1 }, { burst = 4 }, { max = 11 }, { rate = 0.5, burst = 3, max = 11 } }) do
      assert.equal("bad argument 'options' to 'bucket' ('fixed' exists with rate 0.5, burst 3 and max 10)",
        message(nfqueue.bucket, "fixed", options))
    end
  end)

  it("say what they are", function()
    assert.equal("bucket 'fixed'", tostring(nfqueue.bucket("fixed")))
    assert.equal("nfqueue.bucket", getmetatable(nfqueue.bucket("fixed")))
  end)

  for _, case in ipairs({
    { "no name", { nil }, "bad argument 'name' to 'bucket' (string expected, got nothing)" },
    { "an empty name", { "" },
      "bad argument 'name' to 'bucket' (string of 1 to 255 bytes without a zero expected, got '')" },
    { "options that are none", { "x", 5 }, "bad argument 'options' to 'bucket' (table expected, got 5)" },
    { "no rate", { "x" },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got nothing)" },
    { "a burst alone", { "x", { burst = 1 } },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got nothing)" },
    { "a rate of 0", { "x", { rate = 0 } },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got 0)" },
    { "a rate below 0", { "x", { rate = -1 } },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got -1)" },
    { "a rate that is none", { "x", { rate = "5" } },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got '5')" },
    { "an endless rate", { "x", { rate = math.huge } },
      "bad argument 'rate' to 'bucket' (number from 1e-09 to 1000000000000 expected, got inf)" },
    { "a burst of 0", { "x", { rate = 1, burst = 0 } },
      "bad argument 'burst' to 'bucket' (number from 1e-09 to 1e+15 expected, got 0)" },
    { "a fraction of buckets", { "x", { rate = 1, max = 1.5 } },
      "bad argument 'max' to 'bucket' (integer from 1 to 67108864 expected, got 1.5)" },
    { "no buckets", { "x", { rate = 1, max = 0 } },
      "bad argument 'max' to 'bucket' (integer from 1 to 67108864 expected, got 0)" },
    { "an unknown option", { "x", { rate = 1, size = 1 } },
      "unknown key 'size' to 'bucket' (known: rate, burst, max)" },
  }) do
    it("raise for " .. case[1], function()
      assert.equal(case[3], message(nfqueue.bucket, table.unpack(case[2], 1, 2)))
    end)
  end

  it("raise for wrong arguments of take", function()
    local bucket = nfqueue.bucket("raises", { rate = 1 })
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.equal(("bad argument 'key' to 'take' (string expected, got %s)"):format(case[2]),
        message(bucket.take, bucket, case[1]))
    end
    for _, case in ipairs({ { -1, "-1" }, { "1", "'1'" }, { math.huge, "inf" }, { 0 / 0, tostring(0 / 0) } }) do
      assert.equal(("bad argument 'n' to 'take' (number from 0 to 1e+15 expected, got %s)"):format(case[2]),
        message(bucket.take, bucket, "key", case[1]))
    end
    assert.is_true(bucket:take("key"))
  end)

  it("raise for anything but a bucket, and for a field that they do not have", function()
    local bucket = nfqueue.bucket("raises", { rate = 1 })
    for _, method in ipairs({ "take", "stats" }) do
      for _, foreigner in ipairs(unit.foreigners()) do
        assert.equal(("bad argument 'self' to '%s' (bucket expected, got %s)"):format(method, foreigner.type),
          message(bucket[method], foreigner.value, "key"))
      end
      assert.equal(("bad argument 'self' to '%s' (bucket expected, got userdata)"):format(method),
        message(bucket[method], nfqueue.shared("foreign"), "key"))
    end
    assert.equal("bucket has no field 'rate'", message(function() return bucket.rate end))
    assert.equal("bucket has no field 'rate' to assign to", message(function() bucket.rate = 1 end))
  end)
end)
