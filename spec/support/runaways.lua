-- Ways of a handler to never return, for whatever loads this file: functions of the packet, by name.
--
-- interruptible: Lua comes by its next instruction, or a system call is interrupted. stuck: it does not, as the
-- thread is in C code, or in Lua code that no hook is called for.

local function forever()
  while true do end -- luacheck: ignore 542
end

local endless = { __index = forever, __newindex = forever, __call = forever, __tostring = forever, __len = forever,
  __eq = forever, __lt = forever, __le = forever, __concat = forever, __close = forever, __unm = forever,
  __add = forever, __name = "endless" }

local function object()
  return setmetatable({}, endless)
end

-- Made while loading, as no hook is inherited then.
local early = coroutine.create(forever)
local early_wrapped = coroutine.wrap(forever)
local early_iterator = coroutine.wrap(function()
  while true do
    coroutine.yield(1)
  end
end)

-- A length that no loop of C code comes to the end of.
local function endless_list(more)
  local metatable = more or {}
  metatable.__len = function()
    return 1 << 50
  end
  return setmetatable({}, metatable)
end

local runaways = {}

runaways.interruptible = {
  { "a while loop", forever },
  { "a repeat loop", function()
    repeat local _ = 1 until false
  end },
  { "a for loop", function()
    for _ = 1, math.huge do end -- luacheck: ignore 542
  end },
  { "a goto", function()
    ::again::
    goto again
  end },
  { "tail calls", function()
    local function again()
      return again()
    end
    again()
  end },
  { "a loop of caught loops", function()
    while true do
      pcall(forever)
    end
  end },
  { "loops caught within each other", function()
    local function again()
      while true do
        pcall(again)
      end
    end
    again()
  end },
  { "pcall through pcall", function()
    while true do
      pcall(pcall, pcall, forever)
    end
  end },
  { "a message handler that raises", function()
    while true do
      xpcall(error, error)
    end
  end },
  { "errors without end", function()
    while true do
      pcall(error, {})
    end
  end },
  { "an error object whose text never comes", function()
    error(object())
  end },
  { "a recursion that is caught", function()
    local function deeper()
      return 1 + deeper()
    end
    while true do
      pcall(deeper)
    end
  end },
  { "a coroutine", function()
    coroutine.resume(coroutine.create(forever))
  end },
  { "a wrapped coroutine", function()
    coroutine.wrap(forever)()
  end },
  { "a coroutine made while loading", function()
    coroutine.resume(early)
  end, once = true },
  { "a wrapped coroutine made while loading", function()
    early_wrapped()
  end, once = true },
  { "an iterator made while loading", function()
    for _ in early_iterator do end -- luacheck: ignore 542
  end },
  { "an iterator", function()
    for _ in coroutine.wrap(function()
      while true do
        coroutine.yield(1)
      end
    end) do end -- luacheck: ignore 542
  end },
  { "coroutine after coroutine", function()
    while true do
      coroutine.resume(coroutine.create(forever))
    end
  end },
  { "coroutines in coroutines", function()
    local function inside(depth)
      if depth > 100 then
        forever()
      end
      while true do
        coroutine.resume(coroutine.create(inside), depth + 1)
      end
    end
    inside(1)
  end },
  { "a coroutine that is closed", function()
    local co = coroutine.create(function()
      local _ <close> = object()
      coroutine.yield()
    end)
    coroutine.resume(co)
    coroutine.close(co)
  end },
  { "a wrapped coroutine that fails with something to close", function()
    coroutine.wrap(function()
      local _ <close> = object()
      error("inside")
    end)()
  end },
  { "a value to close", function()
    local _ <close> = object()
  end },
  { "an index", function()
    return object().field
  end },
  { "an assignment", function()
    object().field = 1
  end },
  { "a call", function()
    object()()
  end },
  { "a length", function()
    return #object()
  end },
  { "a comparison", function()
    return object() == object() or object() < object()
  end },
  { "a concatenation", function()
    return object() .. ""
  end },
  { "tostring", function()
    tostring(object())
  end },
  { "string.format", function()
    string.format("%s", object())
  end },
  { "string.gsub with a function", function()
    string.gsub("text", ".", forever)
  end },
  { "table.sort with a function that loops", function()
    table.sort({ 3, 1, 2 }, forever)
  end },
  { "table.sort with a function that contradicts itself", function()
    local list = {}
    for i = 1, 100 do
      list[i] = i
    end
    while true do
      pcall(table.sort, list, function()
        return true
      end)
    end
  end },
  { "table.concat of what is made on demand", function()
    table.concat(endless_list({ __index = function()
      return ""
    end }))
  end },
  { "C functions that call only each other", function()
    table.move(setmetatable({}, { __index = rawlen }), 1, 1 << 50, 1, setmetatable({}, { __newindex = rawequal }))
  end },
  { "load, again and again", function()
    while true do
      load("return 1")()
    end
  end },
  { "load from a function", function()
    load(function()
      return " "
    end)
  end },
  { "require, again and again", function()
    while true do
      pcall(require, "no.such.module")
    end
  end },
  { "a hook that is taken away", function()
    while true do
      debug.sethook()
    end
  end },
  { "a hook of its own", function()
    local count = 0
    debug.sethook(function()
      count = count + 1
    end, "", 1)
    while true do
      pcall(forever)
    end
  end },
  { "hooks in coroutines", function()
    while true do
      local co = coroutine.create(forever)
      debug.sethook(co, print, "")
      coroutine.resume(co)
    end
  end },
  { "utf8.codes", function()
    while true do
      for _ in utf8.codes("text") do end -- luacheck: ignore 542
    end
  end },
  { "pairs", function()
    while true do
      for _ in pairs(_G) do end -- luacheck: ignore 542
    end
  end },
  { "a string that grows", function()
    local text = ""
    while true do
      text = text .. "x"
    end
  end },
  { "garbage", function()
    while true do
      local _ = { {}, {}, {} }
    end
  end },
  { "collectgarbage", function()
    while true do
      collectgarbage("step")
    end
  end },
  { "system calls", function()
    while true do
      os.time()
    end
  end },
  { "the packet's own methods", function(pkt)
    while true do
      pkt:bytes()
    end
  end },
  { "the packet's headers", function(pkt)
    while true do
      local _ = pkt.ip and pkt.ip.src
    end
  end },
}

runaways.stuck = {
  { "string.find with an evil pattern", function()
    string.find(("a"):rep(3000), ("a-"):rep(60) .. "b")
  end },
  { "string.gsub with an evil pattern", function()
    string.gsub(("x"):rep(100000), ("x*"):rep(20) .. "y", "")
  end },
  { "string.rep of nothing", function()
    string.rep("", 1 << 62)
  end },
  { "table.insert into an endless list", function()
    table.insert(endless_list(), 1, 0)
  end },
  { "table.remove from an endless list", function()
    table.remove(endless_list(), 1)
  end },
  { "table.move", function()
    table.move({}, 1, 1 << 50, 2, {})
  end },
  { "a message handler", function()
    xpcall(error, forever)
  end },
  { "a message handler, for the interruption itself", function()
    xpcall(forever, forever)
  end },
  { "a finalizer", function()
    setmetatable({}, { __gc = forever })
    collectgarbage()
  end },
  { "a hook that loops", function()
    debug.sethook(forever, "", 1)
  end },
  { "os.execute", function()
    os.execute("exec sleep 5")
  end },
  { "the end of a pipe", function()
    io.popen("exec sleep 5"):close()
  end },
}

return runaways
