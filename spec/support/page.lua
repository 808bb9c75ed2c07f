-- A page fetched through a router that judges it, over lines that lose and reorder: curl, nginx and `nfqueue run`.

local line = require("support.line")
local net = require("support.net")
local traffic = require("support.traffic")
local web = require("support.web")

local page = {}

-- Emulated machines and sanitizers take a smaller one.
local slow = os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")
page.BYTES = slow and 1000000 or 10000000

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
  local enough = (case.bytes or page.BYTES) // WIRE // 100 // 4
  for interface, bad in pairs({ toserver = case.before, toclient = case.behind }) do
    -- The response leaves the server by one line and comes to the client by the other.
    local count = counts[interface][interface == "toserver" and "out" or "back"]
    if count.lost <= (bad.netem and case.large and 0 or enough) then
      fail("%s lost no more than %d packets", interface, count.lost)
    end
    if not bad.netem then
      assert(count.reordered > 0, "nothing was reordered")
      -- What a queue without gso gets leaves it in segments of the wire's size.
      local large = case.large and (interface == "toserver" or case.gso ~= false)
      assert((large or false) == (count.large_out > 0), "the line's segments have the wrong size")
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

--- Fetch a text over these lines through this handler script. A case has what line.new takes (`large`, `before`,
-- `behind`), `family` (one of traffic.FAMILIES), and where wanted `gso` (of the queue: false though lines are `large`),
-- `bytes` (of the text, default page.BYTES), `words` (one line of so many has the word, default 1), `queues`
-- ("directions", "processors"), `times` (how often at the same time, default 1), `arguments` for the script. Checks the
-- lines, and that curl and nfqueue succeeded. Returns the list of what was fetched, as web.fetch has it, the text, and
-- what nfqueue printed.
function page.fetch(script, case)
  local text = web.text(case.bytes or page.BYTES, case.words)
  way = line.new(case)
  folder = web.serve(way.server)
  local file = assert(io.open(folder .. "/text", "w"))
  file:write(text)
  file:close()
  local queues = queue_rules(case.queues, case.family)
  local gso = case.large and case.gso ~= false
  local run = net.run(("%s %s %s -- %s"):format(script, queues, gso and "" or "--no-gso", case.arguments or ""))
  local fetches = {}
  for i = 1, case.times or 1 do
    fetches[i] = web.fetch(way.client, line.SERVER[case.family.name], "text", SECONDS)
  end
  local got = {}
  for i, fetching in ipairs(fetches) do
    got[i] = fetching:finish()
  end
  run:signal("TERM")
  local status = run:join()
  if status ~= 0 then
    fail("nfqueue: status %d: %s", status, run:output())
  end
  check_lines(case)
  -- The server was told of no byte that it has come when it has not: else it is told otherwise later.
  local reneging = traffic.tcp_count(way.server, "TCPSACKReneging")
  if reneging > 0 then
    fail("the server was told %d times that what it had been told to have come has not", reneging)
  end
  return got, text, run:output()
end

-- What the handler script replace.lua left in a folder: by the client's port { begin =, edits = {...} }, and counts.
local function read_reports(reports)
  local connections, counts = {}, {}
  local function connection(port)
    connections[port] = connections[port] or { edits = {} }
    return connections[port]
  end
  for row in net.must("cat " .. reports .. "/report.*"):gmatch("[^\n]+") do
    local kind, first, second, rest = row:match("^(%a+) (%g+) (%d+) ?(.*)$")
    second = math.tointeger(tonumber(second))
    if kind == "count" then
      counts[first] = (counts[first] or 0) + second
    else
      local port = math.tointeger(tonumber(first))
      if kind == "begin" then
        connection(port).begin = second
      else
        local word, new = rest:match("^(%g+) ?(.*)$")
        table.insert(connection(port).edits, { seq = second, word = word, new = new })
      end
    end
  end
  return connections, counts
end

