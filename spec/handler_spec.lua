-- A loaded handler applied to packets as the loop would: what it decided, `default`, `on_error`.

local nfqueue = require("nfqueue")
require("nfqueue.busted")
local datagram = require("support.datagram")
local unit = require("support.unit")

local message = unit.message
local UDP = datagram.right(datagram.ip4(datagram.udp("question")))
local EDITED = datagram.right(datagram.ip4(datagram.udp("answered")))
local AT = UDP:find("question", 1, true) - 1

after_each(function()
  _G.EDITED = nil
  unit.cleanup()
end)
before_each(function()
  _G.EDITED = EDITED -- for the scripts, which share this state
end)

local function load(body, config)
  return assert(nfqueue.load(unit.file("return function(pkt, queue) " .. body .. " end"), nil, config))
end

-- Applies a handler of this body: the packet, the verdict, the problem.
local function apply(body, config, bytes)
  local pkt = nfqueue.packet(bytes or UDP, { mark = 5, priority = 6 })
  return pkt, load(body, config)(pkt)
end

describe("a handler", function()
  for _, case in ipairs({ -- body, verdict, sent, mark, priority
    { "pkt:accept()", "accept", UDP },
    { "pkt:drop()", "drop" },
    { "pkt:modify(EDITED)", "modify", EDITED },
    { "pkt:again({ mark = 1 })", "again", UDP, 1 },
    { "pkt:requeue(3, { bypass = true })", "requeue", UDP },
    { "return pkt:accept()", "accept", UDP },
    { "return 'accept'", "accept", UDP },
    { "return 'accept', nil", "accept", UDP },
    { "return 'accept', { mark = 0x100, mask = 0xff00, priority = 9 }", "accept", UDP, 0x105, 9 },
    { "return 'drop'", "drop" },
    { "return 'modify', EDITED", "modify", EDITED },
    { "return 'modify', EDITED, { mark = 1 }", "modify", EDITED, 1 },
    { "return 'modify', 'verbatim', { fixup = false }", "modify", "verbatim" },
    { "return 'again', { mark = 1 }", "again", UDP, 1 },
    { "return 'requeue', 65535", "requeue", UDP },
    { "return 'requeue', 0, { bypass = true, mark = 1 }", "requeue", UDP, 1 },
    { "pkt.mark = 7; pkt.priority = 8; pkt:accept()", "accept", UDP, 7, 8 },
    { ("pkt:patch(%d, 'answered'); return 'accept'"):format(AT), "accept", EDITED },
    { ("pkt:patch(%d, 'answered'); return 'drop'"):format(AT), "drop" },
  }) do
    it("decides: " .. case[1], function()
      local config = { default = case[2] == "drop" and "accept" or "drop" }
      local pkt, verdict, problem = apply(case[1], config)
      assert.is_nil(problem)
      assert.are.same({ case[2], case[2], case[4] or 5, case[5] or 6 },
        { verdict, pkt.verdict, pkt.mark, pkt.priority })
      assert.are.equal(case[3], pkt.sent)
      local handler, leaves = load(case[1], config), case[2] == "accept" or case[2] == "modify"
      assert[case[2] == "accept" and "accepts" or "not_accepts"](handler, UDP)
      assert[case[2] == "drop" and "drops" or "not_drops"](handler, UDP)
      assert[leaves and "modifies" or "not_modifies"](handler, UDP, case[3] or UDP)
    end)
  end

  it("that decides nothing leaves it to the default, edits and marks included", function()
    for _, body in ipairs({ "", "return", "return nil" }) do
      local pkt, verdict, problem = apply(body)
      assert.are.same({ "accept", UDP, "accept" }, { pkt.verdict, pkt.sent, verdict })
      assert.is_nil(problem)
      pkt, verdict, problem = apply(body, { default = "drop", on_error = "accept" })
      assert.are.same({ "drop", "drop" }, { pkt.verdict, verdict })
      assert.is_nil(pkt.sent)
      assert.is_nil(problem)
    end
    local body = ("pkt:patch(%d, 'answered'); pkt.mark = 7"):format(AT)
    local pkt = apply(body)
    assert.are.same({ "accept", EDITED, 7 }, { pkt.verdict, pkt.sent, pkt.mark })
    assert.is_nil((apply(body, { default = "drop" }).sent))
  end)

  it("returns one value when all went well, two when not", function()
    assert.are.equal(1, select("#", load("pkt:accept()")(nfqueue.packet(UDP))))
    assert.are.equal(2, select("#", load("error('no')")(nfqueue.packet(UDP))))
  end)
end)

