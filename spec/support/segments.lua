-- Single segments of a connection through a rewriter, numbered from the first byte of each direction.

local nfqueue = require("nfqueue")
local rewriting = require("support.rewriting")

local segments = {}
segments.__index = segments

local FLAGS = { F = 1, S = 2, R = 4, P = 8, A = 16, U = 32 }
local LETTERS = { "F", "S", "R", "P", "A", "U" }

local function to_flags(letters)
  local flags = 0
  for letter in letters:gmatch(".") do
    flags = flags | FLAGS[letter]
  end
  return flags
end

local function to_letters(flags)
  local letters = {}
  for i, letter in ipairs(LETTERS) do
    if flags >> (i - 1) & 1 == 1 then
      letters[#letters + 1] = letter
    end
  end
  return table.concat(letters)
end

local function signed(number)
  number = number & 0xffffffff
  return number >= 0x80000000 and number - 0x100000000 or number
end

--- Both directions of one connection; `options`: version, iss (two), ports (two), mss (two), scale, window (bytes,
-- of end 1 in the handshake).
function segments.new(rw, options)
  options = options or {}
  local self = setmetatable({ rw = rw, iss = options.iss or { 1000, 0xfffffff0 }, mss = options.mss or { 1460, 1460 },
    scale = options.scale, window = options.window, builders = {} }, segments)
  for i = 1, 2 do
    self.builders[i] = rewriting.builder(options.version or 4, i, options.ports or { 40000, 80 })
  end
  return self
end

--- The bytes of a segment from end 1 or 2: `at` counts from the first byte that end sends, `facts`: flags
-- (letters, default "A"), ack (from the first byte of the other end), window, options, sack (list of pairs).
function segments:bytes(from, at, payload, facts)
  facts = facts or {}
  local options = facts.options or ""
  local function number(end_, place)
    return (self.iss[end_] + 1 + place) & 0xffffffff
  end
  if facts.sack then
    options = options .. "\1\1" .. string.char(5, 2 + 8 * #facts.sack)
    for _, block in ipairs(facts.sack) do
      options = options .. string.pack(">I4I4", number(3 - from, block[1]), number(3 - from, block[2]))
    end
  end
  local flags = to_flags(facts.flags or "A")
  local bytes = self.builders[from](number(from, at), flags & 16 ~= 0 and number(3 - from, facts.ack or 0) or 0, flags,
    facts.window or 65535, options, payload or "")
  if facts.urgent then
    local start = (bytes:byte() >> 4 == 4 and 20 or 40) + 18
    bytes = bytes:sub(1, start) .. string.pack(">I2", facts.urgent) .. bytes:sub(start + 3)
  end
  return bytes
end

--- Sends it through the rewriter, with `facts.content` as its new payload and `facts.gso`. What went on: fine,
-- reason, at, ack, flags, payload, sack, urgent, bytes.
function segments:send(from, at, payload, facts)
  facts = facts or {}
  local pkt = nfqueue.packet(self:bytes(from, at, payload, facts), { gso = facts.gso })
  local fine, reason = self.rw(pkt, facts.content)
  if not pkt.verdict then
    pkt:accept()
  end
  local went = rewriting.read(pkt.sent)
  local result = {
    fine = fine, reason = reason, at = signed(went.seq - self.iss[from] - 1), flags = to_letters(went.flags),
    ack = went.flags & 16 ~= 0 and signed(went.ack - self.iss[3 - from] - 1) or nil,
    payload = went.payload, options = went.options, urgent = went.urgent, bytes = pkt.sent,
  }
  local sack_at = went.options:find("\5", 3, true)
  if facts.sack and went.options:sub(1, 2) == "\1\1" and sack_at == 3 then
    result.sack = {}
    for i = 5, went.options:byte(4) + 2 - 7, 8 do
      local left, right = string.unpack(">I4I4", went.options, i)
      table.insert(result.sack, { signed(left - self.iss[3 - from] - 1), signed(right - self.iss[3 - from] - 1) })
    end
  end
  return result
end

--- The handshake, begun by end 1.
function segments:open()
  local function announce(i)
    return string.pack(">BBI2", 2, 4, self.mss[i]) .. (self.scale and "\1\3\3" .. string.char(self.scale) or "")
  end
  self:send(1, -1, "", { flags = "S", options = announce(1), window = self.window })
  self:send(2, -1, "", { flags = "SA", options = announce(2) })
  self:send(1, 0, "", { window = self.window and self.window >> (self.scale or 0) })
  return self
end

--- What is compared most: where it went, what it carried, and what was said.
function segments.brief(result)
  return { result.at, result.payload, result.fine, result.reason }
end

return segments
