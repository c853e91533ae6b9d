-- Gives events their positions, keeps them, and tells the nodes of their rooms. Each event by itself: what cannot be done to one stops no other.
-- KEYS: what waits for the store; the state of the shard; for each event its head, its log and its id.
-- ARGV: how much may wait for the store ('' : there is none), seconds for which ids are known, seconds for which heads are, the channel on which
--   somebody waits for the store ('' : nobody); for each event: channel, room, record, time, kept events ('' : ephemeral), ms for which they are
--   kept, digest of its content ('' : its id is nobody's choice), 1 or 0 (whether its payload goes to the store), what was seen.
-- Reply: how many things were found that are none of ours, the life of the shard, and for each event {'appended', epoch, offset, entry} | {'again', what is known} |
--   {'begin'} | {'full'}.
local intake, state = KEYS[1], KEYS[2]
local limit, window, life, waker = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local present = enter_run(state)
local run, era = present.run, present.era
local replies = {0, present.life}

local function note_foreign(key)
    call('DEL', key)
    replies[1] = replies[1] + 1
end

local free
if limit then
    local waiting = try('XLEN', intake)
    if type(waiting) ~= 'number' then
        note_foreign(intake)
        waiting = 0
    end
    free = limit - waiting
end

local function find_known(id)
    local known = try('GET', id)
    if known and (known.err or not string.find(known, '^[%w_-]+ %d+ [%d-]* [%x-]+$')) then
        note_foreign(id)
        return nil
    end
    return known
end

local function trim(log, ms)
    for _ = 1, 2 do
        local oldest = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
        if not oldest or (tonumber(oldest[2][4]) or 0) > ms then
            return
        end
        call('XDEL', log, oldest[1])
    end
end

local function append(n)
    local head_key, log, id = KEYS[3 * n], KEYS[3 * n + 1], KEYS[3 * n + 2]
    local a = 4 + 9 * (n - 1)
    local channel, room, record, ms, size, ttl = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4]), ARGV[a + 5], tonumber(ARGV[a + 6])
    local digest, keep, seen = ARGV[a + 7], ARGV[a + 8], ARGV[a + 9]
    local known = digest ~= '' and find_known(id)
    if known then
        return {'again', known}
    end
    local head = read_head(head_key)
    if not head or head.run ~= run or head.era ~= era or lacks(head, seen) then
        return {'begin'}
    end
    local is_stored = free and size ~= ''
    if is_stored and free <= 0 then
        return {'full'}
    end
    local offset = string.format('%d', head.offset + 1)
    ms = math.max(ms, head.ms)
    local time = string.format('%d', ms)
    local place = head.epoch .. ' ' .. offset .. ' ' .. time
    local entry = ''
    if is_stored then
        entry = try('XADD', intake, '*', 'p', place, 'm', room, 'r', record, 'k', keep)
        if entry.err then
            if call('XLEN', intake) == 0 then
                call('DEL', intake) -- an entry whose number is the last there is was put there, and has been taken out
            end
            return {'full'}
        end
        free = free - 1
    end
    if size ~= '' then
        -- A log that stands higher than its head, or is none, is begun anew.
        if try('XADD', log, 'MAXLEN', size, offset .. '-0', 'r', record, 't', time).err then
            if entry ~= '' then
                call('XDEL', intake, entry)
            end
            return {'begin'}
        end
        trim(log, ms - ttl)
        call('PEXPIRE', log, string.format('%d', ttl))
    else
        call('DEL', log) -- what was kept no longer reaches to the end
    end
    call('HSET', head_key, 'offset', offset, 'ms', time)
    call('EXPIRE', head_key, life)
    if digest ~= '' then
        call('SET', id, head.epoch .. ' ' .. offset .. ' ' .. entry .. ' ' .. digest, 'EX', window)
    end
    call('SPUBLISH', channel, 'e' .. place .. ' ' .. record)
    return {'appended', head.epoch, offset, entry}
end

for n = 1, (#KEYS - 2) / 3 do
    replies[n + 2] = append(n)
end
if waker ~= '' then
    call('SPUBLISH', waker, 'w')
end
return replies
