-- A small TCP endpoint for simulations: window, SACK and D-SACK, retransmission in pieces cut anew, delayed
-- acknowledgements, zero-window probes, keep-alives, Fast Open. Time and chance come from its world.
--
-- Places count the stream: -1 is the SYN, 0 the first byte, #data the FIN.

local endpoint = {}
endpoint.__index = endpoint

local FIN, SYN, PSH, ACK = 1, 2, 8, 16
local RTO, DELAY = 1.0, 0.04

local function signed(number)
  number = number & 0xffffffff
  return number >= 0x80000000 and number - 0x100000000 or number
end

--- world: random(n), after(seconds, fn), transmit(endpoint, bytes, gso), arrived(endpoint, place, bytes),
-- acknowledged(endpoint, place), sacked(endpoint, from, to). options: see below.
function endpoint.new(world, options)
  local self = setmetatable({
    world = world, name = options.name, build = options.build, iss = options.iss, data = options.data,
    mss = options.mss or 100, gso = options.gso, sack = options.sack ~= false, scale = options.scale,
    capacity = options.capacity or 4000, strict = options.strict, reads = options.reads,
    fast_open = options.fast_open or 0, takes_fast_open = options.takes_fast_open,
    keep_alive = options.keep_alive, in_flight = options.in_flight or 3000, quick = options.quick,
    una = -1, nxt = -1, most = -1, right = 0, lost = {}, sacked = {}, duplicates = 0, tries = 0,
    rcv = nil, segments = {}, received = {}, unread = 0, promised = 0, acks = 0,
  }, endpoint)
  return self
end

function endpoint:chance(percent)
  return self.world.random(100) <= percent
end

-- --- Sending --------------------------------------------------------------------------------------

