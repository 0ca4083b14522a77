-- Writes values that are no strings. Before it comes the arm of their type, which defines
-- put(key, value), after it a script of which write() takes SET's place.
--
-- It replaces the whole value, whatever type the key holds. It returns an error reply, false
-- where `option` forbids the write ("XX": there is no key; "NX": there is one), or any other
-- value. A refusal of its first command leaves the old value as it was.
local function write(key, value, expiry, option)
  if option ~= '' then
    local exists = redis.pcall('EXISTS', key)
    if exists ~= (option == 'XX' and 1 or 0) then return type(exists) == 'table' and exists end
  end
  local reply = put(key, value)
  if type(reply) == 'table' and reply.err then return reply end
  -- Unlike SET, these commands leave an old expiry.
  if expiry == '' then return redis.pcall('PERSIST', key) end
  return redis.pcall('PEXPIREAT', key, expiry)
end

