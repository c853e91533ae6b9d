-- ARGV: max_size (0: none), ttl (ms, 0: none), window (ms); then for each message id, data, key, delay (ms), ttl (ms), the number of its
-- idempotency key in KEYS (0: none), digest of its content. Gives for each {"sent" | "duplicate" | "full" | "conflict", id}.
local max_size, ttl, window = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

-- Expired messages hold no place. They are looked for among the oldest, where they are.
local has_swept = false
local function sweep()
  has_swept = true
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', 1000)) do
    local id, fields = entry[1], fields_of(entry)
    if is_expired(id, fields, ttl) and not call('ZSCORE', leases, id) then
      call('ZREM', delayed, id)
      if fields.key then
        call('ZREM', lines, place_in_line(redis.sha1hex(fields.key), id))
      end
      call('HINCRBY', counters, 'expired', 1)
      remove(id)
    end
  end
  forget()
end

local function is_full()
  if max_size == 0 or call('XLEN', stream) < max_size then
    return false
  end
  if not has_swept then
    sweep()
  end
  return call('XLEN', stream) >= max_size
end

local function append(i, remembered)
  local fields = {'data', ARGV[i + 1], 'id', ARGV[i]}
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if ARGV[i + 2] ~= '' then
    add('key', ARGV[i + 2])
  end
  local delay, own_ttl = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  if own_ttl > 0 then
    add('expires', string.format('%d', now + own_ttl))
  end
  if delay > 0 then
    add('due', string.format('%d', now + delay))
  end
  local entry = call('XADD', stream, '*', unpack(fields))
  if delay > 0 then
    call('ZADD', delayed, now + delay, entry)
  end
  if remembered then
    call('SET', remembered, ARGV[i + 6] .. ARGV[i], 'PX', window)
  end
end

local replies = {}
for i = 4, #ARGV, 7 do
  local remembered = KEYS[tonumber(ARGV[i + 5])]
  local known = remembered and call('GET', remembered)
  if known then
    local is_same = string.sub(known, 1, 40) == ARGV[i + 6]
    replies[#replies + 1] = is_same and {'duplicate', string.sub(known, 41)} or {'conflict', ''}
  elseif is_full() then
    replies[#replies + 1] = {'full', ''}
  else
    append(i, remembered)
    replies[#replies + 1] = {'sent', ARGV[i]}
  end
end
return replies
