--- Queue numbers as users write them: 5, "0-3", "0,4-7", or a list of these.
-- @module nfqueue.queues

local queues = {}

local MAX = 65535

local function parse_number(text)
  local number = math.tointeger(tonumber(text))
  if number and number >= 0 and number <= MAX then
    return number
  end
end

local function add(list, seen, number)
  if seen[number] then
    return ("queue %d is given twice"):format(number)
  end
  seen[number] = true
  list[#list + 1] = number
end

local function add_range(list, seen, text)
  local first, last = text:match("^(%d+)%-(%d+)$")
  first = parse_number(first or text:match("^%d+$"))
  last = last and parse_number(last) or not text:find("-", 1, true) and first
  if not first or not last or last < first then
    return ("'%s' is no queue number or range from 0 to %d"):format(text, MAX)
  end
  for number = first, last do
    local message = add(list, seen, number)
    if message then
      return message
    end
  end
end

local function add_item(list, seen, item)
  if math.type(item) == "integer" then
    item = tostring(item)
  end
  if type(item) ~= "string" then
    return ("number, range such as \"0-3\", or list of these expected, got %s")
      :format(item == nil and "nothing" or type(item) == "number" and tostring(item) or type(item))
  end
  for text in (item .. ","):gmatch("([^,]*),") do
    local message = add_range(list, seen, text)
    if message then
      return message
    end
  end
end

--- Parse queue numbers.
-- @tparam integer|string|table value
-- @treturn {integer,...} each number once, in the order given; or nil and what was wrong
function queues.parse(value)
  local list, seen = {}, {}
  for _, item in ipairs(type(value) == "table" and value or { value }) do
    local message = add_item(list, seen, item)
    if message then
      return nil, message
    end
  end
  if #list == 0 then
    return nil, value == nil and select(2, pcall(add_item, list, seen, nil)) or "no queue is given"
  end
  return list
end

return queues
