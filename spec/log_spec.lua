-- nfqueue.log in a process of its own: levels, the threshold, the limit, the journal's priorities.

local net = require("support.net")
local unit = require("support.unit")

local message = unit.message
local nfqueue = require("nfqueue")

after_each(unit.cleanup)

local LEVELS = { "debug", "info", "warn", "error" }

-- What a script writes to standard error, a line an element; `environment` as for env.
local function run(text, environment)
  local path = unit.file("local nfqueue = require('nfqueue')\n" .. text)
  local output = unit.file("")
  net.must(("env -u NFQUEUE_LOG -u JOURNAL_STREAM %s %s %s 2>%s")
    :format(environment or "", net.lua:gsub("^env ", ""), path, output))
  local lines = {}
  for line in net.read(output):gmatch("([^\n]*)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

describe("nfqueue.log", function()
  local ALL = "for _, level in ipairs({ 'debug', 'info', 'warn', 'error' }) do nfqueue.log[level]('text') end"

  it("writes a line with its level, formatted as string.format does", function()
    assert.are.same({
      "nfqueue: info: one", "nfqueue: warn: 5 packets from 'x'", "nfqueue: error: 100%", "nfqueue: info: %d",
      "nfqueue: info: ",
    }, run([[
      nfqueue.log.info("one")
      nfqueue.log.warn("%d packets from '%s'", 5, "x")
      nfqueue.log.error("100%")
      nfqueue.log.info("%d")
      nfqueue.log.info("")]]))
  end)

  for first, threshold in ipairs(LEVELS) do
    it("leaves out what is below NFQUEUE_LOG=" .. threshold, function()
      local expected = {}
      for i = first, #LEVELS do
        expected[#expected + 1] = ("nfqueue: %s: text"):format(LEVELS[i])
      end
      assert.are.same(expected, run(ALL, "NFQUEUE_LOG=" .. threshold))
    end)
  end

  it("begins at info, also for a threshold that is none", function()
    local expected = { "nfqueue: info: text", "nfqueue: warn: text", "nfqueue: error: text" }
    assert.are.same(expected, run(ALL))
    assert.are.same(expected, run(ALL, "NFQUEUE_LOG=loud"))
    assert.are.same(expected, run(ALL, "NFQUEUE_LOG="))
  end)

  it("writes long lines whole up to 8 KB, and cuts longer ones into no second line", function()
    local lines = run("nfqueue.log.info(('x'):rep(8000)) nfqueue.log.info(('x'):rep(100000)) nfqueue.log.info('end')")
    assert.are.equal(3, #lines)
    assert.are.equal("nfqueue: info: " .. ("x"):rep(8000), lines[1])
    assert.is_true(#lines[2] > 8000)
    assert.are.equal("nfqueue: info: end", lines[3])
  end)

  it("writes at most 20 lines a second, and tells how many it left out", function()
    -- The pauses only let the allowance come back; how long the lines take is measured, not assumed.
    local lines = run([[
      nfqueue.log.info("first")
      os.execute("sleep 2.5") -- what is not used does not add up
      local began = os.time()
      for i = 1, 1000 do nfqueue.log.info("line " .. i) end
      local seconds = os.time() - began + 1
      os.execute("sleep 1.1")
      nfqueue.log.info("seconds " .. seconds)]])
    local written, left_out, seconds = 0, 0, nil
    for _, line in ipairs(lines) do
      written = written + (line:find("^nfqueue: info: line %d") and 1 or 0)
      left_out = left_out
        + (line:match("^nfqueue: warn: (%d+) lines of the script were not logged: more than 20 a second$") or 0)
      seconds = line:match("^nfqueue: info: seconds (%d+)$") or seconds
    end
    assert.are.equal(1000, written + left_out)
    assert.is_true(written >= 20)
    assert.is_true(written <= 20 + 20 * seconds, ("%d lines in %s s"):format(written, seconds))
    assert.are.equal("nfqueue: info: line 1", lines[2])
  end)

  it("does not count lines below the threshold", function()
    assert.are.same({ "nfqueue: error: heard" },
      run("for i = 1, 1000 do nfqueue.log.debug('x') end nfqueue.log.error('heard')"))
  end)

  it("puts the journal's priority first where standard error is the journal", function()
    local path = unit.file("local nfqueue = require('nfqueue') " .. ALL)
    local output = unit.file("")
    local command = "env NFQUEUE_LOG=debug JOURNAL_STREAM=%s %s %s 2>>%s"
    local stream = net.must("stat -c %d:%i " .. output)
    local lua = net.lua:gsub("^env ", "")
    net.must(command:format(stream, lua, path, output))
    assert.are.equal("<7>nfqueue: text\n<6>nfqueue: text\n<4>nfqueue: text\n<3>nfqueue: text\n", net.read(output))
    for _, other in ipairs({ "1:1", "nonsense", "''", stream:match("%d+") }) do
      local plain = unit.file("")
      net.must(command:format(other, lua, path, plain))
      assert.are.equal("nfqueue: debug: text", net.read(plain):match("[^\n]*"))
    end
  end)

  it("refuses what is no text", function()
    for _, level in ipairs(LEVELS) do
      local log = nfqueue.log[level]
      for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
        assert.are.equal(("bad argument 'message' to 'log' (string expected, got %s)"):format(case[2]),
          message(log, case[1]))
      end
      assert.matches("bad argument #2 to 'format'", message(log, "%d", "x"), 1, true)
    end
  end)
end)
