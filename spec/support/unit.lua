-- What specs without a kernel need: messages of errors, and script files that go away.

local unit = {}

--- The message with which a function raises, without the position in front; fails when it does not raise.
function unit.message(fn, ...)
  local fine, problem = pcall(fn, ...)
  if fine then
    error("it did not raise", 2)
  end
  return (tostring(problem):gsub("^[^:\n]+:%d+: ", ""))
end

local files = {}

--- A temporary file with this text: its path. unit.cleanup removes it.
function unit.file(text)
  local path = os.tmpname()
  files[#files + 1] = path
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

--- For after_each. It leaves firewall rules alone: unit specs run in whoever's network this is.
function unit.cleanup()
  for _, path in ipairs(files) do
    os.remove(path)
  end
  files = {}
end

--- Call the function so many times: by how many kilobytes the process has grown since the first tenth.
function unit.growth(rounds, fn)
  local function resident()
    local file = assert(io.open("/proc/self/statm"))
    local pages = tonumber(file:read("a"):match("^%d+ (%d+)"))
    file:close()
    return 4 * pages
  end
  local start
  for i = 1, rounds do
    fn(i)
    if i == rounds // 10 then
      collectgarbage()
      start = resident()
    end
  end
  collectgarbage()
  return resident() - start
end

--- A copy of a table, with what is in another (nil: nothing) besides or instead.
function unit.with(base, more)
  local copy = {}
  for _, part in ipairs({ base, more }) do
    for key, value in pairs(part) do
      copy[key] = value
    end
  end
  return copy
end

--- From `least` to `most` random bytes.
function unit.random_bytes(least, most)
  local list = {}
  for i = 1, math.random(least, most) do
    list[i] = string.char(math.random(0, 255))
  end
  return table.concat(list)
end

--- Values that are no packet, queue or handler, by name.
function unit.foreigners()
  local nothing = nil
  return {
    { name = "a file", value = io.stdout, type = "userdata" },
    { name = "a light userdata", value = debug.upvalueid(function() return nothing end, 1), type = "userdata" },
    { name = "a number", value = 7, type = "number" },
    { name = "a string", value = "packet", type = "string" },
    { name = "a boolean", value = true, type = "boolean" },
    { name = "a table", value = {}, type = "table" },
    { name = "a function", value = print, type = "function" },
    { name = "a coroutine", value = coroutine.create(print), type = "thread" },
    { name = "nil", value = nil, type = "nil" },
  }
end

return unit
