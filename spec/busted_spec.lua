-- nfqueue.busted: what its assertions let pass, and what they say.

local nfqueue = require("nfqueue")
require("nfqueue.busted")
local unit = require("support.unit")

local IP = { src = "192.0.2.1", dst = "192.0.2.2" }
local UDP = { sport = 40000, dport = 53 }

local function question(text, checksum)
  return nfqueue.build({ ip = IP, udp = { sport = 40000, dport = 53, checksum = checksum }, payload = text })
end

local PACKET, CHANGED = question("question"), question("answered")
local LINE = "IP 192.0.2.1.40000 > 192.0.2.2.53: UDP, length 8"

local function accept(pkt) pkt:accept() end
local function drop() return "drop" end
local function edit(pkt) pkt.payload = "answered" end
local function modify() return "modify", CHANGED end
local function requeue(pkt) pkt.payload = "answered" return "requeue", 3 end
local function fail() error("no luck") end
local function nothing() end

after_each(unit.cleanup)

-- The message of a failing assertion.
local function message(assertion, ...)
  local fine, problem = pcall(assertion, ...)
  assert(not fine, "it passed")
  return type(problem) == "table" and problem.message or problem -- busted's, with the place it came from
end

describe("assert.accepts", function()
  it("passes for what is let go, edited or not", function()
    for _, handler in ipairs({ accept, nothing, edit }) do
      assert.accepts(handler, PACKET)
      assert.is_string(message(assert.not_accepts, handler, PACKET))
    end
    for _, handler in ipairs({ drop, modify, requeue }) do
      assert.not_accepts(handler, PACKET)
      assert.is_string(message(assert.accepts, handler, PACKET))
    end
  end)

  it("says what happened instead", function()
    assert.are.equal("Expected the handler to accept:\n  " .. LINE .. "\nbut its verdict was drop",
      message(assert.accepts, drop, PACKET))
    assert.are.equal("Expected the handler not to accept:\n  " .. LINE
      .. "\nbut its verdict was accept, and the packet left as it came", message(assert.not_accepts, accept, PACKET))
    assert.are.equal("Expected the handler to accept:\n  " .. LINE
      .. "\nbut its verdict was requeue, and this packet left:\n  " .. LINE .. " (36 bytes)",
      message(assert.accepts, requeue, PACKET))
  end)
end)

describe("assert.drops", function()
  it("passes for what is dropped", function()
    assert.drops(drop, PACKET)
    assert.drops(function(pkt) pkt:drop() end, PACKET)
    assert.are.equal("Expected the handler not to drop:\n  " .. LINE .. "\nbut its verdict was drop",
      message(assert.not_drops, drop, PACKET))
    for _, handler in ipairs({ accept, nothing, edit, modify, requeue }) do
      assert.not_drops(handler, PACKET)
      assert.is_string(message(assert.drops, handler, PACKET))
    end
  end)
end)

describe("assert.modifies", function()
  it("passes for the content that is expected, whichever way it leaves", function()
    for _, handler in ipairs({ edit, modify }) do
      assert.modifies(handler, PACKET, CHANGED)
      assert.modifies(handler, nfqueue.packet(PACKET), nfqueue.packet(CHANGED))
      assert.modifies(handler, PACKET)
      assert.does_not.modifies(handler, PACKET, question("otherwise"))
      assert.is_string(message(assert.not_modifies, handler, PACKET, CHANGED))
      assert.is_string(message(assert.not_modifies, handler, PACKET))
    end
    for _, handler in ipairs({ accept, nothing, drop, requeue }) do
      assert.not_modifies(handler, PACKET, CHANGED)
      assert.not_modifies(handler, PACKET)
      assert.is_string(message(assert.modifies, handler, PACKET, CHANGED))
      assert.is_string(message(assert.modifies, handler, PACKET))
    end
  end)

  it("shows both packets and where they begin to differ", function()
    local text = message(assert.modifies, function() return "modify", question("answeref") end, PACKET, CHANGED)
    assert.are.equal(table.concat({
      "Expected the handler to make of:", "  " .. LINE, "this packet:", "  " .. LINE .. " (36 bytes)",
      "but its verdict was modify, and this packet left:", "  " .. LINE .. " (36 bytes)",
    }, "\n"), text:match("^(.-)\nThey"))
    local at, expected, sent = text:match("offset (%d+) on:\n  expected  (%x%x)[%x ]+\n  sent      (%x%x)")
    at = math.tointeger(tonumber(at))
    assert.are.equal(CHANGED:sub(1, at), question("answeref"):sub(1, at))
    assert.are.equal(("%02x"):format(CHANGED:byte(at + 1)), expected)
    assert.are.equal(("%02x"):format(question("answeref"):byte(at + 1)), sent)
  end)

  it("shows where one of them ends, and 16 bytes of the other", function()
    local short = { fixup = false }
    local text = message(assert.modifies, function() return "modify", PACKET:sub(1, 30), short end, PACKET, PACKET)
    assert.matches("differ from offset 30 on:\n  expected  65 73 74 69 6f 6e\n  sent      (the end)", text, 1, true)
    text = message(assert.modifies, function() return "modify", PACKET .. ("x"):rep(20), short end, PACKET, PACKET)
    assert.matches("  expected  (the end)\n  sent      " .. ("78 "):rep(15) .. "78", text, 1, true)
    assert.not_matches("78 78", text:match("sent%s+(.*)"):sub(48))
  end)

  it("says when nothing was changed, or nothing left", function()
    assert.are.equal("Expected the handler to modify:\n  " .. LINE
      .. "\nbut its verdict was accept, and the packet left as it came", message(assert.modifies, accept, PACKET))
    assert.are.equal(("Expected the handler to make of:\n  %s\nthis packet:\n  %s (36 bytes)\nbut its verdict was drop")
      :format(LINE, LINE), message(assert.modifies, drop, PACKET, CHANGED))
    assert.matches("and the packet left as it came\nThey differ from offset 26 on:",
      message(assert.modifies, accept, PACKET, CHANGED))
  end)

  it("wants the expected content when it is named", function()
    assert.are.equal("bad argument 'expected' to 'modifies' (string or packet expected, got nil)",
      message(assert.modifies, edit, PACKET, nil))
    assert.are.equal("bad argument 'expected' to 'modifies' (string or packet expected, got table)",
      message(assert.not_modifies, edit, PACKET, {}))
  end)
end)

