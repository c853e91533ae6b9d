#!lua flags=allow-oom
-- ARGV: max_dead; then for each message entry, mark, verdict, and delay (ms) or reason. Gives for each whether it counted (1 | 0), and in the last
-- place whether another message may be taken now, or soon.
local max_dead = tonumber(ARGV[1])
local has_news = 0

local function bury(entry, attempt, reason)
  local found = call('XRANGE', stream, entry, entry)[1]
  if not found then
    return
  end
  local fields = fields_of(found)
  local letter = {'data', fields.data or '', 'id', fields.id or entry, 'attempts', attempt, 'reason', reason, 'sent', entry}
  if fields.key then
    letter[#letter + 1] = 'key'
    letter[#letter + 1] = fields.key
  end
  call('XADD', dead, '*', unpack(letter))
  local over = call('XLEN', dead) - max_dead
  if over > 0 then
    for _, oldest in ipairs(call('XRANGE', dead, '-', '+', 'COUNT', over)) do
      call('XDEL', dead, oldest[1])
    end
    call('HINCRBY', counters, 'dropped', over)
  end
end

local counted = {}
for i = 2, #ARGV, 4 do
  local entry, mark, verdict, detail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local attempt, last_mark = last_taking(entry)
  local is_held = last_mark == mark and call('ZREM', leases, entry) == 1
  counted[#counted + 1] = is_held and 1 or 0
  if is_held then
    if verdict == 'retry' then
      call('ZADD', delayed, now + tonumber(detail), entry)
      has_news = 1
    elseif verdict == 'release' then
      call('HSET', attempts, entry, attempt - 1)
      call('ZADD', delayed, 0, entry)
      has_news = 1
    else
      if verdict == 'dead' then
        bury(entry, attempt, detail)
      end
      remove(entry)
    end
  end
end
forget()
if has_holders then
  has_news = 1
end
counted[#counted + 1] = has_news
return counted
