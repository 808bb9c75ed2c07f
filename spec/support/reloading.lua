-- What specs of scripts that are loaded anew share.

local luassert = require("luassert")

local reloading = {}

--- A script that tells its name at open and close, and accepts what does not say "drop"; `body` is Lua before its
-- table, `more` further fields of that.
function reloading.script(name, body, more)
  return ([[
    local nfqueue, name = require("nfqueue"), %q
    %s
    local self = {
      open = function(queue) io.stderr:write(("open %%s %%d\n"):format(name, queue.number)) end,
      close = function(queue) io.stderr:write(("close %%s %%d\n"):format(name, queue.number)) end,
      packet = function(pkt)
        if pkt:find("who") then
          pkt.payload = name .. " " .. pkt.length
        end
        pkt:accept()
      end,
    }
    %s
    return self
  ]]):format(name, body or "", more or "")
end

--- The lines "open ..." and "close ..." of its output.
function reloading.hooks(run)
  local lines = {}
  for line in run:output():gmatch("[^\n]+") do
    if line:find("^open ") or line:find("^close ") then
      lines[#lines + 1] = line
    end
  end
  return lines
end

--- Who judges a packet sent to the mailbox now.
function reloading.ask_who(box)
  local before = #box:all()
  box:send("who")
  return (box:await_count(before + 1)[before + 1]:match("^%S+"))
end

--- End it; it ends well.
function reloading.stop(run)
  run:signal("TERM")
  luassert.equal(0, run:join())
end

return reloading