describe("an assertion", function()
  local ALL = { "accepts", "drops", "modifies" }

  it("fails for a handler that raises, and so does its negation", function()
    for _, name in ipairs(ALL) do
      for _, key in ipairs({ name, "not_" .. name, "is_not." .. name }) do
        local assertion = key:find("%.") and assert.is_not[name] or assert[key]
        for _, handler in ipairs({ fail, { packet = fail, config = { on_error = "accept" } } }) do
          local text = message(assertion, handler, PACKET)
          assert.matches("but it raised, which gives the packet the verdict %a+:\n", text)
          assert.matches(":\n  [^\n]+busted_spec.lua:%d+: no luck\n", text)
          assert.matches("busted_spec.lua:%d+: in function", text)
          assert.not_matches("nfqueue/busted.lua", text, 1, true)
          assert.not_matches("luassert", text, 1, true)
        end
      end
    end
    -- A verdict before the error stands, and the error is one all the same.
    assert.matches("the verdict drop:\n", message(assert.drops, function(pkt) pkt:drop() error("late") end, PACKET))
    assert.matches("the verdict drop:\n  a handler returns nothing or the name of a verb",
      message(assert.drops, function() return 5 end, PACKET))
  end)

  it("puts the author's words in front", function()
    for _, name in ipairs(ALL) do
      local words = name == "modifies" and { CHANGED, "in my words" } or { "in my words" }
      assert.matches("^in my words\nExpected the handler ", message(assert[name], requeue, PACKET, table.unpack(words)))
    end
  end)

  it("takes functions, tables and loaded handlers", function()
    local path = unit.file("local args = ... return function(pkt) return args.verdict end")
    assert.drops(drop, PACKET)
    assert.drops({ packet = drop }, PACKET)
    assert.drops(assert(nfqueue.load(path, { verdict = "drop" })), PACKET)
    assert.accepts(assert(nfqueue.load(path, { verdict = "accept" })), PACKET)
    assert.drops({ packet = nothing, config = { default = "drop" } }, PACKET)
  end)

  it("opens a table once, before its first packet", function()
    local calls = {}
    local handler = {
      open = function(queue) calls[#calls + 1] = "open " .. queue.number end,
      packet = function(_, queue) calls[#calls + 1] = "packet " .. queue.number end,
    }
    assert.accepts(handler, PACKET)
    assert.not_drops(handler, PACKET)
    assert.are.same({ "open 0", "packet 0", "packet 0" }, calls)
    assert.matches("open of the handler failed: .*no luck",
      message(assert.drops, { packet = drop, open = fail }, PACKET))
  end)

  it("takes a packet with all it is given, and returns it", function()
    local function mark(pkt)
      assert(pkt.hook == "forward")
      pkt:accept({ mark = 7 })
    end
    local pkt = nfqueue.packet(PACKET, { hook = "forward" })
    assert.are.equal(pkt, assert.accepts(mark, pkt))
    assert.are.equal(7, pkt.mark)
    assert.are.equal("answered", assert.modifies(edit, PACKET, CHANGED).payload)
    assert.are.equal("drop", assert.not_accepts(drop, PACKET).verdict)
  end)

  it("names what it cannot take", function()
    for _, name in ipairs(ALL) do
      for _, foreign in ipairs(unit.foreigners()) do
        if foreign.type ~= "string" then
          assert.are.equal(("bad argument 'packet' to '%s' (packet of nfqueue.packet, or its bytes, expected, got %s)")
            :format(name, foreign.type), message(assert[name], drop, foreign.value))
        end
        if foreign.type ~= "function" and foreign.type ~= "table" then
          assert.matches(("^bad argument 'handler' to '%s' %%(function, or table with a function 'packet', expected, ")
            :format(name), message(assert[name], foreign.value, PACKET))
        end
      end
      assert.are.equal(("bad argument 'packet' to '%s' (function expected, got nothing)"):format(name),
        message(assert[name], {}, PACKET))
      assert.are.equal(("unknown key 'pocket' in the handler of '%s' (known: packet, open, close, config)")
        :format(name), message(assert[name], { packet = drop, pocket = drop }, PACKET))
    end
    local judged = nfqueue.packet(PACKET)
    judged:drop()
    assert.are.equal("packet already has a verdict", message(assert.drops, drop, judged))
  end)

  it("goes on after a failure", function()
    pcall(assert.accepts, drop, PACKET)
    assert.accepts(accept, PACKET)
    assert.has_no.errors(function() assert.drops(drop, PACKET) end)
  end)
end)

describe("packets of specs", function()
  it("may be truncated, metadata alone, or no IP", function()
    assert.accepts(accept, nfqueue.packet(PACKET:sub(1, 30), { length = #PACKET }))
    assert.accepts(accept, nfqueue.packet("", { length = 60 }))
    assert.drops(drop, "\xff\xff")
    assert.is_table(UDP)
  end)
end)
