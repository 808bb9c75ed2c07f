-- A handler script for specs: replaces words in what a web server sends, and reports what it replaced.
--   replace=WORD=NEW  repeated for several
--   folder=PATH       for its reports
--   mss=N             what the server is told to send at most in a segment, so that there is room to grow
--   wait=false        the option of nfqueue.rewrite
-- For each queue a file report.NUMBER is left in the folder, a line for each thing:
--   begin PORT SEQ          what is sent begins at this sequence number, for the client of this port
--   edit PORT SEQ WORD NEW  the word that is at this number was replaced
--   count NAME N            how often: a reason why a segment was not taken (with dashes), "large" segments,
--                           segments "edited", "errors" of this handler

local nfqueue = require("nfqueue")

local args = ...
local PORT = 80

local words = {}
for _, item in ipairs(type(args.replace) == "table" and args.replace or { args.replace }) do
  local word, new = item:match("^(.-)=(.*)$")
  words[#words + 1] = { word = word, new = new }
end

local rewrite = nfqueue.rewrite({ max = 64, timeout = 600, wait = args.wait ~= "false" })
local mss = args.mss and math.tointeger(tonumber(args.mss))
local lines = {}
local counts = {}

local function count(name, number)
  counts[name] = (counts[name] or 0) + (number or 1)
end

-- What is to be replaced in these bytes, in order: { at =, word =, new = }; `at` counts from 1.
local function find(bytes)
  local found = {}
  for _, item in ipairs(words) do
    local at = bytes:find(item.word, 1, true)
    while at do
      found[#found + 1] = { at = at, word = item.word, new = item.new }
      at = bytes:find(item.word, at + #item.word, true)
    end
  end
  table.sort(found, function(a, b) return a.at < b.at end)
  return found
end

local function replace(bytes, found)
  local parts, from = {}, 1
  for _, item in ipairs(found) do
    parts[#parts + 1] = bytes:sub(from, item.at - 1)
    parts[#parts + 1] = item.new
    from = item.at + #item.word
  end
  parts[#parts + 1] = bytes:sub(from)
  return table.concat(parts)
end

local function report(port, seq, found)
  for _, item in ipairs(found) do
    lines[#lines + 1] = ("edit %d %d %s %s"):format(port, (seq + item.at - 1) & 0xffffffff, item.word, item.new)
  end
end

return {
  packet = function(pkt)
    local tcp = pkt.tcp
    if pkt.gso then
      count("large")
    end
    local bytes = pkt.payload
    local found = tcp.sport == PORT and #bytes > 0 and find(bytes) or {}
    local seq, port = tcp.seq, tcp.dport
    local taken, why
    if #found > 0 then
      taken, why = rewrite(pkt, replace(bytes, found))
    else
      taken, why = rewrite(pkt)
    end
    if mss and tcp.syn and tcp.dport == PORT then
      tcp.mss = mss -- behind the rewriter, which is to know what fits
    end
    if tcp.syn and tcp.sport == PORT then
      lines[#lines + 1] = ("begin %d %d"):format(port, (seq + 1) & 0xffffffff)
    end
    if not taken then
      count(why)
    elseif #found > 0 then
      count("edited")
      report(port, seq, found)
    end
    pkt:accept()
  end,

  close = function(queue)
    count("errors", queue:stats().errors)
    for name, number in pairs(counts) do
      lines[#lines + 1] = ("count %s %d"):format(name:gsub(" ", "-"), number)
    end
    local file = assert(io.open(("%s/report.%d"):format(args.folder, queue.number), "w"))
    file:write(table.concat(lines, "\n"), "\n")
    file:close()
    lines, counts = {}, {} -- another queue of this state reports the rest
  end,
}
