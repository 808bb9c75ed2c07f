-- A kernel without parts of what a queue needs: modules taken out, and nothing loads them again.

local core = require("nfqueue.core")
local net = require("support.net")
local nfqueue = require("nfqueue")
local rules = require("nfqueue.rules")

local MODPROBE = "/proc/sys/kernel/modprobe"
local PROGRAM = net.read(MODPROBE):match("%S+")
local QUEUE_RULES, QUEUE = { "nft_queue", "xt_NFQUEUE" }, "nfnetlink_queue"

-- Namespaces that are still being taken down hold modules for a moment.
local function remove(...)
  for _, module in ipairs({ ... }) do
    net.wait_for(module .. " to be unused", function()
      return not net.read("/proc/modules"):find("^" .. module .. " ") and
        not net.read("/proc/modules"):find("\n" .. module .. " ") or select(2, net.sh("rmmod " .. module))
    end)
  end
end

describe("without", function()
  local path = os.getenv("PATH")
  local folder

  before_each(function()
    net.must("echo /bin/false >" .. MODPROBE)
    -- iptables calls modprobe by its name, and some programs by its path.
    folder = net.must("mktemp -d")
    net.must(("ln -s /bin/false %s/modprobe"):format(folder))
    core.setenv("PATH", folder .. ":" .. path)
  end)

  after_each(function()
    net.must(("echo %s >%s"):format(PROGRAM, MODPROBE))
    core.setenv("PATH", path)
    net.must("rm -r " .. folder)
    net.cleanup()
    net.must(("modprobe -a %s %s"):format(table.concat(QUEUE_RULES, " "), QUEUE))
  end)

  it("nft_queue the rules are iptables' own, and nft's are refused by name", function()
    remove("nft_queue")
    local sentence = "this kernel has no nft queue expression (CONFIG_NFT_QUEUE, module nft_queue)"
    assert.same({ n = 2, nil, sentence }, table.pack(rules.apply("output", 0, 0, "nft")))
    assert.equal("iptables", rules.apply("output", 0, 0))
    local output, _, status = net.sh(net.command .. " lab --nft -- true")
    assert.equal("nfqueue: cannot put a queue in the path: " .. sentence, output)
    assert.equal(69, status)
    assert.matches("%-j NFQUEUE", net.must(net.command .. " lab -- iptables -S OUTPUT"))
  end)

  it("both rule modules the lab says what is missing", function()
    remove(table.unpack(QUEUE_RULES))
    local output, _, status = net.sh(net.command .. " lab -- true")
    assert.equal(69, status, output)
    assert.matches("^nfqueue: cannot put a queue in the path: this kernel has no nft queue expression %b(); iptables: "
      .. "[^\n]*$", output)
  end)

  describe("nfnetlink_queue", function()
    before_each(function()
      remove(table.unpack(QUEUE_RULES))
      remove(QUEUE)
    end)

    it("the command says so and ends with 69", function()
      local output, _, status = net.sh(net.command .. " run scripts/demo.lua -q 0")
      assert.equal(69, status, output)
      assert.matches("^[^\n]*nfnetlink_queue[^\n]*$", output)
    end)

    it("a queue of the module does not open and names it", function()
      local done, message, errno = nfqueue.new(0, function() end):open()
      assert.is_nil(done)
      assert.matches("nfnetlink_queue", message)
      assert.equal("integer", math.type(errno))
      done, message = nfqueue.run({ script = "scripts/demo.lua", queues = 0 })
      assert.is_nil(done)
      assert.matches("nfnetlink_queue", message)
    end)
  end)
end)
