#!lua flags=allow-oom
-- What a node tells of the rooms of one shard, and what it asks to be done to them: one act after the other, all in one step.
-- KEYS: rooms, empty, told, present (of this node); then for each room its meta, users, members, who, gone, sockets.
-- ARGV: node, the number of this step ('' : the node takes leave, 'cleaned' : another one cleans up after it), the number of the last step that was
--   answered, what was found instead of it, how many rooms; for each its id and its channel; then the acts.
-- Reply: what was told last ('' : nothing; 'new' : everything was lost), 1 where nothing was lost since the last step that was answered, how much
--   was found that is none of ours, for each act what came of it, and for each room that somebody entered how many users are there, and if they are
--   few, who.
--
-- rooms: the ids, for listing. empty: id → ms since when nobody is there. told: node → the number of its last step. present: what a node has told,
-- "room\0user", for whoever cleans up after it. meta: what the room is. users: user → "nodes since role". members: "node\0user". who: user → JSON,
-- also of those in gone: user → ms when he left. sockets: node → how many.
local call = redis.call
local node = ARGV[1]
local rooms, empty, told, present = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local foreign = 0
local FEW, NAME, GONE = 100, 1024, 10000

local function whole(number)
    return string.format('%d', number)
end

-- What is of another kind than it should be is none of ours.
local function own(key, kind)
    local found = call('TYPE', key).ok
    if found ~= 'none' and found ~= kind then
        call('DEL', key)
        foreign = foreign + 1
        return false
    end
    return true
end

if not (own(rooms, 'zset') and own(empty, 'zset') and own(present, 'set') and own(told, 'hash')) then
    call('DEL', told) -- so that every node tells again what was lost with it
end

local list, place = {}, 6
for n = 1, tonumber(ARGV[5]) do
    local k = 4 + 6 * (n - 1)
    local room = {
        id = ARGV[place], channel = ARGV[place + 1],
        meta = KEYS[k + 1], users = KEYS[k + 2], members = KEYS[k + 3], who = KEYS[k + 4], gone = KEYS[k + 5], sockets = KEYS[k + 6],
    }
    own(room.meta, 'hash')
    if not (own(room.users, 'hash') and own(room.members, 'set')) then
        call('DEL', room.users, room.members, told) -- the two belong together
    end
    own(room.who, 'hash')
    own(room.gone, 'zset')
    own(room.sockets, 'hash')
    list[n] = room
    place = place + 2
end

local function take()
    place = place + 1
    return ARGV[place - 1]
end

local function read_meta(room)
    local m = call('HMGET', room.meta, 'birth', 'name', 'type', 'max_users', 'guests', 'created')
    local is_ours = m[1] and #m[1] <= 64
    for n = 2, 6 do
        is_ours = is_ours and m[n] and #m[n] <= NAME * 4
    end
    if is_ours and #m[4] <= 15 and string.find(m[4], '^%d+$') and #m[6] <= 14 and string.find(m[6], '^%d+$') then
        return m
    end
    if call('DEL', room.meta) == 1 then
        foreign = foreign + 1
    end
    return nil
end

local function read_user(room, user)
    local nodes, since, role = string.match(call('HGET', room.users, user) or '', '^(%d+) (%d+) (.*)$')
    return tonumber(nodes), since, role
end

local function notify(room, event, user, since, role)
    redis.pcall('SPUBLISH', room.channel, 'p' .. cjson.encode({event = event, user = user, since = since, role = role}))
end

-- A draft of a room: birth, name, type, max_users (0: no limit), guests (1 or 0), created (ms, 0: now), reservation.
local function take_draft()
    return {take(), take(), take(), take(), take(), take(), take()}
end

local function create(room, draft)
    local created = draft[6] ~= '0' and draft[6] or whole(now)
    call('HSET', room.meta, 'birth', draft[1], 'name', draft[2], 'type', draft[3], 'max_users', draft[4], 'guests', draft[5], 'created', created,
        'reservation', draft[7])
    call('ZADD', rooms, 0, room.id)
    if call('HLEN', room.users) == 0 then
        call('ZADD', empty, whole(now), room.id)
    end
    return {draft[1], draft[2], draft[3], draft[4], draft[5], created}
end

-- Why a room cannot be made, if it cannot. limit: '' for none, '-' for one that is kept elsewhere, and asks for a reservation.
local function refusal(draft, limit)
    if limit == '-' then
        return draft[7] == '' and 'reserve' or nil
    end
    return limit ~= '' and call('ZCARD', rooms) >= tonumber(limit) and 'limit' or nil
end

local function put(room, user, role, who, since, is_loud)
    local nodes, first, former = read_user(room, user)
    local is_new_here = call('SADD', room.members, node .. '\0' .. user) == 1
    call('SADD', present, room.id .. '\0' .. user)
    if nodes and role == '' then
        role, who = former, nil -- somebody else knows more of him
    end
    call('HSET', room.users, user, whole((nodes or 0) + ((is_new_here or not nodes) and 1 or 0)) .. ' ' .. (first or since) .. ' ' .. role)
    if who then
        call('HSET', room.who, user, who)
    end
    if nodes then
        return 0, first
    end
    call('PERSIST', room.who)
    call('PERSIST', room.gone)
    call('ZREM', room.gone, user)
    call('ZREM', empty, room.id)
    if is_loud then
        notify(room, 'user.joined', user, since, role)
    end
    return 1, since
end

