-- The sandbox: what a script tries in order to get out of it, or to never come back, each in a process of its own.

local net = require("support.net")
local nfqueue = require("nfqueue")
local unit = require("support.unit")

local NFQUEUE = net.build .. "/bin/nfqueue"

after_each(unit.cleanup)

-- Runs a script under `nfqueue check --sandbox`: its output and exit status.
local function check(text, options)
  local output, _, status =
    net.sh(("timeout 20 %s check --sandbox %s %s"):format(NFQUEUE, options or "", unit.file(text)))
  return output, status
end

-- What one piece of code comes to in a sandbox: "returned VALUE" or "raised MESSAGE", without positions. `where` is
-- "packet" for code inside the handler, which has pkt and queue.
local function outcome(code, where)
  local output, status = check(([[
    local nfqueue = require("nfqueue")
    local told
    local function try(pkt, queue)
      if told then return end
      told = true
      local fine, value = pcall(function(pkt, queue) %s
        end, pkt, queue)
      print((fine and "returned " or "raised ") .. tostring(value))
    end
    if %q == "packet" then
      return function(pkt, queue) try(pkt, queue) return "accept" end
    end
    try()
    return function() return "accept" end]]):format(code, where or ""))
  assert.are.equal(0, status, output)
  local line = output:match("returned [^\n]*") or output:match("raised [^\n]*") or output
  return (line:gsub("raised /[^:]*:%d+: ", "raised "))
end

local INDEX_NIL = "raised attempt to index a nil value %%(%s '%s'%%)"
local CALL_NIL = "raised attempt to call a nil value %%(%s '%s'%%)"
local TOO_COMPLEX = "raised pattern too complex"
local TOO_LARGE = "raised resulting string too large"

local function index_nil(name)
  return INDEX_NIL:format("global", name)
end

local function call_nil(kind, name)
  return CALL_NIL:format(kind, name)
end

local function not_available(name)
  return "raised nfqueue%." .. name .. " is not available in the sandbox"
end

