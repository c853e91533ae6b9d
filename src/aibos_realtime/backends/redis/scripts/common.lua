-- What all scripts of a queue share. A message is an entry of `stream` until it is finished, and at any time in one of these states:
--   new       behind the group's cursor: nobody has read it
--   leased    in `leases`, scored by the time (ms) at which its worker loses it
--   delayed   in `delayed`, scored by the time at which it may be taken; 0 = at once
--   in line   in `lines`, behind the message of its key that `holders` names
-- `attempts` says how often each was taken, and the mark of the last taking: "2 x7Yd_0aQ". Marks are random, so that a verdict never counts for
-- another taking, not even after a purge, or a restart that forgot the last ones; a count of takings would go back then. `holders` maps the hash of a key to the entry that holds it, and that entry to the hash.
local stream, leases, delayed, attempts, lines, holders, counters, dead = unpack(KEYS, 1, 8)
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  if fields.key == '' then
    fields.key = nil
  end
  return fields
end

-- Other programs write these fields too: what is no time is none.
local function time_in(text)
  return text and #text <= 15 and string.find(text, '^%d+$') and tonumber(text)
end

local function sent_at(id)
  return tonumber(string.match(id, '^%d+'))
end

-- How often a message was taken, as text, and the mark of the last taking; nothing where it never was.
local function last_taking(id)
  return string.match(call('HGET', attempts, id) or '', '^(%d+) ?(.*)$')
end

local function is_expired(id, fields, ttl)
  local expires = time_in(fields.expires) or (ttl > 0 and sent_at(id) + ttl)
  return expires and expires <= now
end

-- The place of an entry in `lines`: by key, then by id.
local function place_in_line(hash, id)
  local ms, number = string.match(id, '^(%d+)%-(%d+)$')
  return hash .. string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #number) .. number
end

local function without_zeros(digits)
  return string.match(digits, '^0*(%d+)$')
end

-- The first in line gets the key; without one the key is free.
local function pass_on(hash)
  local place = call('ZRANGEBYLEX', lines, '[' .. hash, '(' .. hash .. '~', 'LIMIT', 0, 1)[1]
  if not place then
    call('HDEL', holders, hash)
    return
  end
  call('ZREM', lines, place)
  local id = without_zeros(string.sub(place, 41, 60)) .. '-' .. without_zeros(string.sub(place, 61))
  call('HSET', holders, hash, id, id, hash)
  call('ZADD', delayed, 0, id)
end

local gone = {}
local has_holders = call('EXISTS', holders) == 1

-- An entry that is in no other state any more is finished. `forget` has to follow.
local function remove(id)
  gone[#gone + 1] = id
  if has_holders then
    local hash = call('HGET', holders, id)
    if hash then
      call('HDEL', holders, id)
      pass_on(hash)
    end
  end
end

local function forget()
  if #gone > 0 then
    call('XACK', stream, 'workers', unpack(gone))
    call('XDEL', stream, unpack(gone))
    call('HDEL', attempts, unpack(gone))
    gone = {}
  end
end
