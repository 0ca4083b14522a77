-- Fill, fence format 1: write each value, without a version, only where neither value nor fence
-- stands, so that any record of the stream, before or after, wins.
--
-- KEYS and ARGV are those of fence.lua, so one plan serves both; here the fence's life and each
-- version are passed over, and nothing is removed.
--
-- A fence that begins with 0 has no version: a reader's claim for a minute, not a change to the
-- item. It does not stop a fill, and the value makes the reader's own write stand back.
--
-- Returns for each key 1 (filled), 0 (a value is there), 2 (a fence stands where no value does:
-- to be repaired, the item may be gone) or the server's error as text.
local fences, replies = {}, {}
for i = 2, #KEYS, 2 do fences[i / 2] = KEYS[i] end
local held = redis.call('MGET', unpack(fences))

for i = 1, #fences do
  local key, expiry, value = KEYS[2 * i - 1], ARGV[3 * i + 1], ARGV[3 * i + 2]
  if held[i] and string.sub(held[i], 1, 1) ~= '0' then
    replies[i] = redis.call('EXISTS', key) == 1 and 0 or 2
  else
    local done
    if expiry == '' then
      done = redis.pcall('SET', key, value, 'NX')
    else
      done = redis.pcall('SET', key, value, 'PXAT', expiry, 'NX')
    end
    if type(done) == 'table' and done.err then
      replies[i] = done.err
    else
      replies[i] = done and 1 or 0
    end
  end
end
return replies
