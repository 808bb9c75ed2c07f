--- nfqueue lab: a private network namespace with a queue in the path.

local core = require("nfqueue.core")
local exit = require("nfqueue.cli.exit")
local queues = require("nfqueue.queues")
local rules = require("nfqueue.rules")

local ENOENT = 2

local function parse(context)
  local parser = context.argparse("nfqueue lab",
    "Run a command in a private network: a loopback interface, whose outgoing packets all pass queue 0 "
      .. "(bypassed while nobody listens). Root is not needed; nothing outside is touched.")
    :usage("Usage: nfqueue lab [-q N|A-B] [--hook output|input|none] [--nft|--iptables] -- COMMAND [ARGUMENT...]")
  parser:option("-q --queue", "queue number or range in the path"):argname("<n>"):default("0")
  parser:option("--hook", "where the rule sits; none: no rule")
    :choices({ "output", "input", "none" }):default("output")
  parser:mutex(
    parser:flag("--nft", "make the rule with nft only"),
    parser:flag("--iptables", "make the rule with iptables only"))
  return exit.parse(parser, context.words)
end

local function enter()
  local done, message, errno = core.enter_namespace()
  if done then
    return
  end
  if core.geteuid() == 0 then
    exit.fail(exit.NO_PERMISSION, "cannot make a network namespace: " .. message
      .. "; CAP_SYS_ADMIN is needed, which this container withholds")
  end
  exit.fail(exit.NO_PERMISSION, ("cannot make a user namespace: %s (errno %d); where the system restricts them, "
    .. "run it as root, or as root set sysctl kernel.unprivileged_userns_clone=1 and "
    .. "kernel.apparmor_restrict_unprivileged_userns=0"):format(message, errno))
end

local function parse_range(text)
  local numbers, message = queues.parse(text)
  if not numbers then
    exit.fail(exit.USAGE, "option '-q': " .. message)
  end
  if #numbers ~= numbers[#numbers] - numbers[1] + 1 then
    exit.fail(exit.USAGE, "option '-q': one number or one range, as firewall rules take it")
  end
  return numbers[1], numbers[#numbers]
end

local function put_rule(arguments, first, last)
  local program = arguments.nft and "nft" or arguments.iptables and "iptables" or nil
  local done, reason = rules.apply(arguments.hook, first, last, program)
  if not done then
    exit.fail(exit.UNAVAILABLE, "cannot put a queue in the path: " .. reason)
  end
end

return function(context)
  local arguments = parse(context)
  if not context.rest or #context.rest == 0 then
    exit.fail(exit.USAGE, "no command is given: nfqueue lab -- COMMAND")
  end
  local first, last = parse_range(arguments.queue)
  enter()
  -- With the default of 65,536 bytes loopback packets are like none on a wire.
  local done, output = rules.capture("ip link set lo up mtu 1500")
  if not done then
    exit.fail(exit.UNAVAILABLE, "cannot bring up the loopback interface with ip (package iproute2): " .. output)
  end
  if arguments.hook ~= "none" then
    put_rule(arguments, first, last)
  end
  core.setenv("NFQUEUE_LAB", "1") -- tells what runs inside that this network is its own
  core.setenv("PATH", context.folder .. ":" .. (os.getenv("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin"))
  local _, message, errno = core.execute(context.rest)
  io.stderr:write(("nfqueue: cannot run %s: %s\n"):format(context.rest[1], message))
  return errno == ENOENT and 127 or 126 -- as the shell says it
end
