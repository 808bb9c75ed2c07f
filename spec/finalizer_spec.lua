-- What a finalizer may do at the end of a state, when what it uses is closed already: anything but crash.

local net = require("support.net")
local unit = require("support.unit")

after_each(unit.cleanup)

-- The finalizer's object is older than the module, so that it comes last: `made` is closed by then, and the module
-- has let go of what is shared. `pkt` is a packet, `bytes` are its bytes.
local SCRIPT = [[
  local nfqueue, bytes, pkt, made
  keep = setmetatable({}, { __gc = function()
    print(select(2, pcall(function() %s end)))
  end })
  nfqueue = require("nfqueue")
  bytes = nfqueue.build({ ip = { src = "192.0.2.1", dst = "192.0.2.2" }, udp = { sport = 1, dport = 2 } })
  pkt = nfqueue.packet(bytes)
  made = %s
]]

--- What it prints, and whether the interpreter came to its end.
local function run(make, use)
  -- What a finalizer makes while a state is closed has none of its own: the interpreter itself leaks it.
  local command = "ASAN_OPTIONS=detect_leaks=0 " .. net.lua .. " " .. unit.file(SCRIPT:format(use, make)) .. " 2>&1"
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  local done, how, code = pipe:close()
  return output:gsub("^[^:\n]+:%d+: ", ""):gsub("\n$", ""), done and "" or how .. " " .. code
end

local FILTERED = [[assert(nfqueue.load("%s"))]]
local LOADED = [[
  -- Younger than the filter of the configuration, and older than the handler.
  last = setmetatable({}, { __gc = function() print(pcall(made_handler, made_packet)) end })
  return { packet = function() end, config = { filter = "udp" } }
]]

describe("a finalizer that comes after all else", function()
  for _, case in ipairs({
    { 'nfqueue.filter("udp")', "return made(pkt)", "filter is closed" },
    { 'nfqueue.filter("udp")', "return tostring(made)", "filter (closed)" },
    { "nfqueue.flows():get(pkt)", "made.verdict = 'drop'", "the flow is over: its verdict cannot be set" },
    { "nfqueue.flows()", "return made:get(pkt)", "flows is closed" },
    { "nfqueue.flows()", "return #made", "flows is closed" },
    { "nfqueue.rewrite()", "return made(pkt)", "rewrite is closed" },
    { 'nfqueue.shared("a")', "return made:get('x')", "shared store is closed" },
    { 'nfqueue.bucket("a", { rate = 1 })', "return made:take('x')", "bucket is closed" },
    { "nfqueue.cidrset()", "return made:find('192.0.2.1')", "cidrset is closed" },
    { "nfqueue.domainset()", "return #made", "domainset is closed" },
    { "nfqueue.new(0, print)", "return made:open()", "queue 0 is collected" },
    { "nfqueue.new(0, print)", "return made:stats().packets", "0" },
    { "nfqueue.after(1, print)", "return tostring(made), made:cancel()", "timer (done)\tfalse" },
    { 'nfqueue.pcap.create("/dev/null")', "return made:write(pkt)", "writer is closed" },
    { "nil", 'return select(2, nfqueue.shared("b"))', "cannot make shared store 'b': Operation canceled\t125" },
    { "nil", 'return select(2, nfqueue.bucket("b", { rate = 1 }))', "cannot make bucket 'b': Operation canceled\t125" },
    { "nil", 'return select(2, nfqueue.cidrset({ "192.0.2.1", name = "b" }))',
      "cannot make cidrset 'b': Operation canceled\t125" },
    { "nil", "return nfqueue.flows()", "flows (0)" },
    { "nil", "return nfqueue.after(1, print)", "timer (pending)" },
    { "nil", "return pkt.tuple", "udp 192.0.2.1:1 > 192.0.2.2:2" },
  }) do
    local make, use, expected = table.unpack(case)
    it(("may do `%s` with %s"):format(use, make == "nil" and "nothing" or make), function()
      assert.same({ expected, "" }, { run(make, use) })
    end)
  end

  it("finds a loaded handler closed, whose filter one before it could still use", function()
    local path = unit.file(LOADED)
    assert.same({ "true\taccept\nhandler is closed", "" }, {
      (run(FILTERED:format(path) .. " made_handler, made_packet = made, pkt", "return made(pkt)")
        :gsub("\n[^:]+:%d+: ", "\n")), "" })
  end)
end)
