#!lua flags=allow-oom
-- ARGV: limit, visibility (ms), ttl (ms, 0: none), ordered (1 | 0), mark of this taking.
-- Gives {{entry, attempt, id, data, key}, …}, and when there are none: the stream's last entry, and the ms until a delay or lease is over (-1: none).
local limit, visibility, ttl, is_ordered, mark = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
local scanned, SCAN = 0, 1000
local taken = {}

-- Whether an entry may be handed out as the one of its key; otherwise it stands in line from now on.
local function gets_key(id, key)
  local hash = redis.sha1hex(key)
  local holder = call('HGET', holders, hash)
  if holder and holder ~= id then
    call('ZADD', lines, 0, place_in_line(hash, id))
    return false
  end
  if not holder then
    call('HSET', holders, hash, id, id, hash)
    has_holders = true
  end
  return true
end

local function hand_out(id, fields, is_new)
  local attempt = last_taking(id)
  if is_new and attempt then
    return -- the group was made anew, and reads again what is in another state already
  end
  if is_expired(id, fields, ttl) then
    remove(id)
    call('HINCRBY', counters, 'expired', 1)
    return
  end
  if is_ordered and fields.key and not gets_key(id, fields.key) then
    return
  end
  attempt = (attempt or 0) + 1
  call('HSET', attempts, id, attempt .. ' ' .. mark)
  call('ZADD', leases, now + visibility, id)
  taken[#taken + 1] = {id, attempt, fields.id or '', fields.data or '', fields.key or false}
end

local function take_again(set)
  while #taken < limit and scanned < SCAN do
    local ids = call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit - #taken)
    if #ids == 0 then
      return
    end
    for _, id in ipairs(ids) do
      call('ZREM', set, id)
      local entry = call('XRANGE', stream, id, id)[1]
      if entry then
        hand_out(id, fields_of(entry), false)
      else
        remove(id) -- somebody deleted it by hand
      end
    end
    scanned = scanned + #ids
  end
end

local function read(count)
  local reply = redis.pcall('XREADGROUP', 'GROUP', 'workers', 'any', 'COUNT', count, 'STREAMS', stream, '>')
  if reply and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
    call('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
    reply = call('XREADGROUP', 'GROUP', 'workers', 'any', 'COUNT', count, 'STREAMS', stream, '>')
  elseif reply and reply.err then
    error(reply)
  end
  return reply and reply[1][2] or {}
end

-- A message that was sent with a delay may have become due, and be anywhere, long before the cursor comes to it.
local function waits_elsewhere(id, due)
  if call('ZSCORE', delayed, id) or call('ZSCORE', leases, id) then
    return true
  end
  if due > now then
    call('ZADD', delayed, due, id)
    return true
  end
  return false
end

-- Whether no entry is left that nobody has read.
local function take_new()
  while #taken < limit and scanned < SCAN do
    local count = limit - #taken
    local entries = read(count)
    for _, entry in ipairs(entries) do
      local fields = fields_of(entry)
      local due = time_in(fields.due)
      if not (due and waits_elsewhere(entry[1], due)) then
        hand_out(entry[1], fields, true)
      end
    end
    scanned = scanned + #entries
    if #entries < count then
      return true
    end
  end
  return false
end

take_again(leases)
take_again(delayed)
local has_seen_all = take_new()
forget()
if #taken > 0 then
  return {taken}
end

local function last_entry()
  local info = call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      return info[i + 1]
    end
  end
end

local function next_time()
  local first
  for _, set in ipairs({leases, delayed}) do
    local score = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
    if score and (not first or tonumber(score) < first) then
      first = tonumber(score)
    end
  end
  return first and math.max(0, first - now) or -1
end

return {taken, last_entry(), has_seen_all and next_time() or 0}
