#!lua flags=allow-oom
-- Milliseconds since this run of Redis began, or since all memory of this shard was lost, as far as is known. KEYS: the state of the shard.
return enter_run(KEYS[1]).age
