-- Configuration keys through everything that takes them, and queue objects before they touch the kernel.

local nfqueue = require("nfqueue")
local core = require("nfqueue.core")
local unit = require("support.unit")

local message = unit.message
local function handler() end
local SCRIPT = "return function() end"

-- DESIGN, Configuration: key, default, right values (numbers: both bounds), values out of range, and what is of a
-- wrong type where that is not as for others.
local KEYS = {
  { "max_packets", 4096, { 1, 4096, 65536, 2.0 }, { 0, 65537, -1, math.maxinteger } },
  { "buffer_size", 10 << 20, { 4096, 1 << 30 }, { 4095, (1 << 30) + 1, -1 } },
  { "copy_range", 65531, { 0, 65531 }, { -1, 65532 } },
  { "fail_open", false, { true, false } },
  { "gso", true, { true, false } },
  { "conntrack", false, { true, false } },
  { "uid_gid", false, { true, false } },
  { "secctx", false, { true, false } },
  { "default", "accept", { "accept", "drop" }, { "", "Accept", "modify", "again" } },
  { "on_error", "drop", { "accept", "drop" }, { "", "DROP", "requeue" } },
  { "time_limit", 1, { 1e-9, 0.5, 1, 1e9 }, { 0, -1, 1e9 + 1, math.huge }, { true, "5", {}, handler } },
  { "hold_limit", 30, { 1e-9, 0.5, 30, 1e9 }, { 0, -1, 1e9 + 1, math.huge }, { true, "5", {}, handler } },
  { "memory_limit", 256 << 20, { 1 << 20, 1 << 40 }, { (1 << 20) - 1, (1 << 40) + 1, -1 } },
  { "sandbox", false, { false } }, -- true: spec/sandbox_spec.lua
  { "loop_mark", 0x6e71, { 0, 0xffffffff }, { -1, 1 << 32 } },
}
local EXPECTED = {
  max_packets = "integer from 1 to 65536", buffer_size = "integer from 4096 to 1073741824",
  copy_range = "integer from 0 to 65531", time_limit = "seconds, more than 0 and at most 1e9,",
  hold_limit = "seconds, more than 0 and at most 1e9,",
  memory_limit = "integer from 1048576 to 1099511627776",
  loop_mark = "integer from 0 to 4294967295",
  default = '"accept" or "drop"', on_error = '"accept" or "drop"',
}
local WRONG_TYPES = { -- all but the one that passes
  number = { true, "5", {}, handler, 1.5 }, boolean = { 0, 1, "true", "", {}, handler },
  string = { true, false, 1, {}, handler },
}

local function shown(value)
  local kind = type(value)
  return kind == "string" and ("'%s'"):format(value) or (kind == "table" or kind == "function") and kind
    or tostring(value)
end

-- Everything that takes a config table: what it was called, and a call with that table.
local TAKERS = {
  { "new", function(config) return nfqueue.new(1, handler, config).config end },
  { "new", function(config) return nfqueue.new(1, { packet = handler, config = config }).config end },
  { "load", function(config)
    local loaded = assert(nfqueue.load(unit.file(SCRIPT), {}, config))
    return loaded.config
  end },
  { "run", function(config)
    -- A config that passes gets as far as the script, which is not there.
    local done, problem, errno = nfqueue.run({ script = "/nowhere/script.lua", queues = 1, config = config })
    assert.are.same({ nil, "cannot read script /nowhere/script.lua: No such file or directory", 2 },
      { done, problem, errno })
  end },
}

after_each(unit.cleanup)

for _, taker in ipairs(TAKERS) do
  local name, give = table.unpack(taker)
  describe("config of " .. name, function()
    it("takes right values", function()
      for _, case in ipairs(KEYS) do
        local key, default, right = table.unpack(case)
        for _, value in ipairs(right) do
          local config = give({ [key] = value })
          if config then
            assert.are.equal(value, config[key], key)
          end
        end
        local config = give({ [key] = nil })
        if config then
          assert.are.equal(default, config[key], key)
        end
      end
      give(nil)
    end)

    it("refuses wrong types and ranges, naming the key", function()
      for _, case in ipairs(KEYS) do
        local key, default, _, out_of_range, wrong = table.unpack(case)
        for _, list in ipairs({ wrong or WRONG_TYPES[type(default)], out_of_range or {} }) do
          for _, value in ipairs(list) do
            assert.are.equal(("bad argument '%s' to '%s' (%s expected, got %s)")
              :format(key, name, EXPECTED[key] or "boolean", shown(value)), message(give, { [key] = value }))
          end
        end
      end
    end)

    it("refuses unknown keys, and keys of features to come", function()
      for key, text in pairs({ max_packet = "max_packet", ["max-packets"] = "max-packets", [1] = "1", [true] = "true",
        [""] = "", Gso = "Gso" }) do
        assert.matches(("^unknown config key '%s' to '%s' %%(known: "):format(text:gsub("%-", "%%-"), name),
          message(give, { [key] = 1 }))
      end
      assert.matches("max_packets, buffer_size, copy_range, fail_open, gso", message(give, { x = 1 }), 1, true)
    end)

    it("is a table", function()
      for _, value in ipairs({ 5, "gso", true, handler }) do
        assert.are.equal(("bad argument 'config' to '%s' (table expected, got %s)"):format(name, shown(value)),
          message(give, value))
      end
    end)
  end)
end

describe("layers of config", function()
  it("the call's win over the script's over the default, key by key", function()
    local script = { packet = handler, config = { max_packets = 100, copy_range = 200, gso = false } }
    local config = nfqueue.new(1, script, { copy_range = 300, gso = true }).config
    assert.are.same({ 100, 300, true, 10 << 20 },
      { config.max_packets, config.copy_range, config.gso, config.buffer_size })
    local path = unit.file("return { packet = print, config = { max_packets = 100, copy_range = 200 } }")
    config = nfqueue.load(path, nil, { copy_range = 300 }).config
    assert.are.same({ 100, 300, true }, { config.max_packets, config.copy_range, config.gso })
  end)

  it("on_error follows the fail_open that won, unless it is given", function()
    for _, case in ipairs({ -- script's config, call's config, on_error
      { {}, {}, "drop" },
      { { fail_open = true }, {}, "accept" },
      { {}, { fail_open = true }, "accept" },
      { { fail_open = true }, { fail_open = false }, "drop" },
      { { fail_open = false }, { fail_open = true }, "accept" },
      { { on_error = "drop" }, { fail_open = true }, "drop" },
      { { fail_open = true }, { on_error = "drop" }, "drop" },
      { { on_error = "accept" }, { fail_open = false }, "accept" },
    }) do
      local queue = nfqueue.new(1, { packet = handler, config = case[1] }, case[2])
      assert.are.equal(case[3], queue.config.on_error)
    end
  end)

  it("are read when they are given, not later", function()
    local config = { max_packets = 5 }
    local queue = nfqueue.new(1, handler, config)
    config.max_packets = 6
    queue.config.max_packets = 7
    assert.are.equal(5, queue.config.max_packets)
  end)
end)

describe("queue.config", function()
  it("shows every key and its default", function()
    local expected = {}
    for _, case in ipairs(KEYS) do
      expected[case[1]] = case[2]
    end
    local config = nfqueue.new(1, handler).config
    for key, value in pairs(expected) do
      assert.are.equal(value, config[key], key)
    end
    for _, key in ipairs(core.config_keys()) do
      -- Only a filter can be none.
      assert.are.equal(key.name ~= "filter", config[key.name] ~= nil, key.name)
    end
  end)
end)
