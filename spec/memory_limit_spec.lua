-- memory_limit without a kernel: what a loaded handler may use. The same in states of threads, and with copies of held
-- packets: spec/kernel/memory_limit_spec.lua.

local nfqueue = require("nfqueue")
local datagram = require("support.datagram")
local unit = require("support.unit")

local UDP = datagram.right(datagram.ip4(datagram.udp("question")))
local LIMIT = 4 << 20
local REACHED = ("memory_limit (%d bytes) is reached: "):format(LIMIT)

after_each(unit.cleanup)

local function load(text, config)
  text = "local nfqueue = require('nfqueue')\n" .. text
  return nfqueue.load(unit.file(text), nil, config or { memory_limit = LIMIT })
end

--- Bytes that a handler that keeps on filling got hold of, at the most.
local FILLS = {
  ["a table of strings"] = "local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end",
  ["one string that doubles"] = "local s = 'x' while true do s = s .. s end",
  ["string.rep"] = "local s = ('x'):rep(1 << 30)",
  ["string.format"] = "local s = ('%99s'):rep(50000) s = s:format(table.unpack({}, 1, 50000))",
  ["string.gsub"] = "local s = ('x'):rep(100000):gsub('x', ('y'):rep(1000))",
  ["table.concat"] = "local t = {} for i = 1, 1000 do t[i] = ('x'):rep(100000) end local s = table.concat(t)",
  ["table.pack"] = "local t while true do t = table.pack(t, table.unpack({}, 1, 200)) end",
  ["utf8.char"] = "local s = '' while true do s = s .. utf8.char(0x10ffff, 0x10ffff):rep(10000) end",
  ["closures"] = "local f while true do local g = f f = function() return g end end",
  ["coroutines"] = "local t = {} while true do t[#t + 1] = coroutine.create(print) end",
  ["recursion"] = "local function f(...) return 1 + f(1, ...) end f()",
  ["load"] = "local n = 0 assert(load(function() n = n + 1 return 'a' .. n .. '=1 ' end))",
  ["userdata of ours"] = "local t = {} while true do t[#t + 1] = nfqueue.packet(pkt:bytes()) end",
  ["packets built"] = [[local t = {} while true do
    t[#t + 1] = nfqueue.build({ reply = pkt, payload = ('x'):rep(1000) .. #t }) end]],
  ["payloads"] = "local t = {} while true do t[#t + 1] = pkt.payload .. #t end",
  ["rewritten payloads"] = "local t = {} while true do pkt.payload = ('x'):rep(60000) t[#t + 1] = pkt:bytes() end",
  ["timers"] = "while true do nfqueue.after(1, function() end) end",
}

describe("a handler that fills memory with", function()
  for name, body in pairs(FILLS) do
    it(name .. " gets no more than memory_limit, its packet on_error, and can go on", function()
      local before = collectgarbage("count") * 1024
      local handler = assert(load(("return function(pkt) if pkt.mark == 1 then %s end pkt:drop() end")
        :format(body), { memory_limit = LIMIT, on_error = "accept" }))
      for _ = 1, 3 do
        local bad, good = nfqueue.packet(UDP, { mark = 1 }), nfqueue.packet(UDP)
        local verdict, problem = handler(bad)
        assert.equal("accept", verdict)
        assert.equal(UDP, bad.sent)
        if not problem:find("stack overflow", 1, true) then -- which comes first where frames are small
          assert.equal(REACHED, problem:sub(1, #REACHED), problem)
          assert.matches("not enough memory", problem, 1, true)
        end
        assert.is_true(collectgarbage("count") * 1024 <= before + LIMIT + 100000)
        assert.same({ "drop" }, { handler(good) })
      end
      handler:close()
    end)
  end
end)

describe("memory_limit", function()
  it("bounds a handler that catches the error and tries again", function()
    local handler = assert(load([[
      local kept, most, failures = {}, 0, 0
      return function(pkt)
        for i = 1, 400 do
          if not pcall(function() kept[#kept + 1] = ("x"):rep(50000 + i) end) then
            failures = failures + 1
          end
          most = math.max(most, collectgarbage("count"))
        end
        nfqueue.shared("memory_limit_spec"):set("most", most)
        nfqueue.shared("memory_limit_spec"):set("failures", failures)
        kept = {}
      end]]))
    local base = collectgarbage("count")
    assert.equal("accept", (handler(nfqueue.packet(UDP))))
    local store = nfqueue.shared("memory_limit_spec")
    assert.is_true(store:get("failures") > 200, store:get("failures"))
    assert.is_true(store:get("most") < base + LIMIT / 1024 + 100, store:get("most") - base)
    assert.equal("accept", (handler(nfqueue.packet(UDP))))
  end)

  it("leaves a verdict that was given before", function()
    local handler = assert(load("return function(pkt) pkt:drop() return ('x'):rep(1 << 30) end",
      { memory_limit = LIMIT, on_error = "accept" }))
    local verdict, problem = handler(nfqueue.packet(UDP))
    assert.equal("drop", verdict)
    assert.matches("not enough memory", problem, 1, true)
  end)

  it("counts what goes on existing, not garbage", function()
    local handler = assert(load([[return function(pkt)
      local s = ("x"):rep(100000)
      for i = 1, 1000 do local longer = s .. i end
      for i = 1, 1000 do local s = {}; for k = 1, 1000 do s[k] = k end end
      pkt:drop()
    end]]))
    for _ = 1, 5 do
      assert.same({ "drop" }, { handler(nfqueue.packet(UDP)) })
    end
  end)

  it("holds while the chunk runs, and in open", function()
    local filling = "local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end"
    local path = unit.file(filling)
    local handler, problem, errno = nfqueue.load(path, nil, { memory_limit = LIMIT })
    assert.same({ nil, REACHED .. "script " .. path .. " failed while loading: not enough memory", 22 },
      { handler, problem, errno })
    handler, problem, errno = load("return { packet = print, open = function() " .. filling .. " end }")
    assert.same({ nil, "open of the script failed: " .. REACHED .. "not enough memory", 22 },
      { handler, problem, errno })
    -- The script's own is in force from open on.
    handler, problem = load(("return { packet = print, config = { memory_limit = %d }, open = function() %s end }")
      :format(LIMIT, filling), {})
    assert.same({ nil, "open of the script failed: " .. REACHED .. "not enough memory" }, { handler, problem })
  end)

  it("holds in timers and in close", function()
    local handler = assert(load([[
      local function fill() local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end end
      return { packet = function() nfqueue.after(1, fill) end, close = fill }]]))
    assert.equal("accept", (handler(nfqueue.packet(UDP))))
    assert.equal(REACHED .. "not enough memory", handler:advance(2))
    assert.equal(REACHED .. "not enough memory", unit.message(handler.close, handler))
  end)

  it("is the script's alone: the host's own values count only while they grow", function()
    local handler = assert(load("return function(pkt) local s = ('x'):rep(2 << 20) pkt:drop() end"))
    do
      local mine = ("y"):rep(30 << 20) -- which the specs' state may have
      local verdict, problem = handler(nfqueue.packet(UDP))
      assert.same({ "drop", 30 << 20 }, { verdict, #mine })
      assert.matches("memory_limit", problem or "", 1, true)
    end
    collectgarbage()
    assert.same({ "drop" }, { handler(nfqueue.packet(UDP)) })
    -- One loaded later begins anew.
    local more = ("y"):rep(50 << 20)
    handler = assert(load("return function(pkt) local s = ('x'):rep(2 << 20) pkt:drop() end"))
    assert.same({ "drop" }, { handler(nfqueue.packet(UDP)) })
    assert.equal(50 << 20, #more)
  end)

  it("is each handler's own, also inside another's call", function()
    _G.inner = assert(load("return function(pkt) local s = ('x'):rep(6 << 20) end"))
    _G.made = nfqueue.packet
    local outer = assert(load("return function(pkt) kept = { inner(made(pkt:bytes())) } pkt:drop() end",
      { memory_limit = 64 << 20 }))
    assert.same({ "drop" }, { outer(nfqueue.packet(UDP)) })
    assert.equal(REACHED, _G.kept[2]:sub(1, #REACHED))
    _G.inner = assert(load("return function(pkt) local s = ('x'):rep(6 << 20) pkt:drop() end",
      { memory_limit = 64 << 20 }))
    outer = assert(load("return function(pkt) kept = { inner(made(pkt:bytes())) } pkt:drop() end"))
    assert.same({ "drop" }, { outer(nfqueue.packet(UDP)) })
    assert.matches("not enough memory", _G.kept[2], 1, true) -- the outer one's
    _G.inner, _G.made, _G.kept = nil, nil, nil
  end)

  it("does not outlive a state that is closed in a handler", function()
    local code = ([[
      local nfqueue = require("nfqueue")
      local handler = assert(nfqueue.load(%q, nil, { memory_limit = %d }))
      handler(nfqueue.packet("x"))
      print("not reached")]]):format(unit.file("return function() os.exit(7, true) end"), LIMIT)
    local pipe = io.popen(("%s %s 2>&1"):format(require("support.net").lua, unit.file(code)))
    local output = pipe:read("a")
    assert.same({ "", nil, "exit", 7 }, { output, pipe:close() })
  end)
end)
