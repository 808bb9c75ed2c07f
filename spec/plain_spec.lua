-- Bytecode is loaded by no way that a script of the command has, sandbox or not.

local net = require("support.net")

local NFQUEUE = net.build .. "/bin/nfqueue"

describe("a script of the command", function()
  local folder

  before_each(function()
    folder = net.must("mktemp -d")
  end)

  after_each(function()
    net.must("rm -rf " .. folder)
  end)

  local function write(name, text)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
    return path
  end

  -- What the script prints under check, one line each.
  local function run(text)
    local path = write("script.lua",
      ("local folder = %q\n%s\nreturn function() return 'accept' end"):format(folder, text))
    local output, _, status = net.sh(("timeout 20 %s check %s"):format(NFQUEUE, path))
    assert.are.equal(0, status, output)
    local lines = {}
    for line in output:gsub("IPv4 TCP SYN.*", ""):gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    return lines
  end

  local CODE = [[local code = string.dump(function() return "bytecode" end) ]]
  local REFUSED = "attempt to load a binary chunk %(mode is 't'%)"

  for _, case in ipairs({ -- what is tried, what it says
    { "print(load(code))", REFUSED },
    { "print(load(code, 'name'))", REFUSED },
    { "print(load(code, 'name', 'bt'))", REFUSED },
    { "print(load(code, 'name', 'b'))", "bytecode is never loaded %(mode is 'b'%)" },
    { "print(load(code, 'name', 'b', {}))", "bytecode is never loaded %(mode is 'b'%)" },
    { "local sent print(load(function() if not sent then sent = true return code end end))", REFUSED },
    { "print(loadfile(folder .. '/binary.lua'))", REFUSED },
    { "print(loadfile(folder .. '/binary.lua', 'bt'))", REFUSED },
    { "print(loadfile(folder .. '/binary.lua', 'b'))", "bytecode is never loaded %(mode is 'b'%)" },
    { "print(pcall(dofile, folder .. '/binary.lua'))", REFUSED },
    { "package.path = folder .. '/?.lua' print((select(2, pcall(require, 'binary')):gsub('\\n', ' ')))", REFUSED },
  }) do
    it("is refused: " .. case[1], function()
      write("binary.lua", string.dump(function() return "bytecode" end))
      local lines = run(CODE .. case[1])
      assert.are.equal(1, #lines)
      assert.matches(case[2], lines[1])
      assert.is_nil(lines[1]:find("true\tbytecode", 1, true))
    end)
  end

  it("loads text as ever", function()
    write("text.lua", "local name, path = ... return { name = name, path = path, value = value }")
    assert.are.same({
      "3\t4", "1\tnil", "nil\t[string \"x x\"]:1: syntax error near 'x'", "text\ttrue\tnil", "nil", "table\t7",
      "true", "false",
    }, run([[
      print(load("return ...")(3), load("return ...", "name", "t")(4))
      print(load("return value", "name", "t", { value = 1 })(), load("return value", nil, nil, nil) and nil)
      print(load("x x"))
      package.path = folder .. "/?.lua;" .. package.path
      local text, path = require("text")
      print(text.name, path == folder .. "/text.lua" and text.path == path, text.value)
      print(dofile(folder .. "/text.lua").name)
      print(type(loadfile(folder .. "/text.lua")()), loadfile(folder .. "/text.lua", "t", { value = 7 })().value)
      print(require("text") == text)
      print((pcall(require, "no.such.module")))]]))
  end)
end)
