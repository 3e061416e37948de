-- Says what a replica has in force, and hears where the set is.
--
-- KEYS: state, replicas
-- ARGV: the replica's name, its epoch, its generation
-- Returns {epoch or '', generation}.
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. redis.call('TIME')[1])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation')
return {state[1] or '', tonumber(state[2] or '0')}
