-- memory_limit in the states of threads and of the host, and of what is copied for packets that are held or delayed.

local net = require("support.net")
local nfqueue = require("nfqueue")
local socket = require("socket")
local traffic = require("support.traffic")

local PORT = 9310
local FILL = "local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end"

local function used()
  collectgarbage()
  collectgarbage()
  return math.ceil(collectgarbage("count") * 1024)
end

describe("nfqueue run", function()
  local box
  before_each(function()
    net.cleanup()
    box = net.udp(PORT)
    net.queue_udp(PORT, 5)
  end)
  after_each(function()
    box.socket:close()
    net.cleanup()
  end)

  it("gives on_error to a packet whose handler fills memory, says why, and goes on", function()
    local run = net.run(net.file(([[
      local kept = {}
      return function(pkt, queue)
        if pkt.payload == "fill" then %s end
        if pkt.payload == "keep" then for i = 1, math.huge do kept[i] = ("x"):rep(1000) .. i end end
        if pkt.payload == "free" then kept = {} end
        if pkt.payload == "string" then return ("x"):rep(1 << 40) end
        if pkt.payload == "memory" then io.stderr:write("memory=", queue:stats().memory, "\n") end
      end]]):format(FILL)) .. " -q 5 --on-error accept --memory-limit 2000000")
    -- While everything is kept not even the handle of a packet can be made: it gets on_error all the same.
    box:send("one", "fill", "two", "fill", "string", "keep", "three", "keep", "free", "four", "fill", "memory", "last")
    assert.same({ "one", "fill", "two", "fill", "string", "keep", "three", "keep", "free", "four", "fill", "memory",
      "last" }, box:await("last"))
    assert.matches("handler failed: memory_limit (2000000 bytes) is reached: not enough memory", run:output(), 1, true)
    assert.is_true(run:is_alive())
    assert.equal(1, run:count("worker pid"))
    local memory = tonumber(run:output():match("memory=(%d+)"))
    if memory then -- unless what is kept goes on being so: then "memory" was not heard either
      assert.is_true(memory <= 2000000, memory)
    end
  end)

  it("does not start a script that fills memory, as it is loaded or opened", function()
    for text, where in pairs({
      [FILL] = "script .* failed while loading: not enough memory",
      [("return { packet = print, open = function() %s end }"):format(FILL)] =
        "open of the script failed: not enough memory",
      [("return { packet = print, config = { memory_limit = 5000000 }, open = function() %s end }"):format(FILL)] =
        "open of the script failed: not enough memory",
    }) do
      local limit = text:find("config") and 5000000 or 2000000
      local output, _, status = net.sh(("%s run %s -q 5 %s"):format(net.command, net.file(text),
        text:find("config") and "" or "--memory-limit 2000000"))
      assert.matches(("memory_limit %%(%d bytes%%) is reached: "):format(limit) .. where, output)
      assert.equal(65, status)
    end
  end)
end)

