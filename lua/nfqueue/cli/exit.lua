--- Exit statuses of the command (sysexits.h), and leaving with one sentence from anywhere in it.
-- @module nfqueue.cli.exit

-- Once a script is read in a sandbox these are not there any more.
local stderr, traceback = io.stderr, debug.traceback

local exit = {
  OK = 0,
  FAILURE = 1,
  USAGE = 64,
  SCRIPT = 65,
  NO_INPUT = 66,
  UNAVAILABLE = 69,
  NO_PERMISSION = 77,
  CONFIG = 78,
}

local failure_mt = { __name = "nfqueue.cli.failure" }

--- Leave the command: one sentence on standard error, and the status.
-- @tparam integer status
-- @tparam string message
function exit.fail(status, message)
  error(setmetatable({ status = status, message = message }, failure_mt), 0)
end

--- Call a function that may leave with exit.fail.
-- @treturn integer exit status
function exit.catch(fn, ...)
  local function handler(problem)
    if getmetatable(problem) == failure_mt then
      return problem
    end
    return setmetatable({ status = exit.FAILURE, message = traceback(tostring(problem), 2) }, failure_mt)
  end
  local fine, result = xpcall(fn, handler, ...)
  if fine then
    return result
  end
  if result.message then
    stderr:write("nfqueue: ", result.message, "\n")
  end
  return result.status
end

--- Parse words with an argparse parser; a usage error leaves with status 64, --help with 0.
-- @treturn table what argparse returns
function exit.parse(parser, words)
  function parser.error(_, message)
    if message == "too many arguments" then
      message = message .. ": what is for the script or the command goes behind --"
    end
    exit.fail(exit.USAGE, ("%s (see %s --help)"):format(message:gsub("%s*\n%s*", "; "), parser._name))
  end
  return parser:parse(words)
end

return exit
