-- A build without an optional library: everything else works, and what needs it says so by name.

local net = require("support.net")
local unit = require("support.unit")

local MISSING = "this build has no libpcap: install Debian's libpcap-dev (or its like) and build again"
local ENOTSUP = 95
local folder

setup(function()
  folder = net.must("mktemp -d")
  -- Not the flags of the build under test: the same code is built once more, quickly.
  net.must(("env LD_PRELOAD= make -s all OPTIONAL= BUILD=%s CFLAGS=-O0 EXTRA_CFLAGS= EXTRA_LDFLAGS="):format(folder))
end)

teardown(function()
  net.must("rm -rf " .. folder)
end)

after_each(unit.cleanup)

local function environment()
  return ("LD_PRELOAD= LUA_PATH='lua/?.lua;lua/?/init.lua;;' LUA_CPATH='%s/lib/?.so;;'"):format(folder)
end

local function lua(source)
  return net.sh(("%s lua5.4 %s"):format(environment(), unit.file("local nfqueue = require('nfqueue')\n" .. source)))
end

local function command(arguments)
  local output, _, status = net.sh(("%s %s/bin/nfqueue %s"):format(environment(), folder, arguments))
  return status, output
end

describe("without libcap-ng and libseccomp", function()
  it("nothing is linked against them", function()
    local libraries = net.must("ldd " .. folder .. "/bin/nfqueue")
    assert.is_nil(libraries:find("cap-ng", 1, true) or libraries:find("seccomp", 1, true))
  end)

  for _, case in ipairs({ { "--user nobody", "libcap-ng" }, { "--confine", "libseccomp" } }) do
    it(case[1] .. " says what it needs", function()
      local status, output = command("run -q 0 demo " .. case[1])
      assert.are.equal(69, status)
      assert.are.equal(("nfqueue: error: option '%s' needs %s, and this build has none: install Debian's %s-dev (or "
        .. "its like) and build again"):format(case[1]:match("^%S+"), case[2], case[2]), output)
    end)
  end
end)

describe("without libpcap", function()
  it("nothing is linked against it", function()
    for _, file in ipairs({ "bin/nfqueue", "lib/nfqueue/core.so" }) do
      assert.is_nil(net.must("ldd " .. folder .. "/" .. file):find("libpcap", 1, true), file)
    end
  end)

  it("nfqueue.filter fails with a message", function()
    assert.are.equal(("nil\tfilters need libpcap, and %s\t%d"):format(MISSING, ENOTSUP),
      (lua("print(nfqueue.filter('tcp'))")))
  end)

  it("nfqueue.pcap fails with a message, and touches no file", function()
    local path = folder .. "/none.pcap"
    for _, call in ipairs({ "open", "create" }) do
      assert.are.equal(("nil\tcapture files need libpcap, and %s\t%d"):format(MISSING, ENOTSUP),
        (lua(("print(nfqueue.pcap.%s(%q))"):format(call, path))))
    end
    assert.is_nil(io.open(path))
  end)

  it("the configuration's filter is refused by name", function()
    assert.matches(("bad argument 'filter' to 'new' (filters need libpcap, and %s)"):format(MISSING),
      lua("nfqueue.new(0, print, { filter = 'tcp' })"), 1, true)
    local path = unit.file("return { packet = print, config = { filter = 'tcp' } }")
    local status, output = command("run -q 0 " .. path)
    assert.are.equal(78, status)
    assert.are.equal(("nfqueue: error: %s: bad argument 'filter' to 'script' (filters need libpcap, and %s)")
      :format(path, MISSING), output)
  end)

  it("--filter is a feature that is missing", function()
    local status, output = command("run demo -q 0 --filter tcp")
    assert.are.equal(69, status)
    assert.are.equal("nfqueue: option '--filter': filters need libpcap, and " .. MISSING, output)
  end)

  it("handlers work", function()
    local status, output = command("check demo")
    assert.are.equal(0, status, output)
  end)
end)
