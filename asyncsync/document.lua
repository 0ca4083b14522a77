-- Values that are documents of a JSON module; `value` is the text.
local function put(key, value)
  local reply = redis.pcall('JSON.SET', key, '$', value)
  if not (type(reply) == 'table' and reply.err) then return reply end
  local text = tostring(reply.err)
  if not (string.find(text, 'wrong Redis type', 1, true) or string.find(text, 'WRONGTYPE', 1, true)) then
    return reply
  end
  reply = redis.pcall('DEL', key)
  if type(reply) == 'table' then return reply end
  return redis.pcall('JSON.SET', key, '$', value)
end

