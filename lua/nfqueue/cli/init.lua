--- The command `nfqueue`: finds the subcommand and turns its outcome into an exit status.
-- @module nfqueue.cli

local core = require("nfqueue.core")
local exit = require("nfqueue.cli.exit")

local COMMANDS = { "run", "reload", "stop", "stats", "check", "lab" }

local SUMMARY = [[
nfqueue decides the fate of packets in Lua.

Usage: nfqueue COMMAND ...

  run SCRIPT -q N      judge the packets of kernel queue N with a handler script
  reload               have a running one load its script anew
  stop                 have a running one judge what waits, and end
  stats                show the counters of a running one
  check SCRIPT         load a script and give it one packet of each kind; no root
  lab -- COMMAND       run a command in a private network with a queue in the path; no root

  nfqueue COMMAND --help tells more; nfqueue --version tells the version.
]]

--- Words before and after the first "--".
local function split(words)
  local before, after = {}, nil
  for _, word in ipairs(words) do
    if after then
      after[#after + 1] = word
    elseif word == "--" then
      after = {}
    else
      before[#before + 1] = word
    end
  end
  return before, after
end

local function load_argparse()
  local found, argparse = pcall(require, "argparse")
  if not found then
    exit.fail(exit.UNAVAILABLE, "the command line needs the Lua library argparse: install Debian's "
      .. "lua-argparse, or run `luarocks --lua-version 5.4 install argparse`")
  end
  return argparse
end

local function dispatch(words, folder)
  local before, after = split(words)
  local name = table.remove(before, 1)
  if name == nil then
    io.stderr:write(SUMMARY)
    return exit.USAGE
  end
  if name == "--version" then
    print("nfqueue " .. core.version)
    return exit.OK
  end
  if name == "--help" or name == "-h" or name == "help" then
    io.write(SUMMARY)
    return exit.OK
  end
  for _, known in ipairs(COMMANDS) do
    if name == known then
      return require("nfqueue.cli." .. name)({
        argparse = load_argparse(),
        words = before,
        rest = after,
        folder = folder,
      })
    end
  end
  exit.fail(exit.USAGE, ("'%s' is no command of nfqueue (%s)"):format(name, table.concat(COMMANDS, ", ")))
end

--- Run the command line.
-- @tparam {string,...} words the arguments
-- @tparam string folder where the executable lies
-- @treturn integer exit status (sysexits.h)
return function(words, folder)
  return exit.catch(dispatch, words, folder)
end
