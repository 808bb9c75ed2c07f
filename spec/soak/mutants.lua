-- A million mutated packets, each with one verdict, none with an error that is not documented.

local mutants = require("support.mutants")
local net = require("support.net")

return function(soak)
  if mutants.unable() then
    soak.skip(mutants.unable())
  end
  local figures = mutants.check(soak.count(1000000, 1000), soak.equal, 1)
  soak.figure("written", figures.wrote)
  soak.figure("seen by the queue", figures.seen)
  for _, name in ipairs({ "accepted", "dropped", "modified", "again", "requeued", "rejected", "delayed", "held",
    "injected" }) do
    soak.figure(name, figures.stats[name])
  end
  net.cleanup()
end
