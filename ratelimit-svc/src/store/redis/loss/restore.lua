-- Tells a counter that lost data what a replica had claimed of it; `lease::loss` over again.
-- KEYS: the counter itself, and a hash of what each replica was granted of it.
-- ARGV: the replica's name, what it was granted, what all replicas had claimed as far as it knows, and
--       the seconds to live.
-- Answer: where the counter stands.
local counter, granted = KEYS[1], KEYS[2]
local own, taken, lives = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if own > tonumber(redis.call('HGET', granted, ARGV[1]) or 0) then
  redis.call('HSET', granted, ARGV[1], string.format('%.0f', own))
end
redis.call('EXPIRE', granted, lives)
local sum = 0
for _, part in ipairs(redis.call('HVALS', granted)) do
  sum = sum + tonumber(part)
end
local count = tonumber(redis.call('GET', counter) or 0)
local most = math.max(count, sum, taken)
if most > count then
  redis.call('SET', counter, string.format('%.0f', most), 'EX', lives)
end
return most
