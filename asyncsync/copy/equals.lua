-- Compare a value that was read with one string; a hash is in it as field, value, field, value,
-- and so on, each as its length, a colon and its bytes.
local function equals(value, seen)
  if type(value) == 'string' then return value == seen end
  local values, size, at = {}, 0, 1
  for i = 1, #value, 2 do values[value[i]] = value[i + 1] end
  while at <= #seen do
    local pair = {}
    for i = 1, 2 do
      local colon = string.find(seen, ':', at, true)
      local last = colon + string.sub(seen, at, colon - 1)
      pair[i] = string.sub(seen, colon + 1, last)
      at = last + 1
    end
    if values[pair[1]] ~= pair[2] then return false end
    size = size + 2
  end
  return size == #value
end

