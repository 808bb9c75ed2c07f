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

--- Wait until the condition holds: its result, or an error after `seconds` (default 10).
function net.wait_for(what, condition, seconds)
  local deadline = os.time() + (seconds or 10) + 1
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
  return text
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

function process:signal(name)
  net.sh(("kill -%s %d"):format(name, self.pid))
end

--- Wait until it has ended: its exit status, as the shell gives it (128 + signal).
function process:join(seconds)
  return net.wait_for(self.command .. " to end", function()
    return tonumber(net.read(self.log .. ".status"):match("%d+"))
  end, seconds)
end

--- Start `nfqueue run` and wait until it judges: arguments as one string.
function net.run(arguments)
  local self = net.start(net.command .. " run " .. arguments)
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

--- End what was started and remove temporary files and rules; call it in after_each.
function net.cleanup()
  for _, self in ipairs(running) do
    if self:is_alive() then
      self:signal("TERM")
      local ended = pcall(self.join, self, 5)
      if not ended then
        self:signal("KILL")
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

--- Remove every rule of this namespace. Not for use outside a private one.
function net.flush_rules()
  net.sh("for t in filter mangle raw; do iptables -w -t $t -F; ip6tables -w -t $t -F; "
    .. "iptables -w -t $t -X; ip6tables -w -t $t -X; done; nft flush ruleset")
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

return net
