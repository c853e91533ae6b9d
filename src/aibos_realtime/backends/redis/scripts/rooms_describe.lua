#!lua flags=no-writes
-- What rooms are. KEYS: for each meta, users, sockets. ARGV: a user ('' : nobody).
-- Reply: for each {birth, name, type, max_users, guests, created, users, sockets, 1 if the user is there}, or nothing where there is none.
local NAME, NODES = 1024, 10000

local function is(key, kind)
    return redis.call('TYPE', key).ok == kind
end

local function describe(meta, users, sockets)
    if not is(meta, 'hash') then
        return {}
    end
    local found = redis.call('HMGET', meta, 'birth', 'name', 'type', 'max_users', 'guests', 'created')
    for n = 1, 6 do
        if not found[n] or #found[n] > NAME * 4 then
            return {}
        end
    end
    found[7] = is(users, 'hash') and redis.call('HLEN', users) or 0
    found[8] = 0
    found[9] = ARGV[1] ~= '' and found[7] > 0 and redis.call('HEXISTS', users, ARGV[1]) or 0
    if is(sockets, 'hash') and redis.call('HLEN', sockets) <= NODES then
        for _, count in ipairs(redis.call('HVALS', sockets)) do
            if #count <= 9 and string.find(count, '^%d+$') then
                found[8] = found[8] + tonumber(count)
            end
        end
    end
    return found
end

local reply = {}
for n = 1, #KEYS, 3 do
    reply[#reply + 1] = describe(KEYS[n], KEYS[n + 1], KEYS[n + 2])
end
return reply
