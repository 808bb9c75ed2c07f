-- Mutated packets of a tun device (mutants.c) through a queue whose handler does with each whatever can be done.

local net = require("support.net")
local nfqueue = require("nfqueue")
local outcomes = require("support.outcomes")

local mutants = {}

local QUEUE, DEVICE = 4, "mutants0"
local V4, V6 = { src = "192.0.2.9", dst = "192.0.2.1" }, { src = "2001:db8::9", dst = "2001:db8::1" }

-- What the fuzz target of the accessors does, and every verb and table besides. It fails for an error that is not
-- documented, and so does the test: there is none to be counted.
local HANDLER = outcomes.TELL .. [[
  local args = ...
  local nfqueue = require("nfqueue")
  local use = dofile(args.accessor)
  local flows, rw = nfqueue.flows({ max = 500 }), nfqueue.rewrite({ max = 500 })
  local filter = nfqueue.filter("udp port 53 or icmp6 or tcp[tcpflags] & tcp-syn != 0")
  local store, nets = nfqueue.shared("mutants", { max_bytes = 65536 }), nfqueue.cidrset({ "192.0.2.0/24" })
  local held = {}
  local pool = {}
  math.randomseed(tonumber(args.seed), 0)
  for i = 1, 65536 do
    pool[i] = string.char(math.random(0, 255))
  end
  pool = table.concat(pool)

  local function choices()
    local at = math.random(#pool - 300)
    return pool:sub(at, at + 299)
  end

  local function use_tables(pkt)
    local flow = flows:get(pkt)
    if flow and math.random(50) == 1 then
      flow.verdict = math.random(2) == 1 and "accept" or "drop"
    end
    filter(pkt)
    if pkt.ip then
      nets:find(pkt.ip.src)
      store:incr(pkt.ip.src_bytes, 1, 0.5)
    end
    return tostring(pkt)
  end

  local ways = {
    function(pkt) pkt:reject() end,
    function(pkt) pkt:delay(math.random() * 0.01) end,
    function(pkt) pkt:hold(math.random() * 0.01, "accept") end,
    function(pkt)
      pkt:hold(0.05, "drop")
      held[#held + 1] = pkt
    end,
    function(pkt)
      pcall(nfqueue.send, pkt:bytes()) -- its lengths may be wrong
      pkt:accept()
    end,
    function(pkt)
      if pkt.tcp and not pkt.truncated then
        pcall(rw, pkt, choices():sub(1, math.random(0, 300)))
      end
      pkt:accept()
    end,
    function(pkt)
      local ok, bytes = pcall(nfqueue.build, { reply = pkt, payload = "answer" })
      if ok then
        nfqueue.send(bytes)
      end
    end,
  }

  nfqueue.every(0.01, function()
    while #held > 0 do
      local pkt = table.remove(held, math.random(#held))
      if pkt.verdict == nil then
        use(pkt:bytes(), choices(), pkt)
        if pkt.verdict == nil then
          pkt:drop()
        end
      end
    end
  end)

  return {
    packet = function(pkt)
      if math.random(4) == 1 then
        use_tables(pkt)
        return ways[math.random(#ways)](pkt)
      end
      use(pkt:bytes(), choices(), pkt)
    end,
    close = function(queue)
      io.stderr:write(tell(queue))
    end,
  }
]]

--- Packets of every kind, to begin with.
function mutants.seeds()
  local list = {}
  local function add(options)
    local made = nfqueue.build(options)
    for _, bytes in ipairs(type(made) == "table" and made or { made }) do
      list[#list + 1] = bytes
    end
    return list[#list]
  end
  local options = { mss = 1460, window_scale = 7, sack_permitted = true, timestamps = { 1, 2 } }
  for _, ip in ipairs({ V4, V6 }) do
    local syn = add({ ip = ip, tcp = { sport = 40000, dport = 80, flags = "S", options = options } })
    add({ ip = ip, tcp = { sport = 40000, dport = 80, flags = "PA", seq = 1 }, payload = "GET / HTTP/1.1\r\n\r\n" })
    add({ ip = ip, tcp = { sport = 40000, dport = 80, flags = "FA", seq = 19 }, payload = ("x"):rep(1200) })
    add({ ip = ip, udp = { sport = 40000, dport = 53 },
      payload = "\18\52\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1" })
    add({ ip = ip, udp = { sport = 40001, dport = 4000 } })
    add({ reply = syn, icmp = ip == V4 and { type = 3, code = 13 } or { type = 1, code = 1 } })
    add({ ip = ip, icmp = { type = ip == V4 and 8 or 128, id = 5, seq = 6 }, payload = "ping" })
  end
  add({ ip = { src = V4.src, dst = V4.dst, id = 9, df = false }, udp = { sport = 1, dport = 2 },
    payload = ("f"):rep(3000), mtu = 1280 })
  add({ ip = { src = V4.src, dst = V4.dst, options = { [7] = ("\0"):rep(5) } }, udp = { sport = 1, dport = 2 } })
  local extensions = { { hop_by_hop = { [5] = "\0\0" } }, { destination = { [6] = "\0\0" } } }
  add({ ip = { src = V6.src, dst = V6.dst, id = 7, extensions = extensions }, udp = { sport = 1, dport = 2 },
    payload = ("f"):rep(3000), mtu = 1280 })
  add({ ip = { src = V6.src, dst = V6.dst, extensions = extensions }, tcp = { sport = 1, dport = 2, flags = "S" } })
  return list
end

--- Why it cannot run here, or nil.
function mutants.unable()
  local device, why = io.open("/dev/net/tun", "r+")
  if not device then
    return "tun devices: " .. why
  end
  device:close()
  return net.no_queue_list()
end

--- Until the queue has seen `count` of them; `equal(expected, actual, what)` is called for what must be so. Returns a
-- table of figures.
function mutants.check(count, equal, seed)
  local parts = {}
  for _, bytes in ipairs(mutants.seeds()) do
    parts[#parts + 1] = (">s2"):pack(bytes)
  end
  local seeds = net.file(table.concat(parts))
  net.must(([[ip tuntap add mode tun name %s
    ip addr add 192.0.2.1/24 dev %s
    ip -6 addr add 2001:db8::1/64 dev %s nodad
    ip link set %s up]]):format(DEVICE, DEVICE, DEVICE, DEVICE))
  for _, program in ipairs({ "iptables", "ip6tables" }) do
    net.must(([[%s -w -t mangle -A PREROUTING -m mark --mark 0x6e71 -j ACCEPT
      %s -w -t mangle -A PREROUTING -i %s -m comment --comment seen
      %s -w -t mangle -A PREROUTING -i %s -j NFQUEUE --queue-num %d]])
      :format(program, program, DEVICE, program, DEVICE, QUEUE))
  end
  local function seen()
    return net.rule_packets("PREROUTING -t mangle", "seen")
      + net.rule_packets("PREROUTING -t mangle", "seen", "ip6tables")
  end
  local run = net.run(("%s -q %d --default drop -- accessor=spec/fuzz/targets/accessor.lua seed=%d")
    :format(net.file(HANDLER), QUEUE, seed))
  local wrote, round = 0, 0
  local had
  repeat
    had = seen()
    round = round + 1
    local writer = net.start(("%s/support/mutants %s %s %d %d %d"):format(net.build, DEVICE, seeds,
      math.max(1000, math.min(200000, count - had)), QUEUE, seed * 1000 + round))
    equal(0, writer:join(300), "status of the program that writes: " .. writer:output())
    wrote = wrote + tonumber(writer:output():match("wrote (%d+)"))
  until seen() >= count or seen() == had
  net.wait_for("an empty queue", function()
    return net.queue(QUEUE).waiting == 0
  end)
  local kernel, passed = net.queue(QUEUE), seen()
  run:signal("TERM")
  equal(0, run:join(), "status of nfqueue run")
  local log = run:output()
  local stats = outcomes.read_stats(log, QUEUE)
  equal("", (log:match("[^\n]*failed[^\n]*\n[^\n]*") or ""), "what failed")
  equal(0, stats.errors, "errors")
  equal(0, stats.workers_lost, "workers that died")
  equal(true, passed >= count, ("whether %d of %d written reached the queue, of %d"):format(passed, wrote, count))
  equal(passed, kernel.id_sequence, "ids")
  equal(kernel.id_sequence, stats.packets, "packets")
  equal(0, stats.lost, "lost")
  equal(0, stats.refused, "refused")
  local verdicts = 0
  for _, name in ipairs({ "accepted", "dropped", "modified", "again", "requeued", "rejected", "delayed" }) do
    verdicts = verdicts + stats[name]
  end
  equal(stats.packets, verdicts, "verdicts")
  net.must("ip link delete " .. DEVICE)
  return { wrote = wrote, seen = passed, stats = stats }
end

return mutants
