#!lua flags=no-writes
-- How far the store is. KEYS: the last entry that it has, the state of the shard. Reply: {the life of the shard, the entry or ''}.
return {life_of(read_state(KEYS[2])), call('GET', KEYS[1]) or ''}
