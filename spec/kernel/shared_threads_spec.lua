-- Tables of a real run: queues in threads and Lua states of their own share what has a name.

local net = require("support.net")

local PORT = 4300
local QUEUES = 4

before_each(net.cleanup)
after_each(net.cleanup)

--- Calls `work` of the script in every thread at once, before the first packet; what `finish` tells, at the end of the
-- last queue.
local function in_threads(script, arguments)
  local run = net.run(("%s -q 5-%d --threads %d %s"):format(net.file(([[
    local nfqueue = require("nfqueue")
    local args = ...
    local work, finish
    %s
    local ends = nfqueue.shared("ends")
    return {
      open = work,
      packet = function(pkt) pkt:accept() end,
      close = function(queue)
        if ends:incr("closed") == %d then
          io.stderr:write("told ", finish(queue), "\n")
        end
      end,
    }
  ]]):format(script, QUEUES)), 4 + QUEUES, QUEUES, arguments or ""))
  run:signal("TERM")
  assert.equal(0, run:join())
  return run:output():match("told ([^\n]*)\n") or run:output()
end

describe("queues in threads of their own", function()
  it("count in one store, and no packet is lost or counted twice", function()
    local each = 100
    local run = net.run(("%s -q 5-%d --threads %d"):format(net.file([[
      local nfqueue = require("nfqueue")
      local store = nfqueue.shared("counts", { max_bytes = 1 << 20 })
      return {
        packet = function(pkt, queue)
          store:incr("all")
          store:incr("queue " .. queue.number)
          pkt:accept()
        end,
        close = function()
          if store:incr("closed") == 4 then
            local words = {}
            for _, key in ipairs(store:keys()) do
              words[#words + 1] = key .. "=" .. store:get(key)
            end
            table.sort(words)
            io.stderr:write("counts ", table.concat(words, " "), "\n")
          end
        end,
      }
    ]]), 4 + QUEUES, QUEUES))
    local boxes = {}
    for i = 1, QUEUES do
      boxes[i] = net.udp(PORT + i)
      net.queue_udp(PORT + i, 4 + i)
    end
    for _ = 1, each do
      for i = 1, QUEUES do
        boxes[i]:send("one")
      end
    end
    for i = 1, QUEUES do
      boxes[i]:await_count(each)
      boxes[i]:close()
    end
    run:signal("TERM")
    assert.equal(0, run:join())
    assert.matches(("counts all=%d closed=4 queue 5=%d queue 6=%d queue 7=%d queue 8=%d\n")
      :format(QUEUES * each, each, each, each, each), run:output(), 1, true)
  end)

  it("lose no increment of the same key while all of them write", function()
    assert.equal("120000 120000.0 true", in_threads([[
      local store = nfqueue.shared("same")
      function work()
        for _ = 1, 30000 do
          store:incr("integer")
          store:incr("float", 1.0)
        end
        store:add("first", true)
      end
      function finish()
        return ("%s %s %s"):format(store:get("integer"), store:get("float"), store:get("first"))
      end
    ]]))
  end)

  it("share a bucket's tokens", function()
    assert.equal("1000", in_threads([[
      local bucket = nfqueue.bucket("sources", { rate = 1e-9, burst = 1000 })
      local store = nfqueue.shared("taken")
      function work()
        for _ = 1, 2000 do
          if bucket:take("192.0.2.1") then
            store:incr("taken")
          end
        end
      end
      function finish()
        return tostring(store:get("taken"))
      end
    ]]))
  end)

  --- Kilobytes of a run whose threads have all loaded the same list of so many hosts.
  local function memory_with(list, count, name)
    local told = in_threads([[
      local set = assert(nfqueue.cidrset({ name = args.name }))
      assert(assert(set:load(args.list)) == tonumber(args.count))
      assert(set:find("2001:db8:1:0::4000") == "value 0" and not set:find("2001:db8::"))
      local store = nfqueue.shared("memory")
      function work()
        if store:incr("open") == 4 then -- so all have loaded
          for line in io.lines("/proc/self/status") do
            if line:find("VmRSS") then
              store:set("size", line:match("%d+"))
            end
          end
        end
      end
      function finish()
        return store:get("size")
      end
    ]], ("-- list=%s count=%d %s"):format(list, count, name))
    return assert(tonumber(told), told)
  end

  it("have one copy of a list that has a name", function()
    local list = net.file()
    local file = assert(io.open(list, "w"))
    local count = os.getenv("NFQUEUE_SANITIZE") and 20000 or 200000 -- 3.4 MB
    for i = 0, count - 1 do
      file:write(("2001:db8:1:%x::%x value %d\n"):format(i >> 16, i & 0xffff, i % 128))
    end
    file:close()
    local one = memory_with(list, count, "name=hosts")
    local four = memory_with(list, count, "")
    if not os.getenv("NFQUEUE_SANITIZE") then
      assert.is_true(four - one > 7000, ("%d KB with one copy, %d KB with four"):format(one, four))
    end
  end)

  it("see what one of them loads", function()
    local list = net.file("10.0.0.0/8 loaded\n")
    assert.equal("loaded", in_threads([[
      local set = nfqueue.cidrset({ name = "nets" })
      function work(queue)
        if queue.number == 6 then
          assert(set:load(args.list) == 1)
        end
      end
      function finish()
        return tostring(set:find("10.1.2.3"))
      end
    ]], "-- list=" .. list))
  end)

  it("raise where two ask for different things under one name, and nothing starts", function()
    local run = net.start(("%s run %s -q 5-6 --threads 2"):format(net.command, net.file([[
      local nfqueue = require("nfqueue")
      local turn = nfqueue.shared("turn"):incr("turn")
      nfqueue.bucket("sources", { rate = turn })
      return function(pkt) pkt:accept() end
    ]])))
    assert.equal(65, run:join())
    assert.matches("bad argument 'options' to 'bucket' ('sources' exists with rate ", run:output(), 1, true)
  end)
end)

describe("the module's own state, and threads that it starts one after the other", function()
  it("find the same tables", function()
    local box = net.udp(PORT)
    net.queue_udp(PORT, 5)
    local process = net.start(("%s %s"):format(net.lua, net.file(([[
      package.path, package.cpath = %q, %q
      local nfqueue = require("nfqueue")
      local store = nfqueue.shared("between", { max_bytes = 8192 })
      store:set("text", "host")
      for _ = 1, 2 do
        print(nfqueue.run({ script = %q, queues = 5 }))
        print(store:get("text"), store:get("chunks"))
      end
    ]]):format(package.path, package.cpath, net.file([[
      local nfqueue = require("nfqueue")
      local store = nfqueue.shared("between")
      store:incr("chunks")
      return function(pkt)
        pkt:accept()
        store:set("text", store:get("text") .. " thread")
        nfqueue.stop()
      end
    ]])))))
    for i = 1, 2 do
      net.wait_for("the queue", function() return net.queue(5) and process:count("true\n") == i - 1 end)
      box:send("one")
      process:await(i == 1 and "host thread\t1\n" or "host thread thread\t2\n")
    end
    assert.equal(0, process:join())
    box:close()
  end)
end)
