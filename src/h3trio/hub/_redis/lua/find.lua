-- Look for records by a publisher's id, or for those that closed topics.
--
-- ARGV: channel, epoch, 'id', the id, where to go on, how many at most, topics or none for all; or
-- 'closed', then topics.
-- 'id' gives {topic, position, 'p' and the record's topics, or ''}: of each topic named the newest
-- ones, up to the first public one, for so many topics that it is no more than twice as many as may
-- be; without names as many as there are behind a place in the index, topic by topic from the last
-- name, the newest first. 'closed' gives such a one for each that is closed.
-- Returns {'stale'} or {'ok', these, where to go on, or ''}.

local epoch, kind = ARGV[2], ARGV[3]
if is_stale(epoch) then return {'stale'} end

local found = {}
local function take(topic, position)
  local entry = entry_at(position)
  if not entry then return false end
  local record = fields_of(entry)
  found[#found + 1] = {topic, whole(position), record.private and 'p' .. record.t or ''}
  return not record.private
end

if kind == 'closed' then
  for i = 4, #ARGV do
    local position = redis.call('HGET', closed_key, ARGV[i])
    if position then take(ARGV[i], tonumber(position)) end
  end
  return {'ok', found, ''}
end

local index, behind, most = id_key(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local function read(place)
  local topic, position = string.match(place, '^([^\n]+)\n(%d+)$')
  return topic, tonumber(position)
end
local on = ''
for i = behind == '' and 7 or tonumber(behind), #ARGV do
  if #found >= most then
    on = whole(i)
    break
  end
  local topic = ARGV[i]
  local places = redis.call(
    'ZREVRANGEBYLEX', index, '[' .. topic .. '\n~', '[' .. topic .. '\n', 'LIMIT', 0, most
  )
  for _, place in ipairs(places) do
    local _, position = read(place)
    if take(topic, position) then break end
  end
end
if #ARGV < 7 then
  local places = redis.call(
    'ZREVRANGEBYLEX', index, behind == '' and '+' or '(' .. behind, '-', 'LIMIT', 0, most
  )
  for _, place in ipairs(places) do take(read(place)) end
  if #places == most then on = places[#places] end
end
return {'ok', found, on}
