-- Scripts loaded anew while numbered packets go through: which script judged each packet.

local net = require("support.net")
local check = require("support.soak").check

local reloads = {}

local PORT = 9950
local FIRST_QUEUE = 30
local ADDRESSES = 16

-- Packets that are delayed, and held until the next reload, by their numbers.
local DELAYED, HELD, EVERY = 7, 9, 50

-- A version says its number at its beginning and at its end, and each packet has both in its mark.
local SCRIPT = [[
  local first = %d
  local second
  local self = {}

  function self.packet(pkt)
    local kind = pkt:u32(28) %% %d
    pkt.mark = first << 16 | second()
    if kind == %d then
      pkt:delay(0.05)
    elseif kind == %d then
      pkt:hold(600, "accept")
    else
      pkt:accept()
    end
  end

  function self.open(queue)
    io.stderr:write(("open %%d of %%d\n"):format(first, queue.number))
  end

  function self.close(queue)
    local stats = queue:stats()
    io.stderr:write(("close %%d of %%d errors=%%d refused=%%d lost=%%d packets=%%d\n"):format(second(), queue.number,
      stats.errors, stats.refused, stats.lost, stats.packets))
  end

  local version = %d
  function second()
    return version
  end
  return self
]]

local BAD = { "return {", "error('not this one')", "return { packet = print, open = function() error('nor this') end }",
  "return { packet = print, config = { color = 1 } }" }

local function script(version)
  return SCRIPT:format(version, EVERY, DELAYED, HELD, version)
end

-- What the kernel says of all queues together.
local function sum_up(queues, name)
  local sum = 0
  for i = 0, queues - 1 do
    sum = sum + net.queue(FIRST_QUEUE + i)[name]
  end
  return sum
end

local function count_sent(packets)
  return tonumber(packets:output():match("sent (%d+)"))
end

--- Send numbered packets through `nfqueue run`, and have it load another script as often as is said, one in two by
-- SIGHUP, with one that fails now and then.
-- options: packets, rate (a second), reloads, queues, threads.
-- Returns what became of it, for reloads.check.
function reloads.run(options)
  local socket = require("socket")
  local arrived, path = net.file(), net.file(script(1))
  local last = FIRST_QUEUE + options.queues - 1
  net.must(("iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE %s"):format(PORT, options.queues == 1
    and "--queue-num " .. FIRST_QUEUE or ("--queue-balance %d:%d"):format(FIRST_QUEUE, last)))
  local run = net.run(("%s -q %d-%d --threads %d --on-error drop --default drop --max-packets 65536 --buffer-size %d "
    .. "--name reloads"):format(path, FIRST_QUEUE, last, options.threads, 64 << 20))
  local packets = net.start(("%s/support/arrivals %d %d %s %d@%d"):format(net.build, PORT, ADDRESSES, arrived,
    options.packets, options.rate))
  local failures, times, sizes = 0, {}, {}
  for number = 1, options.reloads do
    local threshold = options.packets * number // (options.reloads + 1)
    net.wait_for("packet " .. threshold, function()
      return sum_up(options.queues, "id_sequence") >= threshold
    end, 120)
    if number % 10 == 5 then
      failures = failures + 1
      net.write(path, BAD[failures % #BAD + 1])
      local _, fine = net.sh(net.command .. " reload --name reloads")
      assert(not fine, "a bad script was taken")
    end
    net.write(path, script(number + 1))
    local before = socket.gettime()
    if number % 2 == 0 then
      run:reload(path)
    else
      net.must(net.command .. " reload --name reloads")
    end
    times[number] = (socket.gettime() - before) * 1000
    sizes[number] = tonumber(net.read(("/proc/%d/status"):format(run:worker())):match("VmRSS:%s*(%d+) kB"))
  end
  net.wait_for("all to be sent", function()
    return count_sent(packets)
  end, 120)
  local result = { options = options, marks = {}, twice = 0, failures = failures, times = times, sizes = sizes, gap = 0,
    stats = net.must(net.command .. " stats --json --name reloads") }
  result.dropped = sum_up(options.queues, "queue_dropped") + sum_up(options.queues, "user_dropped")
  result.portid = net.queue(FIRST_QUEUE).portid
  run:signal("TERM")
  result.status = run:join()
  packets:signal("TERM")
  packets:join()
  net.flush_rules()
  result.output = run:output()
  local time
  for line in io.lines(arrived) do
    local number, mark, now = line:match("(%d+) (%d+) (%d+)")
    number = math.tointeger(tonumber(number))
    result.twice = result.twice + (result.marks[number] and 1 or 0)
    result.marks[number] = math.tointeger(tonumber(mark))
    if time and number % EVERY ~= HELD then
      result.gap = math.max(result.gap, (now - time) / 1000)
    end
    time = now
  end
  table.sort(times)
  return result
end

--- Fail unless every packet came once, judged by one whole script, and by no older one than the packet before it in its
-- queue; and every script was in force, opened before the one before it closed.
function reloads.check(result)
  local options = result.options
  local versions, latest = {}, {}
  local missing = 0
  for number = 0, options.packets - 1 do
    local mark = result.marks[number]
    if mark then
      local first, second = mark >> 16, mark & 0xffff
      local flow, kind = number % ADDRESSES, number % EVERY
      check(first == second and first >= 1 and first <= options.reloads + 1, "packet %d has the versions %d and %d",
        number, first, second)
      check(first >= (latest[flow] or 1), "packet %d was judged by version %d, after one by %d", number, first,
        latest[flow])
      latest[flow] = first
      versions[first] = (versions[first] or 0) + 1
      result.delayed = (result.delayed or 0) + (kind == DELAYED and 1 or 0)
      result.held = (result.held or 0) + (kind == HELD and 1 or 0)
    else
      missing = missing + 1
    end
  end
  check(missing == 0, "%d packets are missing", missing)
  check(result.twice == 0, "%d packets came twice", result.twice)
  check(result.dropped == 0, "the kernel dropped %d packets", result.dropped)
  check(result.status == 0, "it ended with status %s: %s", result.status, result.output)
  check(result.stats:find(('"reloads":%d,'):format(options.reloads), 1, true), "it counts otherwise: %s", result.stats)
  check(result.stats:find('"workers_lost":0,', 1, true), "a worker died")
  local opened, closed = {}, {}
  for word, version in result.output:gmatch("%f[%w](%l+) (%d+) of %d+") do
    version = tonumber(version)
    if word == "open" then
      opened[version] = (opened[version] or 0) + 1
      check(not closed[version - 1], "version %d was opened after version %d had closed", version, version - 1)
    else
      closed[version] = (closed[version] or 0) + 1
      check(version > options.reloads or opened[version + 1] == options.queues,
        "version %d closed before version %d was open", version, version + 1)
    end
  end
  local judged = 0
  for version = 1, options.reloads + 1 do
    judged = judged + (versions[version] and 1 or 0)
    check(opened[version] == options.queues and closed[version] == options.queues, "version %d: %s opened, %s closed",
      version, opened[version], closed[version])
  end
  -- Where the machine is slow all packets may have passed before the last ones were loaded.
  check(judged > 1, "one version judged all packets")
  local _, clean = result.output:gsub("errors=0 refused=0 lost=0", "")
  check(clean == (options.reloads + 1) * options.queues, "errors, refused verdicts or losses: %s", result.output)
  local _, failed = result.output:gsub("not reloaded, the script in force stays", "")
  check(failed == result.failures, "%d bad scripts, but %d failures", result.failures, failed)
end

return reloads
