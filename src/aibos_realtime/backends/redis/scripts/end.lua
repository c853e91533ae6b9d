#!lua flags=allow-oom
-- Where a room ends. KEYS: the state of the shard, head, log. ARGV: what was seen; ms after the beginning of a run in which other nodes may
--   say what they saw; 1 (they were asked, and so was the store) or 0.
-- Reply: {'ends', epoch, offset} | {'doubt', ms that they still have, epoch, offset} | {'lost', 1 where something is there that is none of ours}.
local state, head = enter_run(KEYS[1]), read_head(KEYS[2])
if not head then
    return {'lost', call('EXISTS', KEYS[2])}
end
if lacks(head, ARGV[1]) then
    call('HSET', KEYS[2], 'lacking', 1) -- nobody goes on here, however long a new epoch takes to begin
    return {'lost', 0}
end
if head.era ~= state.era then
    return {'lost', 0}
end
if not is_sound(KEYS[3], head) then
    return {'lost', 1}
end
if head.run ~= state.run then
    local left = tonumber(ARGV[2]) - state.age
    if left > 0 or ARGV[3] == '0' then
        return {'doubt', math.max(0, left), head.epoch, head.offset}
    end
    call('HSET', KEYS[2], 'run', state.run)
end
return {'ends', head.epoch, head.offset}