-- { what is tried, what it comes to (a pattern for the whole line), where }
local ESCAPES = {
  -- Files, processes, the environment.
  { "return io.open('/etc/passwd')", index_nil("io") },
  { "return io.popen('id')", index_nil("io") },
  { "return _G.io", "returned nil" },
  { "return require('io')", "raised module 'io' not found: .*" },
  { "return os.execute('id')", call_nil("field", "execute") },
  { "return os.exit(0)", call_nil("field", "exit") },
  { "return os.getenv('PATH')", call_nil("field", "getenv") },
  { "return os.remove('/tmp/x')", call_nil("field", "remove") },
  { "return os.rename('/tmp/x', '/tmp/y')", call_nil("field", "rename") },
  { "return os.tmpname()", call_nil("field", "tmpname") },
  { "return os.setlocale('C')", call_nil("field", "setlocale") },
  { "return require('os').execute", "returned nil" },
  { "return dofile('/etc/passwd')", call_nil("global", "dofile") },
  { "return loadfile('/etc/passwd')", call_nil("global", "loadfile") },
  -- Debug.
  { "return debug.getregistry()", index_nil("debug") },
  { "return debug.sethook()", index_nil("debug") },
  { "return require('debug')", "raised module 'debug' not found: .*" },
  -- C modules and what is loaded.
  { "return package.loadlib('libc.so.6', 'system')", index_nil("package") },
  { "package.cpath = '/tmp/?.so'", index_nil("package") },
  { "package.preload.x = print", index_nil("package") },
  { "return package.loaded.io", index_nil("package") },
  { "return require('package')", "raised module 'package' not found: .*" },
  { "return require('lfs')", "raised module 'lfs' not found: .*" },
  { "return require('socket.core')", "raised module 'socket.core' not found: .*" },
  { "return require('../../etc/passwd')", "raised bad argument #1 to 'require' .*" },
  { "return require('/etc/passwd')", "raised bad argument #1 to 'require' .*" },
  { "return require('x\\0y')", "raised bad argument #1 to 'require' .*" },
  { "return require('nfqueue.cli.options')", index_nil("io") },
  { "return require('_G').io", "returned nil" },
  { "require('string').dump = print return string.dump(print)", "returned nil" }, -- its own to change
  -- Bytecode.
  { "return string.dump(function() end)", call_nil("field", "dump") },
  { "return (''):dump()", call_nil("method", "dump") },
  { "return select(2, load('\\27Lua'))", "returned attempt to load a binary chunk %(mode is 't'%)" },
  { "return select(2, load('\\27Lua', 'x', 'b'))", "returned attempt to load a binary chunk %(mode is 't'%)" },
  { "return select(2, load('\\27Lua', 'x', 'bt', {}))", "returned attempt to load a binary chunk %(mode is 't'%)" },
  { "local n = 0 return select(2, load(function() n = n + 1 return n == 1 and '\\27' or n == 2 and 'Lua' or nil end))",
    "returned attempt to load a binary chunk %(mode is 't'%)" },
  -- _ENV.
  { "return _ENV.io", "returned nil" },
  { "return load('return io')()", "returned nil" },
  { "return load('return io', 'x', 't', _G)()", "returned nil" },
  { "local env = setmetatable({}, { __index = _ENV }) return load('return os.execute', 'x', 't', env)()",
    "returned nil" },
  { "local _ENV <const> = {} return X", "returned nil" },
  { "local _ENV <const> = 1 return X", "raised attempt to index a number value" },
  -- Metatables.
  { "return getmetatable('')", "returned false" },
  { "getmetatable('').__index = function() end", "raised attempt to index a boolean value" },
  { "return setmetatable('', {})", "raised bad argument #1 to 'setmetatable' %(table expected, got string%)" },
  { "return getmetatable(pkt)", "returned nfqueue.packet", "packet" },
  { "return getmetatable(pkt.ip)", "returned nfqueue.ip", "packet" },
  { "return getmetatable(pkt.tcp)", "returned nfqueue.tcp", "packet" },
  { "return getmetatable(queue)", "returned nfqueue.queue", "packet" },
  { "return setmetatable(pkt, {})",
    "raised bad argument #1 to 'setmetatable' %(table expected, got nfqueue.packet%)",
    "packet" },
  { "return rawset(pkt, 'x', 1)",
    "raised bad argument #1 to 'rawset' %(table expected, got nfqueue.packet%)", "packet" },
  { "return getmetatable(nfqueue.shared('x'))", "returned nfqueue.shared" },
  { "return getmetatable(nfqueue.bucket('x', { rate = 1, burst = 1 }))", "returned nfqueue.bucket" },
  { "return getmetatable(nfqueue.cidrset({ '10.0.0.0/8' }))", "returned nfqueue.cidrset" },
  { "return getmetatable(nfqueue.domainset({ 'example.com' }))", "returned nfqueue.domainset" },
  { "return getmetatable(nfqueue.flows({}))", "returned nfqueue.flows" },
  { "return getmetatable(nfqueue.rewrite({}))", "returned nfqueue.rewrite" },
  { "return getmetatable(nfqueue.filter('tcp'))", "returned nfqueue.filter" },
  -- __gc, which would run inside anything.
  { "setmetatable({}, { __gc = function() while true do end end })",
    "raised bad argument #2 to 'setmetatable' %(__gc is not available in the sandbox%)" },
  { "setmetatable({}, { __gc = true })",
    "raised bad argument #2 to 'setmetatable' %(__gc is not available in the sandbox%)" },
  { "local ran local mt = {} setmetatable({}, mt) mt.__gc = function() ran = true end "
    .. "for _ = 1, 100 do collectgarbage('step', 0) end return ran", "returned nil" },
  { "return collectgarbage('stop')", "raised bad argument #1 to 'collectgarbage' .*" },
  { "return collectgarbage()", "raised bad argument #1 to 'collectgarbage' .*" },
  { "return collectgarbage('setpause', 1e9)", "raised bad argument #1 to 'collectgarbage' .*" },
  { "return collectgarbage('generational')", "raised bad argument #1 to 'collectgarbage' .*" },
  -- Functions in C that would not return.
  { "return string.find(('a'):rep(3000), ('a-'):rep(60) .. 'b')", TOO_COMPLEX },
  { "return (('a'):rep(3000)):match(('a*'):rep(60) .. 'b')", TOO_COMPLEX },
  { "for _ in (('a'):rep(3000)):gmatch(('a?'):rep(99) .. ('a*'):rep(9) .. 'b') do end", TOO_COMPLEX },
  { "return (('a'):rep(3000)):gsub(('.-'):rep(60) .. 'b', '')", TOO_COMPLEX },
  { "return (('x'):rep(200000)):find('(.+)%1%1%1y')", TOO_COMPLEX },
  { "return (('('):rep(1000000)):find('%b()')", TOO_COMPLEX },
  { "return ('x'):find(('(x?'):rep(40))", "raised too many captures" },
  { "return ('x'):rep(1000):find(('x?'):rep(1000))", TOO_COMPLEX },
  { "return (('a'):rep(1 << 22)):find(('a'):rep(1 << 21) .. 'b', 1, true)", "returned nil" },
  { "return #string.rep('', 1 << 62)", "returned 0" },
  { "return ('x'):rep(1 << 40)", TOO_LARGE .. ".*" },
  { "return ('x'):rep(1 << 62, 'yy')", TOO_LARGE .. ".*" },
  { "return (('x'):rep(1 << 20)):gsub('x', ('y'):rep(1 << 20))", TOO_LARGE .. ".*" },
  { "return (('x'):rep(1 << 20)):gsub('x', function() return ('y'):rep(1 << 20) end)", TOO_LARGE .. ".*" },
  { "return string.format('%999999d', 1)", "raised invalid conversion .*'%%999999d'" },
  { "return string.format('%.999999f', 1)", "raised invalid conversion .*'%%%.999999f'" },
  { "return string.pack('c2000000000', '')", TOO_LARGE .. ".*" },
  { "return string.pack(('c9999999'):rep(100), '')", TOO_LARGE .. ".*" },
  { "return os.date(('%c'):rep(1000000))", "raised bad argument #1 to 'date' .*" },
  { "table.insert(setmetatable({}, { __len = function() return 1 << 62 end }), 1, 1)",
    "raised bad argument #1 to 'insert' %(a table with __len, in the sandbox%)" },
  { "table.remove(setmetatable({}, { __len = function() return 1 << 62 end }), 1)",
    "raised bad argument #1 to 'remove' %(a table with __len, in the sandbox%)" },
  { "table.sort(setmetatable({}, { __len = function() return 1 << 30 end }))",
    "raised bad argument #1 to 'sort' %(a table with __len, in the sandbox%)" },
  { "table.concat(setmetatable({}, { __len = function() return 1 << 62 end, __index = rawlen }))",
    "raised bad argument #1 to 'concat' %(a table with __len, in the sandbox%)" },
  { "table.concat(setmetatable({}, { __index = rawlen }), '', 1, 1 << 60)", "raised too many items to 'concat' .*" },
  { "table.move({}, 1, 1 << 50, 2, {})", "raised too many items to 'move' .*" },
  { "table.move({}, math.mininteger, -1, 1)", "raised too many items to 'move' .*" },
  { "table.unpack({}, math.mininteger, math.maxinteger)", "raised too many items to 'unpack' .*" },
  { "load(os.time)", "raised reader function must return a string" },
  { "load(function() return ('x'):rep(1 << 20) end)", "raised chunk too large .*" },
  { "local s = '' for _ = 1, 2000 do s = s .. 'pcall(' end return select(2, load(s))",
    "returned .*C stack overflow.*" },
  { "local function f() return pcall(f) end f() local function g() "
    .. "return tostring(setmetatable({}, { __tostring = g })) end return g()", "raised .*C stack overflow.*" },
  -- nfqueue's own ways out.
  { "return nfqueue.new(1, print)", not_available("new") },
  { "return nfqueue.start()", not_available("start") },
  { "return nfqueue.load('/etc/passwd')", not_available("load") },
  { "return nfqueue.run({ script = '/tmp/x', queues = 1 })", not_available("run") },
  { "return nfqueue.pcap.open('/etc/passwd')", not_available("pcap.open") },
  { "return nfqueue.pcap.create('/tmp/x')", not_available("pcap.create") },
  { "return require('nfqueue.core').execute({ 'id' })", not_available("execute") },
  { "return require('nfqueue.core').setenv('PATH', '')", not_available("setenv") },
  { "return require('nfqueue.core').supervise({})", not_available("supervise") },
  { "return require('nfqueue.core').enter_namespace()", not_available("enter_namespace") },
  { "return require('nfqueue.core').wrap(print, 'x')", not_available("wrap") },
  { "return require('nfqueue.core').tables_clock()", not_available("tables_clock") },
  { "return queue:start()", "raised queue 0 belongs to nfqueue.run", "packet" },
  { "return queue:open()", "raised queue 0 belongs to nfqueue.run", "packet" },
  { "return nfqueue.cidrset({ '10.0.0.0/8' }):load('/etc/passwd')",
    "raised bad argument 'path' to 'load' %(in the sandbox: a file in the script's folder expected, got '/etc/.*" },
  { "return nfqueue.domainset({ 'a.example' }):load('/nowhere/list')",
    "raised bad argument 'path' to 'load' %(in the sandbox: a file in the script's folder expected, .*" },
  { "return nfqueue.filter('host secret.attacker.example')",
    "raised bad argument 'expression' to 'filter' %(no name is looked up in a sandbox .*: 'secret.*'%)" },
  { "return nfqueue.filter('ip proto \\\\tcp')", "raised .*no name is looked up in a sandbox .*: '\\tcp'%)" },
  { "return nfqueue.filter(('not '):rep(9999) .. 'tcp')", "raised .*in a sandbox: at most 4096 bytes%)" },
}

