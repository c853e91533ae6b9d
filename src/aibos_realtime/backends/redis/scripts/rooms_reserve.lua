#!lua flags=allow-oom
-- The places for rooms of a cluster, whose rooms are on many servers. KEYS: places (room → "ms mark"). ARGV: limit ('' : none), mark, rooms.
-- Reply: the reservation of all of them; '' where one would be too many.
local clock = redis.call('TIME')
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'none' and found ~= 'hash' then
    redis.call('DEL', KEYS[1])
end
local place = clock[1] .. string.format('%03d', math.floor(clock[2] / 1000)) .. ' ' .. ARGV[2]
for n = 3, #ARGV do
    if ARGV[1] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[n]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
        return ''
    end
    redis.call('HSET', KEYS[1], ARGV[n], place)
end
return place
