-- Find out whether the server takes writes, and whether what it publishes arrives.
--
-- ARGV: channel, epoch, 'epoch', 'head', 'store' or 'hear', a word.
-- 'epoch' only asks whether it is that one, 'head' for the head, of whatever epoch. 'store' is refused where an append is. 'hear' is refused by a replica only, and publishes the word
-- first: a server whose disk is full still has subscribers.
-- Returns {'stale'} or {'ok', epoch, last}.

local epoch, kind, word = ARGV[2], ARGV[3], ARGV[4]
if kind == 'hear' then tell('probe', cjson.encode(word)) end
if kind == 'head' and state.epoch then return {'ok', state.epoch, whole(state.last)} end
if is_stale(epoch) then return {'stale'} end
if kind == 'store' then redis.call('HSET', state_key, 'epoch', epoch) end
if kind == 'hear' then begin_on_full_server() end
return {'ok', state.epoch, whole(state.last)}
