#!lua flags=allow-oom
-- Gives places of rooms back. KEYS: places. ARGV: room, its reservation, …; one that was reserved anew since stays.
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
    return 0
end
local count = 0
for n = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[n + 1] then
        count = count + redis.call('HDEL', KEYS[1], ARGV[n])
    end
end
return count
