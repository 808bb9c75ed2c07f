-- What a packet says of itself on Debian's 6.1: each property set by the means a user has.

local net = require("support.net")
local traffic = require("support.traffic")

local QUEUE = 5

-- `prepare`: a further rule. `program`: runs meanwhile. `hook`: of the queue's rule (default output). `send`: what goes
-- before the command that sends one datagram; default: a socket of this process. `want`: fields of the packet; a
-- function tells whether a value fits.
local CASES = {
  { name = "nothing set", want = { mark = 0, priority = 0 } },
  { name = "a mark", prepare = "meta mark set 0xfedcba98", want = { mark = 0xfedcba98 } },
  { name = "a priority", prepare = "meta priority set 0x10002", want = { priority = 0x10002 } },
  { name = "no cgroup, which 6.1 does not tell", want = {}, absent = { "cgroup" } },
  { name = "no timestamp and nothing of a way in on output", want = {},
    absent = { "timestamp", "iif", "iifname", "hwaddr", "vlan", "l2header" } },
  { name = "the way in on input, and no timestamp while nobody on the machine asks for stamps", hook = "input",
    want = { iifname = "lo", iif = 1 },
    absent = { "timestamp", "oif", "oifname", "physiif", "physoif", "vlan", "l2header" } },
  { name = "a timestamp on input while a socket asks for stamps", hook = "input",
    program = "socat -u UDP4-RECV:7999,so-timestamp OPEN:/dev/null",
    want = { timestamp = function(value) return math.abs(value - os.time()) < 60 end } },
  { name = "the owner", send = "setpriv --reuid 1000 --regid 2000 --clear-groups", config = { uid_gid = true },
    want = { uid = 1000, gid = 2000 } },
  { name = "root as the owner", config = { uid_gid = true }, want = { uid = 0, gid = 0 } },
  { name = "no owner where it was not asked for", want = {}, absent = { "uid", "gid" } },
  { name = "no owner on input", hook = "input", config = { uid_gid = true }, want = { iifname = "lo" },
    absent = { "uid", "gid" } },
  { name = "no security context without a security module", config = { secctx = true },
    want = {}, absent = { "secctx" } },
}

local SEND = [[%s lua5.4 -e 'require("socket").udp():sendto("hello", "127.0.0.1", %d)']]

describe("a packet in the guest has", function()
  after_each(traffic.cleanup)

  for _, case in ipairs(CASES) do
    it(case.name, function()
      local udp = traffic.udp()
      net.nft(([[table ip meta_spec { chain c { type filter hook %s priority 0;
        udp dport != %d accept
        %s
        queue num %d
      }
      }]]):format(case.hook or "output", udp.port, case.prepare or "", QUEUE))
      local names = table.move(case.absent or {}, 1, 20, 1, {})
      for name in pairs(case.want) do
        names[#names + 1] = name
      end
      local got
      local queue = traffic.open(QUEUE, function(pkt)
        got = {}
        for _, name in ipairs(names) do
          got[name] = pkt[name]
        end
      end, case.config)
      if case.program then
        net.start(case.program)
        traffic.wait_listening("udp", 7999)
      end
      if case.send then
        net.must(SEND:format(case.send, udp.port))
      else
        udp:send("hello")
      end
      traffic.judge_packets(queue, 1)
      -- The kernel begins to stamp packets a moment after it was asked.
      traffic.judge({ queue }, case.name, function()
        if case.want.timestamp and not got.timestamp then
          udp:send("hello")
          return false
        end
        return true
      end)
      for name, want in pairs(case.want) do
        if type(want) == "function" then
          assert(want(got[name]), name .. " is " .. tostring(got[name]))
          got[name] = nil
        end
      end
      local wanted = {}
      for name, want in pairs(case.want) do
        wanted[name] = type(want) ~= "function" and want or nil
      end
      assert.same(wanted, got)
    end)
  end

  it("a mark and a priority that later rules see, set by the handler", function()
    local udp = traffic.udp()
    net.nft(([[table ip meta_spec {
      chain c { type filter hook output priority 0; udp dport %d queue num %d; }
      chain later {
        type filter hook postrouting priority 10;
        meta mark 0x77 meta priority 0x30004 counter comment "both"
      }
    }]]):format(udp.port, QUEUE))
    local queue = traffic.open(QUEUE, function(pkt) pkt:accept({ mark = 0x77, priority = 0x30004 }) end)
    udp:send("hello")
    traffic.judge({ queue }, "the datagram", function() return #udp:received() == 1 end)
    assert.equal(1, net.nft_packets('"both"'))
  end)
end)
