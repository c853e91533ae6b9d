#!lua flags=no-writes
-- The ids of a shard's rooms, in order. KEYS: rooms. ARGV: from, to (as ZRANGEBYLEX takes them), how many. Reply: ids.
local NAME = 1024
local reply = {}
if redis.call('TYPE', KEYS[1]).ok == 'zset' then
    for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])) do
        reply[#reply + 1] = #name <= NAME and name or ''
    end
end
return reply
