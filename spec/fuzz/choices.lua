-- A target's choices: what it does next, from bytes that the fuzzer makes. Behind their end all are 0.

local choices = {}

local bytes, at

--- The choices of one input.
function choices.begin(chosen)
  bytes, at = chosen, 0
end

--- A number from 0 to below the limit, which is at most 65,536.
function choices.number(limit)
  at = at + 1
  local number = bytes:byte(at) or 0
  if limit > 256 then
    at = at + 1
    number = number << 8 | (bytes:byte(at) or 0)
  end
  return number % limit
end

--- Up to so many bytes.
function choices.bytes(most)
  local length = choices.number(most + 1)
  at = at + length
  local chosen = bytes:sub(at - length + 1, at)
  return chosen .. ("\xa5"):rep(length - #chosen)
end

return choices
