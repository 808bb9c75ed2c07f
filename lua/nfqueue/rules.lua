--- Firewall rules that send packets to a queue, by nft or iptables, whichever this kernel can.
-- @module nfqueue.rules

local rules = {}

local TABLE = "nfqueue"

--- Run a shell command.
-- @tparam string command
-- @treturn boolean whether it succeeded
-- @treturn string its output, standard error included, without the last newline
function rules.capture(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1", "r"))
  local output = pipe:read("a")
  return pipe:close() == true, (output:gsub("%s+$", ""))
end
local capture = rules.capture

local function is_installed(program)
  return (capture("command -v " .. program))
end

local function range(first, last)
  return first == last and tostring(first) or first .. "-" .. last
end

--- The nft ruleset for a hook of the inet family: every packet to the queues, or past them while nobody
-- listens.
function rules.nft_ruleset(hook, first, last)
  return ([[
table inet %s {
  chain %s {
    type filter hook %s priority 0; policy accept;
    queue num %s bypass
  }
}
]]):format(TABLE, hook, hook, range(first, last))
end

--- The iptables arguments for the same, behind the program's name.
function rules.iptables_arguments(hook, first, last)
  local queues = first == last and "--queue-num " .. first or ("--queue-balance %d:%d"):format(first, last)
  return ("-w -A %s -j NFQUEUE %s --queue-bypass"):format(hook:upper(), queues)
end

local function apply_nft(hook, first, last)
  if not is_installed("nft") then
    return nil, "nft is not installed"
  end
  local done, output = capture(("nft -f - <<'END'\n%sEND"):format(rules.nft_ruleset(hook, first, last)))
  if done then
    return true
  end
  -- The message is the same for any missing part; a ruleset without the queue statement tells which.
  local chain = rules.nft_ruleset(hook, first, last):gsub("[^\n]*queue num[^\n]*\n", "")
  if output:find("No such file", 1, true) and capture(("nft -c -f - <<'END'\n%sEND"):format(chain)) then
    return nil, "this kernel has no nft queue expression (CONFIG_NFT_QUEUE, module nft_queue)"
  end
  return nil, "nft: " .. (output:match("Error: ([^\n]*)") or output)
end

local function apply_iptables(hook, first, last)
  for _, program in ipairs({ "iptables", "ip6tables" }) do
    if not is_installed(program) then
      return nil, program .. " is not installed"
    end
    local done, output = capture(program .. " " .. rules.iptables_arguments(hook, first, last))
    if not done then
      return nil, ("%s: %s"):format(program, output:match("^[^\n]*"))
    end
  end
  return true
end

local APPLY = { nft = apply_nft, iptables = apply_iptables }

--- Send all packets of a hook to queues first to last, with bypass, for IPv4 and IPv6.
-- @tparam string hook "input", "forward" or "output"
-- @tparam integer first
-- @tparam integer last
-- @tparam[opt] string program "nft" or "iptables"; default: nft, and iptables where nft cannot
-- @treturn string the program that did it; or nil and why none could
function rules.apply(hook, first, last, program)
  local reasons = {}
  for _, name in ipairs(program and { program } or { "nft", "iptables" }) do
    local done, reason = APPLY[name](hook, first, last)
    if done then
      return name
    end
    reasons[#reasons + 1] = reason
  end
  return nil, table.concat(reasons, "; ")
end

return rules
