-- Begin an epoch if the past may be another than it was, and tell a hub that connects how things are.
--
-- ARGV: channel, version, run id, replication id, name for an epoch, the hub's head, epochs kept.
-- Returns {'ok', header, epochs}, {'version', version}, {'remains'}, or {'name'} if that was given.

local VERSION = tonumber(ARGV[2])
local run, replication, name = ARGV[3], ARGV[4], ARGV[5]
local head, most = tonumber(ARGV[6]), tonumber(ARGV[7])

local is_new = state.version == nil
if not is_new and (state.needs or state.version) > VERSION then
  return {'version', tostring(state.version)}
end
if is_new and redis.call('EXISTS', log_key) == 1 then return {'remains'} end

local known = redis.call('LRANGE', epochs_key, 0, -1)
if is_new or state.run ~= run or state.replication ~= replication then
  for _, epoch in ipairs(known) do
    if string.match(epoch, '^%S+') == name then return {'name'} end
  end
  begin_on_full_server()
  if is_new then
    redis.call('HSET', state_key, 'version', VERSION, 'needs', VERSION)
    redis.call('DEL', epochs_key)
    known = {}
  end
  -- Of what is behind the head of the one before nothing is left, whoever has seen it.
  known[#known + 1] = name .. ' ' .. whole(state.last + 1)
  redis.call('RPUSH', epochs_key, known[#known])
  while #known > most do
    local going = 1
    for i = 1, #known - 1 do
      if string.match(known[i], ' .*') == string.match(known[i + 1], ' .*') then
        going = i
        break
      end
    end
    redis.call('LREM', epochs_key, 1, known[going])
    table.remove(known, going)
  end
  state.epoch, state.run, state.replication = name, run, replication
  redis.call('HSET', state_key, 'epoch', name, 'run', run, 'replication', replication)
  state.last = math.max(state.last, head)
  finish()
elseif head > state.last then
  -- Positions go on above the highest that anybody has seen.
  begin_on_full_server()
  state.last = head
  finish()
end
return {'ok', header(), known}
