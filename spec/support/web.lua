-- A web server with one large text, and a client that fetches it: nginx and curl.

local net = require("support.net")

local web = {}

--- Why there can be none here: nil when there can.
function web.missing()
  local path, found = net.sh("PATH=$PATH:/usr/sbin command -v nginx")
  return not found and "nginx is not installed (Debian: nginx-light)" or nil, path
end

--- The words that the text is full of.
web.WORDS = { "needle", "straw" }

-- Places of the word are numbered, so that no two parts of the text are alike.
local LINE = "%08d a %s lies at this place, under hay and %s\n"

local texts = {}

--- A text of at least so many bytes; one line of `sparse` (default 1) has the words in it.
function web.text(bytes, sparse)
  sparse = sparse or 1
  local key = ("%d %d"):format(bytes, sparse)
  if not texts[key] then
    local lines = {}
    local first, second = table.unpack(web.WORDS)
    local size = #LINE:format(0, first, second)
    for number = 1, (bytes + size - 1) // size do
      local has = number % sparse == 0
      lines[number] = LINE:format(number, has and first or ("x"):rep(#first), has and second or ("x"):rep(#second))
    end
    texts[key] = table.concat(lines)
  end
  return texts[key]
end

-- Nothing outside its folder; one process, which an ordinary user in a namespace can run too.
local CONFIGURATION = [[
daemon off;
master_process off;
pid %s/pid;
error_log stderr warn;
events { }
http {
  access_log off;
  default_type text/plain;
  # Looked through for commands, of which there are none: so its length is not told in front, and its end is that of
  # the connection, to a client of HTTP/1.0.
  ssi on;
  ssi_types text/plain;
  client_body_temp_path %s/body;
  proxy_temp_path %s/proxy;
  fastcgi_temp_path %s/fastcgi;
  uwsgi_temp_path %s/uwsgi;
  scgi_temp_path %s/scgi;
  server {
    listen 80;
    listen [::]:80;
    root %s;
  }
}
]]

--- Serve files at port 80 of another host: a folder, to write them into, that web.remove removes. The server ends
-- with net.cleanup.
function web.serve(host)
  local folder = net.must("mktemp -d")
  local _, nginx = web.missing()
  local file = assert(io.open(folder .. "/nginx.conf", "w"))
  file:write((CONFIGURATION:gsub("%%s", folder)))
  file:close()
  local server = net.start(("%s %s -p %s -c nginx.conf -e stderr"):format(host.enter, nginx, folder))
  net.wait_for("nginx to listen", function()
    assert(server:is_alive(), server:output())
    return select(2, net.must(host.enter .. "ss -Hltn sport = :80"):gsub("LISTEN", "")) == 2
  end)
  return folder
end

function web.remove(folder)
  net.sh("rm -r " .. folder)
end

local fetching = {}
fetching.__index = fetching

--- Begin to fetch a file from an address, which may take so many seconds.
function web.fetch(host, address, name, seconds)
  local self = setmetatable({ head = net.file(), body = net.file(), seconds = seconds }, fetching)
  local host_part = address:find(":", 1, true) and "[" .. address .. "]" or address
  self.process = net.start((
    "%s curl -sS --noproxy \\* --http1.0 -m %d -D %s -o %s -w %%{local_port} http://%s/%s")
    :format(host.enter, seconds, self.head, self.body, host_part, name))
  return self
end

--- Wait until it has ended: { head =, body =, port = (the client's) }, or an error with what curl says.
function fetching:finish()
  local status = self.process:join(self.seconds + 5)
  local output = self.process:output()
  local port = output:match("^%d+$")
  if status ~= 0 or not port then
    error(("curl: status %d: %s"):format(status, output), 2)
  end
  return { head = net.read(self.head), body = net.read(self.body), port = math.tointeger(tonumber(port)) }
end

return web
