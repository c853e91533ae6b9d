#!lua flags=no-writes
-- What was taken back. KEYS: revoked. ARGV: how much at most. Reply: what, when, …, the oldest first.
local NAME = 1024
local reply = {}
if redis.call('TYPE', KEYS[1]).ok == 'zset' then
    local found = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
    for n = 1, #found, 2 do
        reply[n] = #found[n] <= NAME and found[n] or ''
        reply[n + 1] = found[n + 1]
    end
end
return reply
