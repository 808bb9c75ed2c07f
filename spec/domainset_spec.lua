-- nfqueue.domainset: names that stand for themselves and all below.

local nfqueue = require("nfqueue")
local unit = require("support.unit")

local message = unit.message

after_each(unit.cleanup)

--- Labels of 63 bytes: 253 in all, the most.
local LONGEST = ("a"):rep(63) .. "." .. ("b"):rep(63) .. "." .. ("c"):rep(63) .. "." .. ("d"):rep(61)

describe("a name set", function()
  it("has its names and all below them", function()
    local set = nfqueue.domainset({ "example.com", "deep.example.org", "local", "*.wild.net", "x.wild.net",
      "a_b.test" })
    for _, name in ipairs({ "example.com", "www.example.com", "a.b.c.example.com", "deep.example.org",
      "x.deep.example.org",
      "local", "printer.local", "a.wild.net", "b.a.wild.net", "x.wild.net", "y.x.wild.net", "a_b.test" }) do
      assert.is_true(set:has(name), name)
    end
    for _, name in ipairs({ "com", "example", "example.org", "org", "anexample.com", "-example.com", "example.com.au",
      "www.example.comm", "wild.net", "net", "locale", "alocal", "b.test", "test" }) do
      assert.is_false(set:has(name), name)
    end
    assert.equal(6, #set)
  end)

  it("does not care for the case of ASCII letters, nor for a dot at the end", function()
    local set = nfqueue.domainset({ "Example.COM.", "other.org" })
    for _, name in ipairs({ "example.com", "EXAMPLE.com", "Www.Example.Com.", "OTHER.ORG." }) do
      assert.is_true(set:has(name), name)
    end
    assert.equal(3, #nfqueue.domainset({ "a.b", "A.b", "a.B.", "c.d", "*.A.b", "*.e.f", "*.E.f." }))
  end)

  it("cares for all other bytes", function()
    local set = nfqueue.domainset({ "m\xc3\xbcnchen.example", "xn--mnchen-3ya.example" })
    assert.is_true(set:has("m\xc3\xbcnchen.example"))
    assert.is_true(set:has("www.xn--mnchen-3ya.example"))
    assert.is_false(set:has("m\xc3\x9cnchen.example")) -- an upper-case letter of another alphabet
    assert.is_false(set:has("munchen.example"))
    -- "-" and carriage return differ by the bit that is the case of letters.
    assert.is_false(nfqueue.domainset({ "a-b.example" }):has("a\rb.example"))
  end)

  it("takes a name and what is below it together", function()
    local set = nfqueue.domainset({ "*.example.com", "example.com" })
    assert.equal(1, #set)
    assert.is_true(set:has("example.com"))
    assert.is_true(set:has("www.example.com"))
    set = nfqueue.domainset({ "example.com", "*.example.com" })
    assert.is_true(set:has("example.com"))
  end)

  it("has nothing that cannot be a name, and no harm is done", function()
    local set = nfqueue.domainset({ "example.com", LONGEST })
    for _, name in ipairs({ "", ".", "..", "...", " ", "example..com", ".example.org", "\0", "example.com\0",
      "exam\0ple.com",
      ("a."):rep(200), ("a"):rep(253), ("."):rep(253), ("."):rep(254), ("x"):rep(100000), "example.com..", "*",
        "*.com" }) do
      assert.is_false(set:has(name), name)
    end
    -- Names that end in one of the set are below it, whatever is in front.
    for _, name in ipairs({ ".example.com", "..example.com", "a b.example.com", "\0.example.com", "*.example.com",
      ("a."):rep(120) .. "example.com" }) do
      assert.is_true(set:has(name), name)
    end
    assert.is_true(set:has(LONGEST))
    assert.is_true(set:has(LONGEST .. "."))
    assert.is_false(set:has("x." .. LONGEST)) -- 255 bytes
  end)

  it("may be empty", function()
    for _, set in ipairs({ nfqueue.domainset(), nfqueue.domainset(nil), nfqueue.domainset({}) }) do
      assert.equal(0, #set)
      assert.is_false(set:has("example.com"))
      assert.is_false(set:has(""))
    end
  end)

  it("finds the same as a look at every name", function()
    local seed = os.time()
    math.randomseed(seed)
    local random = math.random

    local function some_name()
      local labels = {}
      for i = 1, random(1, 5) do
        labels[i] = ({ "a", "b", "ab", "com", "x-1", "y" .. random(30) })[random(6)]
      end
      return table.concat(labels, ".")
    end

    for _, count in ipairs({ 1, 10, 100, 2000 }) do
      local names, list = {}, {}
      for i = 1, count do
        local name = some_name()
        local wild = random(4) == 1
        names[name] = (names[name] == "self" or not wild) and "self" or "below"
        list[i] = (wild and "*." or "") .. name
      end
      local set = nfqueue.domainset(list)
      for _ = 1, 3000 do
        local name = some_name()
        local wanted = names[name] == "self"
        local rest = name
        while not wanted and rest:find(".", 1, true) do
          rest = rest:match("%.(.*)")
          wanted = names[rest] ~= nil
        end
        assert.equal(wanted, set:has(name), ("seed %d, %s"):format(seed, name))
      end
    end
  end)

  describe("refuses as a name", function()
    for _, case in ipairs({
      { "", "is no name" }, { ".", "is no name" }, { "..", "has an empty label" }, { ".example.com",
      "has an empty label" },
      { "example..com", "has an empty label" }, { "example.com..", "has an empty label" }, { "*.",
      "has a '*' that is not "
        .. "its first label" }, { "*", "has a '*' that is not its first label" },
      { "a.*.com", "has a '*' that is not its first label" }, { "*a.com", "has a '*' that is not its first label" },
      { "*.*.com", "has a '*' that is not its first label" }, { "exa mple.com", "has a character that is in no name" },
      { "example.com/path", "has a character that is in no name" }, { "http://example.com",
      "has a character that is in no "
        .. "name" }, { "example.com:80", "has a character that is in no name" }, { "a\0b",
          "has a character that is in no "
        .. "name" }, { "||example.com^", "has a character that is in no name" }, { "192.0.2.1",
          "is an address, no name" },
      { "::1", "is an address, no name" }, { ("a"):rep(64) .. ".com", "has a label of more than 63 bytes" },
      { "x." .. LONGEST, "has more than 253 bytes" }, { ("a."):rep(5000), "has more than 253 bytes" },
    }) do
      it(("%q"):format(case[1]:sub(1, 40)), function()
        assert.equal(("bad argument 'names' to 'domainset' ('%s' %s)"):format(case[1]:match("^%Z*"), case[2]),
          message(nfqueue.domainset, { case[1] }))
      end)
    end

    it("what is no string", function()
      for _, case in ipairs({ { 5, "5" }, { true, "true" }, { {}, "table" } }) do
        assert.equal(("bad argument 'names' to 'domainset' (string expected, got %s)"):format(case[2]),
          message(nfqueue.domainset, { case[1] }))
      end
    end)

    it("keys, anything but a table, and a name that is none", function()
      assert.equal("unknown key 'nam' to 'domainset' (names are a list, beside 'name')",
        message(nfqueue.domainset, { nam = "x" }))
      assert.equal("unknown key 'example.com' to 'domainset' (names are a list, beside 'name')",
        message(nfqueue.domainset, { ["example.com"] = true }))
      for _, case in ipairs({ { 5, "5" }, { "example.com", "'example.com'" }, { true, "true" } }) do
        assert.equal("bad argument 'names' to 'domainset' (table expected, got " .. case[2] .. ")",
          message(nfqueue.domainset, case[1]))
      end
      assert.equal("bad argument 'name' to 'domainset' (string expected, got 5)", message(nfqueue.domainset,
        { name = 5 }))
    end)
  end)
end)

describe("a name set with a name", function()
  it("is one, asked for with the same names in any order, or with none", function()
    local first = nfqueue.domainset({ name = "ads", "a.example", "*.b.example" })
    for _, names in ipairs({ { name = "ads" }, { name = "ads", "*.B.example.", "A.example", "a.example" } }) do
      assert.is_true(nfqueue.domainset(names):has("x.b.example"))
    end
    assert.equal(1, nfqueue.domainset({ name = "ads" }):load(unit.file("loaded.example")))
    assert.is_true(first:has("loaded.example"))
    assert.is_false(first:has("a.example"))
  end)

  it("cannot have other names", function()
    nfqueue.domainset({ name = "fixed", "a.example", "*.b.example" })
    for _, names in ipairs({ { "a.example" }, { "a.example", "b.example" }, { "a.example", "*.c.example" },
      { "a.example", "*.b.example", "c.example" } }) do
      names.name = "fixed"
      assert.equal("bad argument 'name' to 'domainset' ('fixed' was made with other entries)",
        message(nfqueue.domainset, names))
    end
  end)

  it("says what it is", function()
    assert.equal("domainset 'fixed'", tostring(nfqueue.domainset({ name = "fixed" })))
    assert.equal("domainset", tostring(nfqueue.domainset()))
    assert.equal("nfqueue.domainset", getmetatable(nfqueue.domainset()))
  end)
end)

describe("a name set from files", function()
  it("reads plain lists", function()
    local set = nfqueue.domainset({ "before.example" })
    assert.equal(6, set:load(unit.file("# a list\n\nexample.com\n  Other.ORG. \r\n*.wild.net # comment\n"
      .. "a.b.c#comment\nlocalhost\n\tlast.example")))
    for _, name in ipairs({ "www.example.com", "other.org", "x.wild.net", "a.b.c", "localhost", "last.example" }) do
      assert.is_true(set:has(name), name)
    end
    for _, name in ipairs({ "before.example", "wild.net", "comment" }) do
      assert.is_false(set:has(name), name)
    end
  end)

  it("reads hosts files, without the names of the machine itself", function()
    local set = nfqueue.domainset()
    assert.equal(4, set:load(unit.file([[
127.0.0.1 localhost
127.0.0.1 localhost.localdomain
127.0.0.1	local
255.255.255.255 broadcasthost
::1 localhost ip6-localhost ip6-loopback
fe80::1%lo0 localhost
ff00::0 ip6-mcastprefix ip6-localnet
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
ff02::3 ip6-allhosts
0.0.0.0 0.0.0.0

# the list
0.0.0.0 ads.example
0.0.0.0	tracker.example  other.example # two in a line
:: LOCALHOST six.example
]])))
    for _, name in ipairs({ "ads.example", "x.tracker.example", "other.example", "six.example" }) do
      assert.is_true(set:has(name), name)
    end
    for _, name in ipairs({ "localhost", "printer.local", "broadcasthost", "ip6-allnodes", "0.0.0.0", "example" }) do
      assert.is_false(set:has(name), name)
    end
  end)

  it("reads several files as one", function()
    local set = nfqueue.domainset()
    assert.equal(3, set:load(unit.file("a.example\nb.example\n"), unit.file("0.0.0.0 b.example c.example")))
    assert.is_true(set:has("c.example"))
  end)

  it("reads what editors leave: a byte order mark, no newline at the end, nothing at all", function()
    local set = nfqueue.domainset()
    assert.equal(1, set:load(unit.file("\xef\xbb\xbfexample.com\r\n")))
    assert.is_true(set:has("example.com"))
    for _, text in ipairs({ "", "\n", "# nothing", " # nothing \n\t\n" }) do
      assert.equal(0, set:load(unit.file(text)))
      assert.is_false(set:has("example.com"))
    end
  end)

  describe("refuses", function()
    for _, case in ipairs({ -- text, line, problem
      { "example.com\nexample.org other.org\n", 2,
        "'other.org' follows a name: a line is one name, or an address and names" },
      { "0.0.0.0\n", 1, "'0.0.0.0' is an address without a name" },
      { "0.0.0.0 # nothing\n", 1, "'0.0.0.0' is an address without a name" },
      { "0.0.0.0 a.example 1.2.3.4", 1, "'1.2.3.4' is an address, no name" },
      { "\n||ads.example^\n", 2, "'||ads.example^' has a character that is in no name" },
      { "http://ads.example/", 1, "'http://ads.example/' has a character that is in no name" },
      { "a..example", 1, "'a..example' has an empty label" },
      { "0.0.0.0 .", 1, "'.' is no name" },
      { "address=/ads.example/0.0.0.0", 1, "'address=/ads.example/0.0.0.0' has a character that is in no name" },
      { "x\0y.example", 1, "'x?y.example' has a character that is in no name" },
      { ("a"):rep(300), 1, "'" .. ("a"):rep(47) .. "...' has more than 253 bytes" },
      { "a.example\n" .. ("x"):rep(70000), 2, "'" .. ("x"):rep(47) .. "...' begins a line of 64 KB or more" },
      { "10.0.0.0/8", 1, "'10.0.0.0/8' has a character that is in no name" },
    }) do
      it(("%q in line %d"):format(case[1]:sub(1, 30), case[2]), function()
        local set = nfqueue.domainset({ "before.example" })
        local path = unit.file(case[1])
        assert.same({ nil, ("%s:%d: %s"):format(path, case[2], case[3]), 22 }, { set:load(path) }) -- EINVAL
        assert.is_true(set:has("before.example"))
        assert.equal(1, #set)
      end)
    end

    it("what cannot be read", function()
      local set = nfqueue.domainset()
      assert.same({ nil, "cannot read /nowhere/list: No such file or directory", 2 }, { set:load("/nowhere/list") })
      assert.same({ nil, "cannot read /tmp: Is a directory", 21 }, { set:load("/tmp") })
    end)
  end)

  it("holds a million names", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    for i = 0, 999999 do
      file:write(i % 2 == 0 and "0.0.0.0 " or "", ("name%d.list%d.example\n"):format(i, i % 100))
    end
    file:close()
    local set = nfqueue.domainset()
    assert.equal(1000000, set:load(path))
    os.remove(path)
    for i = 0, 999999, 991 do
      assert.is_true(set:has(("www.name%d.list%d.example"):format(i, i % 100)))
      assert.is_false(set:has(("name%d.list%d.example"):format(i, (i + 1) % 100)))
    end
  end)
end)

describe("methods of name sets", function()
  it("raise for anything else, and fields that they do not have", function()
    local set = nfqueue.domainset()
    for _, method in ipairs({ "has", "load" }) do
      for _, foreigner in ipairs(unit.foreigners()) do
        assert.equal(("bad argument 'self' to '%s' (domainset expected, got %s)"):format(method, foreigner.type),
          message(set[method], foreigner.value, "x"))
      end
      assert.equal(("bad argument 'self' to '%s' (domainset expected, got userdata)"):format(method),
        message(set[method], nfqueue.cidrset(), "x"))
    end
    for _, case in ipairs({ { nil, "nothing" }, { 5, "5" }, { {}, "table" } }) do
      assert.equal(("bad argument 'name' to 'has' (string expected, got %s)"):format(case[2]),
        message(set.has, set, case[1]))
    end
    assert.equal("domainset has no field 'find'", message(function() return set.find end))
    assert.equal("domainset has no field 'x' to assign to", message(function() set.x = true end))
  end)
end)
