-- A web server with one large text, and a client that fetches it: nginx and curl.

local net = require("support.net")

local web = {}

--- Why there can be none here: nil when there can.
function web.missing()
  local path, found = net.sh("PATH=$PATH:/usr/sbin command -v nginx")
  return not found and "nginx is not installed (Debian: nginx-light)" or nil, path
end

--- The word that the text is full of.
web.WORD = "needle"

-- Places of the word are numbered, so that no two parts of the text are alike.
local LINE = "%08d a %s lies at this place, under %s and straw\n"

--- A text of at least so many bytes; one line of `sparse` (default 1) has the word in it.
function web.text(bytes, sparse)
  local lines = {}
  local size = #LINE:format(0, web.WORD, "hay")
  local rest = ("x"):rep(#web.WORD)
  for number = 1, (bytes + size - 1) // size do
    lines[number] = LINE:format(number, number % (sparse or 1) == 0 and web.WORD or rest, "hay")
  end
  return table.concat(lines)
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
  sendfile on;
  default_type text/plain;
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

--- Fetch a file from an address, within so many seconds: { head =, body =, status =, output = }, the last two being
-- those of curl, which succeeds with status 0 and no output.
function web.fetch(host, address, name, seconds)
  local head, body = net.file(), net.file()
  local process = net.start(("%s curl -sS --noproxy \\* -H Connection:\\ close -m %d -D %s -o %s http://%s/%s"):format(
    host.enter, seconds, head, body, address:find(":", 1, true) and "[" .. address .. "]" or address, name))
  local status = process:join(seconds + 5)
  return { head = net.read(head), body = net.read(body), status = status, output = process:output() }
end

return web
