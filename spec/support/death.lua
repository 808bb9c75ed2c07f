-- Workers killed while numbered packets go through: what became of each packet.

local net = require("support.net")
local check = require("support.soak").check

local death = {}

local PORT = 9900
local FIRST_QUEUE = 20
local ADDRESSES = 16

-- Bytes a worker may have before the kernel kills it; its Lua state may have more.
local MEMORY = 64 << 20

-- Packets that a worker is given at least.
local LIFE = 128

-- The number whose handler takes memory until it is killed, in a group of processes whose memory is limited.
local HOG = 0xffffffff

-- The mark is 1 + number % 997, and every tenth packet is dropped.
local SCRIPT = [[
  local args = ...
  if args.group then
    local file = assert(io.open(args.group .. "/cgroup.procs", "w"))
    assert(file:write("0\n"))
    file:close()
  end
  return {
    packet = function(pkt)
      local number = pkt:u32(28)
      if number == 0xffffffff then
        local taken = {}
        for i = 1, 10000 do
          taken[i] = ("x"):rep(4000000 + i)
        end
      elseif number % 10 == 3 then
        pkt:drop()
      else
        pkt:accept({ mark = 1 + number % 997 })
      end
    end,
    close = function(queue)
      local stats = queue:stats()
      io.stderr:write(("queue %d packets=%d errors=%d lost=%d refused=%d\n"):format(queue.number, stats.packets,
        stats.errors, stats.lost, stats.refused))
    end,
  }
]]

local function write(path, text)
  local file = io.open(path, "w")
  local done = file and file:write(text)
  return file and file:close() and done ~= nil
end

local group = {}
group.__index = group

--- A group of processes whose memory is limited, at `path`: nil where none can be made. The file systems that show
-- groups are mounted anew, as a private network namespace may have a /sys of its own.
function death.make_group()
  local root = net.must("mktemp -d")
  for _, kind in ipairs({ { "-t cgroup -o memory", "memory.limit_in_bytes" }, { "-t cgroup2", "memory.max" } }) do
    local self = setmetatable({ root = root, path = root .. "/nfqueue-spec" }, group)
    if select(2, net.sh(("mount %s none %s"):format(kind[1], root))) then
      net.sh("mkdir " .. self.path)
      if write(self.path .. "/" .. kind[2], MEMORY .. "\n") then
        return self
      end
    end
    self:remove()
  end
end

function group:remove()
  net.sh(("rmdir %s; umount %s; rmdir %s"):format(self.path, self.root, self.root))
end

local function count_sent(packets)
  return tonumber(packets:output():match("sent (%d+)"))
end

-- The worker that said last that it is ready, and how many have.
local function last_worker(run)
  local pid, count = nil, 0
  for found in run:output():gmatch("worker pid (%d+)\n") do
    pid, count = math.tointeger(tonumber(found)), count + 1
  end
  return pid, count
end

-- What the kernel says of all queues together.
local function sum_up(queues, name)
  local sum = 0
  for i = 0, queues - 1 do
    sum = sum + net.queue(FIRST_QUEUE + i)[name]
  end
  return sum
end

-- How many packets have been sent when this part of the time that all take is over.
local function sent_after(steps, part)
  local left = 0
  for _, step in ipairs(steps) do
    left = left + step[1] / step[2] * part
  end
  local sent = 0
  for _, step in ipairs(steps) do
    local time = math.min(left, step[1] / step[2])
    left = left - time
    sent = sent + time * step[2]
  end
  return sent
end

