--- nfqueue: decide the fate of packets in Lua.
-- A C core runs one netlink loop per netfilter queue and hands each packet to a handler.
-- @module nfqueue

local core = require("nfqueue.core")
local queues = require("nfqueue.queues")

local nfqueue = {
  _VERSION = "nfqueue " .. core.version,
  new = core.new,
  start = core.start,
  stop = core.stop,
  packet = core.packet,
  build = core.build,
  rewrite = core.rewrite,
  send = core.send,
  filter = core.filter,
  shared = core.shared,
  bucket = core.bucket,
  cidrset = core.cidrset,
  domainset = core.domainset,
  after = core.after,
  every = core.every,
  now = core.now,
  flows = core.flows,
}

--- Capture files: `open(path)` to read, `create(path [, options])` to write; see there.
-- @table pcap
nfqueue.pcap = core.pcap

local function flatten_args(args, name_of_call)
  local flat = {}
  for name, value in pairs(args or {}) do
    if type(name) ~= "string" then
      error(("bad argument 'args' to '%s' (names are strings, got %s)"):format(name_of_call, type(name)), 3)
    end
    local items = type(value) == "table" and value or { value }
    for key, item in pairs(items) do
      if type(item) ~= "string" or math.type(key) ~= "integer" or key < 1 or key > #items then
        error(("bad argument 'args' to '%s' (%s is a %s; strings and lists of strings pass)")
          :format(name_of_call, name, type(value)), 3)
      end
    end
    for _, item in ipairs(items) do
      flat[#flat + 1] = name
      flat[#flat + 1] = item
    end
  end
  return flat
end

--- Load a handler script in this state, without a kernel: for specs and tools.
-- @tparam string path of the script
-- @tparam[opt] table args what the script gets as `...`: strings by name
-- @tparam[opt] table config wins over the script's own
-- @treturn handler `handler(pkt)` applies the script to a packet of nfqueue.packet as the loop would, and
--   `handler:advance(seconds)` moves its clock;
--   or nil, message, errno when the file or the script is bad
-- @raise for arguments of a wrong type
function nfqueue.load(path, args, config)
  if type(args) == "table" then
    flatten_args(args, "load") -- the same values as run takes
  end
  local handler, message, errno = core.load(path, args, config)
  if handler then
    return handler
  end
  return nil, message, errno
end

local RUN_KEYS = { script = true, queues = true, threads = true, args = true, config = true }

--- Run a handler script with a thread and a Lua state per queue, up to the number of cores; with more
-- queues than threads, several queues a thread. Blocks until nfqueue.stop is called in a handler or a timer.
-- @tparam table options `script` (path), `queues` (a number, "0-3", "0,4-7", or a list of these),
--   `threads` (integer, default: the number of queues, at most the number of cores), `args` (table of
--   strings or lists of strings), `config` (table; wins over the script's own)
-- @treturn boolean true after a stop; or nil, message, errno
-- @raise for a wrong option, naming it
function nfqueue.run(options)
  if type(options) ~= "table" then
    error("bad argument 'options' to 'run' (table expected, got " .. type(options) .. ")", 2)
  end
  for key in pairs(options) do
    if not RUN_KEYS[key] then
      error(("unknown key '%s' to 'run' (known: script, queues, threads, args, config)")
        :format(tostring(key)), 2)
    end
  end
  if options.args ~= nil and type(options.args) ~= "table" then
    error("bad argument 'args' to 'run' (table expected, got " .. type(options.args) .. ")", 2)
  end
  local numbers, message = queues.parse(options.queues)
  if not numbers then
    error("bad argument 'queues' to 'run' (" .. message .. ")", 2)
  end
  return core.run({
    script = options.script,
    queues = numbers,
    threads = options.threads == nil and math.min(#numbers, core.cores()) or options.threads,
    args = flatten_args(options.args, "run"),
    config = options.config,
  })
end

local function logger(level)
  return function(format, ...)
    if select("#", ...) > 0 then
      format = string.format(format, ...)
    end
    core.log(level, format)
  end
end

--- Lines in the log on standard error: `nfqueue.log.debug/info/warn/error(format, ...)`, as for
-- string.format. A state writes at most 20 lines a second; what was left out is counted. Lines below the
-- level in the environment variable NFQUEUE_LOG (default "info") are not written.
-- @table log
nfqueue.log = { debug = logger(0), info = logger(1), warn = logger(2), error = logger(3) }

return nfqueue
