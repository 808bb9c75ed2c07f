-- What the kernel holds and loses: max_packets, fail_open and buffer_size, by its own figures.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local it = traffic.figures and it or pending

local function accept(pkt)
  pkt:accept()
end

-- On input: there a packet no longer counts for its sender's buffer.
local function receiver()
  local udp = traffic.udp()
  traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
  return udp
end

local function send_many(udp, count, size)
  for i = 1, count do
    udp:send(("%06d"):format(i) .. ("."):rep((size or 6) - 6))
  end
end

describe("max_packets", function()
  after_each(traffic.cleanup)

  for _, most in ipairs({ 1, 10, 100 }) do
    it(("of %d is what the kernel holds; it drops what comes beyond"):format(most), function()
      local udp = receiver()
      local queue = traffic.open(3, accept, { max_packets = most })
      assert.equal(most, queue.config.max_packets)
      send_many(udp, most + 15)
      local kernel = net.queue(3)
      assert.equal(most, kernel.waiting)
      assert.equal(15, kernel.queue_dropped)
      local stats = queue:stats()
      assert.equal(most, stats.waiting)
      assert.equal(15, stats.kernel_queue_dropped)
      assert.equal(0, stats.packets)
      assert.same({}, udp:received())
      traffic.judge_packets(queue, most)
      udp:send("fence")
      traffic.judge_packets(queue, most + 1)
      assert.equal(most + 1, #udp:received())
      assert.equal(("%06d"):format(most), udp.texts[most])
      assert.equal("fence", udp.texts[most + 1])
    end)
  end

  it("is 4096 by itself", function()
    local udp = receiver()
    local queue = traffic.open(3, accept)
    send_many(udp, 4096 + 9)
    assert.equal(4096, net.queue(3).waiting)
    assert.equal(9, net.queue(3).queue_dropped)
    traffic.judge_packets(queue, 4096) -- more than the receiver has room for; the queue has them all
    assert.equal(4096, queue:stats().accepted)
    assert.equal(0, net.queue(3).waiting)
    assert.equal(0, queue:stats().lost)
  end)
end)

describe("fail_open", function()
  after_each(traffic.cleanup)

  it("lets packets pass that a full queue has no room for", function()
    local udp = receiver()
    local queue = traffic.open(3, accept, { max_packets = 10, fail_open = true })
    assert.is_true(queue.config.fail_open)
    send_many(udp, 25)
    assert.equal(15, #udp:received()) -- at once, and without a verdict
    assert.equal("000011", udp.texts[1])
    assert.equal("000025", udp.texts[15])
    assert.equal(10, net.queue(3).waiting)
    traffic.judge_packets(queue, 10)
    assert.equal(25, #udp:received())
    assert.equal("000001", udp.texts[16])
    assert.equal(10, queue:stats().packets)
  end)

  it("is off by itself: they do not pass", function()
    local udp = receiver()
    local queue = traffic.open(3, accept, { max_packets = 10 })
    assert.is_false(queue.config.fail_open)
    send_many(udp, 25)
    assert.equal(0, #udp:received())
    traffic.judge_packets(queue, 10)
    assert.equal(10, #udp:received())
    assert.equal("000010", udp.texts[10])
  end)
end)

describe("buffer_size", function()
  local COUNT, SIZE = 200, 1000

  after_each(traffic.cleanup)

  it("that is too small loses packets, which is counted as the kernel counts it and told", function()
    local udp = receiver()
    local queue = traffic.open(3, accept, { buffer_size = 16384 })
    assert.equal(16384, queue.config.buffer_size)
    local log = traffic.log(function()
      send_many(udp, COUNT, SIZE)
      local lost = net.queue(3).user_dropped
      assert.is_true(lost > 0 and lost < COUNT)
      assert.equal(COUNT - lost, net.queue(3).waiting)
      traffic.judge_packets(queue, COUNT - lost)
      udp:send("fence") -- shows the gap in the ids
      traffic.judge_packets(queue, COUNT - lost + 1)
      local stats = queue:stats()
      assert.equal(lost, stats.kernel_user_dropped)
      assert.equal(lost, stats.lost)
      assert.equal(1, stats.enobufs)
      assert.equal(COUNT - lost + 1, #udp:received())
      assert.equal("fence", udp.texts[#udp.texts])
    end)
    assert.truthy(log:find("warn: receive buffer overrun on queue 3: .*raise buffer_size"), log)
    assert.truthy(log:find("16384", 1, true), log)
  end)

  it("with room for all of them loses none", function()
    local udp = receiver()
    local queue = traffic.open(3, accept, { buffer_size = 1 << 20 })
    local log = traffic.log(function()
      send_many(udp, COUNT, SIZE)
      assert.equal(0, net.queue(3).user_dropped)
      assert.equal(COUNT, net.queue(3).waiting)
      traffic.judge_packets(queue, COUNT)
    end)
    local stats = queue:stats()
    assert.equal(0, stats.lost)
    assert.equal(0, stats.enobufs)
    assert.equal("", log)
  end)

  it("fits max_packets of wire size by itself", function()
    local udp = receiver()
    local queue = traffic.open(3, accept)
    assert.equal(10 << 20, queue.config.buffer_size)
    send_many(udp, 4096, 1400)
    assert.equal(4096, net.queue(3).waiting)
    assert.equal(0, net.queue(3).user_dropped)
    traffic.judge_packets(queue, 4096)
    assert.equal(0, queue:stats().enobufs)
  end)

  it("that the system caps is warned of with the figure got", function()
    local wanted = 1 << 29 -- net.core.rmem_max cannot be read in a namespace of every kernel; it is less
    local script = net.file(([[
      local nfqueue = require("nfqueue")
      local queue = nfqueue.new(7, function() end, { buffer_size = %d })
      assert(queue:open())
      print("in force: " .. queue.config.buffer_size)
      queue:close()
    ]]):format(wanted))
    net.must("chmod 644 " .. script)
    -- Root's own namespace would grant any size: an ordinary user's does not.
    local user = "setpriv --reuid 65534 --regid 65534 --clear-groups "
    if select(2, net.sh(user .. "true")) then
      local output, possible = net.sh(user .. net.command .. " lab --hook none -- true")
      if not possible then
        return pending("an ordinary user gets no namespace here: " .. output)
      end
    else
      user = ""
    end
    local output = net.must(("%s %s lab --hook none -- %s %s"):format(user, net.command, net.lua, script))
    local given = tonumber(output:match("in force: (%d+)"))
    assert.is_true(given < wanted, output)
    assert.truthy(output:find(("warn: receive buffer of queue 7: asked for %d bytes, the system gave %d; raise "
      .. "net.core.rmem_max"):format(wanted, given), 1, true), output)
  end)
end)

describe("queue.config", function()
  after_each(traffic.cleanup)

  it("tells what is in force, and the kernel agrees", function()
    local given = {
      max_packets = 123, buffer_size = 70000, copy_range = 456, fail_open = true, gso = false, conntrack = false,
      uid_gid = true, secctx = false, default = "drop", on_error = "drop",
    }
    local queue = traffic.open(3, accept, given)
    for key, value in pairs(given) do
      assert.equal(value, queue.config[key], key)
    end
    assert.equal(2, net.queue(3).copy_mode)
    assert.equal(456, net.queue(3).copy_range)
    queue.config.max_packets = 1 -- a copy: no way to change what is in force
    assert.equal(123, queue.config.max_packets)
  end)

  it("is the given one over the script's over the default", function()
    local queue = nfqueue.new(3, { packet = accept, config = { copy_range = 10, max_packets = 20 } }, {
      max_packets = 30,
    })
    assert.equal(10, queue.config.copy_range)
    assert.equal(30, queue.config.max_packets)
    assert.equal("accept", queue.config.default)
    assert.equal("drop", queue.config.on_error)
    assert.is_true(queue.config.gso)
  end)
end)