describe("a handler that fails", function()
  local VERBS = " %(accept, drop, modify, again, requeue, reject, delay, hold%)"
  local FAILURES = { -- body, what the message begins with (a pattern; the position before it is optional)
    { "error('no luck')", "no luck" },
    { "error({})", "%(error object is a table value%)" },
    { "error()", "%(error object is a nil value%)" },
    { "error(setmetatable({}, { __tostring = function() return 'told' end }))", "told" },
    { "error(5)", "5" },
    { "local x; x()", "attempt to call a nil value" },
    { "return pkt.tpc", "packet has no field 'tpc'" },
    { "pkt:u8(1000)", "bad argument 'offset' to 'u8'" },
    { "pkt:modify('')", "cannot edit this packet: the new content is empty" },
    { "return true", "a handler returns nothing or the name of a verb, not boolean" },
    { "return false", "a handler returns nothing or the name of a verb, not boolean" },
    { "return 1", "a handler returns nothing or the name of a verb, not number" },
    { "return {}", "a handler returns nothing or the name of a verb, not table" },
    { "return pkt", "a handler returns nothing or the name of a verb, not userdata" },
    { "return nil, 'drop'", "a handler returns nothing or the name of a verb, not nil" },
    { "return 'refuse'", "the handler returned 'refuse', which is no verb" },
    { "return 'ACCEPT'", "the handler returned 'ACCEPT', which is no verb" .. VERBS },
    { "return ''", "the handler returned '', which is no verb" },
    { "return 'bytes'", "the handler returned 'bytes', which is no verb" },
    { "return 'drop', 1", "too many arguments to 'drop'" },
    { "return 'accept', {}, 1", "too many arguments to 'accept'" },
    { "return 'accept', { color = 1 }", "unknown option 'color' to 'accept'" },
    { "return 'accept', { mark = -1 }", "bad argument 'mark' to 'accept'" },
    { "return 'modify'", "bad argument 'bytes' to 'modify' %(string expected, got nothing%)" },
    { "return 'modify', ''", "cannot edit this packet: the new content is empty" },
    { "return 'requeue'", "bad argument 'n' to 'requeue' %(integer from 0 to 65535 expected, got nothing%)" },
    { "return 'requeue', 65536", "bad argument 'n' to 'requeue'" },
  }
  for _, case in ipairs(FAILURES) do
    it("gets on_error: " .. case[1], function()
      for _, on_error in ipairs({ "accept", "drop" }) do
        local pkt, verdict, problem = apply(case[1], { on_error = on_error, default = "accept" })
        assert.are.same({ on_error, on_error }, { verdict, pkt.verdict })
        local text = problem:gsub("^[^:\n]+:%d+: ", "")
        assert.matches("^" .. case[2], text)
        assert.matches("\nstack traceback:\n", problem, 1, true)
      end
    end)
  end

  it("has its own line in the traceback", function()
    local path = unit.file("local function deep(pkt)\n  error('no luck')\nend\nreturn function(pkt)\n  deep(pkt)\n"
      .. "  return 'accept'\nend\n")
    local _, problem = assert(nfqueue.load(path))(nfqueue.packet(UDP))
    assert.matches(path .. ":2: no luck", problem, 1, true)
    assert.matches(path .. ":5: in function", problem, 1, true)
  end)

  it("sends nothing of what it had edited", function()
    local edit = ("pkt:patch(%d, 'answered'); pkt.mark = 7; pkt.priority = 8; "):format(AT)
    for _, failure in ipairs({ "error('no')", "return 'nonsense'", "return 'accept', { mark = 9, color = 1 }",
      "return 'modify', ''" }) do
      local pkt, verdict = apply(edit .. failure, { on_error = "accept" })
      assert.are.same({ "accept", UDP, UDP, 5, 6 }, { verdict, pkt.sent, pkt:bytes(), pkt.mark, pkt.priority })
    end
  end)

  it("keeps the verdict it gave before", function()
    for _, case in ipairs({
      { "pkt:drop() error('late')", "drop" },
      { "pkt:accept({ mark = 1 }) error('late')", "accept", UDP, 1 },
      { "pkt:modify(EDITED) error('late')", "modify", EDITED },
      { "pkt:requeue(1) pkt:drop()", "requeue", UDP },
      { "pkt:accept() return 'drop'", "accept", UDP },
      { "pkt:drop() return true", "drop" },
    }) do
      local pkt, verdict, problem = apply(case[1], { on_error = case[2] == "drop" and "accept" or "drop" })
      assert.are.same({ case[2], case[2], case[4] or 5 }, { verdict, pkt.verdict, pkt.mark })
      assert.are.equal(case[3], pkt.sent)
      assert.is_string(problem)
    end
  end)

  it("says that a name came after a verb", function()
    local _, _, problem = apply("pkt:accept() return 'drop'")
    assert.matches("^the handler returned 'drop', but the packet already has a verdict", problem)
  end)

  it("gets on_error when the edits it left to the default cannot be sent", function()
    local cut = UDP:sub(1, 24)
    local pkt, verdict, problem = apply("pkt:u8(8, 1)", { on_error = "accept" }, cut)
    assert.are.same({ "accept", cut }, { verdict, pkt.sent })
    assert.matches("^cannot edit this packet: its UDP header is cut short", problem)
  end)

  it("goes on with the next packet", function()
    local handler = load("if pkt.mark == 1 then error('one') end pkt:accept()")
    for _ = 1, 3 do
      local verdict, problem = handler(nfqueue.packet(UDP, { mark = 1 }))
      assert.are.equal("drop", verdict)
      assert.matches("one", problem)
      assert.are.same({ "accept" }, { handler(nfqueue.packet(UDP)) })
    end
  end)
end)

