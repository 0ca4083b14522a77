-- The fence, format 1: write each value only where its fence holds no newer version.
--
-- KEYS     value 1, fence 1, value 2, fence 2, ...   (all in one slot)
-- ARGV[1]  how long a fence lives, in seconds
-- ARGV[2]  "XX" writes a value only where the key holds one (refresh), "" writes it always
-- then three for each key:
--          version: decimal digits that sort as bytes, so the server's locale cannot matter
--          expiry:  "-" removes, "" never expires, else epoch milliseconds
--          value; of a hash the place in ARGV, after those of all keys, of the count of its
--          fields and values, which follow it
--
-- Returns for each key 1 (applied), 0 (fenced) or the server's error as a string. A refused
-- write leaves the fence as it was, so the same record can be written again later. A removal
-- sets the fence too: it is the tombstone.
local fence_ttl, set_option = ARGV[1], ARGV[2]
local fences, replies = {}, {}
for i = 2, #KEYS, 2 do fences[i / 2] = KEYS[i] end
local current = redis.call('MGET', unpack(fences))

for i = 1, #fences do
  local key, version, expiry, value = KEYS[2 * i - 1], ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  if current[i] and version < current[i] then
    replies[i] = 0
  else
    local reply
    if expiry == '-' then
      reply = redis.pcall('DEL', key)
    -- if not strings: else reply = write(key, value, expiry, set_option)
    elseif set_option == 'XX' then
      if expiry == '' then
        reply = redis.pcall('SET', key, value, 'XX')
      else
        reply = redis.pcall('SET', key, value, 'PXAT', expiry, 'XX')
      end
    elseif expiry == '' then
      reply = redis.pcall('SET', key, value)
    else
      reply = redis.pcall('SET', key, value, 'PXAT', expiry)
    -- end of strings
    end
    if not (type(reply) == 'table' and reply.err) then
      reply = redis.pcall('SET', fences[i], version, 'EX', fence_ttl)
    end
    replies[i] = type(reply) == 'table' and reply.err or 1
  end
end
return replies
