-- connmark, connmask and label with a verdict: read back with conntrack(8), seen by later rules, and used to keep
-- a decided connection away from the queue.

local conntrack = require("support.conntrack")
local net = require("support.net")
local traffic = require("support.traffic")

local missing = conntrack.missing() or net.nft_queue_missing()
local UDP = 17
local QUEUE = 5
local IPV4 = traffic.FAMILIES[1]

-- `before`: the connection's mark when the packet is judged (default 0). `opts` go with the verdict; `mark` and
-- `label` are the connection's afterwards.
local CASES = {
  { name = "connmark", opts = { connmark = 0x12345678 }, mark = 0x12345678 },
  { name = "the largest connmark", opts = { connmark = 0xffffffff }, mark = 0xffffffff },
  { name = "connmark over another", before = 0xf0f0, opts = { connmark = 0x0f }, mark = 0x0f },
  { name = "connmark 0", before = 0xf0f0, opts = { connmark = 0 }, mark = 0 },
  { name = "connmask keeps the other bits", before = 0xaabbccdd, opts = { connmark = 0x1122, connmask = 0xff00 },
    mark = 0xaabb11dd },
  { name = "connmask clears bits", before = 0xaabbccdd, opts = { connmark = 0, connmask = 0xf000000f },
    mark = 0x0abbccd0 },
  { name = "connmask 0 changes nothing", before = 0xaabbccdd, opts = { connmark = 0x1122, connmask = 0 },
    mark = 0xaabbccdd },
  { name = "no option", before = 0xaabbccdd, mark = 0xaabbccdd },
  { name = "mark beside connmark", opts = { mark = 3, connmark = 4 }, mark = 4 },
  { name = "label 0", opts = { label = 0 }, mark = 0, label = 0 },
  { name = "label 31", opts = { label = 31 }, mark = 0, label = 31 },
  { name = "label 32", opts = { label = 32 }, mark = 0, label = 32 },
  { name = "label 127", opts = { label = 127 }, mark = 0, label = 127 },
  { name = "label and connmark", opts = { label = 5, connmark = 6 }, mark = 6, label = 5 },
  { name = "modify", verb = "modify", opts = { label = 5, connmark = 6 }, mark = 6, label = 5 },
  { name = "again", verb = "again", opts = { connmark = 6, mark = 1 }, mark = 6 },
  { name = "requeue", verb = "requeue", opts = { connmark = 6 }, mark = 6 },
}

local VERBS = {
  accept = function(pkt, opts) pkt:accept(opts) end,
  modify = function(pkt, opts) pkt:modify((pkt:bytes():gsub("hello", "HELLO")), opts) end,
  again = function(pkt, opts) pkt:again(opts) end,
  requeue = function(pkt, opts) pkt:requeue(QUEUE + 1, opts) end,
}

-- The connection gets a mark, its packets go to the queue (but come back once: `again`), and rules behind count what
-- they match. The kernel keeps labels while some rule could set one.
local RULES = [[
table inet connmark {
  chain output {
    type filter hook output priority 0;
    meta mark 0xdead ct label set 64
    udp dport PORT meta mark != 1 ct mark set BEFORE
    udp dport PORT meta mark != 1 queue num QUEUE
  }
  chain later {
    type filter hook postrouting priority 10;
    ct mark MARK counter comment "mark"
    ct label LABEL counter comment "label"
    ct label OTHER counter comment "other"
  }
}]]

local function make_rules(port, case)
  local label = case.label or 1
  local values = { PORT = port, QUEUE = QUEUE, BEFORE = case.before or 0, MARK = case.mark or 0, LABEL = label,
    OTHER = label ~ 1 }
  net.nft((RULES:gsub("%u%u%u%u+", values)))
end

