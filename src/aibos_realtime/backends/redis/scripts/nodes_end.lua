#!lua flags=allow-oom
-- Takes a node out of the register. ARGV: id, and why: 'left' (by itself; another node sees to it that nothing of it is left), 'removed' (by
--   itself, and there is nothing), or the id of the node that has cleaned up after it. Reply: 1, or 0 where it was not that one's to do.
local id, why = ARGV[1], ARGV[2]
local _, by = read_claim(id)
if why == 'left' then
    call('ZADD', seen, 0, id)
    call('HDEL', records, id)
    return 1
elseif why ~= 'removed' and by ~= why then
    return 0
end
call('ZREM', seen, id)
call('HDEL', records, id)
call('HDEL', claims, id)
return 1
