-- CPU time per packet of the command beside a plain C loop (plain.c), while each drains a filled queue.
--   lua5.4 spec/bench/run.lua
-- Environment: NFQUEUE_BUILD (default build), NFQUEUE_BENCH_PACKETS, NFQUEUE_BENCH_REPEATS.
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
}

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
local function measure(subject, delivers)
  local number = subject.queue
  local before = net.queue(number)
  check(before, "queue %d is not bound (%s): %s", number, subject.label, subject.process:output())
  net.must("iptables -w -t mangle -F INPUT; iptables -w -Z INPUT")
  net.must(("iptables -w -t mangle -A INPUT -p udp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, number))
  net.must("kill -STOP " .. subject.pid)
  net.wait_for("the subject to stop", function() return all_in_state(subject.pid, "[Tt]") end)
  net.must(("%s/bench/flood %d %d %d"):format(net.build, PACKETS, PAYLOAD, PORT))
  local filled = net.queue(number)
  check(filled.waiting == PACKETS and lost(filled) == lost(before),
    "%s: %d of %d packets wait in the queue, %d were lost: too many for it or its receive "
      .. "buffer (set NFQUEUE_BENCH_PACKETS lower)",
    subject.label, filled.waiting, PACKETS, lost(filled) - lost(before))
  local start = cpu_time(subject.pid)
  net.must("kill -CONT " .. subject.pid)
  net.wait_for("the queue to be empty", function() return net.queue(number).waiting == 0 end)
  net.wait_for("the subject to wait", function() return all_in_state(subject.pid, "S") end)
  local stop = cpu_time(subject.pid)
  local delivered = net.rule_packets("INPUT", "dpt:" .. PORT)
  check(delivered == (delivers and PACKETS or 0) and lost(net.queue(number)) == lost(before),
    "%s: %d packets of %d were delivered", subject.label, delivered, PACKETS)
  subject.user = subject.user + stop.user - start.user
  subject.kernel = subject.kernel + stop.kernel - start.kernel
  return (stop.total - start.total) / PACKETS
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

local function start_subjects()
  for _, row in ipairs(rows) do
    row.c = new_subject("plain C " .. row.name, function(queue)
      local program = (row.program or "plain %d " .. (row.plain or "")):format(queue)
      return net.start(("%s/bench/%s"):format(net.build, program))
    end)
    row.c.pid = row.c.process.pid
    row.lua = new_subject("nfqueue " .. row.name, function(queue)
      return net.run(("%s -q %d --max-packets 65536 --buffer-size 67108864")
        :format(net.file(row.script), queue))
    end)
    row.lua.pid = row.lua.process:worker()
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
        subject.times[round] = measure(subject, row.delivers)
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
  print(("%-15s %-24s %-6s %-24s %-6s %-7s %s")
    :format("", "plain C", "user", "nfqueue", "user", "ratio", "of pairs"))
  for _, row in ipairs(rows) do
    local c, c_least, c_most = summarize(row.c)
    local lua, lua_least, lua_most = summarize(row.lua)
    local pairs_of_runs = {}
    for i, value in ipairs(row.lua.times) do
      pairs_of_runs[i] = value / row.c.times[i]
    end
    print(("%-15s %-24s %-6s %-24s %-6s %-7.2f %.2f"):format(row.name,
      ("%5.0f (%.0f to %.0f)"):format(c, c_least, c_most), user_share(row.c),
      ("%5.0f (%.0f to %.0f)"):format(lua, lua_least, lua_most), user_share(row.lua),
      lua / c, median(pairs_of_runs)))
    done[#done + 1] = { name = row.name, c = c, lua = lua, ratio = lua / c, pair_ratio = median(pairs_of_runs),
      c_times = row.c.times, lua_times = row.lua.times }
  end
  print("filtered: no packet matches the filter; beside it not plain C, but this loop in C, which accepts all")
  return done
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
  start_subjects()
  measure_all()
  write_results(report())
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
