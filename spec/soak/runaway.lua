-- How long a packet waits whose handler never returns, in every form, at two limits. Each form has several tries: in
-- the best of them, as machines do other things too, its verdict must come 100 ms after the limit at the latest.

local net = require("support.net")
local runaways = require("support.runaways")
local socket = require("socket")

local PORT = 4600
local GRACE = 0.1

local SCRIPT = [[
  local args = ...
  package.path = args.path
  local runaways = require("support.runaways")
  return function(pkt)
    local kind, number = pkt.payload:match("^run (%a+) (%d+)")
    if kind then
      runaways[kind][tonumber(number)][2](pkt)
    end
    pkt:accept()
  end
]]

--- Seconds from the sending of a text until its arrival.
local function wait_for(box, text, most)
  local start = socket.gettime()
  box:send(text)
  repeat
    socket.select({ box.socket }, nil, 0.5)
    for _, got in ipairs(box:all()) do
      if got == text then
        return socket.gettime() - start
      end
    end
  until socket.gettime() - start > most
  error(("%s got no verdict in %g s"):format(text, most))
end

local function measure(soak, box, limit, rounds)
  local run = net.run(("%s -q 5-6 --threads 2 --fail-open --time-limit %g -- path=%s"):format(net.file(SCRIPT), limit,
    net.must("readlink -f spec") .. "/?.lua"))
  for _, kind in ipairs({ "interruptible", "stuck" }) do
    local all, sum, worst, worst_name, late = 0, 0, 0, nil, 0
    for number, case in ipairs(runaways[kind]) do
      local best = math.huge
      for round = 1, case.once and 1 or rounds do
        local behind = wait_for(box, ("run %s %d, round %d, limit %g"):format(kind, number, round, limit), limit + 10)
          - limit
        all, sum = all + 1, sum + behind
        late = late + (behind > GRACE and 1 or 0)
        best = math.min(best, behind)
        if behind > worst then
          worst, worst_name = behind, case[1]
        end
      end
      soak.check(best <= GRACE or rounds < 3 or case.once, "%s: at best %.0f ms behind the limit", case[1], best * 1000)
    end
    soak.figure(("limit %g s, %s: worst"):format(limit, kind), worst * 1000, "ms behind it: " .. worst_name)
    soak.figure(("limit %g s, %s: mean"):format(limit, kind), sum / all * 1000,
      ("ms behind it, of %d; %d later than %g ms"):format(all, late, GRACE * 1000))
  end
  run:signal("TERM")
  soak.equal(0, run:join(), "exit status")
end

return function(soak)
  local box = net.udp(PORT)
  net.queue_udp(PORT, 5, "")
  measure(soak, box, 0.2, soak.count(5))
  measure(soak, box, 1, soak.count(1))
  box:close()
end
