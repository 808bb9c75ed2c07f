-- Segments that come in with a wrong checksum: nothing in them is believed, and the kernel refuses them as ever.

local nfqueue = require("nfqueue")
local traffic = require("support.traffic")
local wire = require("support.wire")

local PORT = 8700

local missing = wire.missing()
local it = not missing and it or function(name)
  pending(("%s (%s)"):format(name, missing))
end

after_each(traffic.cleanup)

describe("a damaged segment", function()
  for _, family in ipairs(traffic.FAMILIES) do
    it("goes as it is, and changes nothing, " .. family.name, function()
      local link = wire.new()
      local errors = traffic.checksum_errors()
      local version = family.name:find("6") and 6 or 4
      local rw = nfqueue.rewrite({ max = 4 })
      local seen = {}
      traffic.rule(("-A INPUT -i wire0 -p tcp --dport %d -j NFQUEUE --queue-num 6"):format(PORT), family)
      local queue = traffic.open(6, function(pkt)
        local payload = pkt.payload
        local fine, reason = rw(pkt, #payload > 0 and payload .. " and more" or nil)
        seen[#seen + 1] = { fine, reason, pkt.tcp.seq, pkt.payload }
        pkt:accept()
      end)
      local function segment(seq, flags, payload, checksum)
        return nfqueue.build({
          ip = { src = wire.THERE[version], dst = wire.HERE[version] }, payload = payload,
          tcp = { sport = 9, dport = PORT, seq = seq, ack_seq = 1, flags = flags, checksum = checksum },
        })
      end
      local function pass(...)
        link:send(...)
        local count = #seen + select("#", ...)
        traffic.judge({ queue }, "the segments", function() return #seen == count end)
      end
      pass(segment(99, "S"))
      pass(segment(100, "A", "data", 0x1234))
      assert.same({ false, "damaged", 100, "data" }, seen[2])
      pass(segment(100, "A", "DATA"))
      assert.same({ true, nil, 100, "DATA and more" }, { table.unpack(seen[3], 1, 4) })
      pass(segment(104, "A", "", 0x1234)) -- not moved, either
      assert.same({ false, "damaged", 104, "" }, seen[4])
      pass(segment(104, "A", ""))
      assert.same({ true, nil, 113, "" }, { table.unpack(seen[5], 1, 4) })
      assert.equal(2, rw:stats().damaged)
      assert.equal(errors + 2, traffic.checksum_errors())
      link:close()
    end)
  end
end)
