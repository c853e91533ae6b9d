#!lua flags=no-writes
-- The nodes that live. ARGV: ms for which a node lives after a sign, bytes of a record. Reply: id, ms of the last sign, record ('' where there is
--   none, or a larger one), …
local life, size = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply = {}
if not is(seen, 'zset') then
    return reply
end
local horizon = now - life
if is(calm, 'hash') then
    local since, before = read_calm('since'), read_calm('before')
    -- Shortly after a time in which nobody could tell anything, who lived before it does; after a long one, more likely all had died.
    if since and before and since <= now and now - since < life and since - before < 6 * life then
        horizon = math.min(horizon, before - life)
    end
end
local has_records = is(records, 'hash')
local found = call('ZREVRANGEBYSCORE', seen, '+inf', math.max(horizon, 1), 'WITHSCORES', 'LIMIT', 0, 1000)
for i = 1, #found, 2 do
    local id = found[i]
    local record = has_records and call('HSTRLEN', records, id) <= size and call('HGET', records, id)
    reply[#reply + 1] = id
    reply[#reply + 1] = found[i + 1]
    reply[#reply + 1] = record or ''
end
return reply
