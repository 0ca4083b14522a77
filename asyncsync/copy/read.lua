-- Read a value that is no string, and its fence, both at one moment.
--
-- KEYS     value, and its fence where that is asked for too (in one slot)
--
-- Returns the value's state ("1", "" for no key, else the name of another type), the value, and
-- the fence or nil.
local state, value = read(KEYS[1])
if not state then return value end
return {state, value, KEYS[2] and redis.call('GET', KEYS[2])}
