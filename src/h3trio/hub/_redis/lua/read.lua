-- Read records behind a position, or in front of one.
--
-- ARGV: channel, epoch, 'behind', 'before' or 'look', a position, the last position that counts (in
-- that direction), records and bytes at most, then topics, or none for all.
-- 'behind' gives entries in order. 'before' gives them from the newest to the oldest; 'look' does
-- so too, but gives for each only {position, flags and 'e' if it has an event, topics}.
-- Returns {'stale'} or {'ok', number of the last mark, entries, position up to which these are all,
-- 'more' or ''}.

local epoch, way, from, bound = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local MAX_FOUND = 100 -- records that one step finds by topics, one by one: all nodes wait meanwhile
if #ARGV >= 8 then most = math.min(most, MAX_FOUND) end
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
      entries = redis.call('XREVRANGE', log_key, whole(reached - 1), whole(bound), 'COUNT', 20)
    end
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do
      if not take(entry) then return end
    end
  end
end

-- What the index of one topic has behind `reached`: first a few places, then twice as many each time.
local function refill(topic)
  topic.places, topic.at = redis.call(
    forward and 'ZRANGEBYSCORE' or 'ZREVRANGEBYSCORE', topic.key, '(' .. whole(reached),
    whole(bound), 'LIMIT', 0, topic.count
  ), 0
  topic.is_last = #topic.places < topic.count
  topic.count = math.min(2 * topic.count, 1000)
end

-- Go to the next place of a topic behind `reached`; tell whether there is one.
local function next_of(topic)
  repeat
    topic.at = topic.at + 1
    if topic.at > #topic.places then
      if topic.is_last then return false end
      refill(topic)
      topic.at = 1
      if #topic.places == 0 then return false end
    end
    topic.position = read_place(topic.places[topic.at])
  until forward and topic.position > reached or not forward and topic.position < reached
  return true
end

-- Put a topic of a heap where it belongs: the one whose place is next is the first.
local function sift(heap, i)
  local topic = heap[i]
  local function is_before(one, other)
    if forward then return one.position < other.position end
    return one.position > other.position
  end
  while 2 * i <= #heap do
    local below = 2 * i
    if below < #heap and is_before(heap[below + 1], heap[below]) then below = below + 1 end
    if not is_before(heap[below], topic) then break end
    heap[i] = heap[below]
    i = below
  end
  heap[i] = topic
end

-- Merge the indexes of topics, of which the same record may be in several. By a heap, as there may
-- be many of them.
local function of_topics()
  local heap, few = {}, math.max(math.ceil(most / (#ARGV - 7)), 4)
  for i = 8, #ARGV do
    local topic = {key = topic_key(ARGV[i]), count = math.min(few, 1000)}
    refill(topic)
    if next_of(topic) then heap[#heap + 1] = topic end
  end
  for i = math.floor(#heap / 2), 1, -1 do sift(heap, i) end
  while #heap > 0 do
    local position = heap[1].position
    local entry = entry_at(position)
    if entry and not take(entry) then return end
    reached = position
    while #heap > 0 and heap[1].position == position do
      if not next_of(heap[1]) then
        heap[1] = heap[#heap]
        heap[#heap] = nil
      end
      if #heap > 0 then sift(heap, 1) end
    end
  end
end

if #ARGV >= 8 then of_topics() else all() end
if not is_full then reached = bound end
return {'ok', whole(state.note), found, whole(reached), is_full and 'more' or ''}
