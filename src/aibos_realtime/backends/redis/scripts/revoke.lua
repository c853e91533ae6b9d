#!lua flags=allow-oom
-- Keeps what was taken back. KEYS: revoked (what → Unix seconds). ARGV: seconds for which it is kept, how much is, then what and when, …
-- Beyond that number the oldest becomes '*' : everything that was issued before.
local revoked, call = KEYS[1], redis.call
local found = call('TYPE', revoked).ok
if found ~= 'none' and found ~= 'zset' then
    call('DEL', revoked)
end
for n = 3, #ARGV, 2 do
    call('ZADD', revoked, 'GT', ARGV[n + 1], ARGV[n])
end
call('ZREMRANGEBYSCORE', revoked, '-inf', call('TIME')[1] - tonumber(ARGV[1]))
local surplus = call('ZCARD', revoked) - tonumber(ARGV[2])
if surplus > 0 then
    local oldest = call('ZPOPMIN', revoked, surplus)
    call('ZADD', revoked, 'GT', oldest[#oldest], '*')
end
return call('ZCARD', revoked)