describe("a verdict with", function()
  if missing then
    pending(missing)
    return
  end

  after_each(traffic.cleanup)

  for _, case in ipairs(CASES) do
    it(case.name .. " changes the connection", function()
      local udp = traffic.udp()
      make_rules(udp.port, case)
      local verb, seen = VERBS[case.verb or "accept"], nil
      local queue = traffic.open(QUEUE, function(pkt) verb(pkt, case.opts) end, { conntrack = true })
      local second = traffic.open(QUEUE + 1, function(pkt) seen = pkt.ct.mark end, { conntrack = true })
      udp:send("hello")
      traffic.judge({ queue, second }, "the datagram", function() return #udp:received() == 1 end)
      assert.equal(case.verb == "modify" and "HELLO" or "hello", udp.texts[1])
      assert.equal(case.verb == "requeue" and case.mark or nil, seen)
      assert.equal(case.mark, conntrack.find(IPV4, UDP, udp.port).mark)
      assert.equal(1, net.nft_packets('"mark"'))
      assert.equal(case.label and 1 or 0, net.nft_packets('"label"'))
      assert.equal(0, net.nft_packets('"other"'))
      assert.equal(0, queue:stats().refused)
    end)
  end

  it("label is shown by pkt.ct.labels of later packets, beside the earlier ones", function()
    local udp = traffic.udp()
    make_rules(udp.port, {})
    local seen, labels = {}, { 0, 63, 127 }
    local queue = traffic.open(QUEUE, function(pkt)
      seen[#seen + 1] = pkt.ct.labels
      pkt:accept({ label = labels[#seen] })
    end, { conntrack = true })
    for i = 1, 4 do
      udp:send("text") -- alone: a packet carries what its connection was when it was queued
      traffic.judge_packets(queue, i)
    end
    assert.same({ {}, { [0] = true }, { [0] = true, [63] = true }, { [0] = true, [63] = true, [127] = true } }, seen)
    assert.same(seen[4], conntrack.find(IPV4, UDP, udp.port, true).labels)
  end)

  it("label where no rule keeps labels passes the packet and sets none", function()
    conntrack.enable()
    local udp = traffic.udp()
    net.queue_udp(udp.port, QUEUE)
    local queue = traffic.open(QUEUE, function(pkt) pkt:accept({ label = 5 }) end)
    udp:send("hello")
    traffic.judge({ queue }, "the datagram", function() return #udp:received() == 1 end)
    assert.same({}, conntrack.find(IPV4, UDP, udp.port, true).labels)
    assert.same({ 1, 0 }, { queue:stats().accepted, queue:stats().refused })
  end)

  it("connmark does not need the conntrack setting", function()
    conntrack.enable()
    local udp = traffic.udp()
    net.queue_udp(udp.port, QUEUE)
    local queue = traffic.open(QUEUE, function(pkt) pkt:accept({ connmark = 5 }) end)
    udp:send("hello")
    traffic.judge_packets(queue, 1)
    net.wait_for("the connection", function()
      local told = conntrack.find(IPV4, UDP, udp.port)
      return told and told.mark == 5
    end)
  end)

  it("connmark for a packet that is not tracked passes it", function()
    traffic.rule("-t raw -A OUTPUT -p udp -j CT --notrack")
    local udp = traffic.udp()
    net.queue_udp(udp.port, QUEUE)
    local queue = traffic.open(QUEUE, function(pkt) pkt:accept({ connmark = 5, label = 1 }) end)
    udp:send("hello")
    traffic.judge({ queue }, "the datagram", function() return #udp:received() == 1 end)
    assert.same({ 1, 0 }, { queue:stats().accepted, queue:stats().refused })
  end)
end)

-- The rule in front of the queue's: both ways of writing it, and where its counter is read.
local OFFLOADS = {
  {
    name = "iptables",
    rules = function()
      traffic.rule("-A OUTPUT -p udp -m connmark --mark 0x1/0x1 -j ACCEPT")
      traffic.rule("-A OUTPUT -p udp -m connmark --mark 0x2/0x2 -j DROP")
      traffic.rule(("-A OUTPUT -p udp -j NFQUEUE --queue-num %d"):format(QUEUE))
    end,
    skipped = function() return net.rule_packets("OUTPUT", "ACCEPT .*connmark match") end,
    dropped = function() return net.rule_packets("OUTPUT", "DROP .*connmark match") end,
  },
  {
    name = "nft",
    rules = function()
      net.nft(([[table ip decided { chain output { type filter hook output priority 0;
        meta l4proto udp ct mark and 1 == 1 counter accept
        meta l4proto udp ct mark and 2 == 2 counter drop
        meta l4proto udp queue num %d
      }
      }]]):format(QUEUE))
    end,
    skipped = function() return net.nft_packets("accept$") end,
    dropped = function() return net.nft_packets("drop$") end,
  },
}

describe("a decided connection", function()
  if missing then
    pending(missing)
    return
  end

  after_each(traffic.cleanup)

  for _, offload in ipairs(OFFLOADS) do
    it("skips the queue, with rules by " .. offload.name, function()
      offload.rules()
      local good, bad = traffic.udp(), traffic.udp()
      local queue = traffic.open(QUEUE, function(pkt)
        if pkt:find("good") then
          pkt:accept({ connmark = 1, connmask = 1 })
        else
          pkt:accept({ connmark = 2, connmask = 2 })
        end
      end)
      good:send("good")
      bad:send("bad")
      traffic.judge_packets(queue, 2)
      for i = 1, 20 do
        good:send("more " .. i)
        bad:send("lost " .. i)
      end
      -- Replies belong to the same connection.
      local _, port = good.sender:getsockname()
      assert(good.receiver:sendto("reply", "127.0.0.1", tonumber(port)))
      net.wait_for("all of the good ones", function() return #good:received() == 21 end)
      net.wait_for("the reply", function() return good.sender:receive() == "reply" end)
      assert.equal(0, queue:process())
      assert.equal(2, queue:stats().packets)
      assert.same({ 21, 20 }, { offload.skipped(), offload.dropped() })
      assert.same({ "bad" }, bad:received())
    end)
  end
end)
