-- The rules and commands that the README shows, in a private network.

local net = require("support.net")
local readme = require("support.readme")

-- Of the lines that begin so, each without its sudo and its comment.
local function commands(beginning)
  local list = readme.commands("sudo " .. beginning)
  for i, line in ipairs(list) do
    list[i] = line:gsub("^sudo ", ""):gsub("%s+#.*$", "")
  end
  return list
end

describe("the README's", function()
  after_each(net.cleanup)

  for program, count in pairs({ ["nft "] = 4, ["iptables "] = 2, ["ip6tables "] = 2 }) do
    it(program .. "rules are taken, with bypass", function()
      local lines = commands(program)
      assert.are.equal(count, #lines)
      if program == "nft " then
        local output, possible = net.sh(net.command .. " lab --nft -- true")
        if not possible then
          return pending(output)
        end
      end
      for _, line in ipairs(lines) do
        net.must(line)
      end
      -- The last lets what is sent pass, in front of the one before, the queue's.
      assert.matches("0x6e71", lines[#lines], 1, true)
      assert.matches("bypass", lines[#lines - 1], 1, true)
      local listing = net.must(program == "nft " and "nft list ruleset" or program .. "-w -S OUTPUT")
      assert.is_true(listing:find("6e71") < listing:find("bypass"), listing)
    end)
  end

  it("lab command judges pings", function()
    local lines = readme.commands("build/bin/nfqueue lab -- ")
    assert.are.equal(1, #lines)
    local command = lines[1]:gsub("^build/bin/nfqueue", net.command):gsub("sleep 1", "sleep 3")
    local output = net.must(command)
    assert.matches("ping request 4", output, 1, true)
    assert.matches("4 packets transmitted, 3 received", output, 1, true)
    assert.matches("draining the queues", output, 1, true)
  end)
end)
