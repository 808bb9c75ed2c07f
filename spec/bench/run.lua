-- CPU time per packet of the command beside a plain C loop (plain.c), or beside itself with another script, while
-- each drains a filled queue; and how late delayed packets leave (lateness.c).
--   lua5.4 spec/bench/run.lua
-- Environment: NFQUEUE_BUILD (default build), NFQUEUE_BENCH_PACKETS, NFQUEUE_BENCH_REPEATS, and NFQUEUE_BENCH_ROWS:
-- only rows whose name has this text.
--
-- A subject is stopped, packets are sent into its queue, it is continued, and its threads' CPU time until the queue
-- is empty is divided by their number. So neither the generator nor the scheduler counts, and runs of the subjects
-- take turns, so that what the machine does meanwhile falls on all alike. What is counted is delivered to a rule
-- behind the queue, which drops it: no receiver's cost is in it.

package.path = "spec/?.lua;" .. package.path

local net = require("support.net")

if net.sh("id -u") ~= "0" then
  -- In a user namespace neither the kernel's list of queues can be read nor the receive buffer be forced.
  io.stderr:write("bench needs root: only root can read /proc/net/netfilter/nfnetlink_queue\n")
  os.exit(77)
end

if not os.getenv("NFQUEUE_BENCH_INSIDE") then
  os.exit((os.execute(("NFQUEUE_BENCH_INSIDE=1 %s lab --hook none -- %s spec/bench/run.lua")
    :format(net.command, arg[-1]))) == true)
end

local PORT = 9999
local PAYLOAD = 64
local REPEATS = tonumber(os.getenv("NFQUEUE_BENCH_REPEATS")) or 15
local PACKETS = tonumber(os.getenv("NFQUEUE_BENCH_PACKETS")) or 10000
local EDITED = 40 -- offset of a payload byte: 20 of IPv4, 8 of UDP, and some

-- Packets are held until there are as many, then all are accepted, in the order that the loop gives.
local HELD = 4096
local HOLDER = ([[
  local held, count = {}, 0
  return function(pkt)
    pkt:hold()
    count = count + 1
    held[count] = pkt
    if count == %d then
      for i = %s do
        held[i]:accept()
      end
      count = 0
    end
  end]])

-- Connections, each with a packet in turn, all there, then all back.
local FLOWS = 1000
local FLOW = ([[
  local nfqueue = require("nfqueue")
  local flows = nfqueue.flows({ timeout = 3600 })
  return function(pkt)
    local flow, reply = flows:get(pkt)
    %s
    pkt:accept()
  end]])

local rows = {
  { name = "accept", delivers = true, plain = "accept",
    script = "return function(pkt) pkt:accept() end" },
  { name = "drop", delivers = false, plain = "drop",
    script = "return function(pkt) pkt:drop() end" },
  { name = "edit one byte", delivers = true, plain = ("edit %d 121"):format(EDITED),
    script = ("return function(pkt) pkt:u8(%d, 121); pkt:accept() end"):format(EDITED) },
  -- Beside our own loop without a script, which accepts all: what it costs to have packets passed by.
  { name = "filtered", delivers = true, program = "loop %d",
    script = "return { config = { filter = 'tcp port 12345' }, packet = function(pkt) pkt:drop() end }" },
  { name = "held, in reverse", delivers = true, packets = 2 * HELD, beside = "in order",
    beside_script = HOLDER:format(HELD, "1, count"), script = HOLDER:format(HELD, "count, 1, -1") },
  -- Beside a script that accepts alike and looks nothing up: what finding the flow and its table costs.
  { name = "flow found", delivers = true, flows = FLOWS, beside = "accept",
    beside_script = "return function(pkt) pkt:accept() end",
    script = FLOW:format("flow[reply] = (flow[reply] or 0) + 1") },
  -- Beside our own loop, as above: what it costs to find in C that a flow has its verdict.
  { name = "flow decided", delivers = true, flows = FLOWS, program = "loop %d",
    script = FLOW:format('flow.verdict = "accept"') },
}

-- Delayed packets: so many sent in a second, each delayed between two numbers of seconds.
local LATE = {
  { name = "one after the other", count = 50000, rate = 50000, least = 1.5, most = 1.5 },
  { name = "in any order", count = 50000, rate = 50000, least = 1.2, most = 3 },
}
local LATE_REPEATS = 5

local wanted = os.getenv("NFQUEUE_BENCH_ROWS") or ""
for _, list in ipairs({ rows, LATE }) do
  for i = #list, 1, -1 do
    if not (list == LATE and "delayed " or ""):find(wanted, 1, true) and not list[i].name:find(wanted, 1, true) then
      table.remove(list, i)
    end
  end
end

local function threads(pid)
  return net.sh(("ls /proc/%d/task"):format(pid)):gmatch("%d+")
end

