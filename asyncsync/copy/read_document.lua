-- Read a document of a JSON module. Returns "1" and its text, "" for no key, the name of another
-- type, or nil and an error reply.
local function read(key)
  local text = redis.pcall('JSON.GET', key, '.')
  if type(text) == 'string' then return '1', text end
  if not text then return '', '' end
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' or string.find(kind, 'JSON', 1, true) then return nil, text end
  return kind, ''
end

