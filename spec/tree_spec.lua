-- The tree itself: what lies at the top, and that every public name has a doc block.

local net = require("support.net")
local nfqueue = require("nfqueue")
local core = require("nfqueue.core")

local function lines(text)
  local list = {}
  for line in (text .. "\n"):gmatch("([^\n]*)\n") do
    list[#list + 1] = line
  end
  return list
end

local function files(pattern)
  local list = {}
  for path in net.must("ls " .. pattern):gmatch("[^\n]+") do
    list[#list + 1] = path
  end
  return list
end

-- Whether a doc block ends right above a line: `---` comments, or `/***` to `*/`.
local function is_documented(text, number)
  local above = number - 1
  if text[above] and text[above]:find("^%s*%-%-") then
    while text[above - 1] and text[above - 1]:find("^%s*%-%-") do
      above = above - 1
    end
    return text[above]:find("^%s*%-%-%-") ~= nil
  end
  if text[above] and text[above]:find("%*/%s*$") then
    while text[above] and not text[above]:find("/%*") do
      above = above - 1
    end
    return text[above] ~= nil and text[above]:find("/%*%*%*") ~= nil
  end
  return false
end

local SOURCES = {} -- path: lines
for _, path in ipairs(files("src/lua/*.c")) do
  SOURCES[path] = lines(net.read(path))
end

-- Where a C function is defined: path and line.
local function find_definition(name)
  for path, text in pairs(SOURCES) do
    for number, line in ipairs(text) do
      if line:find("int " .. name .. "(lua_State *L)", 1, true) and not line:find(";%s*$") then
        return path, number
      end
    end
  end
end

-- The pairs { "name", function } of every luaL_Reg table in a file.
local function registered(path)
  local list = {}
  for body in net.read(path):gmatch("luaL_Reg [%w_]+%[%] = (%b{})") do
    for name, c_name in body:gmatch('{"([%w_]+)",%s*([%w_]+)}') do
      list[name] = c_name
    end
  end
  return list
end

local function assert_c_documented(label, c_name)
  local path, number = find_definition(c_name)
  assert.is_not_nil(path, ("%s: no definition of %s in src/lua"):format(label, c_name))
  assert.is_true(is_documented(SOURCES[path], number),
    ("%s:%d: %s has no doc block: /*** above %s"):format(path, number, label, c_name))
end

describe("the top level", function()
  local REQUIRED = { "src", "lua", "scripts", "spec", "Makefile", "README.md", "LICENSE" }
  local present = {}
  -- What is tracked, where git tells: a user's own files beside it are nobody's business.
  local tracked, checkout = net.sh("git ls-files")
  for name in (checkout and tracked or net.must("ls -A")):gmatch("[^\n]+") do
    present[name:match("^[^/]+")] = true
  end

  it("holds nothing but what belongs there", function()
    local known = { build = true } -- everything made
    for _, name in ipairs(REQUIRED) do
      known[name] = true
    end
    local rockspecs = 0
    for name in pairs(present) do
      local is_rockspec = name:find("^nfqueue%-[%d.]+%-%d+%.rockspec$") ~= nil
      rockspecs = rockspecs + (is_rockspec and 1 or 0)
      if checkout then
        assert.is_true(known[name] or is_rockspec or name:sub(1, 1) == ".", name .. " does not belong there")
      end
    end
    assert.are.equal(1, rockspecs)
  end)

  it("holds all of it", function()
    for _, name in ipairs(REQUIRED) do
      assert.is_true(present[name], name .. " is missing")
    end
  end)

  it("has the folders of the design under src, and no C file with Lua outside its own", function()
    local known = { packet = true, table = true, netlink = true, host = true, lua = true, ["main.c"] = true }
    for name in net.must("ls -A src"):gmatch("[^\n]+") do
      assert.is_true(known[name], "src/" .. name .. " does not belong there")
    end
    local including = net.sh("grep -lE '#include *<(lua|lauxlib|lualib)\\.h>' -r src")
    for path in including:gmatch("[^\n]+") do
      assert.is_truthy(path:find("^src/lua/") or path == "src/main.c", path .. " includes Lua")
    end
  end)
end)

describe("a doc block", function()
  it("stands above every public Lua function", function()
    local found = 0
    for _, path in ipairs(files("lua/nfqueue/*.lua")) do
      local text = lines(net.read(path))
      for number, line in ipairs(text) do
        local name = line:match("^function ([%w_]+[.:][%w_.:]+)") or line:match("^([%w_]+%.[%w_.]+)%s*=%s*function")
        if name then
          found = found + 1
          assert.is_true(is_documented(text, number), ("%s:%d: %s has no doc block"):format(path, number, name))
        end
      end
    end
    assert.is_true(found >= 3) -- load, run, parse: the search finds something
  end)

  it("stands above every function of the module, Lua or C", function()
    local c_names = registered("src/lua/module.c")
    local found = 0
    for name, value in pairs(nfqueue) do
      if type(value) == "function" then
        found = found + 1
        local info = debug.getinfo(value, "S")
        if info.what == "C" then
          assert.are.equal(core[name], value, name)
          assert_c_documented("nfqueue." .. name, c_names[name])
        else
          assert.is_true(is_documented(lines(net.read(info.source:sub(2))), info.linedefined),
            ("nfqueue.%s has no doc block"):format(name))
        end
      end
    end
    assert.is_true(found >= 6) -- new start stop packet load run
  end)

  it("stands above every method of packets, queues and handlers", function()
    local found = 0
    for path in pairs(SOURCES) do
      for name, c_name in pairs(path == "src/lua/module.c" and {} or registered(path)) do
        -- Metamethods speak for themselves, but for the call of a handler: that is its purpose.
        if not name:find("^__") or name == "__call" then
          found = found + 1
          assert_c_documented(("%s (%s)"):format(name, path), c_name)
        end
      end
    end
    assert_c_documented("handler:close", "handler_close")
    assert.is_true(found >= 25) -- 13 of packets, 12 of queues
  end)

  it("has every field of a header", function()
    local documented, class, found = {}, nil, 0
    for _, line in ipairs(SOURCES["src/lua/header_fields.c"]) do
      class = line:match("^@table (%w+)") or class
      documented[(class or "") .. "." .. (line:match("^@field ([%w_]+)") or "")] = true
    end
    local methods = registered("src/lua/header.c")
    for name, list in net.read("src/lua/header.c"):gmatch("char %*const (%w+)_names%[%] = (%b{})") do
      for field in list:gmatch('"([%w_]+)"') do
        found = found + 1
        assert.is_true(documented[name .. "." .. field] or methods[field] ~= nil,
          ("src/lua/header_fields.c: @table %s has no @field %s"):format(name, field))
      end
    end
    assert.is_true(found >= 45)
  end)

  it("names what it documents: @function of a C function is one that is registered", function()
    local known = {}
    for path in pairs(SOURCES) do
      for name in pairs(registered(path)) do
        known[name] = true
      end
    end
    for path, text in pairs(SOURCES) do
      for number, line in ipairs(text) do
        local name = line:match("^@function ([%w_.:]+)")
        if name then
          assert.is_true(known[name:match("[%w_]+$")], ("%s:%d: %s is registered nowhere"):format(path, number, name))
        end
      end
    end
  end)
end)