describe("a loaded handler", function()
  it("takes nothing but an undecided packet of nfqueue.packet", function()
    local handler = load("pkt:accept()")
    local values = unit.foreigners()
    values[#values + 1] = { value = nfqueue.new(1, print), type = "userdata" }
    values[#values + 1] = { value = handler, type = "userdata" }
    for _, foreign in ipairs(values) do
      assert.matches("^bad argument 'pkt' to 'handler' %(packet made by nfqueue.packet expected, got ",
        message(handler, foreign.value))
    end
    local pkt = nfqueue.packet(UDP)
    pkt:drop()
    assert.are.equal("packet already has a verdict", message(handler, pkt))
    assert.are.equal("drop", pkt.verdict)
  end)

  it("has config and close, no other field", function()
    local handler = load("", { copy_range = 99 })
    assert.are.equal(99, handler.config.copy_range)
    assert.is_function(handler.close)
    for key, shown in pairs({ packet = "packet", [1] = "1", [true] = "true" }) do
      assert.are.equal(("handler has no field '%s'"):format(shown), message(function() return handler[key] end))
    end
    for _, foreign in ipairs(unit.foreigners()) do
      assert.matches("^bad argument 'self' to 'close' %(handler expected, got ",
        message(handler.close, foreign.value))
    end
  end)

  it("gives its queue, which is not running", function()
    local pkt, verdict, problem = apply([[
      assert(queue.number == 0 and queue.config.gso == true and queue:stats().packets == 0)
      queue:stop()
      pkt.mark = 1
      pcall(queue.start, queue)
      pkt:accept()]])
    assert.are.same({ "accept", 1 }, { verdict, pkt.mark })
    assert.is_nil(problem)
  end)
end)
