#!lua flags=allow-oom
-- One sign of life.
-- ARGV: id, record, ms for which a node lives after a sign, ms without any sign that are a pause of the register, how many dead nodes this one
--   would clean up after, and those that it cleans up after now.
-- Reply: {state, those that it has to clean up after, those that it may no longer}. state: 'known' | 'new' | 'held' (another node still cleans up
--   after this one, so it is not registered).
local id, record, life, pause, wanted = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

for key, kind in pairs({[seen] = 'zset', [records] = 'hash', [claims] = 'hash', [calm] = 'hash'}) do
    if not is(key, kind) then
        call('DEL', key)
    end
end

-- The clock was set back: what is in the future would live too long.
for _, other in ipairs(call('ZRANGEBYSCORE', seen, now + 1000, '+inf', 'LIMIT', 0, 1000)) do
    call('ZADD', seen, now, other)
end

-- After a time in which no node could tell anything, nobody is dead for not having told.
local last = tonumber(call('ZREVRANGE', seen, 0, 0, 'WITHSCORES')[2] or now)
local since = math.min(read_calm('since') or 0, now)
if last > 0 and now - last > pause then
    call('HSET', calm, 'since', now, 'before', last)
    since = now
end

local taken, lost = {}, {}
for i = 6, #ARGV do
    local dead = ARGV[i]
    local _, by = read_claim(dead)
    if by == id then
        write_claim(dead, now + life, id)
    else
        lost[#lost + 1] = dead
        if not by then
            -- It came back while this node stood still, and lost what that one then still took away: it has to tell all of it again.
            call('ZREM', seen, dead)
            call('HDEL', records, dead)
        end
    end
end

local state = 'known'
local expires, by = read_claim(id)
if by and expires > now then
    return {'held', taken, lost}
elseif by then
    call('HDEL', claims, id)
    state = 'new'
elseif not call('ZSCORE', seen, id) then
    state = 'new'
end
call('ZADD', seen, now, id)
call('HSET', records, id, record)

if wanted > 0 and since < now - life then
    for _, dead in ipairs(call('ZRANGEBYSCORE', seen, '-inf', '(' .. (now - life), 'LIMIT', 0, 100)) do
        local until_when = read_claim(dead)
        if #taken < wanted and (not until_when or until_when <= now) then
            write_claim(dead, now + life, id)
            taken[#taken + 1] = dead
        end
    end
end
return {state, taken, lost}