--- CPU time of a process: nanoseconds in all, and clock ticks in user space and in the kernel.
local function cpu_time(pid)
  local total, user, kernel = 0, 0, 0
  for thread in threads(pid) do
    local folder = ("/proc/%d/task/%s/"):format(pid, thread)
    total = total + tonumber(net.read(folder .. "schedstat"):match("%d+"))
    -- behind the name, which may hold spaces: state is field 3, utime 14, stime 15
    local fields = {}
    for field in net.read(folder .. "stat"):match("%) (.*)"):gmatch("%S+") do
      fields[#fields + 1] = field
    end
    user = user + tonumber(fields[12])
    kernel = kernel + tonumber(fields[13])
  end
  return { total = total, user = user, kernel = kernel }
end

local function all_in_state(pid, pattern)
  for thread in threads(pid) do
    if not net.read(("/proc/%d/task/%s/stat"):format(pid, thread)):match("%) " .. pattern) then
      return false
    end
  end
  return true
end

local function check(condition, text, ...)
  if not condition then
    error(text:format(...), 0)
  end
end

local function lost(queue)
  return queue.queue_dropped + queue.user_dropped
end

--- One run: nanoseconds per packet.
local function measure(subject, row)
  local number = subject.queue
  local packets = row.packets or PACKETS
  local before = net.queue(number)
  check(before, "queue %d is not bound (%s): %s", number, subject.label, subject.process:output())
  net.must("iptables -w -t mangle -F INPUT; iptables -w -Z INPUT")
  net.must(("iptables -w -t mangle -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, number))
  net.must("kill -STOP " .. subject.pid)
  net.wait_for("the subject to stop", function() return all_in_state(subject.pid, "[Tt]") end)
  net.must(("%s/bench/flood %d %d %d %s"):format(net.build, packets, PAYLOAD, PORT, row.flows or ""))
  local filled = net.queue(number)
  check(filled.waiting == packets and lost(filled) == lost(before),
    "%s: %d of %d packets wait in the queue, %d were lost: too many for it or its receive "
      .. "buffer (set NFQUEUE_BENCH_PACKETS lower)",
    subject.label, filled.waiting, packets, lost(filled) - lost(before))
  local start = cpu_time(subject.pid)
  net.must("kill -CONT " .. subject.pid)
  net.wait_for("the queue to be empty", function() return net.queue(number).waiting == 0 end)
  net.wait_for("the subject to wait", function() return all_in_state(subject.pid, "S") end)
  local stop = cpu_time(subject.pid)
  local delivered = net.rule_packets("INPUT", "dpt:" .. PORT)
  check(delivered == (row.delivers and packets or 0) and lost(net.queue(number)) == lost(before),
    "%s: %d packets of %d were delivered", subject.label, delivered, packets)
  subject.user = subject.user + stop.user - start.user
  subject.kernel = subject.kernel + stop.kernel - start.kernel
  return (stop.total - start.total) / packets
end

local function sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy)
  return copy
end

local function median(list)
  local values = sorted(list)
  local middle = #values // 2
  return #values % 2 == 1 and values[middle + 1] or (values[middle] + values[middle + 1]) / 2
end

local next_queue = 0

local function new_subject(label, start)
  local subject = { label = label, queue = next_queue, user = 0, kernel = 0, times = {} }
  next_queue = next_queue + 1
  subject.process = start(subject.queue)
  net.wait_for(label, function()
    check(subject.process:is_alive(), "%s ended: %s", label, subject.process:output())
    return net.queue(subject.queue)
  end)
  return subject
end

local function new_command(label, script)
  local subject = new_subject(label, function(queue)
    return net.run(("%s -q %d --max-packets 65536 --buffer-size 67108864"):format(net.file(script), queue))
  end)
  subject.pid = subject.process:worker()
  return subject
end

local function start_subjects()
  for _, row in ipairs(rows) do
    if row.beside then
      row.c = new_command(row.beside, row.beside_script)
    else
      row.c = new_subject("plain C " .. row.name, function(queue)
        local program = (row.program or "plain %d " .. (row.plain or "")):format(queue)
        return net.start(("%s/bench/%s"):format(net.build, program))
      end)
      row.c.pid = row.c.process.pid
    end
    row.lua = new_command("nfqueue " .. row.name, row.script)
  end
end

local function measure_all()
  -- What arrives behind the queue is counted and ends here.
  net.must(("iptables -w -A INPUT -p udp --dport %d -j DROP"):format(PORT))
  for round = 0, REPEATS do
    for _, row in ipairs(rows) do
      -- Who goes first alternates: the second finds warmer caches.
      local order = round % 2 == 0 and { row.c, row.lua } or { row.lua, row.c }
      for _, subject in ipairs(order) do
        subject.times[round] = measure(subject, row)
      end
    end
    if round == 0 then
      -- Pages are touched for the first time, and the heap grows.
      for _, row in ipairs(rows) do
        row.c.times[0], row.lua.times[0] = nil, nil
      end
    end
  end
end

local function user_share(subject)
  local all = subject.user + subject.kernel
  return all > 0 and ("%3.0f %%"):format(100 * subject.user / all) or "?"
end

local function summarize(subject)
  local values = sorted(subject.times)
  return median(values), values[1], values[#values]
end

local function report()
  local done = {}
  print(("CPU ns per packet, %d packets of %d bytes of UDP payload, median (least to most) of %d runs")
    :format(PACKETS, PAYLOAD, REPEATS))
  print(("%-17s %-24s %-6s %-24s %-6s %-7s %s")
    :format("", "plain C, or as said", "user", "nfqueue", "user", "ratio", "of pairs"))
  for _, row in ipairs(rows) do
    local c, c_least, c_most = summarize(row.c)
    local lua, lua_least, lua_most = summarize(row.lua)
    local pairs_of_runs = {}
    for i, value in ipairs(row.lua.times) do
      pairs_of_runs[i] = value / row.c.times[i]
    end
    print(("%-17s %-24s %-6s %-24s %-6s %-7.2f %.2f"):format(row.name,
      ("%5.0f (%.0f to %.0f)%s"):format(c, c_least, c_most, row.beside and " " .. row.beside or ""), user_share(row.c),
      ("%5.0f (%.0f to %.0f)"):format(lua, lua_least, lua_most), user_share(row.lua),
      lua / c, median(pairs_of_runs)))
    done[#done + 1] = { name = row.name, c = c, lua = lua, ratio = lua / c, pair_ratio = median(pairs_of_runs),
      c_times = row.c.times, lua_times = row.lua.times }
  end
  print("filtered, flow decided: no packet enters Lua; beside them not plain C, but this loop in C, which accepts all")
  print(("flow found, flow decided: %d connections, a packet there and one back in turn"):format(FLOWS))
  return done
end

--- Delayed packets: how late they left, in milliseconds.
local function measure_lateness()
  if #LATE == 0 then
    return
  end
  net.must("iptables -w -t mangle -F INPUT; iptables -w -F INPUT")
  local subject = new_command("delayed", ('return function(pkt) pkt:delay(pkt:unpack(">I8", %d) / 1e9) end')
    :format(20 + 8 + 16))
  net.must(("iptables -w -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, subject.queue))
  print(("Delayed packets: milliseconds from when they were due until they were received, medians of %d runs")
    :format(LATE_REPEATS))
  print(("%-21s %-16s %-8s %-8s %-8s %-8s %s"):format("", "on their way", "median", "99 %", "99.9 %", "most",
    "CPU ns per packet"))
  for _, late in ipairs(LATE) do
    local columns = {}
    for _ = 1, LATE_REPEATS do
      local start = cpu_time(subject.pid)
      local line = net.must(("%s/bench/lateness %d %d %d %g %g"):format(net.build, PORT, late.count, late.rate,
        late.least, late.most))
      local numbers = {}
      for number in line:gmatch("%S+") do
        numbers[#numbers + 1] = tonumber(number)
      end
      check(numbers[1] == late.count and numbers[2] == 0, "delayed: %d came, %d of them early", numbers[1], numbers[2])
      numbers[13] = (cpu_time(subject.pid).total - start.total) / late.count
      for i, number in ipairs(numbers) do
        columns[i] = columns[i] or {}
        table.insert(columns[i], number)
      end
    end
    local medians = {}
    for i, column in ipairs(columns) do
      medians[i] = median(column)
    end
    print(("%-21s %-16d %-8.3f %-8.3f %-8.3f %-8.3f %.0f"):format(late.name, medians[4], medians[5], medians[6],
      medians[7], medians[8], medians[13]))
    print(("%-21s %-16s %-8.3f %-8.3f %-8.3f %-8.3f"):format("  a sleeper meanwhile", "", medians[9], medians[10],
      medians[11], medians[12]))
  end
end

local function list(values)
  local text = {}
  for i, value in ipairs(values) do
    text[i] = ("%.1f"):format(value)
  end
  return "[" .. table.concat(text, ", ") .. "]"
end

local function write_results(done)
  local path = net.build .. "/bench/results.json"
  local lines = {}
  for i, row in ipairs(done) do
    lines[i] = ('    {"name": "%s", "plain_ns": %.1f, "nfqueue_ns": %.1f, "ratio": %.4f, "pair_ratio": %.4f,\n'
      .. '     "plain_runs": %s,\n     "nfqueue_runs": %s}')
      :format(row.name, row.c, row.lua, row.ratio, row.pair_ratio, list(row.c_times), list(row.lua_times))
  end
  local file = assert(io.open(path, "w"))
  file:write(('{\n  "packets": %d, "payload": %d, "repeats": %d,\n  "rows": [\n%s\n  ]\n}\n')
    :format(PACKETS, PAYLOAD, REPEATS, table.concat(lines, ",\n")))
  file:close()
  print("written to " .. path)
end

local function bench()
  if #rows > 0 then
    start_subjects()
    measure_all()
    write_results(report())
  end
  measure_lateness()
end

local done, message = xpcall(bench, function(text)
  return type(text) == "string" and text or debug.traceback(text)
end)
-- A stopped process does not hear TERM.
for _, row in ipairs(rows) do
  for _, subject in pairs({ row.c, row.lua }) do
    if subject.pid then
      net.sh("kill -CONT " .. subject.pid)
    end
  end
end
net.cleanup()
if not done then
  io.stderr:write("bench failed: ", message, "\n")
end
os.exit(done)
