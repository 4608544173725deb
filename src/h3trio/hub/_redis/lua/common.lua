-- What all scripts share: the names of keys, the state, and how a change is made and told.
--
-- A script runs as one step. It reads the state, checks, changes, and `finish` writes the state back
-- and tells every hub by one message. What is checked is checked before the first write, and where
-- the server may be full the first write is one that it refuses then: a script that got through it
-- isn't stopped half-way.
--
-- KEYS[1] is the state's key; all others have the same hash tag in braces. ARGV[1] is the channel.
-- Numbers are doubles: positions are exact up to 2^53.

local state_key, channel = KEYS[1], ARGV[1]
local base = string.sub(state_key, 1, -6) -- without "state"
local log_key, epochs_key = base .. 'log', base .. 'epochs'
local sizes_key, closed_key, keys_key = base .. 'sizes', base .. 'closed', base .. 'keys'
local marks_key, noted_key = base .. 'marks', base .. 'noted'
local pins_key, pinned_key, kept_key = base .. 'pins', base .. 'pinned', base .. 'kept'
local counted_key = base .. 'counted'

local MAX_MARKS, MAX_MARK_BYTES = 65536, 16 * 1024 * 1024
local MARK_BYTES = 300 -- of memory, for a mark without its name
local MAX_REMOVED = 500 -- records that one step removes, beyond as many as it adds
local MAX_LOOKED = 1000 -- records that one step looks at, or counts as pinned, and leaves: some ms
local PLACE_BYTES = 100 -- of memory, for a record's place in the index of one topic

local function topic_key(topic) return base .. 'topic:' .. topic end
local function id_key(id) return base .. 'id:' .. id end
local function held_key(node) return base .. 'held:' .. node end
local function full_key(node) return base .. 'full:' .. node end

-- `tostring` would write 1e+15.
local function whole(number) return string.format('%.0f', number) end

local function lines(text) return string.gmatch(text, '[^\n]+') end

local function clock()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1e6
end

-- The state --------------------------------------------------------------------------------------

local TEXTS = {epoch = true, run = true, replication = true, limits = true}
local COUNTERS = {
  'serial', 'last', 'note', 'removed', 'events', 'bytes', 'places', 'topics', 'oldest', 'closed',
  'floor', 'private_floor', 'mark_bytes', 'passed', 'pinned_topics', 'pinned_events',
  'pinned_bytes', 'pins_due', 'uncounted',
}
local TOLD = {
  'epoch', 'serial', 'last', 'note', 'removed', 'events', 'bytes', 'topics', 'oldest', 'closed',
  'floor', 'private_floor', 'pinned_topics', 'pinned_events', 'pinned_bytes',
}

local state, before = {}, {} -- as it is, and as it was found
do
  local found = redis.call('HGETALL', state_key)
  for i = 1, #found, 2 do
    local name, value = found[i], found[i + 1]
    state[name] = TEXTS[name] and value or tonumber(value) or value
  end
  for _, name in ipairs(COUNTERS) do
    before[name] = state[name]
    state[name] = state[name] or 0
  end
end

