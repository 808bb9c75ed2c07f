-- Hostile bytes into the objects that ship, a hundredth of what `make asan` gives them: messages as no kernel sends
-- them, packets, edits, verdicts. spec/fuzz/hostile.c says what it checks.

local net = require("support.net")

local program = net.build .. "/hostile"

describe("hostile bytes", function()
  it("are read, answered and edited as the headers promise", function()
    local file = io.open(program)
    if not file then
      return pending("make test builds " .. program)
    end
    file:close()
    local output, fine = net.sh(program .. " 0x6e66717565756531 1")
    assert.is_true(fine, output)
    assert.matches(", 0 failures$", output)
  end)
end)
