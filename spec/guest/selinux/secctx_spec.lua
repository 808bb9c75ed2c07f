-- pkt.secctx in a guest booted with SELinux (permissive, the policy of spec/guest/selinux.cil).

local net = require("support.net")
local traffic = require("support.traffic")

local QUEUE = 5
local CONTEXT, PLAIN = "system_u:system_r:packet_t", "system_u:system_r:guest_t"

-- How a rule gives packets a context; `port` is their destination.
local LABELS = {
  { name = "nft", rule = function(port, context)
    net.nft(([[table inet labels {
      secmark tag { "%s" }
      chain c { type filter hook output priority -10; udp dport %d meta secmark set "tag"; }
    }]]):format(context, port))
  end },
  { name = "iptables", rule = function(port, context)
    traffic.rule(("-t mangle -A OUTPUT -p udp --dport %d -j SECMARK --selctx %s"):format(port, context))
  end },
}

describe("pkt.secctx", function()
  if not net.read("/proc/cmdline"):find("selinux=1", 1, true) then
    pending("the guest is booted without SELinux")
    return
  end

  after_each(traffic.cleanup)

  -- One packet through a queue with this configuration: its context.
  local function judge(label, context, config)
    local udp = traffic.udp()
    label(udp.port, context)
    net.queue_udp(udp.port, QUEUE)
    local got
    local queue = traffic.open(QUEUE, function(pkt) got = { secctx = pkt.secctx, mark = pkt.mark } end, config)
    udp:send("hello")
    traffic.judge({ queue }, "the datagram", function() return #udp:received() == 1 end)
    assert.equal(0, got.mark)
    return got.secctx
  end

  for _, label in ipairs(LABELS) do
    for _, context in ipairs({ CONTEXT, PLAIN }) do
      it(("is what %s set: %s"):format(label.name, context), function()
        assert.equal(context, judge(label.rule, context, { secctx = true }))
      end)
    end

    it("is nil where it was not asked for, set by " .. label.name, function()
      assert.is_nil(judge(label.rule, CONTEXT, {}))
      traffic.cleanup()
      assert.is_nil(judge(label.rule, CONTEXT, { secctx = false }))
    end)
  end

  it("is nil for a packet without a label", function()
    assert.is_nil(judge(function() end, CONTEXT, { secctx = true }))
  end)
end)
