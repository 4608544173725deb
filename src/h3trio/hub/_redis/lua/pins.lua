-- Take over what a node pins now, and keep that for a time.
--
-- ARGV: channel, epoch, node, version, what it tells of its topics, seconds, topics at most.
-- Returns {'stale'}, {'pins'} if the node has to tell all of them, or {'ok', 'more' if there are records to count yet, or ''}.

if is_stale(ARGV[2]) then return {'stale'} end
if not can_take_pins(ARGV[3], ARGV[4], ARGV[5]) then return {'pins'} end
begin_on_full_server()
take_pins(ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]))
finish()
return {'ok', state.uncounted > 0 and 'more' or ''}
