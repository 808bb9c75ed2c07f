--- Assertions on handlers, for busted and whatever else uses luassert. `require("nfqueue.busted")` adds them:
--
-- * `assert.accepts(handler, packet [, message])`: the packet is let go, with whatever was edited;
-- * `assert.drops(handler, packet [, message])`;
-- * `assert.modifies(handler, packet [, expected [, message]])`: the packet leaves with this content (bytes, or a
--   packet), or without `expected` with another than it came with.
--
-- The handler is applied as the loop would; a failure says what happened instead. Each has luassert's negations
-- (`assert.not_drops`, `assert.does_not.modifies`). A handler that raises passes none of them. A handler is a
-- function, a table `{ packet=, open=, close=, config= }`, whose `open` runs before its first packet, or what
-- nfqueue.load returns. A packet is its bytes, or one of nfqueue.packet without a verdict; it is returned, so that
-- its mark can be looked at.
-- @module nfqueue.busted

local core = require("nfqueue.core")
local luassert = require("luassert")
local say = require("say")

local opened = setmetatable({}, { __mode = "k" })

-- What is called with the packet: tables are opened once, so that they keep their state between packets.
local function callable(handler, name)
  if getmetatable(handler) == "nfqueue.handler" then
    return handler
  end
  if type(handler) ~= "table" then
    return core.wrap(handler, name)
  end
  opened[handler] = opened[handler] or core.wrap(handler, name)
  return opened[handler]
end

local function to_packet(value, name)
  if type(value) == "string" then
    return core.packet(value)
  end
  if getmetatable(value) ~= "nfqueue.packet" then
    error(("bad argument 'packet' to '%s' (packet of nfqueue.packet, or its bytes, expected, got %s)")
      :format(name, type(value)), 0)
  end
  return value
end

-- Applies the handler: what the packet was and became.
local function apply(handler, value, name)
  local call = callable(handler, name)
  local packet = to_packet(value, name)
  local outcome = { packet = packet, shown = tostring(packet), before = packet:bytes() }
  outcome.verdict, outcome.problem = call(packet)
  outcome.sent = packet.sent
  return outcome
end

local function quoted(text)
  return "  " .. text:gsub("\n", "\n  ")
end

local function shown(bytes)
  return quoted(("%s (%d bytes)"):format(tostring(core.packet(bytes)), #bytes))
end

-- 16 bytes from an offset on, in hexadecimal.
local function hex(bytes, offset)
  local text = bytes:sub(offset + 1, offset + 16):gsub(".", function(char)
    return ("%02x "):format(char:byte())
  end)
  return text == "" and "(the end)" or text:sub(1, -2)
end

local function difference(expected, sent)
  local offset = 0
  while expected:byte(offset + 1) and expected:byte(offset + 1) == sent:byte(offset + 1) do
    offset = offset + 1
  end
  return ("They differ from offset %d on:\n  expected  %s\n  sent      %s")
    :format(offset, hex(expected, offset), hex(sent, offset))
end

-- A traceback as far as it is the handler's.
local function own_frames(traceback)
  local lines = {}
  for line in traceback:gmatch("[^\n]+") do
    if line:find("nfqueue/busted.lua:", 1, true) then
      while lines[#lines]:find("^%s*%[C%]: in ") do
        lines[#lines] = nil -- what calls it
      end
      break
    end
    lines[#lines + 1] = line
  end
  return table.concat(lines, "\n")
end

-- What the handler did, as the end of a sentence.
local function deed(outcome)
  if outcome.problem then
    return ("but it raised, which gives the packet the verdict %s:\n%s")
      :format(outcome.verdict, quoted(own_frames(outcome.problem)))
  end
  if not outcome.sent then
    return "but its verdict was " .. outcome.verdict
  end
  if outcome.sent == outcome.before then
    return ("but its verdict was %s, and the packet left as it came"):format(outcome.verdict)
  end
  return ("but its verdict was %s, and this packet left:\n%s"):format(outcome.verdict, shown(outcome.sent))
end

local function sentence(outcome, wish)
  return ("Expected the handler %s:\n%s\n%s"):format(wish, quoted(outcome.shown), deed(outcome))
end

local function was_accepted(outcome)
  return outcome.verdict == "accept"
end

local function was_dropped(outcome)
  return outcome.verdict == "drop"
end

local function was_modified(outcome, expected)
  if not outcome.sent or (outcome.verdict ~= "accept" and outcome.verdict ~= "modify") then
    return false
  end
  if expected then
    return outcome.sent == expected
  end
  return outcome.sent ~= outcome.before
end

-- The bytes that are expected of a change: nil when none are named.
local function expected_bytes(arguments, name)
  if arguments.n < 3 then
    return nil
  end
  local expected = arguments[3]
  if getmetatable(expected) == "nfqueue.packet" then
    expected = expected:bytes()
  end
  if type(expected) ~= "string" then
    error(("bad argument 'expected' to '%s' (string or packet expected, got %s)"):format(name, type(expected)), 0)
  end
  return expected
end

local function explain_change(outcome, expected, is_wanted)
  if not is_wanted or not expected then
    return sentence(outcome, (is_wanted and "" or "not ") .. "to modify")
  end
  local text = ("Expected the handler to make of:\n%s\nthis packet:\n%s\n%s")
    :format(quoted(outcome.shown), shown(expected), deed(outcome))
  if outcome.sent and not outcome.problem then
    text = text .. "\n" .. difference(expected, outcome.sent)
  end
  return text
end

local ASSERTIONS = {
  accepts = { holds = was_accepted, wish = "to accept" },
  drops = { holds = was_dropped, wish = "to drop" },
  modifies = { holds = was_modified, expected = expected_bytes, explain = explain_change },
}

-- Messages are whole when luassert gets them.
say:set("assertion.nfqueue", "%s")

for name, assertion in pairs(ASSERTIONS) do
  luassert:register("assertion", name, function(state, arguments, level)
    local last = assertion.expected and 3 or 2
    local done, outcome, expected = pcall(function()
      local wanted = assertion.expected and assertion.expected(arguments, name)
      return apply(arguments[1], arguments[2], name), wanted
    end)
    if not done then
      error((tostring(outcome):gsub("^[^\n]-nfqueue/busted%.lua:%d+: ", "")), level + 1)
    end
    local is_wanted = state.mod
    if arguments.n > last and arguments[last + 1] ~= nil then
      state.failure_message = arguments[last + 1]
    end
    local text
    if assertion.explain then
      text = assertion.explain(outcome, expected, is_wanted)
    else
      text = sentence(outcome, (is_wanted and "" or "not ") .. assertion.wish)
    end
    arguments[1], arguments.n, arguments.nofmt = text, 1, { true }
    if outcome.problem then
      return not is_wanted -- fails, whichever was asked
    end
    return assertion.holds(outcome, expected), { outcome.packet }
  end, "assertion.nfqueue", "assertion.nfqueue")
end

return luassert