function endpoint:emit(from, to, extra)
  local flags = extra or 0
  local options = ""
  local finish = #self.data + 1
  local seq = (self.iss + 1 + from) & 0xffffffff
  local payload = self.data:sub(math.max(from, 0) + 1, math.min(to, #self.data))
  if from == -1 then
    flags = flags | SYN
    options = string.pack(">BBI2", 2, 4, self.mss) .. (self.sack and "\1\1\4\2" or "")
    if self.scale and (not self.rcv or self.peer_scale) then
      options = options .. "\1\3\3" .. string.char(self.scale)
    end
    self.offered_scale = self.scale ~= nil
  end
  if to == finish then
    flags = flags | FIN
  end
  if #payload > 0 and self:chance(30) then
    flags = flags | PSH
  end
  local ack, window = 0, self:window()
  if self.rcv then
    flags = flags | ACK
    ack = (self.irs + 1 + self.rcv) & 0xffffffff
    options = options .. self:sack_option()
    self.acks, self.ack_timer = 0, nil
  end
  if flags & SYN == 0 then
    window = window >> self:own_scale()
  end
  self.promised = math.max(self.promised, (self.rcv or 0) + (window << (flags & SYN == 0 and self:own_scale() or 0)))
  self.world.transmit(self, self.build(seq, ack, flags, math.min(window, 65535), options, payload), {
    gso = #payload > self.peer_mss_or(self) })
  self.most = math.max(self.most, to)
end

function endpoint.peer_mss_or(self)
  return self.peer_mss or 536
end

function endpoint:own_scale()
  return self.offered_scale and self.peer_scale and self.scale or 0
end

function endpoint:bare(seq_place, payload)
  local ack = (self.irs + 1 + self.rcv) & 0xffffffff
  local window = self:window() >> self:own_scale()
  self.acks, self.ack_timer = 0, nil
  self.promised = math.max(self.promised, self.rcv + (window << self:own_scale()))
  self.world.transmit(self, self.build((self.iss + 1 + seq_place) & 0xffffffff, ack, ACK, math.min(window, 65535),
    self:sack_option(), payload or ""), {})
end

-- One segment from a place on, at most to another.
function endpoint:piece(from, limit)
  local mss = math.min(self.mss, self:peer_mss_or()) - (self.sack and 12 or 0)
  local size = self:chance(60) and mss or self.world.random(mss)
  if self.gso and self:chance(50) then
    size = mss * self.world.random(self.gso)
  end
  local to = math.min(from + size, limit)
  if to == #self.data and limit > #self.data and self:chance(70) then
    to = to + 1 -- the FIN with the last data
  elseif to > #self.data + 1 then
    to = #self.data + 1
  end
  return to
end

function endpoint:is_sacked(place)
  for _, range in ipairs(self.sacked) do
    if place >= range[1] and place < range[2] then
      return range[2]
    end
  end
end

function endpoint:arm()
  self.timer = {}
  local timer = self.timer
  self.world.after(RTO * math.min(2 ^ self.tries, 8), function()
    if self.timer == timer then
      self:timeout()
    end
  end)
end

function endpoint:timeout()
  self.timer = nil
  if self.una > #self.data then
    return
  end
  self.tries = self.tries + 1
  if self.una == -1 then
    self:emit(-1, self:chance(50) and 0 or math.min(self.fast_open, #self.data))
  elseif self.una < self.nxt then
    self.sacked = {}
    self.rtx = self.una
    self.recover = self.nxt
    self:push()
  else
    self:probe()
  end
  self:arm()
end

-- The window is shut: any of the probes there are.
function endpoint:probe()
  local kind = self.world.random(3)
  if kind == 1 then
    self:bare(self.una - 1)
  elseif kind == 2 and self.nxt < #self.data then
    self:emit(self.nxt, self.nxt + 1)
    self.nxt = self.nxt + 1
  else
    self:bare(self.una - 1, self.una > 0 and self.data:sub(self.una, self.una) or "\0")
  end
end

-- Sends what may be sent.
function endpoint:push()
  if self.una < 0 or not self.rcv then
    return
  end
  local budget = 40
  while self.rtx and self.rtx < self.recover and budget > 0 do
    local past = self:is_sacked(self.rtx)
    if past then
      self.rtx = past
    else
      local limit = self.recover
      for _, range in ipairs(self.sacked) do
        if range[1] > self.rtx then
          limit = math.min(limit, range[1])
        end
      end
      local to = self:piece(self.rtx, limit)
      self:emit(self.rtx, to)
      self.rtx = to
    end
    budget = budget - 1
  end
  if self.rtx and self.rtx >= self.recover then
    self.rtx = nil
  end
  while self.nxt <= #self.data and not self.rtx do
    local limit = math.min(self.right, self.una + self.in_flight)
    if self.nxt == #self.data then
      limit = math.max(limit, self.nxt + 1) -- the FIN needs no window here
    elseif limit >= #self.data then
      limit = #self.data + 1
    end
    if limit <= self.nxt then
      break
    end
    local to = self:piece(self.nxt, limit)
    self:emit(self.nxt, to)
    self.nxt = to
  end
  if not self.timer and self.una <= #self.data then
    self:arm()
  end
end

function endpoint:open()
  self:emit(-1, math.min(self.fast_open, #self.data))
  self.nxt = 0
  self:arm()
end

-- --- Receiving ------------------------------------------------------------------------------------

function endpoint:window()
  local free = math.max(0, self.capacity - self.unread)
  if self.rcv then
    free = math.max(free, self.promised - self.rcv) -- an edge once promised stays
  end
  local scale = self:own_scale()
  return math.min((free + (1 << scale) - 1) >> scale << scale, 65535 << scale)
end

function endpoint:sack_option()
  if not (self.sack and self.peer_sack) then
    return ""
  end
  local blocks = {}
  if self.dsack then
    blocks[1] = self.dsack
    self.dsack = nil
  end
  for i = #self.segments, 1, -1 do
    if #blocks < 3 then
      blocks[#blocks + 1] = { self.segments[i].from, self.segments[i].to }
    end
  end
  if #blocks == 0 then
    return ""
  end
  local bytes = { "\1\1", string.char(5, 2 + 8 * #blocks) }
  for _, block in ipairs(blocks) do
    bytes[#bytes + 1] = string.pack(">I4I4", (self.irs + 1 + block[1]) & 0xffffffff,
      (self.irs + 1 + block[2]) & 0xffffffff)
  end
  return table.concat(bytes)
end

function endpoint:acknowledge(at_once)
  self.acks = self.acks + 1
  if at_once or self.acks >= 2 or self.quick then
    self:bare(self.una == -1 and 0 or self.nxt)
  elseif not self.ack_timer then
    self.ack_timer = {}
    local timer = self.ack_timer
    self.world.after(DELAY, function()
      if self.ack_timer == timer then
        self:bare(self.nxt)
      end
    end)
  end
end

local function read_options(options)
  local at = 1
  local found = {}
  while at <= #options do
    local kind = options:byte(at)
    if kind == 0 then
      break
    elseif kind == 1 then
      at = at + 1
    else
      local size = options:byte(at + 1)
      found[kind] = options:sub(at + 2, at + size - 1)
      at = at + size
    end
  end
  return found
end

function endpoint:take_ack(ack, window, options, is_bare, is_syn)
  local place = signed(ack - (self.iss + 1) - self.una) + self.una
  assert(place <= self.most, "acknowledged what was never sent")
  if options[5] then
    for i = 1, #options[5] - 7, 8 do
      local left, right = string.unpack(">I4I4", options[5], i)
      local from = signed(left - (self.iss + 1) - self.una) + self.una
      local to = signed(right - (self.iss + 1) - self.una) + self.una
      assert(from < to and to <= self.most, "SACK of what was never sent")
      if from >= place then
        self.world.sacked(self, from, to)
        self.sacked[#self.sacked + 1] = { from, to }
      end
    end
    table.sort(self.sacked, function(a, b) return a[1] < b[1] end)
  end
  self.world.acknowledged(self, place)
  if place >= self.una then
    self.right = place + (window << (not is_syn and self.offered_scale and self.peer_scale or 0))
  end
  if place > self.una then
    self.una = place
    self.nxt = math.max(self.nxt, place)
    self.tries, self.duplicates = 0, 0
    while self.sacked[1] and self.sacked[1][1] <= self.una do
      self.una_sacked = table.remove(self.sacked, 1)
    end
    if self.rtx then
      self.rtx = math.max(self.rtx, self.una)
    end
    self.timer = nil
    if self.una <= #self.data then
      self:arm()
    end
  elseif place == self.una and is_bare and self.una < self.nxt then
    self.duplicates = self.duplicates + 1
  end
  local bytes = 0
  for _, range in ipairs(self.sacked) do
    bytes = bytes + range[2] - range[1]
  end
  if not self.rtx and self.una < self.nxt and self.una >= 0
    and (self.duplicates == 3 and not self.sack or bytes > 3 * self.mss) and self.recovered ~= self.una then
    self.recovered = self.una
    self.rtx = self.una
    self.recover = math.min(self.nxt, self.sacked[#self.sacked] and self.sacked[#self.sacked][1] or self.nxt)
  end
end

function endpoint:take_data(place, payload, fin)
  local to = place + #payload + (fin and 1 or 0)
  if to <= self.rcv then
    self.dsack = #payload > 0 and { place, place + #payload } or nil
    self.duplicated = (self.duplicated or 0) + 1
    return self:acknowledge(true)
  end
  local edge = math.max(self.promised, self.rcv + 1)
  if place >= edge or (self.strict and to > edge + (fin and 1 or 0)) then
    return self:acknowledge(true)
  end
  if to > edge then
    payload, fin = payload:sub(1, edge - place), false
    to = place + #payload
  end
  if place < self.rcv then
    payload = payload:sub(self.rcv - place + 1)
    place = self.rcv
  end
  self.world.arrived(self, place, payload)
  local in_order = place == self.rcv
  local piece = { from = place, to = to, bytes = payload, fin = fin }
  -- Keep the list sorted and without overlaps: bytes that are there already stay.
  local merged = {}
  for _, other in ipairs(self.segments) do
    if other.to <= piece.from or other.from >= piece.to then
      merged[#merged + 1] = other
    else
      local front = other.from < piece.from and other.bytes:sub(1, piece.from - other.from) or ""
      local back = other.to > piece.to and other.bytes:sub(piece.to - other.from + 1) or ""
      piece = { from = math.min(piece.from, other.from), to = math.max(piece.to, other.to),
        bytes = front .. piece.bytes .. back, fin = piece.fin or other.fin }
    end
  end
  merged[#merged + 1] = piece
  table.sort(merged, function(a, b) return a.from < b.from end)
  self.segments = merged
  while self.segments[1] and self.segments[1].from == self.rcv do
    local first = table.remove(self.segments, 1)
    self.received[#self.received + 1] = first.bytes
    self.unread = self.unread + #first.bytes
    self.rcv = first.to
    self.ended = self.ended or first.fin
  end
  self:acknowledge(not in_order or #self.segments > 0 or fin)
end

function endpoint:receive(seq, ack, flags, window, options, payload)
  options = read_options(options)
  if flags & SYN ~= 0 then
    if not self.rcv then
      self.irs, self.rcv = seq, 0
      self.promised = math.min(self:window(), 65535)
      self.peer_mss = options[2] and string.unpack(">I2", options[2]) or 536
      self.peer_sack = options[4] ~= nil
      self.peer_scale = options[3] and options[3]:byte()
      self:start_reading()
    elseif seq ~= self.irs then
      return self:bare(self.nxt) -- RFC 5961: a challenge
    end
    if self.una == -1 and self.nxt == -1 then
      if #payload > 0 and self.takes_fast_open then
        self:take_data(0, payload, false)
      end
      self.nxt = 0
      self:emit(-1, 0)
      return self:arm()
    end
  end
  if not self.rcv then
    return
  end
  local place = signed(seq + (flags & SYN ~= 0 and 1 or 0) - (self.irs + 1) - self.rcv) + self.rcv
  local fin = flags & FIN ~= 0
  if flags & ACK ~= 0 then
    self:take_ack(ack, window, options, #payload == 0 and not fin, flags & SYN ~= 0)
  end
  if #payload > 0 or fin then
    if flags & SYN == 0 or self.takes_fast_open then
      self:take_data(place, payload, fin)
    end
  elseif flags & SYN ~= 0 then
    self:acknowledge(true)
  elseif place < self.rcv then
    self.answered = (self.answered or 0) + 1
    self:acknowledge(true) -- a keep-alive or a probe
  end
  self:push()
end

function endpoint:start_reading()
  local function read()
    if self.unread > 0 then
      local before = self:window()
      self.unread = self.reads and math.max(0, self.unread - self.world.random(self.reads)) or 0
      if before < self.mss and self:window() >= self.mss then
        self:bare(math.max(self.nxt, 0)) -- a window update
      end
    end
    if not self:is_done() then
      self.world.after(0.05, read)
    end
  end
  self.world.after(0.05, read)
  if self.keep_alive then
    local function ask()
      if self:is_done() then
        return
      end
      if self.una == self.nxt and self.una > 0 and self.una <= #self.data then
        self:bare(self.nxt - 1, self:chance(50) and "\xee" or "")
      end
      self.world.after(self.keep_alive, ask)
    end
    self.world.after(self.keep_alive, ask)
  end
end

--- Everything sent is acknowledged, and the other end has ended.
function endpoint:is_done()
  return self.una > #self.data and self.ended == true
end

return endpoint