local function header()
  local told = {}
  for _, name in ipairs(TOLD) do
    local value = state[name] or ''
    told[#told + 1] = name
    told[#told + 1] = type(value) == 'number' and whole(value) or value
  end
  return told
end

-- Without an item cjson can't tell a list from an object.
local function list(items) return #items > 0 and cjson.encode(items) or '[]' end

local function tell(kind, ...)
  redis.call('PUBLISH', channel, '["' .. kind .. '",' .. table.concat({...}, ',') .. ']')
end

-- Records ----------------------------------------------------------------------------------------
-- An entry of the log: p(ublished), t(opics), g: flags, i: its publisher's id, k: its key as it
-- stands in `keys`, f(rame). Flags are p(rivate) and l(ast).

local function fields_of(entry)
  local record, fields = {t = '', g = '', i = '', k = '', f = ''}, entry[2]
  for i = 1, #fields, 2 do record[fields[i]] = fields[i + 1] end
  record.position = tonumber(string.match(entry[1], '^%d+'))
  record.private = string.find(record.g, 'p', 1, true) ~= nil
  record.last = string.find(record.g, 'l', 1, true) ~= nil
  return record
end

local function entries_of(first, last, count)
  return redis.call('XRANGE', log_key, first, last, 'COUNT', count)
end

local function entry_at(position)
  local id = whole(position) .. '-0'
  return entries_of(id, id, 1)[1]
end

-- A record's member of a topic's index: its position, bytes of its frame, and whether it is private.
local function place_of(position, size, private)
  return whole(position) .. ' ' .. size .. (private and ' p' or '')
end

local function read_place(place)
  local position, size, private = string.match(place, '^(%d+) (%d+)( ?p?)$')
  return tonumber(position), tonumber(size), private ~= ''
end

-- A record's member of the index of a publisher's id: sorted by topic, then by position.
local function id_place_of(topic, position)
  return topic .. '\n' .. string.format('%018.0f', position)
end

-- Memory of a record's places in indexes; a publisher's id has one for each topic too.
local function size_of_places(record, topics)
  local size = #record.t + PLACE_BYTES * topics
  if record.i ~= '' then size = 2 * size + #record.i end
  return size
end

-- Changes ----------------------------------------------------------------------------------------

local removed = {} -- positions
local marks, mark_order = {}, {} -- the newest removed position of each, and in which order
local added, first_added = {}, nil -- entries, and the first of their positions
local has_pinned = false -- whether a topic was pinned or unpinned
local pin_limits = {events = 0, bytes = 0} -- room for records of pinned topics

local function mark(name, position)
  if not marks[name] then mark_order[#mark_order + 1] = name end
  marks[name] = math.max(marks[name] or 0, position)
end

-- Records that the limits in all pass over stand in `kept`, with the number of their pinned topics. One
-- that closes a topic goes last of it: for another record there, pinned under a second topic, it is
-- spared, and has none.

local function keep(position, size, topics)
  redis.call('ZADD', kept_key, topics, whole(position))
  state.pinned_events = state.pinned_events + 1
  state.pinned_bytes = state.pinned_bytes + size
end

local function unkeep(position, size)
  redis.call('ZREM', kept_key, whole(position))
  state.pinned_events = state.pinned_events - 1
  state.pinned_bytes = state.pinned_bytes - size
  if state.pinned_events == 0 then state.passed = 0 end
end

local function kept_for(position)
  return state.pinned_events > 0 and redis.call('ZSCORE', kept_key, whole(position))
end

-- Whether a record's topics are pinned, or it is spared. Of some it may not be counted yet.
local function is_held(record)
  if kept_for(record.position) then return true end
  if state.uncounted > 0 then
    for topic in lines(record.t) do
      if redis.call('HEXISTS', pinned_key, topic) == 1 then return true end
    end
  end
  return false
end

local function unspare(position)
  if kept_for(position) == '0' then
    local entry = entry_at(position)
    unkeep(position, entry and #fields_of(entry).f or 0)
  end
  state.passed = math.min(state.passed, position - 1)
end

-- A record isn't pinned any more: it may be why those that close its topics are spared.
local function unspare_beside(position)
  local entry = entry_at(position)
  for topic in lines(entry and fields_of(entry).t or '') do
    local closing = redis.call('HGET', closed_key, topic)
    if closing then unspare(tonumber(closing)) end
  end
end

local function full_pin_limit()
  if state.pinned_events >= pin_limits.events then return 'max_pinned_events' end
  if state.pinned_bytes >= pin_limits.bytes then return 'max_pinned_bytes' end
  return nil
end

local function remove(record)
  local position, size = record.position, #record.f
  local place, topics, spared = place_of(position, size, record.private), 0, {}
  for topic in lines(record.t) do
    topics = topics + 1
    local index = topic_key(topic)
    redis.call('ZREM', index, place)
    if redis.call('EXISTS', index) == 0 then
      redis.call('HDEL', sizes_key, topic)
      state.topics = state.topics - 1
    else
      redis.call('HINCRBY', sizes_key, topic, 0 - size) -- -0 is no number there
    end
    local closing = state.closed > 0 and redis.call('HGET', closed_key, topic)
    if closing == whole(position) then
      redis.call('HDEL', closed_key, topic)
      state.closed = state.closed - 1
    elseif closing and state.pinned_events > 0 then
      spared[#spared + 1] = tonumber(closing) -- this may be why
    end
    if record.i ~= '' then
      redis.call('ZREM', id_key(record.i), id_place_of(topic, position))
    end
    -- Without an event nobody misses anything.
    if size > 0 and not record.private then mark('+' .. topic, position) end
  end
  if size > 0 and record.private then mark('-' .. record.t, position) end
  if record.k ~= '' then redis.call('HDEL', keys_key, record.k) end
  if kept_for(position) then unkeep(position, size) end
  for _, closing in ipairs(spared) do unspare(closing) end
  state.events = state.events - 1
  state.bytes = state.bytes - size
  state.places = state.places - size_of_places(record, topics)
  state.removed = state.removed + 1
  removed[#removed + 1] = whole(position)
end

local function remove_at(position, record)
  remove(record)
  redis.call('XDEL', log_key, whole(position) .. '-0')
end

-- Remove the record that stands at a place of a topic's index.
local function remove_place(topic, place)
  local position = read_place(place)
  local entry = entry_at(position)
  -- Without it somebody else has deleted keys, and this would be found again and again.
  if entry then remove_at(position, fields_of(entry)) else redis.call('ZREM', topic_key(topic), place) end
end

-- Spare a record that closes a topic with another one, which is pinned, by its others; if it may be.
local function spare(record)
  if not record.last or full_pin_limit() then return false end
  for topic in lines(record.t) do
    if redis.call('ZCARD', topic_key(topic)) > 1 then
      keep(record.position, #record.f, 0)
      return true
    end
  end
  return false
end

-- Remove the oldest records while they are due, but for those of pinned topics, and not the newest.
-- Return whether more may be due: one step removes so many, and goes over so many others.
local function remove_oldest(is_due, budget)
  local has_pins, looked = state.pinned_events > 0 or state.uncounted > 0, 0
  -- If nothing is pinned they are taken off the front together: to delete one entry, Redis goes
  -- over those of its node that are deleted already.
  local from, count, front, over, owed = 0, 1, 0, false, false
  while not over do
    -- Up to `passed` all is pinned, if anything is.
    if has_pins then from = math.max(from, state.passed + 1) end
    local entries = entries_of(whole(from), '+', count)
    over = #entries == 0
    for _, entry in ipairs(entries) do
      local record = fields_of(entry)
      local position = record.position
      if position == state.last or #removed >= budget or looked >= MAX_LOOKED then
        over = true
      elseif is_held(record) then
        state.passed, looked = position, looked + 1
      elseif not is_due(record, owed) then
        over = true
      elseif has_pins and spare(record) then
        state.passed, owed, looked = position, true, looked + 1 -- another one goes for it
      elseif has_pins or front < 0 then
        front, owed = -1, false
        remove_at(position, record)
      else
        remove(record)
        front = front + 1
      end
      if over then break end
      from = position + 1
    end
    count = math.min(2 * count, 20)
  end
  if front > 0 then
    redis.call('XTRIM', log_key, 'MAXLEN', whole(redis.call('XLEN', log_key) - front))
  end
  return #removed >= budget or looked >= MAX_LOOKED
end

local function write_marks()
  local told = {}
  for _, name in ipairs(mark_order) do
    local position = marks[name]
    local known = redis.call('HGET', marks_key, name)
    if not known then state.mark_bytes = state.mark_bytes + #name + MARK_BYTES end
    position = math.max(position, tonumber(known or 0))
    state.note = state.note + 1
    redis.call('HSET', marks_key, name, whole(position))
    redis.call('ZADD', noted_key, whole(state.note), name)
    told[#told + 1] = name
    told[#told + 1] = whole(position)
  end
  local count = redis.call('ZCARD', noted_key)
  while count > MAX_MARKS or (state.mark_bytes > MAX_MARK_BYTES and count > 1) do
    -- The one that was noted longest ago becomes the floor of all.
    local name = redis.call('ZPOPMIN', noted_key)[1]
    local position = tonumber(redis.call('HGET', marks_key, name))
    redis.call('HDEL', marks_key, name)
    state.mark_bytes = state.mark_bytes - #name - MARK_BYTES
    local kind = string.sub(name, 1, 1)
    if kind == '+' then state.floor = math.max(state.floor, position) end
    if kind == '-' then state.private_floor = math.max(state.private_floor, position) end
    count = count - 1
  end
  return told
end

-- Write the state back, and tell all hubs what was changed.
local function finish()
  local told = write_marks()
  if #removed > 0 or state.events == #added then
    local first = entries_of('-', '+', 1)[1]
    state.oldest = first and tonumber(string.match(first[1], '^%d+')) or 0
  end
  state.serial = state.serial + 1
  local values = {}
  for _, name in ipairs(COUNTERS) do
    if state[name] ~= before[name] then
      values[#values + 1] = name
      values[#values + 1] = string.format('%.17g', state[name])
    end
  end
  redis.call('HSET', state_key, unpack(values))
  local left = {}
  if first_added then
    local gone = {}
    for _, position in ipairs(removed) do gone[position] = true end
    for _, entry in ipairs(added) do
      if not gone[string.match(entry[1], '^%d+')] then left[#left + 1] = entry end
    end
  end
  tell('log', list(header()), list(removed), list(told), list(left))
end

-- Commands that are refused on a full server come behind this one, which isn't: what makes room, or
-- has to be known in any case, is done there too.
local function begin_on_full_server() redis.call('DEL', base .. 'none') end

-- Pins -------------------------------------------------------------------------------------------
-- `pins`: the version of what each node has told, and until when it holds. `held:NODE`: its topics
-- that are pinned, `full:NODE`: those for which there was no room. `pinned`: the number of nodes that
-- pin each topic. `counted`: topics that were pinned or unpinned, and have so many records that one step
-- doesn't count them all: the position up to which they are counted in `kept`.

local may_count = MAX_LOOKED

-- Count the records of a topic that is pinned, the oldest first; or those of one that isn't any more as
-- not pinned, the newest first. What is added meanwhile stands behind the position, and isn't counted.
local function count_pinned(topic, is_pinned)
  local begun = redis.call('HGET', counted_key, topic)
  local upto = tonumber(begun or is_pinned and 0 or state.last)
  local index, places = topic_key(topic), nil
  if is_pinned then
    places = redis.call('ZRANGEBYSCORE', index, '(' .. whole(upto), '+inf', 'LIMIT', 0, may_count)
  else
    places = redis.call('ZREVRANGEBYSCORE', index, whole(upto), '-inf', 'LIMIT', 0, may_count)
  end
  local has_spared = #redis.call('ZRANGEBYSCORE', kept_key, 0, 0, 'LIMIT', 0, 1) > 0
  for _, place in ipairs(places) do
    local position, size = read_place(place)
    if not is_pinned then
      upto = position - 1
      if tonumber(redis.call('ZINCRBY', kept_key, -1, whole(position))) <= 0 then
        unkeep(position, size)
        if has_spared then unspare_beside(position) end
      end
    else
      upto = position
      if kept_for(position) then
        redis.call('ZINCRBY', kept_key, 1, whole(position))
      else
        keep(position, size, 1)
      end
    end
  end
  has_pinned = true
  local is_over = #places < may_count
  may_count = may_count - #places
  if not is_over then
    if not begun then state.uncounted = state.uncounted + 1 end
    redis.call('HSET', counted_key, topic, whole(upto))
    return
  end
  if begun then
    redis.call('HDEL', counted_key, topic)
    state.uncounted = state.uncounted - 1
  end
end

local function count_on()
  if state.uncounted == 0 then return end
  local known = redis.call('HGETALL', counted_key)
  for i = 1, #known, 2 do
    if may_count == 0 then return end
    count_pinned(known[i], redis.call('HEXISTS', pinned_key, known[i]) == 1)
  end
end

local function pin(topic)
  if redis.call('HINCRBY', pinned_key, topic, 1) > 1 then return end
  state.pinned_topics = state.pinned_topics + 1
  count_pinned(topic, true)
end

local function unpin(topic)
  if redis.call('HINCRBY', pinned_key, topic, -1) > 0 then return end
  redis.call('HDEL', pinned_key, topic)
  state.pinned_topics = state.pinned_topics - 1
  local oldest = redis.call('ZRANGE', topic_key(topic), 0, 0)[1]
  if oldest then state.passed = math.min(state.passed, read_place(oldest) - 1) end
  count_pinned(topic, false)
end

local function forget_node(node)
  for _, topic in ipairs(redis.call('SMEMBERS', held_key(node))) do unpin(topic) end
  redis.call('DEL', held_key(node), full_key(node))
  redis.call('HDEL', pins_key, node)
end

-- But for those of `node`, which is here.
local function end_late_pins(now, node)
  if state.pins_due == 0 or now < state.pins_due then return end
  local known = redis.call('HGETALL', pins_key)
  state.pins_due = 0
  for i = 1, #known, 2 do
    local due = tonumber(string.match(known[i + 1], ' (.*)$'))
    if due < now and known[i] ~= node then
      forget_node(known[i])
    elseif state.pins_due == 0 or due < state.pins_due then
      state.pins_due = due
    end
  end
end

-- A node tells what it pins by a version: '=' for that which the store has, '~', an earlier version and
-- the changes since then, each a line with a sign, or '+' and all topics. '' is the version without any,
-- told with '-' and the number that it would have. A call of a lost connection may come late: versions
-- only grow, and what is older than the known one changes nothing.

local function version_of(node)
  local known = redis.call('HGET', pins_key, node)
  return known and tonumber(string.match(known, '^%S+'))
end

local function can_take_pins(node, version, told)
  if version == '' or string.sub(told, 1, 1) == '+' then return true end
  local known = version_of(node)
  if told == '=' then return known == tonumber(version) end
  return known and known >= tonumber(string.match(told, '^~(%d+)'))
end

local function take_all(node, topics)
  local wanted = {}
  for topic in lines(topics) do wanted[topic] = true end
  for _, topic in ipairs(redis.call('SMEMBERS', held_key(node))) do
    if wanted[topic] then
      wanted[topic] = nil
    else
      redis.call('SREM', held_key(node), topic)
      unpin(topic)
    end
  end
  redis.call('DEL', full_key(node))
  for topic in pairs(wanted) do redis.call('SADD', full_key(node), topic) end
end

-- Of two calls that were on their way at once the later one tells changes that are made: a change may
-- come twice, but what came last for a topic comes last.
local function take_changes(node, changes)
  for sign, topic in string.gmatch(changes, '\n([+-])([^\n]+)') do
    if sign == '-' then
      redis.call('SREM', full_key(node), topic)
      if redis.call('SREM', held_key(node), topic) == 1 then unpin(topic) end
    elseif redis.call('SADD', held_key(node), topic) == 1 then
      redis.call('SREM', held_key(node), topic)
      redis.call('SADD', full_key(node), topic)
    end
  end
end

-- Take over what a node tells. Return those topics for which there is no room, as keys, or nil if
-- there is room for all.
local function take_pins(node, version, told, lease, most)
  local now = clock()
  end_late_pins(now, node)
  count_on()
  if version == '' then
    local known = state.pins_due > 0 and version_of(node)
    if known and known <= tonumber(string.sub(told, 2)) then forget_node(node) end
    return nil
  end
  local sign, known = string.sub(told, 1, 1), version_of(node)
  if known and known > tonumber(version) then
    version = known
  elseif sign == '+' then
    take_all(node, string.sub(told, 2))
  elseif sign == '~' then
    take_changes(node, told)
  end
  local full = nil
  for _, topic in ipairs(redis.call('SMEMBERS', full_key(node))) do
    if state.pinned_topics < most or redis.call('HEXISTS', pinned_key, topic) == 1 then
      redis.call('SREM', full_key(node), topic)
      redis.call('SADD', held_key(node), topic)
      pin(topic)
    else
      full = full or {}
      full[topic] = true
    end
  end
  local due = now + lease
  redis.call('HSET', pins_key, node, version .. ' ' .. string.format('%.3f', due))
  if state.pins_due == 0 or due < state.pins_due then state.pins_due = due end
  return full
end

-- What is asked for by a hub of another past is of no use to it.
local function is_stale(epoch) return state.epoch ~= epoch end