-- Handlers that try to outlive their time: { what is at hand when the handler is called, what it does }
local RUNAWAYS = {
  { "", "while true do end" },
  { "", "while true do pcall(forever) end" },
  { "", "local function again() while true do pcall(again) end end again()" },
  { "", "while true do pcall(pcall, pcall, forever) end" },
  { "", "xpcall(error, forever)" },
  { "", "xpcall(forever, forever)" },
  { "", "while true do xpcall(forever, function() xpcall(forever, forever) end) end" },
  { "", "while true do xpcall(error, error) end" },
  { "", "error(setmetatable({}, { __tostring = forever }))" },
  { "", "coroutine.wrap(forever)()" },
  { "", "while true do coroutine.resume(coroutine.create(forever)) end" },
  { "", "while true do xpcall(coroutine.wrap(forever), coroutine.wrap(forever)) end" },
  { "local early = coroutine.create(forever)", "coroutine.resume(early)" },
  { "local early = coroutine.wrap(function() while true do pcall(forever) end end)", "early()" },
  { "", "local co = coroutine.create(function() local _ <close> = setmetatable({}, { __close = forever }) "
    .. "coroutine.yield() end) coroutine.resume(co) coroutine.close(co)" },
  { "", "local _ <close> = setmetatable({}, { __close = forever })" },
  { "", "return setmetatable({}, { __index = forever }).x" },
  { "", "string.gsub('text', '.', forever)" },
  { "", "while true do string.gsub('text', '.', function() pcall(forever) end) end" },
  { "", "for _ in string.gmatch('x', '()') do forever() end" },
  { "", "table.sort({ 3, 1, 2 }, forever)" },
  { "", "load(forever)" },
  { "", "load(function() return ' ' end)" },
  { "", "while true do load('return 1')() end" },
  { "", "while true do pcall(require, 'no.such.module') end" },
  { "", "while true do pcall(string.find, ('a'):rep(3000), ('a-'):rep(60) .. 'b') end" },
  { "", "while true do collectgarbage('step') end" },
  { "", "table.move(setmetatable({}, { __index = rawlen }), 1, 1 << 22, 1, setmetatable({}, { __newindex = rawequal }))"
    .. " forever()" },
}

