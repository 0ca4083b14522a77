-- Values that are hashes. In a script's arguments `value` is the place in ARGV of a count; so many
-- arguments follow it: field, value, field, value, and so on.
local function put(key, value)
  local at = tonumber(value)
  local last = at + ARGV[at]
  local reply = redis.pcall('HSET', key, unpack(ARGV, at + 1, last))
  if type(reply) == 'table' then
    -- Redis 6.2 puts a place before the word; tostring is for fakeredis.
    if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return reply end
  else
    reply = redis.pcall('HLEN', key)
    if type(reply) == 'table' or reply == (last - at) / 2 then return reply end
  end
  -- Another type, or fields of an older image. Nothing can refuse HSET now for want of memory.
  reply = redis.pcall('DEL', key)
  if type(reply) == 'table' then return reply end
  return redis.pcall('HSET', key, unpack(ARGV, at + 1, last))
end

