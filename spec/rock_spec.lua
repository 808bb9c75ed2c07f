-- The tree as LuaRocks and `make install` put it somewhere: built without a network, then used from there by
-- a process that knows nothing of the source tree.

local net = require("support.net")

local folder, copy

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- In the private network, whose only interface is its own loopback.
local function offline(command)
  return net.sh(("%s lab --hook none -- sh -c %s"):format(net.command, quote(command)))
end

--- From another folder, with nothing in the environment but what is given.
local function bare(command, environment)
  return net.sh(("cd / && env -i %s %s"):format(environment or "", command))
end

setup(function()
  folder = net.must("mktemp -d")
  copy = folder .. "/build/source" -- people have folders of that name
  net.must(("mkdir -p %s && tar -c --exclude=./build --exclude=./.git . | tar -x -C %s"):format(copy, copy))
end)

teardown(function()
  os.execute("rm -rf " .. quote(folder))
end)

--- What must work from a tree: `bin` the command, and the paths of its Lua files and its module.
local function assert_works(bin, lua_path, lua_cpath)
  local version = net.must(net.command .. " --version")
  assert.equal(version, (bare(bin .. " --version")))
  assert.equal("nfqueue 0.1.0", version)
  -- By its name: the scripts came along too.
  local text, fine = bare(bin .. " check demo")
  assert.is_true(fine, text)
  assert.matches("IPv4 TCP SYN +accept", text)
  -- A script of somebody else, which requires the module of this tree.
  local script = folder .. "/handler.lua"
  local file = assert(io.open(script, "w"))
  file:write([[
    local found = package.searchpath("nfqueue", package.path)
    print("module " .. found .. " " .. require("nfqueue")._VERSION)
    return function(pkt) return "drop" end
  ]])
  file:close()
  text, fine = bare(bin .. " check " .. script)
  assert.is_true(fine, text)
  assert.matches("IPv6 UDP +drop", text)
  local module = text:match("module (%S+/nfqueue/init.lua) nfqueue 0.1.0\n")
  assert.is_string(module, text)
  assert.equal(net.must(("realpath %s"):format(lua_path .. "/nfqueue/init.lua")), net.must("realpath " .. module))
  -- The module alone, in a stock interpreter.
  text = bare("lua5.4 -e " .. quote([[
    local nfqueue = require("nfqueue")
    print(nfqueue._VERSION)
    print(package.searchpath("nfqueue.core", package.cpath))
    print(package.searchpath("nfqueue", package.path))
    print(nfqueue.new(65535, function() end))
  ]]), ("'LUA_PATH=%s/?.lua;%s/?/init.lua' 'LUA_CPATH=%s/?.so'"):format(lua_path, lua_path, lua_cpath))
  assert.equal(("nfqueue 0.1.0\n%s/nfqueue/core.so\n%s/nfqueue/init.lua\nqueue 65535 (idle)")
    :format(lua_cpath, lua_path), text)
  -- The command runs the real thing from there.
  text, fine = offline(([[
    cd /
    rm -f %s/log
    env -i %s run %s -q 7 >%s/log 2>&1 &
    tries=500
    until grep -q ready: %s/log || [ $tries = 0 ]; do tries=$((tries - 1)); sleep 0.02; done
    kill -TERM $!
    wait $!
  ]]):format(folder, bin, script, folder, folder))
  assert.is_true(fine, text .. net.read(folder .. "/log"))
  assert.matches("module [^\n]* nfqueue 0.1.0\n", net.read(folder .. "/log"))
end

describe("LuaRocks", function()
  it("makes a tree without a network, and the command and the module work from it", function()
    if not select(2, net.sh("command -v luarocks")) then
      pending("luarocks is not installed")
    end
    local tree = folder .. "/rocks"
    local text, fine = offline(("cd %s && luarocks --lua-version 5.4 --tree %s make"):format(copy, tree))
    assert.is_true(fine, text)
    assert.matches("nfqueue 0.1.0-1 is now installed in " .. tree, text, 1, true)
    assert.equal("", (net.sh("find " .. tree .. " -name '*.o'")))
    assert_works(tree .. "/bin/nfqueue", tree .. "/share/lua/5.4", tree .. "/lib/lua/5.4")
    text = offline(("luarocks --lua-version 5.4 --tree %s list --porcelain"):format(tree))
    assert.matches("nfqueue\t0.1.0-1\tinstalled", text, 1, true)
    text, fine = offline(("luarocks --lua-version 5.4 --tree %s remove nfqueue"):format(tree))
    assert.is_true(fine, text)
    assert.equal("", (net.sh(("find %s -name '*nfqueue*' -not -path '*/rocks-5.4*'"):format(tree))))
  end)
end)

describe("make", function()
  it("leaves a command that works from build/bin, wherever the tree lies", function()
    local text, fine = offline(("make -s -C %s"):format(copy))
    assert.is_true(fine, text)
    assert.equal("nfqueue 0.1.0", (bare(copy .. "/build/bin/nfqueue --version")))
    text, fine = bare(copy .. "/build/bin/nfqueue check demo")
    assert.is_true(fine, text)
  end)
end)

describe("make install", function()
  it("fills a staging folder that can be moved anywhere, and uninstall empties it", function()
    local stage = copy .. "/build/stage" -- inside the source tree, whose files must not be taken for its own
    local words = ("make -C %s %%s DESTDIR=%s PREFIX=/usr"):format(copy, stage)
    local text, fine = offline(words:format("install"))
    assert.is_true(fine, text)
    local moved = folder .. "/moved"
    net.must(("cp -a %s %s"):format(stage, moved))
    assert_works(stage .. "/usr/bin/nfqueue", stage .. "/usr/share/lua/5.4", stage .. "/usr/lib/lua/5.4")
    assert_works(moved .. "/usr/bin/nfqueue", moved .. "/usr/share/lua/5.4", moved .. "/usr/lib/lua/5.4")
    -- Through a link, as /usr/local/bin often has it.
    net.must(("ln -s %s/usr/bin/nfqueue %s/linked"):format(moved, folder))
    assert.equal("nfqueue 0.1.0", (bare(folder .. "/linked --version")))
    text, fine = offline(words:format("uninstall"))
    assert.is_true(fine, text)
    assert.equal("", (net.must(("find %s -not -type d"):format(stage))))
  end)
end)
