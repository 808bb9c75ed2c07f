-- A page fetched through a router that judges it, over lines that lose and reorder: curl, nginx and `nfqueue run`.

local line = require("support.line")
local net = require("support.net")
local traffic = require("support.traffic")
local web = require("support.web")

local page = {}

-- Emulated machines and sanitizers take a smaller one.
local slow = os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")
page.BYTES = slow and 2000000 or 10000000

local SECONDS = slow and 300 or 60
local QUEUE = 3
local WIRE = 1460 -- no packet of the response has more of it

--- Why there can be none here: nil when there can. `relay`: whether it needs one.
function page.missing(relay)
  return relay and line.missing() or web.missing() or nil
end

local way, folder

function page.clean()
  traffic.cleanup()
  if way then
    way:remove()
    way = nil
  end
  if folder then
    web.remove(folder)
    folder = nil
  end
end

local function fail(...)
  error(string.format(...), 3)
end

-- Ends the lines: checks that they were as bad as was asked for, and that no checksum was wrong.
local function check_lines(case)
  local counts = way:finish()
  -- A quarter of what is to be expected with 1 %.
  local enough = page.BYTES // WIRE // 100 // 4
  for interface, bad in pairs({ toserver = case.before, toclient = case.behind }) do
    -- The response leaves the server by one line and comes to the client by the other.
    local count = counts[interface][interface == "toserver" and "out" or "back"]
    if count.lost <= (bad.netem and case.large and 0 or enough) then
      fail("%s lost no more than %d packets", interface, count.lost)
    end
    if not bad.netem then
      assert(count.reordered > 0, "nothing was reordered")
      assert((case.large and true or false) == (count.large_out > 0), "the line's segments have the wrong size")
    end
  end
  for _, host in ipairs({ way.client, way.server }) do
    local errors = traffic.checksum_errors(host)
    if errors > 0 then
      fail("%d packets came with a wrong checksum", errors)
    end
  end
end

--- Rules that queue what is forwarded, in the manner of a case: all of it ("one"), or each direction to a queue of
-- its own ("directions"), or each processor's packets ("processors"). Returns the queues as arguments.
local function queue_rules(manner, family)
  local rule = "-A FORWARD -p tcp %s -j NFQUEUE --queue-%s"
  if manner == "directions" then
    traffic.rule(rule:format("-i toclient", "num " .. QUEUE), family)
    traffic.rule(rule:format("-i toserver", "num " .. QUEUE + 1), family)
  elseif manner == "processors" then
    traffic.rule(rule:format("", ("balance %d:%d --queue-cpu-fanout"):format(QUEUE, QUEUE + 1)), family)
  else
    traffic.rule(rule:format("", "num " .. QUEUE), family)
    return ("-q %d"):format(QUEUE)
  end
  return ("-q %d-%d"):format(QUEUE, QUEUE + 1)
end

--- Fetch a text of page.BYTES over these lines through this handler script. A case has what line.new takes
-- (`large`, `before`, `behind`), `family` (one of traffic.FAMILIES), and where wanted `gso` (of the queue, default as
-- `large`), `words` (one line of so many has the word, default 1), `queues` ("directions", "processors"), `arguments`
-- for the script. Checks the lines, and that curl and nfqueue succeeded. Returns what was fetched, as web.fetch does,
-- the text, and what nfqueue printed.
function page.fetch(script, case)
  local text = web.text(page.BYTES, case.words)
  way = line.new(case)
  folder = web.serve(way.server)
  local file = assert(io.open(folder .. "/text", "w"))
  file:write(text)
  file:close()
  local queues = queue_rules(case.queues, case.family)
  local gso = case.gso
  if gso == nil then
    gso = case.large
  end
  local run = net.run(("%s %s %s -- %s"):format(script, queues, gso and "" or "--no-gso", case.arguments or ""))
  local got = web.fetch(way.client, line.SERVER[case.family.name], "text", SECONDS)
  run:signal("TERM")
  local status = run:join()
  if got.status ~= 0 or status ~= 0 then
    fail("curl: %d, %s; nfqueue: %d, %s", got.status, got.output, status, run:output())
  end
  check_lines(case)
  return got, text, run:output()
end

return page