-- Error objects that act when somebody shows them: { code of the chunk or the handler, what is said of it }
local HOSTILE_ERRORS = {
  { "error(setmetatable({}, { __tostring = function() return io.open('/etc/passwd') end }))", "global 'io'" },
  { "error(setmetatable({}, { __tostring = function() return os.execute('id') end }))", "field 'execute'" },
  { "error(setmetatable({}, { __tostring = function() error(setmetatable({}, {})) end }))", "error" },
  { "error(setmetatable({}, { __tostring = function() return {} end }))", "error object is a table value" },
  { "error(setmetatable({}, { __tostring = function() return nil end }))", "error object is a table value" },
  { "error(setmetatable({}, { __tostring = rawlen }))", "error object is a table value" },
  { "error(setmetatable({}, { __name = ('x'):rep(1 << 20) }))", "error object is a table value" },
  { "local mt = {} mt.__tostring = function(o) error(o) end error(setmetatable({}, mt))", "error" },
  { "error(nil)", "error object is a nil value" },
  { "error(('%s'):rep(1000))", "%%s%%s%%s" },
  { "error('a\\0b')", "a" },
  { "error(coroutine.create(print))", "error object is a thread value" },
}

-- Runs its text in a sandbox, with the functions below: what it prints.
local function run(text)
  local output, status = check(text .. "\nreturn function() return 'accept' end")
  assert.are.equal(0, status, output)
  return (output:gsub("IPv4 TCP SYN.*", ""))
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

