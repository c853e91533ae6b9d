-- Messages that are kept nowhere. KEYS: one of the shard. ARGV: channel, message, and so on. Reply: how many heard the first.
local heard
for n = 1, #ARGV, 2 do
    local count = redis.call('SPUBLISH', ARGV[n], ARGV[n + 1])
    heard = heard or count
end
return heard or 0
