-- One verdict for each packet, whatever the handler does: what the receiver gets, and what is counted.

local traffic = require("support.traffic")

-- `judge` decides about the packet with the text "subject"; all others are accepted. `arrives`: the texts
-- received. `count`: counters of the whole that are not zero, beside `packets`. `log`: a line of it.
local CASES = {
  {
    name = "accept",
    judge = function(pkt) pkt:accept() end,
    arrives = "first subject fence",
    count = { accepted = 3 },
  },
  {
    name = "drop",
    judge = function(pkt) pkt:drop() end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1 },
  },
  {
    name = "modify",
    judge = function(pkt) pkt:modify((pkt:bytes():gsub("subject", "SUBJECT"))) end,
    arrives = "first SUBJECT fence",
    count = { accepted = 2, modified = 1 },
  },
  {
    name = "edited in place and accepted",
    judge = function(pkt)
      pkt:patch(pkt:find("subject"), "SUBJECT")
      pkt:accept()
    end,
    arrives = "first SUBJECT fence",
    count = { accepted = 2, modified = 1 },
  },
  {
    name = "returned \"accept\"",
    judge = function() return "accept" end,
    arrives = "first subject fence",
    count = { accepted = 3 },
  },
  {
    name = "returned \"drop\"",
    judge = function() return "drop" end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1 },
  },
  {
    name = "returned \"modify\" with bytes",
    judge = function(pkt) return "modify", (pkt:bytes():gsub("subject", "changed")) end,
    arrives = "first changed fence",
    count = { accepted = 2, modified = 1 },
  },
  {
    name = "returned what a verb returns, which is nothing",
    judge = function(pkt) return pkt:drop() end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1 },
  },
  {
    name = "undecided: the standard default",
    judge = function() end,
    arrives = "first subject fence",
    count = { accepted = 3, undecided = 1 },
  },
  {
    name = "undecided, default accept",
    judge = function() return nil end,
    config = { default = "accept", on_error = "drop" },
    arrives = "first subject fence",
    count = { accepted = 3, undecided = 1 },
  },
  {
    name = "undecided, default drop",
    judge = function() end,
    config = { default = "drop", on_error = "accept" },
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, undecided = 1 },
  },
  {
    name = "edited in place and undecided",
    judge = function(pkt) pkt:patch(pkt:find("subject"), "SUBJECT") end,
    arrives = "first SUBJECT fence",
    count = { accepted = 2, modified = 1, undecided = 1 },
  },
  {
    name = "edited in place and undecided, default drop",
    judge = function(pkt) pkt:patch(pkt:find("subject"), "SUBJECT") end,
    config = { default = "drop" },
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, undecided = 1 },
  },
  {
    name = "raised: the standard on_error",
    judge = function() error("no idea") end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, errors = 1 },
    log = "handler failed: .*no idea",
  },
  {
    name = "raised, on_error accept",
    judge = function() error("no idea") end,
    config = { on_error = "accept", default = "drop" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "handler failed: .*no idea",
  },
  {
    name = "raised, fail_open",
    judge = function() error("no idea") end,
    config = { fail_open = true },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "handler failed: .*no idea",
  },
  {
    name = "raised, fail_open but on_error drop",
    judge = function() error("no idea") end,
    config = { fail_open = true, on_error = "drop" },
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, errors = 1 },
    log = "handler failed: .*no idea",
  },
  {
    name = "raised something that is no string",
    judge = function() error({}) end,
    config = { on_error = "accept" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "handler failed: ",
  },
  {
    name = "edited in place and raised, on_error accept: the kernel's own copy",
    judge = function(pkt)
      pkt:patch(pkt:find("subject"), "SUBJECT")
      error("too late")
    end,
    config = { on_error = "accept" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "too late",
  },
  {
    name = "dropped, then raised: the drop stands",
    judge = function(pkt)
      pkt:drop()
      error("after it")
    end,
    config = { on_error = "accept" },
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, errors = 1 },
    log = "after it",
  },
  {
    name = "accepted, then dropped: the accept stands, the drop raises",
    judge = function(pkt)
      pkt:accept()
      pkt:drop()
    end,
    config = { on_error = "drop" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "packet already has a verdict",
  },
  {
    name = "accepted, then returned \"drop\": the accept stands, the return raises",
    judge = function(pkt)
      pkt:accept()
      return "drop"
    end,
    config = { on_error = "drop" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "the handler returned 'drop', but the packet already has a verdict",
  },
  {
    name = "returned a name that is no verb",
    judge = function() return "acept" end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, errors = 1 },
    log = "the handler returned 'acept', which is no verb %(accept, drop, modify, again, requeue",
  },
  {
    name = "returned something else",
    judge = function() return false end,
    config = { on_error = "accept", default = "drop" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "a handler returns nothing or the name of a verb, not boolean",
  },
  {
    name = "modify refused",
    judge = function(pkt) pkt:modify("") end,
    arrives = "first fence",
    count = { accepted = 2, dropped = 1, errors = 1 },
    log = "cannot edit this packet: the new content is empty",
  },
  {
    name = "modify refused, on_error accept: the kernel's own copy",
    judge = function() return "modify", ("x"):rep(65532) end,
    config = { on_error = "accept" },
    arrives = "first subject fence",
    count = { accepted = 3, errors = 1 },
    log = "cannot edit this packet: the new content is longer than 65531 bytes",
  },
}

local COUNTERS = {
  "accepted", "dropped", "modified", "again", "requeued", "rejected", "undecided", "errors", "refused", "truncated",
  "lost", "enobufs",
}

describe("a packet", function()
  after_each(traffic.cleanup)

  for _, family in ipairs(traffic.FAMILIES) do
    for _, case in ipairs(CASES) do
      it(("of %s %s"):format(family.name, case.name), function()
        local udp = traffic.udp(family)
        traffic.rule(("-A OUTPUT -p udp --dport %d -j NFQUEUE --queue-num 3"):format(udp.port), family)
        local queue = traffic.open(3, function(pkt, queue)
          if pkt:find("subject") then
            return case.judge(pkt, queue)
          end
          pkt:accept()
        end, case.config)
        local log = traffic.log(function()
          udp:send("first", "subject", "fence")
          traffic.judge({ queue }, "the fence", function()
            local texts = udp:received()
            return texts[#texts] == "fence"
          end)
        end)
        assert.equal(case.arrives, table.concat(udp:received(), " "))
        local stats = queue:stats()
        for _, name in ipairs(COUNTERS) do
          assert.equal(case.count[name] or 0, stats[name], name)
        end
        assert.equal(3, stats.packets)
        assert.equal(3, traffic.verdicts(stats))
        assert.equal(0, stats.waiting or 0)
        if case.log then
          assert.truthy(log:find(case.log), log)
        else
          assert.equal("", log)
        end
      end)
    end
  end
end)
