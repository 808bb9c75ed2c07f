-- A wire with this process at its far end: what is sent here arrives at the kernel as from another host, and what
-- the kernel sends to that host comes here.

local net = require("support.net")
local socket = require("socket")
local traffic = require("support.traffic")

local wire = {}
wire.__index = wire

--- Addresses of the kernel's end and of the far one.
wire.HERE = { [4] = "10.9.0.1", [6] = "fd09::1" }
wire.THERE = { [4] = "10.9.0.2", [6] = "fd09::2" }

--- Why there can be no wire: nil when there can.
function wire.missing()
  if not select(2, net.sh("command -v socat")) then
    return "socat is not installed"
  end
  local device, why = io.open("/dev/net/tun", "r+")
  if not device then
    return why
  end
  device:close()
end

--- Make one: interface wire0 of this namespace, with that MTU. net.cleanup ends it.
function wire.new(mtu)
  local self = setmetatable({ socket = socket.udp4(), waiting = {} }, wire)
  local probe = socket.udp4()
  assert(self.socket:setsockname("127.0.0.1", 0))
  assert(probe:setsockname("127.0.0.1", 0))
  local _, far = self.socket:getsockname()
  local _, near = probe:getsockname()
  probe:close()
  -- Datagrams between here and there: a packet each.
  self.process = net.start(("socat -b 70000 TUN:%s/24,iff-no-pi,tun-name=wire0,up "
    .. "UDP4-DATAGRAM:127.0.0.1:%d,bind=127.0.0.1:%d"):format(wire.HERE[4], far, near))
  net.wait_for("wire0", function()
    return net.sh("ip -4 address show dev wire0"):find(wire.HERE[4], 1, true)
  end)
  -- The loopback interface carries a packet and its headers in one piece.
  net.must("ip link set lo mtu 65536")
  net.must(("ip link set wire0 mtu %d addrgenmode none && ip address add %s/64 dev wire0 nodad")
    :format(mtu or 1500, wire.HERE[6]))
  -- The kernel finishes an IPv6 address later, in a thread of its own.
  net.wait_for("its IPv6 address", function()
    return net.sh("ip -6 route show table local dev wire0"):find("local " .. wire.HERE[6], 1, true)
      and not net.sh("ip -6 address show dev wire0"):find("tentative", 1, true)
  end)
  traffic.wait_listening("udp", near)
  assert(self.socket:setpeername("127.0.0.1", near))
  return self
end

--- Packets that the kernel gets, in this order.
function wire:send(...)
  for _, bytes in ipairs({ ... }) do
    assert(self.socket:send(bytes))
  end
end

--- Wait until the kernel sends a packet for which the condition holds: its bytes. Those before it are forgotten.
function wire:await(what, condition)
  self.socket:settimeout(0.2)
  return net.wait_for(what, function()
    local bytes = self.socket:receive()
    while bytes do
      if condition(bytes) then
        return bytes
      end
      bytes = self.socket:receive()
    end
  end)
end

function wire:close()
  self.socket:close()
end

return wire
