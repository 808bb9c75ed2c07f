-- The functions of Lua's library that run coroutines are replaced with the module: they must do just what Lua's do.
-- Each case is run by an interpreter with the module and by one without, and what it prints must be the same.

local net = require("support.net")
local unit = require("support.unit")

local PRELUDE = [[
  local function show(...)
    local list = table.pack(...)
    for i = 1, list.n do
      list[i] = (type(list[i]) == "table" or type(list[i]) == "thread") and type(list[i]) or tostring(list[i])
    end
    print(table.concat(list, " | "))
  end
  local function closing(name, fails)
    return setmetatable({}, { __close = function(_, problem)
      show("close", name, problem)
      if fails then
        error(fails, 0)
      end
    end })
  end
]]

local CASES = {
  { "values both ways", [[
    local co = coroutine.create(function(...)
      show("in", ...)
      show("in", coroutine.yield(1, nil, 3))
      show("in", coroutine.yield())
      return "end", nil
    end)
    show(coroutine.status(co), coroutine.resume(co, "a", nil))
    show(coroutine.status(co), coroutine.resume(co))
    show(coroutine.status(co), coroutine.resume(co, 1, 2))
    show(coroutine.status(co), coroutine.resume(co))
  ]] },
  { "errors", [[
    local co = coroutine.create(function() error("text") end)
    show(coroutine.resume(co))
    show(coroutine.status(co), coroutine.resume(co))
    show(coroutine.resume(coroutine.create(function() error({}) end)))
    show(coroutine.resume(coroutine.create(error)))
    show(coroutine.resume(coroutine.running()))
    local outer
    outer = coroutine.create(function() show(coroutine.resume(outer)) end)
    coroutine.resume(outer)
    outer = coroutine.create(function()
      coroutine.wrap(function() show(coroutine.status(outer), coroutine.resume(outer)) end)()
    end)
    coroutine.resume(outer)
  ]] },
  { "wrong arguments", [[
    for _, name in ipairs({ "resume", "wrap", "close" }) do
      for _, value in ipairs({ 1, "text", {}, print, true }) do
        if name ~= "wrap" or value ~= print then
          show(pcall(coroutine[name], value))
        end
      end
      show(pcall(coroutine[name]))
    end
  ]] },
  { "wrap", [[
    local next_value = coroutine.wrap(function(...)
      show(...)
      for i = 1, 2 do
        show(coroutine.yield(i, nil))
      end
      error("wrapped")
    end)
    show(next_value("a"))
    show(next_value("b", nil))
    show(pcall(next_value))
    show(pcall(next_value))
    local object = {}
    local _, problem = pcall(coroutine.wrap(function() error(object) end))
    show(problem == object)
    show(select("#", coroutine.wrap(function() end)()))
    local function iterator() return next_value() end
    show(pcall(iterator))
  ]] },
  { "wrap with values to close", [[
    show(pcall(coroutine.wrap(function()
      local a <close> = closing("a")
      local b <close> = closing("b", "of b")
      local c <close> = closing("c")
      error("first")
    end)))
    show(pcall(coroutine.wrap(function()
      local a <close> = closing("a")
      coroutine.yield()
      error({})
    end)))
  ]] },
  { "close", [[
    local function make(fails)
      local co = coroutine.create(function()
        local a <close> = closing("a")
        local b <close> = closing("b", fails)
        coroutine.yield("suspended")
      end)
      return co
    end
    show(coroutine.close(make()))
    for _, fails in ipairs({ false, "text" }) do
      local co = make(fails)
      coroutine.resume(co)
      show(coroutine.close(co))
      show(coroutine.status(co), coroutine.close(co))
    end
    local failed = coroutine.create(error)
    coroutine.resume(failed, "text")
    show(coroutine.close(failed))
    show(pcall(coroutine.close, coroutine.running()))
    local outer
    outer = coroutine.create(function()
      show(pcall(coroutine.close, outer))
      coroutine.wrap(function() show(pcall(coroutine.close, outer)) end)()
    end)
    coroutine.resume(outer)
    show(coroutine.status(outer))
  ]] },
  { "yields across pcall and through other coroutines", [[
    local co = coroutine.wrap(function()
      show(pcall(function() return coroutine.yield("in pcall") end))
      local inner = coroutine.wrap(function() coroutine.yield(coroutine.isyieldable()) end)
      coroutine.yield(inner())
      return coroutine.running()
    end)
    show(co())
    show(co("back"))
    show(co())
    show(pcall(coroutine.yield))
  ]] },
  { "too much", [[
    local co = coroutine.create(function(...) return select("#", ...) end)
    show(coroutine.resume(co, table.unpack({}, 1, 200000)))
    show(coroutine.resume(coroutine.create(function() return table.unpack({}, 1, 200000) end)) == true)
    local function deep() return coroutine.wrap(deep)() end
    show((select(2, pcall(deep)):gsub("^.*: ", "")))
  ]] },
  { "hooks", [[
    local lines = {}
    local function note(event, line)
      lines[#lines + 1] = event .. " " .. tostring(line)
    end
    local function work(n)
      local x = 1
      return x + n
    end
    debug.sethook(note, "l")
    work(1)
    debug.sethook()
    show(table.unpack(lines))
    show(debug.gethook())
    lines = {}
    local co = coroutine.create(function() work(2) coroutine.yield() work(3) end)
    debug.sethook(co, note, "l", 3)
    coroutine.resume(co)
    show(select("#", debug.gethook(co)), (select(2, debug.gethook(co))), (select(3, debug.gethook(co))))
    debug.sethook(co)
    coroutine.resume(co)
    show(table.unpack(lines))
    show(pcall(debug.sethook, 1, 2) == false)
  ]] },
  { "a traceback", [[
    local co = coroutine.create(function() coroutine.yield() end)
    coroutine.resume(co)
    print(debug.traceback(co))
    print((debug.traceback("text"):gsub("%?.*", "")))
    coroutine.wrap(function() print((debug.traceback("inside"):gsub("%[C%].*", ""))) end)()
  ]] },
}

after_each(unit.cleanup)

describe("with the module, coroutines and hooks do what Lua's do:", function()
  for _, case in ipairs(CASES) do
    it(case[1], function()
      local path = unit.file(PRELUDE .. case[2])
      local expected = net.must("lua5.4 " .. path)
      assert.are.equal(expected, net.must(("%s -e 'require(\"nfqueue\")' %s"):format(net.lua, path)))
      assert.is_true(#expected > 0)
    end)
  end
end)