describe("in the sandbox", function()
  it("knows at least 60 ways out", function()
    assert.is_true(#ESCAPES >= 60)
  end)

  for _, case in ipairs(ESCAPES) do
    local code, expected, where = table.unpack(case)
    it(("is refused: %s"):format(code:sub(1, 80)), function()
      assert.matches("^" .. expected .. "$", outcome(code, where))
    end)
  end

  it("there are no globals but these", function()
    assert.are.equal("_G _VERSION assert collectgarbage coroutine error getmetatable ipairs load math next os pairs "
      .. "pcall print rawequal rawget rawlen rawset require select setmetatable string table tonumber tostring type "
      .. "utf8 warn xpcall\nclock date difftime time\n", run([[
      for _, list in ipairs({ _G, os }) do
        local names = {}
        for name in pairs(list) do names[#names + 1] = name end
        table.sort(names)
        print(table.concat(names, " "))
      end]]))
  end)

  it("nfqueue.core has nothing but what is known to stay inside", function()
    local known = {}
    for name in ([[packet build rewrite flows filter shared bucket cidrset domainset after every now send stop log cores
      counter gauge config_keys]]):gmatch("%g+") do
      known[name] = true
    end
    local names = {}
    for name, value in pairs(require("nfqueue.core")) do
      if type(value) == "function" and not known[name] then
        names[#names + 1] = name
      end
    end
    assert.is_true(#names > 10)
    local output = run(([[
      local core = require("nfqueue.core")
      for name in (%q):gmatch("%%g+") do print((select(2, pcall(core[name])))) end
      for name, value in pairs(core) do if type(value) == "table" then print(name) end end]])
      :format(table.concat(names, " ")))
    local lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    for i, name in ipairs(names) do
      assert.are.equal(("nfqueue.%s is not available in the sandbox"):format(name), lines[i])
    end
    assert.are.equal(#names + 1, #lines)
    assert.are.equal("pcap", lines[#lines])
  end)

  for _, case in ipairs(HOSTILE_ERRORS) do
    it("errors that act are harmless: " .. case[1]:sub(1, 80), function()
      local output, status = check(case[1])
      assert.are.equal(65, status, output)
      assert.matches("failed while loading: .*" .. case[2], output)
      output, status = check("return function() " .. case[1] .. " end")
      assert.are.equal(65, status, output)
      assert.matches("IPv4 TCP SYN +drop", output)
      assert.matches("the handler failed: .*" .. case[2], output)
    end)
  end

  for _, case in ipairs(RUNAWAYS) do
    it("no handler outlives its time: " .. case[1] .. " " .. case[2]:sub(1, 80), function()
      local output, status = check(([[
        local told
        local function forever() while true do end end
        %s
        return function(pkt)
          if told then return "accept" end
          told = true
          %s
        end]]):format(case[1], case[2]), "--time-limit 0.01")
      assert.are.equal(65, status, output)
      assert.matches("IPv4 TCP SYN +drop\n  the handler failed: [^\n]*time limit of 0.01 s exceeded", output)
      assert.matches("IPv4 TCP data +accept", output) -- its state lives on
      assert.matches("failed on 1 of", output, 1, true)
    end)
  end

  it("xpcall gives what the handler makes of an error", function()
    assert.are.equal("true\t1\t2\nfalse\thandled x\nfalse\tinner\nfalse\tnil\ntrue\t5\t7\n", run([[
      print(xpcall(function(...) return ... end, error, 1, 2))
      print(xpcall(error, function(problem) return "handled " .. problem, 2 end, "x", 0))
      print(xpcall(error, function() error("inner", 0) end))
      print(xpcall(error, function() end))
      local co = coroutine.wrap(function() print(xpcall(function() return coroutine.yield(), 7 end, error)) end)
      co()
      co(5)]]))
  end)

  it("the same reaches out without it", function()
    -- What is refused above is there in a state that is no sandbox: the table is not about nothing.
    local path = unit.file([[
      assert(io.open("/dev/null"))
      assert(os.getenv("PATH") and debug.getregistry() and package.loadlib and getmetatable("").__index)
      assert(string.dump(print and function() end))
      assert(require("nfqueue.core").geteuid())
      return function() return "accept" end]])
    local output, _, status = net.sh(("%s check %s"):format(NFQUEUE, path))
    assert.are.equal(0, status, output)
  end)

  it("takes what scripts need", function()
    assert.are.equal("1\t2\tx y\ttable\n7\t3\tnumber\tnumber\tstring\t1024\n", run([[
      local co = coroutine.wrap(function() coroutine.yield(1) return 2 end)
      print(co(), co(), table.concat({ "x", "y" }, " "), type(os.date("*t")))
      local sum = load("local a, b = ... return a + b", "sum", "t", {})
      print(sum(3, 4), utf8.len("äöü"), type(os.time()), type(os.clock()), type(os.date("%c")), #("x"):rep(1024))]]))
  end)

  it("reads text from the script's folder and the package path, and lists of sets", function()
    local folder = net.must("mktemp -d")
    finally(function() net.must("rm -rf " .. folder) end)
    write(folder .. "/one.lua", "local name, path = ... return { name = name, path = path, io = io }")
    net.must("mkdir " .. folder .. "/deep")
    write(folder .. "/deep/init.lua", "count = (count or 0) + 1")
    write(folder .. "/evil.lua", string.dump(function() end))
    write(folder .. "/list.txt", "10.0.0.0/8\n192.0.2.0/24\n")
    net.must("mkfifo " .. folder .. "/pipe.lua")
    net.must("ln -s /etc/passwd " .. folder .. "/passwd")
    write(folder .. "/script.lua", [[
      local one, path = require("one")
      print(one.name, one.path == path, one.io, require("one") == one)
      print(require("deep"), require("deep"), count, type(require("nfqueue").packet), require("table") == table)
      print(select(2, pcall(require, "evil")):match("attempt.*"))
      print(pcall(require, "pipe"))
      local set = require("nfqueue").cidrset({ "172.16.0.0/12" })
      local folder = path:match("(.*)/")
      print(set:load(folder .. "/list.txt"), pcall(set.load, set, folder .. "/passwd"))
      return function() return "accept" end]])
    local output = net.must(("timeout 20 %s check --sandbox %s/script.lua"):format(NFQUEUE, folder))
    local lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    assert.are.equal("one\ttrue\tnil\ttrue", lines[1])
    assert.are.equal("true\ttrue\t1\tfunction\ttrue", lines[2])
    assert.matches("^attempt to load a binary chunk %(mode is 't'%)", lines[3])
    assert.matches("^false\tmodule 'pipe' not found", lines[4])
    assert.matches("^2\tfalse\tbad argument 'path' to 'load' %(in the sandbox: a file in the script's folder", lines[5])
  end)
end)

-- Patterns of every kind of item, and subjects they may match: the same for each run.
local function random_patterns(count)
  local seed = 12345
  local function pick(list)
    seed = (seed * 1103515245 + 12345) % (1 << 31)
    return list[(seed >> 8) % #list + 1]
  end
  local ITEMS = { "a", "b", ".", "%a", "%d", "%W", "[ab]", "[^a]", "[a-c%d]", "[]x]", "[%]-]", "%.", "%%", "(", ")",
    "()", "%b()", "%f[%w]", "%1", "%2", "$", "^", "-", "]", "[", "%", "%b(", "%f", "\0", "%S", "%g",
    "%x", "%u", "%p", "%c", "%l" }
  local SUFFIXES = { "", "", "", "*", "+", "-", "?" }
  local BYTES = { "a", "b", "c", "1", "(", ")", ".", "%", " ", "]", "-", "x", "A", "\0", "\255", "\n" }
  local REPLACEMENTS = { "", "<%0>", "%1", "%%", "%2", "%", "x", "%x" }
  local cases = {}
  for i = 1, count do
    local pattern, subject = "", ""
    for _ = 1, pick({ 1, 2, 3, 4, 5, 6 }) do
      pattern = pattern .. pick(ITEMS) .. pick(SUFFIXES)
    end
    for _ = 1, pick({ 0, 1, 2, 4, 8, 12 }) do
      subject = subject .. pick(BYTES)
    end
    cases[i] = { subject, pattern, pick({ 1, 1, 1, 2, 5, -1, -3, 0, 20 }), pick(REPLACEMENTS), pick({ 1, 2, 100 }) }
  end
  return cases
end

-- Everything the functions of strings say of a case, as text; the same source in both kinds of state.
local JUDGE = [[
  local function shown(...)
    local list = table.pack(...)
    for i = 1, list.n do
      list[i] = type(list[i]) == "string" and ("%q"):format(list[i]) or tostring(list[i])
    end
    return table.concat(list, " ", 1, list.n)
  end
  local function judge(subject, pattern, init, replacement, most)
    local out = {
      shown(pcall(string.find, subject, pattern, init)),
      shown(pcall(string.find, subject, pattern, init, true)),
      shown(pcall(string.match, subject, pattern, init)),
      shown(pcall(string.gsub, subject, pattern, replacement)),
      shown(pcall(string.gsub, subject, pattern, replacement, most)),
      shown(pcall(string.gsub, subject, pattern, { a = "A", b = false, [1] = "one" })),
      shown(pcall(string.gsub, subject, pattern, function(...) return shown(...) end)),
    }
    local rounds = 0
    local fine, problem = pcall(function()
      for a, b in string.gmatch(subject, pattern, init) do
        out[#out + 1] = shown(a, b)
        rounds = rounds + 1
        if rounds > 50 then error("it does not end", 0) end
      end
    end)
    out[#out + 1] = shown(fine, type(problem) == "string" and problem:gsub("^.*:%d+: ", "") or problem)
    return (table.concat(out, " | "):gsub("\n", "\\n"))
  end
]]

describe("patterns in the sandbox", function()
  it("match as the stock functions do", function()
    local cases = random_patterns(4000)
    local text = { JUDGE, "for _, case in ipairs({" }
    for _, case in ipairs(cases) do
      text[#text + 1] = ("{%q,%q,%d,%q,%d},"):format(table.unpack(case))
    end
    text[#text + 1] = "}) do print(judge(table.unpack(case))) end"
    local output = run(table.concat(text, "\n"))
    local judge = load(JUDGE .. " return judge")()
    local at = 0
    for line in output:gmatch("([^\n]*)\n") do
      at = at + 1
      assert.are.equal(judge(table.unpack(cases[at])), line, ("%q"):format(cases[at][2]))
    end
    assert.are.equal(#cases, at)
  end)

  it("take long subjects", function()
    assert.are.equal("1000001\t2000000\n1000000\t1000001\t1000001\n", run([[
      local long = ("x"):rep(1000000)
      print((long .. long:upper()):find("%u+"))
      print(select(2, long:gsub("x", "y")), (long .. "z"):find("z", 1, true))]]))
  end)
end)

describe("the sandbox is asked for", function()
  local REASON = "(this state is none and cannot become one: it is asked for by --sandbox on the command line or in "
    .. "the config of nfqueue.run)"

  it("by the command or nfqueue.run, not for a state that has begun", function()
    assert.are.equal("bad argument 'sandbox' to 'new' " .. REASON,
      unit.message(nfqueue.new, 1, print, { sandbox = true }))
    assert.are.equal("bad argument 'sandbox' to 'new' " .. REASON,
      unit.message(nfqueue.new, 1, { packet = print, config = { sandbox = true } }))
    local path = unit.file("return print")
    assert.are.equal("bad argument 'sandbox' to 'load' " .. REASON,
      unit.message(nfqueue.load, path, {}, { sandbox = true }))
  end)

  it("too late by the script itself, which has run by then", function()
    local path = unit.file("return { packet = print, config = { sandbox = true } }")
    assert.are.same({ nil, ("%s: bad argument 'sandbox' to 'script' %s"):format(path, REASON), 22 },
      { nfqueue.load(path) })
    local output, _, status = net.sh(("%s check %s"):format(NFQUEUE, path))
    assert.are.equal(78, status)
    assert.are.equal(("nfqueue: %s: bad argument 'sandbox' to 'script' %s"):format(path, REASON), output)
  end)

  it("and the script may say so too, but not otherwise", function()
    for _, value in ipairs({ "true", "false" }) do
      local output, status = check([[return { packet = function() return "accept" end,
        open = function(queue) print(queue.config.sandbox, io) end, config = { sandbox = ]] .. value .. " } }")
      assert.are.equal(0, status, output)
      assert.matches("^true\tnil\n", output)
    end
  end)
end)
