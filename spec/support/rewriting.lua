-- Two endpoints with a rewriter between them, over paths that lose, duplicate and reorder; and what must hold:
-- each end receives what the edits say, is told nothing that is not so, and both come to their end.

local endpoint = require("support.endpoint")
local nfqueue = require("nfqueue")

local rewriting = {}

local ENDS = {
  [4] = { "\10\1\2\3", "\10\9\8\7" },
  [6] = { "\x20\x01\x0d\xb8" .. ("\0"):rep(11) .. "\1", "\x20\x01\x0d\xb8" .. ("\0"):rep(11) .. "\2" },
}

--- Random numbers of its own (xorshift), so that a seed gives the same run everywhere.
function rewriting.generator(seed)
  local state = seed * 0x9E3779B97F4A7C15 + 0x1234567
  return function(limit)
    state = state ~ (state << 13)
    state = state ~ (state >> 7)
    state = state ~ (state << 17)
    return (state >> 33) % limit + 1
  end
end

--- A function that makes a packet of one direction; checksums are left 0.
function rewriting.builder(version, from, ports)
  local source, target = ENDS[version][from], ENDS[version][3 - from]
  return function(seq, ack, flags, window, options, payload)
    options = options .. ("\0"):rep(-#options % 4)
    local tcp = string.pack(">I2I2I4I4BBI2I2I2", ports[from], ports[3 - from], seq, ack, (5 + #options // 4) << 4,
      flags, window, 0, 0) .. options .. payload
    if version == 6 then
      return string.pack(">I4I2BB", 0x60000000, #tcp, 6, 64) .. source .. target .. tcp
    end
    return string.pack(">BBI2I2I2BBI2", 0x45, 0, 20 + #tcp, 7, 0x4000, 64, 6, 0) .. source .. target .. tcp
  end
end

--- The parts of a packet made so: a table with seq, ack, flags, window, options, payload, urgent.
function rewriting.read(bytes)
  local start = bytes:byte() >> 4 == 4 and 20 or 40
  local seq, ack, offset, flags, window, _, urgent = string.unpack(">I4I4BBI2I2I2", bytes, start + 5)
  local header = (offset >> 4) * 4
  return {
    seq = seq, ack = ack, flags = flags, window = window, urgent = urgent,
    options = bytes:sub(start + 21, start + header), payload = bytes:sub(start + header + 1),
  }
end

local read = rewriting.read

-- What the rewriter has let through of one direction, as the edits say: pieces of bytes as they were and as
-- they became, one behind the other.
local stream = {}
stream.__index = stream

function stream.new(iss)
  return setmetatable({ first = (iss + 1) & 0xffffffff, taken = 0, grown = 0, pieces = {} }, stream)
end

function stream:add(before, after)
  if #before > 0 then
    self.pieces[#self.pieces + 1] = { from = self.taken, to = self.taken + #before, out_from = self.grown,
      out_to = self.grown + #after, bytes = after }
    self.taken, self.grown = self.taken + #before, self.grown + #after
  end
end

function stream:content()
  local parts = {}
  for i, piece in ipairs(self.pieces) do
    parts[i] = piece.bytes
  end
  return table.concat(parts)
end

-- Notes what a call of the rewriter said about a segment.
function stream:note(segment, content, fine, reason)
  local place = (segment.seq + (segment.flags & 2 ~= 0 and 1 or 0) - self.first) & 0xffffffff
  if place >= 0x80000000 then
    place = place - 0x100000000
  end
  local old = self.taken - place
  local is_data = #segment.payload > 0 or segment.flags & 1 ~= 0
  if old < 0 and self.leaves_holes and is_data and reason ~= "out of order" then
    local hole = self.data:sub(self.taken + 1, place) -- what will fill it passes as it is
    self:add(hole, hole)
    old = 0
  end
  local new = content and content ~= segment.payload
  if reason == "out of order" or reason == "no room" or old < 0 or old >= #segment.payload then
    assert(not (fine and new and old > 0), "an edit of what had passed was taken")
    return
  end
  if not fine and new then
    return -- what had not passed was left out
  end
  if new then
    assert(old <= 0 or content:sub(1, old) == segment.payload:sub(1, old))
    self:add(segment.payload:sub(old + 1), content:sub(old + 1))
  else
    self:add(segment.payload:sub(old + 1), segment.payload:sub(old + 1))
  end
end

--- Runs one connection and returns the counts; raises when something does not hold.
-- options: seed, version, iss (two), data (two), edit (content of a segment, or nil; given payload and direction),
-- loss, duplicates (per cent), jitter (seconds), rewriter, wait (its option), endpoints (two tables of options of
-- endpoint.new).
function rewriting.run(options)
  local random = rewriting.generator(options.seed)
  local ports = options.ports or { 40000 + options.seed % 20000, 80 }
  local rw = options.rewriter or nfqueue.rewrite({ max = 4, wait = options.wait })
  local now, events, order = 0, {}, 0
  local ends, streams = {}, {}
  local counts = { packets = 0, edits = 0, again = 0, hole = 0, no_room = 0, lost = 0 }
  local version = options.version or 4

  local function after(seconds, fn)
    order = order + 1
    local event = { at = now + seconds, order = order, fn = fn }
    -- A heap: the earliest first.
    local i = #events + 1
    events[i] = event
    while i > 1 do
      local parent = events[i // 2]
      if parent.at < event.at or parent.at == event.at and parent.order < event.order then
        break
      end
      events[i], events[i // 2] = parent, event
      i = i // 2
    end
  end

  local function next_event()
    local first, last = events[1], table.remove(events)
    if first == last then
      return first
    end
    local i, count = 1, #events
    events[1] = last
    while true do
      local child = 2 * i
      if child > count then
        break
      end
      local function earlier(a, b)
        return a.at < b.at or a.at == b.at and a.order < b.order
      end
      if child < count and earlier(events[child + 1], events[child]) then
        child = child + 1
      end
      if not earlier(events[child], last) then
        break
      end
      events[i], events[child] = events[child], last
      i = child
    end
    return first
  end

  local function over_path(fn)
    if random(1000) <= (options.loss or 0) * 10 then
      counts.lost = counts.lost + 1
      return
    end
    local times = random(1000) <= (options.duplicates or 0) * 10 and 2 or 1
    for _ = 1, times do
      local jitter = random(100) <= 20 and random(1000) / 1000 * (options.jitter or 0) or 0
      after(0.005 + jitter, fn)
    end
  end

  local function judge(from, bytes, gso)
    local segment = read(bytes)
    local pkt = nfqueue.packet(bytes, { gso = gso })
    local content
    if #segment.payload > 0 and options.edit then
      content = options.edit(segment.payload, from, random)
    end
    local fine, reason = rw(pkt, content)
    assert(fine == true and reason == nil or fine == false and type(reason) == "string")
    counts.packets = counts.packets + 1
    local new = content and content ~= segment.payload
    counts.edits = counts.edits + (fine and new and 1 or 0)
    counts.again = counts.again + (reason == "sent before" and 1 or 0)
    counts.hole = counts.hole + (reason == "out of order" and 1 or 0)
    counts.no_room = counts.no_room + (reason == "no room" and 1 or 0)
    streams[from]:note(segment, content, fine, reason)
    pkt:accept()
    local sent = pkt.sent
    local went = read(sent)
    if not gso and segment.flags & 2 == 0 and #went.payload > math.max(#segment.payload, ends[3 - from].mss) then
      error(("%d bytes became %d, more than the path takes"):format(#segment.payload, #went.payload))
    end
    over_path(function()
      ends[3 - from]:receive(went.seq, went.ack, went.flags, went.window, went.options, went.payload)
    end)
  end

  local world = { random = random, after = after }
  local number = {}
  function world.transmit(self, bytes, facts)
    local from = number[self]
    over_path(function()
      judge(from, bytes, facts.gso)
    end)
  end
  -- Bytes that have arrived are what the edits say.
  function world.arrived(self, place, bytes)
    local source = streams[3 - number[self]]
    local content = source.known or ""
    if #content ~= source.grown then
      content = source:content()
      source.known = content
    end
    if content:sub(place + 1, place + #bytes) ~= bytes then
      error(("at %d end %d got %q, not %q"):format(place, number[self], bytes:sub(1, 40),
        content:sub(place + 1, place + math.min(#bytes, 40))))
    end
  end
  -- What a sender is told to have arrived has arrived, all that it became.
  local function has(receiver, from, to)
    if to <= receiver.rcv then
      return true
    end
    if from < receiver.rcv then
      from = receiver.rcv
    end
    for _, piece in ipairs(receiver.segments) do
      if piece.from <= from and piece.to >= to then
        return true
      end
    end
    return from >= to
  end
  local function check_told(self, from, to, what)
    local source, receiver = streams[number[self]], ends[3 - number[self]]
    for _, piece in ipairs(source.pieces) do
      -- The last byte stands for all that the piece became.
      if piece.to > from and piece.to <= to then
        local start = math.max(piece.out_from, piece.from >= from and piece.out_from or piece.out_to)
        if not has(receiver, start, piece.out_to) then
          error(("end %d is told in %s that its %d to %d arrived, but %d to %d did not")
            :format(number[self], what, from, to, start, piece.out_to))
        end
      end
    end
  end
  function world.acknowledged(self, place)
    if place > (self.checked or 0) then
      check_told(self, self.checked or 0, place, "an acknowledgement")
      self.checked = place
    end
  end
  function world.sacked(self, from, to)
    check_told(self, from, to, "SACK")
  end

  for i = 1, 2 do
    local facts = { name = tostring(i), iss = options.iss and options.iss[i] or 1000 * i, data = options.data[i],
      build = rewriting.builder(version, i, ports) }
    for key, value in pairs(options.endpoints and options.endpoints[i] or {}) do
      facts[key] = value
    end
    ends[i] = endpoint.new(world, facts)
    number[ends[i]] = i
    streams[i] = stream.new(facts.iss)
    streams[i].leaves_holes, streams[i].data = options.wait == false, options.data[i]
  end
  ends[1]:open()
  if options.both_open then
    ends[2]:open()
  end
  while not (ends[1]:is_done() and ends[2]:is_done()) do
    local event = next_event()
    assert(event, "nothing happens any more")
    now = event.at
    assert(now < 20000, "it does not come to its end")
    event.fn()
  end
  for i = 1, 2 do
    local wanted = streams[i]:content()
    assert(streams[i].taken == #options.data[i], "not all of the stream has passed")
    assert(table.concat(ends[3 - i].received) == wanted, "what was received is not what the edits say")
  end
  counts.seconds = now
  counts.streams = streams
  counts.ends = ends
  return counts
end

return rewriting