-- Kills a worker now and then, one after another of want of memory where it can be: how, and when in microseconds.
local function kill_workers(run, packets, options, limited)
  local luv = require("luv")
  local socket = require("socket")
  local ways = { "sigkill", "sigsegv", "sigabrt", limited and "memory" or nil }
  local sender = socket.udp4()
  local deaths, ready = {}, 0
  for number = 1, options.kills do
    local threshold = sent_after(options.steps, number / (options.kills + 1))
    local way = ways[number % #ways + 1]
    local pid
    net.wait_for("packet " .. threshold, function()
      return sum_up(options.queues, "id_sequence") >= threshold
    end, 120)
    -- Another one than was killed last; it may be in the middle of taking over what that one left.
    local fine, trouble = pcall(net.wait_for, "a worker", function()
      local count
      pid, count = last_worker(run)
      if count == ready then
        return false
      end
      ready = count
      return true
    end)
    if not fine then
      error(trouble .. ":\n" .. run:output())
    end
    -- It judges some first: to die at once again and again is another matter.
    local seen = sum_up(options.queues, "id_sequence")
    net.wait_for("a worker that judges", function()
      return sum_up(options.queues, "id_sequence") > seen + LIFE or count_sent(packets)
    end)
    deaths[number] = { way = way, time = math.floor(socket.gettime() * 1e6) }
    if way == "memory" then
      sender:sendto(("I4"):pack(HOG), "127.0.0.1", PORT)
    else
      luv.kill(pid, way)
    end
  end
  sender:close()
  return deaths
end

-- The longest time without a packet that ended within half a second after each kill by a signal and before the next, in
-- ms, sorted. (Before the others a handler takes its time until there is no memory.)
local function measure_gaps(deaths, arrivals)
  local gaps, index = {}, 1
  for number, item in ipairs(deaths) do
    local longest, time = 0, item.time
    local last = math.min(time + 500000, deaths[number + 1] and deaths[number + 1].time or math.maxinteger)
    while index < #arrivals and arrivals[index].time < time do
      index = index + 1
    end
    local at = math.max(index, 2)
    while at <= #arrivals and arrivals[at].time < last do
      longest = math.max(longest, arrivals[at].time - arrivals[at - 1].time)
      at = at + 1
    end
    if item.way ~= "memory" and longest > 0 then
      gaps[#gaps + 1] = longest / 1000
    end
  end
  table.sort(gaps)
  return gaps
end

--- Send numbered packets through `nfqueue run` and kill its workers meanwhile.
-- options: on_error, queues, threads, kills, and steps, a list of { count, packets a second }.
-- Returns what became of it, for death.check.
function death.run(options)
  local arrived = net.file()
  local limited = death.make_group()
  local total, steps = 0, {}
  for i, step in ipairs(options.steps) do
    total = total + step[1]
    steps[i] = ("%d@%d"):format(step[1], step[2])
  end
  local last = FIRST_QUEUE + options.queues - 1
  net.must(("iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE %s"):format(PORT, options.queues == 1
    and "--queue-num " .. FIRST_QUEUE or ("--queue-balance %d:%d"):format(FIRST_QUEUE, last)))
  local run = net.run(("%s -q %d-%d --threads %d --on-error %s --max-packets 65536 --buffer-size %d "
    .. "--time-limit 60 -- %s"):format(
    net.file(SCRIPT), FIRST_QUEUE, last, options.threads, options.on_error, 64 << 20,
    limited and "group=" .. limited.path or ""))
  local packets = net.start(("%s/support/arrivals %d %d %s %s"):format(net.build, PORT, ADDRESSES, arrived,
    table.concat(steps, " ")))
  local deaths = kill_workers(run, packets, options, limited)
  net.wait_for("all to be sent", function()
    return count_sent(packets)
  end, 120)
  net.wait_for("the last successor", function()
    return run:count("ready:") == options.kills + 1 and sum_up(options.queues, "waiting") == 0
  end)
  local dropped = sum_up(options.queues, "queue_dropped") + sum_up(options.queues, "user_dropped")
  run:signal("TERM")
  local status = run:join()
  packets:signal("TERM")
  packets:join()
  net.flush_rules()
  if limited then
    limited:remove()
  end
  local result = { options = options, sent = total, status = status, output = run:output(), marks = {}, twice = 0,
    deaths = run:count("starting another"), culprits = run:count("died in the handler"), errors = 0, lost = 0,
    refused = 0, counted = 0, kernel_dropped = dropped }
  for words in result.output:gmatch("queue %d+ (packets=[^\n]+)") do
    local function value(name)
      return tonumber(words:match(name .. "=(%d+)"))
    end
    result.counted = result.counted + value("packets")
    result.errors = result.errors + value("errors")
    result.lost = result.lost + value("lost")
    result.refused = result.refused + value("refused")
  end
  local arrivals = {}
  for line in io.lines(arrived) do
    local number, mark, time = line:match("(%d+) (%d+) (%d+)")
    number = math.tointeger(tonumber(number))
    if number ~= HOG then
      arrivals[#arrivals + 1] = { number = number, time = math.tointeger(tonumber(time)) }
    end
    if result.marks[number] and number ~= HOG then
      result.twice = result.twice + 1
    end
    result.marks[number] = tonumber(mark)
  end
  result.kills = options.kills
  result.hogs = limited and options.kills // 4 or 0 -- packets with which memory went
  result.by = ("signal 9 %d, 11 %d, 6 %d; "):format(run:count("signal 9 "), run:count("signal 11 "),
    run:count("signal 6 ")) .. (limited and "for want of memory " .. result.hogs or "no memory could be limited here")
  result.gaps = measure_gaps(deaths, arrivals)
  return result
end

--- A worker dies with the only packet, and no other follows: how long each of so many is on its way, in ms, sorted.
-- Of half of them the message dies too, so that nothing but the kernel's numbering tells of them.
function death.measure_idle(count)
  local socket = require("socket")
  local box = net.udp(PORT)
  net.must(("iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, FIRST_QUEUE))
  local run = net.run(("%s -q %d --on-error accept"):format(net.file("return function(pkt) pkt:accept() end"),
    FIRST_QUEUE), net.build .. "/support/dying.so")
  local times = {}
  for number = 1, count do
    socket.sleep(1.1) -- a worker that lives for less is one that dies at once
    local text = number % 2 == 0 and "die lost" or "die received"
    local start = socket.gettime()
    box:send(text)
    socket.select({ box.socket }, nil, 10)
    times[number] = (socket.gettime() - start) * 1000
    assert(#box:all() == number)
    net.wait_for("the next worker", function()
      return run:count("ready:") == number + 1
    end)
  end
  run:signal("TERM")
  run:join()
  box:close()
  net.flush_rules()
  table.sort(times)
  return times
end

-- What the file of support/arrivals tells: marks by number, and how many came more than once.
local function read_arrivals(path)
  local marks, twice = {}, 0
  for line in io.lines(path) do
    local number, mark = line:match("(%d+) (%d+)")
    number = math.tointeger(tonumber(number))
    twice = twice + (marks[number] and 1 or 0)
    marks[number] = tonumber(mark)
  end
  return marks, twice
end

--- Send numbered packets through a service that is killed and restarted meanwhile (spec/support/manager.c).
-- options: queues, threads, ends, steps. on_error is accept. Returns what became of it.
function death.run_managed(options)
  local luv = require("luv")
  local total, steps = 0, {}
  for i, step in ipairs(options.steps) do
    total = total + step[1]
    steps[i] = ("%d@%d"):format(step[1], step[2])
  end
  local last = FIRST_QUEUE + options.queues - 1
  net.must(("iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE %s"):format(PORT, options.queues == 1
    and "--queue-num " .. FIRST_QUEUE or ("--queue-balance %d:%d"):format(FIRST_QUEUE, last)))
  local script, command, arrived = net.file(SCRIPT), net.file(), net.file()
  local function set_command(number)
    write(command, ("exec %s/bin/nfqueue%s run %s -q %d-%d --threads %d --on-error accept --max-packets 65536 "
      .. "--buffer-size %d\n"):format(net.build, number % 2 == 0 and "" or "-newer", script, FIRST_QUEUE, last,
      options.threads, 64 << 20))
  end
  set_command(0)
  local manager = net.start(("%s/support/manager 16 %s"):format(net.build, command))
  manager:await("READY=1")
  local packets = net.start(("%s/support/arrivals %d %d %s %s"):format(net.build, PORT, ADDRESSES, arrived,
    table.concat(steps, " ")))
  for number = 1, options.ends do
    local threshold = total * number // (options.ends + 1)
    net.wait_for("packet " .. threshold, function()
      return sum_up(options.queues, "id_sequence") >= threshold
    end, 120)
    local output = manager:output()
    local ready = select(2, output:gsub("READY=1", ""))
    local pid = math.tointeger(tonumber(output:match(".*started (%d+)\n")))
    set_command(number)
    if number % 3 == 0 then
      manager:signal("USR1") -- a restart that is asked for
    else
      luv.kill(pid, "sigkill")
    end
    net.wait_for("the next run", function()
      return manager:count("READY=1") > ready
    end, 30)
  end
  net.wait_for("all to be sent", function()
    return count_sent(packets)
  end, 120)
  net.wait_for("empty queues", function()
    return sum_up(options.queues, "waiting") == 0
  end)
  local result = { ends = options.ends, sent = total, missing = 0, other = 0, output = manager:output(),
    kernel_dropped = sum_up(options.queues, "queue_dropped") + sum_up(options.queues, "user_dropped") }
  packets:signal("TERM")
  packets:join()
  manager:signal("TERM")
  manager:join()
  net.flush_rules()
  local marks
  marks, result.twice = read_arrivals(arrived)
  for number = 0, total - 1 do
    local mark = marks[number]
    if number % 10 == 3 then
      result.other = result.other + (mark and 1 or 0)
    elseif not mark then
      result.missing = result.missing + 1
    elseif mark ~= 1 + number % 997 then
      result.other = result.other + 1
    end
  end
  return result
end

--- Fail unless every packet had its verdict: its handler's, or on_error for at most one a thread and kill, and the
-- counters say for how many.
function death.check(result)
  local accept = result.options.on_error == "accept"
  local other, missing = 0, 0
  for number = 0, result.sent - 1 do
    local mark = result.marks[number]
    if number % 10 == 3 then
      other = other + (mark and 1 or 0)
      check(not mark or mark == 0, "packet %d, which is dropped, came with mark %s", number, mark)
    elseif not mark then
      missing = missing + 1
    elseif mark ~= 1 + number % 997 then
      check(mark == 0, "packet %d came with mark %d", number, mark)
      other = other + 1
    end
  end
  result.other, result.missing = other, missing
  local unjudged = result.errors + result.lost - result.hogs -- of the numbered
  check(result.status == 0, "it ended with status %s: %s", result.status, result.output)
  check(result.deaths == result.kills, "%d deaths of %d kills", result.deaths, result.kills)
  check(result.twice == 0, "%d packets came twice", result.twice)
  check(result.kernel_dropped == 0, "the kernel dropped %d packets", result.kernel_dropped)
  check(result.counted + result.lost == result.sent + result.hogs, "%d packets counted and %d lost, but %d sent",
    result.counted, result.lost, result.sent + result.hogs)
  check(unjudged <= result.options.threads * result.deaths - result.hogs, "%d got on_error in %d deaths of %d threads",
    unjudged, result.deaths, result.options.threads)
  if accept then
    check(missing == 0, "%d packets are missing", missing)
    check(other == unjudged, "%d came without their handler's verdict, but %d is counted", other, unjudged)
  else
    check(other == 0, "%d came without their handler's verdict", other)
    check(missing == unjudged, "%d packets are missing, but %d is counted", missing, unjudged)
  end
end

return death