describe("memory_limit in the host's state", function()
  after_each(traffic.cleanup)

  local function through_queue()
    local udp = traffic.udp()
    traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port))
    return udp
  end

  it("is refused when the state uses more already", function()
    local ballast = ("x"):rep(3 << 20)
    local queue = traffic.queue(3, print, { memory_limit = 1 << 20 })
    local opened, problem, errno = queue:open()
    assert.is_nil(opened)
    assert.matches("^this state uses %d+ bytes already: memory_limit %(1048576 bytes%) is too low$", problem)
    assert.equal(12, errno)
    opened, problem, errno = queue:start()
    assert.same({ nil, 12, 3 << 20 }, { opened, errno, #ballast })
    assert.matches("^this state uses", problem)
    opened, problem, errno = nfqueue.start(traffic.queue(4, print), queue) -- of several the least
    assert.same({ nil, 12 }, { opened, errno })
    assert.matches("memory_limit (1048576 bytes)", problem, 1, true)
  end)

  it("holds inside handlers only", function()
    local udp = through_queue()
    local limit = used() + (4 << 20)
    local problems = {}
    local queue = traffic.open(3, function(pkt)
      problems[#problems + 1] = select(2, pcall(function()
        local t = {}
        while true do table.insert(t, ("x"):rep(1000) .. #t) end
      end))
      pkt:accept()
    end, { memory_limit = limit })
    local mine = ("x"):rep(10 << 20)
    assert.equal(10 << 20, #mine)
    mine = nil -- luacheck: ignore
    udp:send("one", "two")
    traffic.judge_packets(queue, 2)
    assert.same({ "one", "two" }, udp:received())
    assert.same({ "not enough memory", "not enough memory" }, problems)
    assert.equal(10 << 20, #("x"):rep(10 << 20))
  end)

  it("counts copies of held packets, and refuses the one that is too many", function()
    local udp = through_queue()
    local room = 1 << 20
    local limit = used() + room + 400000
    local held, problem = {}, nil
    local queue = traffic.open(3, function(pkt)
      local fine, why = pcall(pkt.hold, pkt, 1000)
      if fine then
        held[#held + 1] = pkt
      else
        problem = problem or why
        pkt:accept()
      end
    end, { memory_limit = limit })
    local text, sent = ("x"):rep(1400), 0
    while not problem and sent < 2000 do
      -- What is held fills its sender's buffer: another one every time.
      local sender = socket.udp4()
      for _ = 1, 50 do
        sender:sendto(text, "127.0.0.1", udp.port)
      end
      sender:close()
      sent = sent + 50
      traffic.judge_packets(queue, sent)
    end
    assert.equal(("cannot hold this packet: memory_limit (%d bytes) is reached"):format(limit), problem)
    -- 1,400 bytes and what describes them take 2,048.
    assert.is_true(#held * 2048 >= room / 2 and #held * 2048 <= limit, #held)
    assert.is_true(queue:stats().memory >= #held * 2048)
    assert.equal(#held, queue:stats().kept)
    -- What is settled gives its place back.
    for _, pkt in ipairs(held) do
      pkt:drop()
    end
    local before = #held
    problem, held = nil, {}
    udp:send(text, text)
    traffic.judge_packets(queue, sent + 2)
    assert.same({ 2, nil }, { #held, problem })
    assert.is_true(queue:stats().memory < limit and before > 2)
  end)

  it("counts copies of delayed packets that were edited, and room for longer content", function()
    local udp = through_queue()
    local limit = used() + (1 << 20)
    local problem, longer
    local queue = traffic.open(3, function(pkt)
      if pkt.payload == "hold" then
        pkt:hold(1000)
        return
      end
      pkt.payload = ("y"):rep(30000)
      local fine, why = pcall(pkt.delay, pkt, 1000)
      if not fine then
        problem = why
        pkt:drop()
      end
    end, { memory_limit = limit })
    local kept
    local other = traffic.open(4, function(pkt)
      pkt:hold(1000)
      kept = pkt
    end, { memory_limit = limit })
    traffic.rule(("-I OUTPUT -p udp --dport %d -m length --length 0:32 -j NFQUEUE --queue-num 4"):format(udp.port))
    udp:send("hold")
    traffic.judge_packets(other, 1)
    for i = 1, 60 do
      udp:send(("delayed %d"):format(i))
      traffic.judge_packets(queue, i)
      if problem then
        break
      end
    end
    assert.equal(("cannot delay this packet: memory_limit (%d bytes) is reached"):format(limit), problem)
    longer = pcall(function() kept.payload = ("z"):rep(60000) end)
    assert.is_true(longer) -- of another queue's account
    kept:drop()
    assert.is_true(queue:stats().delayed > 5)
  end)

  it("refuses longer content of a held packet where no room for it is left", function()
    local udp = through_queue()
    local kept = {}
    local queue = traffic.open(3, function(pkt)
      pkt:hold(1000)
      kept[#kept + 1] = pkt
    end, { memory_limit = used() + (1 << 20) })
    udp:send("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
      "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")
    traffic.judge_packets(queue, 20)
    local problem
    for _, pkt in ipairs(kept) do
      local fine, why = pcall(function() pkt.payload = "another, longer text" end)
      problem = problem or not fine and why
    end
    assert.equal("cannot edit this packet: memory_limit is reached", (problem:gsub("^[^:]+:%d+: ", "")))
    for _, pkt in ipairs(kept) do
      pkt:accept()
    end
    assert.equal(20, #udp:received())
  end)
end)
