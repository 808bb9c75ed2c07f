-- Why a peer reads something else: a bug of theirs, or another reading on purpose. A rule names the peer (without,
-- it is both), the fields (a pattern) and the packets; the reason is printed beside the number of uses. A rule that
-- explains nothing in all captures is an error.

local EXTENSIONS = { ["0"] = true, ["43"] = true, ["44"] = true, ["51"] = true, ["60"] = true }
local HEADER = { ["6"] = 20, ["17"] = 8, ["1"] = 4, ["58"] = 4 } -- bytes of a transport header, at least

-- Where the bytes that nfqueue has of a packet end, padding left out; it puts the payload of a cut header there.
local function find_end(case)
  return tonumber(case.our["payload.offset"]) + tonumber(case.our["payload.length"])
end

local function claims_short_header(case)
  return case.bytes:byte(1) >> 4 == 4 and case.bytes:byte(1) & 15 < 5
end

-- Whether the transport's header reaches beyond the packet, or says that it is impossibly short: there nfqueue has no
-- such header, and what follows the network header is payload.
local function is_transport_cut(case)
  local protocol, offset = case.our["ip.protocol"], tonumber(case.our["payload.offset"])
  if not HEADER[protocol] or case.our["tcp.offset"] or case.our["udp.offset"] or case.our["icmp.offset"]
    or case.our["ip.frag_offset"] ~= "0" or claims_short_header(case) then
    return false
  end
  local left = find_end(case) - offset
  local header = protocol == "6" and left >= 13 and (case.bytes:byte(offset + 13) >> 4) * 4 or HEADER[protocol]
  return left < HEADER[protocol] or header > left or header < HEADER[protocol]
end

-- Whether an authentication header stands before the transport.
local function is_authenticated(case)
  local bytes = case.bytes
  if bytes:byte(1) >> 4 == 4 then
    return bytes:byte(10) == 51
  end
  local next_header, at = bytes:byte(7), 40
  while EXTENSIONS[tostring(next_header)] and next_header ~= 51 and at + 8 <= #bytes do
    local size = bytes:byte(at + 2)
    next_header, at = bytes:byte(at + 1), at + (next_header == 44 and 8 or 8 + 8 * size)
  end
  return next_header == 51
end

local function claims_short_udp(case)
  return case.our["udp.offset"] ~= nil and tonumber(case.our["udp.length"]) < 8
end

-- Whether a chain of extension headers ends beyond the packet: what would be next is an extension header.
local function is_chain_cut(case)
  return EXTENSIONS[case.our["ip.protocol"]] and case.our["payload.length"] == "0"
end

local function is_jumbogram(case)
  return case.our["ip.version"] == "6" and case.bytes:sub(5, 7) == "\0\0\0" and #case.our["ip.length"] > 5
end

local function is_hop_by_hop4(case)
  return case.our["ip.version"] == "4" and case.our["ip.protocol"] == "0"
end

-- Whether an option of the TCP header claims less than its own two bytes, or more than the header has left.
local function has_bad_option(case)
  local at = tonumber(case.our["tcp.offset"]) + 20
  local behind = tonumber(case.our["payload.offset"])
  while at < behind do
    local kind, size = case.bytes:byte(at + 1, at + 2)
    if kind == 0 then
      return false
    elseif kind ~= 1 and (at + 1 == behind or size < 2 or size > behind - at) then
      return true
    end
    at = at + (kind == 1 and 1 or size)
  end
  return false
end

-- What of an ICMP message is left behind the network headers.
local function icmp_left(case)
  return find_end(case) - tonumber(case.our["icmp.offset"] or case.our["payload.offset"])
end

-- Whether an ICMP error says how long the packet is that it embeds.
local function has_length_field(case)
  local at = tonumber(case.our["icmp.offset"]) + (case.our["ip.version"] == "4" and 5 or 4)
  return (case.bytes:byte(at + 1) or 0) > 0
end

