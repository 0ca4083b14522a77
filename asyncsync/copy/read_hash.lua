-- Read a hash. Returns "1" and its fields and values in turn, "" for no key, the name of another
-- type, or nil and an error reply.
local function read(key)
  local fields = redis.pcall('HGETALL', key)
  if #fields > 0 then return '1', fields end
  if not fields.err then return '', '' end
  if not string.find(tostring(fields.err), 'WRONGTYPE', 1, true) then return nil, fields end
  return redis.call('TYPE', key).ok, ''
end

