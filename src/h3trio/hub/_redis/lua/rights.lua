-- Try each command of all scripts on keys of no use, and remove these.
--
-- A command that an ACL forbids would stop a script half-way, with a part of a change done. So a hub
-- asks when it connects, and before it does anything.
--
-- ARGV: channel. Returns {'ok'} or {'missing', the commands that are forbidden, with a space between}.

local key = base .. 'none'
local tries = {
  {'TIME'}, {'EXISTS', key}, {'DEL', key},
  {'HSET', key, 'a', '1'}, {'HGET', key, 'a'}, {'HGETALL', key}, {'HEXISTS', key, 'a'},
  {'HINCRBY', key, 'a', '1'}, {'HDEL', key, 'a'}, {'DEL', key},
  {'RPUSH', key, 'a'}, {'LRANGE', key, '0', '-1'}, {'LREM', key, '1', 'a'}, {'DEL', key},
  {'SADD', key, 'a'}, {'SMEMBERS', key}, {'SREM', key, 'a'}, {'DEL', key},
  {'XADD', key, '1-0', 'a', 'b'}, {'XRANGE', key, '-', '+', 'COUNT', '1'},
  {'XREVRANGE', key, '+', '-', 'COUNT', '1'}, {'XLEN', key}, {'XTRIM', key, 'MAXLEN', '1'},
  {'XDEL', key, '1-0'}, {'DEL', key},
  {'ZADD', key, '1', 'a'}, {'ZCARD', key}, {'ZSCORE', key, 'a'}, {'ZINCRBY', key, '1', 'a'},
  {'ZRANGE', key, '0', '0'}, {'ZRANGEBYSCORE', key, '-inf', '+inf'},
  {'ZREVRANGEBYSCORE', key, '+inf', '-inf'}, {'ZREVRANGEBYLEX', key, '+', '-'},
  {'ZPOPMIN', key}, {'ZREM', key, 'a'}, {'DEL', key},
  {'PUBLISH', channel, '["none"]'},
}

-- The words of Redis 7.2 and later, of 7.0, and of 6.
local WORDS = {'ACL failure', 'user executing the script', 'NOPERM'}

local missing, seen = {}, {}
for _, try in ipairs(tries) do
  local reply = redis.pcall(unpack(try))
  local problem, is_forbidden = type(reply) == 'table' and reply.err or '', false
  for _, words in ipairs(WORDS) do
    is_forbidden = is_forbidden or string.find(problem, words, 1, true)
  end
  -- Of a full server, or of one whose disk is, the errors are others; they come later, and pass.
  if is_forbidden then
    if not seen[try[1]] then missing[#missing + 1] = try[1] end
    seen[try[1]] = true
  end
end
if #missing > 0 then return {'missing', table.concat(missing, ' ')} end
return {'ok'}
