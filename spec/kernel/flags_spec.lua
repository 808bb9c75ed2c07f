-- What a packet brings along: copy_range, gso, uid_gid, secctx, conntrack; and flags that the kernel refuses.

local net = require("support.net")
local nfqueue = require("nfqueue")
local traffic = require("support.traffic")

local measured = traffic.figures and it or pending

describe("copy_range", function()
  after_each(traffic.cleanup)

  -- One datagram of 500 bytes: what `look` gives for its packet, and the queue.
  local function look_at_one(family, config, look)
    local udp = traffic.udp(family)
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
    local result
    local queue = traffic.open(3, function(pkt)
      result = look(pkt)
      pkt:accept()
    end, config)
    udp:send(("q"):rep(500))
    traffic.judge({ queue }, "the datagram", function()
      return udp:received()[1]
    end)
    assert.equal(("q"):rep(500), udp.texts[1]) -- whatever was copied, all of it goes on
    return result, queue
  end

  local function describe_packet(pkt)
    local edit_done, edit = pcall(pkt.modify, pkt, pkt:bytes())
    return {
      bytes = #pkt, length = pkt.length, truncated = pkt.truncated,
      edit = edit_done and "done" or edit:match("cannot edit this packet: .*"),
    }
  end

  local REFUSED = "cannot edit this packet: the kernel copied only part of it (raise copy_range)"

  for _, family in ipairs(traffic.FAMILIES) do
    local whole = family.header + 8 + 500
    for _, range in ipairs({ 1, 60, whole - 1 }) do
      measured(("of %d cuts %s packets, which can be judged but not edited"):format(range, family.name), function()
        local seen, queue = look_at_one(family, { copy_range = range }, describe_packet)
        assert.same({ bytes = range, length = whole, truncated = true, edit = REFUSED }, seen)
        assert.equal(range, net.queue(3).copy_range)
        assert.equal(1, queue:stats().truncated)
        assert.equal(whole, queue:stats().bytes) -- of the wire
      end)
    end

    it(("of the length of an %s packet copies all of it"):format(family.name), function()
      local seen, queue = look_at_one(family, { copy_range = whole }, function(pkt)
        return { bytes = #pkt, length = pkt.length, truncated = pkt.truncated }
      end)
      assert.same({ bytes = whole, length = whole, truncated = false }, seen)
      assert.equal(0, queue:stats().truncated)
    end)

    measured("of 0 brings metadata only for " .. family.name, function()
      local seen = look_at_one(family, { copy_range = 0 }, function(pkt)
        return {
          bytes = #pkt, content = pkt:bytes(), hook = pkt.hook, family = pkt.family, oifname = pkt.oifname,
          length = tostring(pkt.length), truncated = pkt.truncated, patch = select(2, pcall(pkt.u8, pkt, 0)),
        }
      end)
      assert.truthy(seen.patch:find("(0 and 1 bytes reach beyond the packet's 0)", 1, true), seen.patch)
      seen.patch = nil
      assert.same({
        bytes = 0, content = "", hook = "output", family = family.nft, oifname = "lo", length = "nil",
        truncated = true,
      }, seen)
      assert.equal(1, net.queue(3).copy_mode) -- metadata
    end)
  end

  it("of 0 refuses every edit", function()
    local message = look_at_one(traffic.FAMILIES[1], { copy_range = 0 }, function(pkt)
      return select(2, pcall(pkt.modify, pkt, "something"))
    end)
    assert.truthy(message:find(REFUSED, 1, true), message)
  end)
end)

describe("gso", function()
  after_each(traffic.cleanup)

  for _, case in ipairs({ { true, "whole" }, { false, "wire-sized" } }) do
    it(("%s: TCP segments arrive %s"):format(case[1], case[2]), function()
      local source = traffic.text_file(2000000)
      traffic.rule("-A OUTPUT -p tcp --dport 8300 -j NFQUEUE --queue-num 3")
      local largest, marked = 0, 0
      local queue = traffic.open(3, function(pkt)
        largest = math.max(largest, #pkt)
        marked = marked + (pkt.gso and 1 or 0)
        pkt:accept()
      end, { gso = case[1] })
      traffic.transfer({ queue }, source, { port = 8300 })
      if case[1] then
        assert.is_true(largest > 10000, "largest: " .. largest)
        assert.is_true(marked > 0)
      else
        assert.is_true(largest <= 1500, "largest: " .. largest)
        assert.equal(0, marked)
        assert.is_true(queue:stats().packets > 2000000 // 1500)
      end
    end)
  end
end)

describe("uid_gid", function()
  after_each(traffic.cleanup)

  local function owner_of(command, config)
    traffic.rule("-A OUTPUT -p udp --dport 8302 -j NFQUEUE --queue-num 3")
    local owner
    local queue = traffic.open(3, function(pkt)
      owner = { uid = pkt.uid, gid = pkt.gid }
    end, config)
    net.start(command .. [[ bash -c "echo > /dev/udp/127.0.0.1/8302"]])
    traffic.judge_packets(queue, 1)
    return owner
  end

  it("tells whose packet leaves, as the initial user namespace numbers users", function()
    local uid = tonumber(net.read("/proc/self/uid_map"):match("^%s*0%s+(%d+)"))
    local gid = tonumber(net.read("/proc/self/gid_map"):match("^%s*0%s+(%d+)"))
    assert.same({ uid = uid, gid = gid }, owner_of("env", { uid_gid = true }))
  end)

  it("tells another user's", function()
    local user = "setpriv --reuid 65534 --regid 65533 --clear-groups"
    if not select(2, net.sh(user .. " true")) then
      return pending("there is no other user in this namespace")
    end
    assert.same({ uid = 65534, gid = 65533 }, owner_of(user, { uid_gid = true }))
  end)

  it("tells nothing when it is off, as by itself", function()
    assert.same({}, owner_of("env"))
  end)

  it("tells nothing of packets that have no owner here", function()
    local udp = traffic.udp()
    traffic.rule(("-A INPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local owner
    local queue = traffic.open(3, function(pkt)
      owner = { uid = pkt.uid, gid = pkt.gid }
    end, { uid_gid = true })
    udp:send("incoming")
    traffic.judge_packets(queue, 1)
    assert.same({}, owner)
  end)
end)

describe("secctx", function()
  after_each(traffic.cleanup)

  it("is acknowledged, and nil without a security module that labels packets", function()
    if net.read("/proc/self/attr/current") ~= "" and net.read("/sys/fs/selinux/enforce") ~= "" then
      return pending("this kernel labels packets")
    end
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    local seen = {}
    local queue = traffic.open(3, function(pkt)
      seen[#seen + 1] = tostring(pkt.secctx)
    end, { secctx = true })
    assert.is_true(queue.config.secctx)
    udp:send("any")
    traffic.judge_packets(queue, 1)
    assert.same({ "nil" }, seen)
  end)
end)

describe("conntrack on a kernel that cannot", function()
  local function open_with(config)
    return nfqueue.new(3, function() end, config):open()
  end

  -- A kernel that can is shown delivering elsewhere.
  local possible = open_with({ conntrack = true })
  if possible then
    possible:close()
  end

  local function check(done, message, errno)
    assert.is_nil(done)
    assert.equal("this kernel does not support conntrack (queue 3): it needs "
      .. "CONFIG_NETFILTER_NETLINK_GLUE_CT and the nf_conntrack_netlink module", message)
    assert.equal(95, errno) -- EOPNOTSUPP
    assert.is_nil(net.queue(3))
  end

  local CASES = {
    ["alone"] = { conntrack = true },
    ["among flags that are known"] = { conntrack = true, uid_gid = true, fail_open = true, gso = true, secctx = true },
  }
  for name, config in pairs(CASES) do
    measured(name .. " is an error that names it, and nothing stays bound", function()
      if possible then
        return pending("this kernel can")
      end
      check(open_with(config))
      check(nfqueue.new(3, function() end, config):start())
    end)
  end

  measured("unbinds the queues that were started with it, and calls open and close in pairs", function()
    if possible then
      return pending("this kernel can")
    end
    local calls = {}
    local handler = {
      packet = function() end,
      open = function(queue) calls[#calls + 1] = "open " .. queue.number end,
      close = function(queue) calls[#calls + 1] = "close " .. queue.number end,
    }
    local fine = nfqueue.new(4, handler)
    check(nfqueue.start(fine, nfqueue.new(3, handler, { conntrack = true })))
    assert.is_nil(net.queue(4))
    assert.same({ "open 4", "open 3", "close 4", "close 3" }, calls)
    assert(fine:open()) -- and is free for another start
    fine:close()
  end)
end)
