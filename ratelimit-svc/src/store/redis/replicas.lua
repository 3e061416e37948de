-- Leaves a replica's sign of life and counts the replicas that left one of late.
-- KEYS[1]: a sorted set of replicas by the millisecond of their last sign, on this server's clock.
-- ARGV: 1 the replica's name  2 milliseconds for which a sign counts.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lives = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lives)
-- Signs from a server before this one, whose clock was ahead.
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + lives, '+inf')
redis.call('PEXPIRE', KEYS[1], 2 * lives)
return redis.call('ZCARD', KEYS[1])
