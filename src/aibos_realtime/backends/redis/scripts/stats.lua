-- Gives depth, in flight, delayed, dead, age of the oldest (ms, -1: none), expired, dropped.
local in_flight, waiting = call('ZCARD', leases), call('ZCOUNT', delayed, '(' .. now, '+inf')

-- The oldest one whose time has come.
local function oldest()
  local from = '-'
  while true do
    local entries = call('XRANGE', stream, from, '+', 'COUNT', 100)
    for _, entry in ipairs(entries) do
      local due = tonumber(call('ZSCORE', delayed, entry[1]) or 0)
      if due <= now then
        return now - sent_at(entry[1])
      end
      from = '(' .. entry[1]
    end
    if #entries < 100 then
      return -1
    end
  end
end

local depth = call('XLEN', stream) - in_flight - waiting
local expired, dropped = unpack(call('HMGET', counters, 'expired', 'dropped'))
return {depth, in_flight, waiting, call('XLEN', dead), oldest(), tonumber(expired or 0), tonumber(dropped or 0)}
