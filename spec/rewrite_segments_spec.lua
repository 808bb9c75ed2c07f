-- Single segments through nfqueue.rewrite: numbers, content, flags and options of what goes on.

local nfqueue = require("nfqueue")
local segments = require("support.segments")

local function connect(options)
  return segments.new(nfqueue.rewrite({ max = 4 }), options):open()
end

local function assert_went(at, payload, reason, result)
  assert.are.same({ at, payload, reason == nil, reason }, { result.at, result.payload, result.fine, result.reason })
end

for _, version in ipairs({ 4, 6 }) do
  describe(("over IPv%d, an edit"):format(version), function()
    for _, case in ipairs({ { "longer", "a much longer answer" }, { "shorter", "no" }, { "as long", "ANSWER" } }) do
      local name, content = table.unpack(case)

      it(name .. " moves what follows, and acknowledgements back", function()
        local line = connect({ version = version })
        assert_went(0, "before", nil, line:send(2, 0, "before"))
        assert_went(6, content, nil, line:send(2, 6, "answer", { content = content }))
        assert_went(6 + #content, "behind", nil, line:send(2, 12, "behind"))
        assert_went(12 + #content, "", nil, line:send(2, 18, ""))
        local grown = #content - 6
        for _, pair in ipairs({ { 0, 0 }, { 6, 6 }, { 12 + grown, 12 }, { 13 + grown, 13 }, { 18 + grown, 18 } }) do
          assert.are.equal(pair[2], line:send(1, 0, "", { ack = pair[1] }).ack)
        end
      end)
    end
  end)
end

describe("an edit", function()
  it("with the same content is none", function()
    local line = connect()
    assert_went(0, "answer", nil, line:send(2, 0, "answer", { content = "answer" }))
    assert.are.equal(0, line.rw:stats().edits)
    assert_went(0, "answer", "sent before", line:send(2, 0, "answer", { content = "other" }))
  end)

  it("in each direction leaves the other alone", function()
    local line = connect()
    assert_went(0, "longer request", nil, line:send(1, 0, "request", { content = "longer request" }))
    local answer = line:send(2, 0, "response", { ack = 14, content = "short" })
    assert_went(0, "short", nil, answer)
    assert.are.equal(7, answer.ack)
    local last = line:send(1, 7, "again", { ack = 5 })
    assert_went(14, "again", nil, last)
    assert.are.equal(8, last.ack)
  end)

  it("may follow another, many times, over the end of the numbers", function()
    local line = connect({ iss = { 0xffffffff, 0xfffff000 } })
    local out = 0
    for i = 0, 1999 do
      local content = ("x"):rep(i % 21)
      local went = line:send(2, 10 * i, "0123456789", { content = content })
      if #content > 0 then
        assert_went(out, content, nil, went)
      end
      out = out + #content
      if i % 100 == 99 then
        assert.are.equal(10 * (i + 1), line:send(1, 0, "", { ack = out }).ack)
        assert.are.equal(0, line.rw:stats().kept)
      end
    end
    assert.are.equal(2000, line.rw:stats().edits)
  end)

  it("that takes everything away needs no acknowledgement to be forgotten", function()
    -- They were kept while the receiver's number stood still, and after 4096 nothing passed any more.
    local line = connect()
    for i = 0, 5000 do
      line:send(2, 3 * i, "abc", { content = "" })
      assert.are.equal(3 * (i + 1), line:send(1, 0, "", { ack = 0 }).ack)
    end
    assert.are.equal(0, line.rw:stats().kept)
    assert_went(0, "left", nil, line:send(2, 15003, "gone", { content = "left" }))
  end)

  it("that is forgotten does not put an old acknowledgement before the beginning", function()
    -- Systems that check this drop the segment (RFC 5961 section 5).
    local line = connect()
    line:send(2, 0, "a", { content = "a longer one" })
    assert.are.equal(1, line:send(1, 0, "", { ack = 12 }).ack)
    for ack = 0, 11 do
      assert.are.equal(0, line:send(1, 0, "late", { ack = ack }).ack)
    end
  end)

  it("keeps only what differs", function()
    local line = connect()
    local long = ("z"):rep(600)
    line:send(2, 0, long .. "word" .. long, { content = long .. "longer words" .. long })
    assert.are.equal(128, line.rw:stats().kept)
    -- So what lies around it is acknowledged byte by byte.
    assert.are.equal(600, line:send(1, 0, "", { ack = 600 }).ack)
    assert.are.equal(610, line:send(1, 0, "", { ack = 618 }).ack)
  end)
end)

describe("an acknowledgement inside new content", function()
  -- "0123456789" became "ab", or 20 letters, between "before" and "behind".
  local function edited(content)
    local line = connect()
    line:send(2, 0, "before")
    line:send(2, 6, "0123456789", { content = content })
    line:send(2, 16, "behind")
    return line
  end

  it("says what part of it is through, and the last byte when all is", function()
    local line = edited(("abcdefghij"):rep(2))
    for place = 6, 26 do
      assert.are.equal(6 + (place - 6) // 2, line:send(1, 0, "", { ack = place }).ack)
    end
    line = edited("ab")
    assert.are.equal(6, line:send(1, 0, "", { ack = 6 }).ack)
    assert.are.equal(11, line:send(1, 0, "", { ack = 7 }).ack)
    assert.are.equal(16, line:send(1, 0, "", { ack = 8 }).ack)
  end)

  it("that comes late does not say more than it did", function()
    local line = edited("ab")
    line:send(1, 0, "", { ack = 14 })
    for place = -1, 14 do
      assert.is_true(line:send(1, 0, "", { ack = place }).ack <= 22)
    end
  end)

  it("of what has not been sent passes as far ahead as it was", function()
    local line = edited("ab")
    assert.are.equal(122, line:send(1, 0, "", { ack = 114 }).ack)
    assert_went(14, "next", nil, line:send(2, 22, "next"))
  end)
end)

describe("data sent again", function()
  local BEFORE, WORD, BEHIND = "before", "0123456789", "behind"

  local function edited(content)
    local line = connect()
    line:send(2, 0, BEFORE)
    line:send(2, 6, WORD, { content = content })
    line:send(2, 16, BEHIND)
    return line
  end

  it("goes as it went, whatever the handler says now", function()
    local line = edited("a longer phrase")
    for _, content in ipairs({ false, "a longer phrase", "another", "" }) do
      assert_went(6, "a longer phrase", "sent before", line:send(2, 6, WORD, { content = content or nil }))
      assert_went(0, BEFORE, "sent before", line:send(2, 0, BEFORE, { content = content or nil }))
      assert_went(21, BEHIND, "sent before", line:send(2, 16, BEHIND, { content = content or nil }))
    end
    assert.are.equal(12, line.rw:stats().retransmitted)
    assert.are.equal(1, line.rw:stats().edits)
  end)

  it("goes as it went in pieces cut anew", function()
    local rw, port = nfqueue.rewrite({ max = 4 }), 0
    local function edited_anew(content) -- of the same table, for there are many
      port = port + 1
      local line = segments.new(rw, { ports = { port, 80 } }):open()
      line:send(2, 0, BEFORE)
      line:send(2, 6, WORD, { content = content })
      line:send(2, 16, BEHIND)
      return line
    end
    for _, content in ipairs({ "a longer phrase", "short", "" }) do
      local whole = BEFORE .. content .. BEHIND
      for first = 0, 22 do
        for last = first + 1, 22 do
          local line = edited_anew(content)
          local bytes = (BEFORE .. WORD .. BEHIND):sub(first + 1, last)
          local went = line:send(2, first, bytes)
          assert.are.equal("sent before", went.reason)
          assert.are.equal(whole:sub(went.at + 1, went.at + #went.payload), went.payload)
        end
        -- Two pieces of it are all of it.
        if first > 0 and first < 22 then
          local line = edited_anew(content)
          local one = line:send(2, 0, (BEFORE .. WORD .. BEHIND):sub(1, first))
          local two = line:send(2, first, (BEFORE .. WORD .. BEHIND):sub(first + 1))
          assert.are.equal(0, one.at)
          assert.is_true(two.at <= #one.payload)
          assert.are.equal(whole, one.payload:sub(1, two.at) .. two.payload)
        end
      end
    end
  end)

  it("goes from where its receiver is without it", function()
    local line = edited("a longer phrase")
    assert.are.equal(14, line:send(1, 0, "", { ack = 18 }).ack)
    assert_went(18, "ase", "sent before", line:send(2, 14, WORD:sub(9)))
    assert_went(18, "ase" .. BEHIND, "sent before", line:send(2, 14, WORD:sub(9) .. BEHIND))
    assert_went(20, "e" .. BEHIND, "sent before", line:send(2, 15, WORD:sub(10) .. BEHIND))
  end)

  it("that is acknowledged asks its receiver to say so again", function()
    local line = edited("a longer phrase")
    line:send(1, 0, "", { ack = 27 })
    assert.are.equal(0, line.rw:stats().kept)
    assert_went(26, "d", "sent before", line:send(2, 6, WORD))
    assert_went(26, "d", "sent before", line:send(2, 3, "ore" .. WORD))
    -- What lies behind all edits can pass as it is.
    assert_went(21, BEHIND, "sent before", line:send(2, 16, BEHIND))
    assert_went(21, BEHIND, "sent before", line:send(2, 14, "89" .. BEHIND))
  end)

  it("with new data behind it passes, an edit included that leaves the old part alone", function()
    local line = edited("a longer phrase")
    assert_went(6, "a longer phrase" .. BEHIND .. "new", "sent before", line:send(2, 6, WORD .. BEHIND .. "new"))
    assert_went(21, BEHIND .. "newMORE", nil,
      line:send(2, 16, BEHIND .. "newnew", { content = BEHIND .. "newMORE" }))
    assert.are.equal(25, line:send(1, 0, "", { ack = 30 }).ack)
    assert_went(34, "end", nil, line:send(2, 28, "end"))
  end)

  it("with new data behind it passes without that when the edit is of the old part, too", function()
    local line = edited("a longer phrase")
    assert_went(21, BEHIND, "sent before",
      line:send(2, 16, BEHIND .. "new", { content = "beyond, anew", flags = "FA" }))
    assert_went(27, "NEWS", nil, line:send(2, 22, "new", { content = "NEWS" }))
  end)
end)

describe("data behind a hole", function()
  it("goes as an acknowledgement, without data, PSH and FIN, and fills nothing", function()
    local line = connect()
    line:send(2, 0, "first", { content = "longer first" })
    for _, flags in ipairs({ "A", "PA", "FPA", "FA" }) do
      local went = line:send(2, 10, "third", { flags = flags, content = "other" })
      assert_went(12, "", "out of order", went)
      assert.are.same({ "A", 0 }, { went.flags, went.ack })
    end
    assert_went(12, "second!", nil, line:send(2, 5, "secon", { content = "second!" }))
    assert_went(19, "third", nil, line:send(2, 10, "third", { flags = "FPA" }))
    assert.are.equal(4, line.rw:stats().out_of_order)
  end)

  it("is not reached by acknowledgements ahead of it", function()
    local line = connect()
    line:send(2, 0, "first", { content = "longer first" })
    local went = line:send(2, 50, "")
    assert_went(12, "", nil, went)
    assert_went(12, "second", nil, line:send(2, 5, "second"))
  end)

  it("passes when its receiver has what is missing here", function()
    local line = connect()
    line:send(2, 0, "first")
    assert_went(5, "", "out of order", line:send(2, 11, "third"))
    line:send(1, 0, "", { ack = 11 }) -- "second" went past this rewriter
    assert_went(11, "THIRD!", nil, line:send(2, 11, "third", { content = "THIRD!" }))
    assert_went(17, "fourth", nil, line:send(2, 16, "fourth"))
  end)

  it("does not when its receiver has only part of it, or after an edit", function()
    local line = connect()
    line:send(2, 0, "first")
    line:send(1, 0, "", { ack = 8 })
    assert_went(5, "", "out of order", line:send(2, 11, "third"))
    line:send(2, 5, "second", { content = "2" })
    line:send(1, 0, "", { ack = 60 })
    assert_went(6, "", "out of order", line:send(2, 20, "fifth"))
  end)
end)

describe("data behind a hole that does not wait", function()
  local function unwaiting(options)
    return segments.new(nfqueue.rewrite({ max = 4, wait = false }), options):open()
  end

  it("passes with its edits, and what fills the hole without", function()
    local line = unwaiting()
    line:send(2, 0, "first", { content = "longer first" })
    assert_went(17, "THE THIRD", nil, line:send(2, 10, "third", { content = "THE THIRD" }))
    assert.are.same({ { 10, 15 } }, line:send(1, 0, "", { ack = 12, sack = { { 17, 26 } } }).sack)
    assert_went(26, "fourth", nil, line:send(2, 15, "fourth"))
    assert_went(12, "secon", "sent before", line:send(2, 5, "secon", { content = "second!" }))
    assert_went(12, "seconTHE THIRD", "sent before", line:send(2, 5, "seconthird", { content = "anything" }))
    assert.are.equal(21, line:send(1, 0, "", { ack = 32 }).ack)
    assert_went(32, "fifth", nil, line:send(2, 21, "fifth"))
    assert.are.same({ 2, 0 }, { line.rw:stats().edits, line.rw:stats().out_of_order })
  end)

  it("may end with a FIN, and be one", function()
    for _, payload in ipairs({ "third", "" }) do
      local line = unwaiting()
      line:send(2, 0, "first", { content = "1" })
      local went = line:send(2, 10, payload, { flags = "FPA" })
      assert.are.same({ 6, payload, "F" }, { went.at, went.payload, went.flags:sub(1, 1) })
      assert_went(1, "secon", "sent before", line:send(2, 5, "secon"))
      assert.are.equal(11 + #payload, line:send(1, 0, "", { ack = 7 + #payload }).ack)
    end
  end)

  it("passes no further than its receiver's window", function()
    local line = unwaiting({ window = 1000 })
    line:send(2, 0, "first", { content = "longer first" })
    assert_went(12, "", "out of order", line:send(2, 994, "data"))
    assert_went(996, "data", nil, line:send(2, 989, "data"))
    assert_went(992, "data", "sent before", line:send(2, 985, "data"))
  end)

  it("passes no further than 1 MiB where the window is not known", function()
    local line = segments.new(nfqueue.rewrite({ max = 4, wait = false }))
    line:send(2, 0, "first", { content = "longer first" })
    assert_went(12, "", "out of order", line:send(2, 5 + (1 << 20) + 1, "data"))
    assert_went(12 + (1 << 20), "data", nil, line:send(2, 5 + (1 << 20), "data"))
  end)

  it("does not pass behind a FIN", function()
    local line = unwaiting()
    line:send(2, 0, "first", { flags = "FA", content = "1" })
    assert_went(2, "", "out of order", line:send(2, 10, "third"))
  end)
end)

describe("a FIN", function()
  it("goes behind new content, and again", function()
    local line = connect()
    for _ = 1, 2 do
      local went = line:send(2, 0, "answer", { flags = "FPA", content = "a longer answer" })
      assert.are.same({ 0, "a longer answer", "FPA" }, { went.at, went.payload, went.flags })
    end
    for _ = 1, 2 do
      local went = line:send(2, 6, "", { flags = "FA" })
      assert.are.same({ 15, "", "FA", "sent before" }, { went.at, went.payload, went.flags, went.reason })
    end
    assert.are.equal(5, line:send(1, 0, "", { ack = 14 }).ack)
    assert.are.equal(6, line:send(1, 0, "", { ack = 15 }).ack)
    assert.are.equal(7, line:send(1, 0, "", { ack = 16 }).ack)
    assert_went(16, "", nil, line:send(2, 7, ""))
  end)

  it("goes alone, and with the last piece of what is sent again", function()
    local line = connect()
    line:send(2, 0, "answer", { content = "no" })
    assert_went(2, "", nil, line:send(2, 6, "", { flags = "FA" }))
    local went = line:send(2, 0, "answer", { flags = "FA" })
    assert.are.same({ 0, "no", "FA" }, { went.at, went.payload, went.flags })
    went = line:send(2, 0, "ans")
    assert.are.same({ 0, "n", "A" }, { went.at, went.payload, went.flags })
    went = line:send(2, 0, "answ")
    assert.are.same({ 0, "no", "A" }, { went.at, went.payload, went.flags })
    went = line:send(2, 4, "er", { flags = "FA" })
    assert.are.same({ 2, "", "FA" }, { went.at, went.payload, went.flags })
  end)

  it("goes with content that became nothing", function()
    local line = connect()
    local went = line:send(2, 0, "answer", { flags = "FA", content = "" })
    assert.are.same({ 0, "", "FA" }, { went.at, went.payload, went.flags })
    assert.are.equal(7, line:send(1, 0, "", { ack = 1 }).ack)
  end)

  it("waits for the rest of content that was cut", function()
    local line = connect({ mss = { 100, 1460 } })
    local content = ("abcdefghij"):rep(25)
    local went = line:send(2, 0, ("x"):rep(90), { flags = "FA", content = content })
    assert.are.same({ 0, content:sub(1, 100), "A" }, { went.at, went.payload, went.flags })
    assert.are.equal(36, line:send(1, 0, "", { ack = 100 }).ack)
    went = line:send(2, 36, ("x"):rep(54), { flags = "FA" })
    assert.are.same({ 100, content:sub(101, 200), "A" }, { went.at, went.payload, went.flags })
    assert.are.equal(72, line:send(1, 0, "", { ack = 200 }).ack)
    went = line:send(2, 72, ("x"):rep(18), { flags = "FA" })
    assert.are.same({ 200, content:sub(201), "FA" }, { went.at, went.payload, went.flags })
  end)

  it("from both ends at once closes", function()
    local line = connect()
    line:send(1, 0, "bye", { flags = "FA", content = "good bye" })
    line:send(2, 0, "bye", { flags = "FA", content = "b" })
    local one = line:send(1, 4, "", { ack = 2 })
    local two = line:send(2, 4, "", { ack = 9 })
    assert.are.same({ 9, 4, 2, 4 }, { one.at, one.ack, two.at, two.ack })
    -- Its ports are free for another.
    line.iss = { 77, 88 }
    line:open()
    assert_went(0, "hello", nil, line:send(1, 0, "hello"))
  end)

  it("is the last: data behind it goes nowhere", function()
    local line = connect()
    line:send(2, 0, "answer", { flags = "FA", content = "longer answer" })
    local went = line:send(2, 7, "more")
    assert.are.same({ 12, "r" }, { went.at, went.payload })
    went = line:send(2, 6, "more")
    assert.are.same({ 12, "r" }, { went.at, went.payload })
  end)
end)

describe("content that becomes nothing", function()
  it("goes as a byte that its receiver has, which it answers", function()
    local line = connect()
    line:send(2, 0, "first")
    assert_went(4, "t", nil, line:send(2, 5, "second", { content = "" }))
    assert_went(4, "t", "sent before", line:send(2, 5, "second"))
    assert_went(4, "t", "sent before", line:send(2, 7, "con"))
    assert.are.equal(11, line:send(1, 0, "", { ack = 5 }).ack)
    assert_went(5, "third", nil, line:send(2, 11, "third"))
  end)

  it("at the very beginning asks for an answer by the number of the SYN", function()
    local line = connect()
    local went = line:send(2, 0, "first", { content = "" })
    assert.are.equal(-1, went.at)
    assert.is_true(went.fine)
    assert.are.equal(5, line:send(1, 0, "", { ack = 0 }).ack)
    assert_went(0, "second", nil, line:send(2, 5, "second"))
  end)

  it("where the byte before it is not known goes without a byte, but before what its receiver waits for", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    assert_went(499, "", nil, line:send(2, 500, "first", { content = "" }))
    assert.are.equal(505, line:send(1, 0, "", { ack = 500 }).ack)
    assert_went(499, "\0", "sent before", line:send(2, 500, "first")) -- now its receiver has that byte
  end)

  it("several times in a row is acknowledged as a whole", function()
    local line = connect()
    line:send(2, 0, "first")
    for i = 0, 9 do
      line:send(2, 5 + 6 * i, "second", { content = "" })
    end
    assert.are.equal(4, line:send(1, 0, "", { ack = 4 }).ack)
    assert.are.equal(65, line:send(1, 0, "", { ack = 5 }).ack)
    assert.are.equal(0, line.rw:stats().kept)
  end)
end)

describe("a keep-alive", function()
  for _, content in ipairs({ "a longer answer", "no", "" }) do
    it(("after %q lies before what its receiver waits for"):format(content), function()
      local line = connect()
      line:send(2, 0, "first")
      line:send(2, 5, "answer", { content = content })
      line:send(1, 0, "", { ack = 5 + #content })
      assert_went(4 + #content, "", nil, line:send(2, 10, ""))
      local went = line:send(2, 10, "\0")
      assert.are.same({ 4 + #content, 1, "sent before" }, { went.at, #went.payload, went.reason })
    end)
  end

  it("lies before content that became nothing and is not acknowledged", function()
    local line = connect()
    line:send(2, 0, "first")
    line:send(2, 5, "answer", { content = "" })
    assert_went(4, "", nil, line:send(2, 10, ""))
  end)

  it("passes as it is where nothing was edited", function()
    local line = connect()
    line:send(2, 0, "first")
    local bytes = line:bytes(2, 4, "")
    assert.are.equal(bytes, line:send(2, 4, "").bytes)
    bytes = line:bytes(2, 4, "\0")
    assert.are.equal(bytes, line:send(2, 4, "\0").bytes)
  end)
end)
