-- nfqueue.rewrite under segments that no honest end sends: it never fails, and its memory stays bounded and is
-- given back. NFQUEUE_SEED=N runs those of one seed alone.

local nfqueue = require("nfqueue")
local rewriting = require("support.rewriting")

local REFUSALS = {
  "cannot edit this packet: it carries no data that could be replaced",
  "cannot edit this packet: it is signed (TCP MD5 or TCP-AO)",
  "cannot edit this packet: it belongs to a Multipath TCP connection, which numbers its data itself",
  "cannot edit this packet: it has no TCP header",
}
for _, reason in ipairs(REFUSALS) do
  REFUSALS[reason] = true
end

-- Numbers near places that were seen, near them modulo the half and the quarter of all, or anywhere.
local function make_numbers(random)
  local seen = { 0, 0xffffffff }
  return function(near)
    local kind = random(12)
    local base = near and random(3) > 1 and near or seen[random(#seen)]
    local number
    if kind <= 8 then
      number = base + (random(2) == 1 and 0 or random(40) - 20)
    elseif kind == 9 then
      number = base + 0x80000000 + random(5) - 3
    elseif kind == 10 then
      number = base + random(4) * 0x20000000 + random(5) - 3
    elseif kind == 11 then
      number = base + random(100000) - 50000
    else
      number = random(0x7fffffff) * 2 + random(2)
    end
    number = number & 0xffffffff
    if random(4) == 1 then
      seen[random(40)] = number
      for i = 1, 40 do
        seen[i] = seen[i] or number
      end
    end
    return number
  end
end

local function make_options(random, number)
  local kind = random(8)
  if kind == 1 then
    local bytes = {}
    for i = 1, random(40) do
      bytes[i] = string.char(random(256) - 1)
    end
    return table.concat(bytes)
  elseif kind <= 3 then
    local blocks = {}
    for i = 1, random(4) do
      blocks[i] = string.pack(">I4I4", number(), number())
    end
    return "\1\1\5" .. string.char(2 + 8 * #blocks) .. table.concat(blocks)
  elseif kind == 4 then
    return "\2\4" .. string.pack(">I2", random(65536) - 1) .. "\1\3\3" .. string.char(random(256) - 1)
  end
  return ""
end

local function run(seed, count)
  local random = rewriting.generator(seed)
  local number = make_numbers(random)
  local rw = nfqueue.rewrite({ max = 3 })
  local builders, last = {}, { 0, 0 }
  for port = 1, 4 do
    builders[port] = {}
    for from = 1, 2 do
      builders[port][from] = rewriting.builder(port % 2 == 0 and 4 or 6, from, { port, 80 })
    end
  end
  for _ = 1, count do
    local from = random(2)
    local flags = random(3) == 1 and random(64) - 1 or 16
    local payload = random(3) == 1 and "" or ("abcdef"):rep(random(random(10) == 1 and 2000 or 20)):sub(random(6))
    local content
    if random(2) == 1 then
      content = random(3) == 1 and "" or ("abXdef"):rep(random(random(5) == 1 and 8000 or 20)):sub(random(6))
    end
    local seq = number(last[from])
    last[from] = (seq + #payload) & 0xffffffff
    local bytes = builders[random(random(20) == 1 and 4 or 2)][from](seq, number(last[3 - from]), flags,
      random(65536) - 1, make_options(random, number), payload)
    local pkt = nfqueue.packet(bytes, { gso = random(4) == 1 })
    local fine, result, reason = pcall(rw, pkt, content)
    if not fine then
      local message = result:gsub("^[^:\n]+:%d+: ", "")
      assert(REFUSALS[message], message)
      assert(pkt:bytes() == bytes)
    else
      assert(result == true and reason == nil or result == false and type(reason) == "string")
      pkt:accept()
      assert(#pkt.sent <= 65531)
    end
  end
  local stats = rw:stats()
  assert(stats.connections <= 3 and stats.kept <= 3 * 2 * (4 << 20))
  -- Nothing is kept for connections that are gone.
  for port = 101, 103 do
    rw(nfqueue.packet(rewriting.builder(4, 1, { port, 80 })(1, 0, 2, 100, "", "")))
    for place = 1, 3 do
      rw(nfqueue.packet(rewriting.builder(4, 1, { port, 80 })(1 + place, 1, 16, 100, "", "x")), "y")
    end
  end
  assert(rw:stats().kept == 9 * 128, rw:stats().kept)
  return stats
end

describe("segments that no honest end sends", function()
  local chosen = math.tointeger(tonumber(os.getenv("NFQUEUE_SEED")))

  local function run_all(first, last)
    local totals = {}
    for seed = first, last do
      local fine, stats = xpcall(run, debug.traceback, seed, 1500)
      assert.is_true(fine, ("NFQUEUE_SEED=%d: %s"):format(seed, tostring(stats)))
      for name, value in pairs(stats) do
        totals[name] = (totals[name] or 0) + value
      end
    end
    return totals
  end

  if chosen then
    it("harm nobody", function()
      run_all(chosen, chosen)
    end)
    return
  end

  it("harm nobody", function()
    local totals = run_all(1, 20)
    -- All of this has happened.
    for name, least in pairs({ edits = 200, retransmitted = 200, out_of_order = 200, evicted = 50, cut = 5 }) do
      assert.is_true(totals[name] >= least, name .. ": " .. totals[name])
    end
  end)

  it("harm nobody that were never tried", function()
    local first = os.time() << 8
    run_all(first, first + 9)
  end)
end)
