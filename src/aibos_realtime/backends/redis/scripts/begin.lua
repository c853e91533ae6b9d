-- Begins a new epoch of a room that has none, or lacks what a node has seen, or cannot be appended to.
-- KEYS: the state of the shard, head, log, and keys of ids. ARGV: the new epoch, what was seen, seconds for which heads and ids are known,
--   and for each id what is known of it. Reply: {epoch, offset}.
local state, head = enter_run(KEYS[1]), read_head(KEYS[2])
if head and head.run == state.run and head.era == state.era and not lacks(head, ARGV[2]) and is_sound(KEYS[3], head) then
    return {head.epoch, head.offset} -- another node was first
end
local before = {}
for epoch in string.gmatch(head and head.before or '', '[%w_-]+') do
    before[#before + 1] = epoch
end
for epoch in string.gmatch(ARGV[2], '(%S+) %d+') do
    if not (head and head.epoch == epoch) then
        before[#before + 1] = epoch
    end
end
if head then
    before[#before + 1] = head.epoch
end
local known = ' ' .. table.concat(before, ' ', math.max(1, #before - 7)) .. ' '
call('DEL', KEYS[2], KEYS[3])
call('HSET', KEYS[2], 'epoch', ARGV[1], 'offset', 0, 'ms', head and string.format('%d', head.ms) or 0, 'before', known, 'run', state.run, 'era', state.era)
call('EXPIRE', KEYS[2], ARGV[3])
for n = 4, #KEYS do
    call('SET', KEYS[n], ARGV[n + 1], 'EX', ARGV[4])
end
return {ARGV[1], 0}
