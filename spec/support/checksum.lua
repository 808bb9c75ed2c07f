-- The Internet checksum and the pseudo-headers, written from the RFCs: what specs hold the subject against.

local checksum = {}

--- RFC 1071: the complement of the ones' complement sum of 16-bit words; an odd last byte gets a zero behind it.
function checksum.of(bytes)
  if #bytes % 2 == 1 then
    bytes = bytes .. "\0"
  end
  local sum = 0
  for position = 1, #bytes, 2 do
    sum = sum + string.unpack(">I2", bytes, position)
    if sum > 0xffff then
      sum = sum - 0xffff -- the end-around carry
    end
  end
  return 0xffff - sum
end

--- RFC 793 section 3.1, RFC 768: source, destination, zero, protocol, length.
function checksum.pseudo4(source, target)
  return function(protocol, length)
    return source .. target .. string.pack(">BBI2", 0, protocol, length)
  end
end

--- RFC 8200 section 8.1: source, final destination, 32-bit length, three zeros, protocol.
function checksum.pseudo6(source, target)
  return function(protocol, length)
    return source .. target .. string.pack(">I4I3B", length, 0, protocol)
  end
end

return checksum
