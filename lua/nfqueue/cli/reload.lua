--- nfqueue reload: a running instance loads its script anew, or says why it did not.

local exit = require("nfqueue.cli.exit")
local options = require("nfqueue.cli.options")

return function(context)
  local parser = context.argparse("nfqueue reload", "Have a running instance load its script anew. With an error in "
    .. "it, the script in force stays, and the error is told.")
  options.add_name(parser, "of the instance (default nfqueue)")
  options.ask(exit.parse(parser, context.words).name, "reload", 0)
  return exit.OK
end
