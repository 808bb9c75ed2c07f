-- Sets out of files, stores that fill, capture files.

local core = require("nfqueue.core")
local judge = dofile("spec/faults/judge.lua")

local nets, names, capture, packets

local function write(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  file:close()
  return path
end

local function go()
  local addresses = assert(core.cidrset({ name = "nets" }))
  assert(assert(addresses:load(nets)) == 300)
  assert(addresses:find("10.7.1.2"))
  local domains = assert(core.domainset({ name = "names" }))
  assert(assert(domains:load(names)) == 300)
  assert(domains:has("www.host7.example"))
  local store = assert(core.shared("full", { max_bytes = 16384 }))
  for i = 1, 300 do
    store:set("key" .. i, ("x"):rep(i), i)
    store:incr("count", 1)
  end
  assert(#store:keys() > 0)
  store:flush()
  local writer = assert(core.pcap.create(capture))
  for i, bytes in ipairs(packets) do
    assert(writer:write(core.packet(bytes, { id = i }), "accept"))
  end
  writer:close()
  local reader, count = assert(core.pcap.open(capture)), 0
  for packet in reader do
    count = count + #packet
  end
  reader:close()
  assert(count > 0, "no packets")
end

return {
  prepare = function()
    packets = judge.packets()
    local lines = {}
    for i = 1, 300 do
      lines[i] = ("10.%d.0.0/16 %d"):format(i % 256, i)
    end
    lines[257], lines[258] = "2001:db8::/32", "192.0.2.1"
    for i = 259, 300 do
      lines[i] = ("2001:db8:%x::/48"):format(i)
    end
    nets = write(table.concat(lines, "\n"))
    for i = 1, 300 do
      lines[i] = ("host%d.example"):format(i)
    end
    names = write(table.concat(lines, "\n"))
    capture = os.tmpname()
  end,
  run = go,
  check = function(fine)
    if not fine then
      go()
    end
    for _, path in ipairs({ nets, names, capture }) do
      os.remove(path)
    end
  end,
}