-- Who left is kept for a while: for `window` ms.
local function depart(room, user, window)
    call('ZADD', room.gone, whole(now), user)
    local late = call('ZRANGEBYSCORE', room.gone, '-inf', whole(now - window), 'LIMIT', 0, 20)
    if call('ZCARD', room.gone) - #late > GONE then
        late[#late + 1] = call('ZRANGE', room.gone, #late, #late)[1]
    end
    for _, one in ipairs(late) do
        call('ZREM', room.gone, one)
        call('HDEL', room.who, one)
    end
end

local function remove(room, user, window, is_loud)
    call('SREM', present, room.id .. '\0' .. user)
    if call('SREM', room.members, node .. '\0' .. user) == 0 then
        return 0
    end
    local nodes, since, role = read_user(room, user)
    if nodes and nodes > 1 then
        call('HSET', room.users, user, whole(nodes - 1) .. ' ' .. since .. ' ' .. role)
        return 0
    end
    call('HDEL', room.users, user)
    depart(room, user, window)
    if call('HLEN', room.users) == 0 then
        call('PEXPIRE', room.who, window)
        call('PEXPIRE', room.gone, window)
        if call('EXISTS', room.meta) == 1 then
            call('ZADD', empty, whole(now), room.id)
        end
    end
    if is_loud then
        notify(room, 'user.left', user, since or whole(now), role or '')
    end
    return 1
end

local function destroy(room, window)
    local meta, reservation = read_meta(room), call('HGET', room.meta, 'reservation')
    local users = call('HKEYS', room.users)
    for n = 1, math.min(#users, GONE) do
        call('ZADD', room.gone, whole(now), users[n])
    end
    call('DEL', room.meta, room.users, room.members, room.sockets)
    call('ZREM', rooms, room.id)
    call('ZREM', empty, room.id)
    call('PEXPIRE', room.gone, window)
    call('PEXPIRE', room.who, window)
    if not meta then
        return {'missing'}
    end
    return {'destroyed', meta[1], reservation or '', users}
end

local acts = {}

-- Somebody comes, if he may.
function acts.enter(room)
    local user, role, who, is_guest, may_create, limit, draft = take(), take(), take(), take() == '1', take() == '1', take(), take_draft()
    local meta, has_created = read_meta(room), 0
    if is_guest and (meta and meta[5] or draft[5]) ~= '1' then
        return {(meta or may_create) and 'guests' or 'missing'}
    end
    if not meta then
        local why = not may_create and 'missing' or refusal(draft, limit)
        if why then
            return {why}
        end
        meta, has_created = create(room, draft), 1
    end
    local max = tonumber(meta[4])
    if max > 0 and not read_user(room, user) and call('HLEN', room.users) >= max then
        return {'full', meta[4]}
    end
    room.is_entered = true
    local has_joined, since = put(room, user, role, who, whole(now), true)
    return {'entered', has_created, has_joined, since, unpack(meta)}
end

-- Somebody is here, whatever the limits say. Replies in which life of the room, too: it may have begun anew meanwhile.
function acts.put(room)
    local is_loud, user, role, who, since, draft = take() == '1', take(), take(), take(), take(), take_draft()
    local meta = read_meta(room)
    if meta then
        call('ZADD', rooms, 0, room.id)
    else
        meta = create(room, draft)
    end
    local has_joined = put(room, user, role, who, since, is_loud)
    return {has_joined, meta[1]}
end

function acts.remove(room)
    local is_loud, user, window = take() == '1', take(), tonumber(take())
    return remove(room, user, window, is_loud)
end

function acts.sockets(room)
    local count = take()
    if count == '0' or call('EXISTS', room.meta) == 0 then
        call('HDEL', room.sockets, node)
    else
        call('HSET', room.sockets, node, count)
    end
    return 1
end

function acts.create(room)
    local limit, draft = take(), take_draft()
    local meta = read_meta(room)
    if meta then
        return {'there', whole(call('HLEN', room.users)), unpack(meta)}
    end
    local why = refusal(draft, limit)
    if why then
        return {why}
    end
    return {'created', '0', unpack(create(room, draft))}
end

function acts.destroy(room)
    return destroy(room, tonumber(take()))
end

-- The room goes if nobody was there for `timeout` ms.
function acts.expire(room)
    local timeout, window = tonumber(take()), tonumber(take())
    local since = call('ZSCORE', empty, room.id)
    if not since or tonumber(since) > now - timeout then
        return {'kept'}
    end
    if call('HLEN', room.users) > 0 then
        call('ZREM', empty, room.id)
        return {'kept'}
    end
    return destroy(room, window)
end

-- A step counts only if nothing was lost before it: else that would never be noticed, should the reply to this one be lost.
local number = ARGV[2]
local last = call('HGET', told, node) or ''
local is_known = last == ARGV[4] or (tonumber(last) and tonumber(ARGV[3]) and tonumber(last) >= tonumber(ARGV[3]))
if number == '' then
    call('HDEL', told, node)
elseif number == 'cleaned' then
    if last ~= '' then
        call('HSET', told, node, 'cleaned ' .. whole(now))
    end
elseif is_known then
    call('HSET', told, node, number)
elseif last == '' then
    last = 'new' -- so that it is known to have told something, should it die before it tells everything again
    call('HSET', told, node, last)
end

local outcomes = {}
while place <= #ARGV do
    local act, room = take(), list[tonumber(take())]
    outcomes[#outcomes + 1] = acts[act](room)
end

local entered = {}
for n, room in ipairs(list) do
    if room.is_entered then
        local count = call('HLEN', room.users)
        local users = {}
        if count <= FEW then
            for _, text in ipairs(call('HGETALL', room.users)) do
                users[#users + 1] = #text <= NAME and text or ''
            end
        end
        entered[#entered + 1] = {n, count, users}
    end
end
return {last, is_known and 1 or 0, foreign, outcomes, entered}
