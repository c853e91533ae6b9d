#!lua flags=allow-oom
-- The store has what waited up to an entry: it goes, and those who wait for it are told. Not in another run than the one in which it was read: after
-- a fail-over other events may stand under the same ids.
-- KEYS: what waits, the last entry that the store has, the state of the shard. ARGV: the run, the entry, the channel of those who wait. Reply: 1 or 0.
if read_run() ~= ARGV[1] then
    return 0
end
try('XTRIM', KEYS[1], 'MINID', ARGV[2])
try('XDEL', KEYS[1], ARGV[2])
call('SET', KEYS[2], ARGV[2])
call('SPUBLISH', ARGV[3], life_of(read_state(KEYS[3])) .. ' ' .. ARGV[2])
return 1
