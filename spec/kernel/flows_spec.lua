-- nfqueue.flows over real connections: both directions, ICMP errors, and verdicts given in C.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

for _, family in ipairs(traffic.FAMILIES) do
  describe("over " .. family.name, function()
    after_each(traffic.cleanup)

    it("the rest of a flow is judged without the handler", function()
      for verdict, arrives in pairs({ accept = true, drop = false }) do
        local udp = traffic.udp(family)
        local flows = nfqueue.flows()
        local calls = 0
        traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
        local queue = traffic.open(3, function(pkt)
          calls = calls + 1
          local flow, reply = flows:get(pkt)
          assert(reply == false)
          flow.count = (flow.count or 0) + 1
          if flow.count == 2 then
            flow.verdict = verdict
          end
        end)
        udp:send("1", "2", "3", "4", "5", "6")
        traffic.judge_packets(queue, 6)
        if arrives then
          net.wait_for("all", function() return #udp:received() == 6 end)
        end
        assert.are.same(arrives and { "1", "2", "3", "4", "5", "6" } or { "1", "2" }, udp:received())
        local stats = queue:stats()
        assert.are.equal(2, calls)
        assert.are.equal(6, stats.accepted + stats.dropped)
        assert.are.same({ 0, 0, arrives and 0 or 4 }, { stats.errors, stats.modified, stats.dropped })
        queue:close()
        net.flush_rules()
      end
    end)

    it("a TCP connection is one flow, from its SYN to its end, and its directions are told", function()
      local finished = {}
      local flows = nfqueue.flows({ finish = function(flow) finished[#finished + 1] = flow end })
      traffic.rule("-A OUTPUT -p tcp -j NFQUEUE --queue-num 3", family)
      local wrong = 0
      local queue = traffic.open(3, function(pkt)
        local flow, reply = flows:get(pkt)
        flow.packets = (flow.packets or 0) + 1
        if reply ~= (pkt.tcp.sport == 8402) then
          wrong = wrong + 1
        end
      end)
      local source = traffic.text_file(100000)
      local target = traffic.transfer({ queue }, source, { family = family, port = 8402 })
      assert.equal(traffic.sha256(source), traffic.sha256(target))
      local stats = queue:stats()
      assert.are.same({ 1, 0, 0 }, { #flows, wrong, stats.errors })
      assert.are.same({}, finished) -- closed, but not yet forgotten
    end)

    it("an ICMP error finds the flow it speaks of", function()
      local flows = nfqueue.flows()
      local told = {}
      traffic.rule(("-A OUTPUT -p udp --dport 9 -j NFQUEUE --queue-num 3"), family)
      traffic.rule(("-A OUTPUT -p %s -j NFQUEUE --queue-num 3"):format(family.icmp), family)
      local queue = traffic.open(3, function(pkt)
        local flow, reply = flows:get(pkt)
        if pkt.icmp then
          told = { flow.name, reply }
        else
          flow.name = "asked"
        end
      end)
      local client = family.udp()
      client:setpeername(family.address, 9) -- nobody listens there
      client:send("anybody?")
      traffic.judge({ queue }, "the error", function() return told[1] end)
      client:close()
      assert.are.same({ "asked", true }, told)
      assert.are.equal(1, #flows)
    end)
  end)
end

describe("a script's flows", function()
  after_each(net.cleanup)

  it("belong to its threads, and its connections stay in one", function()
    local script = net.file([[
      local nfqueue = require("nfqueue")
      local flows = nfqueue.flows()
      return function(pkt)
        local flow, reply = flows:get(pkt)
        if not reply and not flow.seen then
          flow.seen = true
          nfqueue.log.info("new %s", pkt.tuple)
        end
        flow.verdict = "accept"
      end
    ]])
    net.must("iptables -w -A OUTPUT -p udp --dport 9403 -j NFQUEUE --queue-balance 3:4 --queue-bypass")
    local run = net.run(script .. " -q 3-4 --threads 2")
    local sender = socket.udp4()
    for i = 1, 8 do
      for _ = 1, 5 do
        sender:sendto(tostring(i), "127.0.0." .. i, 9403)
      end
    end
    net.wait_for("all flows", function() return run:count("new udp") == 8 end)
    sender:close()
    assert.are.equal(8, run:count("new udp"))
  end)
end)
