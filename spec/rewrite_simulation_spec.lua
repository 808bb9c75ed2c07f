-- Whole connections through nfqueue.rewrite, over paths that lose, duplicate and reorder on both of its sides.
-- NFQUEUE_SEED=N runs that connection alone.

local rewriting = require("support.rewriting")

local WORDS = { "the", "word", "needle", "of", "x", "longer phrase", "a b" }

local function text(random, size)
  local parts, length = {}, 0
  while length < size do
    local word = WORDS[random(#WORDS)] .. " "
    parts[#parts + 1] = word
    length = length + #word
  end
  return table.concat(parts):sub(1, size)
end

-- What handlers do with a payload.
local EDITS = {
  function(payload) return (payload:gsub("needle", "pin")) end,
  function(payload) return (payload:gsub("word", "much longer words")) end,
  function(payload) return (payload:gsub("%S+", { needle = "", the = "THE!" })) end,
  function(payload, from) return from == 1 and payload:gsub("x", "xx") or nil end,
  function(payload, _, random) -- another thing each time, even for the same bytes
    local kind = random(6)
    if kind == 1 then
      return ""
    elseif kind == 2 then
      return payload .. ("+"):rep(random(300))
    elseif kind == 3 then
      return payload:upper()
    elseif kind == 4 then
      return nil
    elseif kind == 5 then
      return payload:sub(random(#payload))
    end
    return (payload:gsub("e", "EE"))
  end,
}

-- One of these, or none of it.
local function maybe(random, chance, value)
  return random(chance) == 1 and value or nil
end

local function make_end(random)
  return {
    mss = 60 + random(200), gso = maybe(random, 2, random(8)), sack = random(4) > 1,
    scale = maybe(random, 2, random(8) - 1), strict = random(2) == 1, quick = random(3) == 1,
    capacity = random(3) == 1 and 300 + random(600) or 2000 + random(8000), reads = maybe(random, 2, random(2000)),
    fast_open = maybe(random, 3, random(100)), takes_fast_open = random(2) == 1,
    keep_alive = maybe(random, 3, 3), in_flight = 500 + random(6000),
  }
end

local function connection(seed)
  local random = rewriting.generator(seed)
  return {
    seed = seed, version = random(2) == 1 and 4 or 6,
    iss = { random(0x7fffffff) * 2, 0x100000000 - random(3000) }, -- one passes the end of the numbers
    data = { text(random, random(3) == 1 and 0 or random(6000)), text(random, random(4) == 1 and 0 or random(20000)) },
    edit = EDITS[random(#EDITS)], loss = maybe(random, 2, random(15)), duplicates = maybe(random, 2, random(5)),
    jitter = maybe(random, 2, random(100) / 1000), endpoints = { make_end(random), make_end(random) },
  }
end

local function run(seed)
  local options = connection(seed)
  local fine, result = xpcall(rewriting.run, debug.traceback, options)
  if not fine then
    error(("NFQUEUE_SEED=%d: %s"):format(seed, result), 0)
  end
  return result
end

describe("a connection through a rewriter", function()
  local chosen = math.tointeger(tonumber(os.getenv("NFQUEUE_SEED")))
  local totals = {}

  local function run_all(first, last)
    for seed = first, last do
      for name, value in pairs(run(seed)) do
        if type(value) == "number" then
          totals[name] = (totals[name] or 0) + value
        end
      end
    end
  end

  if chosen then
    it("receives what the edits say", function()
      run(chosen)
    end)
    return
  end

  it("receives what the edits say, over good and bad paths", function()
    run_all(1, 100)
    -- All of this has happened.
    for name, least in pairs({ packets = 50000, edits = 3000, again = 3000, hole = 5000, lost = 3000 }) do
      assert.is_true(totals[name] >= least, name .. ": " .. totals[name])
    end
  end)

  it("receives what the edits say where data does not wait for what is missing", function()
    local sum = { edits = 0, again = 0, hole = 0, lost = 0 }
    for seed = 1, 60 do
      local options = connection(seed)
      options.wait = false
      local fine, result = xpcall(rewriting.run, debug.traceback, options)
      assert.is_true(fine, ("seed %d: %s"):format(seed, tostring(result)))
      for name, value in pairs(sum) do
        sum[name] = value + result[name]
      end
    end
    assert.is_true(sum.edits > 1500 and sum.again > 1000 and sum.lost > 1000)
    assert.is_true(sum.hole < 100) -- what lies beyond windows
  end)

  it("receives what the edits say, over paths that were never tried", function()
    local first = os.time() << 8
    run_all(first, first + 39)
  end)

  it("begun by both ends at once receives what the edits say", function()
    for seed = 1, 20 do
      local options = connection(seed)
      options.both_open = true
      for i = 1, 2 do
        options.endpoints[i].fast_open = nil
      end
      local fine, problem = xpcall(rewriting.run, debug.traceback, options)
      assert.is_true(fine, ("seed %d: %s"):format(seed, tostring(problem)))
    end
  end)

  it("uses the ports of the last one", function()
    local rw = require("nfqueue").rewrite({ max = 4 })
    for seed = 1, 20 do
      local options = connection(seed)
      options.rewriter, options.ports = rw, { 40000, 80 }
      local fine, problem = xpcall(rewriting.run, debug.traceback, options)
      assert.is_true(fine, ("seed %d: %s"):format(seed, tostring(problem)))
    end
    assert.are.equal(2, rw:stats().connections) -- one a version of IP
    assert.are.equal(0, rw:stats().kept)
  end)
end)
