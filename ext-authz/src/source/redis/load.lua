-- Puts whole sets, written beside the ones in use, in their place, as a new epoch.
--
-- KEYS: state, records, tenants, changes, audit, new records, new tenants
-- ARGV: the epoch, how many records there must be, the longest stream of events, the event
-- Returns {generation, epoch}, or {0, how many there are} where records are missing.
local count = redis.call('HLEN', KEYS[6])
if count ~= tonumber(ARGV[2]) then
  return {0, tostring(count)}
end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
for at = 6, 7 do
  if redis.call('EXISTS', KEYS[at]) == 1 then
    redis.call('RENAME', KEYS[at], KEYS[at - 4])
    redis.call('PERSIST', KEYS[at - 4])
  end
end
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'origin', 'load', 'count', count)
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[4])
return {generation, ARGV[1]}
