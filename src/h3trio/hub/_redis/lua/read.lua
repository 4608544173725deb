-- Read records behind a position, or in front of one.
--
-- ARGV: channel, epoch, 'behind', 'before' or 'look', a position, the last position that counts,
-- records and bytes at most, then topics, or none for all.
-- 'behind' gives entries in order. 'before' gives them from the newest to the oldest; 'look' does
-- so too, but gives for each only {position, flags and 'e' if it has an event, topics}.
-- Returns {'stale'} or {'ok', number of the last mark, entries, position up to which these are all,
-- 'more' or ''}.

local epoch, way, from, bound = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
if is_stale(epoch) then return {'stale'} end

local forward = way == 'behind'
local found, size, reached, is_full = {}, 0, from, false

local function take(entry)
  local record = fields_of(entry)
  size = size + #record.f
  if #found > 0 and (#found >= most or size > most_bytes) then
    is_full = true
    return false
  end
  reached = record.position
  if way == 'look' then
    entry = {whole(record.position), record.g .. (#record.f > 0 and 'e' or ''), record.t}
  end
  found[#found + 1] = entry
  return true
end

local function all()
  while true do
    local entries
    if forward then
      entries = entries_of(whole(reached + 1), whole(bound), 20)
    else
      if reached <= 1 then return end
      entries = redis.call('XREVRANGE', log_key, whole(reached - 1), '-', 'COUNT', 20)
    end
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do
      if not take(entry) then return end
    end
  end
end

-- From the index of each topic the next few; what comes behind the least of those that may have more
-- isn't known to be next.
local function next_of_topics(each)
  local known, positions, edge = {}, {}, nil
  for i = 8, #ARGV do
    local places
    if forward then
      places = redis.call(
        'ZRANGEBYSCORE', topic_key(ARGV[i]), '(' .. whole(reached), whole(bound), 'LIMIT', 0, each
      )
    else
      places = redis.call(
        'ZREVRANGEBYSCORE', topic_key(ARGV[i]), '(' .. whole(reached), '-inf', 'LIMIT', 0, each
      )
    end
    local position
    for _, place in ipairs(places) do
      position = read_place(place)
      if not known[position] then
        known[position] = true
        positions[#positions + 1] = position
      end
    end
    if #places == each then
      if not edge then edge = position end
      edge = forward and math.min(edge, position) or math.max(edge, position)
    end
  end
  table.sort(positions, forward and function(a, b) return a < b end
    or function(a, b) return a > b end)
  return positions, edge
end

local function of_topics()
  local each = math.max(math.ceil(2 * most / (#ARGV - 7)), 4)
  while true do
    local positions, edge = next_of_topics(each)
    for _, position in ipairs(positions) do
      local is_behind = forward and edge and position > edge
      local is_before = not forward and edge and position < edge
      if is_behind or is_before then break end
      local entry = entry_at(position)
      if entry and not take(entry) then return end
      reached = position
    end
    if not edge then return end
  end
end

if #ARGV >= 8 then of_topics() else all() end
if not is_full then reached = forward and bound or 0 end
return {'ok', whole(state.note), found, whole(reached), is_full and 'more' or ''}
