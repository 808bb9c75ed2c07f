--- nfqueue check: load a script and give it one packet of each kind, without a kernel.

local core = require("nfqueue.core")
local exit = require("nfqueue.cli.exit")
local options = require("nfqueue.cli.options")
local samples = require("nfqueue.cli.samples")

local function parse(context)
  local parser = context.argparse("nfqueue check",
    "Load a handler script, run its open, and give it one packet of each kind. Needs no root.")
    :usage("Usage: nfqueue check SCRIPT [options] [-- key=value...]")
  parser:argument("script", "path, or name of a script that came with nfqueue")
  options.add_config(parser)
  return exit.parse(parser, context.words)
end

return function(context)
  local arguments = parse(context)
  local path = options.find_script(arguments.script)
  local args, config = options.script_args(context.rest), options.config(arguments)
  if config.sandbox then
    core.enclose(path)
  end
  local handler, message, _, status = core.load(path, args, config)
  if not handler then
    exit.fail(status, message)
  end
  local failures = 0
  for _, sample in ipairs(samples.all()) do
    local packet = core.packet(sample.bytes, sample.meta)
    local verdict, problem = handler(packet)
    print(("%-28s %s"):format(sample.name, verdict))
    if problem then
      failures = failures + 1
      print("  the handler failed: " .. problem:gsub("\n", "\n  "))
    end
  end
  handler:close()
  if failures > 0 then
    exit.fail(exit.SCRIPT, ("%s failed on %d of %d kinds of packets"):format(path, failures, #samples.all()))
  end
  return exit.OK
end
