-- Fields and payloads assigned in real packets: what the receiver gets, and that its kernel found it right.

local net = require("support.net")
local traffic = require("support.traffic")

for _, family in ipairs(traffic.FAMILIES) do
  describe("over " .. family.name, function()
    local errors

    before_each(function()
      errors = traffic.checksum_errors()
    end)
    after_each(traffic.cleanup)

    -- Sends the texts through a handler on the way out: what the receiver gets.
    local function through(handler, ...)
      local udp = traffic.udp(family)
      local count = select("#", ...)
      traffic.rule("-A OUTPUT -p udp -j NFQUEUE --queue-num 3", family)
      local queue = traffic.open(3, handler)
      udp:send(...)
      traffic.judge_packets(queue, count)
      local texts
      net.wait_for("the datagrams", function()
        texts = udp:received()
        return #texts >= count
      end)
      assert.equal(0, queue:stats().errors)
      return texts
    end

    it("a payload gets longer and shorter", function()
      local long = ("all of it "):rep(140)
      local texts = through(function(pkt)
        pkt.payload = ({ one = "1", two = long, three = "", four = "4444" })[pkt.payload]
      end, "one", "two", "three", "four")
      assert.are.same({ "1", long, "", "4444" }, texts)
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("ports and addresses are rewritten, and back", function()
      local udp = traffic.udp(family)
      local port, reserved = udp.port, 9
      udp.sender:close()
      udp.sender = family.udp()
      assert(udp.sender:setpeername(family.address, reserved))
      udp.sender:settimeout(0)
      traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(reserved), family)
      local queue = traffic.open(3, function(pkt)
        pkt.udp.dport = port
        pkt.ip.ttl = 17
      end)
      udp:send("redirected")
      traffic.judge_packets(queue, 1)
      net.wait_for("the datagram", function() return #udp:received() == 1 end)
      udp.sender:close()
      assert.are.same({ "redirected" }, udp.texts)
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("a SYN's options are set, and the other end has them", function()
      traffic.rule("-A OUTPUT -p tcp --tcp-flags SYN,ACK SYN -j NFQUEUE --queue-num 3", family)
      traffic.rule("-A INPUT -p tcp --tcp-flags SYN,ACK SYN -j NFQUEUE --queue-num 4", family)
      local met = {}
      local out = traffic.open(3, function(pkt)
        pkt.tcp.mss = 1000
        pkt.tcp:set_option(254, "exp")
        pkt.tcp:set_option(8, nil)
      end)
      local back = traffic.open(4, function(pkt)
        met = { pkt.tcp.mss, pkt.tcp:option(254), pkt.tcp:option(8) == nil }
      end)
      local source = traffic.text_file(20000)
      local target = traffic.transfer({ out, back }, source, { family = family, port = 8401 })
      assert.equal(traffic.sha256(source), traffic.sha256(target))
      assert.are.same({ 1000, "exp", true }, met)
      assert.equal(errors, traffic.checksum_errors())
    end)

    it("an assigned checksum is sent so, and what came in broken stays broken behind an edit", function()
      local udp = traffic.udp(family)
      traffic.rule("-A OUTPUT -p udp -j NFQUEUE --queue-num 3", family)
      traffic.rule("-A INPUT -p udp -j NFQUEUE --queue-num 4", family)
      local out = traffic.open(3, function(pkt)
        if pkt.payload == "broken" then
          pkt.udp.checksum = 0xbad1
        end
      end)
      local seen = {}
      local back = traffic.open(4, function(pkt)
        seen[#seen + 1] = pkt.udp.checksum
        pkt.payload = pkt.payload:upper()
      end)
      udp:send("broken", "right")
      traffic.judge({ out, back }, "both on their way in", function()
        return back:stats().packets == 2
      end)
      net.wait_for("the right one", function() return #udp:received() > 0 end)
      assert.are.same({ "RIGHT" }, udp.texts)
      assert.equal(0xbad1, seen[1])
      assert.equal(errors + 1, traffic.checksum_errors())
    end)
  end)
end
