#!lua flags=allow-oom
-- Takes a lease that nobody has, or renews one's own; time is the server's.
-- KEYS: the lease. ARGV: who wants it, ms. Reply: 1 (held) | 0 (another has it).
local lease, holder, ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
if redis.call('TYPE', lease).ok ~= 'string' then
    redis.call('DEL', lease)
end
local found = redis.call('GET', lease)
if not found or found == holder then
    redis.call('SET', lease, holder, 'PX', ms)
    return 1
end
-- None of ours has no end, or lasts longer: in the way of all for ever.
local left = redis.call('PTTL', lease)
if left < 0 or left > ms then
    redis.call('PEXPIRE', lease, ms)
end
return 0
