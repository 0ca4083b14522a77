-- Lease, fence format 1: a reader that found no value asks whether it may load the item.
--
-- KEYS     value, fence   (in one slot)
-- ARGV[1]  the reader's nonce: 12 random digits; the same again gets its lease again
-- ARGV[2]  how long the lease lives, in milliseconds
-- ARGV[3]  a claim's life in milliseconds; no lease and no mark lives longer
--
-- A fence with a lease is
--
--     head + kind + end + nonce
--
-- head   version and rank of the fence as it was, or "0" where there was none (a claim)
-- kind   "1" a lease, "2" a mark: the item is known absent
-- end    13 digits of epoch milliseconds on this server's clock
--
-- Any record of the stream replaces it, because it sorts below the record's fence: that ends the
-- lease, and the mark. A lease keeps what is left of the fence's life, or a claim's life if that
-- is longer. A lease or mark that ends later than a claim's life from now is from a clock that
-- went back, so it counts as over.
--
-- Returns a list: {0, value} there is a value now; {1, fence} granted, with the fence to show to
-- load.lua; {2, ms} known absent and {3, ms} another's lease, each for so many milliseconds;
-- {4, 0} the fence has an unknown format, so nothing may be loaded.
local nonce, lease_ms, claim_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local value, fence = unpack(redis.call('MGET', KEYS[1], KEYS[2]))
if value then return {0, value} end

local head = '0'
if fence and string.sub(fence, 1, 1) ~= '0' then
  -- format (1), label (13), count of digits (2), sequence number (count), rank (1)
  local count = tonumber(string.match(fence, '^1%d%d%d%d%d%d%d%d%d%d%d%d%d(%d%d)%d*$') or '0')
  head = string.sub(fence, 1, 17 + count)
  if count == 0 or count > 40 or #head < 17 + count or not string.find(head, '[012]$') then return {4, 0} end
end

local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local tail = string.sub(fence or '', #head + 1)
if #tail == 26 then
  local kind, left_ms = string.sub(tail, 1, 1), tonumber(string.sub(tail, 2, 14)) - now_ms
  if left_ms > 0 and left_ms <= claim_ms then
    if kind == '2' then return {2, left_ms} end
    if kind == '1' and string.sub(tail, 15) ~= nonce then return {3, left_ms} end
  end
end

local lease = head .. '1' .. string.format('%013.0f', now_ms + lease_ms) .. nonce
local life_ms = fence and redis.call('PTTL', KEYS[2]) or 0
if life_ms == -1 or life_ms >= claim_ms then
  redis.call('SET', KEYS[2], lease, 'KEEPTTL')
else
  redis.call('SET', KEYS[2], lease, 'PX', claim_ms)
end
return {1, lease}
