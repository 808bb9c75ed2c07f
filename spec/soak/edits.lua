-- An edit is right or refused: sizes from 0 to 70,000 bytes, on every hook, with both versions of IP, of UDP, TCP and
-- ICMP, with large segments and without.

local net = require("support.net")
local sweep = require("support.sweep")
local traffic = require("support.traffic")

local STEP = 53 -- bytes from one size to the next
local STREAM_STEP = 3000

return function(soak)
  local hosts = sweep.new()
  local all = { cases = 0, delivered = 0, raised = 0, refused = 0 }
  local transfers, largest = 0, { [true] = 0, [false] = 0 }
  local sizes = sweep.sizes(math.floor(STEP / soak.scale))
  for _, combination in ipairs(sweep.combinations()) do
    local counts = hosts:run(combination, sizes, soak.equal)
    for name, count in pairs(counts) do
      all[name] = all[name] + count
    end
    traffic.cleanup()
    if not combination.df then
      for size = 0, 70000, math.floor(STREAM_STEP / math.min(1, soak.scale * 5)) do
        local got = hosts:transfer(combination, size, soak.equal)
        largest[combination.gso] = math.max(largest[combination.gso], got)
        transfers = transfers + 1
        traffic.cleanup()
      end
    end
    soak.say("%s: %d packets", sweep.describe(combination), counts.cases)
  end
  hosts:remove()
  soak.figure("packets", all.cases)
  soak.figure("arrived edited, all right", all.delivered)
  soak.figure("an error, and the policy", all.raised)
  soak.figure("too large for the path", all.refused, "which its sender is told by ICMP")
  soak.figure("TCP transfers", transfers)
  soak.figure("largest segment, gso on", largest[true], "bytes")
  soak.figure("largest segment, gso off", largest[false], "bytes")
  soak.check(largest[true] > 5000 and largest[false] <= 1500, "segments were not as large as they should be")
  net.cleanup()
end
