-- Loaded handlers, what they keep, flows and timers under anything at all: spec/support/torture.lua.

local net = require("support.net")

describe("handlers under a script that does anything", function()
  for _, seed in ipairs({ 13, 15, os.time() }) do
    it("do not crash, and leave no packet without a verdict: seed " .. seed, function()
      -- What a finalizer makes while the state is closed has none of its own.
      local output, done = net.sh(("ASAN_OPTIONS=detect_leaks=0 NFQUEUE_LOG=error %s spec/support/torture.lua %d 4000")
        :format(net.lua, seed))
      assert.is_true(done, output:sub(-500))
    end)
  end
end)
