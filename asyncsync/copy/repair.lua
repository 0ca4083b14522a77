-- Repair, fence format 1: write or remove one value and give it a new fence, only where both
-- are still what they were before the table was read.
--
-- KEYS     value, fence   (in one slot)
-- ARGV[1]  life of the fence in seconds
-- ARGV[2]  "XX" writes a value only where the key holds one (refresh), "" writes it always
-- ARGV[3]  the fence as it was, "" for none
-- ARGV[4]  "1" where there was a value, "" for none
-- ARGV[5]  the value as it was
-- ARGV[6]  the fence to leave: decimal digits, made by the caller
-- ARGV[7]  expiry: "-" removes, "" never expires, else epoch milliseconds
-- ARGV[8]  the value to write
--
-- Returns a list of 1 (repaired), 0 (something changed: begin again) or the server's error as
-- text, which leaves the fence where it was. Texts are only compared for being the same.
local life, only, was, there, before = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local fence, expiry, value = ARGV[6], ARGV[7], ARGV[8]
local held = redis.call('MGET', KEYS[1], KEYS[2])
if (held[2] or '') ~= was or (held[1] and '1' or '') ~= there or (held[1] or '') ~= before then
  return {0}
end

local done
if expiry == '-' then
  done = redis.pcall('DEL', KEYS[1])
else
  local command = {'SET', KEYS[1], value}
  if expiry ~= '' then
    command[#command + 1] = 'PXAT'
    command[#command + 1] = expiry
  end
  if only ~= '' then command[#command + 1] = only end
  done = redis.pcall(unpack(command))
end
if not (type(done) == 'table' and done.err) then
  done = redis.pcall('SET', KEYS[2], fence, 'EX', life)
end
return {type(done) == 'table' and done.err or 1}
