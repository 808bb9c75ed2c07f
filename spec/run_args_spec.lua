-- nfqueue.run: what is wrong with its options is told before anything is touched.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message
local MISSING = "/nowhere/script.lua"

-- Options that pass, but for those given; `nothing` removes one.
local nothing = {}
local function options(changes)
  local all = { script = MISSING, queues = "0-3" }
  for key, value in pairs(changes or {}) do
    all[key] = value
  end
  for key, value in pairs(all) do
    if value == nothing then
      all[key] = nil
    end
  end
  return all
end

describe("nfqueue.run", function()
  it("gets as far as the script when every option is right", function()
    for _, right in ipairs({
      {}, { threads = 1 }, { threads = 4 }, { threads = 2.0 }, { queues = 65535 }, { queues = { 1, "2-3" } },
      { args = { a = "b", list = { "c", "d" } } }, { args = {} }, { config = { max_packets = 5 } },
    }) do
      assert.are.same({ nil, "cannot read script /nowhere/script.lua: No such file or directory", 2 },
        { nfqueue.run(options(right)) })
    end
  end)

  local THREADS = "bad argument 'threads' to 'run' (integer from 1 to 4 expected, got %s)"
  local ARGS = "bad argument 'args' to 'run' (%s)"
  for _, case in ipairs({
    { { script = nothing }, "bad argument 'script' to 'run' (string expected, got nothing)" },
    { { script = 5 }, "bad argument 'script' to 'run' (string expected, got 5)" },
    { { script = print }, "bad argument 'script' to 'run' (string expected, got function)" },
    { { queues = nothing },
      "bad argument 'queues' to 'run' (number, range such as \"0-3\", or list of these expected, got nothing)" },
    { { queues = "70000" }, "bad argument 'queues' to 'run' ('70000' is no queue number or range from 0 to 65535)" },
    { { queues = {} }, "bad argument 'queues' to 'run' (no queue is given)" },
    { { queues = "1,1" }, "bad argument 'queues' to 'run' (queue 1 is given twice)" },
    { { threads = 0 }, THREADS:format("0") },
    { { threads = 5 }, THREADS:format("5") },
    { { threads = -1 }, THREADS:format("-1") },
    { { threads = 1.5 }, THREADS:format("1.5") },
    { { threads = "2" }, THREADS:format("'2'") },
    { { threads = {} }, THREADS:format("table") },
    { { threads = false }, THREADS:format("false") },
    { { args = 5 }, ARGS:format("table expected, got number") },
    { { args = "a=b" }, ARGS:format("table expected, got string") },
    { { args = { "word" } }, ARGS:format("names are strings, got number") },
    { { args = { a = 5 } }, ARGS:format("a is a number; strings and lists of strings pass") },
    { { args = { a = { "b", true } } }, ARGS:format("a is a table; strings and lists of strings pass") },
    { { args = { a = { b = "c" } } }, ARGS:format("a is a table; strings and lists of strings pass") },
    { { config = 5 }, "bad argument 'config' to 'run' (table expected, got 5)" },
    { { thread = 1 }, "unknown key 'thread' to 'run' (known: script, queues, threads, args, config)" },
    { { [1] = MISSING }, "unknown key '1' to 'run' (known: script, queues, threads, args, config)" },
  }) do
    it("refuses: " .. case[2], function()
      assert.are.equal(case[2], message(nfqueue.run, options(case[1])))
    end)
  end

  for _, case in ipairs({ { nil, "nil" }, { "handler.lua", "string" }, { 5, "number" }, { print, "function" } }) do
    it(("refuses %s for its table"):format(case[2]), function()
      assert.are.equal(("bad argument 'options' to 'run' (table expected, got %s)"):format(case[2]),
        message(nfqueue.run, case[1]))
    end)
  end

  it("blames the line that called it", function()
    local here = debug.getinfo(1, "S").short_src
    for _, wrong in ipairs({ { x = 1 }, { queues = "x" }, { args = 5 }, { args = { a = 5 } } }) do
      local line = debug.getinfo(1, "l").currentline + 1
      local _, problem = pcall(function() nfqueue.run(options(wrong)) end)
      assert.are.equal(("%s:%d: "):format(here, line), problem:match("^.-:%d+: "))
    end
  end)
end)
