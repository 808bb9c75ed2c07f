-- Packets for specs: each twice, with wrong lengths and checksums and with the right ones.

local checksum = require("support.checksum")

local datagram = {}

datagram.SOURCE4, datagram.TARGET4 = "\192\0\2\1", "\198\51\100\2" -- RFC 5737
datagram.SOURCE6 = "\x20\x01\x0d\xb8" .. ("\0"):rep(11) .. "\1" -- RFC 3849
datagram.TARGET6 = "\x20\x01\x0d\xb8" .. ("\0"):rep(11) .. "\2"
datagram.FINAL6 = "\x20\x01\x0d\xb8" .. ("\xfe"):rep(12)

local WRONG = 0xdead

-- A transport: its protocol number, and render(pseudo) giving its bytes; without pseudo the wrong ones.
local function summed(protocol, head, tail, with_pseudo)
  return {
    protocol = protocol,
    render = function(pseudo)
      if not pseudo then
        return head .. string.pack(">I2", WRONG) .. tail
      end
      local front = with_pseudo and pseudo(protocol, #head + 2 + #tail) or ""
      local sum = checksum.of(front .. head .. "\0\0" .. tail)
      if protocol == 17 and sum == 0 then
        sum = 0xffff -- RFC 768: zero says that there is none
      end
      return head .. string.pack(">I2", sum) .. tail
    end,
  }
end

--- TCP; options are padded by the caller.
function datagram.tcp(payload, options)
  options = options or ""
  local head = string.pack(">I2I2I4I4BBI2", 40000, 80, 7, 9, (5 + #options // 4) << 4, 0x18, 64240)
  return summed(6, head, "\0\0" .. options .. payload, true)
end

--- UDP, with the length wrong where the checksum is.
function datagram.udp(payload)
  local right = summed(17, string.pack(">I2I2I2", 40000, 53, 8 + #payload), payload, true)
  local wrong = summed(17, string.pack(">I2I2I2", 40000, 53, WRONG), payload, true)
  return {
    protocol = 17,
    render = function(pseudo)
      return (pseudo and right or wrong).render(pseudo)
    end,
  }
end

--- ICMP echo request: no pseudo-header (RFC 792).
function datagram.icmp(payload)
  local echo = summed(1, "\8\0", "\0\1\0\2" .. payload, false)
  return echo
end

--- ICMPv6 echo request: with pseudo-header (RFC 4443 section 2.3).
function datagram.icmp6(payload)
  return summed(58, "\128\0", "\0\1\0\2" .. payload, true)
end

--- Bytes that stay as they are, whatever the protocol.
function datagram.raw(protocol, bytes)
  return { protocol = protocol, render = function() return bytes end }
end

--- IPv4: the packet with wrong lengths and checksums, and the right one.
-- `changes`: options, fragment (the 16 bits of flags and offset), ttl, ah (with an authentication header),
-- final (the address the checksum is over, where that is not the header's).
function datagram.ip4(transport, changes)
  changes = changes or {}
  local options = changes.options or ""
  local ah = changes.ah and string.char(transport.protocol, 4, 0, 0) .. ("\7"):rep(20) or ""
  local function header(total, sum)
    return string.pack(">BBI2I2I2BBI2", 0x45 + #options // 4, 0, total, 0x1234, changes.fragment or 0,
      changes.ttl or 64, changes.ah and 51 or transport.protocol, sum)
      .. datagram.SOURCE4 .. datagram.TARGET4 .. options
  end
  local body = transport.render(checksum.pseudo4(datagram.SOURCE4, changes.final or datagram.TARGET4))
  local total = 20 + #options + #ah + #body
  local right = header(total, checksum.of(header(total, 0)))
  return header(WRONG, WRONG) .. ah .. transport.render(), right .. ah .. body
end

--- IPv6, as ip4. `changes.chain`: extension headers in order, each { number, what follows its next-header byte };
-- `changes.final` and `changes.origin`: the addresses the checksum is over, where they are not the header's.
function datagram.ip6(transport, changes)
  changes = changes or {}
  local chain = changes.chain or {}
  local extensions = ""
  for i, extension in ipairs(chain) do
    local next_header = chain[i + 1] and chain[i + 1][1] or transport.protocol
    extensions = extensions .. string.char(next_header) .. extension[2]
  end
  local function header(length)
    return string.pack(">I4I2BB", 0x60000000, length, chain[1] and chain[1][1] or transport.protocol,
      changes.hops or 64) .. datagram.SOURCE6 .. datagram.TARGET6 .. extensions
  end
  local body = transport.render(checksum.pseudo6(changes.origin or datagram.SOURCE6, changes.final or datagram.TARGET6))
  return header(WRONG) .. transport.render(), header(#extensions + #body) .. body
end

--- The right one of two.
function datagram.right(_, right)
  return right
end

return datagram
