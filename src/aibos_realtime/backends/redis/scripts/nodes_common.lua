-- What the scripts of the register share. KEYS: seen (id → ms of the last sign of life, by the server's clock; 0: it left), records (id → JSON),
--   claims (dead id → "until by": which node cleans up after it, and until when nobody else does), calm (since: ms since when signs come without
--   a long pause; before: the last sign before that pause)
local seen, records, claims, calm = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function is(key, kind)
    return call('TYPE', key).ok == kind
end

-- Until when, and by which node. Nothing where nobody claims it.
local function read_claim(id)
    local expires, by = string.match(call('HGET', claims, id) or '', '^(%d+) (.+)$')
    return tonumber(expires), by
end

local function write_claim(id, expires, by)
    call('HSET', claims, id, string.format('%d %s', expires, by))
end

local function read_calm(field)
    return tonumber(call('HGET', calm, field) or nil)
end
