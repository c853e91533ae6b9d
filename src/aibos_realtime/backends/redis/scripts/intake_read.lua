#!lua flags=no-writes
-- The oldest of what waits for the store. KEYS: what waits. ARGV: after which entry ('' : all), how many. Reply: {the run, entries}.
local found = try('XRANGE', KEYS[1], ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {read_run(), found.err and {} or found}
