-- What `make demo` runs: prints every packet and what was decided about it.
--   every third ping is dropped; replies to pings get a TTL of 42; TCP to port 8081 is dropped;
--   the word "cloudy" in whatever passes becomes "sunny!"; the rest is accepted.

io.stdout:setvbuf("line")

local ICMP, TCP = 1, 6
local ECHO_REPLY, ECHO_REQUEST = 0, 8
local pings = 0

local function show(pkt, what, decision)
  print(("packet %3d  %-34s %5d bytes   %s"):format(pkt.id, what, pkt.length, decision))
end

local function judge_icmp(pkt, start)
  local kind = pkt:u8(start)
  local sequence = pkt:u16(start + 6)
  if kind == ECHO_REQUEST then
    pings = pings + 1
    local what = ("ping request %d"):format(sequence)
    if pings % 3 == 0 then
      show(pkt, what, "DROP")
      return pkt:drop()
    end
    show(pkt, what, "accept")
  elseif kind == ECHO_REPLY then
    show(pkt, ("ping reply %d"):format(sequence), "MODIFY: ttl 42")
    pkt:u8(8, 42) -- IPv4 time to live; the checksum is completed when it leaves
  else
    show(pkt, ("icmp type %d"):format(kind), "accept")
  end
  pkt:accept()
end

local function judge_tcp(pkt, start)
  local from, to = pkt:u16(start), pkt:u16(start + 2)
  local what = ("tcp %d > %d"):format(from, to)
  if to == 8081 then
    show(pkt, what, "DROP")
    return pkt:drop()
  end
  local at = pkt:find("cloudy")
  if at then
    show(pkt, what, "MODIFY: cloudy -> sunny!")
    pkt:patch(at, "sunny!")
  else
    show(pkt, what, "accept")
  end
  pkt:accept()
end

return function(pkt)
  if #pkt >= 20 and pkt:u8(0) >> 4 == 4 then
    local start = (pkt:u8(0) & 15) * 4 -- where the transport header begins
    local protocol = pkt:u8(9)
    if protocol == ICMP and #pkt >= start + 8 then
      return judge_icmp(pkt, start)
    elseif protocol == TCP and #pkt >= start + 4 then
      return judge_tcp(pkt, start)
    end
  end
  show(pkt, "something else", "accept")
  pkt:accept()
end
