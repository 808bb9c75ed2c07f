-- Exactly one verdict for every packet: ten million of them through every outcome.

local net = require("support.net")
local outcomes = require("support.outcomes")

local PACKETS = 10000000

local CASES = {
  { name = "a thread a queue, on_error drop", on_error = "drop", arguments = "--threads 2" },
  { name = "both queues in a thread, on_error accept", on_error = "accept", arguments = "--threads 1" },
  { name = "few on their way", on_error = "drop", arguments = "--threads 2", window = 100 },
  { name = "many on their way", on_error = "accept", arguments = "--threads 1 --max-packets 60000", window = 20000 },
}

return function(soak)
  if net.no_queue_list() then
    soak.skip(net.no_queue_list())
  end
  local count = soak.count(PACKETS / #CASES, 1000)
  local total, missing, double, refused, lost = 0, 0, 0, 0, 0
  for i, case in ipairs(CASES) do
    case.seed, case.seconds = 100 + i, 60 + count // 2000
    local sent, stats = outcomes.check(count, soak.equal, case)
    total = total + sent.sent
    missing, double = missing + sent.missing, double + sent.double
    for _, own in ipairs(stats) do
      refused, lost = refused + own.refused, lost + own.lost
    end
    soak.figure(case.name, sent.sent / sent.seconds, "packets a second")
    net.cleanup()
  end
  soak.figure("packets", total)
  soak.figure("outcomes", #outcomes.KINDS)
  soak.figure("missing", missing)
  soak.figure("double", double)
  soak.figure("second verdicts, by the kernel", refused)
  soak.figure("gaps in ids", lost)
end
