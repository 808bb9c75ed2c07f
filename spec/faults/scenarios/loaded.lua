-- A loaded handler and its clock.

local core = require("nfqueue.core")
local judge = dofile("spec/faults/judge.lua")

local SCRIPT = "spec/faults/script.lua"
local bytes, handler

local function apply(made, judged)
  local wrong
  for i, packet in ipairs(made) do
    -- What raises here was not judged.
    local fine, verdict = pcall(handler, packet)
    judged[i] = fine
    if fine and verdict ~= packet.verdict and verdict ~= "hold" then
      wrong = i
    end
  end
  return wrong
end

local function go()
  local problem
  handler, problem = core.load(SCRIPT)
  if not handler then
    error(problem, 0)
  end
  local made = {}
  for i, text in ipairs(bytes) do
    made[i] = core.packet(text, { id = i, mark = i, iifname = "eth0" })
  end
  local judged = {}
  assert(not apply(made, judged), "not the verdict of the packet")
  problem = handler:advance(0.5)
  if problem then
    error(problem, 0)
  end
  handler:advance(2000)
  for i, packet in ipairs(made) do
    assert(packet.verdict or not judged[i], "a packet without a verdict")
  end
  handler:close()
end

return {
  prepare = function()
    bytes = judge.packets()
  end,
  run = go,
  check = function(fine)
    if fine then
      return
    end
    if handler then
      handler:close()
    end
    go()
  end,
}
