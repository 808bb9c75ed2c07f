-- What the long tests of spec/soak/ share: their size, their figures, and checks that fail loudly.

local soak = {}

--- How long they are, as a part of their full length: 1, or what SOAK_SCALE says.
soak.scale = tonumber(os.getenv("SOAK_SCALE") or 1)
if not soak.scale or soak.scale <= 0 then
  error("SOAK_SCALE must be a number above 0", 0)
end

--- A count of the full length brought to scale: a whole number, at least `least` (default 1).
function soak.count(full, least)
  return math.max(least or 1, math.floor(full * soak.scale + 0.5))
end

local figures = {}

--- Tell a figure: its name, the value and, where there is one, its unit or a remark.
function soak.figure(name, value, remark)
  figures[#figures + 1] = { name, math.type(value) == "float" and ("%.6g"):format(value) or tostring(value),
    remark or "" }
  return value
end

--- Fail, with a message as for string.format, unless the condition holds: the condition.
function soak.check(condition, message, ...)
  if not condition then
    error(message:format(...), 2)
  end
  return condition
end

--- Fail unless both are equal; `what` says what they are.
function soak.equal(expected, actual, what)
  if expected ~= actual then
    error(("%s: %s expected, but it is %s"):format(what, expected, actual), 2)
  end
end

--- End here: this machine or this build cannot run it.
function soak.skip(why)
  error({ why = why }, 0)
end

function soak.is_skip(reason)
  return type(reason) == "table" and reason.why ~= nil
end

--- Say how far a long one is.
function soak.say(message, ...)
  io.stdout:write("  ", message:format(...), "\n")
  io.stdout:flush()
end

--- Print all figures told since the last time, as a table.
function soak.print_figures()
  local width = 0
  for _, figure in ipairs(figures) do
    width = math.max(width, utf8.len(figure[1]) or #figure[1])
  end
  for _, figure in ipairs(figures) do
    print(("  %s%s  %12s  %s"):format(figure[1], (" "):rep(width - (utf8.len(figure[1]) or #figure[1])),
      figure[2], figure[3]):gsub("%s+$", "") .. "")
  end
  figures = {}
  io.stdout:flush()
end

return soak
