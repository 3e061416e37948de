-- Tells counters that lost data what a replica had claimed of them; `lease::loss` over again.
-- KEYS: per counter itself, and a hash of what each replica was granted of it.
-- ARGV: 1 the replica's name; then per counter what it was granted, what all replicas had claimed as
--       far as it knows, and the seconds to live.
-- Answer: per counter where it stands.
local answers = {}
for i = 1, #KEYS / 2 do
  local counter, granted = KEYS[2 * i - 1], KEYS[2 * i]
  local own, taken = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local lives = ARGV[3 * i + 1]
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
  answers[i] = most
end
return answers
