-- Fill, fence format 1: write each value, without a version, only where there is neither a value
-- nor a fence, so that any record of the stream wins, whether it arrives before or after.
--
-- KEYS and ARGV are those of fence.lua, so one plan serves both scripts. This script ignores the
-- fence's lifetime and the versions, and it removes nothing.
--
-- A fence that begins with 0 has no version: it is a reader's claim for a minute, not a change to
-- the item. It does not stop a fill; the filled value then stops the reader's own write.
--
-- Returns for each key 1 (filled), 0 (it has a value), 2 (it has a fence and no value, or is of
-- another type: repair it, the item may be gone) or the server's error as a string. MGET answers
-- with nil for a key of another type.
local fences, replies = {}, {}
for i = 2, #KEYS, 2 do fences[i / 2] = KEYS[i] end
local fences_seen = redis.call('MGET', unpack(fences))

for i = 1, #fences do
  local key, expiry, value = KEYS[2 * i - 1], ARGV[3 * i + 1], ARGV[3 * i + 2]
  local fence_seen = fences_seen[i]
  if fence_seen and string.sub(fence_seen, 1, 1) ~= '0' then
    replies[i] = redis.call('MGET', key)[1] and 0 or 2
  else
    local reply
    if expiry == '' then
      reply = redis.pcall('SET', key, value, 'NX')
    else
      reply = redis.pcall('SET', key, value, 'PXAT', expiry, 'NX')
    end
    if type(reply) == 'table' and reply.err then
      replies[i] = reply.err
    elseif reply then
      replies[i] = 1
    else
      replies[i] = redis.call('MGET', key)[1] and 0 or 2
    end
  end
end
return replies
