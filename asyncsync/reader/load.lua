-- Load, fence format 1: write what a reader has read from the table, only where its lease still
-- stands and no value exists.
--
-- KEYS     value, fence   (in one slot)
-- ARGV[1]  the fence that lease.lua granted
-- ARGV[2]  the fence to leave: decimal digits, made by the reader
-- ARGV[3]  expiry: "-" writes no value, "" never expires, else epoch milliseconds
-- ARGV[4]  the value to write
--
-- Returns 1 (done) or 0 (refused: a record, another reader or an expiry has ended the lease, or
-- there is a value). The fence keeps what is left of its life. Strings are compared only for
-- equality.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[3] == '-' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
else
  local command = {'SET', KEYS[1], ARGV[4], 'NX'}
  if ARGV[3] ~= '' then
    command[5] = 'PXAT'
    command[6] = ARGV[3]
  end
  if not redis.call(unpack(command)) then return 0 end
end
redis.call('SET', KEYS[2], ARGV[2], 'KEEPTTL')
return 1
