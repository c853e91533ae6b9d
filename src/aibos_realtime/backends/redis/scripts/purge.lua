#!lua flags=allow-oom
-- ARGV: "dead" or "unfinished". Gives how many messages there were.
if ARGV[1] == 'dead' then
  local count = call('XLEN', dead)
  call('DEL', dead)
  return count
end
local count = call('XLEN', stream)
call('DEL', stream, leases, delayed, attempts, lines, holders, counters)
return count
