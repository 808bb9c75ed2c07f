-- Every allocation and system call of the core fails in turn: a sample; all of them in spec/soak/faults.lua.

local MOST = 16 -- calls of a kind in a scenario

describe("the core", function()
  it("bears that allocations and system calls fail", function()
    local build = os.getenv("NFQUEUE_BUILD") or "build"
    -- The program is sanitized itself, and needs no runtime before it.
    local pipe = assert(io.popen(("env LD_PRELOAD= %s/faults %d 2>&1"):format(build, MOST)))
    local output = pipe:read("a")
    assert.is_true(pipe:close(), output)
    assert.matches("\n%d+ runs, 0 failures\n$", output)
    for _, scenario in ipairs({ "birth", "loaded", "opened", "started", "tables", "threads" }) do
      local runs = tonumber(output:match(scenario .. ": (%d+) runs"))
      assert.is_true(runs and runs > MOST, output)
    end
  end)
end)
