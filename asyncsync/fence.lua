-- The fence, format 1: write each value only where its fence holds no newer version.
--
-- KEYS     value 1, fence 1, value 2, fence 2, ...   (all in one slot)
-- ARGV[1]  life of a fence in seconds
-- ARGV[2]  "XX" writes a value only where the key holds one (refresh), "" writes it always
-- then three for each key:
--          version: decimal digits that sort as bytes, so the server's locale cannot matter
--          expiry:  "-" removes, "" never expires, else epoch milliseconds
--          value
--
-- Returns for each key 1 (applied), 0 (fenced) or the server's error as text. A refused write
-- leaves its fence where it was, so the same record can be written again later. Removing
-- leaves the fence: it is the tombstone.
local life, only = ARGV[1], ARGV[2]
local fences, replies = {}, {}
for i = 2, #KEYS, 2 do fences[i / 2] = KEYS[i] end
local held = redis.call('MGET', unpack(fences))

for i = 1, #fences do
  local key, version, expiry, value = KEYS[2 * i - 1], ARGV[3 * i], ARGV[3 * i + 1], ARGV[3 * i + 2]
  if held[i] and version < held[i] then
    replies[i] = 0
  else
    local done
    if expiry == '-' then
      done = redis.pcall('DEL', key)
    elseif only == 'XX' then
      if expiry == '' then
        done = redis.pcall('SET', key, value, 'XX')
      else
        done = redis.pcall('SET', key, value, 'PXAT', expiry, 'XX')
      end
    elseif expiry == '' then
      done = redis.pcall('SET', key, value)
    else
      done = redis.pcall('SET', key, value, 'PXAT', expiry)
    end
    if not (type(done) == 'table' and done.err) then
      done = redis.pcall('SET', fences[i], version, 'EX', life)
    end
    replies[i] = type(done) == 'table' and done.err or 1
  end
end
return replies