return {
  {
    fields = "^tcp%.",
    reason = "a TCP header that is cut, or claims less than 20 bytes, is none; the peer shows its first bytes",
    applies = is_transport_cut,
  },
  {
    peer = "tshark", fields = "^udp%.", reason = "a UDP header that is cut is none; the peer shows its first bytes",
    applies = is_transport_cut,
  },
  {
    fields = "^payload%.", reason = "where the transport's header is cut, or claims too little, all of it is payload",
    applies = is_transport_cut,
  },
  {
    fields = "^payload%.length$",
    reason = "a UDP length of less than 8 cannot be right, and is not believed; the peer goes by it",
    applies = claims_short_udp,
  },
  {
    peer = "tshark", fields = "^udp%.checksum$", reason = "tshark stops at a UDP length of less than 8",
    applies = claims_short_udp,
  },
  {
    peer = "scapy", fields = "", reason = "scapy reads nothing behind an authentication header",
    applies = function(case)
      return (case.field == "ip.protocol" or not case.field:find("^ip%.")) and is_authenticated(case)
    end,
  },
  {
    peer = "tshark", fields = "^ip%.",
    reason = "an IPv6 header of less than 40 bytes is none; the peer shows its first bytes",
    applies = function(case) return case.bytes:byte(1) >> 4 == 6 and #case.bytes < 40 end,
  },
  {
    peer = "tshark", fields = "^payload%.", reason = "the same: all of it is payload",
    applies = function(case) return case.bytes:byte(1) >> 4 == 6 and #case.bytes < 40 end,
  },
  {
    fields = "^ip%.protocol$",
    reason = "nfqueue stays before an extension header that is cut; the peer reads its next-header byte",
    applies = is_chain_cut,
  },
  {
    fields = "^tuple$", reason = "a tuple has the protocol, which is explained apart",
    applies = function(case) return is_chain_cut(case) or claims_short_header(case) or is_hop_by_hop4(case) end,
  },
  {
    fields = "^payload%.",
    reason = "behind a cut extension header nfqueue has no payload; the peer calls its bytes so",
    applies = is_chain_cut,
  },
  {
    peer = "scapy", fields = "", reason = "scapy raises on a routing header of less than three bytes",
    applies = function(case) return case.their.error == "IndexError" and case.our["ip.protocol"] == "43" end,
  },
  {
    peer = "scapy", fields = "^icmp%.", reason = "scapy reads no ICMP header of less than 8 bytes",
    applies = function(case) return not case.their["icmp.type"] and icmp_left(case) < 8 end,
  },
  {
    peer = "scapy", fields = "^payload%.", reason = "the same: all of the message is payload",
    applies = function(case)
      return not case.their["icmp.type"] and case.our["icmp.type"] and icmp_left(case) < 8
    end,
  },
  {
    peer = "scapy", fields = "^icmp%.", reason = "scapy has no class for router renumbering (RFC 2894)",
    applies = function(case) return case.our["icmp.type"] == "138" and not case.their["icmp.type"] end,
  },
  {
    peer = "scapy", fields = "^payload%.", reason = "the same: all of the message is payload",
    applies = function(case) return case.our["icmp.type"] == "138" and not case.their["icmp.type"] end,
  },
  {
    peer = "scapy", fields = "^icmp%.embedded$",
    reason = "an error message that carries nothing embeds no bytes; scapy has no such layer",
    applies = function(case) return case.ours == "" end,
  },
  {
    peer = "scapy", fields = "^icmp%.embedded$",
    reason = "scapy takes the extensions of RFC 4884 for a part of the embedded packet",
    applies = function(case)
      local behind = (case.theirs or ""):sub(#case.ours + 1)
      return has_length_field(case) and behind:find("^20") and case.theirs == case.ours .. behind
    end,
  },
  {
    peer = "tshark", fields = "^ip%.dst",
    reason = "tshark shows no destination of an IPv4 header whose options are cut",
    applies = function(case)
      return case.our["ip.version"] == "4" and #case.bytes < (case.bytes:byte(1) & 15) * 4
    end,
  },
  {
    peer = "tshark", fields = "^icmp%.offset$", reason = "tshark names ICMPv6 in a packet whose payload length is 0",
    applies = function(case) return case.bytes:sub(5, 7) == "\0\0\58" and not case.their["icmp.type"] end,
  },
  {
    peer = "scapy", fields = "^tcp%.option%.",
    reason = "scapy reads an option that claims less than 2 bytes or more than there are, and what follows",
    applies = has_bad_option,
  },
  {
    peer = "tshark", fields = "^ip%.",
    reason = "tshark shows only the version of an IPv4 header that claims less than 20 bytes",
    applies = claims_short_header,
  },
  {
    peer = "scapy", fields = "^udp%.",
    reason = "scapy looks for a transport behind an IPv4 header that claims less than 20 bytes",
    applies = claims_short_header,
  },
  {
    fields = "^payload%.", reason = "behind an IPv4 header that claims less than 20 bytes nfqueue has no payload",
    applies = claims_short_header,
  },
  {
    peer = "tshark", fields = "^ip%.protocol$",
    reason = "tshark reads IPv6's extension headers behind an IPv4 header",
    applies = is_hop_by_hop4,
  },
  {
    peer = "tshark", fields = "^payload%.", reason = "the same: what lies behind them is payload",
    applies = is_hop_by_hop4,
  },
  {
    fields = "^ip%.length$",
    reason = "a jumbogram's length is that of its option (RFC 2675); the peer goes by the header's field, 0",
    applies = is_jumbogram,
  },
  {
    peer = "tshark", fields = "^payload%.length$",
    reason = "tshark calls the two jumbo payload options of one packet malformed, and has no payload",
    applies = is_jumbogram,
  },
  {
    peer = "tshark", fields = "^ip%.length$",
    reason = "for an IPv4 total length of 0 (segmentation offload) tshark shows the length on the wire",
    applies = function(case)
      return case.bytes:byte(1) >> 4 == 4 and case.bytes:sub(3, 4) == "\0\0" and case.theirs == tostring(case.wire)
    end,
  },
}
