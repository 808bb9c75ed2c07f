--- What several subcommands take: configuration keys as options, scripts by path or name, key=value.
-- @module nfqueue.cli.options

local core = require("nfqueue.core")
local exit = require("nfqueue.cli.exit")

local options = {}

local function dashed(name)
  return (name:gsub("_", "-"))
end

local function integer(text)
  return math.tointeger(tonumber(text)) or nil, ("integer expected, got '%s'"):format(text)
end

local HELP = {
  max_packets = "packets the kernel may hold in the queue",
  buffer_size = "receive buffer, bytes",
  copy_range = "bytes of each packet copied; 0: metadata only",
  fail_open = "the kernel accepts packets when the queue is full",
  gso = "large TCP segments arrive whole",
  conntrack = "ask for connection tracking information",
  uid_gid = "ask for the owner of the packet's socket",
  secctx = "ask for the security context",
  default = "verdict for packets the handler leaves undecided",
  on_error = "verdict for packets whose handler fails",
  time_limit = "seconds that one call into the script may take",
  memory_limit = "bytes of a Lua state and its copies of packets; beyond it: not enough memory",
  hold_limit = "seconds after which a held packet gets its verdict",
  filter = "tcpdump expression: what does not match is accepted without the script",
  sandbox = "the script cannot reach files, processes, C modules or bytecode",
  loop_mark = "mark of packets the script sends, 0: none",
}

--- The expression, or nil and libpcap's message.
local function check_filter(text)
  if not core.has_pcap then
    exit.fail(exit.UNAVAILABLE, "option '--filter': " .. select(2, core.filter(text)))
  end
  local fine, message = pcall(core.filter, text)
  return fine and text or nil, not fine and "option '--filter': " .. message:match("%((.*)%)$") or nil
end

--- Add an option for every configuration key: --max-packets N, --fail-open, --no-gso.
function options.add_config(parser)
  for _, key in ipairs(core.config_keys()) do
    local name = dashed(key.name)
    local default = key.name == "loop_mark" and ("%#x"):format(key.default) or tostring(key.default)
    local help = ("%s (default %s)"):format(HELP[key.name] or key.name, default)
    if key.kind == "boolean" then
      parser:flag("--" .. name, help):target(key.name):action("store_true")
      parser:flag("--no-" .. name, "the opposite"):target(key.name):action("store_false")
    elseif key.kind == "integer" then
      parser:option("--" .. name, help):target(key.name):argname("<n>"):convert(function(text)
        local value, message = integer(text)
        if value and (value < key.least or value > key.most) then
          value, message = nil, ("integer from %d to %d expected, got %s"):format(key.least, key.most, text)
        end
        return value, message and ("option '--%s': %s"):format(name, message)
      end)
    elseif key.kind == "filter" then
      parser:option("--" .. name, HELP[key.name]):target(key.name):argname("<expression>"):convert(check_filter)
    elseif key.kind == "seconds" then
      parser:option("--" .. name, help):target(key.name):argname("<s>"):convert(function(text)
        local value = tonumber(text)
        if not value or not (value > 0 and value <= 1e9) then
          return nil, ("option '--%s': seconds, more than 0 and at most 1e9, expected, got '%s'"):format(name, text)
        end
        return value
      end)
    else
      parser:option("--" .. name, help):target(key.name):choices({ "accept", "drop" })
    end
  end
end

--- Add the option --name, of a running instance.
function options.add_name(parser, help)
  parser:option("--name", help):argname("<name>"):convert(function(text)
    return core.is_name(text) and text or nil,
      ("option '--name': letters, digits, '.', '-' and '_' expected, at most 64, got '%s'"):format(text)
  end)
end

--- Ask the running instance of a name (nil: the usual one) for something; leaves the command when it cannot be
-- asked, or did not do it.
-- @tparam[opt] string name
-- @tparam string request
-- @tparam integer seconds to wait for an answer at most; 0: as long as it takes
-- @treturn string its answer
function options.ask(name, request, seconds)
  local answered, text, _, status = core.ask(name, request, seconds)
  if answered ~= 0 then
    exit.fail(answered or status, text)
  end
  return text
end

--- The configuration table out of parsed arguments.
function options.config(arguments)
  local config = {}
  for _, key in ipairs(core.config_keys()) do
    config[key.name] = arguments[key.name]
  end
  return config
end

--- Words behind "--", each key=value.
-- @treturn table values by key; a list where a key is repeated
function options.script_args(words)
  local args = {}
  for _, word in ipairs(words or {}) do
    local key, value = word:match("^([^=]+)=(.*)$")
    if not key then
      exit.fail(exit.USAGE, ("'%s' behind -- is not of the form key=value"):format(word))
    end
    if args[key] == nil then
      args[key] = value
    elseif type(args[key]) == "table" then
      table.insert(args[key], value)
    else
      args[key] = { args[key], value }
    end
  end
  return args
end

local function is_readable(path)
  local file = io.open(path, "r")
  if file then
    file:close()
  end
  return file ~= nil
end

--- A script by its path, or by the name of one that came with nfqueue.
-- @tparam string script
-- @treturn string path
function options.find_script(script)
  -- What has a slash is not looked at: a pipe can be opened once.
  if script:find("/", 1, true) or is_readable(script) then
    return script
  end
  local here = debug.getinfo(1, "S").source:match("^@(.*)/nfqueue/cli/options%.lua$")
  local name = script:gsub("%.lua$", "") .. ".lua"
  for _, folder in ipairs(here and { here .. "/nfqueue/scripts/", here .. "/../scripts/" } or {}) do
    if is_readable(folder .. name) then
      return folder .. name
    end
  end
  return script
end

return options
