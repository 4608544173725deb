-- Store updates: check each, give it a position and an id, keep to the limits, tell all hubs.
--
-- ARGV: channel, epoch, node, version of its pins, what it tells of them, seconds for which they hold;
-- max_events, max_bytes, max_places, max_topic_events, max_topic_bytes,
-- max_pinned_events, max_pinned_bytes, max_age (0 for none); then for each update: topics, flags, own
-- id, key, digest, and the frame: whole, or the parts in front of the id and behind it.
--
-- Returns {'stale'}, {'pins'} if the node has to tell all of them, or {'ok', an answer for each, the limits of
-- the append before this one}: the position, {'again', id, the last position}, {'key'}, {'closed', topic} or {'pinned', limit}.

local epoch, node, version = ARGV[2], ARGV[3], ARGV[4]
local told, lease = ARGV[5], tonumber(ARGV[6])
local limits = {}
for i, name in ipairs({
  'events', 'bytes', 'places', 'topic_events', 'topic_bytes', 'pinned_events', 'pinned_bytes',
}) do limits[name] = tonumber(ARGV[6 + i]) end

if is_stale(epoch) then return {'stale'} end
if not can_take_pins(node, version, told) then return {'pins'} end

-- The first write: one that a full server refuses.
redis.call('HSET', state_key, 'epoch', epoch, 'limits', table.concat(ARGV, ' ', 7, 14))
local full = take_pins(node, version, told, lease, limits.pinned_events)
pin_limits = {events = limits.pinned_events, bytes = limits.pinned_bytes}
local pinned_full = full_pin_limit()

local function refusal(topics, last)
  if state.closed > 0 then
    for topic in lines(topics) do
      if redis.call('HEXISTS', closed_key, topic) == 1 then return {'closed', topic} end
    end
  end
  if last or not (full or (pinned_full and state.pinned_topics > 0)) then return nil end
  for topic in lines(topics) do
    if full and full[topic] then return {'pinned', 'max_pinned_events'} end
    if pinned_full and redis.call('HEXISTS', pinned_key, topic) == 1 then
      return {'pinned', pinned_full}
    end
  end
  return nil
end

local function add(record, digest)
  local position = state.last + 1
  local size = #record.f
  local place, id = place_of(position, size, record.private), whole(position) .. '-0'
  local fields = {
    'e', epoch, 'p', record.p, 't', record.t, 'g', record.g, 'i', record.i, 'k', record.k,
    'f', record.f,
  }
  redis.call('XADD', log_key, id, unpack(fields))
  local pinned, topics = 0, 0
  for topic in lines(record.t) do
    topics = topics + 1
    redis.call('ZADD', topic_key(topic), whole(position), place)
    redis.call('HINCRBY', sizes_key, topic, size)
    if redis.call('ZCARD', topic_key(topic)) == 1 then state.topics = state.topics + 1 end
    if record.last then
      redis.call('HSET', closed_key, topic, whole(position))
      state.closed = state.closed + 1
    end
    if record.i ~= '' then redis.call('ZADD', id_key(record.i), 0, id_place_of(topic, position)) end
    if state.pinned_topics > 0 and redis.call('HEXISTS', pinned_key, topic) == 1
      and (state.uncounted == 0 or redis.call('HEXISTS', counted_key, topic) == 0) then
      pinned = pinned + 1
    end
  end
  if record.k ~= '' then
    redis.call('HSET', keys_key, record.k, whole(position) .. ' ' .. digest .. ' ' .. record.id)
  end
  if pinned > 0 then keep(position, size, pinned) end
  state.last = position
  state.events = state.events + 1
  state.bytes = state.bytes + size
  state.places = state.places + size_of_places(record, topics)
  first_added = first_added or position
  added[#added + 1] = {id, fields}
  return position
end

local now = redis.call('TIME')
local published = now[1] .. '.' .. string.format('%06d', tonumber(now[2]))
local answers = {}
local with_last = {} -- topics to which a record without an event was added
for i = 15, #ARGV, 7 do
  local topics, flags, own, key, digest = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local front, back = ARGV[i + 5], ARGV[i + 6]
  local is_last = string.find(flags, 'l', 1, true) ~= nil
  local first = key ~= '' and redis.call('HGET', keys_key, key)
  local answer
  if first then
    local known, id = string.match(first, '^%d+ (%S+) (.*)$')
    answer = known == digest and {'again', id, whole(state.last)} or {'key'}
  else
    answer = refusal(topics, is_last)
  end
  if not answer then
    local id = own ~= '' and own or epoch .. '-' .. whole(state.last + 1)
    local record = {
      p = published, t = topics, g = flags, i = own, k = key, id = id, last = is_last,
      private = string.find(flags, 'p', 1, true) ~= nil,
      -- What has its own id is whole, and what has no event is empty.
      f = (own ~= '' or #front + #back == 0) and front or front .. 'id: ' .. id .. '\n' .. back,
    }
    answer = whole(add(record, digest))
    if #record.f == 0 then
      for topic in lines(topics) do with_last[topic] = true end
    end
  end
  answers[#answers + 1] = answer
end

local budget = MAX_REMOVED + #added
if limits.topic_events > 0 or limits.topic_bytes > 0 then
  local seen = {}
  for _, entry in ipairs(added) do
    for topic in lines(entry[2][6]) do
      -- One without an event takes no event's place.
      local more = with_last[topic] and 1 or 0
      while not seen[topic] and #removed < budget do
        local count = redis.call('ZCARD', topic_key(topic))
        local size = tonumber(redis.call('HGET', sizes_key, topic) or 0)
        if count - more <= 1
          or not ((limits.topic_events > 0 and count - more > limits.topic_events)
            or (limits.topic_bytes > 0 and size > limits.topic_bytes)) then break end
        remove_place(topic, redis.call('ZRANGE', topic_key(topic), 0, 0)[1])
      end
      seen[topic] = true
    end
  end
end
if #added > 0 then
  remove_oldest(function(_, owed)
    local events = state.events - state.pinned_events
    return owed or events > 1 and (events > limits.events
      or state.bytes - state.pinned_bytes > limits.bytes or state.places > limits.places)
  end, budget)
end
if #added > 0 or has_pinned then
  finish()
elseif version ~= '' then
  -- Nobody has anything to hear but that the pins go on.
  redis.call('HSET', state_key, 'pins_due', string.format('%.17g', state.pins_due))
end
return {'ok', answers, state.limits or ''}
