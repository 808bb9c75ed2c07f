-- The command without a kernel: what it prints, and its exit status for every kind of mistake.

local net = require("support.net")
local unit = require("support.unit")

local OK, USAGE, SCRIPT, NO_INPUT, UNAVAILABLE, CONFIG = 0, 64, 65, 66, 69, 78

after_each(unit.cleanup)

local function run(arguments, environment)
  local output, _, status = net.sh(("%s %s %s </dev/null"):format(environment or "", net.command, arguments))
  return output, status
end

local function assert_fails(arguments, status, text, environment)
  local output, got = run(arguments, environment)
  assert.matches(text, output, 1, true)
  assert.are.equal(status, got)
  assert.is_nil(output:find("stack traceback", 1, true))
  -- The last line is one sentence with the program's name in front.
  assert.are.equal("nfqueue: ", output:match("[^\n]*$"):sub(1, 9))
end

describe("nfqueue", function()
  it("tells its version", function()
    local output, status = run("--version")
    assert.are.same({ require("nfqueue")._VERSION, OK }, { output, status })
    assert.matches("^nfqueue %d+%.%d+%.%d+$", output)
  end)

  it("helps", function()
    for _, arguments in ipairs({ "--help", "-h", "help" }) do
      local output, status = run(arguments .. " 2>/dev/null")
      assert.are.equal(OK, status)
      for _, command in ipairs({ "run", "check", "lab" }) do
        assert.matches("\n  " .. command .. " ", output, 1, true)
      end
    end
    for _, command in ipairs({ "run", "check", "lab" }) do
      local output, status = run(command .. " --help")
      assert.are.equal(OK, status)
      assert.matches("Usage: nfqueue " .. command, output, 1, true)
    end
  end)

  it("lists every configuration key in the help of run and check", function()
    for _, command in ipairs({ "run", "check" }) do
      local output = run(command .. " --help")
      for _, option in ipairs({ "--max-packets", "--buffer-size", "--copy-range", "--fail-open", "--no-fail-open",
        "--gso", "--no-gso", "--conntrack", "--uid-gid", "--secctx", "--default", "--on-error",
        "--memory-limit" }) do
        assert.matches(option, output, 1, true)
      end
    end
  end)

  it("shows the commands on standard error when none is given", function()
    local output, status = run("2>/dev/null")
    assert.are.same({ "", USAGE }, { output, status })
    assert.matches("Usage: nfqueue COMMAND", run(""), 1, true)
  end)

  it("needs argparse, and says how to get it", function()
    local hidden = "env LUA_PATH='/nowhere/?.lua' LUA_PATH_5_4='/nowhere/?.lua'"
    assert_fails("check demo", UNAVAILABLE, "lua-argparse", hidden)
    local _, status = run("--version", hidden)
    assert.are.equal(OK, status)
  end)
end)

