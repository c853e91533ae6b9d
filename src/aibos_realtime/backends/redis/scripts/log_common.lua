-- What the scripts of the log share.
local call, try = redis.call, redis.pcall

-- Which run of Redis this is: another one after a restart and after a fail-over, when what was written last may be lost. '' : it does not say.
local function read_run()
    local info = try('INFO', 'replication')
    return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

-- The state of a shard: {run, since (ms) as far as is known, era of the store}
local function read_state(key)
    local found = try('HMGET', key, 'run', 'since', 'era')
    if found.err then
        return {era = '', is_foreign = true}
    end
    return {run = found[1], since = tonumber(found[2] or nil), era = found[3] or ''}
end

-- One memory of the shard, as long as it lost nothing: after a restart, a fail-over or a flush what was written before may be gone. '' : not known.
local function life_of(state)
    return state.run and state.since and string.format('%s:%d', state.run, state.since) or ''
end

-- The same for this run, whose beginning is noted: {run, age in ms, era, life}
local function enter_run(key)
    local clock = call('TIME')
    local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    local run, state = read_run(), read_state(key)
    if state.is_foreign then
        call('DEL', key)
    end
    if state.run ~= run or not state.since then
        call('HSET', key, 'run', run, 'since', string.format('%d', now))
        state.since = now
    end
    state.run = run
    return {run = run, age = math.max(0, now - state.since), era = state.era, life = life_of(state)}
end

-- Where a room ends, or nothing where that cannot be read: {epoch, offset, time of the last event, epochs before this one, in which run and which
-- era it was found to hold, and whether it was found to lack something}
local function read_head(key)
    local found = try('HMGET', key, 'epoch', 'offset', 'ms', 'before', 'run', 'era', 'lacking')
    if found.err then
        return nil
    end
    local epoch, offset, ms, before = found[1] or '', found[2] or '', found[3] or '', found[4] or ''
    if #epoch > 64 or not string.find(epoch, '^[%w_-]+$') or #offset > 15 or not string.find(offset, '^%d+$') then
        return nil
    end
    return {
        epoch = epoch, offset = tonumber(offset), ms = #ms < 15 and string.find(ms, '^%d+$') and tonumber(ms) or 0,
        before = #before < 1000 and before or ' ', run = found[5], era = found[6] or '', is_lacking = found[7],
    }
end

-- Whether a head lacks something that a node has seen: "epoch offset", and so on. Who has not heard of the present epoch yet knows one before it.
local function lacks(head, seen)
    if head.is_lacking then
        return true
    end
    for epoch, offset in string.gmatch(seen, '(%S+) (%d+)') do
        local is_past = string.find(head.before, ' ' .. epoch .. ' ', 1, true)
        if not is_past and (head.epoch ~= epoch or head.offset < tonumber(offset)) then
            return true
        end
    end
    return false
end

-- Whether the next event can be appended to a log.
local function is_sound(log, head)
    local kind = call('TYPE', log).ok
    if kind ~= 'stream' then
        return kind == 'none'
    end
    local info = call('XINFO', 'STREAM', log)
    for n = 1, #info, 2 do
        if info[n] == 'last-generated-id' then
            return tonumber(string.match(info[n + 1], '^%d+')) <= head.offset
        end
    end
end
