--- nfqueue stop: a running instance judges what waits, leaves its queues, and ends.

local exit = require("nfqueue.cli.exit")
local options = require("nfqueue.cli.options")

return function(context)
  local parser = context.argparse("nfqueue stop", "Have a running instance judge what waits in its queues and end; "
    .. "returns when it has.")
  options.add_name(parser, "of the instance (default nfqueue)")
  options.ask(exit.parse(parser, context.words).name, "stop", 0)
  return exit.OK
end
