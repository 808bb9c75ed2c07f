-- A worker that dies in a narrow place: on return from receiving, before, between and after the sends of one batch.
-- Each packet has its handler's verdict all the same, once.

local net = require("support.net")

if net.no_queue_list() then
  return pending("deaths in narrow places: " .. net.no_queue_list())
end

local LIBRARY = net.build .. "/support/dying.so"
local PORT = 4900
local SIZE = 4000 -- of an edited packet: 60 of them are more than one send takes
local boxes

-- The handler says "judged" for each packet it is given; edits carry the pid of the worker they come from.
local SCRIPT = [[
  local args = ...
  local kept = {}
  local pid = io.open("/proc/self/stat"):read("n")
  return function(pkt)
    local text = pkt.payload
    io.stderr:write(("judged %s by %d\n"):format(text:sub(1, 40), pid))
    if text:find("poison", 1, true) then
      os.execute("kill -KILL " .. pid)
    elseif text:find("drop", 1, true) then
      pkt:drop()
    elseif text:find("mark", 1, true) then
      pkt:accept({ mark = 77 })
    elseif text:find("edit", 1, true) then
      pkt.payload = text:sub(1, 30):gsub("edit", "EDIT") .. ("y"):rep(#text - 30)
      pkt:accept()
    elseif text:find("hold", 1, true) then
      pkt:hold(1000, text:find("other") and "drop" or "accept")
      kept[#kept + 1] = pkt
    elseif text:find("release", 1, true) then
      for i = #kept, 1, -1 do
        kept[i]:accept({ mark = 77 })
      end
      kept = {}
      pkt:drop()
    else
      pkt:accept()
    end
  end
]]

before_each(function()
  net.cleanup()
  boxes = { net.udp(PORT), net.udp(PORT + 1), net.udp(PORT + 2) }
end)

after_each(function()
  for _, box in ipairs(boxes) do
    box:close()
  end
  net.cleanup()
end)

local function start(options)
  for i = 1, 3 do
    net.queue_udp(PORT + i - 1, 4 + i, "")
  end
  net.must(("iptables -w -A INPUT -p udp --dport %d:%d -m mark --mark 77"):format(PORT, PORT + 2))
  return net.run(("%s -q 5-7 --threads 1 %s"):format(net.file(SCRIPT), options or "--on-error drop"), LIBRARY)
end

-- The packets, of any of the boxes, are received in one batch: { box, text }.
local function send_at_once(run, list)
  local worker = run:worker()
  net.pause(worker)
  for _, item in ipairs(list) do
    boxes[item[1]]:send(item[2])
  end
  net.must("kill -CONT " .. worker)
end

local function await_end(run, deaths)
  net.wait_for("the successor", function()
    -- one that dies before it was ready has no such line
    return run:count("starting another") == deaths and run:output():match(".*starting another(.*)"):find("ready:")
  end)
  net.await_judged(5, 6, 7)
end

local function sorted(list)
  local copy = { table.unpack(list) }
  table.sort(copy)
  return copy
end

-- Nothing of what was sent is on its way any more when this has come.
local function received(number)
  boxes[number]:send("last")
  local texts = sorted(boxes[number]:await("last"))
  for i, text in ipairs(texts) do
    if text == "last" then
      table.remove(texts, i)
      break
    end
  end
  return texts
end

describe("a worker that dies", function()
  for _, where in ipairs({ "die received", "die before send 1", "die after send 1" }) do
    it(("(%s) leaves every packet of its three queues the verdict of a handler"):format(where), function()
      local run = start()
      send_at_once(run, {
        { 1, "one" }, { 2, "mark two" }, { 3, "drop three" }, { 1, where }, { 2, "edit five" .. ("x"):rep(100) },
        { 3, "six" }, { 1, "drop seven" }, { 2, "eight" }, { 3, "mark nine" },
      })
      await_end(run, 1)
      assert.same(sorted({ "one", where }), received(1))
      assert.same(sorted({ "mark two", "eight", "EDIT five" .. ("x"):rep(21) .. ("y"):rep(79) }), received(2))
      assert.same(sorted({ "mark nine", "six" }), received(3))
      assert.equal(2, net.rule_packets("INPUT", "mark match 0x4d"))
      -- Decided once: what had been decided was sent again as it was, what had not went to the successor's handler.
      assert.equal(9 + 3, run:count("judged "))
      assert.equal(0, run:count("died in the handler"))
      assert.equal(1, run:count("starting another"))
    end)
  end

  for _, where in ipairs({ "die before send 2", "die after send 2", "die after send 1" }) do
    it(("(%s) of a batch that takes several leaves every edit as it was made"):format(where), function()
      local run = start()
      local list, expected = {}, { {}, {}, {} }
      for number = 1, 60 do
        local text = ("edit %02d %s "):format(number, number == 7 and where or "")
        list[number] = { number % 3 + 1, text .. ("x"):rep(SIZE - #text) }
        table.insert(expected[number % 3 + 1], ("EDIT %02d, %d edited"):format(number, SIZE - 30))
      end
      send_at_once(run, list)
      await_end(run, 1)
      for i = 1, 3 do
        local texts = received(i)
        for k, text in ipairs(texts) do
          texts[k] = ("%s, %d edited"):format(text:sub(1, 7), select(2, text:gsub("y", "")))
        end
        assert.same(expected[i], texts)
      end
      assert.equal(60 + 3, run:count("judged "))
    end)
  end

  for _, where in ipairs({ "die before send 1", "die after send 1" }) do
    it(("(%s) after packets were held, and settled last first, gives none a second verdict"):format(where), function()
      local run = start("--on-error accept")
      send_at_once(run, { { 1, "hold 1" }, { 1, "hold 2" }, { 2, "hold 3" }, { 1, "hold other 4" }, { 2, "pass" } })
      boxes[2]:await("pass")
      send_at_once(run, { { 1, "release " .. where }, { 2, "between" } })
      await_end(run, 1)
      assert.same({ "hold 1", "hold 2", "hold other 4" }, received(1))
      assert.same({ "between", "hold 3", "pass" }, received(2))
      -- They were settled, and not, as they would be for a dead holder, given the verdict they were held with.
      assert.equal(4, net.rule_packets("INPUT", "mark match 0x4d"))
      local texts = boxes[1]:all()
      assert.same({ "hold other 4", "hold 2", "hold 1" }, { texts[1], texts[2], texts[3] })
    end)
  end

  it("leaves held packets their verdict when it dies on return from receiving", function()
    local run = start("--on-error accept")
    send_at_once(run, { { 1, "hold 1" }, { 1, "hold other 2" }, { 2, "pass" } })
    boxes[2]:await("pass")
    send_at_once(run, { { 1, "three" }, { 2, "die received" }, { 1, "hold 4" } })
    net.wait_for("the successor", function()
      return run:count("ready:") == 2 and net.queue(5).waiting == 1
    end)
    assert.same({ "hold 1", "three" }, received(1))
    assert.same({ "die received", "pass" }, received(2))
    boxes[1]:send("release")
    boxes[1]:await("hold 4")
  end)

  it("with a message that died with it leaves that packet to on_error, though none follows", function()
    for _, policy in ipairs({ "accept", "drop" }) do
      local run = start("--on-error " .. policy)
      boxes[1]:send("die lost")
      await_end(run, 1)
      assert.same(policy == "accept" and { "die lost" } or {}, received(1))
      assert.equal(0, run:count("judged die lost"))
      run:signal("TERM")
      assert.equal(0, run:join())
      net.flush_rules()
      boxes[1].texts = {}
    end
  end)

  it("with a message that died with it leaves the next packet to its handler", function()
    local run = start("--on-error drop")
    local worker = run:worker()
    send_at_once(run, { { 1, "die lost" } })
    net.wait_for("its death", function()
      return not net.read(("/proc/%d/stat"):format(worker)):find("%) [RS]")
    end)
    boxes[1]:send("mark next")
    await_end(run, 1)
    assert.same({ "mark next" }, received(1))
    assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
  end)

  it("as a successor that has sent its barrier leaves what comes then to a handler", function()
    local run = start("--on-error accept")
    local old = run:worker()
    boxes[1]:send("die received, halt at barrier")
    local pid = net.wait_for("a successor that stands still", function()
      local found = math.tointeger(tonumber((net.sh("pgrep -P " .. run.pid))))
      return found and found ~= old and net.read(("/proc/%d/stat"):format(found)):find("%) T") and found
    end)
    -- The answer to its barrier lies in front of these, the next one's behind them.
    for number = 1, 20 do
      boxes[1]:send("mark " .. number)
    end
    net.must("kill -KILL " .. pid)
    await_end(run, 2)
    assert.equal(21, #received(1))
    assert.equal(20, net.rule_packets("INPUT", "mark match 0x4d"))
  end)

  it("of two poison packets in one batch gives both on_error, and the others their handler", function()
    for _, policy in ipairs({ "accept", "drop" }) do
      local run = start("--on-error " .. policy)
      send_at_once(run, { { 1, "one" }, { 2, "poison 2" }, { 3, "mark three" }, { 1, "poison 4" }, { 2, "five" } })
      await_end(run, 2)
      local accepts = policy == "accept"
      assert.same(accepts and { "one", "poison 4" } or { "one" }, received(1))
      assert.same(accepts and { "five", "poison 2" } or { "five" }, received(2))
      assert.same({ "mark three" }, received(3))
      assert.equal(2, run:count("died in the handler of packet"))
      assert.equal(2, run:count("judged poison"))
      assert.equal(1, net.rule_packets("INPUT", "mark match 0x4d"))
      run:signal("TERM")
      assert.equal(0, run:join())
      net.flush_rules()
      for _, box in ipairs(boxes) do
        box.texts = {}
      end
    end
  end)
end)
