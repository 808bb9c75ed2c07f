-- The README's snippets, for the specs that run them.

local readme = {}

local file = assert(io.open("README.md"))
readme.text = file:read("a")
file:close()

--- The blocks of Lua code, in order.
function readme.lua_blocks()
  local blocks = {}
  for block in readme.text:gmatch("```lua\n(.-)```") do
    blocks[#blocks + 1] = block
  end
  return blocks
end

--- The indented lines that begin with these words, without the indentation, in order.
function readme.commands(beginning)
  local lines = {}
  for line in readme.text:gmatch("[^\n]+") do
    local command = line:match("^    (.*)$")
    if command and command:sub(1, #beginning) == beginning then
      lines[#lines + 1] = command
    end
  end
  return lines
end

return readme
