-- Resident memory of tables while everything in them comes and goes, for ten minutes.

local net = require("support.net")

return function(soak)
  local seconds = soak.count(600, 5)
  local output, done = net.sh(("%s/threads churn %d"):format(net.build, seconds))
  for line in output:gmatch("[^\n]+") do
    soak.say("%s", line)
  end
  soak.check(done, "churn failed")
  soak.figure("churned", seconds, "seconds")
end
