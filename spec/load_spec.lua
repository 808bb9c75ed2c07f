-- nfqueue.load: a script file becomes a handler, or a message tells why not.

local nfqueue = require("nfqueue")
require("nfqueue.busted")
local unit = require("support.unit")

local message = unit.message

-- Functions of this spec that scripts call: scripts have their own chunk, and share the state.
local heard
before_each(function()
  heard = {}
  _G.tell = function(...) heard[#heard + 1] = table.pack(...) end
end)
after_each(function()
  _G.tell = nil
  unit.cleanup()
end)

local function load(text, args, config)
  return assert(nfqueue.load(unit.file(text), args, config))
end

describe("nfqueue.load", function()
  it("takes a script that returns a function or a table", function()
    for _, text in ipairs({
      "return function(pkt) pkt:accept() end", "return { packet = function(pkt) pkt:accept() end }",
      "#!/usr/bin/env lua5.4\nreturn function(pkt) pkt:accept() end",
      "\xef\xbb\xbf#!/usr/bin/env lua5.4\nreturn function(pkt) pkt:accept() end",
    }) do
      local handler = load(text)
      assert.are.equal("handler", tostring(handler))
      assert.accepts(handler, "E")
    end
  end)

  it("passes over a byte order mark and a first line for the shell, and counts lines as the file has them", function()
    for _, front in ipairs({ "", "#!/usr/bin/env lua5.4\n", "\xEF\xBB\xBF", "\xEF\xBB\xBF# a comment\n" }) do
      local path = unit.file(front .. "\n\nerror('here')")
      local _, lines = front:gsub("\n", "")
      local _, text = nfqueue.load(path)
      assert.matches(("%s:%d: here"):format(path, 3 + lines), text, 1, true)
    end
    for _, only in ipairs({ "#", "#!/usr/bin/env lua5.4", "\xEF\xBB\xBF", "\xEF\xBB\xBF#" }) do
      assert.matches("the script returns no handler", (select(2, nfqueue.load(unit.file(only)))))
    end
    for _, code in ipairs({ "\27Lua", "\xEF\xBB\xBF\27Lua", "# x\n\27Lua" }) do
      assert.matches("does not compile", (select(2, nfqueue.load(unit.file(code)))))
    end
  end)

  it("gives the script its arguments as `...`, an empty table without any", function()
    load("tell(...) return print", { name = "value", color = { "red", "blue" } })
    load("tell(...) return print")
    assert.are.same({ { name = "value", color = { "red", "blue" } }, n = 1 }, heard[1])
    assert.are.same({ {}, n = 1 }, heard[2])
  end)

  it("runs the chunk once a load, in a scope of its own", function()
    local path = unit.file("local n = 0 tell() return function() n = n + 1 tell(n) end")
    local first, second = nfqueue.load(path), nfqueue.load(path)
    first(nfqueue.packet(""))
    first(nfqueue.packet(""))
    second(nfqueue.packet(""))
    assert.are.same({ { n = 0 }, { n = 0 }, { 1, n = 1 }, { 2, n = 1 }, { 1, n = 1 } }, heard)
  end)

  it("calls open once, packet with the same queue, close once", function()
    local handler = load([[return {
      open = function(...) tell("open", ...) end,
      packet = function(pkt, ...) tell("packet", ...) end,
      close = function(...) tell("close", ...) end,
      config = { max_packets = 7 } }]])
    assert.are.equal(1, #heard)
    handler(nfqueue.packet(""))
    handler(nfqueue.packet(""))
    handler:close()
    handler:close()
    local names = {}
    for i, call in ipairs(heard) do
      names[i] = call[1]
      assert.are.equal(2, call.n)
      assert.is_true(rawequal(heard[1][2], call[2]))
    end
    assert.are.same({ "open", "packet", "packet", "close" }, names)
    assert.are.equal(7, heard[1][2].config.max_packets)
    assert.are.equal("handler is closed", message(handler, nfqueue.packet("")))
    assert.are.equal("handler (closed)", tostring(handler))
  end)

  it("closes at the end of a scope", function()
    do
      local handler <close> = load("return { packet = print, close = function() tell('closed') end }")
      assert.are.equal("handler", tostring(handler))
    end
    assert.are.same({ { "closed", n = 1 } }, heard)
  end)

  it("does not call close without being asked, nor after a failed open", function()
    load("return { packet = print, close = function() tell('closed') end }")
    collectgarbage()
    collectgarbage()
    nfqueue.load(unit.file("return { packet = print, open = error, close = function() tell('closed') end }"))
    assert.are.same({}, heard)
  end)

  it("raises what close raises, once", function()
    local handler = load("return { packet = print, close = function() error('no disk') end }")
    assert.matches("no disk.*stack traceback", message(handler.close, handler))
    assert.are.equal("handler (closed)", tostring(handler))
    handler:close()
  end)

  local NO_HANDLER = "the script returns no handler: it must return a function, or a table with a function 'packet' "
  for _, case in ipairs({ -- what is in the file, the message (a pattern; %s is the path)
    { "return function(", "^script %s does not compile: %s:1: .* expected near <eof>$" },
    { string.dump(function() end), "^script %s does not compile: .*attempt to load a binary chunk" },
    { "error('no luck')", "^script %s failed while loading: %s:1: no luck\nstack traceback:" },
    { "local x = nil; x.y = 1", "^script %s failed while loading: %s:1: attempt to index a nil value" },
    { "error({})", "^script %s failed while loading: %(error object is a table value%)" },
    { "error()", "^script %s failed while loading: %(error object is a nil value%)" },
    { "require('no.such.module')", "^script %s failed while loading: .*module 'no.such.module' not found" },
    { "", "^%s: " .. NO_HANDLER .. "%(got nothing%)$" },
    { "return 5", "^%s: " .. NO_HANDLER .. "%(got number%)$" },
    { "return 'accept'", "^%s: " .. NO_HANDLER .. "%(got string%)$" },
    { "return {}", "^%s: bad argument 'packet' to 'script' %(function expected, got nothing%)$" },
    { "return { packet = 1 }", "^%s: bad argument 'packet' to 'script' %(function expected, got 1%)$" },
    { "return { packet = print, open = 1 }", "^%s: bad argument 'open' to 'script' %(function expected, got 1%)$" },
    { "return { packet = print, stop = 1 }", "^%s: unknown key 'stop' in the handler of 'script' %(known: " },
    { "return { packet = print, config = 1 }", "^%s: bad argument 'config' to 'script' %(table expected, got 1%)$" },
    { "return { packet = print, config = { gso = 1 } }",
      "^%s: bad argument 'gso' to 'script' %(boolean expected, got 1%)$" },
    { "return { packet = print, config = { max = 1 } }", "^%s: unknown config key 'max' to 'script' %(known: " },
    { "return { packet = print, open = function() error('no device') end }",
      "^open of the script failed: %s:1: no device\nstack traceback:" },
  }) do
    it(("fails for %q"):format(case[1]:sub(1, 60)), function()
      local path = unit.file(case[1])
      local handler, problem, errno = nfqueue.load(path)
      assert.is_nil(handler)
      assert.matches((case[2]:gsub("%%s", (path:gsub("%p", "%%%%%0")))), problem)
      assert.are.equal(22, errno) -- EINVAL
    end)
  end

  it("fails for files that cannot be read", function()
    assert.are.same({ nil, "cannot read script /nowhere/x.lua: No such file or directory", 2 },
      { nfqueue.load("/nowhere/x.lua") })
    assert.are.same({ nil, "cannot read script /tmp: Is a directory", 21 }, { nfqueue.load("/tmp") })
  end)

  it("returns no more than three values", function()
    assert.are.equal(3, select("#", nfqueue.load("/nowhere/x.lua")))
    assert.are.equal(1, select("#", nfqueue.load(unit.file("return print"))))
  end)

  it("raises for wrong arguments", function()
    local path = unit.file("return print")
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.are.equal(("bad argument 'path' to 'load' (string expected, got %s)"):format(case[2]),
        message(nfqueue.load, case[1]))
    end
    for _, case in ipairs({ { 5, "5" }, { "a=b", "'a=b'" }, { true, "true" } }) do
      assert.are.equal(("bad argument 'args' to 'load' (table expected, got %s)"):format(case[2]),
        message(nfqueue.load, path, case[1]))
    end
    assert.are.equal("bad argument 'config' to 'load' (table expected, got 5)", message(nfqueue.load, path, {}, 5))
  end)

  it("takes strings and lists of strings as arguments, as run does", function()
    local path = unit.file("return print")
    for _, args in ipairs({ { name = 5 }, { name = true }, { "word" }, { name = { 5 } } }) do
      assert.matches("^bad argument 'args' to 'load' %(", message(nfqueue.load, path, args))
    end
  end)
end)
