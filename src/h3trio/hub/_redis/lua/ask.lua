-- Bring a question to all nodes, and return those that are there but the one that asks.
--
-- ARGV: channel, channel of questions, node, name of the only one of interest or '', message.
-- Returns {node, name, ...}.

local node, only = ARGV[3], ARGV[4]
local now, found = clock(), {}
local known = redis.call('HGETALL', base .. 'nodes')
for i = 1, #known, 2 do
  local owner, due = string.match(known[i + 1], '^%S+ (%S+) (%S+) ')
  if owner and (tonumber(due) or 0) > now and owner ~= node and (only == '' or only == known[i]) then
    found[#found + 1] = owner
    found[#found + 1] = known[i]
  end
end
redis.call('PUBLISH', ARGV[2], ARGV[5])
return found
