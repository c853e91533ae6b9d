#!lua flags=no-writes
-- A page of who is in a room. KEYS: users, who, gone. ARGV: cursor, ms within which somebody left who counts too ('' : nobody does).
-- Reply: the next cursor ('0' : that was all), how much was none of ours, then for each user: id, "nodes since role" ('' : he left), JSON.
local NAME, WHO, PAGE, GONE = 1024, 65536, 500, 10000
local users, who, gone = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local foreign = 0

local function is(key, kind)
    return redis.call('TYPE', key).ok == kind
end

local reply = {'0', 0}
local has_who = ARGV[2] ~= '' and is(who, 'hash')

local function add(user, value)
    if #user > NAME or #value > NAME then
        foreign = foreign + 1
        return
    end
    local text = ''
    if has_who then
        if redis.call('HSTRLEN', who, user) <= WHO then
            text = redis.call('HGET', who, user) or ''
        else
            foreign = foreign + 1
        end
    end
    reply[#reply + 1] = user
    reply[#reply + 1] = value
    reply[#reply + 1] = text
end

if is(users, 'hash') then
    local page = redis.call('HSCAN', users, ARGV[1], 'COUNT', PAGE)
    reply[1] = page[1]
    for n = 1, #page[2], 2 do
        add(page[2][n], page[2][n + 1])
    end
end
if ARGV[2] ~= '' and ARGV[1] == '0' and is(gone, 'zset') then
    for _, user in ipairs(redis.call('ZRANGEBYSCORE', gone, string.format('(%d', now - tonumber(ARGV[2])), '+inf', 'LIMIT', 0, GONE)) do
        add(user, '')
    end
end
reply[2] = foreign
return reply
