-- Recording from handlers: what was dropped, by several threads into one file, and what a full disk leaves.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local QUEUE = 5
local PORT = 4900
local ENOSPC = 28

after_each(traffic.cleanup)

-- Drops what goes to an odd port and records it, with the mark 7.
local SCRIPT = [[
  local nfqueue = require("nfqueue")
  local args = ...
  local record = assert(nfqueue.pcap.create(args.record, { append = args.append ~= nil }))
  return {
    packet = function(pkt)
      if pkt.udp.dport % 2 == 0 then
        return pkt:accept()
      end
      pkt.mark = 7
      assert(record:write(pkt, "dropped"))
      pkt:drop()
      assert(record:write(pkt))
    end,
    close = function() record:close() end,
  }
]]

local function records(path)
  local list = {}
  for pkt, prefix in assert(nfqueue.pcap.open(path)) do
    list[#list + 1] = { packet = pkt, prefix = prefix, text = pkt.payload }
  end
  return list
end

describe("nfqueue run with a script that records what it drops", function()
  before_each(function()
    for _, family in ipairs(traffic.FAMILIES) do
      traffic.rule(("-A OUTPUT -p udp --dport %d:%d -j NFQUEUE --queue-balance %d:%d"):format(PORT, PORT + 1, QUEUE,
        QUEUE + 3), family)
    end
  end)

  local function run(path, more)
    return net.run(("%s -q %d-%d --threads 4 -- record=%s %s"):format(net.file(SCRIPT), QUEUE, QUEUE + 3, path,
      more or ""))
  end

  -- Sends the numbers from `first` to `last` from many addresses, so that all queues get some.
  local function send(first, last)
    local socket = require("socket")
    local udp = socket.udp4()
    for i = first, last do
      udp:sendto(tostring(i), "127.0.0." .. 1 + i % 50, PORT + 1)
      udp:sendto("kept", "127.0.0." .. 1 + i % 50, PORT)
    end
    udp:close()
  end

  it("has each packet in the file once, with its queue, mark, interface and verdict, whole", function()
    local path = net.file()
    local process = run(path)
    send(1, 500)
    net.wait_for("the records", function() return #records(path) == 1000 end)
    process:signal("TERM")
    assert.equal(0, process:join())
    local seen, queues, lo = {}, {}, tonumber(net.must("ip -o link show lo"):match("^%d+"))
    for _, record in ipairs(records(path)) do
      local pkt = record.packet
      local key = record.prefix .. " " .. record.text
      assert.is_nil(seen[key])
      seen[key] = true
      assert.same({ 7, lo, "output", "ip" }, { pkt.mark, pkt.oif, pkt.hook, pkt.family })
    end
    for i = 1, 500 do
      assert.is_true(seen["dropped " .. i] and seen["drop " .. i], i)
    end
    if select(2, net.sh("command -v tshark")) then
      local text = net.must(("tshark -n -r %s -T fields -e nflog.res_id -e nflog.prefix -e udp.dstport 2>/dev/null")
        :format(path))
      local count = 0
      for queue, prefix, port in text:gmatch("(%d+)\t(%a+)\t(%d+)") do
        count = count + 1
        queues[tonumber(queue)] = true
        assert.same({ true, tostring(PORT + 1) }, { prefix == "drop" or prefix == "dropped", port })
      end
      assert.equal(1000, count)
      for queue in pairs(queues) do
        assert.is_true(queue >= QUEUE and queue <= QUEUE + 3)
      end
      assert.is_truthy(next(queues, next(queues))) -- more than one wrote
    end
    if select(2, net.sh("command -v tcpdump")) then
      local text, done = net.sh("tcpdump -nr " .. path)
      if done then
        assert.equal(1000, select(2, text:gsub("IP 127.0.0.1", "")))
      else -- in a user namespace, or on a machine, with only one user
        assert.matches("Couldn't [^\n]*'tcpdump'", text)
      end
    end
  end)

  it("keeps what was recorded when a worker dies, with append", function()
    local path = net.file()
    local process = run(path, "append=1")
    send(1, 20)
    net.wait_for("the records", function() return #records(path) == 40 end)
    net.must("kill -KILL " .. process:worker())
    net.wait_for("a new worker", function() return process:count("ready:") == 2 end)
    send(21, 30)
    net.wait_for("the other records", function() return #records(path) == 60 end)
  end)
end)

for _, family in ipairs(traffic.FAMILIES) do
  it("a handler records packets of " .. family.name .. " that are GSO, cut, or later sent again", function()
    local path, again = net.file(), net.file()
    local record = assert(nfqueue.pcap.create(path))
    local sent = assert(nfqueue.pcap.create(again, { linktype = "raw" }))
    traffic.rule(("-A OUTPUT -p tcp --dport %d -j NFQUEUE --queue-num %d"):format(PORT, QUEUE), family)
    local count, largest = 0, 0
    local queue = traffic.open(QUEUE, function(pkt)
      count = count + 1
      largest = math.max(largest, pkt.length)
      assert(record:write(pkt, "pass"))
      assert(sent:write(pkt))
    end, { copy_range = 2000 })
    traffic.transfer({ queue }, traffic.text_file(1 << 20), { port = PORT, family = family })
    local list, payload = records(path), 0
    assert.same({ count, count }, { #list, #records(again) })
    local longest = 0
    for _, item in ipairs(list) do
      longest = math.max(longest, item.packet.length)
      assert.is_true(#item.packet <= 2000)
      payload = payload + item.packet.length - item.packet.payload_offset
    end
    assert.same({ largest, true }, { longest, payload >= 1 << 20 })
    record:close()
    sent:close()
  end)
end

it("a full disk costs the records that do not fit, and nothing of the others", function()
  local folder = net.must("mktemp -d")
  net.must(("mount -t tmpfs -o size=192k none %s && head -c 64K /dev/zero > %s/other"):format(folder, folder))
  finally(function() net.must(("umount -l %s && rmdir %s"):format(folder, folder)) end)
  local path = folder .. "/full.pcap"
  local one, other = assert(nfqueue.pcap.create(path)), assert(nfqueue.pcap.create(path))
  local written, message, errno = 0
  local function write(writer, size)
    local done
    done, message, errno = writer:write(nfqueue.packet("E" .. ("x"):rep(size - 1)))
    written = written + (done and 1 or 0)
    return done
  end
  repeat until not write(one, 5000)
  assert.same({ "cannot write " .. path .. ": No space left on device", ENOSPC }, { message, errno })
  repeat until not write(other, 700)
  assert.same({ "cannot write " .. path .. ": No space left on device", ENOSPC }, { message, errno })
  assert.is_true(written > 20, written)
  assert.equal(written, #records(path))
  net.must(("rm %s/other"):format(folder))
  assert.is_true(write(one, 5000) and write(other, 700))
  local list = records(path)
  assert.same({ written, 5000, 700 }, { #list, #list[#list - 1].packet, #list[#list].packet })
  one:close()
  other:close()
end)
