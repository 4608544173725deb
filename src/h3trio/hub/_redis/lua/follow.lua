-- Tell a hub what it hasn't followed: first the marks, then, once it has all of them, which of the
-- records that it has are gone, and the next ones. One step, so that what is missing among the
-- records is told by the marks.
--
-- ARGV: channel, epoch, the hub's head, the number of the last mark that it knows, records and bytes
-- at most, then positions that it has.
-- Returns {'stale'} or {'ok', header, marks, number of the last of these, gone, entries, head of
-- these}.

local epoch, head, note = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local most, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local MARKS = 1000

if is_stale(epoch) then return {'stale'} end
local told = {}
local names = redis.call(
  'ZRANGEBYSCORE', noted_key, '(' .. note, '+inf', 'WITHSCORES', 'LIMIT', 0, MARKS
)
for i = 1, #names, 2 do
  told[#told + 1] = names[i]
  told[#told + 1] = redis.call('HGET', marks_key, names[i])
  note = names[i + 1]
end
if #names == 2 * MARKS then return {'ok', header(), told, note, {}, {}, whole(head)} end

local gone = {}
for i = 7, #ARGV do
  if not entry_at(tonumber(ARGV[i])) then gone[#gone + 1] = ARGV[i] end
end
local entries, size = {}, 0
while #entries < most do
  local found = entries_of(whole(head + 1), '+', math.min(20, most - #entries))
  if #found == 0 then
    head = state.last
    break
  end
  for _, entry in ipairs(found) do
    local record = fields_of(entry)
    size = size + #record.f
    if #entries > 0 and size > most_bytes then most = 0 break end
    entries[#entries + 1] = entry
    head = record.position
  end
end
return {'ok', header(), told, whole(state.note), gone, entries, whole(head)}
