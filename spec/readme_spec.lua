-- Every piece of Lua in the README runs and does what the text says.

local datagram = require("support.datagram")
local net = require("support.net")
local nfqueue = require("nfqueue")
require("nfqueue.busted")
local core = require("nfqueue.core")
local readme = require("support.readme")
local unit = require("support.unit")

local all = readme.lua_blocks()

-- The snippets by a line that only one of them has.
local LINES = {
  flows = "flows:get(pkt)",
  later = "table.remove(held):accept()",
  shared = 'local hits = nfqueue.shared("hits")',
  handler = 'local resolver = "192.0.2.53"',
  table_form = "local args = ... -- strings from the command line",
  edits = "udp.dport = 5353",
  rewrite = "rw(pkt, payload)",
  module = "assert(queue:start())",
  record = 'local record = assert(nfqueue.pcap.create("/tmp/dropped.pcap"))',
  build = "local syn = nfqueue.build({",
  test = 'assert(handler(pkt) == "drop")',
  spec = 'require("nfqueue.busted")',
}
local blocks = {}
for name, line in pairs(LINES) do
  for _, text in ipairs(all) do
    if text:find(line, 1, true) then
      assert(not blocks[name], name)
      blocks[name] = text
    end
  end
end

-- UDP to port 53, to the resolver of the first handler or to somebody else.
local function question(target)
  local bytes = datagram.right(datagram.ip4(datagram.udp("question")))
  local pkt = nfqueue.packet(bytes)
  pkt:patch(16, target)
  pkt:accept()
  return nfqueue.packet(pkt.sent)
end

