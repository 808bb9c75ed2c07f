--- nfqueue run: a supervisor, a worker, a thread and a Lua state per queue.

local core = require("nfqueue.core")
local exit = require("nfqueue.cli.exit")
local options = require("nfqueue.cli.options")
local queues = require("nfqueue.queues")

local function parse(context)
  local parser = context.argparse("nfqueue run", "Judge the packets of kernel queues with a handler script.")
    :usage("Usage: nfqueue run SCRIPT -q N|A-B [-q ...] [options] [-- key=value...]")
  parser:argument("script", "path, or name of a script that came with nfqueue")
  parser:option("-q --queue", "queue number or range; may be repeated"):argname("<n>"):count("*")
  parser:option("--threads", "threads that share the queues (default: one a queue, up to the cores)")
    :argname("<n>")
  options.add_name(parser, "what it is called by reload, stop and stats (default nfqueue)")
  parser:option("--user", "become this user, with CAP_NET_ADMIN alone, before the script is read"):argname("<name>")
  parser:flag("--confine", "allow the worker few system calls and few files")
  parser:option("--read", "a file or folder the confined script may read; may be repeated"):argname("<path>")
    :count("*")
  parser:option("--write", "the same, and change"):argname("<path>"):count("*")
  options.add_config(parser)
  return exit.parse(parser, context.words)
end

return function(context)
  local arguments = parse(context)
  if #arguments.queue == 0 then
    exit.fail(exit.USAGE, "no queue is given: add -q N, the number in your firewall rule")
  end
  local numbers, message = queues.parse(arguments.queue)
  if not numbers then
    exit.fail(exit.USAGE, "option '-q': " .. message)
  end
  local threads = math.min(#numbers, core.cores())
  if arguments.threads then
    threads = math.tointeger(tonumber(arguments.threads))
    if not threads or threads < 1 or threads > #numbers then
      exit.fail(exit.USAGE, ("option '--threads': integer from 1 to %d, the number of queues, expected, got '%s'")
        :format(#numbers, arguments.threads))
    end
  end
  for _, name in ipairs({ "read", "write" }) do
    if #arguments[name] > 0 and not arguments.confine then
      exit.fail(exit.USAGE, ("option '--%s' is of use with --confine only"):format(name))
    end
  end
  local flat = {}
  for key, value in pairs(options.script_args(context.rest)) do
    for _, item in ipairs(type(value) == "table" and value or { value }) do
      flat[#flat + 1] = key
      flat[#flat + 1] = item
    end
  end
  return core.supervise({
    script = options.find_script(arguments.script),
    queues = numbers,
    threads = threads,
    args = flat,
    name = arguments.name,
    config = options.config(arguments),
    user = arguments.user,
    confine = arguments.confine or false,
    read = arguments.read,
    write = arguments.write,
  })
end