describe("a usage error of nfqueue", function()
  local NUMBERS = "' is no queue number or range from 0 to 65535"
  for _, case in ipairs({ -- arguments, what the message names
    { "fly", "'fly' is no command of nfqueue (run, reload, stop, stats, check, lab)" },
    { "--versoin", "'--versoin' is no command of nfqueue" },
    { "check", "missing argument 'script'" },
    { "check demo other", "too many arguments" },
    { "check demo --max-packet 5", "--max-packet" },
    { "check demo --max_packets 5", "--max_packets" },
    { "check demo -q 1", "-q" },
    { "check demo --max-packets", "--max-packets" },
    { "check demo --max-packets 0", "option '--max-packets': integer from 1 to 65536 expected, got 0" },
    { "check demo --max-packets 65537", "option '--max-packets': integer from 1 to 65536 expected, got 65537" },
    { "check demo --max-packets many", "option '--max-packets': integer expected, got 'many'" },
    { "check demo --hold-limit 0", "option '--hold-limit': seconds, more than 0 and at most 1e9, expected, got '0'" },
    { "check demo --hold-limit soon",
      "option '--hold-limit': seconds, more than 0 and at most 1e9, expected, got 'soon'" },
    { "check demo --max-packets 1.5", "option '--max-packets': integer expected, got '1.5'" },
    { "check demo --buffer-size 1", "option '--buffer-size': integer from 4096 to 1073741824 expected, got 1" },
    { "check demo --copy-range 65532", "option '--copy-range': integer from 0 to 65531 expected, got 65532" },
    { "check demo --default maybe", "option '--default' must be one of 'accept', 'drop'" },
    { "check demo --on-error ''", "option '--on-error' must be one of 'accept', 'drop'" },
    { "check demo --fail-open=yes", "--fail-open" },
    { "check demo --loop-mark 0x100000000", "option '--loop-mark': integer from 0 to 4294967295 expected" },
    { "check demo --filter 'tcp and and'", "option '--filter': can't parse filter expression: syntax error" },
    { "run demo -q 0 --filter 'ether host 00:11:22:33:44:55'", "option '--filter': ethernet addresses supported only" },
    { "run demo -q 0 --filter", "--filter" },
    { "check demo -- word", "'word' behind -- is not of the form key=value" },
    { "check demo -- =value", "'=value' behind -- is not of the form key=value" },
    { "run demo", "no queue is given: add -q N" },
    { "run -q 0", "missing argument 'script'" },
    { "run demo -q", "-q" },
    { "run demo -q x", "option '-q': 'x" .. NUMBERS },
    { "run demo -q 65536", "option '-q': '65536" .. NUMBERS },
    { "run demo -q 3-1", "option '-q': '3-1" .. NUMBERS },
    { "run demo -q 0-3 -q 2", "option '-q': queue 2 is given twice" },
    { "run demo -q 0-3 --threads 5",
      "option '--threads': integer from 1 to 4, the number of queues, expected, got '5'" },
    { "run demo -q 0 --threads 0", "option '--threads': integer from 1 to 1" },
    { "run demo -q 0 --threads x", "option '--threads': integer from 1 to 1, the number of queues, expected, got 'x'" },
    { "run demo -q 0 --gso --no-gsos", "--no-gsos" },
    { "run demo -q 0 -- word", "'word' behind -- is not of the form key=value" },
    { "lab", "no command is given: nfqueue lab -- COMMAND" },
    { "lab --", "no command is given: nfqueue lab -- COMMAND" },
    { "lab true", "too many arguments" },
    { "lab --hook sideways -- true", "option '--hook' must be one of 'output', 'input', 'none'" },
    { "lab --nft --iptables -- true", "--iptables" },
    { "lab -q x -- true", "option '-q': 'x" .. NUMBERS },
    { "lab -q 0,2 -- true", "option '-q': one number or one range" },
  }) do
    it("is: " .. case[1], function()
      assert_fails(case[1], USAGE, case[2])
    end)
  end
end)

describe("nfqueue run, before it touches a queue,", function()
  it("tells what is wrong with the script", function()
    assert_fails("run /nowhere/x.lua -q 0", NO_INPUT, "/nowhere/x.lua: No such file or directory")
    assert_fails("run no-such-script -q 0", NO_INPUT, "no-such-script: No such file or directory")
    assert_fails("run " .. unit.file("return function(") .. " -q 0", SCRIPT, "does not compile")
    assert_fails("run " .. unit.file("") .. " -q 0", SCRIPT, "returns no handler")
    local path = unit.file("return { packet = print, config = { copy_range = -1 } }")
    assert_fails("run " .. path .. " -q 0", CONFIG,
      "bad argument 'copy_range' to 'script' (integer from 0 to 65531 expected, got -1)")
    path = unit.file("return { packet = print, config = { filter = 'port' } }")
    assert_fails("run " .. path .. " -q 0", CONFIG,
      "bad argument 'filter' to 'script' (can't parse filter expression: syntax error)")
  end)
end)