-- What was sent with what was replaced, and how many words that are.
local function apply(text, connection)
  local edits = connection.edits
  for _, edit in ipairs(edits) do
    edit.at = (edit.seq - connection.begin) & 0xffffffff
  end
  table.sort(edits, function(a, b) return a.at < b.at end)
  local parts, from = {}, 0
  for _, edit in ipairs(edits) do
    if edit.at < from then
      fail("the edits overlap at %d", edit.at)
    elseif text:sub(edit.at + 1, edit.at + #edit.word) ~= edit.word then
      fail("there is no %s at %d", edit.word, edit.at)
    end
    parts[#parts + 1] = text:sub(from + 1, edit.at)
    parts[#parts + 1] = edit.new
    from = edit.at + #edit.word
  end
  parts[#parts + 1] = text:sub(from + 1)
  return table.concat(parts), #edits
end

-- Where two texts begin to differ, for a message.
local function difference(a, b)
  local low, high = 0, math.min(#a, #b)
  while low < high do
    local middle = (low + high + 1) // 2
    if a:sub(1, middle) == b:sub(1, middle) then
      low = middle
    else
      high = middle - 1
    end
  end
  return ("%d bytes came, %d expected; from %d on %q, expected %q"):format(#a, #b, low, a:sub(low + 1, low + 60),
    b:sub(low + 1, low + 60))
end

--- As page.fetch, with the handler script replace.lua, which replaces `replace` (words to what they become), with its
-- arguments `mss` and `wait`: checks that what came is to the byte what it should be. Returns the counts of replace.lua
-- and how many words were replaced.
function page.rewrite(case)
  local reports = net.must("mktemp -d")
  local arguments = { "folder=" .. reports }
  for _, name in ipairs({ "mss", "wait" }) do
    if case[name] ~= nil then
      table.insert(arguments, ("%s=%s"):format(name, case[name]))
    end
  end
  for word, new in pairs(case.replace) do
    table.insert(arguments, ("replace=%s=%s"):format(word, new))
  end
  case.arguments = table.concat(arguments, " ")
  local fine, got, text, output = pcall(page.fetch, "spec/support/replace.lua", case)
  if not fine then
    net.sh("rm -r " .. reports)
    error(got, 0)
  end
  local connections, counts = read_reports(reports)
  net.must("rm -r " .. reports)
  local total = 0
  for _, fetched in ipairs(got) do
    local connection = connections[fetched.port]
    if not connection or not connection.begin then
      fail("the connection from port %d was not seen: %s", fetched.port, output)
    end
    local expected, words = apply(fetched.head .. text, connection)
    if fetched.head .. fetched.body ~= expected then
      fail("%s", difference(fetched.head .. fetched.body, expected))
    end
    total = total + words
  end
  assert(counts.errors == 0, output)
  return counts, total
end

--- How a case of page.check is called.
function page.title(case)
  local words, sides = {}, {}
  for word, new in pairs(case.replace) do
    words[#words + 1] = ("%s to %s"):format(word, new)
  end
  table.sort(words)
  for _, side in ipairs({ "before", "behind" }) do
    sides[#sides + 1] = case[side] and side or nil
  end
  return ("%s, gso %s, loss %s the queue, %s%s"):format(case.family.name,
    case.large and case.gso ~= false and "on" or "off", table.concat(sides, " and "), table.concat(words, ", "),
    case.name and ", " .. case.name or "")
end

--- As page.rewrite, and checks that most words were replaced, in segments of the size that was asked for, and that
-- what makes it hard did happen.
function page.check(case)
  local counts, words = page.rewrite(case)
  local text = web.text(case.bytes or page.BYTES, case.words)
  local most = 0
  for word in pairs(case.replace) do
    most = most + select(2, text:gsub(word, "")) * (case.times or 1)
  end
  local bytes = (case.bytes or page.BYTES) * (case.times or 1)
  local gso = (case.large and case.gso ~= false) or false
  local few = bytes // WIRE // 200 -- half of what is lost at 1 %
  if counts.edited < bytes // 65536 then
    fail("only %d segments were edited", counts.edited)
  elseif gso ~= ((counts.large or 0) > 0) then
    fail("%d segments were large", counts.large or 0)
  elseif words < most * (case.wait == false and 0.7 or 0.97) then
    fail("only %d of %d words were replaced", words, most)
  elseif case.before and case.wait ~= false and (counts["out-of-order"] or 0) < few then
    fail("only %d segments had a hole in front of them", counts["out-of-order"] or 0)
  elseif case.behind and (counts["sent-before"] or 0) < few then
    fail("only %d segments were sent again", counts["sent-before"] or 0)
  end
end

return page
