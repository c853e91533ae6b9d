-- ARGV: ttl (ms, 0: none); then the entries of dead letters. Gives how many there were.
local ttl = tonumber(ARGV[1])
local count = 0
for i = 2, #ARGV do
  local letter = call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if letter then
    local fields = fields_of(letter)
    local again = {'data', fields.data or '', 'id', fields.id or ARGV[i]}
    if fields.key then
      again[#again + 1] = 'key'
      again[#again + 1] = fields.key
    end
    if ttl > 0 then
      again[#again + 1] = 'expires'
      again[#again + 1] = string.format('%d', now + ttl)
    end
    call('XADD', stream, '*', unpack(again))
    call('XDEL', dead, ARGV[i])
    count = count + 1
  end
end
if count > 0 and call('XLEN', dead) == 0 then
  call('DEL', dead)
end
return count
