-- Every allocation and every system call of the core fails, once and from there on, with each of its errors.

local net = require("support.net")

return function(soak)
  -- Scaled down it is a sample: so many calls of a kind.
  local most = soak.scale >= 1 and 0 or soak.count(1000, 4)
  local output, done = net.sh(("env LD_PRELOAD= %s/faults %d"):format(net.build, most))
  for line in output:gmatch("[^\n]+") do
    soak.say("%s", line)
  end
  soak.check(done, "something failed that should not")
  soak.figure("lives of a state with a fault", tonumber(output:match("(%d+) runs, 0 failures")))
end
