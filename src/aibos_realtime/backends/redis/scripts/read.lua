#!lua flags=no-writes
-- A stretch of a room's log. KEYS: head, log. ARGV: 'after' or 'before', the epoch ('' : whichever it is), an offset ('' : the end), how many, bytes
--   of all, bytes of one. Reply: {epoch, offset of the end, 1 where the bytes did not suffice, entries…}, entries by rising offset ('after': from that offset on)
--   or by falling ('before'); of one that is too large only the id; {} without a head.
local head = read_head(KEYS[1])
if not head then
    return {}
end
local reply = {head.epoch, head.offset, 0}
if call('TYPE', KEYS[2]).ok ~= 'stream' or (ARGV[2] ~= '' and ARGV[2] ~= head.epoch) then
    return reply
end
local is_after = ARGV[1] == 'after'
local last = string.format('%d', head.offset)
local command, stop = is_after and 'XRANGE' or 'XREVRANGE', is_after and last or '-'
local start = ARGV[3] == '' and last or (is_after and '' or '(') .. ARGV[3] .. '-0'
local left, bytes, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
while left > 0 and bytes > 0 do
    local count = math.min(left, 10)
    local page = call(command, KEYS[2], start, stop, 'COUNT', count)
    for _, entry in ipairs(page) do
        local size = #(entry[2][2] or '')
        if size > most then
            entry, size = {entry[1], {}}, 0
        end
        reply[#reply + 1] = entry
        bytes = bytes - size
        start = '(' .. entry[1]
        if bytes <= 0 then
            reply[3] = 1
            break
        end
    end
    left = left - count
    if #page < count then
        break
    end
end
return reply
