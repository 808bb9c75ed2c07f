-- nfqueue.rewrite: what does not fit, SACK, urgent data, resets, and how connections begin.

local nfqueue = require("nfqueue")
local segments = require("support.segments")
local socket = require("socket")

local function connect(options)
  return segments.new(nfqueue.rewrite({ max = 4 }), options):open()
end

local function assert_went(at, payload, reason, result)
  assert.are.same({ at, #payload, reason == nil, reason }, { result.at, #result.payload, result.fine, result.reason })
  assert.is_true(payload == result.payload)
end

local LONG = ("0123456789"):rep(7000) -- 70,000

describe("content that outgrows its segment", function()
  it("is cut to what the other end announced, less the options, and its rest goes with what is sent again", function()
    local line = connect({ mss = { 1000, 1460 } })
    line:send(2, 0, "first")
    assert_went(5, LONG:sub(1, 1000), nil, line:send(2, 5, "word", { content = LONG:sub(1, 2500) }))
    assert_went(2505, "behind", nil, line:send(2, 9, "behind")) -- its receiver sees a hole
    assert.are.equal(6, line:send(1, 0, "", { ack = 1005 }).ack) -- each byte of the word stands for 625
    assert_went(1005, LONG:sub(1001, 1988), "sent before",
      line:send(2, 6, "ord", { options = "\1\1\8\10" .. ("t"):rep(8) }))
    assert.are.equal(8, line:send(1, 0, "", { ack = 1993 }).ack)
    assert_went(1993, LONG:sub(1989, 2500) .. "behind", "sent before", line:send(2, 8, "dbehind"))
    assert.are.equal(15, line:send(1, 0, "", { ack = 2511 }).ack)
    assert.are.same({ 2, 0 }, { line.rw:stats().cut, line.rw:stats().kept })
  end)

  it("is never shorter than what its sender sent, whatever was announced", function()
    local line = connect({ mss = { 100, 1460 } })
    assert_went(0, LONG:sub(1, 300), nil, line:send(2, 0, ("x"):rep(300), { content = LONG:sub(1, 1000) }))
  end)

  it("is cut to what every host takes where nothing was announced", function()
    for version, most in pairs({ [4] = 536, [6] = 1220 }) do
      local line = segments.new(nfqueue.rewrite({ max = 4 }), { version = version })
      assert_went(0, LONG:sub(1, most), nil, line:send(2, 0, "word", { content = LONG:sub(1, 2000) }))
    end
  end)

  it("fills a packet that is cut up later", function()
    for version, most in pairs({ [4] = 65531 - 40, [6] = 65531 - 60 }) do
      local line = connect({ version = version })
      local payload = ("x"):rep(60000)
      assert_went(0, LONG:sub(1, most), nil, line:send(2, 0, payload, { gso = true, content = LONG:sub(1, 65531) }))
      -- Sent again in segments of the wire's size.
      assert_went(1582, LONG:sub(1583, 3042), "sent before", line:send(2, 1448, ("x"):rep(1448)))
      assert_went(1582, LONG:sub(1583, 2674), "sent before", line:send(2, 1448, ("x"):rep(1000)))
      local at = most * 60000 // 65531
      assert.are.equal(at, line:send(1, 0, "", { ack = most }).ack)
      assert_went(most, LONG:sub(most + 1, 65531), "sent before", line:send(2, at, ("x"):rep(60000 - at)))
    end
  end)

  it("may be more than a packet holds", function()
    local line = connect({ scale = 3 })
    local content = LONG:rep(4):sub(1, 250000)
    local payload = ("x"):rep(60000)
    assert_went(0, content:sub(1, 65491), nil, line:send(2, 0, payload, { gso = true, content = content }))
    assert_went(250000, "behind", nil, line:send(2, 60000, "behind"))
    local has = 65491
    while has < 250000 do
      local at = line:send(1, 0, "", { ack = has }).ack
      assert.are.equal(has * 60000 // 250000, at)
      local went = line:send(2, at, payload:sub(at + 1), { gso = true })
      assert_went(has, content:sub(has + 1, has + 65491), "sent before", went)
      has = has + #went.payload
    end
    assert.are.equal(60006, line:send(1, 0, "", { ack = 250006 }).ack)
    assert.are.equal(0, line.rw:stats().kept)
  end)

  it("becomes no longer than its sender's segments when it does not get through", function()
    local line = connect()
    line:send(2, 0, ("f"):rep(100))
    line:send(1, 0, "", { ack = 100 })
    local at = 100
    assert_went(at, LONG:sub(1, 1200), nil, line:send(2, at, "word", { content = LONG:sub(1, 1200) }))
    assert_went(at, LONG:sub(1, 1200), "sent before", line:send(2, at, "word"))
    assert_went(at, LONG:sub(1, 100), "sent before", line:send(2, at, "word"))
    assert_went(at, LONG:sub(1, 4), "sent before", line:send(2, at, "word"))
    assert_went(at, LONG:sub(1, 4), "sent before", line:send(2, at, "word"))
    line:send(1, 0, "", { ack = at + 3 })
    assert_went(at + 3, LONG:sub(4, 103), "sent before", line:send(2, at, "word"))
    -- And what follows.
    assert_went(at + 1200, LONG:sub(1, 100), nil, line:send(2, at + 4, "more", { content = LONG:sub(1, 300) }))
    assert_went(at + 1500, LONG:sub(1, 150), nil,
      line:send(2, at + 8, ("x"):rep(150), { content = LONG:sub(1, 300) }))
    assert_went(at + 1800, LONG:sub(1, 2000), nil,
      line:send(2, at + 158, ("x"):rep(1600), { gso = true, content = LONG:sub(1, 2000) }))
  end)

  it("stays longer than its sender's segments where that has got through once, whatever is lost later", function()
    local line = connect()
    local content = LONG:sub(1, 200)
    local payload = ("x"):rep(100)
    line:send(2, 0, payload)
    assert_went(100, content, nil, line:send(2, 100, payload, { content = content }))
    assert_went(300, content, nil, line:send(2, 200, payload, { content = content }))
    line:send(1, 0, "", { ack = 300 })
    for _, went in ipairs({ 200, 100, 100 }) do
      assert_went(300, LONG:sub(1, went), "sent before", line:send(2, 200, payload))
    end
    assert_went(500, content, nil, line:send(2, 300, payload, { content = content }))
  end)

  it("is tried longer again after 64 segments, then after twice as many, until it arrives", function()
    local line = connect({ scale = 3 })
    local content = LONG:sub(1, 200)
    local payload = ("x"):rep(100)
    local from, out = 100, 100
    local function send_new(length)
      assert_went(out, content:sub(1, length), nil, line:send(2, from, payload, { content = content }))
      from, out = from + 100, out + 200
    end
    line:send(2, 0, payload)
    line:send(1, 0, "", { ack = 100 })
    for _, shorts in ipairs({ 64, 128 }) do
      send_new(200)
      for _, length in ipairs(shorts == 64 and { 200, 100 } or { 100 }) do
        assert_went(out - 200, content:sub(1, length), "sent before", line:send(2, from - 100, payload))
      end
      line:send(1, 0, "", { ack = out })
      for _ = 1, shorts do
        send_new(100)
        line:send(1, 0, "", { ack = out })
      end
    end
    send_new(200)
    send_new(100) -- one at a time
    line:send(1, 0, "", { ack = out })
    send_new(200)
    send_new(200)
  end)

  it("does not stay so by what got through at the second try, maybe in pieces", function()
    local line = connect()
    local content = LONG:sub(1, 200)
    local payload = ("x"):rep(100)
    line:send(2, 0, payload)
    line:send(2, 100, payload, { content = content })
    assert_went(200, LONG:sub(101, 200), "sent before", line:send(2, 150, payload:sub(1, 50)))
    line:send(1, 0, "", { ack = 300 })
    line:send(2, 200, payload, { content = content })
    for _, went in ipairs({ 200, 100 }) do
      assert_went(300, LONG:sub(1, went), "sent before", line:send(2, 200, payload))
    end
    assert_went(500, LONG:sub(1, 100), nil, line:send(2, 300, payload, { content = content }))
  end)

  it("does not reach beyond the window of its receiver, and asks for it where that is shut", function()
    for _, scale in ipairs({ 0, 3 }) do
      local line = connect({ scale = scale, window = 160 })
      local at = 0
      assert_went(at, LONG:sub(1, 160), nil, line:send(2, at, ("x"):rep(150), { content = LONG:sub(1, 400) }))
      line:send(1, 0, "", { ack = at + 160, window = 0 })
      assert_went(at + 399, "9", "sent before", line:send(2, at + 149, "x"))
      line:send(1, 0, "", { ack = at + 160, window = 1000 >> scale })
      assert_went(at + 398, LONG:sub(399, 400), "sent before", line:send(2, at + 149, "x"))
      assert_went(at + 160, LONG:sub(161, 400), "sent before", line:send(2, at + 60, ("x"):rep(90)))
    end
  end)
end)

describe("a SACK block", function()
  -- 100 bytes, 10 that became 30, 100 bytes, 20 that became 5, 100 bytes.
  local function edited()
    local line = connect()
    line:send(2, 0, ("a"):rep(100))
    line:send(2, 100, ("b"):rep(10), { content = ("B"):rep(30) })
    line:send(2, 110, ("c"):rep(100))
    line:send(2, 210, ("d"):rep(20), { content = ("D"):rep(5) })
    line:send(2, 230, ("e"):rep(100))
    return line
  end

  for _, case in ipairs({ -- out, in
    { "before all edits", { 10, 20 }, { 10, 20 } },
    { "of an edit", { 100, 130 }, { 100, 110 } },
    { "over an edit", { 90, 140 }, { 90, 120 } },
    { "behind an edit", { 130, 140 }, { 110, 120 } },
    { "of the beginning of an edit", { 90, 105 }, { 90, 101 } },
    { "into the last byte's share of an edit", { 90, 129 }, { 90, 109 } },
    { "to the beginning of the last byte's share of an edit", { 90, 127 }, { 90, 109 } },
    { "from the middle of an edit", { 105, 140 }, { 102, 120 } },
    { "from the beginning of a byte's share of an edit", { 106, 140 }, { 102, 120 } },
    { "from the last byte's share of an edit", { 128, 140 }, { 110, 120 } },
    { "to within an edit that shrank", { 220, 232 }, { 200, 218 } },
    { "from within an edit that shrank", { 232, 240 }, { 215, 235 } },
    { "to the end of an edit that shrank", { 220, 235 }, { 200, 230 } },
    { "behind all edits", { 240, 335 }, { 235, 330 } },
  }) do
    it(case[1], function()
      local line = edited()
      assert.are.same({ case[3] }, line:send(1, 0, "", { ack = 5, sack = { case[2] } }).sack)
    end)
  end

  it("in which no byte of the sender is whole goes, and the others stay", function()
    local line = edited()
    local went = line:send(1, 0, "", { ack = 5, sack = { { 112, 114 }, { 10, 20 }, { 113, 114 }, { 130, 131 } } })
    assert.are.same({ { 10, 20 }, { 110, 111 } }, went.sack)
    assert.are.equal("\1\1\5\18", went.options:sub(1, 4))
    assert.are.equal(("\1"):rep(16), went.options:sub(21))
    went = line:send(1, 0, "", { ack = 5, sack = { { 112, 114 } } })
    assert.are.equal(("\1"):rep(12), went.options)
  end)

  it("that reports a duplicate is moved as well", function()
    local line = edited()
    line:send(1, 0, "", { ack = 235 })
    assert.are.same({ { 220, 230 }, { 240, 250 } },
      line:send(1, 0, "", { ack = 235, sack = { { 225, 235 }, { 245, 255 } } }).sack)
  end)

  it("is not touched where nothing was edited", function()
    local line = connect()
    line:send(2, 0, ("a"):rep(100))
    local facts = { ack = 5, sack = { { 20, 10 }, { 500, 600 } } }
    assert.are.equal(line:bytes(1, 0, "", facts), line:send(1, 0, "", facts).bytes)
  end)

  it("of nonsense harms nobody", function()
    local line = edited()
    for _, block in ipairs({ { 20, 10 }, { -5000, 5000 }, { 0x7fffffff, -0x7fffffff }, { 10, 10 } }) do
      line:send(1, 0, "", { ack = 5, sack = { block } })
    end
    for _, broken in ipairs({ "\5\3\0\0\5\2\5\9\1\1\1\1", "\5\12" .. ("\1"):rep(10), "\5\2\1\1",
      "\5\34" .. ("\1"):rep(30) }) do
      assert.are.equal(broken, line:send(1, 0, "", { ack = 5, options = broken }).options)
    end
  end)
end)

describe("urgent data", function()
  it("is pointed at where it goes", function()
    local line = connect()
    line:send(2, 0, "first", { content = "longer first" })
    assert.are.equal(3, line:send(2, 5, "second", { flags = "AU", urgent = 3 }).urgent)
    local went = line:send(2, 11, "third urgent", { flags = "AU", urgent = 12, content = "3rd URGENT!" })
    assert.are.same({ 11, "AU", "3rd URGENT!" }, { went.urgent, went.flags, went.payload })
    went = line:send(2, 23, "fourth", { flags = "AU", urgent = 100 })
    assert.are.same({ 100, "AU" }, { went.urgent, went.flags })
  end)

  it("is not pointed at by what goes without data", function()
    local line = connect()
    line:send(2, 0, "first", { content = "longer first" })
    local went = line:send(2, 10, "third", { flags = "AU", urgent = 3 })
    assert.are.same({ 0, "A", "" }, { went.urgent, went.flags, went.payload })
  end)

  it("beyond the pointer's reach is pointed at as far as it goes", function()
    local line = connect()
    local went = line:send(2, 0, "first", { flags = "AU", urgent = 65535, content = "longer first" })
    assert.are.equal(65535, went.urgent)
  end)
end)

describe("a reset", function()
  it("has the number that its receiver waits for", function()
    local line = connect()
    line:send(2, 0, "answer", { content = "a longer answer" })
    line:send(1, 0, "", { ack = 15 })
    assert.are.equal(15, line:send(2, 6, "", { flags = "RA" }).at)
    assert.are.equal(6, line:send(1, 0, "", { flags = "RA", ack = 15 }).ack)
  end)

  it("that answers an acknowledgement inside new content has its number", function()
    local line = connect()
    line:send(2, 0, "answer", { content = "A LONGER REPLY" })
    for ack = 10, 13 do
      assert.are.equal(ack, line:send(2, line:send(1, 0, "", { ack = ack }).ack, "", { flags = "R" }).at)
    end
  end)

  it("does not end what is known, for its receiver may not believe it", function()
    local line = connect()
    line:send(2, 0, "answer", { content = "a longer answer" })
    line:send(2, 6, "", { flags = "R" })
    line:send(2, 3, "", { flags = "R" })
    assert_went(0, "a longer answer", "sent before", line:send(2, 0, "answer"))
    assert.are.equal(6, line:send(1, 0, "", { ack = 15 }).ack)
  end)

  it("keeps its data, which is no part of the stream", function()
    local line = connect()
    line:send(2, 0, "answer", { content = "a longer answer" })
    local went = line:send(2, 6, "reason", { flags = "RA", content = "other" })
    assert_went(15, "reason", "no stream", went)
    assert_went(15, "more", nil, line:send(2, 6, "more"))
  end)
end)

describe("a connection that begins", function()
  it("with data in its SYN may have it edited", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    local went = line:send(1, -1, "request", { flags = "S", content = "longer request" })
    assert.are.same({ -1, "longer request", "S", true }, { went.at, went.payload, went.flags, went.fine })
    assert.are.equal(7, line:send(2, -1, "", { flags = "SA", ack = 14 }).ack)
    assert_went(14, "more", nil, line:send(1, 7, "more"))
  end)

  it("with data in its SYN that is not taken sends it again as it went, in other pieces", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    line:send(1, -1, "request", { flags = "S", content = "longer request" })
    local went = line:send(1, -1, "request", { flags = "S", content = "other" })
    assert.are.same({ -1, "longer request", "S", "sent before" }, { went.at, went.payload, went.flags, went.reason })
    went = line:send(1, -1, "", { flags = "S" })
    assert.are.same({ -1, "", "S" }, { went.at, went.payload, went.flags })
    assert.are.equal(0, line:send(2, -1, "", { flags = "SA", ack = 0 }).ack)
    local one, two = line:send(1, 0, "req"), line:send(1, 3, "uest")
    assert.are.equal("longer request", one.payload .. two.payload)
    assert.are.equal(#one.payload, two.at)
  end)

  it("from both ends at once is followed", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    for _, flags in ipairs({ "S", "SA" }) do
      for from = 1, 2 do
        assert.are.equal(-1, line:send(from, -1, "", { flags = flags }).at)
      end
    end
    line:send(1, 0, "request", { content = "rq" })
    line:send(2, 0, "response", { content = "rsp" })
    assert.are.same({ 2, 8 }, { line:send(1, 7, "", { ack = 3 }).at, line:send(1, 7, "", { ack = 3 }).ack })
  end)

  it("with an answer whose number changes (SYN cookies) goes on with the one that was taken", function()
    for _, taken in ipairs({ 2, 1 }) do
      local line = segments.new(nfqueue.rewrite({ max = 4 }))
      local numbers = { 5000, 900000 }
      line:send(1, -1, "", { flags = "S" })
      for _, number in ipairs(numbers) do
        line.iss[2] = number
        line:send(2, -1, "", { flags = "SA" })
      end
      line.iss[2] = numbers[taken]
      assert.are.equal(0, line:send(1, 0, "").ack)
      assert_went(0, "a longer answer", nil, line:send(2, 0, "answer", { content = "a longer answer" }))
      assert_went(15, "more", nil, line:send(2, 6, "more"))
      assert.are.equal(6, line:send(1, 0, "", { ack = 15 }).ack)
    end
  end)

  it("with another answer goes on with that when its data comes first", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    line:send(1, -1, "", { flags = "S" })
    for _, number in ipairs({ 5000, 900000 }) do
      line.iss[2] = number
      line:send(2, -1, "", { flags = "SA" })
    end
    assert_went(0, "a longer answer", nil, line:send(2, 0, "answer", { content = "a longer answer" }))
  end)

  it("anew before it was answered is the new one", function()
    local line = segments.new(nfqueue.rewrite({ max = 4 }))
    line:send(1, -1, "old", { flags = "S", content = "longer old" })
    line.iss[1] = 777777
    assert.are.equal(-1, line:send(1, -1, "", { flags = "S" }).at)
    line:send(2, -1, "", { flags = "SA" })
    assert_went(0, "request", nil, line:send(1, 0, "request"))
  end)
end)

describe("a SYN in the middle of a connection", function()
  local function started()
    local line = connect()
    line:send(1, 0, "request", { content = "longer request" })
    line:send(2, 0, "answer", { ack = 14, content = "no" })
    return line
  end

  it("changes nothing, for it may be a stranger's, and carries no data through", function()
    local line = started()
    local iss = line.iss
    line.iss = { 4242, iss[2] }
    local went = line:send(1, -1, "data", { flags = "S", content = "other" })
    assert.are.same({ -1, "", "S", "out of order" }, { went.at, went.payload, went.flags, went.reason })
    line.iss = iss
    -- The challenge, and what goes on.
    assert.are.equal(7, line:send(2, 6, "", { ack = 14 }).ack)
    assert_went(14, "more", nil, line:send(1, 7, "more"))
    assert_went(0, "no", "sent before", line:send(2, 0, "answer"))
  end)

  it("begins a new connection when it is answered", function()
    local line = started()
    line.iss = { 4242, 999 }
    line:open()
    assert_went(0, "request", nil, line:send(1, 0, "request"))
    assert_went(0, "answer", nil, line:send(2, 0, "answer"))
    assert.are.equal(6, line:send(1, 7, "", { ack = 6 }).ack)
    assert.are.equal(0, line.rw:stats().kept)
  end)

  it("does not when something else is answered", function()
    local line = started()
    local iss = line.iss
    line.iss = { 4242, iss[2] }
    line:send(1, -1, "", { flags = "S" })
    line.iss = { 4243, 999 }
    line:send(2, -1, "", { flags = "SA" })
    line.iss = iss
    assert_went(14, "more", nil, line:send(1, 7, "more"))
    assert.are.equal(6, line:send(1, 11, "", { ack = 2 }).ack)
  end)

  it("with the number of its beginning is its beginning again", function()
    local line = started()
    assert.are.equal(-1, line:send(1, -1, "", { flags = "S" }).at)
    assert.are.equal(-1, line:send(2, -1, "", { flags = "SA" }).at)
    assert_went(14, "more", nil, line:send(1, 7, "more"))
  end)

  it("begins a new connection at once when the old one is closed", function()
    for _, ending in ipairs({ "reset", "finished" }) do
      local line = started()
      if ending == "reset" then
        line:send(1, 7, "", { flags = "RA", ack = 2 })
      else
        line:send(1, 7, "", { flags = "FA", ack = 2 })
        line:send(2, 6, "", { flags = "FA", ack = 15 })
        line:send(1, 8, "", { ack = 3 })
      end
      line.iss = { 4242, 999 }
      local went = line:send(1, -1, "request", { flags = "S", content = "longer request" })
      assert.are.same({ -1, "longer request", true }, { went.at, went.payload, went.fine })
      assert.are.equal(7, line:send(2, -1, "", { flags = "SA", ack = 14 }).ack)
    end
  end)
end)

describe("a connection of more bytes than half of all numbers", function()
  it("is edited at its end as at its beginning", function()
    local line = connect({ scale = 14 })
    local size = 65400
    local payload, count = ("x"):rep(size), (1 << 31) // size + 10
    for i = 0, count - 1 do
      assert(line.rw(nfqueue.packet(line:bytes(2, size * i, payload), { gso = true })))
      if i % 1000 == 0 then
        line:send(1, 0, "", { ack = size * i })
      end
    end
    line.iss[2] = (line.iss[2] + size * count) & 0xffffffff
    line:send(1, 0, "", { ack = 0 })
    assert_went(0, "longer", nil, line:send(2, 0, "word", { content = "longer" }))
    assert_went(6, "behind", nil, line:send(2, 4, "behind"))
    assert.are.equal(4, line:send(1, 0, "", { ack = 6 }).ack)
  end)
end)

describe("what is kept for a connection", function()
  it("is bounded in number; more waits until something is acknowledged", function()
    local line = connect()
    for i = 0, 4095 do
      assert.is_true(line:send(2, i, "x", { content = "yy" }).fine)
    end
    local went = line:send(2, 4096, "x", { flags = "FPA", content = "yy" })
    assert_went(8192, "", "no room", went)
    assert.are.equal("A", went.flags)
    assert.are.equal(1, line.rw:stats().no_room)
    line:send(1, 0, "", { ack = 2 })
    assert_went(8192, "yy", nil, line:send(2, 4096, "x", { content = "yy" }))
    assert.are.equal(4097, line:send(1, 0, "", { ack = 8194 }).ack)
    assert.are.equal(0, line.rw:stats().kept)
  end)

  it("is bounded in size; more waits until something is acknowledged", function()
    local line = connect({ scale = 14 })
    local at, taken = 0, 0
    local payload = ("x"):rep(60000)
    while true do
      local went = line:send(2, at, payload, { gso = true, content = LONG:sub(1, 60000) })
      if went.reason == "no room" then
        break
      end
      assert.is_true(went.fine)
      at, taken = at + 60000, taken + 1
    end
    assert.are.equal((4 << 20) // (484 * 128), taken)
    assert.is_true(line.rw:stats().kept <= 4 << 20)
    assert_went(at, payload, nil, line:send(2, at, payload, { gso = true })) -- what stays needs no room
    line:send(1, 0, "", { ack = 60000 })
    assert.is_true(line:send(2, at + 60000, "word", { content = "words" }).fine)
  end)

  it("goes with ends that are gone when there is room for no other", function()
    local payload = ("x"):rep(60000)
    local function fill(rw, port)
      local line = segments.new(rw, { ports = { port, 80 } }):open()
      for i = 0, 68 do
        line:send(2, 60000 * i, payload, { gso = true, content = LONG:sub(1, 60000) })
      end
    end
    local began = socket.gettime()
    fill(nfqueue.rewrite({ max = 1 }), 1)
    local timeout = 1 + 60 * (socket.gettime() - began) -- far more than all of them take
    local rw = nfqueue.rewrite({ max = 1000, timeout = timeout })
    local line = segments.new(rw, { ports = { 50000, 80 } }):open()
    assert.is_true(line:send(2, 0, "word", { content = "longer" }).fine)
    for port = 1, 17 do -- ends that never say a word again
      fill(rw, port)
    end
    assert.are.equal("no room", line:send(2, 4, payload, { gso = true, content = LONG:sub(1, 60000) }).reason)
    local deadline = socket.gettime() + timeout + 0.2
    while socket.gettime() < deadline do -- it alone goes on
      line:send(1, 0, "", { ack = 6 })
      socket.sleep(timeout / 20)
    end
    assert_went(6, LONG:sub(1, 60000), nil, line:send(2, 4, payload, { gso = true, content = LONG:sub(1, 60000) }))
    assert.are.equal(18, rw:stats().expired + rw:stats().connections)
    assert.is_true(rw:stats().kept < 1 << 20)
  end)

  it("is bounded for all connections together", function()
    local rw = nfqueue.rewrite({ max = 1000 })
    local payload, full = ("x"):rep(60000), false
    for port = 1, 40 do
      local line = segments.new(rw, { ports = { port, 80 } }):open()
      local at = 0
      while at < 60 * 60000 do
        local went = line:send(2, at, payload, { gso = true, content = LONG:sub(1, 60000) })
        if went.reason == "no room" then
          full = true
          break
        end
        at = at + 60000
      end
    end
    assert.is_true(full)
    local kept = rw:stats().kept
    assert.is_true(kept <= 64 << 20 and kept > 63 << 20)
  end)
end)