describe("the README", function()
  it("has the snippets that are run here", function()
    for name in pairs(LINES) do
      assert.is_string(blocks[name], name)
    end
    local found = 0
    for _ in pairs(blocks) do
      found = found + 1
    end
    assert.are.equal(#all, found)
  end)

  it("shows a handler of at most ten lines that does what it says", function()
    local _, lines = blocks.handler:gsub("\n", "")
    assert.is_true(lines <= 10, lines)
    local handler = assert(nfqueue.load(unit.file(blocks.handler)))
    assert.accepts(handler, question("\192\0\2\53"))
    assert.drops(handler, question("\192\0\2\54"))
    assert.accepts(handler, datagram.right(datagram.ip4(datagram.icmp("ping"))))
  end)

  it("shows the table form", function()
    local handler = assert(nfqueue.load(unit.file(blocks.table_form), { key = "value" }))
    assert.are.equal(256, handler.config.copy_range)
    assert.accepts(handler, question("\192\0\2\53"))
  end)

  it("shows edits", function()
    local handler = assert(nfqueue.load(unit.file(blocks.edits)))
    local pkt = question("\192\0\2\53")
    assert.accepts(handler, pkt)
    assert.are.same({ 5353, "question\0" }, { pkt.udp.dport, pkt.payload })
    pkt = nfqueue.packet(nfqueue.build({ ip = { src = "192.0.2.1", dst = "192.0.2.2" },
      tcp = { sport = 1, dport = 2, flags = "S", mss = 1460 } }))
    assert.accepts(handler, pkt)
    assert.are.equal(1360, pkt.tcp.mss)
    local output, done = net.sh(("%s check %s"):format(net.command, unit.file(blocks.edits)))
    assert.is_true(done, output)
  end)

  it("shows a rewriter that keeps both ends in step", function()
    local handler = assert(nfqueue.load(unit.file(blocks.rewrite)))
    local function pass(from, at, ack, payload)
      local ports = { 80, 40000 }
      local pkt = nfqueue.packet(nfqueue.build({ ip = { src = "192.0.2." .. from, dst = "192.0.2." .. 3 - from },
        tcp = { sport = ports[from], dport = ports[3 - from], seq = at, ack_seq = ack, flags = "A" },
        payload = payload }))
      assert.accepts(handler, pkt)
      return pkt
    end
    local answer = "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\n\r\n"
    local sent = "HTTP/1.1 200 OK\r\nServer: none of your business\r\n\r\n"
    assert.are.equal(sent, pass(1, 100, 7, answer).payload)
    assert.are.equal(sent, pass(1, 100, 7, answer).payload)
    assert.are.equal(100 + #answer, pass(2, 7, 100 + #sent, "").tcp.ack_seq)
    assert.are.equal(100 + #sent, pass(1, 100 + #answer, 7, "body").tcp.seq)
    assert.accepts(handler, question("\192\0\2\53"))
  end)

  it("shows how to record what is dropped", function()
    local path = unit.file("")
    local handler = assert(nfqueue.load(unit.file((blocks.record:gsub("/tmp/dropped.pcap", path)))))
    for port, verdict in pairs({ [23] = "drop", [22] = "accept" }) do
      assert.are.equal(verdict, (handler(nfqueue.packet(nfqueue.build({ ip = { src = "192.0.2.1", dst = "192.0.2.2" },
        tcp = { sport = 1, dport = port } })))))
    end
    local ports = {}
    for pkt, prefix in assert(nfqueue.pcap.open(path)) do
      ports[#ports + 1] = prefix .. pkt.tcp.dport
    end
    assert.are.same({ "drop23" }, ports)
  end)

  it("shows what queues share", function()
    local list = unit.file("ads.example\n")
    local handler = assert(nfqueue.load(unit.file(blocks.shared), { list = list }))
    local function from(source)
      return nfqueue.packet(nfqueue.build({ ip = { src = source, dst = "192.0.2.1" }, udp = { sport = 1, dport = 2 } }))
    end
    local verdicts = { accept = 0, drop = 0 }
    core.tables_clock(1000)
    for _ = 1, 250 do
      local verdict = handler(from("192.0.2.99"))
      verdicts[verdict] = verdicts[verdict] + 1
      assert.accepts(handler, from("10.1.2.3"))
    end
    assert.are.same({ accept = 200, drop = 50 }, verdicts)
    assert.are.equal(50, nfqueue.shared("hits"):get("192.0.2.99"))
    assert.is_nil(nfqueue.shared("hits"):get("10.1.2.3"))
    assert.is_true(nfqueue.domainset({ name = "ads" }):has("www.ads.example"))
    core.tables_clock()
  end)

  it("shows packets that go on later", function()
    local handler = assert(nfqueue.load(unit.file(blocks.later)))
    local first, second = question("\192\0\2\53"), question("\192\0\2\53")
    local ping = nfqueue.packet(datagram.right(datagram.ip4(datagram.icmp("ping"))))
    assert.are.equal("hold", handler(first))
    assert.are.equal("hold", handler(second))
    assert.are.equal("delay", handler(ping))
    assert.is_nil(handler:advance(0.2))
    assert.are.same({ ping:bytes(), nil }, { ping.sent, first.verdict })
    assert.is_nil(handler:advance(0.3))
    assert.are.same({ "accept", "accept" }, { first.verdict, second.verdict })
    assert.is_nil(handler:advance(10))
  end)

  it("shows connections", function()
    local handler <close> = assert(nfqueue.load(unit.file(blocks.flows)))
    local query = { ip = { src = "192.0.2.1", dst = "192.0.2.2" }, udp = { sport = 1, dport = 2 } }
    local answer = { ip = { src = "192.0.2.2", dst = "192.0.2.1" }, udp = { sport = 2, dport = 1 } }
    for _ = 1, 20 do
      assert.accepts(handler, nfqueue.build(query))
      assert.accepts(handler, nfqueue.build(answer))
    end
  end)

  it("shows the module", function()
    local started
    local function new(number, handler, config)
      local queue = nfqueue.new(number, handler, config) -- checks them
      started = queue.number
      return { start = function() return true end }
    end
    local environment = setmetatable({
      require = function(name)
        return name == "nfqueue" and setmetatable({ new = new }, { __index = nfqueue })
      end,
    }, { __index = _G })
    assert(load(blocks.module, "=README", "t", environment))()
    assert.are.equal(0, started)
  end)

  it("shows how packets are built", function()
    local environment = setmetatable({ nfqueue = nfqueue }, { __index = _G })
    local check = [[
      local packet = nfqueue.packet
      assert(packet(syn).tcp.mss == 1460 and packet(syn).tcp:option(3) == "\7" and packet(syn).tcp.flags == "S")
      assert(packet(answer).tcp.flags == "SA" and packet(answer).tcp.ack_seq == 1 and packet(answer).tcp.sport == 80)
      assert(packet(refusal).icmp.code == 13 and packet(refusal).payload == syn)
      assert(#pieces == 3 and packet(pieces[2]).ip.id == 7)]]
    assert(load(blocks.build .. check, "=README", "t", environment))()
  end)

  it("shows a spec of ten lines, which busted runs, and which fails for another handler", function()
    local _, lines = blocks.spec:match("\nit%(.*"):gsub("\n", "")
    assert.is_true(lines <= 10, lines)
    local function run(handler)
      local text, count = blocks.spec:gsub("/tmp/nodns.lua", unit.file(handler))
      assert.are.equal(1, count)
      local path = unit.file(text)
      local named = path .. "_spec.lua" -- busted goes by the name
      assert(os.rename(path, named))
      local output, fine = net.sh(("%s $(command -v busted) -o plainTerminal %s"):format(net.lua, named))
      os.remove(named)
      return output, fine
    end
    local output, fine = run(blocks.handler)
    assert.is_true(fine, output)
    assert.matches("1 success / 0 failures / 0 errors", output, 1, true)
    output, fine = run("return function(pkt) pkt:accept() end")
    assert.is_false(fine)
    assert.matches("Expected the handler to drop:\n  IP 192.0.2.1.40000 > 192.0.2.54.53: UDP, length 0\n"
      .. "but its verdict was accept, and the packet left as it came", output, 1, true)
  end)

  it("shows how a handler is tested", function()
    local path = unit.file(blocks.handler)
    local environment = setmetatable({
      nfqueue = setmetatable({ load = function(name)
        assert.are.equal("/tmp/nodns.lua", name)
        return nfqueue.load(path)
      end }, { __index = nfqueue }),
      bytes = question("\192\0\2\54"):bytes(),
    }, { __index = _G })
    assert(load(blocks.test, "=README", "t", environment))()
  end)
end)
