--- nfqueue stats: the counters of a running instance.

local exit = require("nfqueue.cli.exit")
local options = require("nfqueue.cli.options")

local SECONDS = 5 -- the counters are at hand
local COLUMNS = 6 -- queues that are shown beside each other

local TEXTS = { name = true, version = true, state = true, script = true }

--- Lines of a word and a value: { key, value } in order, of the instance and of each queue, by their numbers.
local function read(text)
  local instance = {}
  local queues = {}
  for key, value in text:gmatch("(%S+) ([^\n]*)\n") do
    value = not TEXTS[key] and math.tointeger(tonumber(value)) or value
    if key == "queue" then
      queues[#queues + 1] = {}
    end
    table.insert(queues[#queues] or instance, { key, value })
  end
  table.sort(queues, function(one, other)
    return one[1][2] < other[1][2]
  end)
  return instance, queues
end

local function quote(value)
  if math.type(value) == "integer" then
    return tostring(value)
  end
  return '"' .. value:gsub('[%c"\\\127]', function(byte)
    return ("\\u%04x"):format(byte:byte())
  end) .. '"'
end

local function object(fields)
  local parts = {}
  for _, field in ipairs(fields) do
    parts[#parts + 1] = ('"%s":%s'):format(field[1], quote(field[2]))
  end
  return parts
end

local function print_json(instance, queues)
  local list = {}
  for i, queue in ipairs(queues) do
    list[i] = "{" .. table.concat(object(queue), ",") .. "}"
  end
  local parts = object(instance)
  parts[#parts + 1] = '"queues":[' .. table.concat(list, ",") .. "]"
  print("{" .. table.concat(parts, ",") .. "}")
end

-- A row a counter: its sum, and the queues where there are few.
local function print_table(instance, queues)
  for _, field in ipairs(instance) do
    print(("%-22s%s"):format(field[1], field[2]))
  end
  local names, sums, few = {}, {}, #queues > 1 and #queues <= COLUMNS
  local values = {}
  for i, queue in ipairs(queues) do
    values[i] = {}
    for _, field in ipairs(queue) do
      local name, value = field[1], field[2]
      if not sums[name] then
        names[#names + 1] = name
      end
      sums[name] = (sums[name] or 0) + value
      values[i][name] = value
    end
  end
  for _, name in ipairs(names) do
    local sum = name == "queue" and #queues > 1 and "all" or sums[name]
    local cells = { ("%-22s%14s"):format(name, sum) }
    for i = 1, few and #queues or 0 do
      cells[#cells + 1] = ("%14s"):format(values[i][name] or "-")
    end
    print(table.concat(cells))
  end
end

return function(context)
  local parser = context.argparse("nfqueue stats", "Show the counters of a running instance.")
  options.add_name(parser, "of the instance (default nfqueue)")
  parser:flag("--json", "as one JSON object")
  local arguments = exit.parse(parser, context.words)
  local instance, queues = read(options.ask(arguments.name, "stats", SECONDS))
  if arguments.json then
    print_json(instance, queues)
  else
    print_table(instance, queues)
  end
  return exit.OK
end
