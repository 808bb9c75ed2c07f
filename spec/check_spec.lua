-- `nfqueue check`: a script meets one packet of each kind, without a kernel and without root.

local net = require("support.net")
local unit = require("support.unit")

local OK, SCRIPT, NO_INPUT, CONFIG = 0, 65, 66, 78

after_each(unit.cleanup)

local function check(arguments)
  local output, _, status = net.sh(("%s check %s </dev/null"):format(net.command, arguments))
  return output, status
end

-- The verdicts that check prints, by the kind of packet.
local function verdicts(output)
  local list = {}
  for line in output:gmatch("[^\n]+") do
    local name, verdict = line:match("^(%S.-)  +(%a+)$")
    if name then
      list[name] = verdict
    end
  end
  return list
end

local function count(list, verdict)
  local number = 0
  for _, value in pairs(list) do
    number = number + (value == verdict and 1 or 0)
  end
  return number
end

describe("nfqueue check", function()
  it("runs a script by name, by name with its ending, and by path", function()
    for _, script in ipairs({ "demo", "demo.lua", "scripts/demo.lua" }) do
      local output, status = check(script)
      assert.are.equal(OK, status, output)
      assert.is_truthy(output:find("IPv4 TCP SYN", 1, true))
    end
  end)

  it("gives one packet of each kind and prints the verdicts", function()
    local path = unit.file([[
      local seen = 0
      return {
        packet = function(pkt)
          seen = seen + 1
          if pkt.truncated then return "again" end
          if pkt.family == "ip6" then return "drop" end
          return "requeue", seen
        end,
        close = function() print("seen " .. seen) end,
      }]])
    local output, status = check(path)
    local list = verdicts(output)
    assert.are.equal(OK, status)
    assert.are.same({ "requeue", "drop", "drop", "again", "again", "requeue" }, {
      list["IPv4 UDP"], list["IPv6 TCP SYN"], list["IPv6 hop-by-hop and UDP"], list["truncated by copy_range"],
      list["metadata only"], list["garbage"],
    })
    assert.are.equal(2, count(list, "again"))
    local all = count(list, "again") + count(list, "drop") + count(list, "requeue")
    assert.is_true(all >= 15)
    for _, name in ipairs({ "ICMP unreachable", "first fragment", "later fragment", "UDP", "TCP SYN" }) do
      assert.is_string(list["IPv4 " .. name], name)
      assert.is_string(list["IPv6 " .. name:gsub("ICMP", "ICMPv6")], name)
    end
    assert.matches("seen " .. all, output, 1, true)
  end)

  it("gives each packet a connection of its own", function()
    local output, status = check(unit.file([[
      local nfqueue = require("nfqueue")
      local flows = nfqueue.flows()
      local tuples, count = {}, 0
      return {
        packet = function(pkt)
          local flow = flows:get(pkt)
          if flow then
            assert(not flow.verdict, "met before")
            flow.verdict = "drop" -- of all that comes of it
          end
          for _, packet in ipairs({ pkt, pkt.icmp and pkt.icmp.embedded and nfqueue.packet(pkt.icmp.embedded) }) do
            assert(not tuples[packet.tuple or ""], packet.tuple)
            tuples[packet.tuple or 0] = true
          end
          count = count + 1
        end,
        close = function() print("met " .. count) end,
      }]]))
    assert.are.equal(OK, status, output)
    assert.are.equal(0, count(verdicts(output), "drop"))
    assert.matches("met " .. count(verdicts(output), "accept"), output, 1, true)
  end)

  it("gives packets that are complete", function()
    -- Sums that come out as zero, by the script itself: check's packets are what a kernel would hand over.
    local path = unit.file([[
      package.path = "spec/?.lua;" .. package.path
      local checksum = require("support.checksum")
      return function(pkt)
        if #pkt < 20 or pkt.truncated or pkt:u8(0) >> 4 ~= 4 then return "drop" end
        assert(pkt:u16(2) == #pkt, "length")
        assert(checksum.of(pkt:bytes(0, 20)) == 0, "IPv4")
        local protocol, body = pkt:u8(9), pkt:bytes(20)
        if pkt:u16(6) & 0x3fff ~= 0 then return "accept" end
        if protocol == 1 then assert(checksum.of(body) == 0, "ICMP") end
        if protocol == 6 or protocol == 17 then
          local pseudo = checksum.pseudo4(pkt:bytes(12, 4), pkt:bytes(16, 4))
          assert(checksum.of(pseudo(protocol, #body) .. body) == 0, "transport")
        end
      end]])
    local output, status = check(path)
    assert.are.equal(OK, status, output)
    assert.are.equal("accept", verdicts(output)["IPv4 TCP data"])
  end)

  it("hands over the arguments behind --", function()
    local path = unit.file([[
      local args = ...
      for _, name in ipairs({ "a", "b", "empty", "sum" }) do
        local value = args[name]
        print(name, type(value) == "table" and table.concat(value, "+") or value)
      end
      return print]])
    local output, status = check(path .. " -- a=1 b=2 a=3 empty= sum=x=y a=4")
    assert.are.equal(OK, status)
    assert.matches("^a\t1%+3%+4\nb\t2\nempty\t\nsum\tx=y\n", output)
  end)

  it("applies configuration: the option over the script over the default", function()
    local path = unit.file([[return {
      packet = function() error("always") end,
      open = function(queue) print("open", queue.config.max_packets, queue.config.gso, queue.config.on_error) end,
      config = { max_packets = 5, gso = false } }]])
    local output, status = check(path)
    assert.are.equal(SCRIPT, status)
    assert.matches("^open\t5\tfalse\tdrop\n", output)
    assert.matches("^open\t6\ttrue\taccept\n", (check(path .. " --max-packets 6 --gso --fail-open")))
    assert.matches("^open\t5\tfalse\tdrop\n", (check(path .. " --fail-open --no-fail-open")))
    output = check(path .. " --on-error accept")
    assert.are.equal("accept", verdicts(output)["IPv4 UDP"])
    output = check(unit.file("return function() end") .. " --default drop")
    assert.are.equal("drop", verdicts(output)["garbage"])
  end)

  it("shows what is held and delayed, and does not wait for it", function()
    local path = unit.file([[
      local nfqueue = require("nfqueue")
      nfqueue.every(1, error)
      return { packet = function(pkt)
        if pkt.family == "ip6" then pkt:hold(1000) else pkt:delay(1000) end
      end, close = function() print("closed") end }]])
    local output, status = check(path)
    assert.are.equal(OK, status)
    assert.are.same({ "hold", "delay" }, { verdicts(output)["IPv6 UDP"], verdicts(output)["IPv4 UDP"] })
    assert.matches("\nclosed$", output)
  end)

  it("reports every packet the handler failed on, and goes on", function()
    local path = unit.file("return function(pkt)\n  if pkt.family == 'ip6' then error('no IPv6 here') end\n"
      .. "  pkt:accept()\nend\n")
    local output, status = check(path)
    assert.are.equal(SCRIPT, status)
    local _, failures = output:gsub("the handler failed: [^\n]*:2: no IPv6 here", "")
    local list = verdicts(output)
    assert.are.same({ count(list, "drop"), "accept" }, { failures, list["garbage"] })
    assert.matches(("%%S+ failed on %d of %d kinds of packets$"):format(failures, failures + count(list, "accept")),
      output)
  end)

  for _, case in ipairs({ -- script, status, message
    { "return function(", SCRIPT, "does not compile" },
    { string.dump(function() return print end), SCRIPT, "attempt to load a binary chunk" },
    { "error('no luck')", SCRIPT, ":1: no luck" },
    { "", SCRIPT, "the script returns no handler" },
    { "return { open = print }", SCRIPT, "bad argument 'packet' to 'script'" },
    { "return { packet = print, open = function() error('no device') end }", SCRIPT, ":1: no device" },
    { "return { packet = print, config = { max_packets = 0 } }", CONFIG,
      "bad argument 'max_packets' to 'script' (integer from 1 to 65536 expected, got 0)" },
    { "return { packet = print, config = { color = 0 } }", CONFIG, "unknown config key 'color' to 'script'" },
    { "return { packet = print, config = 'gso' }", CONFIG, "bad argument 'config' to 'script'" },
  }) do
    it(("ends with %d for %q"):format(case[2], case[1]:sub(1, 60)), function()
      local path = unit.file(case[1])
      local output, status = check(path)
      assert.are.equal(case[2], status)
      assert.matches(case[3], output, 1, true)
      assert.is_truthy(output:find("nfqueue: ", 1, true))
    end)
  end

  it("ends with 66 for a script that is not there", function()
    for _, script in ipairs({ "/nowhere/x.lua", "no-such-script", "/tmp" }) do
      local output, status = check(script)
      assert.are.equal(NO_INPUT, status)
      assert.matches(("nfqueue: cannot read script %s: "):format(script), output, 1, true)
    end
  end)

  -- sysexits.h: EX_NOINPUT is an input that does not exist or is not readable.
  it("ends with 66 for a script that it may not read", function()
    local path = unit.file("return print")
    net.must("chmod 000 " .. path)
    local as_user = net.must("id -u") == "0"
      and "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all " or ""
    local _, reachable = net.sh(as_user .. net.command .. " --version")
    if not reachable then
      return pending("an ordinary user cannot reach this tree")
    end
    local output, _, status = net.sh(("%s%s check %s"):format(as_user, net.command, path))
    assert.are.equal("nfqueue: cannot read script " .. path .. ": Permission denied", output)
    assert.are.equal(NO_INPUT, status)
  end)
end)
