-- Every piece of Lua in the README runs and does what the text says.

local datagram = require("support.datagram")
local nfqueue = require("nfqueue")
local readme = require("support.readme")
local unit = require("support.unit")

local blocks = readme.lua_blocks()

-- UDP to port 53, to the resolver of the first handler or to somebody else.
local function question(target)
  local bytes = datagram.right(datagram.ip4(datagram.udp("question")))
  local pkt = nfqueue.packet(bytes)
  pkt:patch(16, target)
  pkt:accept()
  return nfqueue.packet(pkt.sent)
end

describe("the README", function()
  it("has the snippets that are run here", function()
    assert.are.equal(4, #blocks)
  end)

  it("shows a handler of at most ten lines that does what it says", function()
    local _, lines = blocks[1]:gsub("\n", "")
    assert.is_true(lines <= 10, lines)
    local handler = assert(nfqueue.load(unit.file(blocks[1])))
    assert.are.equal("accept", handler(question("\192\0\2\53")))
    assert.are.equal("drop", handler(question("\192\0\2\54")))
    assert.are.equal("accept", handler(nfqueue.packet(datagram.right(datagram.ip4(datagram.icmp("ping"))))))
  end)

  it("shows the table form", function()
    local handler = assert(nfqueue.load(unit.file(blocks[2]), { key = "value" }))
    assert.are.equal(256, handler.config.copy_range)
    assert.are.equal("accept", handler(question("\192\0\2\53")))
  end)

  it("shows the module", function()
    local started
    local function new(number, handler, config)
      local queue = nfqueue.new(number, handler, config) -- checks them
      started = queue.number
      return { start = function() return true end }
    end
    local environment = setmetatable({
      require = function(name)
        return name == "nfqueue" and setmetatable({ new = new }, { __index = nfqueue })
      end,
    }, { __index = _G })
    assert(load(blocks[3], "=README", "t", environment))()
    assert.are.equal(0, started)
  end)

  it("shows how a handler is tested", function()
    local path = unit.file(blocks[1])
    local environment = setmetatable({
      nfqueue = setmetatable({ load = function(name)
        assert.are.equal("/tmp/nodns.lua", name)
        return nfqueue.load(path)
      end }, { __index = nfqueue }),
      bytes = question("\192\0\2\54"):bytes(),
    }, { __index = _G })
    assert(load(blocks[4], "=README", "t", environment))()
  end)
end)
