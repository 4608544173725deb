-- Remove records that are too old, or a topic's: as many as one step may.
--
-- ARGV: channel, epoch, 'age', seconds, max_pinned_events and max_pinned_bytes; or 'topic', its name
-- and the first position that stays, 0 for all that there is now.
-- Returns {'stale'} or {'ok', removed, 'more' or '', the first position that stays}. The step that
-- removes the last of a topic takes a place in the order, and the topic is told as purged.

local epoch, kind = ARGV[2], ARGV[3]
if is_stale(epoch) then return {'stale'} end
begin_on_full_server()
end_late_pins(clock())
count_on()

local more, before = false, 0
if kind == 'age' then
  local limit = clock() - tonumber(ARGV[4])
  pin_limits = {events = tonumber(ARGV[5]), bytes = tonumber(ARGV[6])}
  more = remove_oldest(function(record) return tonumber(record.p) < limit end, MAX_REMOVED)
else
  local topic = ARGV[4]
  before = tonumber(ARGV[5])
  if before == 0 then before = state.last + 1 end
  local places = redis.call(
    'ZRANGEBYSCORE', topic_key(topic), '-inf', '(' .. whole(before), 'LIMIT', 0, MAX_REMOVED + 1
  )
  more = #places > MAX_REMOVED
  for i = 1, math.min(#places, MAX_REMOVED) do
    remove_place(topic, places[i])
  end
  if not more then
    mark('*' .. topic, before - 1)
    state.last = state.last + 1
  end
end
if #removed > 0 or kind == 'topic' or has_pinned or more then finish() end
return {'ok', whole(#removed), more and 'more' or '', whole(before)}
