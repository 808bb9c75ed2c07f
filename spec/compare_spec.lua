-- What nfqueue reads in the checked-in captures: as written down, and as scapy and tshark read it where they are
-- installed. `make compare` does the same over the captures of other projects.

local captures = require("compare.captures")
local compare = require("compare.compare")
local make_captures = require("compare.make_captures")
local net = require("support.net")
local reading = require("compare.reading")
local rules = require("compare.rules")

local FOLDER = "spec/captures"
local NAMES = { "ip4.pcap", "ip6.pcap", "links.pcapng" }
local EXPECTED = FOLDER .. "/expected.txt"

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("a")
  file:close()
  return text
end

local function paths()
  local list = {}
  for i, name in ipairs(NAMES) do
    list[i] = FOLDER .. "/" .. name
  end
  return list
end

describe("the checked-in captures", function()
  local scratch, origins, counts

  setup(function()
    scratch = net.must("mktemp -d")
    origins, counts = compare.gather(paths(), scratch .. "/all.pcap")
  end)

  teardown(function()
    net.sh("rm -r " .. scratch)
  end)

  it("are what their script makes", function()
    local made = make_captures.all()
    for name, bytes in pairs(made) do
      assert.is_true(read_file(FOLDER .. "/" .. name) == bytes,
        name .. " differs: run lua5.4 spec/compare/make_captures.lua " .. FOLDER)
    end
    for _, name in ipairs(NAMES) do
      assert.is_not_nil(made[name])
    end
  end)

  it("hold an IP packet in every frame but two", function()
    assert.are.same({ 3, 0 }, { counts.files, counts.no_capture })
    assert.are.equal(counts.records - 2, counts.packets) -- ARP, and a link type that is not known
  end)

  it("are read as written down", function()
    local number, lines = 0, io.lines(EXPECTED)
    for _, bytes, wire in captures.packets(scratch .. "/all.pcap") do
      number = number + 1
      local expected = {}
      for key, value in lines():gmatch("(%S+)=(%S*)") do
        expected[key] = value
      end
      assert.are.same(expected, reading.of(bytes, wire),
        ("%s, packet %d"):format(origins[number].file, origins[number].number))
    end
    assert.is_nil(lines())
    assert.is_true(number >= 90)
  end)

  it("are read as scapy and tshark read them, but for what a rule explains", function()
    local peers, missing = compare.peers()
    if #missing > 0 then
      pending("not installed: " .. table.concat(missing, ", "))
    end
    local result = compare.run(scratch .. "/all.pcap", origins, peers, rules, scratch .. "/tshark")
    local listed = {}
    for _, case in ipairs(result.unexplained) do
      listed[#listed + 1] = ("%s, packet %d: %s: nfqueue %s, %s %s"):format(case.origin.file, case.origin.number,
        case.field, case.ours, case.peer, case.theirs)
    end
    assert.are.same({}, listed)
    assert.are.equal(counts.packets, result.packets)
    assert.is_true(result.fields >= 4000)
    assert.are.equal(result.differing, result.explained)
  end)
end)
