-- What specs need around the subject: processes, files, conditions, firewall rules and counters.

local net = {}

net.build = os.getenv("NFQUEUE_BUILD") or "build"
net.command = net.build .. "/bin/nfqueue"
-- A stock interpreter that finds this tree's module, also under a sanitizer.
net.lua = ("env LD_PRELOAD=%s lua5.4"):format(os.getenv("NFQUEUE_PRELOAD") or "")

--- Run a shell command: its output (both streams) without the last newline, whether it succeeded, its status.
function net.sh(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1", "r"))
  local output = pipe:read("a"):gsub("%s+$", "")
  local done, _, status = pipe:close()
  return output, done == true, status
end

--- The same for a command that must succeed.
function net.must(command)
  local output, done = net.sh(command)
  if not done then
    error(("failed: %s\n%s"):format(command, output), 2)
  end
  return output
end

-- Emulated machines and sanitizers are slower, by as much as this.
local PATIENCE = (os.getenv("NFQUEUE_GUEST") or os.getenv("NFQUEUE_SANITIZE")) and 6 or 1

--- Wait until the condition holds: its result, or an error after `seconds` (default 10; more where slow).
function net.wait_for(what, condition, seconds)
  local deadline = os.time() + (seconds or 10) * PATIENCE + 1
  repeat
    local result = condition()
    if result then
      return result
    end
    os.execute("sleep 0.02")
  until os.time() > deadline
  error("gave up waiting for " .. what, 2)
end

function net.read(path)
  local file = io.open(path, "r")
  if not file then
    return ""
  end
  local text = file:read("a")
  file:close()
  return text or "" -- a process that ended between open and read
end

local temporary = {}

--- A temporary file with this text: its path. net.cleanup removes it.
function net.file(text)
  local path = os.tmpname()
  temporary[#temporary + 1] = path
  local file = assert(io.open(path, "w"))
  file:write(text or "")
  file:close()
  return path
end

--- Write a file anew, at once: a reader has what it was, or what it becomes.
function net.write(path, text)
  local new = net.file(text)
  net.must(("mv %s %s"):format(new, path))
end

local process = {}
process.__index = process
local running = {}

--- Start a simple command in the background (exec'd by the shell, so that `pid` is its own).
-- process.log is the path of its output, both streams.
function net.start(command)
  local log = net.file()
  temporary[#temporary + 1] = log .. ".status"
  local pid = tonumber(net.must(("sh -c '%s' &"):format(
    ("{ exec %s; } >%s 2>&1 & echo $!; exec >/dev/null 2>&1; wait $!; echo $? >%s.status")
      :format(command, log, log):gsub("'", "'\\''"))))
  local self = setmetatable({ pid = pid, log = log, command = command }, process)
  running[#running + 1] = self
  return self
end

function process:is_alive()
  local state = net.read(("/proc/%d/stat"):format(self.pid)):match("%) (%a)")
  return state ~= nil and state ~= "Z"
end

function process:output()
  return net.read(self.log)
end

--- Wait until its output holds this text.
function process:await(text)
  net.wait_for(text, function()
    return self:output():find(text, 1, true)
  end)
end

--- How often the pattern is in its output.
function process:count(pattern)
  return select(2, self:output():gsub(pattern, ""))
end

--- A handler script that waits for a word in the fifo `gate` at the packet that says "block"; it drops what
-- says "drop" and accepts the rest.
net.GATED = [[
  local args = ...
  local function packet(pkt)
    if pkt:find("block") then
      io.stderr:write("blocked\n")
      io.open(args.gate):read("l")
    end
    if pkt:find("drop") then
      return pkt:drop()
    end
    pkt:accept()
  end
  return { packet = packet, config = { time_limit = 600 } } -- as long as the gate is closed
]]

function process:signal(name)
  net.sh(("kill -%s %d"):format(name, self.pid))
end

--- Wait until it has ended: its exit status, as the shell gives it (128 + signal).
function process:join(seconds)
  return net.wait_for(self.command .. " to end", function()
    return tonumber(net.read(self.log .. ".status"):match("%d+"))
  end, seconds)
end

--- What goes before a command so that it loads this library first, behind a sanitizer's.
function net.preload(library)
  return ("env LD_PRELOAD='%s %s' "):format(os.getenv("NFQUEUE_PRELOAD") or "", library)
end

--- Start `nfqueue run` and wait until it judges: arguments as one string; `library` is preloaded.
function net.run(arguments, library)
  local self = net.start((library and net.preload(library) or "") .. net.command .. " run " .. arguments)
  net.wait_for("nfqueue run " .. arguments, function()
    if not self:is_alive() then
      error("nfqueue run ended: " .. self:output(), 0)
    end
    return self:output():find("ready:", 1, true)
  end)
  return self
end

--- The pid of its worker.
function process:worker()
  return tonumber(net.must("pgrep -P " .. self.pid))
end

--- Write a script anew and have it loaded by SIGHUP; waits until that is done: true, or nil and why it was not.
function process:reload(path, text)
  local loaded, failed = self:count("info: reloaded"), self:count("not reloaded")
  if text then
    net.write(path, text)
  end
  self:signal("HUP")
  local result = net.wait_for("a reload of " .. path, function()
    assert(self:is_alive(), self:output())
    if self:count("not reloaded") > failed then
      return { nil, (self:output():match(".*not reloaded, the script in force stays: ([^\n]*)")) }
    end
    return self:count("info: reloaded") > loaded and { true }
  end)
  return table.unpack(result, 1, 2)
end

--- Stop this process and wait until each of its threads stands still: the signal alone is not at once.
function net.pause(pid)
  net.must("kill -STOP " .. pid)
  net.wait_for("process " .. pid .. " to stand still", function()
    for thread in net.sh(("ls /proc/%d/task"):format(pid)):gmatch("%d+") do
      local state = net.read(("/proc/%d/task/%s/stat"):format(pid, thread)):match("%) (%a)")
      if state and state ~= "T" then
        return false
      end
    end
    return true
  end)
end

--- End what was started and remove temporary files and rules; call it in after_each.
function net.cleanup()
  for _, self in ipairs(running) do
    if self:is_alive() then
      self:signal("TERM")
      local ended = pcall(self.join, self, 5)
      if not ended then
        -- a worker that is stuck in its handler hears nothing of its supervisor's end
        net.sh(("kill -KILL %d $(pgrep -P %d)"):format(self.pid, self.pid))
      end
    end
  end
  running = {}
  for _, path in ipairs(temporary) do
    os.remove(path)
  end
  temporary = {}
  net.flush_rules()
end

--- Remove every rule of this namespace; does nothing outside a private one.
function net.flush_rules()
  if os.getenv("NFQUEUE_LAB") ~= "1" then
    return
  end
  -- With Debian's iptables, which makes nft tables, the last command removes everything, at a tenth of the cost.
  net.sh("case $(iptables -V) in *nf_tables*) ;; *) for t in filter mangle raw nat; do iptables -w -t $t -F; "
    .. "ip6tables -w -t $t -F; iptables -w -t $t -X; ip6tables -w -t $t -X; done; esac; nft flush ruleset")
end

--- What /proc says of a queue: a table of numbers, or nil when no socket holds it.
function net.queue(number)
  for line in net.read("/proc/net/netfilter/nfnetlink_queue"):gmatch("[^\n]+") do
    local field = {}
    for value in line:gmatch("%d+") do
      field[#field + 1] = math.tointeger(value)
    end
    if field[1] == number then
      return {
        portid = field[2], waiting = field[3], copy_mode = field[4], copy_range = field[5],
        queue_dropped = field[6], user_dropped = field[7], id_sequence = field[8],
      }
    end
  end
end

--- Wait until nothing waits in these queues.
function net.await_judged(...)
  local numbers = { ... }
  net.wait_for("all verdicts", function()
    for _, number in ipairs(numbers) do
      if net.queue(number).waiting > 0 then
        return false
      end
    end
    return true
  end)
end

--- Packets that a rule has seen: `rule` is how `iptables -S` prints it, without the -A.
function net.rule_packets(chain, pattern, program)
  local listing = net.must((program or "iptables") .. " -w -vxnL " .. chain)
  for line in listing:gmatch("[^\n]+") do
    if line:find(pattern) then
      return tonumber(line:match("^%s*(%d+)"))
    end
  end
  error("no rule matches " .. pattern .. " in\n" .. listing, 2)
end

local mailbox = {}
mailbox.__index = mailbox

--- A UDP socket on a port of 127.0.0.1: `send(text, ...)` sends to itself, so that what a queue lets pass comes
-- back. What the kernel refuses to send (a full queue) is no error.
function net.udp(port)
  local socket = require("socket").udp()
  socket:setoption("reuseaddr", true) -- what a failed spec left running has inherited the port
  assert(socket:setsockname("127.0.0.1", port))
  assert(socket:setoption("recv-buffer-size", 4 << 20)) -- a slow spec loses nothing
  socket:settimeout(0)
  return setmetatable({ socket = socket, port = port, texts = {} }, mailbox)
end

function mailbox:send(...)
  for _, text in ipairs({ ... }) do
    self.socket:sendto(text, "127.0.0.1", self.port)
  end
end

--- Everything received since the socket was made: a list.
function mailbox:all()
  local text = self.socket:receive()
  while text do
    table.insert(self.texts, text)
    text = self.socket:receive()
  end
  return self.texts
end

--- Wait until this text has been received: the list of all that was, in order.
function mailbox:await(text, seconds)
  return net.wait_for("the datagram " .. text, function()
    for _, got in ipairs(self:all()) do
      if got == text then
        return self.texts
      end
    end
  end, seconds)
end

--- Wait until as many have been received: the list.
function mailbox:await_count(count, seconds)
  local fine, message = pcall(net.wait_for, "datagrams", function()
    return #self:all() >= count
  end, seconds)
  if not fine then
    error(("%s: %d of %d came"):format(message, #self.texts, count), 2)
  end
  return self.texts
end

function mailbox:close()
  self.socket:close()
end

--- Send UDP to this port of 127.0.0.1 through a queue; `more` is behind the rule's queue (default
-- "--queue-bypass").
function net.queue_udp(port, queue, more)
  net.must(("iptables -w -A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num %d %s")
    :format(port, queue, more or "--queue-bypass"))
end

--- A fifo for a handler to wait at: `io.open(path):read("l")` returns after net.open_gate(path).
function net.make_gate()
  local path = net.file()
  os.remove(path)
  net.must("mkfifo " .. path)
  return path
end

--- Let the handler that waits at the fifo go on; an error when none waits.
function net.open_gate(path)
  net.must("timeout 10 sh -c 'echo go >" .. path .. "'")
end

--- Packets that an nft rule with a counter has seen: the pattern is one for its line in the listing.
function net.nft_packets(pattern)
  local listing = net.must("nft list ruleset")
  for line in listing:gmatch("[^\n]+") do
    if line:find(pattern) then
      return tonumber(line:match("counter packets (%d+)"))
    end
  end
  error("no rule matches " .. pattern .. " in\n" .. listing, 2)
end

--- Make an nft ruleset.
function net.nft(ruleset)
  net.must(("nft -f - <<'END'\n%s\nEND"):format(ruleset))
end

--- Why this kernel has no nft queue expression: nil when it has.
function net.nft_queue_missing()
  local output, done = net.sh(
    "nft -c 'table inet probe { chain c { type filter hook output priority 0; queue num 5; }; }'")
  return not done and ("nft has no queue expression here: " .. output:match("^[^\n]*")) or nil
end

--- Why net.queue cannot tell, or nil: in a user namespace the file stays the real root's.
function net.no_queue_list()
  local file, why = io.open("/proc/net/netfilter/nfnetlink_queue")
  if not file then
    return why
  end
  file:close()
end

return net
