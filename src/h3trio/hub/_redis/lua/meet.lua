-- Keep what a node tells of itself for a time, and return what all nodes have told.
--
-- `nodes`: for each name since when a node has it, who that is, until when, since when, and its
-- summary. A name belongs to the node that came with it last.
--
-- ARGV: channel, name, node, since ('' at first), seconds (0: it goes), summary, nodes at most.
-- Returns {'ok', since, {name, age, summary, ...}}, {'taken'} or {'full'}.

local nodes_key = base .. 'nodes'
local name, node, since, lease, summary = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]

begin_on_full_server()
local now, count, told = clock(), 0, {}
if since == '' then since = string.format('%.6f', now) end
local known = redis.call('HGETALL', nodes_key)
for i = 1, #known, 2 do
  local began, owner, due, last, text = string.match(known[i + 1], '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  if not began or (tonumber(due) or 0) <= now then
    redis.call('HDEL', nodes_key, known[i])
  elseif known[i] ~= name then
    count = count + 1
    told[#told + 1] = known[i]
    told[#told + 1] = string.format('%.3f', math.max(now - (tonumber(last) or now), 0))
    told[#told + 1] = text
  elseif owner ~= node and (tonumber(began) or 0) > tonumber(since) then
    return {'taken'}
  elseif lease == 0 and owner == node then
    redis.call('HDEL', nodes_key, name)
  end
end
if lease > 0 then
  if count >= tonumber(ARGV[7]) then return {'full'} end
  local parts = {since, node, string.format('%.3f', now + lease), string.format('%.3f', now), summary}
  redis.call('HSET', nodes_key, name, table.concat(parts, ' '))
  told[#told + 1] = name
  told[#told + 1] = '0'
  told[#told + 1] = summary
end
return {'ok', since, told}
