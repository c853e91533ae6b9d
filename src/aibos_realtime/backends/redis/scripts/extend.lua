#!lua flags=allow-oom
-- ARGV: visibility (ms); then entry and mark of each message. Gives for each whether it is still held (1 | 0).
local until_ms = now + tonumber(ARGV[1])
local held = {}
for i = 2, #ARGV, 2 do
  local is_held = select(2, last_taking(ARGV[i])) == ARGV[i + 1] and call('ZSCORE', leases, ARGV[i])
  if is_held then
    call('ZADD', leases, 'XX', until_ms, ARGV[i])
  end
  held[#held + 1] = is_held and 1 or 0
end
return held
