-- Overload is counted exactly, for longer than any buffer lasts.

local net = require("support.net")
local overload = require("support.overload")

return function(soak)
  if net.no_queue_list() then
    soak.skip(net.no_queue_list())
  end
  for _, case in ipairs(overload.CASES) do
    local figures = overload.check(case, soak.count(2000000, 8000), soak.equal)
    soak.figure(case.name, figures.unseen, ("%s of %d; sustained %.0f/s, offered %.0f/s, judged %d"):format(
      case.drops and "lost, all counted," or "passed unseen, none lost,", figures.sent, figures.sustained,
      figures.offered, figures.judged))
    net.cleanup()
  end
end
