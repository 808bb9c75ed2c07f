-- Rules that bring packets to a queue: nft's forms of the queue statement, and who makes the rules.

local core = require("nfqueue.core")
local net = require("support.net")
local rules = require("nfqueue.rules")
local traffic = require("support.traffic")

local PORT = 7000

local function queue_rule(statement)
  net.nft(([[table inet spec { chain output { type filter hook output priority 0;
    udp dport %d %s
  }
  }]]):format(PORT, statement))
end

-- Sends so many datagrams on a processor, from as many addresses.
local SEND = [[taskset -c %d lua5.4 -e '
  for i = 1, %d do
    local udp = require("socket").udp4()
    udp:setsockname("127.0.1." .. i, 0)
    udp:sendto("hello", "127.0.0.1", %d)
  end']]

-- `open`: the queues listened on. `sent`: how many packets each gets, from `processor` (default 0); or `spread`: the
-- queues share them. `passed`: how many arrive.
local STATEMENTS = {
  { name = "a single queue", statement = "queue num 5", open = { 5, 6 }, sent = { 16, 0 }, passed = 16 },
  { name = "the largest number", statement = "queue num 65535", open = { 65535 }, sent = { 16 }, passed = 16 },
  { name = "a range", statement = "queue num 5-8", open = { 5, 6, 7, 8 }, spread = true, passed = 16 },
  { name = "a range of one", statement = "queue num 5-5", open = { 5 }, sent = { 16 }, passed = 16 },
  { name = "fanout by processor 0", statement = "queue flags fanout to 5-6", open = { 5, 6 }, sent = { 16, 0 },
    passed = 16 },
  { name = "fanout by processor 1", statement = "queue flags fanout to 5-6", open = { 5, 6 }, sent = { 0, 16 },
    processor = 1, passed = 16 },
  { name = "fanout and bypass", statement = "queue flags bypass,fanout to 5-6", open = { 5 }, sent = { 0 },
    processor = 1, passed = 16 },
  { name = "a number by expression", statement = "queue to numgen inc mod 2 offset 5", open = { 5, 6 }, sent = { 8, 8 },
    passed = 16 },
  { name = "no listener, bypass", statement = "queue num 5 bypass", open = {}, passed = 16 },
  { name = "no listener, no bypass", statement = "queue num 5", open = {}, passed = 0 },
  { name = "a listener, bypass", statement = "queue num 5 bypass", open = { 5 }, sent = { 16 }, passed = 16 },
  { name = "a listener that drops, bypass", statement = "queue num 5 bypass", open = { 5 }, sent = { 16 }, passed = 0,
    verdict = "drop" },
}

describe("nft's queue statement:", function()
  after_each(traffic.cleanup)

  for _, case in ipairs(STATEMENTS) do
    it(case.name, function()
      local receiver = net.udp(PORT)
      finally(function() receiver:close() end)
      local queues, sum = {}, 0
      for i, number in ipairs(case.open) do
        queues[i] = traffic.open(number, function() return case.verdict or "accept" end)
      end
      queue_rule(case.statement)
      net.must(SEND:format(case.processor or 0, 16, PORT))
      -- What passes the rule is there now: sending and receiving is one step on a loopback interface.
      local counts = {}
      for i, queue in ipairs(queues) do
        queue:process()
        counts[i] = queue:stats().packets
        sum = sum + counts[i]
      end
      if case.spread then
        assert.equal(16, sum)
        assert.is_true(math.max(table.unpack(counts)) < 16, table.concat(counts, " "))
      else
        assert.same(case.sent or {}, counts)
      end
      net.flush_rules()
      receiver:send("fence")
      receiver:await("fence")
      assert.equal(case.passed + 1, #receiver.texts)
    end)
  end
end)

-- Whether packets of both versions of IP pass queue `number`.
local function assert_in_path(number)
  for _, family in ipairs(traffic.FAMILIES) do
    local udp = traffic.udp(family)
    local queue = traffic.open(number, function() return "accept" end)
    udp:send("hello")
    traffic.judge({ queue }, "the datagram over " .. family.name, function() return #udp:received() == 1 end)
    assert.equal(1, queue:stats().packets)
    queue:close()
  end
end

-- A folder for PATH in which only these programs are found.
local function path_with(...)
  local folder = net.must("mktemp -d")
  for _, program in ipairs({ "sh", ... }) do
    net.must(("ln -s $(command -v %s) %s"):format(program, folder))
  end
  return folder
end

describe("nfqueue.rules.apply", function()
  local path = os.getenv("PATH")
  local folder

  after_each(function()
    core.setenv("PATH", path)
    if folder then
      net.must("rm -r " .. folder)
      folder = nil
    end
    traffic.cleanup()
  end)

  for _, case in ipairs({
    { name = "chooses nft on its own", made = "nft" },
    { name = "makes nft's rules when told", program = "nft", made = "nft" },
    { name = "makes iptables' rules when told", program = "iptables", made = "iptables" },
    { name = "chooses iptables where nft is not installed",
      installed = { "iptables", "ip6tables" }, made = "iptables" },
  }) do
    it(case.name, function()
      if case.installed then
        folder = path_with(table.unpack(case.installed))
        core.setenv("PATH", folder)
      end
      assert.equal(case.made, rules.apply("output", 5, 5, case.program))
      core.setenv("PATH", path)
      assert.equal(case.made == "nft", (select(2, net.sh("nft list table inet nfqueue"))))
      assert.equal(case.made == "iptables", net.must("iptables -S OUTPUT"):find("--queue-bypass", 1, true) ~= nil)
      assert_in_path(5)
    end)
  end

  for _, case in ipairs({
    { name = "neither is installed", installed = {}, message = "nft is not installed; iptables is not installed" },
    { name = "ip6tables alone is missing", installed = { "iptables" },
      message = "nft is not installed; ip6tables is not installed" },
    { name = "nft is asked for and not installed", installed = { "iptables", "ip6tables" }, program = "nft",
      message = "nft is not installed" },
  }) do
    it("says that " .. case.name, function()
      folder = path_with(table.unpack(case.installed))
      core.setenv("PATH", folder)
      assert.same({ n = 2, nil, case.message }, table.pack(rules.apply("output", 5, 5, case.program)))
    end)
  end
end)

describe("nfqueue lab", function()
  local NFT, IPTABLES = "queue [^\n]*bypass", "%-j NFQUEUE %-%-queue%-"
  for _, case in ipairs({
    { options = "", nft = true },
    { options = "--nft", nft = true },
    { options = "--iptables", nft = false },
    { options = "--nft -q 3-6 --hook input", nft = true, rule = "hook input.*queue [^\n]*bypass[^\n]*3%-6" },
    { options = "--iptables -q 3-6 --hook input", nft = false, rule = "INPUT [^\n]*queue%-balance 3:6 [^\n]*bypass" },
  }) do
    it("makes the rule of the right kind: " .. case.options, function()
      local listing = net.must(("%s lab %s -- sh -c '%s'"):format(net.command, case.options,
        case.nft and "nft list ruleset" or "iptables -S; ip6tables -S"))
      assert.matches(case.rule or case.nft and NFT or IPTABLES, listing)
      assert.equal(case.nft and 1 or 2, select(2, listing:gsub(case.nft and "queue flags" or "%-j NFQUEUE", "")))
      -- The other program's rules are not there as well.
      local other = net.must(("%s lab %s -- sh -c '%s'"):format(net.command, case.options,
        case.nft and "iptables -S; ip6tables -S" or "nft list tables"))
      assert.not_matches(case.nft and "NFQUEUE" or "inet nfqueue", other)
    end)

    if case.options == "--nft" or case.options == "--iptables" then
      it("shows the demo " .. case.options, function()
        local output = net.must(("%s lab %s -- sh spec/support/demo.sh %s inside")
          :format(net.command, case.options, net.build))
        assert.matches("packet +%d+ +ping request 3 .- DROP\n", output)
        assert.matches("client | 64 bytes from 127.0.0.1: icmp_seq=4 ttl=42 ", output)
        assert.not_matches("icmp_seq=3", output)
        assert.matches("client | The weather today: sunny!\n", output)
        assert.matches("tcp %d+ > 8081 .- DROP\n", output)
        assert.matches("client | curl: %(28%)", output)
        assert.matches("%(exit status 0%)", output)
      end)
    end
  end

  it("leaves no rule behind", function()
    net.must(net.command .. " lab --nft -- true")
    assert.not_matches("nfqueue", net.must("nft list tables"))
  end)
end)
