-- What `make demo` runs: prints every packet and what was decided about it.
--   every third ping is dropped; replies to pings get a TTL of 42; TCP to port 8081 is dropped;
--   the word "cloudy" in whatever passes becomes "sunny!"; the rest is accepted.

io.stdout:setvbuf("line")

local ECHO_REPLY, ECHO_REQUEST = 0, 8
local pings = 0

local function show(pkt, what, decision)
  print(("packet %3d  %-34s %5d bytes   %s"):format(pkt.id, what, pkt.length, decision))
end

local function judge_icmp(pkt, icmp)
  if icmp.type == ECHO_REQUEST then
    pings = pings + 1
    local what = ("ping request %d"):format(icmp.seq)
    if pings % 3 == 0 then
      show(pkt, what, "DROP")
      return pkt:drop()
    end
    show(pkt, what, "accept")
  elseif icmp.type == ECHO_REPLY then
    show(pkt, ("ping reply %d"):format(icmp.seq), "MODIFY: ttl 42")
    pkt:u8(8, 42) -- the time to live is byte 8 of IPv4; the checksum is completed when it leaves
  else
    show(pkt, ("icmp type %d"):format(icmp.type), "accept")
  end
  pkt:accept()
end

local function judge_tcp(pkt, tcp)
  local what = ("tcp %d > %d"):format(tcp.sport, tcp.dport)
  if tcp.dport == 8081 then
    show(pkt, what, "DROP")
    return pkt:drop()
  end
  local at = not pkt.truncated and pkt:find("cloudy")
  if at then
    show(pkt, what, "MODIFY: cloudy -> sunny!")
    pkt:patch(at, "sunny!")
  else
    show(pkt, what, "accept")
  end
  pkt:accept()
end

return function(pkt)
  if pkt.ip4 and pkt.icmp and pkt.icmp.id then
    return judge_icmp(pkt, pkt.icmp)
  elseif pkt.tcp then
    return judge_tcp(pkt, pkt.tcp)
  end
  show(pkt, "something else", "accept")
  pkt:accept()
end
