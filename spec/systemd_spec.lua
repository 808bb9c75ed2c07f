-- The unit that `make install` ships: what systemd itself says of it.

local net = require("support.net")

local folder

setup(function()
  folder = net.must("mktemp -d")
  -- The unit alone, for the command of this build: as the Makefile's rule fills it in.
  local command = net.must("realpath " .. net.command):gsub("/nfqueue$", "")
  net.must(("make -s -n install BUILD=%s BINDIR=%s UNITDIR=%s | grep \"@BINDIR@\" | sh"):format(net.build, command,
    folder))
end)

teardown(function()
  net.sh("rm -r " .. folder)
end)

describe("nfqueue@.service", function()
  local unit

  setup(function()
    unit = net.read(folder .. "/nfqueue@.service")
  end)

  it("runs the installed command, which tells when it is ready, with a descriptor store", function()
    assert.is_nil(unit:find("@BINDIR@", 1, true))
    local command = unit:match("\nExecStart=(/[^\n]*/nfqueue) run %-%-name %%i %$ARGUMENTS\n")
    assert.is_truthy(command)
    -- It waits, and fails where the script in force stays.
    assert.matches("\nExecReload=" .. command .. " reload --name %i\n", unit, 1, true)
    assert.matches("\nType=notify\n", unit, 1, true)
    assert.matches("\nRestart=on-failure\n", unit, 1, true)
    -- Older ones do not tell the service how many they keep.
    assert.equal(unit:match("\nFileDescriptorStoreMax=(%d+)\n"), unit:match("\nEnvironment=FDSTORE=(%d+)\n"))
    assert.is_truthy(unit:match("\nFileDescriptorStoreMax=(%d+)\n"))
  end)

  it("is one that systemd takes, without a warning, and finds little exposed", function()
    if not select(2, net.sh("command -v systemd-analyze")) then
      return pending("systemd-analyze is not installed")
    end
    local path = folder .. "/nfqueue@web.service"
    net.must(("cp %s/nfqueue@.service %s"):format(folder, path))
    assert.equal("", net.must("systemd-analyze verify --man=no " .. path))
    local text, fine = net.sh("systemd-analyze security --no-pager --offline=yes --threshold=30 " .. path)
    assert.is_true(fine, text)
    assert.matches("Overall exposure level for nfqueue@web.service: %d%.%d OK", text)
  end)
end)
