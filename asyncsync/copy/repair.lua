-- Repair, fence format 1: write or remove one value and give it a new fence, only if neither the
-- value nor the fence has changed since the caller read them.
--
-- KEYS     value, fence   (in one slot)
-- ARGV[1]  the fence's lifetime in seconds
-- ARGV[2]  "XX" writes only where the key has a value (refresh), "" always writes
-- ARGV[3]  the fence the caller saw, "" for none
-- ARGV[4]  "1" if the caller saw a value, "" for none, else the name of another type
-- ARGV[5]  the value the caller saw
-- ARGV[6]  the fence to leave: decimal digits, made by the caller
-- ARGV[7]  expiry: "-" removes, "" never expires, else epoch milliseconds
-- ARGV[8]  the value to write; of a hash as in fence.lua
--
-- Returns a list of one: 1 (repaired), 0 (something changed: begin again) or the server's error
-- as a string; after an error the fence is as it was. Strings are compared only for equality.
local fence_ttl, set_option = ARGV[1], ARGV[2]
local fence_seen, had_value, value_seen = ARGV[3], ARGV[4], ARGV[5]
local fence, expiry, value = ARGV[6], ARGV[7], ARGV[8]
local value_now, fence_now = unpack(redis.call('MGET', KEYS[1], KEYS[2]))
local has_value = value_now and '1' or ''
-- if not strings: has_value, value_now = read(KEYS[1])
value_now = value_now or ''
-- end of strings
if not has_value then return {value_now.err} end
if (fence_now or '') ~= fence_seen or has_value ~= had_value then return {0} end
-- if not strings: if has_value == '1' and not equals(value_now, value_seen) then return {0} end
if value_now ~= value_seen then return {0} end
-- end of strings

local reply
if expiry == '-' then
  reply = redis.pcall('DEL', KEYS[1])
-- if not strings: else reply = write(KEYS[1], value, expiry, set_option)
else
  local command = {'SET', KEYS[1], value}
  if expiry ~= '' then
    command[#command + 1] = 'PXAT'
    command[#command + 1] = expiry
  end
  if set_option ~= '' then command[#command + 1] = set_option end
  reply = redis.pcall(unpack(command))
-- end of strings
end
if not (type(reply) == 'table' and reply.err) then
  reply = redis.pcall('SET', KEYS[2], fence, 'EX', fence_ttl)
end
return {type(reply) == 'table' and reply.err or 1}
