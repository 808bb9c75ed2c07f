-- System calls and allocations of a running worker fail: every packet arrives all the same, edited where it was to be,
-- and the service goes on. Every call in every place, without a kernel: spec/faults/.

local net = require("support.net")

if os.getenv("NFQUEUE_SANITIZE") then
  return pending("failing calls: its own malloc is not the sanitizer's")
end

local LIBRARY = net.build .. "/support/failing.so"
local PORT = 9350
local ERRORS = { EINTR = 4, EAGAIN = 11, ENOBUFS = 105, ENOMEM = 12, EPERM = 1, EMSGSIZE = 90 }

local SCRIPT = [[
  local nfqueue = require("nfqueue")
  local held = {}
  return function(pkt)
    local text = pkt.payload
    if text:find("edit") then
      pkt.payload = text:gsub("edit", "EDITED")
    elseif text:find("late") then
      return pkt:delay(0.001)
    elseif text:find("keep") then
      held[#held + 1] = pkt
      return pkt:hold(5)
    elseif text:find("timer") then
      nfqueue.after(0.001, function()
        for i = 1, #held do
          held[i]:accept()
          held[i] = nil
        end
      end)
    end
    pkt:accept()
  end
]]

local CASES = { -- call, how often it fails, and what ends with it: the worker, then another binds the queue
  { "recvmmsg", 3, { EINTR = false, EAGAIN = false, ENOBUFS = false, ENOMEM = true, EPERM = true, EMSGSIZE = true } },
  { "sendmsg", 3, { EINTR = false, EAGAIN = false, ENOBUFS = false, ENOMEM = false, EMSGSIZE = false, EPERM = true } },
  { "sendmsg", 1, { EPERM = true, SHORT = false } },
  { "epoll_wait", 3, { EINTR = false } },
  { "read", 5, { EINTR = false, EAGAIN = false, ENOMEM = false, EPERM = false } },
  { "memory", 1, { ENOMEM = false } },
  { "memory", 20, { ENOMEM = false } },
}

local box

describe("a worker of which", function()
  before_each(function()
    net.cleanup()
    box = net.udp(PORT)
    net.queue_udp(PORT, 5)
  end)
  after_each(function()
    box.socket:close()
    net.cleanup()
  end)

  for _, case in ipairs(CASES) do
    local call, times, errors = table.unpack(case)
    it(("%s fails %d times loses no packet"):format(call, times), function()
      local run = net.start(("env LD_PRELOAD=%s %s run %s -q 5 --on-error accept")
        :format(LIBRARY, net.command, net.file(SCRIPT)))
      local lives, round = 1, 0
      local function wait_ready()
        net.wait_for("a worker", function() return run:count("ready: ") >= lives end)
      end
      wait_ready()
      for name, ends in pairs(errors) do
        round = round + 1
        box.texts = {}
        local last = "last " .. round
        box:send(("fail %s 1 %d %d  "):format(call, times, ERRORS[name] or 0) .. name, "edit", "late", "keep", "timer",
          "plain", last)
        box:await_count(7)
        if ends then
          lives = lives + 1
          wait_ready()
        end
        local got = {}
        for _, text in ipairs(box.texts) do
          got[text] = (got[text] or 0) + 1
        end
        -- An edit may fail for want of memory, or be of a queue that was left: then the packet arrives unedited.
        assert.equal(1, (got.EDITED or 0) + (got.edit or 0), name)
        if call ~= "memory" and not ends then
          assert.equal(1, got.EDITED, name)
        end
        for _, text in ipairs({ "late", "keep", "timer", "plain", last }) do
          assert.equal(1, got[text], name .. ": " .. text)
        end
        assert.is_true(run:is_alive())
      end
      run:signal("TERM")
      assert.equal(0, run:join())
      assert.equal(lives, run:count("ready: "))
    end)
  end
end)
