-- Stores, buckets and sets while several threads pull at them: spec/threads, without Lua.

local net = require("support.net")

local program = net.build .. "/threads"

local function run(part)
  local file = io.open(program)
  if not file then
    return pending("make test builds " .. program)
  end
  file:close()
  local output, fine = net.sh(program .. " " .. part)
  assert.is_true(fine, output)
  return output
end

describe("tables under several threads", function()
  it("keep what they promise", function()
    local output = run("stress")
    for _, what in ipairs({
      "no increment is lost", "of all that add, one does", "values are whole while entries come and go",
      "what was used longest ago goes first", "no token is given twice", "searches go on while the content is replaced",
      "what did not change is not read again", "tables are found by name",
    }) do
      assert.matches("ok: " .. what .. "\n", output .. "\n", 1, true)
    end
  end)
end)
