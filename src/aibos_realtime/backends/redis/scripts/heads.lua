#!lua flags=no-writes
-- KEYS: heads. Reply: for each {epoch, offset}, or {} for one that cannot be read.
local replies = {}
for n, key in ipairs(KEYS) do
    local head = read_head(key)
    replies[n] = head and {head.epoch, head.offset} or {}
end
return replies
