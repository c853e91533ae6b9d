#!lua flags=no-writes
-- What there is to look after in a shard. KEYS: empty, told. ARGV: ms after which an empty room goes ('' : never).
-- Reply: rooms that may have to go, and what nodes have told: id, number, …
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function is(key, kind)
    return redis.call('TYPE', key).ok == kind
end

local due, nodes = {}, {}
if ARGV[1] ~= '' and is(KEYS[1], 'zset') then
    due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%d', now - tonumber(ARGV[1])), 'LIMIT', 0, 100)
end
if is(KEYS[2], 'hash') and redis.call('HLEN', KEYS[2]) <= 10000 then
    for _, text in ipairs(redis.call('HGETALL', KEYS[2])) do
        nodes[#nodes + 1] = #text <= 128 and text or ''
    end
end
return {due, nodes, string.format('%d', now)}
