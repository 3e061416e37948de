-- Applies one change whole, or nothing of it, with its audit event, as one generation.
--
-- KEYS: state, records, tenants, changes, audit
-- ARGV: the epoch of a set that begins, the longest stream of changes, that of events, the event,
--       then for each part of the change: 'put' or 'tenant', its name, what it is expected to be now
--       ('' for nothing), what it shall be
-- Returns {generation, epoch}, or {0, name} where something else stands there than was expected.
local field = {put = KEYS[2], tenant = KEYS[3]}
for at = 5, #ARGV, 4 do
  local present = redis.call('HGET', field[ARGV[at]], ARGV[at + 1]) or ''
  if present ~= ARGV[at + 2] then
    return {0, ARGV[at + 1]}
  end
end
if redis.call('HSETNX', KEYS[1], 'epoch', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'origin', 'issue')
end
local generation = redis.call('HINCRBY', KEYS[1], 'generation', 1)
local entry = {'XADD', KEYS[4], 'MAXLEN', '~', ARGV[2], generation .. '-0', 'event', ARGV[4]}
for at = 5, #ARGV, 4 do
  redis.call('HSET', field[ARGV[at]], ARGV[at + 1], ARGV[at + 3])
  entry[#entry + 1] = ARGV[at]
  entry[#entry + 1] = ARGV[at] == 'put' and ARGV[at + 3] or ARGV[at + 1] .. '=' .. ARGV[at + 3]
end
redis.call('HSET', KEYS[1], 'count', redis.call('HLEN', KEYS[2]))
redis.call(unpack(entry))
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[4])
return {generation, redis.call('HGET', KEYS[1], 'epoch')}
