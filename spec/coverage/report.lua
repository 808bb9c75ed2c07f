-- How much of the C code the specs have run: by file, in all, and whether what they have not run is accounted for.
--   lua5.4 spec/coverage/report.lua FOLDER [--list]
-- FOLDER is the build's; every object in it that has run has left its counts there (.gcda), which gcov reads. Fails
-- when less than LEAST per cent of the lines have run, or when more than SLACK lines have not that
-- spec/coverage/uncovered.txt does not account for. With --list, prints that list as it would have to be.
--
-- A line of the list: FILE FUNCTION LINES REASON, where LINES is how many may be left out and REASON a word that the
-- list explains above ("# word: what it means").

local LEAST = 90
local SLACK = 20 -- threads meet or do not, so some lines run in one run and not in another
local LIST = "spec/coverage/uncovered.txt"

local folder, wants_list = arg[1], arg[2] == "--list"
if not folder then
  io.stderr:write("usage: report.lua FOLDER [--list]\n")
  os.exit(64)
end

-- --- gcov's JSON ----------------------------------------------------------------------------------

local decode

local function skip(text, at)
  return text:match("^%s*()", at)
end

local function decode_list(text, at)
  local list = {}
  at = skip(text, at + 1)
  while text:sub(at, at) ~= "]" do
    list[#list + 1], at = decode(text, at)
    at = text:match("^%s*,?%s*()", at)
  end
  return list, at + 1
end

local function decode_object(text, at)
  local object = {}
  at = skip(text, at + 1)
  while text:sub(at, at) ~= "}" do
    local key
    key, at = text:match('^"([^"]*)"%s*:%s*()', at)
    object[key], at = decode(text, at)
    at = text:match("^%s*,?%s*()", at)
  end
  return object, at + 1
end

local WORDS = { ["true"] = true, ["false"] = false }

function decode(text, at)
  local first = text:sub(at, at)
  if first == "{" then
    return decode_object(text, at)
  elseif first == "[" then
    return decode_list(text, at)
  elseif first == '"' then
    return text:match('^"([^"]*)"()', at) -- names and paths: nothing in them is escaped
  end
  local word, behind = text:match("^([%w.+-]+)()", at)
  if not word then
    error("gcov wrote what is no JSON: " .. text:sub(at, at + 40))
  elseif WORDS[word] ~= nil then
    return WORDS[word], behind
  end
  return tonumber(word), behind
end

-- --- Counts ---------------------------------------------------------------------------------------

-- By file and line: the count of the object that ran it most often, and the function it is in.
local function read_counts()
  local files = {}
  local pipe = assert(io.popen(("find %s/obj -name '*.gcda' | grep -v /spec/ | xargs -n 50 gcov --json-format --stdout")
    :format(folder)))
  for line in pipe:lines() do
    for _, file in ipairs(decode(line, 1).files) do
      if file.file:find("^src/") then
        local lines = files[file.file] or {}
        files[file.file] = lines
        for _, item in ipairs(file.lines) do
          local number = math.tointeger(item.line_number)
          local known = lines[number] or { count = 0, name = item.function_name or "?" }
          known.count = math.max(known.count, item.count)
          lines[number] = known
        end
      end
    end
  end
  if not pipe:close() then
    error("gcov failed")
  end
  return files
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

-- By file and function, the numbers of lines that have not run; and how many have, of how many.
local function collect(files)
  local left_out, totals = {}, {}
  for file, lines in pairs(files) do
    local total = { lines = 0, run = 0 }
    totals[file] = total
    for number, item in pairs(lines) do
      total.lines = total.lines + 1
      if item.count > 0 then
        total.run = total.run + 1
      else
        local key = file .. " " .. item.name
        left_out[key] = left_out[key] or {}
        table.insert(left_out[key], number)
      end
    end
  end
  for _, numbers in pairs(left_out) do
    table.sort(numbers)
  end
  return left_out, totals
end

local function read_list()
  local list, reasons = {}, {}
  local number = 0
  for line in io.lines(LIST) do
    number = number + 1
    local word = line:match("^# (%l+): ")
    if word then
      reasons[word] = 0
    elseif line ~= "" and not line:find("^#") then
      local file, name, count, reason = line:match("^(%S+) (%S+) (%d+) (%l+)$")
      if not file or not reasons[reason] then
        error(("%s:%d: FILE FUNCTION LINES REASON expected, the reason explained above"):format(LIST, number), 0)
      end
      list[file .. " " .. name] = { count = tonumber(count), reason = reason }
    end
  end
  return list, reasons
end

local function lines_of(path)
  local lines = {}
  for line in io.lines(path) do
    lines[#lines + 1] = line
  end
  return lines
end

local left_out, totals = collect(read_counts())
local list, reasons = read_list()
local keys = sorted_keys(left_out)

if wants_list then
  for _, key in ipairs(keys) do
    print(("%s %d %s"):format(key, #left_out[key], list[key] and list[key].reason or "?"))
  end
  os.exit(true)
end

local all = { lines = 0, run = 0 }
print(("%-32s %6s %6s %7s"):format("", "lines", "run", ""))
for _, file in ipairs(sorted_keys(totals)) do
  local total = totals[file]
  all.lines, all.run = all.lines + total.lines, all.run + total.run
  print(("%-32s %6d %6d %6.1f%%"):format(file, total.lines, total.run, 100 * total.run / total.lines))
end
if all.lines == 0 then
  io.stderr:write("nothing has run in " .. folder .. "\n")
  os.exit(false)
end
local percent = 100 * all.run / all.lines
print(("%-32s %6d %6d %6.1f%%"):format("in all", all.lines, all.run, percent))

local unaccounted = 0
for _, key in ipairs(keys) do
  local entry, numbers = list[key], left_out[key]
  if entry then
    reasons[entry.reason] = reasons[entry.reason] + #numbers
  end
  if #numbers > (entry and entry.count or 0) then
    unaccounted = unaccounted + #numbers - (entry and entry.count or 0)
    print(("not run, %s:"):format(entry and "more than the " .. entry.count .. " accounted for" or "not accounted for"))
    local file = key:match("^%S+")
    local text = lines_of(file)
    for _, number in ipairs(numbers) do
      print(("  %s:%d: %s"):format(file, number, (text[number] or ""):match("^%s*(.*)")))
    end
  end
end
print("not run, with a reason:")
for _, word in ipairs(sorted_keys(reasons)) do
  print(("  %-10s %5d"):format(word, reasons[word]))
end
if percent < LEAST then
  print(("FAILED: less than %d %% of the lines have run"):format(LEAST))
elseif unaccounted > SLACK then
  print(("FAILED: %d lines have not run and have no reason in %s (FILE FUNCTION LINES REASON)")
    :format(unaccounted, LIST))
end
os.exit(percent >= LEAST and unaccounted <= SLACK)
