-- nfqueue.queues: queue numbers as users write them.

local queues = require("nfqueue.queues")

local EXPECTED = 'number, range such as "0-3", or list of these expected, got %s'
local NO_RANGE = "'%s' is no queue number or range from 0 to 65535"

describe("queues.parse", function()
  for _, case in ipairs({
    { 0, { 0 } }, { 65535, { 65535 } }, { "5", { 5 } }, { "05", { 5 } }, { "0-3", { 0, 1, 2, 3 } }, { "7-7", { 7 } },
    { "0,4-6", { 0, 4, 5, 6 } }, { "9,3,5", { 9, 3, 5 } }, { "65534-65535", { 65534, 65535 } },
    { { 1, "2-3", "5,7" }, { 1, 2, 3, 5, 7 } }, { { 2, 1 }, { 2, 1 } },
  }) do
    it("reads " .. (type(case[1]) == "table" and "a list" or ("%q"):format(case[1])), function()
      local numbers, problem = queues.parse(case[1])
      assert.are.same(case[2], numbers)
      assert.is_nil(problem)
      assert.are.equal("integer", math.type(numbers[1]))
    end)
  end

  it("reads them all", function()
    assert.are.equal(65536, #queues.parse("0-65535"))
  end)

  for _, case in ipairs({
    { nil, EXPECTED:format("nothing") }, { true, EXPECTED:format("boolean") }, { false, EXPECTED:format("boolean") },
    { print, EXPECTED:format("function") }, { {}, "no queue is given" }, { { {} }, EXPECTED:format("table") },
    { "", NO_RANGE:format("") }, { "1,", NO_RANGE:format("") }, { ",1", NO_RANGE:format("") },
    { "a", NO_RANGE:format("a") }, { "65536", NO_RANGE:format("65536") }, { 65536, NO_RANGE:format("65536") },
    { -1, NO_RANGE:format("-1") }, { "-1", NO_RANGE:format("-1") }, { "1-", NO_RANGE:format("1-") },
    { "3-1", NO_RANGE:format("3-1") }, { "1-2-3", NO_RANGE:format("1-2-3") }, { "0-65536", NO_RANGE:format("0-65536") },
    { "0x10", NO_RANGE:format("0x10") }, { "1e3", NO_RANGE:format("1e3") }, { "1.0", NO_RANGE:format("1.0") },
    { "99999999999999999999", NO_RANGE:format("99999999999999999999") },
    { "1-99999999999999999999", NO_RANGE:format("1-99999999999999999999") },
    { "1,1", "queue 1 is given twice" }, { "0-3,2", "queue 2 is given twice" },
    { { 1, "1" }, "queue 1 is given twice" },
    { { "0-3", 3 }, "queue 3 is given twice" },
  }) do
    local name = type(case[1]) == "string" and ("%q"):format(case[1]) or type(case[1])
    it(("refuses %s: %s"):format(name, case[2]), function()
      local numbers, problem = queues.parse(case[1])
      assert.is_nil(numbers)
      assert.are.equal(case[2], problem)
    end)
  end

  it("shows a float that is no number of a queue", function()
    local numbers, problem = queues.parse(1.5)
    assert.is_nil(numbers)
    assert.are.equal(EXPECTED:format("1.5"), problem)
  end)
end)
