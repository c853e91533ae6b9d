#!lua flags=allow-oom
-- Gives back a lease, unless another has it by now. KEYS: the lease. ARGV: who had it.
if redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
return 1
